"""Point estimates with 95 % intervals: accuracy, pass@k, majority vote.

The unit of sampling is the problem: completions of one problem are not independent, so intervals resample
problems, never completions.
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

Z_95 = 1.959963984540054
RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its 95 % interval, all in the unit of the value."""

    value: float
    ci_low: float
    ci_high: float

    def as_dict(self) -> dict[str, float]:
        """The form in which report.json holds it."""
        return {"value": self.value, "ci_low": self.ci_low, "ci_high": self.ci_high}


def wilson(successes: int, trials: int) -> Estimate:
    """A share with its Wilson score interval (Wilson 1927): sensible at 0 and at ``trials``, unlike ±1.96 se."""
    if not 0 <= successes <= trials or trials == 0:
        raise ValueError(f"{successes} successes of {trials} trials is not a share.")
    share = successes / trials
    shrink = 1 + Z_95**2 / trials
    centre = (share + Z_95**2 / (2 * trials)) / shrink
    half = Z_95 * math.sqrt(share * (1 - share) / trials + Z_95**2 / (4 * trials**2)) / shrink
    # At the ends centre ± half equals 0 or 1 only up to rounding; clamp so that the value lies inside.
    return Estimate(share, max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half)))


def bootstrap_mean(values: Sequence[float] | np.ndarray, seed: int = 0, resamples: int = RESAMPLES) -> Estimate:
    """Mean of per-problem values in 0..1 with a percentile bootstrap over problems.

    When every problem scored 0, or every one 1, resampling cannot see any spread; the Wilson interval, which
    bounds any variable on 0..1 with that mean, is given instead of a false certainty.
    """
    scores = np.asarray(values, dtype=np.float64)  # (P,)
    if scores.size == 0:
        raise ValueError("no problems to average over.")
    if np.all(scores == scores[0]) and scores[0] in (0.0, 1.0):
        return wilson(int(scores.sum()), scores.size)
    # Problems with equal scores are interchangeable, and k samples give at most k + 1 different scores.
    distinct, counts = np.unique(scores, return_counts=True)
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(scores.size, counts / scores.size, size=resamples)  # (resamples, distinct scores)
    low, high = np.quantile(drawn @ distinct / scores.size, [0.025, 0.975])
    return Estimate(float(scores.mean()), float(low), float(high))


def pass_at_k(completions: int, right: int, k: int) -> float:
    """Chance that at least one of k completions is right, unbiased (Chen et al. 2021, arXiv 2107.03374, eq. 1).

    ``completions`` were drawn, ``right`` of them were right; k must not exceed ``completions``.
    """
    if not 0 <= right <= completions or not 1 <= k <= completions:
        raise ValueError(f"pass@{k} cannot be estimated from {right} right of {completions} completions.")
    return 1.0 - math.comb(completions - right, k) / math.comb(completions, k)


def majority_vote(votes: Sequence[Hashable | None], right: Hashable) -> float:
    """1 when the commonest answer is the right one, 0 when not; a tie counts its expected value.

    ``None`` (no answer was given) does not vote.
    """
    counts: dict[Hashable, int] = {}
    for vote in votes:
        if vote is not None:
            counts[vote] = counts.get(vote, 0) + 1
    if not counts:
        return 0.0
    most = max(counts.values())
    winners = [vote for vote, count in counts.items() if count == most]
    return float(right in winners) / len(winners)
