"""Do voters agree? Krippendorff's α over battles that several people judged, and each voter against the others."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from moreseek.arena.votes import A_WINS, B_WINS, OUTCOMES, SCORES, Votes
from moreseek.errors import InputError


@dataclass(frozen=True)
class Agreement:
    """``alpha`` is 1 for full agreement, 0 for chance; None where nothing can be compared."""

    alpha: float | None
    units: int  # questions that at least two people answered
    judgements: int
    per_voter: dict[str, float]  # share of the other votes on the same questions that were the same


def agreement(votes: Votes, distance: Literal["nominal", "interval"] = "nominal") -> Agreement:
    """Agreement on the questions "which of these two, for this prompt?", whichever side they were shown on.

    ``distance``: "nominal" takes the four outcomes as kinds, "interval" as scores 1, ½, 0 (Krippendorff 2011).
    """
    if "prompt" not in votes.labels:
        raise InputError("agreement needs to know which votes were on the same prompt: a column 'prompt'.")
    chosen = (votes.labels["prompt"].codes >= 0) & (votes.a != votes.b)
    votes = votes.where(chosen)
    table, unit = _table(votes)
    judged = table.sum(axis=1)  # (U,)
    paired = table[judged > 1]
    sizes = judged[judged > 1]
    alpha = _alpha(paired, sizes, distance)
    return Agreement(alpha, len(paired), int(sizes.sum()), _per_voter(votes, table, unit))


def _table(votes: Votes) -> tuple[np.ndarray, np.ndarray]:
    """How often each question got each outcome, (U, 4), and the question of each vote, (n,)."""
    M = max(1, len(votes.names))
    low, high = np.minimum(votes.a, votes.b).astype(np.int64), np.maximum(votes.a, votes.b)
    key = (votes.labels["prompt"].codes.astype(np.int64) * M + low) * M + high
    questions, unit = np.unique(key, return_inverse=True)
    unit = unit.reshape(-1)
    kinds = len(OUTCOMES)
    table = np.bincount(unit * kinds + _turned(votes), minlength=len(questions) * kinds)
    return table.reshape(-1, kinds).astype(np.float64), unit


def _turned(votes: Votes) -> np.ndarray:
    """Outcomes as if the contestant that comes first in the names had always been on the left, (n,)."""
    outcome = votes.outcome.astype(np.int64)
    swapped = np.select([outcome == A_WINS, outcome == B_WINS], [B_WINS, A_WINS], outcome)
    return np.where(votes.a < votes.b, outcome, swapped)


def _alpha(table: np.ndarray, sizes: np.ndarray, distance: str) -> float | None:
    """1 − observed / expected disagreement, from counts (U, 4) of questions with at least two answers."""
    total = sizes.sum()
    if total == 0:
        return None
    apart = 1.0 - np.eye(len(OUTCOMES)) if distance == "nominal" else (SCORES[:, None] - SCORES[None, :]) ** 2
    observed = (np.einsum("uc,cd,ud->u", table, apart, table) / (sizes - 1)).sum() / total
    margin = table.sum(axis=0)
    # Which of two contestants comes first is a matter of naming, so a win of either is expected alike.
    margin[[A_WINS, B_WINS]] = margin[[A_WINS, B_WINS]].mean()
    expected = margin @ apart @ margin / (total * (total - 1))
    return float(1 - observed / expected) if expected > 0 else None


def _per_voter(votes: Votes, table: np.ndarray, unit: np.ndarray) -> dict[str, float]:
    voters = votes.labels.get("voter")
    if voters is None:
        return {}
    turned = _turned(votes)
    same, others = table[unit, turned] - 1, table.sum(axis=1)[unit] - 1  # (n,)
    chosen = (voters.codes >= 0) & (others > 0)
    agreed = np.bincount(voters.codes[chosen], same[chosen], len(voters.names))
    asked = np.bincount(voters.codes[chosen], others[chosen], len(voters.names))
    return {name: float(agreed[i] / asked[i]) for i, name in enumerate(voters.names) if asked[i] > 0}
