"""The best of several submitted variants looks better than it is: intervals that allow for the choice.

A family with N rated variants shows its best one. Its rating is the largest of N noisy ones, so that its interval
lies too high (the winner's curse): with eight equal variants a 95 % interval holds the truth in 82 % of boards. The
lower end therefore reaches t(1 − α/2N) standard errors, Bonferroni's bound for all N lower ends at once; it holds for
whichever variant is chosen, by whatever rule. The upper end stays, since choosing the largest only ever raises the
estimate (Andrews, Kitagawa & McCloskey 2024 discuss both; this is their simultaneous interval, one-sided).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from moreseek.arena import significance
from moreseek.arena.result import Ratings


@dataclass(frozen=True)
class Selected:
    """The interval, in points, of a family's best variant."""

    of: int  # rated variants of the family, withdrawn ones among them
    ci_low: float
    ci_high: float


def best_of_families(ratings: Ratings, families: Mapping[str, str]) -> dict[str, Selected]:
    """For each family with several variants on the board: the name of its best, and its interval.

    ``families``: the family of each contestant; one without is a family of its own.
    """
    members: dict[str, list[int]] = {}
    for place, name in enumerate(ratings.names):
        members.setdefault(families.get(name, name), []).append(place)
    out = {}
    rating, se, high = ratings.rating.tolist(), ratings.se.tolist(), ratings.ci_high.tolist()
    for places in members.values():
        if len(places) < 2:
            continue
        best = max(places, key=rating.__getitem__)
        low = selected_low(rating[best], se[best], len(places), ratings.level, ratings.df)
        out[ratings.names[best]] = Selected(len(places), low, high[best])
    return out


def selected_low(rating: float, se: float, variants: int, level: float = 0.95, df: float = np.inf) -> float:
    """The lower end of the best of so many variants."""
    return rating - significance.critical(1 - (1 - level) / variants, df) * se
