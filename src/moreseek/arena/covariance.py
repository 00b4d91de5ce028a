"""How sure the strengths are: model-based, sandwich, cluster-robust (one way or two), and the bootstrap.

Every covariance is of strengths with mean zero (natural log-odds): V = H⁺ B H⁺ with H the Hessian and B the outer
product of the votes' scores (White 1982; by clusters Liang & Zeger 1986; two ways Cameron, Gelbach & Miller 2011).
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from moreseek.arena.cells import Cells, count_cells
from moreseek.arena.fit import Fit, fit, sigmoid
from moreseek.arena.votes import KEEP_ALONE, SCORES, Labels, Votes

FEWEST_CLUSTERS = 5
_TABLE = 1 << 21  # numbers in one block of cluster scores: 16 MB


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


def clustered(votes: Votes, found: Fit, clusters: Sequence[Labels], plain: np.ndarray) -> np.ndarray:
    """V when votes of one cluster depend on one another; with two sorts of clusters, in both ways at once.

    Each part is multiplied by G / (G − 1), G being its number of clusters. A vote without a label is a cluster of
    its own. Two ways: V_1 + V_2 − V_12, where 12 are the votes that share both; directions in which that falls
    below zero, as it can with few clusters, are set to zero. ``plain`` is the covariance of independent votes, below
    which no contestant's variance is taken that fewer than 5 clusters speak of.
    """
    if not clusters:
        raise ValueError("no clusters to be robust against.")
    residual = residuals(votes, found)
    extra = np.ones((len(votes), 1)) if found.has_side else None
    meat, told = clusters_meat(votes, residual, clusters, extra)
    V = _around(found, meat)
    return floored(V if len(clusters) == 1 else lifted(V), told, plain)


def floored(V: np.ndarray, told: np.ndarray, plain: np.ndarray) -> np.ndarray:
    """Raise variances that rest on too few clusters, ``told`` (M,), to those of independent votes.

    The summed score of a contestant is zero at the fit. Where all its votes are of one cluster, that cluster's score
    is this zero, and without a floor the contestant would look perfectly certain.
    """
    few = np.flatnonzero(told < FEWEST_CLUSTERS)
    V = V.copy()
    V[few, few] = np.maximum(V[few, few], plain[few, few])
    return V


def clusters_meat(
    votes: Votes, residual: np.ndarray, clusters: Sequence[Labels], extra: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """The middle of the sandwich for one or two sorts of clusters, and how many clusters tell of each contestant."""
    codes = [_alone(labels) for labels in clusters]
    meat, told = cluster_meat(votes, residual, codes[0], extra)
    if len(codes) == 2:
        both = codes[0] * (int(codes[1].max(initial=0)) + 1) + codes[1]
        both = np.unique(both, return_inverse=True)[1].reshape(-1)
        second, told_second = cluster_meat(votes, residual, codes[1], extra)
        meat += second - cluster_meat(votes, residual, both, extra)[0]
        told = np.minimum(told, told_second)
    return meat, told


def cluster_count(labels: Labels) -> int:
    """G: how many clusters there are, votes without a label counted one each."""
    known = labels.codes[labels.codes != KEEP_ALONE]
    return len(np.unique(known)) + int((labels.codes == KEEP_ALONE).sum())


def bootstrap(cells: Cells, found: Fit, resamples: int = 500, seed: int = 0) -> np.ndarray:
    """Strengths of resampled votes, (resamples, M): the slow twin of the sandwich."""
    counts = cells.counts.reshape(-1)
    total = round(float(counts.sum()))
    rng = np.random.default_rng(seed)
    out = np.empty((resamples, cells.size))
    for row in range(resamples):
        drawn = rng.multinomial(total, counts / counts.sum()).reshape(cells.counts.shape).astype(np.float64)
        out[row] = _refit(Cells(cells.names, cells.left, cells.right, drawn, drawn), found)
    return out


def cluster_bootstrap(votes: Votes, found: Fit, clusters: Labels, resamples: int = 500, seed: int = 0) -> np.ndarray:
    """Strengths when whole clusters are drawn anew, (resamples, M): the slow twin of the cluster-robust interval."""
    codes = _alone(clusters)
    G = int(codes.max(initial=-1)) + 1
    rng = np.random.default_rng(seed)
    out = np.empty((resamples, len(votes.names)))
    for row in range(resamples):
        times = np.bincount(rng.integers(G, size=G), minlength=G).astype(np.float64)
        out[row] = _refit(count_cells(votes.with_weight(times[codes])), found)
    return out


def _refit(cells: Cells, found: Fit) -> np.ndarray:
    # A resample can lose the one vote that connected it, so it always gets a weak prior.
    return fit(cells, prior=max(found.prior, 1e-3), start=found.theta).theta


def _meat(cells: Cells, found: Fit) -> np.ndarray:
    M = cells.size
    residual = SCORES[None, :] - _chance(found, cells.left, cells.right)[:, None]  # (K, 4)
    spread = (cells.squares * residual**2).sum(axis=1)
    met = cells.square(spread)
    out = np.zeros((M + found.has_side, M + found.has_side))
    out[:M, :M] = -(met + met.T)
    out[np.arange(M), np.arange(M)] = met.sum(axis=0) + met.sum(axis=1)
    if found.has_side:
        out[:M, M] = out[M, :M] = cells.per_contestant(spread, -spread)
        out[M, M] = spread.sum()
    return out


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


def cluster_meat(
    votes: Votes, residual: np.ndarray, cluster: np.ndarray, extra: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Σ over clusters of s sᵀ, times G / (G − 1); s (M + F,) are the summed scores of a cluster's votes.

    Also the number of clusters with something to say of each contestant, (M,).

    ``extra`` (n, F) are the features of votes whose coefficients are fitted along, a column of ones for the side.
    """
    M, G = len(votes.names), int(cluster.max(initial=-1)) + 1
    width = M + (0 if extra is None else extra.shape[1])
    meat, told = np.zeros((width, width)), np.zeros(M, np.int64)
    if G <= 1:
        return meat, told
    rows = max(1, _TABLE // max(width, 1))
    order = None if rows >= G else np.argsort(cluster, kind="stable")
    edges = [0, len(votes)]
    if order is not None:
        edges = np.searchsorted(cluster[order], np.arange(0, G + rows, rows)).tolist()
    for start, stop in pairwise(edges):
        chosen = slice(start, stop) if order is None else order[start:stop]
        scores = _score_sums(votes, residual, cluster, extra, chosen, width)
        meat += scores.T @ scores
        told += np.count_nonzero(scores[:, :M], axis=0)
    return meat * (G / (G - 1)), told


def _score_sums(
    votes: Votes, residual: np.ndarray, cluster: np.ndarray, extra: np.ndarray | None, chosen: slice | np.ndarray,
    width: int,
) -> np.ndarray:  # fmt: skip
    """Summed scores of the clusters of the chosen votes, (clusters, width)."""
    group, left = cluster[chosen], residual[chosen]
    if len(group) == 0:
        return np.zeros((0, width))
    group = group - int(group.min())
    G, M = int(group.max()) + 1, len(votes.names)
    place = group.astype(np.intp) * width
    scores = np.bincount(place + votes.a[chosen], left, G * width)
    scores -= np.bincount(place + votes.b[chosen], left, G * width)
    for column in range(width - M):
        assert extra is not None
        scores += np.bincount(place + (M + column), left * extra[chosen, column], G * width)
    return scores.reshape(G, width)


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


def _alone(labels: Labels) -> np.ndarray:
    """Codes without gaps, (n,); each vote without a label becomes a cluster of its own."""
    codes = labels.codes.astype(np.int64)
    missing = np.flatnonzero(codes == KEEP_ALONE)
    codes[missing] = int(codes.max(initial=-1)) + 1 + np.arange(len(missing))
    return np.unique(codes, return_inverse=True)[1].reshape(-1)


def lifted(V: np.ndarray) -> np.ndarray:
    """The nearest covariance without negative directions."""
    values, vectors = np.linalg.eigh((V + V.T) / 2)
    if values.min(initial=0.0) >= 0:
        return V
    return (vectors * np.maximum(values, 0.0)) @ vectors.T
