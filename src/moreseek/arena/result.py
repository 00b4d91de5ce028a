"""Ratings with how sure they are, and everything a board shows of them."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from moreseek.arena import significance
from moreseek.arena.cells import Cells
from moreseek.arena.fit import Fit
from moreseek.arena.votes import A_WINS, B_WINS
from moreseek.config import did_you_mean
from moreseek.errors import InputError

SCALE, BASE, INITIAL = 400.0, 10.0, 1000.0
POINTS = SCALE / math.log(BASE)
"""Rating points of one natural log-odd: 173.7178."""
MIN_VOTES = 30
"""Below so many battles a contestant is provisional: it gets a rating and an interval, but no rank."""


@dataclass(frozen=True)
class Ratings:
    """M strengths with mean zero, how sure they are, and everything a board shows of them."""

    names: tuple[str, ...]
    theta: np.ndarray  # (M,) natural log-odds
    covariance: np.ndarray  # (M, M) of theta, or (W, M, M): the least sure of W counts for each difference
    cells: Cells
    fitted: Fit
    component: np.ndarray  # (M,) from 1
    clusters: dict[str, int]  # by what the intervals are clustered, and how many clusters each has
    level: float = 0.95
    min_votes: int = MIN_VOTES
    find_side: Callable[[], tuple[float, float] | None] = field(default=lambda: None, repr=False, compare=False)
    warnings: tuple[str, ...] = ()
    style: dict[str, dict[str, float]] | None = None  # coefficients of a style-controlled fit, in points
    tie_model: dict[str, Any] | None = None  # of a fit that gives ties a probability of their own
    gauge: str = "mean 1000"

    @cached_property
    def side(self) -> tuple[float, float] | None:
        """What the left place is worth and its standard error, in log-odds; fitted when it is first asked for."""
        return self.find_side()

    @property
    def df(self) -> float:
        """Degrees of freedom of the intervals: few clusters know little of their own spread."""
        return min((count - 1 for count in self.clusters.values()), default=math.inf)

    @property
    def critical(self) -> float:
        """Standard errors on each side of an interval: Student's with few clusters, else 1.96."""
        return significance.critical(self.level, self.df)

    @property
    def rating(self) -> np.ndarray:
        """(M,) in points, mean 1000."""
        return INITIAL + POINTS * self.theta

    @cached_property
    def se(self) -> np.ndarray:
        """(M,) standard errors in points."""
        several = self.covariance if self.covariance.ndim == 3 else self.covariance[None]
        return POINTS * np.sqrt(np.maximum(np.diagonal(several, axis1=1, axis2=2), 0.0).max(axis=0))

    @property
    def ci_low(self) -> np.ndarray:
        """(M,) in points."""
        return self.rating - self.critical * self.se

    @property
    def ci_high(self) -> np.ndarray:
        """(M,) in points."""
        return self.rating + self.critical * self.se

    @cached_property
    def battles(self) -> np.ndarray:
        """(M,) battles of each."""
        return self.cells.per_contestant(self.cells.battles)

    @cached_property
    def wins(self) -> np.ndarray:
        """(M,) battles won outright."""
        return self.cells.per_contestant(self.cells.counts[:, A_WINS], self.cells.counts[:, B_WINS])

    @cached_property
    def ties(self) -> np.ndarray:
        """(M,) battles tied, both_bad included."""
        return self.cells.per_contestant(self.cells.counts[:, 2:].sum(axis=1))

    @cached_property
    def provisional(self) -> np.ndarray:
        """(M,) whether there were too few battles for a rank."""
        return self.battles < self.min_votes

    @cached_property
    def better(self) -> np.ndarray:
        """(M, M) i is significantly better than j: Holm over all pairs that have ranks."""
        ranked = np.flatnonzero(~self.provisional)
        if len(ranked) == len(self.names):
            return significance.better_than(self.theta, self.covariance, self.level, self.df)
        out = np.zeros((len(self.names), len(self.names)), bool)
        inner = significance.better_than(
            self.theta[ranked], self.covariance[..., ranked[:, None], ranked], self.level, self.df
        )
        out[np.ix_(ranked, ranked)] = inner
        return out

    @cached_property
    def ranks(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rank, best and worst possible rank, (M,) each; 0 for the provisional.

        The rank is 1 + the number of those whose interval lies wholly above. The range comes from Holm's corrected
        differences, and holds for all contestants at once.
        """
        ranked = np.flatnonzero(~self.provisional)
        out = np.zeros((3, len(self.names)), np.int64)
        rank = significance.tied_ranks(self.ci_low[ranked], self.ci_high[ranked])
        low, high = significance.rank_ranges(self.better[np.ix_(ranked, ranked)])
        out[:, ranked] = rank, np.minimum(low, rank), np.maximum(high, rank)
        return out[0], out[1], out[2]

    @property
    def rank(self) -> np.ndarray:
        """(M,) tied ranks; 0 for the provisional."""
        return self.ranks[0]

    def place(self, name: str) -> int:
        """Where a contestant stands in the arrays. Raises InputError with the nearest name."""
        if name not in self.names:
            raise InputError(f"no contestant '{name}'{did_you_mean(name, self.names)}")
        return self.names.index(name)

    def __getitem__(self, name: str) -> dict[str, Any]:
        self.place(name)  # says what is not there
        return next(row for row in self.rows() if row["name"] == name)

    def difference(self, a: str, b: str) -> dict[str, float]:
        """How much better a is than b, in points: value, se, ci_low, ci_high, p (two-sided, not corrected)."""
        i, j = self.place(a), self.place(b)
        pair = np.array([i, j])
        gap, spread = significance.differences(self.theta[pair], self.covariance[..., pair[:, None], pair])
        value, se = POINTS * float(gap[0, 1]), POINTS * float(spread[0, 1])
        p = float(significance.two_sided_p(np.array([value / se]), self.df)[0]) if se > 0 else 1.0
        reach = self.critical * se
        return {"value": value, "se": se, "ci_low": value - reach, "ci_high": value + reach, "p": p}

    def win_chance(self) -> np.ndarray:
        """(M, M) expected score of i against j, ties counted half."""
        return 1.0 / (1.0 + np.exp(self.theta[None, :] - self.theta[:, None]))

    def rows(self) -> list[dict[str, Any]]:
        """One row a contestant in the form of the leaderboard's JSON, best first."""
        # Lists, since one element of an array costs more than a hundred of a list, and a board is made after each vote.
        columns = (self.rating, self.ci_low, self.ci_high, self.se, *self.ranks, self.battles, self.wins, self.ties,
                   self.provisional, self.component)  # fmt: skip
        rows = list(zip(self.names, *(column.tolist() for column in columns), strict=True))
        return [
            {
                "name": name, "rating": rating, "ci_low": low, "ci_high": high, "se": se, "rank": rank or None,
                "rank_low": best or None, "rank_high": worst or None, "battles": plain(battles), "wins": plain(wins),
                "ties": plain(ties), "provisional": provisional, "component": component,
            }
            for name, rating, low, high, se, rank, best, worst, battles, wins, ties, provisional, component in (
                rows[i] for i in np.lexsort((np.array(self.names, dtype=object), -self.theta)).tolist()
            )
        ]  # fmt: skip

    def side_effect(self) -> dict[str, float] | None:
        """What being shown on the left is worth, in points, with its interval."""
        if self.side is None:
            return None
        value, se = (POINTS * part for part in self.side)
        return {"value": value, "ci_low": value - self.critical * se, "ci_high": value + self.critical * se}


def plain(number: Any) -> int | float:
    """A whole number as one."""
    return int(number) if float(number).is_integer() else float(number)
