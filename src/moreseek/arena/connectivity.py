"""Which contestants can be compared at all: the strongly connected components of the win graph.

The maximum-likelihood ratings exist exactly when every contestant can be reached from every other over wins (a tie is
half a win each way): Ford 1957. Otherwise some would be infinitely far apart.
"""

import numpy as np

from moreseek.arena.cells import Cells
from moreseek.arena.votes import A_WINS, B_WINS


def components(cells: Cells) -> np.ndarray:
    """The number of each contestant's component, (M,), counted from 1; the largest comes first."""
    M = cells.size
    if M == 0:
        return np.zeros(0, np.int64)
    not_left, not_right = cells.battles - cells.counts[:, A_WINS], cells.battles - cells.counts[:, B_WINS]
    beaten = np.zeros((M, M), bool)  # beaten[i, j]: i has at least half a win over j
    beaten[cells.left[not_right > 0], cells.right[not_right > 0]] = True
    beaten[cells.right[not_left > 0], cells.left[not_left > 0]] = True
    if _reached(beaten, 0).all() and _reached(beaten.T, 0).all():
        return np.ones(M, np.int64)
    number = np.full(M, -1)
    groups: list[np.ndarray] = []
    for start in range(M):
        if number[start] < 0:
            group = np.flatnonzero(_reached(beaten, start) & _reached(beaten.T, start))
            number[group] = len(groups)
            groups.append(group)
    order = sorted(range(len(groups)), key=lambda group: (-len(groups[group]), groups[group][0]))
    place = np.empty(len(groups), np.int64)
    place[order] = np.arange(1, len(groups) + 1)
    return place[number]


def _reached(edges: np.ndarray, start: int) -> np.ndarray:
    """Everything that can be reached from ``start``, itself included, (M,) bool."""
    reached = np.zeros(len(edges), bool)
    reached[start] = True
    border = reached
    while border.any():
        border = edges[border].any(axis=0) & ~reached
        reached = reached | border
    return reached


def describe(names: tuple[str, ...], number: np.ndarray, most: int = 6) -> str:
    """The components in words: {A, B, … +12}, {C}."""
    groups = []
    for component in range(1, int(number.max()) + 1)[:most] if number.size else []:
        inside = [names[place] for place in np.flatnonzero(number == component)]
        left = len(inside) - most
        groups.append("{" + ", ".join(inside[:most]) + (f", … +{left}" if left > 0 else "") + "}")
    left = (int(number.max()) if number.size else 0) - most
    return ", ".join(groups) + (f", … +{left}" if left > 0 else "")
