"""Quantiles, Holm's correction, tied ranks and rank ranges. numpy and the standard library only."""

import math
from functools import cache
from statistics import NormalDist

import numpy as np

_EXACT_DF = 200  # up to here Student's distribution is summed exactly


def two_sided_p(statistic: np.ndarray, df: float = math.inf) -> np.ndarray:
    """P(|T| ≥ |statistic|) for Student's t, or the normal distribution (``df`` infinite).

    A finite sum for whole df (Abramowitz & Stegun 26.7.3 and 26.7.4); beyond 200 a normal approximation (Wallace
    1959) whose error is below 1e-7.
    """
    t = np.abs(np.asarray(statistic, dtype=np.float64))
    if df <= _EXACT_DF:
        return np.clip(1.0 - _student(t, max(1, int(df))), 0.0, 1.0)
    if math.isfinite(df):
        t = (8 * df + 1) / (8 * df + 3) * np.sqrt(df * np.log1p(t**2 / df))
    return np.array(list(map(math.erfc, (t / math.sqrt(2)).ravel().tolist()))).reshape(t.shape)


def _student(t: np.ndarray, df: int) -> np.ndarray:
    angle = np.arctan(t / math.sqrt(df))
    cos, sin = np.cos(angle), np.sin(angle)
    if df % 2 == 0:
        term, total = np.ones_like(t), np.ones_like(t)
        for k in range(2, df, 2):
            term = term * cos**2 * (k - 1) / k
            total = total + term
        return sin * total
    term, total = cos.copy(), cos.copy() if df > 1 else np.zeros_like(t)
    for k in range(3, df, 2):
        term = term * cos**2 * (k - 1) / k
        total = total + term
    return 2 / math.pi * (angle + sin * total)


@cache
def critical(level: float = 0.95, df: float = math.inf) -> float:
    """How many standard errors an interval reaches to each side."""
    if df == math.inf:
        return NormalDist().inv_cdf(0.5 + level / 2)
    low, high = 0.0, 1e6
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if two_sided_p(np.array([middle]), df)[0] > 1 - level else (low, middle)
    return (low + high) / 2


def holm(p: np.ndarray, level: float = 0.05) -> np.ndarray:
    """Which of the hypotheses are rejected with a family-wise error of at most ``level`` (Holm 1979)."""
    p = np.asarray(p, dtype=np.float64)
    alone = np.flatnonzero(p <= level)  # others cannot pass
    order = alone[np.argsort(p[alone], kind="stable")]
    passed = p[order] <= level / np.arange(len(p), len(p) - len(order), -1)
    rejected = np.zeros(len(p), bool)
    rejected[order] = np.logical_and.accumulate(passed)
    return rejected


def holm_adjusted(p: np.ndarray) -> np.ndarray:
    """p-values that can be compared with the level themselves."""
    p = np.asarray(p, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    raised = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)) if len(p) else p
    out = np.empty(len(p))
    out[order] = np.minimum(raised, 1.0)
    return out


def differences(values: np.ndarray, covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All differences value_i − value_j and their standard errors, both (M, M).

    Of several covariances, (W, M, M), the one that is least sure of a difference counts for it.
    """
    several = covariance if covariance.ndim == 3 else covariance[None]
    variance = np.diagonal(several, axis1=1, axis2=2)
    spread = (variance[:, :, None] + variance[:, None, :] - several - several.transpose(0, 2, 1)).max(axis=0)
    return values[:, None] - values[None, :], np.sqrt(np.maximum(spread, 0.0))


def better_than(values: np.ndarray, covariance: np.ndarray, level: float = 0.95, df: float = math.inf) -> np.ndarray:
    """Table (M, M): i is significantly better than j, over all pairs at once (Holm)."""
    M = len(values)
    gap, se = differences(values, covariance)
    i, j = np.triu_indices(M, 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.where(se > 0, np.abs(gap) / se, 0.0)[i, j]
    # Holm's correction passes nothing that would not pass alone, so only those need a p-value.
    p = np.ones(len(z))
    alone = z >= critical(level, df) - 1e-6
    p[alone] = two_sided_p(z[alone], df)
    found = np.zeros((M, M), bool)
    found[i, j] = holm(p, 1 - level)
    return (found | found.T) & (gap > 0)


def tied_ranks(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """1 + how many have an interval that lies wholly above, (M,): several can share the first rank."""
    return 1 + (low[None, :] > high[:, None]).sum(axis=1)


def rank_ranges(better: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Best and worst rank of each that the significant differences leave open, (M,) each.

    With a table of Holm's, all true ranks lie in their ranges at once in 95 % of cases.
    """
    return 1 + better.sum(axis=0), len(better) - better.sum(axis=1)
