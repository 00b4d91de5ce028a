"""The middle of a cluster-robust sandwich: Σ over clusters of s sᵀ, s being the summed scores of a cluster's votes."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from moreseek.arena.votes import KEEP_ALONE, Labels, Votes

FEWEST_CLUSTERS = 5
"""Fewer clusters than this do not tell how much clusters differ."""
_TABLE = 1 << 21  # numbers in one block of cluster scores: 16 MB


def cluster_count(labels: Labels) -> int:
    """G: how many clusters there are, votes without a label counted one each."""
    given = np.bincount(labels.codes + 1, minlength=1)  # KEEP_ALONE comes first
    return int(np.count_nonzero(given[1:]) + given[0])


def cluster_codes(labels: Labels) -> np.ndarray:
    """Codes without gaps, (n,); each vote without a label becomes a cluster of its own."""
    codes = labels.codes.astype(np.int64)
    missing = np.flatnonzero(codes == KEEP_ALONE)
    codes[missing] = int(codes.max(initial=-1)) + 1 + np.arange(len(missing))
    given = np.bincount(codes, minlength=1) > 0
    return codes if given.all() else (np.cumsum(given) - 1)[codes]


def crossed(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Codes of the clusters of votes that share both, (n,)."""
    return np.unique(first * (int(second.max(initial=0)) + 1) + second, return_inverse=True)[1].reshape(-1)


def signed_parts(clusters: Sequence[Labels]) -> list[tuple[float, np.ndarray]]:
    """Cluster codes with the sign of their part: one way, or two ways as V_1 + V_2 − V_12."""
    codes = [cluster_codes(labels) for labels in clusters]
    parts = [(1.0, code) for code in codes]
    return [*parts, (-1.0, crossed(*codes))] if len(codes) == 2 else parts


def clusters_meats(
    votes: Votes, residual: np.ndarray, clusters: Sequence[Labels], extra: np.ndarray | None = None
) -> tuple[list[np.ndarray], np.ndarray]:
    """The middle for one sort of clusters, or for two: both ways at once, and each way alone.

    Also how many clusters tell of each contestant, (M,).
    """
    meats, fewest = [], np.full(len(votes.names), np.iinfo(np.int64).max)
    parts = signed_parts(clusters)
    for sign, codes in parts:
        meat, told = cluster_meat(votes, residual, codes, extra)
        meats.append(sign * meat)
        fewest = np.minimum(fewest, told) if sign > 0 else fewest
    return (meats if len(parts) == 1 else [sum(meats[1:], meats[0]), *meats[:2]]), fewest


def cluster_meat(
    votes: Votes, residual: np.ndarray, cluster: np.ndarray, extra: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Σ s sᵀ, times G / (G − 1), and the number of clusters with something to say of each contestant, (M,).

    ``extra`` (n, F) are features of votes whose coefficients are fitted along.
    """
    M, G = len(votes.names), int(cluster.max(initial=-1)) + 1
    width = M + (0 if extra is None else extra.shape[1])
    if G <= 1:
        return np.zeros((width, width)), np.zeros(M, np.int64)
    alone = np.bincount(cluster, minlength=G)[cluster] == 1
    meat, told = _together(votes, residual, cluster, extra, np.flatnonzero(~alone), width)
    if alone.any():
        chosen = np.flatnonzero(alone)
        single = votes.where(chosen)
        meat += independent_meat(single, residual[chosen], None if extra is None else extra[chosen])
        there = residual[chosen] != 0
        told += np.bincount(single.a[there], minlength=M) + np.bincount(single.b[there], minlength=M)
    return meat * (G / (G - 1)), told


def independent_meat(votes: Votes, residual: np.ndarray, extra: np.ndarray | None = None) -> np.ndarray:
    """Σ s sᵀ where every vote is a cluster of its own."""
    M = len(votes.names)
    F = 0 if extra is None else extra.shape[1]
    square = residual**2
    met = np.bincount(votes.a.astype(np.intp) * M + votes.b, square, M * M).reshape(M, M)
    out = np.zeros((M + F, M + F))
    out[:M, :M] = -(met + met.T)
    out[np.arange(M), np.arange(M)] = met.sum(axis=0) + met.sum(axis=1)
    if extra is not None:
        for column in range(F):
            mixed = square * extra[:, column]
            out[:M, M + column] = np.bincount(votes.a, mixed, M) - np.bincount(votes.b, mixed, M)
        out[M:, :M] = out[:M, M:].T
        out[M:, M:] = (extra * square[:, None]).T @ extra
    return out


def _together(
    votes: Votes, residual: np.ndarray, cluster: np.ndarray, extra: np.ndarray | None, chosen: np.ndarray, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Σ s sᵀ of the chosen votes, whose clusters have several, block by block of clusters."""
    M = len(votes.names)
    meat, told = np.zeros((width, width)), np.zeros(M, np.int64)
    if len(chosen) == 0:
        return meat, told
    rows = max(1, _TABLE // max(width, 1))
    G = int(cluster.max()) + 1
    edges = [0, len(chosen)]
    if rows < G:
        chosen = chosen[np.argsort(cluster[chosen], kind="stable")]
        edges = np.searchsorted(cluster[chosen], np.arange(0, G + rows, rows)).tolist()
    for start, stop in pairwise(edges):
        if start < stop:
            scores = _score_sums(votes, residual, cluster, extra, chosen[start:stop], width)
            meat += scores.T @ scores
            told += np.count_nonzero(scores[:, :M], axis=0)
    return meat, told


def _score_sums(
    votes: Votes, residual: np.ndarray, cluster: np.ndarray, extra: np.ndarray | None, chosen: np.ndarray, width: int
) -> np.ndarray:
    """Summed scores of the clusters of the chosen votes, (clusters, width)."""
    left, group = residual[chosen], cluster[chosen]
    group = group - int(group.min())
    G, M = int(group.max()) + 1, len(votes.names)
    place = group.astype(np.intp) * width
    scores = np.bincount(place + votes.a[chosen], left, G * width)
    scores -= np.bincount(place + votes.b[chosen], left, G * width)
    for column in range(width - M):
        assert extra is not None
        scores += np.bincount(place + (M + column), left * extra[chosen, column], G * width)
    return scores.reshape(G, width)


def sum_variance(parts: np.ndarray, clusters: Sequence[Labels]) -> float:
    """Variance of a sum of n parts that depend on one another within clusters; no less than by either way alone."""
    found = []
    for sign, codes in signed_parts(clusters):
        G = int(codes.max(initial=-1)) + 1
        sums = np.bincount(codes, parts, max(G, 1))
        found.append(sign * G / (G - 1) * float(sums @ sums) if G > 1 else 0.0)
    return max(sum(found), *found, 0.0)
