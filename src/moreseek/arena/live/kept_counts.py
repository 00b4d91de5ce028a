"""Counts of boards in memory, moved by the ledger: reading 40,000 rows again after each vote would take too long."""

import threading
from collections.abc import Sequence

import numpy as np
from sqlalchemy import Connection

from moreseek.arena.store import counts, ledger
from moreseek.arena.store.registry import Registered
from moreseek.arena.votes import OUTCOMES

_SILENT = {"judge", "judgement", "action", "changed", "withdrawn", "forgotten"}  # lines that move no count
_MOST_LINES = 2_000  # after more lines than that the counts themselves are read sooner


class KeptCounts:
    """Safe to ask from several threads; what other processes wrote is seen too."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[tuple[str, str], tuple[int, np.ndarray]] = {}  # the last line that is in it; (M, M, 4)

    def table(self, connection: Connection, known: Sequence[Registered], board: str, category: str) -> np.ndarray:
        """Counts (M, M, 4) of a board at the connection's moment, in the order of ``known``: the registry then."""
        head, _ = ledger.head(connection)
        with self._lock:
            seq, table = self._kept.get((board, category), (0, np.empty((0, 0, len(OUTCOMES)))))
        if len(table) == len(known) and seq <= head:
            moved = _moved(connection, known, seq, head, table, board, category)
        else:  # not read yet, somebody entered, or this connection sees an earlier moment
            moved = None
        if moved is None:
            moved = counts.table(connection, [row.id for row in known], board, category)
        with self._lock:
            if seq <= head:
                self._kept[board, category] = head, moved
        return moved.copy()


def _moved(
    connection: Connection, known: Sequence[Registered], seq: int, head: int, table: np.ndarray, board: str,
    category: str,
) -> np.ndarray | None:  # fmt: skip
    """The table after the lines since; None where they did more than add votes."""
    if head == seq:
        return table
    if head - seq > _MOST_LINES:
        return None
    fresh = [entry for _, entry, _ in ledger.lines(connection, seq)]
    if any(entry["kind"] != "vote" and entry["kind"] not in _SILENT for entry in fresh):
        return None
    places, out = {row.name: place for place, row in enumerate(known)}, table.copy()
    for entry in fresh:
        if entry["kind"] == "vote":
            a, b = places[entry["left"]], places[entry["right"]]
            rated = entry["set_apart"] is None
            keys = counts.board_keys(known[a].kind, known[b].kind, entry["category"], entry["language"], rated)
            if (board, category) in keys:
                out[a, b, OUTCOMES.index(entry["outcome"])] += 1
    return out
