"""What boards are made of, in memory: the registry and the counts, moved by the ledger's new lines.

Reading 40,000 rows and a hundred contestants again after each vote would take longer than the board itself.
"""

import threading
from collections.abc import Sequence

import numpy as np
from sqlalchemy import Connection

from moreseek.arena.store import counts, ledger, registry
from moreseek.arena.store.registry import Registered
from moreseek.arena.votes import OUTCOMES

Board = tuple[str, str]
"""A board's name and its category."""
_SILENT = {"judge", "judgement", "forgotten"}  # lines that move neither a count nor the registry
_OF_REGISTRY = {"action", "changed", "withdrawn"}  # those that move the registry alone
_MOST_LINES = 2_000  # after more lines than that everything is read anew sooner


class Kept:
    """Safe to ask from several threads; what other processes wrote is seen too."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seq = -1  # the last line that is in the following
        self._known: Sequence[Registered] = ()
        self._tables: dict[Board, np.ndarray] = {}  # (M, M, 4); never changed, only replaced

    def known(self, connection: Connection) -> Sequence[Registered]:
        """Every contestant ever entered, in order of entry, at the connection's moment."""
        with self._lock:
            return self._known if self._caught_up(connection) else registry.registered(connection)

    def counted(self, connection: Connection, *boards: Board) -> tuple[Sequence[Registered], list[np.ndarray]]:
        """The same, and the counts (M, M, 4) of each board in their order, to be read only."""
        with self._lock:
            if not self._caught_up(connection):
                known = registry.registered(connection)
                return known, [_table(connection, known, board) for board in boards]
            for board in boards:
                if board not in self._tables:
                    self._tables[board] = _table(connection, self._known, board)
            return self._known, [self._tables[board] for board in boards]

    def _caught_up(self, connection: Connection) -> bool:
        """Whether what is kept is of the connection's moment, after the lines since; it may see an earlier one."""
        head, _ = ledger.head(connection)
        if head > self._seq:
            self._follow(connection, head)
        return head == self._seq

    def _follow(self, connection: Connection, head: int) -> None:
        near = self._seq >= 0 and head - self._seq <= _MOST_LINES
        fresh = [entry for _, entry, _ in ledger.lines(connection, self._seq)] if near else []
        kinds = {entry["kind"] for entry in fresh} - _SILENT
        if not near or kinds - _OF_REGISTRY - {"vote"}:  # votes went, or somebody came
            self._tables.clear()
        else:
            places = {row.name: place for place, row in enumerate(self._known)}
            for entry in fresh:
                if entry["kind"] == "vote":
                    self._add(entry, places[entry["left"]], places[entry["right"]])
        if not near or kinds - {"vote"}:
            self._known = registry.registered(connection)
        self._seq = head

    def _add(self, vote: dict[str, str], a: int, b: int) -> None:
        rated = vote["set_apart"] is None
        kinds = self._known[a].kind, self._known[b].kind
        for key in counts.board_keys(*kinds, vote["category"], vote["language"], rated):
            if key in self._tables:
                moved = self._tables[key].copy()
                moved[a, b, OUTCOMES.index(vote["outcome"])] += 1
                self._tables[key] = _read_only(moved)


def _table(connection: Connection, known: Sequence[Registered], board: Board) -> np.ndarray:
    return _read_only(counts.table(connection, [row.id for row in known], *board))


def _read_only(table: np.ndarray) -> np.ndarray:
    table.setflags(write=False)
    return table
