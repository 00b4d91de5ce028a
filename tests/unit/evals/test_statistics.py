import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moreseek.evals.statistics import bootstrap_mean, majority_vote, pass_at_k, wilson


def test_wilson_equals_the_published_example():
    # Newcombe 1998, table I: 81 of 263, method 3.
    estimate = wilson(81, 263)
    assert (round(estimate.ci_low, 4), round(estimate.ci_high, 4)) == (0.2553, 0.3662)


@given(st.integers(1, 2000), st.data())
def test_wilson_holds_its_value_and_stays_within_zero_and_one(trials, data):
    estimate = wilson(data.draw(st.integers(0, trials)), trials)
    assert 0 <= estimate.ci_low <= estimate.value <= estimate.ci_high <= 1
    assert estimate.ci_low < estimate.ci_high


@pytest.mark.parametrize(("n", "c", "k"), [(6, 2, 3), (5, 0, 2), (5, 5, 1), (7, 6, 2), (4, 1, 4)])
def test_pass_at_k_equals_drawing_every_subset(n, c, k):
    outcomes = [True] * c + [False] * (n - c)
    subsets = list(itertools.combinations(outcomes, k))
    assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, subsets)) / len(subsets))


def test_pass_at_k_refuses_a_k_beyond_the_samples():
    with pytest.raises(ValueError, match="pass@8"):
        pass_at_k(4, 1, 8)


def test_bootstrap_is_reproducible_and_near_the_normal_interval():
    values = np.random.default_rng(3).random(400)
    estimate = bootstrap_mean(values, seed=5)
    assert estimate == bootstrap_mean(values, seed=5)
    half = 1.96 * values.std(ddof=1) / math.sqrt(400)
    assert estimate.ci_high - estimate.ci_low == pytest.approx(2 * half, rel=0.1)
    assert estimate.ci_low < estimate.value < estimate.ci_high


def test_bootstrap_covers_the_truth_about_95_times_in_100():
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        estimate = bootstrap_mean(rng.beta(2, 1, size=150), seed=trial, resamples=500)
        covered += estimate.ci_low <= 2 / 3 <= estimate.ci_high
    assert 180 <= covered <= 199


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_perfect_score_is_not_given_a_false_certainty(value):
    estimate = bootstrap_mean([value] * 100)
    assert estimate.value == value
    assert 0.03 < estimate.ci_high - estimate.ci_low < 0.05


def test_a_majority_needs_only_to_be_the_commonest():
    assert majority_vote(["a", "a", "b", "c"], "a") == 1
    assert majority_vote(["a", "b", "b"], "a") == 0


def test_a_tie_counts_its_expected_value():
    assert majority_vote(["a", "b"], "a") == 0.5
    assert majority_vote(["b", "c"], "a") == 0


def test_a_completion_without_an_answer_does_not_vote():
    assert majority_vote([None, None, "a"], "a") == 1
    assert majority_vote([None, None], "a") == 0
