"""Ratings from blind votes: Bradley–Terry with intervals that know about voters and prompts, and tied ranks.

    import moreseek
    ratings = moreseek.arena.ratings.bradley_terry({"a": [...], "b": [...], "outcome": [...]})

docs/arena.md has the formulas and their sources.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from moreseek.arena.cautions import Caution
from moreseek.arena.cells import Cells, count_cells
from moreseek.arena.clusters import cluster_count
from moreseek.arena.columns import as_votes
from moreseek.arena.connectivity import components, describe
from moreseek.arena.covariance import clustered, model_based, sandwich, side_variance
from moreseek.arena.fit import Fit, fit, side_is_known
from moreseek.arena.resampling import bootstrap, cluster_bootstrap
from moreseek.arena.result import MIN_VOTES, POINTS, Ratings, plain
from moreseek.arena.votes import A_WINS, B_WINS, Labels, Votes
from moreseek.errors import FaultError, InputError

__all__ = ["MIN_VOTES", "POINTS", "Ratings", "bradley_terry", "from_cells", "plain", "settle"]
FEW_CLUSTERS = 30
Interval = Literal["sandwich", "model", "bootstrap"]


def bradley_terry(
    battles: Any,
    *,
    cluster: Sequence[str] | None = ("voter", "prompt"),
    prior: float | None = None,
    interval: Interval = "sandwich",
    level: float = 0.95,
    min_votes: int = MIN_VOTES,
    names: Sequence[str] | None = None,
) -> Ratings:
    """Rate contestants from battles with columns a, b and outcome (see ``columns.as_votes`` for what they may hold).

    ``cluster``: columns whose votes depend on one another; those that the battles lack are passed over, and None
    takes votes as independent. ``prior``: weight of one virtual half-win and half-loss of everybody against the mean;
    None takes none where the ratings exist without it, else 1, with a warning that names the components.
    ``interval``: "sandwich" (robust, the default), "model" (the inverse Hessian, for comparison) or "bootstrap" (its
    slow twin, which can draw whole clusters of one sort anew).
    """
    votes = as_votes(battles, names)
    cells = count_cells(votes)
    if votes.gaps and len(np.unique(np.concatenate([cells.left, cells.right]))) < len(votes.names):
        votes = votes.present()
        cells = count_cells(votes)
    clusters = {name: votes.labels[name] for name in cluster or () if name in votes.labels}
    if len(clusters) > 2:
        raise InputError(f"intervals can be clustered in two ways at most, not by {', '.join(clusters)}.")
    found, component, warnings = settle(cells, prior)
    if interval == "model":
        V, clusters = model_based(found), {}
    elif interval == "bootstrap":
        V = _resampled(votes, cells, found, list(clusters.values()))
    else:
        V = sandwich(cells, found)
        if clusters and len(votes):
            V = np.array(clustered(votes, found, list(clusters.values()), V))
    counted = {name: cluster_count(labels) for name, labels in clusters.items()} if len(votes) else {}
    return Ratings(
        votes.names, found.theta, V, cells, found, component, {k: max(2, v) for k, v in counted.items()}, level,
        min_votes, lambda: _side(votes, cells, found, list(clusters.values())),
        (*votes.warnings, *warnings, *_cautions(cells, counted)),
    )  # fmt: skip


def _resampled(votes: Votes, cells: Cells, found: Fit, clusters: Sequence[Labels]) -> np.ndarray:
    if len(clusters) > 1:
        raise InputError("the bootstrap can draw clusters of one sort anew: cluster by voter or by prompt.")
    draws = cluster_bootstrap(votes, found, clusters[0]) if clusters else bootstrap(cells, found)
    return np.cov(draws, rowvar=False).reshape(cells.size, cells.size)


def _side(votes: Votes, cells: Cells, found: Fit, clusters: Sequence[Labels]) -> tuple[float, float] | None:
    with_side = _side_fit(cells, found)
    if with_side is None:
        return None
    variance = side_variance(votes, with_side, clusters) if clusters else float(sandwich(cells, with_side)[-1, -1])
    return with_side.side, math.sqrt(max(0.0, variance))


def from_cells(cells: Cells, *, start: np.ndarray | None = None, min_votes: int = MIN_VOTES) -> Ratings:
    """Ratings from counts alone, in milliseconds however many votes there were; intervals take votes as independent.

    ``start`` (M,) are strengths near the answer, such as those before the last vote.
    """
    found, component, warnings = settle(cells, None, start)
    return Ratings(
        cells.names, found.theta, sandwich(cells, found), cells, found, component, {}, min_votes=min_votes,
        warnings=tuple(warnings),
    )  # fmt: skip


def settle(cells: Cells, prior: float | None, start: np.ndarray | None = None) -> tuple[Fit, np.ndarray, list[str]]:
    """The fit, the components, and a warning when only a prior makes the ratings finite."""
    component = components(cells)
    apart = int(component.max(initial=0)) > 1
    if prior is not None and not (math.isfinite(prior) and prior >= 0):
        raise InputError(f"a prior of {prior} is not a number from 0 up.")
    if apart and prior == 0:
        raise InputError(
            f"without a prior these votes give no finite ratings: the win graph falls into {int(component.max())} "
            f"components {describe(cells.names, component)}. Give a prior, for example 1."
        )
    used = (1.0 if apart else 0.0) if prior is None else prior
    warnings: list[str] = []
    if apart:
        warnings.append(Caution("apart", components=int(component.max()), named=describe(cells.names, component)))
    return fit(cells, used, start=start), component, warnings


def _side_fit(cells: Cells, found: Fit) -> Fit | None:
    """The fit with a side term; none where the side cannot be told from the contestants (always the same one left)."""
    wins = cells.counts.sum(axis=0)[[A_WINS, B_WINS]]
    if wins.min() <= 0 or not side_is_known(cells, found):
        return None
    try:
        return fit(cells, found.prior, side=True, start=found.theta)
    except FaultError:
        return None


def _cautions(cells: Cells, clusters: dict[str, int]) -> list[str]:
    out: list[str] = []
    if cells.votes == 0:
        out.append(Caution("no_votes"))
    if cells.self_battles:
        out.append(Caution("self_battles", battles=plain(cells.self_battles)))
    for name, count in clusters.items():
        if cells.votes and count < FEW_CLUSTERS:
            out.append(Caution("few_clusters", clusters=count, by=name, df=max(1, count - 1)))
    return out
