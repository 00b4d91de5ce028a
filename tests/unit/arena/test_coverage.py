"""What the statistics promise, measured on arenas whose truth is known."""

import numpy as np
import pytest
from tests.unit.arena.simulated import Arena

from moreseek.arena.ratings import POINTS, bradley_terry
from moreseek.arena.sequential import anytime, anytime_direct

SPREAD = np.linspace(-0.8, 0.8, 10)


def coverage(arena: Arena, votes: int, runs: int, cluster: tuple[str, ...], seed: int = 0) -> float:
    """Share of all intervals that hold the truth."""
    rng, truth = np.random.default_rng(seed), 1000 + POINTS * arena.truth()
    held = 0.0
    for _ in range(runs):
        found = bradley_terry(arena.votes(votes, rng), cluster=cluster)
        held += float(((found.ci_low <= truth) & (truth <= found.ci_high)).mean())
    return held / runs


def test_intervals_hold_the_truth_in_94_to_96_per_cent_of_1000_arenas():
    assert 0.94 <= coverage(Arena(SPREAD), 1500, 1000, ()) <= 0.96


def test_intervals_hold_the_truth_when_each_voter_has_a_taste():
    arena = Arena(SPREAD, voters=80, taste=0.7)
    assert 0.94 <= coverage(arena, 2400, 1000, ("voter",)) <= 0.96
    assert coverage(arena, 2400, 200, ()) < 0.92  # what taking votes as independent would promise in vain


def test_intervals_hold_the_truth_when_voters_and_prompts_have_tastes():
    arena = Arena(SPREAD, voters=60, prompts=60, taste=0.5)
    assert 0.94 <= coverage(arena, 2400, 1000, ("voter", "prompt")) <= 0.96


def test_few_prompts_still_give_nearly_what_is_promised():
    """13 clusters, as in the real votes: with 1.96 standard errors it would be 91.5 %."""
    assert 0.93 <= coverage(Arena(SPREAD, prompts=13, taste=0.5), 2400, 500, ("prompt",)) <= 0.96


def test_weights_and_a_prior_do_not_spoil_the_intervals():
    arena, rng = Arena(SPREAD), np.random.default_rng(1)
    truth, held = 1000 + POINTS * arena.truth(), []
    for _ in range(300):
        votes = arena.votes(1500, rng)
        found = bradley_terry(votes.with_weight(rng.integers(1, 4, size=1500) / 2), prior=0.5)
        held.append(((found.ci_low <= truth) & (truth <= found.ci_high)).mean())
    assert 0.93 <= np.mean(held) <= 0.97


# ---------------------------------------------------------------------------------------------------------- ranks


def test_equal_contestants_are_told_apart_in_at_most_5_per_cent_of_arenas():
    arena, rng = Arena(np.zeros(10)), np.random.default_rng(2)
    wrong = sum(bool(bradley_terry(arena.votes(1500, rng)).better.any()) for _ in range(1000))
    assert wrong / 1000 <= 0.05


def test_all_true_ranks_lie_in_their_ranges_at_once():
    strength = np.array([0.9, 0.6, 0.6, 0.3, 0.1, 0.0, -0.4, -0.4, -0.7, -1.0])
    arena, rng = Arena(strength, ties=0.2), np.random.default_rng(3)
    best, worst = (strength[None] > strength[:, None]).sum(1) + 1, (strength[None] >= strength[:, None]).sum(1)
    wrong = 0
    for _ in range(1000):
        _, low, high = bradley_terry(arena.votes(2000, rng)).ranks
        wrong += bool(((low > best) | (high < worst)).any())
    assert wrong / 1000 <= 0.05


# ----------------------------------------------------------------------------------------------- looking all the time


def direct(gap_points: float, ties: float, votes: int, runs: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Wins and losses after each vote, (runs, votes)."""
    rng = np.random.default_rng(seed)
    win = rng.random((runs, votes)) < 1 / (1 + np.exp(-gap_points / POINTS))
    decided = rng.random((runs, votes)) >= ties
    return np.cumsum(win & decided, axis=1), np.cumsum(~win & decided, axis=1)


def first_ring(wins: np.ndarray, losses: np.ndarray) -> np.ndarray:
    """The vote at which each run is decided, (runs,); infinity where it never is. One call for each distinct count."""
    counts, place = np.unique(wins * 10_000 + losses, return_inverse=True)
    rings = [anytime_direct(*divmod(int(count), 10_000)).verdict != "undecided" for count in counts]
    table = np.array(rings)[place.reshape(wins.shape)]
    return np.where(table.any(axis=1), table.argmax(axis=1) + 1, np.inf)


def test_the_direct_verdict_errs_in_at_most_5_per_cent_when_looked_at_after_every_vote():
    rings = first_ring(*direct(0, 0.25, 3000, 2000, seed=4))
    assert np.isfinite(rings).mean() <= 0.05


@pytest.mark.parametrize(("gap", "most"), [(50, 600), (100, 190)])
def test_the_direct_verdict_comes_soon_enough(gap, most):
    rings = first_ring(*direct(gap, 0.25, 3000, 300, seed=5))
    assert np.median(rings) <= most


@pytest.mark.slow
def test_the_verdict_on_ratings_errs_in_at_most_5_per_cent_when_looked_at_all_the_time():
    arena, rng = Arena(np.zeros(4)), np.random.default_rng(6)
    wrong = fixed = 0
    for _ in range(400):
        votes = arena.votes(2000, rng)
        rang = misled = False
        for n in range(20, 2001, 20):
            gap = bradley_terry(votes.where(np.s_[:n]), cluster=None).difference("m0", "m1")
            rang |= anytime(gap["value"] / POINTS, gap["se"] / POINTS).verdict != "undecided"
            misled |= gap["p"] < 0.05
        wrong, fixed = wrong + rang, fixed + misled
    assert wrong / 400 <= 0.05
    assert fixed / 400 > 0.2  # what looking at an interval for one look would do
