"""How sure the strengths are: model-based, sandwich, and cluster-robust in one way or two.

Every covariance is of strengths with mean zero (natural log-odds): V = H⁺ B H⁺ with H the Hessian and B the outer
product of the votes' scores (White 1982; by clusters Liang & Zeger 1986; two ways Cameron, Gelbach & Miller 2011).
"""

from collections.abc import Sequence

import numpy as np

from moreseek.arena.cells import Cells
from moreseek.arena.clusters import FEWEST_CLUSTERS, clusters_meats, sum_variance
from moreseek.arena.fit import Fit, sigmoid
from moreseek.arena.votes import SCORES, Labels, Votes


def centred(inverse: np.ndarray, M: int) -> np.ndarray:
    """An inverse Hessian whose rows are seen from the mean of the strengths."""
    out = inverse.copy()
    if M:
        out[:M] -= inverse[:M].mean(axis=0)
    return out


def model_based(found: Fit) -> np.ndarray:
    """H⁻¹: right when half-win ties were real coin flips. Too wide with many ties, blind to clusters."""
    inverse = centred(found.inverse, len(found.theta))
    return centred(inverse.T, len(found.theta))


def sandwich(cells: Cells, found: Fit) -> np.ndarray:
    """V for independent votes, from the cells alone, (M, M) or (M + 1, M + 1) with a side term."""
    return _around(found, _meat(cells, found))


def clustered(votes: Votes, found: Fit, clusters: Sequence[Labels], plain: np.ndarray) -> list[np.ndarray]:
    """V when votes of one cluster depend on one another; with two sorts of clusters, in both ways at once.

    Each part is multiplied by G / (G − 1), G being its number of clusters. A vote without a label is a cluster of
    its own. Two ways: V_1 + V_2 − V_12, where 12 are the votes that share both. The subtraction can leave a variance
    of nothing, so V_1 and V_2 are given along: nothing is to be taken as surer than by either way alone (MacKinnon,
    Nielsen & Webb 2021). ``plain`` is the covariance of independent votes, below which no contestant's variance is
    taken that fewer than 5 clusters tell of.
    """
    meats, told = clusters_meats(votes, residuals(votes, found), clusters)
    return [floored(_around(found, meat), told, plain) for meat in meats]


def side_variance(votes: Votes, found: Fit, clusters: Sequence[Labels]) -> float:
    """Variance of the side term when votes of one cluster depend on one another: what each vote pulls it, summed."""
    M, row = len(found.theta), found.inverse[-1]
    pull = (row[votes.a] - row[votes.b] + row[M]) * residuals(votes, found)
    return sum_variance(pull, clusters)


def floored(V: np.ndarray, told: np.ndarray, plain: np.ndarray) -> np.ndarray:
    """Raise variances that rest on too few clusters, ``told`` (M,), to those of independent votes.

    The summed score of a contestant is zero at the fit. Where all its votes are of one cluster, that cluster's score
    is this zero, and without a floor the contestant would look perfectly certain.
    """
    few = np.flatnonzero(told < FEWEST_CLUSTERS)
    V = V.copy()
    V[few, few] = np.maximum(V[few, few], plain[few, few])
    return V


def residuals(votes: Votes, found: Fit) -> np.ndarray:
    """Outcome minus expected outcome of each vote, times its weight, (n,); zero for battles with oneself."""
    out = SCORES[votes.outcome]
    out -= _chance(found, votes.a, votes.b)
    return weighted(votes, out)


def weighted(votes: Votes, residual: np.ndarray) -> np.ndarray:
    """Residuals times the votes' weights; battles of a contestant with itself have none."""
    residual[votes.a == votes.b] = 0.0
    if votes.weight is not None:
        residual *= votes.weight
    return residual


def _meat(cells: Cells, found: Fit) -> np.ndarray:
    """Σ s sᵀ over independent votes."""
    M = cells.size
    chance = _chance(found, cells.left, cells.right)
    spread = np.zeros_like(chance)  # (K,)
    for kind, score in enumerate(SCORES):
        spread += cells.squares[:, kind] * (score - chance) ** 2
    met = cells.square(spread)
    out = np.zeros((M + found.has_side, M + found.has_side))
    out[:M, :M] = -(met + met.T)
    out[np.arange(M), np.arange(M)] = met.sum(axis=0) + met.sum(axis=1)
    if found.has_side:
        out[:M, M] = out[M, :M] = cells.per_contestant(spread, -spread)
        out[M, M] = spread.sum()
    return out


def _chance(found: Fit, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return sigmoid(found.theta[left] - found.theta[right] + found.side)


def _around(found: Fit, meat: np.ndarray) -> np.ndarray:
    M = len(found.theta)
    if found.prior > 0:
        # The virtual half-win and half-loss count as votes here too: with the likelihood's curvature but without
        # their spread, a contestant that won everything would look certain.
        chance = sigmoid(found.theta)
        meat = meat.copy()
        meat[np.arange(M), np.arange(M)] += found.prior * 0.5 * ((1 - chance) ** 2 + chance**2)
    bread = centred(found.inverse, M)
    return bread @ meat @ bread.T
