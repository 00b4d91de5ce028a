"""Models that give ties a probability of their own: Davidson, Rao–Kupper, and one that knows "both are bad".

All three are fitted by Fisher scoring on cells. With d = θ_left − θ_right and a tie parameter τ:

* Davidson (1970): P ∝ (e^θ_left, e^θ_right, e^τ e^(θ_left + θ_right)/2).
* Rao & Kupper (1967): P(left) = σ(d − e^τ), P(right) = σ(−d − e^τ), the rest are ties.
* both-bad: Davidson's, with "neither is good enough" as a fourth choice of weight 1. That gives strengths a zero of
  their own: at θ = 0 an answer is as likely to be preferred as both are to be called bad.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from moreseek.arena.cells import Cells, count_cells
from moreseek.arena.columns import as_votes
from moreseek.arena.connectivity import components
from moreseek.arena.fit import sigmoid
from moreseek.arena.ratings import MIN_VOTES, Ratings, bradley_terry
from moreseek.arena.votes import Votes
from moreseek.errors import FaultError, InputError

Model = Literal["davidson", "rao-kupper", "both-bad"]
_Chances = tuple[np.ndarray, np.ndarray]  # P (K, 4), and its log's slopes by θ_left, θ_right, τ: (K, 4, 3)
_STEPS, _CLOSE = 200, 1e-8
_FAR = 50.0  # a strength beyond this is on its way to infinity
_TIE_RIDGE = 1e-4  # holds τ where no tie, or nothing but ties, would send it to infinity


@dataclass(frozen=True)
class TieFit:
    """Strengths with a tie parameter; natural log-odds, mean zero unless ``absolute``."""

    names: tuple[str, ...]
    theta: np.ndarray  # (M,)
    tau: float
    covariance: np.ndarray  # (M + 1, M + 1), τ last; for independent votes (sandwich)
    model: Model
    log_likelihood: float
    prior: float

    @property
    def absolute(self) -> bool:
        """Whether zero means something by itself, and not just the mean of this board."""
        return self.model == "both-bad"

    def chances(self, left: int, right: int) -> np.ndarray:
        """P(left wins, right wins, tie, both bad), (4,); for models without both bad it is part of the tie."""
        P, _ = _MODELS[self.model](self.theta[[left]], self.theta[[right]], self.tau)
        return P[0]


def fit_ties(battles: Any, model: Model = "davidson", prior: float | None = None) -> TieFit:
    """Fit one of the three models to battles with columns a, b and outcome. ``prior`` as in ``bradley_terry``."""
    return fit_cells(count_cells(as_votes(battles)), model, prior)


def fit_cells(cells: Cells, model: Model = "davidson", prior: float | None = None) -> TieFit:
    """The same from counts. Raises FaultError when the fit does not settle."""
    if model == "both-bad" and not cells.counts[:, 3].any():
        raise InputError("no vote says both_bad, so nothing fixes the level of a both-bad board. Use davidson.")
    if prior is not None:
        return _fit(cells, model, prior)
    if components(cells).max(initial=0) > 1:
        return _fit(cells, model, 1.0)
    try:
        return _fit(cells, model, 0.0)
    except FaultError:  # ties can connect a board and still leave these models without a finite maximum
        return _fit(cells, model, 1.0)


def _fit(cells: Cells, model: Model, prior: float) -> TieFit:
    M, absolute = cells.size, model == "both-bad"
    counts, squares = (_merged(table, model) for table in (cells.counts, cells.squares))
    values = np.zeros(M + 1)
    best = _likelihood(cells, counts, values, model, prior)
    for _ in range(_STEPS):
        slope, hessian, _ = _derivatives(cells, counts, values, model, prior, None)
        try:
            step = np.linalg.solve(_tied(hessian, M, free=not (prior > 0 or absolute)), slope)
        except np.linalg.LinAlgError:
            break
        if np.abs(step).max(initial=0.0) < _CLOSE:
            return _finished(cells, counts, squares, values, model, prior, absolute)
        for _ in range(50):
            if _likelihood(cells, counts, values + step, model, prior) >= best - 1e-10 * (1 + abs(best)):
                break
            step = step / 2
        values = values + step
        best = _likelihood(cells, counts, values, model, prior)
        if np.abs(values).max() > _FAR:
            break
    raise FaultError(f"the {model} fit did not settle in {_STEPS} steps. Fit with a prior, for example prior=1.")


def _finished(
    cells: Cells, counts: np.ndarray, squares: np.ndarray, values: np.ndarray, model: Model, prior: float,
    absolute: bool,
) -> TieFit:  # fmt: skip
    M = cells.size
    _, hessian, meat = _derivatives(cells, counts, values, model, prior, squares)
    bread = np.linalg.inv(_tied(hessian, M, free=not (prior > 0 or absolute)))
    theta = values[:M]
    if not absolute and M:
        centre = np.eye(M + 1)
        centre[:M, :M] -= 1.0 / M
        bread, theta = centre @ bread, theta - theta.mean()
    likelihood = _likelihood(cells, counts, values, model, 0.0)
    return TieFit(cells.names, theta, float(values[M]), bread @ meat @ bread.T, model, likelihood, prior)


def _merged(table: np.ndarray, model: Model) -> np.ndarray:
    """Where a model knows no both_bad, it is a tie."""
    if model == "both-bad":
        return table
    return np.column_stack([table[:, :2], table[:, 2] + table[:, 3], np.zeros(len(table))])


def _likelihood(cells: Cells, counts: np.ndarray, values: np.ndarray, model: Model, prior: float) -> float:
    M = cells.size
    P, _ = _MODELS[model](values[:M][cells.left], values[:M][cells.right], float(values[M]))
    theta = values[:M]
    with np.errstate(divide="ignore"):
        logs = np.where(counts > 0, np.log(np.maximum(P, 1e-300)), 0.0)
    virtual = prior * (np.logaddexp(0.0, theta) - 0.5 * theta).sum() + 0.5 * _TIE_RIDGE * values[M] ** 2
    return float((counts * logs).sum() - virtual)


def _derivatives(
    cells: Cells, counts: np.ndarray, values: np.ndarray, model: Model, prior: float, squares: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Slope (M + 1,), Fisher information and, when squared weights are given, the scores' outer product."""
    M = cells.size
    theta = values[:M]
    P, slopes = _MODELS[model](theta[cells.left], theta[cells.right], float(values[M]))
    total = counts.sum(axis=1)
    by_cell = np.einsum("ko,kof->kf", counts, slopes)  # (K, 3)
    slope = np.zeros(M + 1)
    for column, place in enumerate(_places(cells)):
        slope += np.bincount(place, by_cell[:, column], M + 1)
    information = _assembled(cells, np.einsum("k,ko,kof,kog->kfg", total, P, slopes, slopes))
    meat = np.zeros((0, 0))
    if squares is not None:
        meat = _assembled(cells, np.einsum("ko,kof,kog->kfg", squares, slopes, slopes))
    chance = sigmoid(theta)
    inside = np.arange(M)
    slope[:M] += prior * (0.5 - chance)
    slope[M] -= _TIE_RIDGE * values[M]
    information[inside, inside] += prior * chance * (1 - chance)
    information[M, M] += _TIE_RIDGE
    if squares is not None:
        meat[inside, inside] += prior * 0.5 * ((1 - chance) ** 2 + chance**2)
    return slope, information, meat


