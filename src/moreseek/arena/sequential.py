"""Verdicts that stay honest when people look after every vote, and how many votes a verdict takes.

The anytime-valid interval is a normal-mixture confidence sequence (Robbins 1970; for estimates with a variance of
their own Waudby-Smith et al. 2024): however often one looks, it misses the truth with a chance of at most 5 %.
"""

import math
from dataclasses import dataclass

from moreseek.arena.significance import critical

POINTS = 400 / math.log(10)
LIKELY_GAP = 60 / POINTS
"""Standard deviation of the differences that the sequence is tuned for, in natural log-odds. Any value is valid; this
one decides soonest between 30 and 150 points."""


@dataclass(frozen=True)
class Verdict:
    """What may be said of a against b at any moment: "better", "worse" or "undecided"."""

    verdict: str
    e_value: float  # evidence against equality: its inverse is a p-value that holds at every look
    ci_low: float
    ci_high: float


def anytime(value: float, se: float, level: float = 0.95, likely: float = LIKELY_GAP) -> Verdict:
    """The verdict on a difference with its standard error, both in natural log-odds.

    With information I = 1 / se² and mixing variance 1/r: value ± √((I + r) / I² · ln((I + r) / (r α²))).
    """
    if not (math.isfinite(value) and math.isfinite(se) and se > 0):
        return Verdict("undecided", 1.0, -math.inf, math.inf)
    information, rest = 1 / se**2, 1 / likely**2
    total = information + rest
    reach = math.sqrt(total * math.log(total / (rest * (1 - level) ** 2))) / information
    power = 0.5 * ((value * information) ** 2 / total - math.log(total / rest))
    low, high = value - reach, value + reach
    verdict = "better" if low > 0 else "worse" if high < 0 else "undecided"
    return Verdict(verdict, math.exp(min(power, 700.0)), low, high)


def anytime_direct(wins: float, losses: float, level: float = 0.95, likely: float = LIKELY_GAP) -> Verdict:
    """The verdict from direct battles alone. Ties do not count, so equality means wins as likely as losses.

    Exact for any number of votes: with S = (wins − losses) / 2 and V = (wins + losses) / 4 the mixture over
    exp(λS − λ²V/2) is a supermartingale under equality (increments of ±½ are sub-Gaussian with variance ¼), so it
    passes 1/α with a chance of at most α (Ville's inequality). The interval is of the log-odds of winning a decided
    battle, by the normal mixture around its estimate.
    """
    decided = wins + losses
    if decided <= 0:
        return Verdict("undecided", 1.0, -math.inf, math.inf)
    S, V, rest = (wins - losses) / 2, decided / 4, 1 / likely**2
    power = 0.5 * (S**2 / (V + rest) - math.log((V + rest) / rest))
    rings = power >= -math.log(1 - level)
    value = math.log((wins + 0.5) / (losses + 0.5))
    share = 1 / (1 + math.exp(-value))
    around = anytime(value, 1 / math.sqrt(decided * share * (1 - share)), level, likely)
    verdict = ("better" if S > 0 else "worse") if rings else "undecided"
    return Verdict(verdict, math.exp(min(power, 700.0)), around.ci_low, around.ci_high)


def votes_needed(gap: float, tie_share: float = 0.25, power: float = 0.8, level: float = 0.95) -> int:
    """Votes on one pair until a gap (points, in decided battles) is found with this power by a fixed-size test.

    With p the chance of a win in a decided battle: n = (z_level + z_power)² · var / mean², where a vote's mean is
    (1 − ties)(p − ½) and its variance (1 − ties)/4 − mean². 50 points: 505 votes, 100: 126, 200: 31.
    """
    if not (gap != 0 and math.isfinite(gap) and 0 <= tie_share < 1):
        raise ValueError(f"a gap of {gap} points with {tie_share:.0%} ties cannot be found by votes.")
    mean = (1 - tie_share) * (1 / (1 + math.exp(-abs(gap) / POINTS)) - 0.5)
    variance = (1 - tie_share) / 4 - mean**2
    return math.ceil((critical(level) + critical(2 * power - 1)) ** 2 * variance / mean**2)


def votes_for_width(half_width: float, tie_share: float = 0.25, level: float = 0.95) -> int:
    """Votes of a new contestant against a settled board of its strength until its interval is ± so many points."""
    if not (half_width > 0 and 0 <= tie_share < 1):
        raise ValueError(f"an interval of ±{half_width} points cannot be reached with {tie_share:.0%} ties.")
    return math.ceil((critical(level) * POINTS / half_width) ** 2 * ((1 - tie_share) / 4) / 0.25**2)


def still_needed(
    value: float, se: float, per_vote: float, power: float = 0.8, level: float = 0.95, df: float = math.inf
) -> int | None:
    """More votes on the pair until a fixed-size test finds a difference as large as the one seen.

    ``value`` and ``se`` in natural log-odds; ``per_vote`` is the information (1 / variance) that one more vote adds.
    0 when there is enough already, None when no difference was seen or votes add nothing.
    """
    if value == 0 or per_vote <= 0 or not math.isfinite(se) or se <= 0:
        return None
    wanted = ((critical(level, df) + critical(2 * power - 1)) / abs(value)) ** 2
    return max(0, math.ceil((wanted - 1 / se**2) / per_vote))
