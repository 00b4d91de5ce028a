"""Style control: what of a rating is left when length and decoration of the answers are held equal.

Each feature of a battle is (x_a − x_b) / (x_a + x_b + 1), z-scored over the battles of the fit; its coefficient is
fitted along with the strengths, and only coefficients are shrunk (ridge). After LMArena's style control. Latency and
cost go without the 1, which would make them depend on their unit.
"""

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from moreseek.arena.clusters import clusters_meats, independent_meat
from moreseek.arena.covariance import centred, floored, weighted
from moreseek.arena.fit import Fit, sigmoid
from moreseek.arena.ratings import MIN_VOTES, POINTS, Ratings, bradley_terry
from moreseek.arena.vote_lines import SERVED, STYLE
from moreseek.arena.votes import SCORES, Labels, Votes
from moreseek.errors import FaultError, InputError

USUAL = STYLE
FEATURES = (*USUAL, *SERVED)
_CODE = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
_HEADER = re.compile(r"^ {0,3}#{1,6}\s", re.MULTILINE)
_BOLD = re.compile(r"\*\*(?=\S)[^*\n]+?\*\*|__(?=\S)[^_\n]+?__")
_LIST = re.compile(r"^\s*(?:[-*+]|\d{1,9}[.)])\s+\S", re.MULTILINE)
# Words, marks, and single characters of scripts that put no spaces between words.
_TOKEN = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+|[^\w\s]")
_STEPS, _CLOSE, _CHUNK = 50, 1e-8, 1 << 17


def style_of(text: str) -> dict[str, int]:
    """Tokens (words and marks), headers, bold passages, list items of an answer; code blocks are tokens only."""
    prose = _CODE.sub("", text)
    return {
        "tokens": len(_TOKEN.findall(text)), "headers": len(_HEADER.findall(prose)),
        "bold": len(_BOLD.findall(prose)), "lists": len(_LIST.findall(prose)),
    }  # fmt: skip


def differences(votes: Votes, features: Sequence[str]) -> np.ndarray:
    """Z-scored differences of the features, (n, F). A feature that never differs stays zero."""
    columns = []
    for name in features:
        if name not in votes.features:
            known = ", ".join(votes.features) or "none"
            raise InputError(
                f"style control by {name} needs it for both answers of each vote; the votes have: {known}."
            )
        x = votes.features[name]
        if not (np.isfinite(x).all() and (x >= 0).all()):
            row = int(np.flatnonzero(~(np.isfinite(x) & (x >= 0)).all(axis=1))[0])
            raise InputError(
                f"vote {row}: {name} of the two answers is {x[row].tolist()}; numbers from 0 up are needed."
            )
        total = x.sum(axis=1) + (0 if name in SERVED else 1)
        gap = np.divide(x[:, 0] - x[:, 1], total, out=np.zeros(len(x)), where=total > 0)
        spread = gap.std()
        columns.append((gap - gap.mean()) / spread if spread > 0 else np.zeros_like(gap))
    return np.column_stack(columns) if columns else np.zeros((len(votes), 0))


def style_controlled(
    votes: Votes,
    features: Sequence[str] | None = None,
    *,
    cluster: Sequence[str] = ("voter", "prompt"),
    ridge: float = 1.0,
    prior: float | None = None,
    min_votes: int = MIN_VOTES,
) -> Ratings:
    """Ratings with the style of the answers held equal; their ``style`` has each coefficient with its interval.

    ``features`` names those to hold equal (default: length, headers, bold and lists, where the votes have them).
    Coefficients are in points for one standard deviation of the difference.
    """
    chosen = list(features if features is not None else (name for name in USUAL if name in votes.features))
    if not chosen:
        raise InputError("style control needs the answers' style: token counts, or the answers themselves.")
    X = differences(votes, chosen)
    plain = bradley_terry(votes, cluster=cluster, prior=prior, min_votes=min_votes)
    values, hessian = _fit(votes, X, plain.theta, plain.fitted.prior, ridge)
    M = len(votes.names)
    theta = values[:M] - values[:M].mean() if M else values[:M]
    V = _covariance(votes, X, values, hessian, plain.fitted.prior, [votes.labels[name] for name in plain.clusters])
    style = {}
    for place, name in enumerate(chosen, start=M):
        value, se = POINTS * float(values[place]), POINTS * float(np.sqrt(max(0.0, *V[:, place, place])))
        reach = plain.critical * se
        style[name] = {"value": value, "se": se, "ci_low": value - reach, "ci_high": value + reach}
    found = Fit(theta, 0.0, False, plain.fitted.prior, hessian[:M, :M], 0)
    return replace(plain, theta=theta, covariance=V[:, :M, :M], fitted=found, find_side=lambda: None, style=style)