def _places(cells: Cells) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return cells.left, cells.right, np.full(len(cells.left), cells.size)


def _assembled(cells: Cells, blocks: np.ndarray) -> np.ndarray:
    """Sum of each pair's block (K, 3, 3) into (M + 1, M + 1)."""
    N = cells.size + 1
    out = np.zeros(N * N)
    places = _places(cells)
    for row in range(3):
        for column in range(3):
            out += np.bincount(places[row] * N + places[column], blocks[:, row, column], N * N)
    return out.reshape(N, N)


def _tied(hessian: np.ndarray, M: int, free: bool) -> np.ndarray:
    if not free or M == 0:
        return hessian
    out = hessian.copy()
    out[:M, :M] += (float(np.trace(hessian[:M, :M])) / M or 1.0) / M
    return out


def _softmax(heights: np.ndarray, by: np.ndarray) -> _Chances:
    """Multinomial logit: heights (K, 4), and how each depends on θ_left, θ_right, τ, (4, 3)."""
    heights = heights - heights.max(axis=1, keepdims=True)
    P = np.exp(heights)
    P /= P.sum(axis=1, keepdims=True)
    return P, by[None, :, :] - (P @ by)[:, None, :]


def _davidson(left: np.ndarray, right: np.ndarray, tau: float) -> _Chances:
    never = np.full_like(left, -np.inf)
    by = np.array([[1, 0, 0], [0, 1, 0], [0.5, 0.5, 1], [0, 0, 0]])
    return _softmax(np.column_stack([left, right, tau + (left + right) / 2, never]), by)


def _both_bad(left: np.ndarray, right: np.ndarray, tau: float) -> _Chances:
    by = np.array([[1, 0, 0], [0, 1, 0], [0.5, 0.5, 1], [0, 0, 0]])
    return _softmax(np.column_stack([left, right, tau + (left + right) / 2, np.zeros_like(left)]), by)


def _rao_kupper(left: np.ndarray, right: np.ndarray, tau: float) -> _Chances:
    eta = np.exp(tau)
    win, loss = sigmoid(left - right - eta), sigmoid(right - left - eta)
    tie = np.maximum(1 - win - loss, 1e-300)
    win_slope = (1 - win)[:, None] * np.array([1, -1, -eta])
    loss_slope = (1 - loss)[:, None] * np.array([-1, 1, -eta])
    tie_slope = -(win[:, None] * win_slope + loss[:, None] * loss_slope) / tie[:, None]
    P = np.column_stack([win, loss, tie, np.zeros_like(win)])
    return P, np.stack([win_slope, loss_slope, tie_slope, np.zeros_like(win_slope)], axis=1)


_MODELS: dict[str, Callable[[np.ndarray, np.ndarray, float], _Chances]] = {
    "davidson": _davidson, "rao-kupper": _rao_kupper, "both-bad": _both_bad,
}  # fmt: skip


def rated(votes: Votes, model: Model, min_votes: int = MIN_VOTES) -> Ratings:
    """The same as a board. Intervals take votes as independent; the both-bad board keeps its own zero, at 1000."""
    plain = bradley_terry(votes, cluster=None, min_votes=min_votes)
    found = fit_cells(plain.cells, model)
    M = len(found.names)
    return replace(
        plain, theta=found.theta, covariance=found.covariance[:M, :M], find_side=lambda: None,
        tie_model={"model": model, "tau": found.tau},
        gauge="1000 is as good as both bad" if found.absolute else plain.gauge,
    )  # fmt: skip
