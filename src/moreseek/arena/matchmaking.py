"""Which two fight next: P(pair) ∝ σ²/n − σ²/(n + 1), what one more vote takes off the pair's variance, with a floor."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import numpy as np

from moreseek.arena.votes import A_WINS, B_WINS


@dataclass(frozen=True)
class Candidate:
    """Who may be drawn. ``place`` is its place in the counts."""

    id: int
    name: str
    kind: str
    place: int


@dataclass(frozen=True)
class Draw:
    """A drawn pair, already on its sides."""

    left: Candidate
    right: Candidate
    probability: float  # of this pair, whichever side
    across: bool


def chances(
    candidates: Sequence[Candidate], counts: np.ndarray, floor: float, across: float
) -> list[tuple[Candidate, Candidate, float]]:
    """Every pair and its probability; they sum to 1. Nothing where no two can meet.

    ``counts`` (M, M, 4). ``floor`` is the share that is drawn evenly, ``across`` that of battles between classes.
    """
    pairs = [(a, b) for i, a in enumerate(candidates) for b in candidates[i + 1 :]]
    if not pairs:
        return []
    gain = np.array([_gain(counts, a.place, b.place) for a, b in pairs])
    apart = np.array([a.kind != b.kind for a, b in pairs])
    share = np.where(apart, across, 1.0 - across)
    out = np.zeros(len(pairs))
    for group in (apart, ~apart):
        if group.any():
            mixed = (1 - floor) * gain[group] / gain[group].sum() + floor / group.sum()
            out[group] = share[group] * mixed
    if out.sum() <= 0:
        return []  # only pairs across classes are left, and the house wants none
    out /= out.sum()
    return [(a, b, float(chance)) for (a, b), chance in zip(pairs, out, strict=True) if chance > 0]


def _gain(counts: np.ndarray, i: int, j: int) -> float:
    """σ²/n − σ²/(n + 1) of a pair; one imagined win each keeps the variance of the first votes above nothing."""
    wins = counts[i, j, A_WINS] + counts[j, i, B_WINS] + 1.0
    losses = counts[i, j, B_WINS] + counts[j, i, A_WINS] + 1.0
    ties = counts[i, j, 2:].sum() + counts[j, i, 2:].sum()
    n = wins + losses + ties
    mean = (wins + ties / 2) / n
    variance = (wins * (1 - mean) ** 2 + losses * mean**2 + ties * (0.5 - mean) ** 2) / n
    return variance / (n * (n + 1))


def draw(
    candidates: Sequence[Candidate], counts: np.ndarray, floor: float, across: float, random: Random
) -> Draw | None:
    """A pair at random, its sides too. None where no two can meet."""
    pairs = chances(candidates, counts, floor, across)
    if not pairs:
        return None
    a, b, chance = random.choices(pairs, weights=[pair[2] for pair in pairs])[0]
    left, right = (a, b) if random.random() < 0.5 else (b, a)
    return Draw(left, right, chance, a.kind != b.kind)
