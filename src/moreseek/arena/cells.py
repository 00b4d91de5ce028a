"""Votes as cells: how often each outcome happened between each left and right contestant.

Whatever the number of votes, M contestants have at most M(M-1) cells of four counts, and ratings with their
intervals need nothing else (only clustered intervals look at single votes).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from moreseek.arena.votes import OUTCOMES, SCORES, Votes

_CHUNK = 1 << 17  # votes whose keys stay in the processor's cache
_DENSE = 1 << 24  # keys that a table may have before they are sorted instead
KINDS = len(OUTCOMES)


@dataclass(frozen=True)
class Cells:
    """K rows, one for each ordered pair (left, right) that met; contestants never meet themselves here."""

    names: tuple[str, ...]
    left: np.ndarray  # (K,) places in names
    right: np.ndarray  # (K,)
    counts: np.ndarray  # (K, 4) weight of each outcome
    squares: np.ndarray  # (K, 4) squared weights: the same as counts when every vote counts once
    self_battles: float = 0.0

    @property
    def size(self) -> int:
        """M, the number of contestants."""
        return len(self.names)

    @property
    def votes(self) -> float:
        """All votes (their weight)."""
        return float(self.counts.sum())

    @cached_property
    def battles(self) -> np.ndarray:
        """Weight of each pair, (K,)."""
        return self.counts @ np.ones(KINDS)  # a sum along an axis of four takes ten times as long

    @property
    def left_score(self) -> np.ndarray:
        """Wins of the left contestant, ties counted half, (K,)."""
        return self.counts @ SCORES

    def per_contestant(self, of_pair: np.ndarray, of_pair_right: np.ndarray | None = None) -> np.ndarray:
        """Sum a number of each pair over the contestants in it, (M,)."""
        right = of_pair if of_pair_right is None else of_pair_right
        return np.bincount(self.left, of_pair, self.size) + np.bincount(self.right, right, self.size)

    def square(self, of_pair: np.ndarray) -> np.ndarray:
        """A number of each pair as a table, (M, M), zero where none met."""
        M = self.size
        return np.bincount(self.left * M + self.right, of_pair, M * M).reshape(M, M)

    def less(self, row: int, outcome: int, count: float) -> "Cells":
        """Without ``count`` votes of one cell."""
        counts, squares = self.counts.copy(), self.squares.copy()
        counts[row, outcome] -= count
        squares[row, outcome] -= count
        return Cells(self.names, self.left, self.right, counts, squares)


def count_cells(votes: Votes) -> Cells:
    """One pass over the votes. Battles of a contestant with itself say nothing and are counted apart."""
    M = len(votes.names)
    tables = [_table(votes, M, None)]
    if votes.weight is not None:
        tables = [_table(votes, M, votes.weight), _table(votes, M, votes.weight**2)]
    keys = np.unique(np.concatenate([table[0] for table in tables])) if len(tables) > 1 else tables[0][0]
    counts = tables[0][1] if len(tables) == 1 else _aligned(tables[0], keys)
    squares = counts if len(tables) == 1 else _aligned(tables[1], keys)
    left, right = keys // max(M, 1), keys % max(M, 1)
    apart = left == right
    return Cells(
        votes.names, left[~apart], right[~apart], counts[~apart], squares[~apart], float(counts[apart].sum())
    )  # fmt: skip


def from_counts(names: Sequence[str], counts: np.ndarray) -> Cells:
    """Cells from a whole table (M, M, 4): outcomes of left contestant, right contestant."""
    left, right = np.nonzero(counts @ np.ones(KINDS))
    apart = left != right
    left, right = left[apart], right[apart]
    chosen = counts[left, right].astype(np.float64)  # (K, 4)
    return Cells(tuple(names), left, right, chosen, chosen, float(np.einsum("iik->", counts)))


def _aligned(table: tuple[np.ndarray, np.ndarray], keys: np.ndarray) -> np.ndarray:
    out = np.zeros((len(keys), KINDS))
    out[np.searchsorted(keys, table[0])] = table[1]
    return out


def _table(votes: Votes, M: int, weight: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Keys left * M + right that have votes, (K,), and their four counts, (K, 4)."""
    if KINDS * M * M > _DENSE:
        return _sorted_table(votes, M, weight)
    counts = np.zeros(KINDS * M * M)
    key = np.empty(_CHUNK, np.intp)
    for start in range(0, len(votes), _CHUNK):
        stop = min(start + _CHUNK, len(votes))
        part = key[: stop - start]
        np.multiply(votes.a[start:stop], M, out=part)
        part += votes.b[start:stop]
        part *= KINDS
        part += votes.outcome[start:stop]
        counts += np.bincount(part, None if weight is None else weight[start:stop], counts.size)
    table = counts.reshape(M * M, KINDS)
    keys = np.flatnonzero(table.any(axis=1))
    return keys, table[keys]


def _sorted_table(votes: Votes, M: int, weight: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """The same for so many contestants that most pairs never meet."""
    key = (votes.a.astype(np.int64) * M + votes.b) * KINDS + votes.outcome
    cells, place = np.unique(key, return_inverse=True)
    weights = np.bincount(place.reshape(-1), weight, cells.size).astype(np.float64)
    keys, row = np.unique(cells // KINDS, return_inverse=True)
    counts = np.zeros((len(keys), KINDS))
    counts[row.reshape(-1), cells % KINDS] = weights
    return keys, counts
