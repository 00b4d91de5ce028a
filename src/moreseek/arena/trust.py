"""Does somebody vote as people do who read? Tests against what the other voters' fit predicts.

Every p-value is model-based: the null distribution is simulated from the fit without that voter, its uncertainty
included. Rules that count votes a pair instead flag most honest voters where pairs are sparse.
"""

from dataclasses import dataclass

import numpy as np

from moreseek.arena.cells import from_counts
from moreseek.arena.ratings import from_cells
from moreseek.arena.votes import A_WINS, B_WINS, SCORES, TIE, Votes

ALPHA = 0.002
"""How often one look at an honest voter may flag it, over all tests together."""
FEWEST = 20
"""Votes of a voter below which nothing is said."""
_TESTS = ("likelihood", "coin", "side", "target")
_DRAWS = 6000
_KNOWN = 10  # votes of others from which a contestant is known well enough to judge who votes on it
_MOST = 300  # the latest votes, which are what a look is about
_TOO_FAST_S = 2.0


@dataclass(frozen=True)
class Finding:
    """The tests that a voter failed, by name, and the smallest p-value."""

    test: str
    p: float


def p_values(others: np.ndarray, mine: Votes, seed: int = 0) -> dict[str, float]:
    """For each test how probable votes at least as odd are from somebody who votes as the others do.

    ``others``: the counts (M, M, 4) of everybody else's votes, so that a look costs the same however many there are;
    ``mine``: the voter's own, in their order, on the same M contestants.

    ``likelihood``: Fisher's M = −2 Σ ln p_i, for votes that are odd one by one; ``coin``: how little the decided votes
    follow the ratings, for those who click at random or against the rest; ``side``: for those who prefer a place;
    ``target``: the contestant that does best or worst beyond its rating, for those who push one. Nothing below FEWEST
    votes on contestants that others know well enough.
    """
    met = others.sum(axis=(1, 2)) + others.sum(axis=(0, 2))  # (M,)
    known = (met[mine.a] >= _KNOWN) & (met[mine.b] >= _KNOWN)
    mine = mine.where(np.flatnonzero(known)[-_MOST:])
    if len(mine) < FEWEST:
        return {}
    rng = np.random.default_rng(seed)
    theta, V, ties = _fit(others, mine.names)
    chance = _chances(theta[None, :], V, ties, mine)[0]  # (n, 3) as predicted: left, right, tie
    drawn = _drawn(theta, V, ties, mine, rng)  # (D, n) outcomes 0, 1, 2
    seen = np.minimum(mine.outcome, 2).astype(np.int64)  # both_bad counts as a tie
    rows = np.vstack([seen[None, :], drawn])
    return {
        "likelihood": _upper(_fisher(chance, rows)),
        "coin": _upper(-_agreement(chance, rows)),
        "side": _upper(np.abs(_side(chance, rows))),
        "target": _upper(_target(chance, rows, mine)),
    }


def suspicious(others: np.ndarray, mine: Votes, seed: int = 0) -> Finding | None:
    """The tests that a voter fails, Bonferroni over the tests, and the smallest p; None for one that passes."""
    found = {test: min(1.0, p * len(_TESTS)) for test, p in p_values(others, mine, seed).items()}
    failed = [test for test, p in found.items() if p <= ALPHA]
    return Finding(", ".join(failed), min(found.values())) if failed else None


def too_fast(seconds: np.ndarray) -> Finding | None:
    """Who votes, half of the time, within two seconds after the answers ended has not read them."""
    if len(seconds) < FEWEST or float(np.median(seconds)) > _TOO_FAST_S:
        return None
    return Finding("too_fast", 0.0)


def _fit(others: np.ndarray, names: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray, float]:
    """Strengths and their covariance from decided votes, and the share of ties. (Half-win ties would flatten both.)"""
    decided = others.copy()
    decided[:, :, TIE:] = 0
    ties = (others[:, :, TIE:].sum() + 1) / (others.sum() + 3)
    ratings = from_cells(from_counts(names, decided))
    return ratings.theta, ratings.covariance, float(ties)