def _fit(votes: Votes, X: np.ndarray, start: np.ndarray, prior: float, ridge: float) -> tuple[np.ndarray, np.ndarray]:
    """Strengths and coefficients (M + F,) by Newton's method, and the Hessian there."""
    M, F = len(votes.names), X.shape[1]
    values = np.concatenate([start, np.zeros(F)])
    for _ in range(_STEPS):
        slope, hessian = _derivatives(votes, X, values, prior, ridge)
        step = np.linalg.solve(_tied(hessian, M, prior), slope)
        longest = float(np.abs(step).max(initial=0.0))
        values = values + step / max(1.0, longest)
        if longest < _CLOSE:
            return values, hessian
    raise FaultError(
        f"the style-controlled ratings did not settle in {_STEPS} steps. Leave out features that hardly vary."
    )


def _tied(hessian: np.ndarray, M: int, prior: float) -> np.ndarray:
    if prior > 0:
        return hessian
    out = hessian.copy()
    out[:M, :M] += (float(np.trace(hessian[:M, :M])) / max(M, 1) or 1.0) / max(M, 1)
    return out


def _derivatives(
    votes: Votes, X: np.ndarray, values: np.ndarray, prior: float, ridge: float
) -> tuple[np.ndarray, np.ndarray]:
    M, F = len(votes.names), X.shape[1]
    theta, beta = values[:M], values[M:]
    slope, hessian = np.zeros(M + F), np.zeros((M + F, M + F))
    met = np.zeros(M * M)
    for start in range(0, len(votes), _CHUNK):
        part = votes.where(np.s_[start : start + _CHUNK])
        x, a, b = X[start : start + _CHUNK], part.a, part.b
        chance = sigmoid(theta[a] - theta[b] + x @ beta)
        surplus = weighted(part, SCORES[part.outcome] - chance)
        spread = weighted(part, chance * (1 - chance))
        slope[:M] += np.bincount(a, surplus, M) - np.bincount(b, surplus, M)
        slope[M:] += surplus @ x
        met += np.bincount(a.astype(np.intp) * M + b, spread, M * M)
        hessian[M:, M:] += (x * spread[:, None]).T @ x
        for column in range(F):
            mixed = spread * x[:, column]
            hessian[:M, M + column] += np.bincount(a, mixed, M) - np.bincount(b, mixed, M)
    table = met.reshape(M, M)
    chance = sigmoid(theta)
    hessian[:M, :M] = -(table + table.T)
    inside = np.arange(M)
    hessian[inside, inside] = table.sum(axis=0) + table.sum(axis=1) + prior * chance * (1 - chance)
    hessian[M:, :M] = hessian[:M, M:].T
    slope[:M] += prior * (0.5 - chance)
    slope[M:] -= ridge * beta
    hessian[np.arange(M, M + F), np.arange(M, M + F)] += ridge
    return slope, hessian


def _covariance(
    votes: Votes, X: np.ndarray, values: np.ndarray, hessian: np.ndarray, prior: float, clusters: list[Labels]
) -> np.ndarray:
    M = len(votes.names)
    theta = values[:M]
    chance = sigmoid(theta[votes.a] - theta[votes.b] + X @ values[M:])
    residual = weighted(votes, SCORES[votes.outcome] - chance)
    strength = sigmoid(theta)
    virtual = np.zeros_like(hessian)
    virtual[np.arange(M), np.arange(M)] = prior * 0.5 * ((1 - strength) ** 2 + strength**2)
    bread = centred(np.linalg.inv(_tied(hessian, M, prior)), M)
    plain = bread @ (independent_meat(votes, residual, X) + virtual) @ bread.T
    if not clusters:
        return plain[None]
    meats, told = clusters_meats(votes, residual, clusters, X)
    return np.array([floored(bread @ (meat + virtual) @ bread.T, told, plain) for meat in meats])
