"""The slow twins of the sandwich: the bootstrap over votes, and over whole clusters of them."""

import numpy as np

from moreseek.arena.cells import Cells, count_cells
from moreseek.arena.clusters import cluster_codes
from moreseek.arena.fit import Fit, fit
from moreseek.arena.votes import Labels, Votes


def bootstrap(cells: Cells, found: Fit, resamples: int = 500, seed: int = 0) -> np.ndarray:
    """Strengths of resampled votes, (resamples, M)."""
    counts = cells.counts.reshape(-1)
    total = round(float(counts.sum()))
    rng = np.random.default_rng(seed)
    out = np.empty((resamples, cells.size))
    for row in range(resamples):
        drawn = rng.multinomial(total, counts / counts.sum()).reshape(cells.counts.shape).astype(np.float64)
        out[row] = _refit(Cells(cells.names, cells.left, cells.right, drawn, drawn), found)
    return out


def cluster_bootstrap(votes: Votes, found: Fit, clusters: Labels, resamples: int = 500, seed: int = 0) -> np.ndarray:
    """Strengths when whole clusters are drawn anew, (resamples, M)."""
    codes = cluster_codes(clusters)
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