def _chances(theta: np.ndarray, V: np.ndarray | None, ties: float, votes: Votes) -> np.ndarray:
    """Outcome probabilities (D, n, 3) for strengths (D, M). With V, averaged over what is not known of them."""
    gap = theta[:, votes.a] - theta[:, votes.b]  # (D, n)
    if V is not None:
        spread = V[votes.a, votes.a] + V[votes.b, votes.b] - V[votes.a, votes.b] - V[votes.b, votes.a]
        gap = gap / np.sqrt(1 + np.pi / 8 * np.maximum(spread, 0.0))  # MacKay 1992
    left = 1 / (1 + np.exp(-gap))
    return np.stack([(1 - ties) * left, (1 - ties) * (1 - left), np.full_like(left, ties)], axis=-1)


def _drawn(theta: np.ndarray, V: np.ndarray, ties: float, votes: Votes, rng: np.random.Generator) -> np.ndarray:
    """Outcomes (D, n) of voters who vote by strengths that are as uncertain as the fit is."""
    values, vectors = np.linalg.eigh((V + V.T) / 2)
    root = vectors * np.sqrt(np.maximum(values, 0.0))  # (M, M)
    strengths = theta + rng.standard_normal((_DRAWS, len(theta))) @ root.T  # (D, M)
    gap = strengths[:, votes.a] - strengths[:, votes.b]
    decided = rng.random(gap.shape) >= 1 / (1 + np.exp(-gap))
    return np.where(rng.random(gap.shape) < ties, 2, decided)


def _fisher(chance: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """M = −2 Σ ln p_i of each row, (R,); p_i sums the outcomes that are no likelier than the one seen."""
    as_rare = (chance[:, None, :] <= chance[:, :, None] + 1e-12) * chance[:, None, :]
    score = -2 * np.log(as_rare.sum(axis=2))  # (n, 3)
    return score[np.arange(len(chance))[None, :], rows].sum(axis=1)


def _agreement(chance: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """How much the decided votes follow the predicted log-odds, a decided vote, (R,). Ties are a matter of taste."""
    gap = np.log(chance[:, 0] / chance[:, 1])  # (n,)
    sign = np.where(rows == A_WINS, 1.0, np.where(rows == B_WINS, -1.0, 0.0))
    return (sign @ gap) / np.maximum(np.abs(sign).sum(axis=1), 1.0)


def _side(chance: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """How many more wins the left place had than predicted, (R,)."""
    lean = (rows == A_WINS).sum(axis=1).astype(float) - (rows == B_WINS).sum(axis=1)
    return lean - float((chance[:, 0] - chance[:, 1]).sum())


def _target(chance: np.ndarray, rows: np.ndarray, votes: Votes) -> np.ndarray:
    """The largest deviation of a contestant's score from the predicted one, in standard deviations, (R,)."""
    expected = chance @ SCORES[:3]  # (n,)
    variance = chance @ SCORES[:3] ** 2 - expected**2
    M = len(votes.names)
    member = np.zeros((len(votes.a), M))  # +1 where a contestant stood left, −1 right
    member[np.arange(len(votes.a)), votes.a] += 1
    member[np.arange(len(votes.a)), votes.b] -= 1
    beyond = (SCORES[rows] - expected) @ member  # (R, M)
    scale = np.sqrt(np.abs(member).T @ variance)  # (M,)
    enough = np.abs(member).sum(axis=0) >= 5
    if not enough.any():
        return np.zeros(len(rows))
    return np.abs(beyond[:, enough] / np.maximum(scale[enough], 1e-9)).max(axis=1)


def _upper(statistic: np.ndarray) -> float:
    """The share of simulated voters, the seen one among them, with a statistic as large as the seen one's."""
    return float((statistic >= statistic[0] - 1e-9).mean())
