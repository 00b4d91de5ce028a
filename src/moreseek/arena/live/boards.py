"""Boards of a running arena: never older than the last vote, computed once, kept until the next one."""

import threading
from typing import Any

from sqlalchemy import Connection

from moreseek.arena.replay import Replay
from moreseek.arena.standings import BOARDS, CLUSTERED_VOTES, board_from_counts, board_of
from moreseek.arena.store import counts, ledger, registry
from moreseek.arena.store.database import Database
from moreseek.config import did_you_mean
from moreseek.errors import InputError


class LiveBoards:
    """Safe to ask from several threads; what other processes wrote is seen too."""

    def __init__(self, database: Database, min_votes: int, most: int = CLUSTERED_VOTES) -> None:
        self._database, self._min_votes, self._most = database, min_votes, most
        self._lock = threading.Lock()
        self._replay, self._replayed = Replay(), 0
        self._seen = -1
        self._kept: dict[tuple[str, str], dict[str, Any]] = {}

    def board(self, board: str = "overall", category: str = "") -> dict[str, Any]:
        """The leaderboard's JSON. Raises InputError for a board that cannot be."""
        if board not in BOARDS:
            raise InputError(f"no board '{board}'{did_you_mean(board, BOARDS)}")
        with self._lock, self._database.read() as connection:
            last, _ = ledger.head(connection)
            if last != self._seen:
                self._kept.clear()
                self._seen = last
            if (board, category) not in self._kept:
                self._kept[board, category] = self._compute(connection, board, category)
            return self._kept[board, category]

    def contestants(self) -> dict[str, registry.Registered]:
        """Every contestant ever entered, by name."""
        with self._database.read() as connection:
            return {row.name: row for row in registry.registered(connection)}

    def replay(self) -> Replay:
        """The whole ledger so far."""
        with self._lock, self._database.read() as connection:
            return self._read_on(connection)

    def _compute(self, connection: Connection, board: str, category: str) -> dict[str, Any]:
        known = registry.registered(connection)
        table = counts.table(connection, [row.id for row in known], board, category)
        if table.sum() > self._most:
            return board_from_counts([row.name for row in known], table, board, category, self._min_votes, self._most)
        return board_of(self._read_on(connection), board, category, self._min_votes, self._most)

    def _read_on(self, connection: Connection) -> Replay:
        for seq, entry, _ in ledger.lines(connection, self._replayed):
            self._replay.take(entry)
            self._replayed = seq
        return self._replay
