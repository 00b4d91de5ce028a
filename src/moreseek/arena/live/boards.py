"""Boards of a running arena: never older than the last vote, computed once, kept until the next one."""

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from sqlalchemy import Connection

from moreseek.arena.cells import count_cells
from moreseek.arena.live.kept import Kept
from moreseek.arena.live.lasting import Lasting
from moreseek.arena.ratings import Ratings, from_cells
from moreseek.arena.replay import Replay
from moreseek.arena.standings import (
    BOARDS,
    CLUSTERED_VOTES,
    board_from_counts,
    board_name,
    board_of,
    cells_that_met,
    on_board,
    style_board_of,
)
from moreseek.arena.store import history, ledger, registry, tallies
from moreseek.arena.store.database import Database
from moreseek.arena.store.tallies import Tally
from moreseek.arena.store.vote_list import Which, styled
from moreseek.arena.vote_lines import STYLE
from moreseek.config import did_you_mean
from moreseek.errors import InputError

STYLE_FRESH_S = 30.0
"""How old a style-controlled board may be: it is fitted to votes one by one."""


class LiveBoards:
    """Safe to ask from several threads; what other processes wrote is seen too."""

    def __init__(self, database: Database, min_votes: int, most: int = CLUSTERED_VOTES) -> None:
        self._database, self._min_votes, self._most = database, min_votes, most
        self._lock = threading.Lock()
        self._replay, self._replayed = Replay(), 0
        self._seen = -1
        self.kept = Kept()
        self._kept: dict[tuple[str, str], dict[str, Any]] = {}
        self._styled = Lasting(STYLE_FRESH_S)
        self._closed = -1

    def board(self, board: str = "overall", category: str = "") -> dict[str, Any]:
        """The leaderboard's JSON. Raises InputError for a board that cannot be."""
        _check(board)
        with self._lock, self._database.read() as connection:
            last, _ = ledger.head(connection)
            if last != self._seen:
                self._kept.clear()
                self._seen = last
            if (board, category) not in self._kept:
                self._kept[board, category] = self._compute(connection, board, category)
            return self._kept[board, category]

    def style_board(
        self, board: str = "overall", category: str = "", features: tuple[str, ...] = STYLE
    ) -> dict[str, Any]:
        """The board with these features of the answers held equal, from its latest votes that tell them.

        It is at most half a minute old.
        """
        _check(board)

        def make() -> dict[str, Any]:
            with self._database.read() as connection:
                families = {row.name: row.family for row in self.kept.known(connection)}
                votes = styled(connection, Which(board, category), self._most, features)
            return style_board_of(votes, families, board_name(board, category), self._min_votes, features)

        return self._styled.get((board, category, features), make)

    def contestants(self) -> dict[str, registry.Registered]:
        """Every contestant ever entered, by name."""
        with self._database.read() as connection:
            return {row.name: row for row in self.kept.known(connection)}

    def tallies(self) -> dict[str, Tally]:
        """What the answers of each contestant took, by name."""
        with self._database.read() as connection:
            names = {row.id: row.name for row in self.kept.known(connection)}
            return {names[one]: tally for one, tally in tallies.means(connection).items()}

    def table(self, board: str = "overall", category: str = "") -> tuple[list[str], np.ndarray]:
        """All contestants, and the counts (M, M, 4) of a board."""
        with self._database.read() as connection:
            known, (table,) = self.kept.counted(connection, (board, category))
            return [row.name for row in known], table

    def trend(self, board: str, category: str, now: float) -> Sequence[history.Point]:
        """The board at the end of each day, and as it is now."""
        with self._database.read() as connection:
            past = [point for point in history.of(connection, board, category) if point.day < history.day_of(now)]
            ratings, _ = self._from_counts(connection, board, category)
        rows = ratings.rows()
        keys = ("name", "rating", "ci_low", "ci_high", "battles")
        return [*past, *(history.Point(history.day_of(now), *(row[key] for key in keys)) for row in rows)]

    def close_days(self, now: float) -> None:
        """Before the first vote of a day: keep every board as the day before it, of those with votes, left it."""
        today = history.day_of(now)
        if self._closed == today:
            return
        with self._database.read() as connection:
            noted, last = history.days(connection)
        if last is not None and last < today and noted != last:
            with self._database.write() as connection:
                noted, last = history.days(connection)
                if last is not None and last < today:
                    self._keep_days(connection, noted, last)
        self._closed = today

    def _keep_days(self, connection: Connection, noted: int | None, last: int) -> None:
        if noted is None:  # the first time, or after an import: earlier days can only come from the votes
            self._keep_early_days(connection, last)
        elif noted < last:
            for board, category in history.boards(connection):
                ratings, ids = self._from_counts(connection, board, category)
                history.note(connection, last, board, category, ratings, ids)

    def _keep_early_days(self, connection: Connection, last: int) -> None:
        replay = ledger.replay(connection)
        ids = {row.name: row.id for row in self.kept.known(connection)}
        for board, category in history.boards(connection):
            votes = on_board(replay, board, category)
            assert votes.time is not None
            for day in sorted({min(history.day_of(at), last) for at in votes.time.tolist()}):
                some = votes.between(stop=(day + 1.0) * history.DAY_S).present()
                history.note(connection, day, board, category, self._rated(some), ids)

    def _rated(self, votes: Any) -> Ratings:
        return from_cells(count_cells(votes), min_votes=self._min_votes)

    def _from_counts(self, connection: Connection, board: str, category: str) -> tuple[Ratings, dict[str, int]]:
        known, (table,) = self.kept.counted(connection, (board, category))
        cells = cells_that_met([row.name for row in known], table)
        return from_cells(cells, min_votes=self._min_votes), {row.name: row.id for row in known}

    def _compute(self, connection: Connection, board: str, category: str) -> dict[str, Any]:
        known, (table,) = self.kept.counted(connection, (board, category))
        if table.sum() > self._most:
            families = {row.name: row.family for row in known}
            return board_from_counts(families, table, board, category, self._min_votes, self._most)
        return board_of(self._read_on(connection), board, category, self._min_votes, self._most)

    def _read_on(self, connection: Connection) -> Replay:
        for seq, entry, _ in ledger.lines(connection, self._replayed):
            self._replay.take(entry)
            self._replayed = seq
        return self._replay


def _check(board: str) -> None:
    if board not in BOARDS:
        raise InputError(f"no board '{board}'{did_you_mean(board, BOARDS)}")
