"""Bradley–Terry by Newton's method on cells, with a prior where the ratings would not exist, and a side term."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from moreseek.arena.cells import Cells
from moreseek.errors import FaultError

_STEPS = 100
_SAFE = 1.0  # a step that moves no strength further than this cannot overshoot by much, and is taken unchecked
_CLOSE = 1e-7  # of the last step, in natural log-odds: what is left after it is of the order of its square


@dataclass(frozen=True)
class Fit:
    """What was fitted. Strengths are natural log-odds with mean zero; ``side`` is what the left place is worth."""

    theta: np.ndarray  # (M,)
    side: float
    has_side: bool
    prior: float
    hessian: np.ndarray  # (M, M), or (M + 1, M + 1) with a side term: minus the second derivative
    steps: int

    @cached_property
    def inverse(self) -> np.ndarray:
        """Inverse of the Hessian; on the mean-zero subspace where there is no prior to tie the mean down."""
        size = len(self.theta)
        if self.prior > 0 or size == 0:
            return np.linalg.inv(self.hessian)
        return np.linalg.inv(_tied(self.hessian, size)) - _mean_part(self.hessian, size)


def fit(cells: Cells, prior: float = 0.0, side: bool = False, start: np.ndarray | None = None) -> Fit:
    """Maximise the likelihood: P(left wins) = σ(θ_left − θ_right [+ side]), ties half a win each way.

    ``prior`` is the weight of one virtual half-win and one half-loss of every contestant against the mean. Without it
    the win graph must be strongly connected. ``start`` (M,) is where to begin, such as the ratings before the last
    vote. Raises FaultError when Newton's method does not end, which means that the ratings do not exist.
    """
    M = cells.size
    battles, score = cells.battles, cells.left_score
    values = np.zeros(M + side)
    if start is not None:
        values[:M] = start
    if M == 0:
        return Fit(values, 0.0, False, prior, np.zeros((0, 0)), 0)
    for step_number in range(1, _STEPS + 1):
        chance = _chances(cells, values, M)
        slope = _slope(cells, score - battles * chance, values, prior, M)
        hessian = _hessian(cells, battles * chance * (1 - chance), values, prior, M)
        try:
            step = np.linalg.solve(hessian if prior > 0 else _tied(hessian, M), slope)
        except np.linalg.LinAlgError:
            break
        length = float(np.abs(step).max(initial=0.0))
        if length > _SAFE:
            step = _shortened(cells, values, step, battles, score, prior, M)
        values = values + step
        if length < _CLOSE:
            values[:M] -= values[:M].mean()
            return Fit(values[:M], float(values[-1]) if side else 0.0, side, prior, hessian, step_number)
    raise FaultError(f"the ratings did not settle in {_STEPS} Newton steps. Rate with a prior, for example prior=1.")


def side_is_known(cells: Cells, found: Fit) -> bool:
    """Whether the votes tell the side from the contestants: something of it is left beyond all strengths."""
    chance = sigmoid(found.theta[cells.left] - found.theta[cells.right])
    spread = cells.battles * chance * (1 - chance)
    mixed = cells.per_contestant(spread, -spread)
    return float(spread.sum() - mixed @ found.inverse @ mixed) > 1e-6 * float(spread.sum())


def _shortened(
    cells: Cells, values: np.ndarray, step: np.ndarray, battles: np.ndarray, score: np.ndarray, prior: float, M: int
) -> np.ndarray:
    """The step, halved until the likelihood does not fall (it is concave, so this ends)."""
    before = _likelihood(cells, values, battles, score, prior, M)
    for _ in range(40):
        if _likelihood(cells, values + step, battles, score, prior, M) >= before:
            break
        step = step / 2
    return step


def _logits(cells: Cells, values: np.ndarray, M: int) -> np.ndarray:
    side = values[M] if len(values) > M else 0.0
    return values[cells.left] - values[cells.right] + side  # (K,)


def _chances(cells: Cells, values: np.ndarray, M: int) -> np.ndarray:
    return sigmoid(_logits(cells, values, M))


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """1 / (1 + e^-x) without overflow."""
    return 0.5 * (1.0 + np.tanh(0.5 * logits))


def _likelihood(
    cells: Cells, values: np.ndarray, battles: np.ndarray, score: np.ndarray, prior: float, M: int
) -> float:
    logits = _logits(cells, values, M)
    real = score @ logits - battles @ np.logaddexp(0.0, logits)
    theta = values[:M]
    return float(real - prior * (np.logaddexp(0.0, theta) - 0.5 * theta).sum())


def _slope(cells: Cells, surplus: np.ndarray, values: np.ndarray, prior: float, M: int) -> np.ndarray:
    slope = np.zeros(len(values))
    slope[:M] = cells.per_contestant(surplus, -surplus) + prior * (0.5 - sigmoid(values[:M]))
    if len(values) > M:
        slope[M] = surplus.sum()
    return slope


def _hessian(cells: Cells, spread: np.ndarray, values: np.ndarray, prior: float, M: int) -> np.ndarray:
    met = cells.square(spread)
    out = np.zeros((len(values), len(values)))
    chance = sigmoid(values[:M])
    out[:M, :M] = -(met + met.T)
    out[np.arange(M), np.arange(M)] = met.sum(axis=0) + met.sum(axis=1) + prior * chance * (1 - chance)
    if len(values) > M:
        out[:M, M] = out[M, :M] = cells.per_contestant(spread, -spread)
        out[M, M] = spread.sum()
    return out


def _level(hessian: np.ndarray, M: int) -> float:
    return float(np.trace(hessian[:M, :M]) / M) or 1.0


def _tied(hessian: np.ndarray, M: int) -> np.ndarray:
    """The Hessian with the free direction (all ratings alike) tied down, so that it can be inverted."""
    out = hessian.copy()
    out[:M, :M] += _level(hessian, M) / M
    return out


def _mean_part(hessian: np.ndarray, M: int) -> np.ndarray:
    out = np.zeros_like(hessian)
    out[:M, :M] = 1.0 / (M * _level(hessian, M))
    return out
