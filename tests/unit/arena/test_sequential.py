import math

import pytest

from moreseek.arena.ratings import POINTS
from moreseek.arena.sequential import anytime, anytime_direct, still_needed, votes_for_width, votes_needed


@pytest.mark.parametrize(("gap", "votes"), [(50, 505), (100, 126), (200, 31)])
def test_votes_until_we_know_are_those_of_the_design(gap, votes):
    assert votes_needed(gap) == pytest.approx(votes, abs=1)


def test_a_new_contestant_needs_about_390_votes_for_30_points():
    assert votes_for_width(30) == pytest.approx(390, abs=5)


@pytest.mark.parametrize("gap", [0, math.nan, math.inf])
def test_no_gap_cannot_be_found(gap):
    with pytest.raises(ValueError, match="cannot be found"):
        votes_needed(gap)


def test_the_anytime_interval_is_wider_than_the_one_for_one_look():
    for se in (0.01, 0.1, 0.5, 2.0):
        found = anytime(0.3, se)
        assert (found.ci_high - found.ci_low) / 2 > 1.96 * se
        assert (found.ci_low > 0) == (found.verdict == "better") == (found.e_value >= 20)


def test_verdicts_are_symmetric():
    assert anytime(0.8, 0.1).verdict == "better"
    assert anytime(-0.8, 0.1).verdict == "worse"
    assert anytime_direct(90, 20).verdict == "better"
    assert anytime_direct(20, 90).verdict == "worse"
    assert anytime_direct(90, 20).e_value == pytest.approx(anytime_direct(20, 90).e_value)


@pytest.mark.parametrize(("wins", "losses"), [(0, 0), (1, 0), (3, 3), (5, 0)])
def test_a_handful_of_votes_decides_nothing(wins, losses):
    assert anytime_direct(wins, losses).verdict == "undecided"


@pytest.mark.parametrize(("value", "se"), [(0.5, 0.0), (math.nan, 1.0), (0.5, math.inf)])
def test_what_is_not_known_is_undecided(value, se):
    assert anytime(value, se).verdict == "undecided"


def test_votes_still_needed_follow_from_the_information_that_is_missing():
    # 505 votes find 50 points; each adds var/mean² of the difference's information.
    value = 50 / POINTS
    per_vote = (1.96 + 0.8416) ** 2 / value**2 / 505
    assert still_needed(value, 1 / math.sqrt(100 * per_vote), per_vote) == pytest.approx(405, abs=2)
    assert still_needed(value, 1e-3, per_vote) == 0
    assert still_needed(0.0, 0.1, per_vote) is None
    assert still_needed(value, 0.1, 0.0) is None
