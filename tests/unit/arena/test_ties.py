"""Models with a tie probability of their own."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moreseek.arena.ratings import bradley_terry
from moreseek.arena.ties import fit_ties, rated
from moreseek.arena.votes import Votes
from moreseek.errors import InputError

NAMES = tuple("uvwxyz")
STRENGTH = np.array([-0.9, -0.5, -0.1, 0.2, 0.5, 0.8])


def drawn(chances, n: int, seed: int) -> Votes:
    """Votes from P(outcome | left, right), a function of two places."""
    rng = np.random.default_rng(seed)
    a = rng.integers(0, 6, n)
    b = (a + rng.integers(1, 6, n)) % 6
    table = np.array([[chances(i, j) for j in range(6)] for i in range(6)])  # (6, 6, 4)
    cumulated = table[a, b].cumsum(axis=1) / table[a, b].sum(axis=1, keepdims=True)
    return Votes(NAMES, a, b, (rng.random(n)[:, None] > cumulated[:, :3]).sum(axis=1))


def davidson(i, j):
    return np.exp([STRENGTH[i], STRENGTH[j], -0.3 + (STRENGTH[i] + STRENGTH[j]) / 2, -np.inf])


def rao_kupper(i, j):
    gap, eta = STRENGTH[i] - STRENGTH[j], np.exp(-0.7)
    win, loss = 1 / (1 + np.exp(eta - gap)), 1 / (1 + np.exp(eta + gap))
    return [win, loss, 1 - win - loss, 0]


def both_bad(i, j):
    level = STRENGTH + 0.7
    return np.exp([level[i], level[j], -0.5 + (level[i] + level[j]) / 2, 0])


@pytest.mark.parametrize(
    ("model", "chances", "tau", "level"),
    [("davidson", davidson, -0.3, 0), ("rao-kupper", rao_kupper, -0.7, 0), ("both-bad", both_bad, -0.5, 0.7)],
)
def test_each_model_finds_what_its_votes_were_drawn_from(model, chances, tau, level):
    found = fit_ties(drawn(chances, 60_000, seed=0), model)
    se = np.sqrt(np.diag(found.covariance))
    assert (np.abs(found.theta - STRENGTH - level) < 4 * se[:6]).all()
    assert abs(found.tau - tau) < 4 * se[6]
    np.testing.assert_allclose(found.chances(0, 5), np.array(chances(0, 5)) / np.sum(chances(0, 5)), atol=0.02)


@pytest.mark.parametrize(
    ("model", "chances", "level"),
    [("davidson", davidson, 0), ("rao-kupper", rao_kupper, 0), ("both-bad", both_bad, 0.7)],
)
def test_the_intervals_of_each_model_hold_the_truth(model, chances, level):
    held = []
    for seed in range(150):
        found = fit_ties(drawn(chances, 1500, seed), model)
        held.append((np.abs(found.theta - STRENGTH - level) < 1.96 * np.sqrt(np.diag(found.covariance))[:6]).mean())
    assert 0.925 <= np.mean(held) <= 0.975


def test_where_nothing_ties_all_models_are_bradley_terry():
    votes = drawn(lambda i, j: [np.exp(STRENGTH[i]), np.exp(STRENGTH[j]), 0, 0], 4000, seed=1)
    for model in ("davidson", "rao-kupper"):
        np.testing.assert_allclose(fit_ties(votes, model).theta, bradley_terry(votes).theta, atol=1e-3)


def test_a_both_bad_board_needs_such_votes_and_has_a_zero_of_its_own():
    with pytest.raises(InputError, match="no vote says both_bad"):
        fit_ties(drawn(davidson, 500, seed=2), "both-bad")
    board = rated(drawn(both_bad, 5000, seed=2), "both-bad", 30)
    assert board.gauge == "1000 is as good as both bad"
    assert board.rating.mean() > 1050


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 3)), min_size=1, max_size=30),
    st.sampled_from(["davidson", "rao-kupper"]),
)
def test_any_votes_give_finite_strengths(battles, model):
    columns = np.array(battles)
    found = fit_ties(Votes(NAMES, columns[:, 0], columns[:, 1], columns[:, 2]), model)
    assert np.isfinite(found.theta).all()
    assert np.isfinite(found.covariance).all()
