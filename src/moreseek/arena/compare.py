"""Two contestants: is b better than a, how sure is that, and how many more votes would it take?"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from moreseek.arena.covariance import sandwich
from moreseek.arena.ratings import POINTS, Ratings, bradley_terry, plain
from moreseek.arena.sequential import anytime, anytime_direct, still_needed
from moreseek.arena.significance import critical
from moreseek.arena.votes import A_WINS, B_WINS, SCORES, Votes
from moreseek.errors import InputError


def compare(
    votes: Votes, a: str, b: str, *, cluster: Sequence[str] = ("voter", "prompt"), direct: bool = False,
    level: float = 0.95, power: float = 0.8,
) -> dict[str, Any]:  # fmt: skip
    """How b stands against a. Every difference is b minus a, in points.

    ``verdict`` is "better", "worse" or "undecided", and errs in at most 5 % of cases however often one looks. It is
    that of ``anytime``, the difference of their ratings; where no chain of wins joins them both ways, that of their
    own battles. ``difference`` is for one look at a number of votes fixed beforehand. ``direct`` restricts everything
    to their own battles.
    """
    if a == b:
        raise InputError(f"'{a}' is compared with itself; name two contestants.")
    votes.among([a, b])  # says which name is not there
    if direct:
        votes = votes.among([a, b])
        if len(votes) == 0:
            raise InputError(f"{b} and {a} never met; without --direct their battles with others compare them.")
    ratings = bradley_terry(votes, cluster=cluster, level=level, min_votes=1)
    difference = ratings.difference(b, a)
    value, se = difference["value"] / POINTS, difference["se"] / POINTS
    sure = anytime(value, se * ratings.critical / critical(level), level)  # few clusters know their spread badly
    wins, losses, ties = _record(votes, a, b)
    straight = anytime_direct(wins, losses, level)
    warnings = list(ratings.warnings)
    i, j = ratings.place(a), ratings.place(b)
    # Where one of them never lost, ratings know only that the gap is large; a count of wins and losses knows more.
    apart = bool(ratings.component[i] != ratings.component[j])
    if apart:
        warnings.append(f"No chain of wins joins {a} and {b} both ways: their difference rests on the prior.")
    return {
        "a": a, "b": b, "verdict": (straight if apart else sure).verdict,
        "votes": plain(ratings.cells.votes), "difference": difference,
        "expected_score": 1 / (1 + math.exp(-value)),
        "anytime": {
            "verdict": sure.verdict, "ci_low": _finite(POINTS * sure.ci_low), "ci_high": _finite(POINTS * sure.ci_high),
            "e_value": sure.e_value,
        },
        "direct": {
            "battles": plain(wins + losses + ties), "wins": plain(wins), "losses": plain(losses), "ties": plain(ties),
            "verdict": straight.verdict, "e_value": straight.e_value,
        },
        "more_votes": still_needed(value, se, _per_vote(ratings, i, j, value, se), power, level, ratings.df),
        "power": power, "level": level, "warnings": warnings,
    }  # fmt: skip


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None  # JSON has no infinity


def _record(votes: Votes, a: str, b: str) -> tuple[float, float, float]:
    """Wins, losses and ties of b in its battles with a."""
    i, j = votes.names.index(a), votes.names.index(b)
    weight = np.ones(len(votes)) if votes.weight is None else votes.weight
    a_left, b_left = (votes.a == i) & (votes.b == j), (votes.a == j) & (votes.b == i)
    wins = weight[(a_left & (votes.outcome == B_WINS)) | (b_left & (votes.outcome == A_WINS))].sum()
    losses = weight[(a_left & (votes.outcome == A_WINS)) | (b_left & (votes.outcome == B_WINS))].sum()
    return float(wins), float(losses), float(weight[a_left | b_left].sum() - wins - losses)


def _per_vote(ratings: Ratings, i: int, j: int, value: float, se: float) -> float:
    """Information on the difference in one more direct vote, given ties and dependence like those so far."""
    cells = ratings.cells
    if cells.votes == 0 or se <= 0:
        return 0.0
    chance = 1 / (1 + np.exp(-(ratings.theta[cells.left] - ratings.theta[cells.right])))
    spread = float((cells.counts * (SCORES[None, :] - chance[:, None]) ** 2).sum() / cells.votes)
    V = sandwich(cells, ratings.fitted)
    alone = float(V[i, i] + V[j, j] - V[i, j] - V[j, i])
    dependence = max(1.0, se**2 / alone) if alone > 0 else 1.0
    p = 1 / (1 + math.exp(-value))
    return (p * (1 - p)) ** 2 / spread / dependence if spread > 0 else 0.0
