"""Boards of judges, each its own: from what a judge said, which no board of people's holds."""

import threading
from typing import Any

import numpy as np
from sqlalchemy import Connection

from moreseek.arena.judged import PEOPLE, agreed
from moreseek.arena.live.boards import STYLE_FRESH_S
from moreseek.arena.live.lasting import Lasting
from moreseek.arena.standings import CLUSTERED_VOTES, board_name, board_of_votes, style_board_of
from moreseek.arena.store import judges, ledger, registry, tallies, vote_list
from moreseek.arena.store.database import Database
from moreseek.arena.store.tallies import Tally
from moreseek.arena.store.vote_list import Which
from moreseek.arena.vote_lines import votes_from
from moreseek.arena.votes import OUTCOMES, Votes


class JudgedBoards:
    """Never older than the last judgement; safe to ask from several threads."""

    def __init__(self, database: Database, min_votes: int) -> None:
        self._database, self._min_votes = database, min_votes
        self._lock, self._seen = threading.Lock(), -1
        self._kept: dict[Which, dict[str, Any]] = {}
        self._styled = Lasting(STYLE_FRESH_S)

    def names(self) -> list[str]:
        """Every judge, in order of entry."""
        with self._database.read() as connection:
            return judges.names(connection)

    def board(self, which: Which) -> dict[str, Any]:
        """The leaderboard's JSON of ``which.judge``, with its ``judge`` and its ``agreement`` with others."""
        with self._lock, self._database.read() as connection:
            last, _ = ledger.head(connection)
            if last != self._seen:
                self._kept.clear()
                self._seen = last
            if which not in self._kept:
                self._kept[which] = self._compute(connection, which)
            return self._kept[which]

    def _compute(self, connection: Connection, which: Which) -> dict[str, Any]:
        families = {row.name: row.family for row in registry.registered(connection)}
        name = board_name(which.board, which.category, which.judge)
        found = board_of_votes(_votes(connection, which).present(), families, name, self._min_votes, judged=True)
        return found | {"judge": which.judge, "agreement": _agreement(connection, which.judge)}

    def style_board(self, which: Which, features: tuple[str, ...]) -> dict[str, Any]:
        """The same with these features of the answers held equal, from the latest judgements, at most 30 s old.

        Judges like length too. What they judged has no style in the ledger: it is counted in the answers' texts.
        """

        def make() -> dict[str, Any]:
            with self._database.read() as connection:
                families = {row.name: row.family for row in registry.registered(connection)}
                votes = vote_list.styled(connection, which, CLUSTERED_VOTES, features)
            name = board_name(which.board, which.category, which.judge)
            found = style_board_of(votes, families, name, self._min_votes, features, judged=True)
            return found | {"judge": which.judge}

        return self._styled.get((which, features), make)

    def table(self, which: Which) -> tuple[list[str], np.ndarray]:
        """All contestants, and how often a judge said what of them: (M, M, 4) of left, right and outcome."""
        with self._database.read() as connection:
            votes = _votes(connection, which)
        out = np.zeros((len(votes.names), len(votes.names), len(OUTCOMES)))
        np.add.at(out, (votes.a, votes.b, votes.outcome), 1)
        return list(votes.names), out

    def tallies(self, judge: str) -> dict[str, Tally]:
        """What the answers took that a judge judged, by contestant."""
        with self._database.read() as connection:
            names = {row.id: row.name for row in registry.registered(connection)}
            return {names[one]: tally for one, tally in tallies.of_judged(connection, judge).items()}


def _votes(connection: Connection, which: Which) -> Votes:
    labels = ("prompt", "category", "language")
    return votes_from(vote_list.lines(connection, which), vote_list.names(connection), labels)


def _agreement(connection: Connection, judge: str) -> list[dict[str, Any]]:
    """How often people, and other judges, said the same of the same two answers."""
    own = {line["battle"]: line for line in vote_list.lines(connection, Which(judge=judge))}
    whose = {PEOPLE: Which()} | {name: Which(judge=name) for name in judges.names(connection) if name != judge}
    others = {
        name: {line["battle"]: line for line in vote_list.lines(connection, which, vote_list.on_same(which, judge))}
        for name, which in whose.items()
    }
    return agreed(judge, own, others)
