"""Bradley–Terry ratings on the boards that break naive ones."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moreseek.arena.connectivity import components
from moreseek.arena.ratings import POINTS, bradley_terry, from_cells
from moreseek.errors import InputError

OUTCOMES = ("model_a", "model_b", "tie", "both_bad")


def finite(found):
    for values in (found.rating, found.se, found.ci_low, found.ci_high):
        assert np.isfinite(values).all()
    assert (found.se >= 0).all()
    return found


def test_two_contestants_get_the_log_odds_of_their_score():
    found = bradley_terry([("x", "y", "model_a")] * 30 + [("y", "x", "model_a")] * 10 + [("x", "y", "tie")] * 20)
    assert found.theta[0] - found.theta[1] == pytest.approx(math.log(40 / 20), abs=1e-9)
    assert found.difference("x", "y")["value"] == pytest.approx(POINTS * math.log(2), abs=1e-6)
    assert found["x"]["rating"] - found["y"]["rating"] == pytest.approx(POINTS * math.log(2), abs=1e-6)
    with pytest.raises(InputError, match="no contestant 'z'"):
        found["z"]


def test_100_points_are_64_per_cent_of_wins():
    assert 1 / (1 + math.exp(-100 / POINTS)) == pytest.approx(0.640, abs=0.0005)


def test_no_votes_leave_everybody_at_the_mean():
    found = finite(bradley_terry({"a": [], "b": [], "outcome": []}, names=["x", "y"]))
    assert found.rating.tolist() == [1000, 1000]
    assert [row["rank"] for row in found.rows()] == [None, None]
    assert any("no votes" in warning for warning in found.warnings)
    assert bradley_terry([]).rows() == []


def test_one_contestant_is_a_board_of_one():
    found = finite(bradley_terry([("x", "x", "tie")] * 3))
    assert found.rating.tolist() == [1000]
    assert any("3 battles of a contestant with itself" in warning for warning in found.warnings)


def test_a_contestant_that_won_everything_is_far_ahead_but_not_certain():
    found = finite(bradley_terry([("x", "y", "model_a")] * 200 + [("y", "z", "tie")] * 100))
    assert found.names[int(found.theta.argmax())] == "x"
    assert found.component.tolist() == [2, 1, 1]
    assert "2 components {y, z}, {x}" in found.warnings[0]
    assert found.se[0] > 100  # 200 wins and nothing else say little about how much better


def test_separate_groups_are_named_and_kept_finite():
    battles = [
        (a, b, outcome) for pair in ("ab", "cd") for a, b in [pair] for outcome in OUTCOMES[:2] for _ in range(50)
    ]
    found = finite(bradley_terry(battles))
    assert sorted(found.component.tolist()) == [1, 1, 2, 2]
    assert "{a, b}, {c, d}" in found.warnings[0]
    assert found.difference("a", "c")["ci_high"] > 150  # nothing is known of a against c
    with pytest.raises(InputError, match="2 components"):
        bradley_terry(battles, prior=0)


def test_all_ties_are_all_equal():
    found = finite(bradley_terry([(a, b, "tie") for a, b in itertools.permutations("wxyz", 2)] * 20))
    np.testing.assert_allclose(found.rating, 1000, atol=1e-6)
    assert found.rank.tolist() == [1, 1, 1, 1]
    assert found.side is None


def test_order_of_votes_and_of_sides_do_not_matter():
    rng = np.random.default_rng(0)
    battles = [(*rng.choice(list("abcde"), 2, replace=False).tolist(), OUTCOMES[rng.integers(4)]) for _ in range(400)]
    turn = {"model_a": "model_b", "model_b": "model_a"}
    other = [(b, a, turn.get(outcome, outcome)) for a, b, outcome in reversed(battles)]
    first, second = ({row["name"]: row for row in bradley_terry(some).rows()} for some in (battles, other))
    for name, row in first.items():
        assert second[name]["rating"] == pytest.approx(row["rating"], abs=1e-6)
        assert second[name]["se"] == pytest.approx(row["se"], abs=1e-6)


def test_repeated_rows_narrow_the_interval_unless_they_share_a_voter():
    battles = {
        "a": ["x", "y", "z"] * 40,
        "b": ["y", "z", "x"] * 40,
        "outcome": ["model_a", "tie", "model_b", "model_b"] * 30,
    }
    battles["voter"] = [str(i % 60) for i in range(120)]
    once = bradley_terry(battles)
    twice = bradley_terry({name: column * 2 for name, column in battles.items()})
    np.testing.assert_allclose(twice.rating, once.rating, atol=1e-6)
    np.testing.assert_allclose(twice.se, once.se, atol=1e-6)
    alone = bradley_terry({name: column * 2 for name, column in battles.items()}, cluster=None)
    np.testing.assert_allclose(alone.se * math.sqrt(2), bradley_terry(battles, cluster=None).se, atol=1e-6)


def test_votes_without_a_voter_stand_for_themselves():
    rng = np.random.default_rng(1)
    battles = {"a": ["x", "y"] * 100, "b": ["y", "x"] * 100, "outcome": [OUTCOMES[i] for i in rng.integers(0, 3, 200)]}
    plain = bradley_terry(battles, cluster=None).se
    nobody = bradley_terry({**battles, "voter": [None] * 200})
    np.testing.assert_allclose(nobody.se, plain * math.sqrt(200 / 199))
    assert nobody.clusters == {"voter": 200}


def test_two_ways_with_the_same_clusters_are_one_way():
    rng = np.random.default_rng(2)
    ids = [str(i) for i in rng.integers(0, 40, 300)]
    battles = {
        "a": rng.choice(list("abc"), 300).tolist(), "b": rng.choice(list("def"), 300).tolist(),
        "outcome": rng.integers(0, 4, 300), "voter": ids, "prompt": ids,
    }  # fmt: skip
    both, one = bradley_terry(battles), bradley_terry(battles, cluster=["voter"])
    np.testing.assert_allclose(both.se, one.se)


def test_blocks_of_clusters_give_the_same_as_all_at_once(monkeypatch):
    import moreseek.arena.clusters as module

    rng = np.random.default_rng(3)
    battles = {"a": rng.integers(0, 6, 900), "b": rng.integers(6, 9, 900), "outcome": rng.integers(0, 4, 900)}
    battles["voter"] = rng.integers(0, 150, 900)
    whole = bradley_terry(battles).covariance
    monkeypatch.setattr(module, "_TABLE", 100)
    np.testing.assert_allclose(bradley_terry(battles).covariance, whole, atol=1e-12)


def test_a_single_voter_gives_no_certainty():
    found = finite(
        bradley_terry({"a": ["x", "y"], "b": ["y", "x"], "outcome": ["tie", "model_a"], "voter": ["v", "v"]})
    )
    assert any("Only 1 clusters by voter" in warning for warning in found.warnings)
    assert found.difference("x", "y")["ci_high"] - found.difference("x", "y")["ci_low"] > 300


def test_three_ways_are_refused():
    battles = {"a": ["x"], "b": ["y"], "outcome": ["tie"], "voter": ["1"], "prompt": ["2"], "category": ["3"]}
    with pytest.raises(InputError, match="two ways at most"):
        bradley_terry(battles, cluster=["voter", "prompt", "category"])


def test_the_side_is_found_when_the_left_wins_more():
    rng = np.random.default_rng(4)
    a = rng.integers(0, 5, 20_000)
    b = (a + rng.integers(1, 5, 20_000)) % 5
    side = bradley_terry({"a": a, "b": b, "outcome": (rng.random(20_000) > 0.55).astype(int)}).side_effect()
    assert side["ci_low"] < POINTS * math.log(0.55 / 0.45) < side["ci_high"]


def test_a_side_that_is_always_the_same_contestants_is_not_reported():
    assert bradley_terry([("x", "y", "model_a"), ("x", "y", "model_b")] * 30).side_effect() is None


def test_few_battles_give_no_rank_and_take_none_away():
    battles = [("x", "y", o) for o in ("model_a", "model_a", "model_b") for _ in range(20)] + [
        ("new", "y", "model_a")
    ] * 3
    rows = {row["name"]: row for row in bradley_terry([*battles, ("new", "y", "model_b")]).rows()}
    assert rows["new"]["provisional"]
    assert (rows["new"]["rank"], rows["new"]["rank_low"], rows["new"]["rank_high"]) == (None, None, None)
    assert rows["x"]["rank"] == 1
    assert {rows["x"]["rank_high"], rows["y"]["rank_high"]} <= {1, 2}


def test_ratings_from_counts_are_ratings_from_votes():
    rng = np.random.default_rng(5)
    battles = {"a": rng.integers(0, 5, 500), "b": rng.integers(5, 9, 500), "outcome": rng.integers(0, 4, 500)}
    found = bradley_terry(battles)
    again = from_cells(found.cells, start=found.theta + 0.1)
    np.testing.assert_allclose(again.theta, found.theta, atol=1e-10)
    np.testing.assert_allclose(again.covariance, found.covariance, atol=1e-9)


@pytest.mark.parametrize("prior", [-1, math.nan, math.inf])
def test_a_prior_that_is_none_is_refused(prior):
    with pytest.raises(InputError, match="prior"):
        bradley_terry([("x", "y", "tie")], prior=prior)


def reachable(M, battles):
    """Slow and obvious: closure of "has at least half a win over"."""
    over = np.eye(M, dtype=bool)
    for a, b, outcome in battles:
        if a != b:
            over[a, b] |= outcome != 1
            over[b, a] |= outcome != 0
    for k in range(M):
        over |= over[:, [k]] & over[[k], :]
    return over & over.T


BATTLE = st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 3))


@settings(max_examples=150, deadline=None)
@given(st.lists(BATTLE, max_size=40))
def test_any_votes_at_all_give_finite_ratings_and_true_components(battles):
    columns = {name: np.array([b[i] for b in battles], int) for i, name in enumerate(("a", "b", "outcome"))}
    found = finite(bradley_terry(columns, names=[f"m{i}" for i in range(6)], min_votes=1))
    together = found.component[:, None] == found.component[None, :]
    assert (together == reachable(6, battles)).all()
    assert found.theta.sum() == pytest.approx(0, abs=1e-9)
    assert np.linalg.eigvalsh(found.covariance).min() > -1e-9
    for row in found.rows():
        if row["rank"]:
            assert 1 <= row["rank_low"] <= row["rank"] <= row["rank_high"] <= 6


@settings(max_examples=60, deadline=None)
@given(st.lists(BATTLE, min_size=1, max_size=60))
def test_the_fit_is_at_the_top_of_the_likelihood(battles):
    columns = {name: np.array([b[i] for b in battles], int) for i, name in enumerate(("a", "b", "outcome"))}
    found = bradley_terry(columns, names=list("uvwxyz"), prior=0.5)
    expected = np.zeros(6)
    for a, b, outcome in battles:
        if a != b:
            surplus = (1, 0, 0.5, 0.5)[outcome] - 1 / (1 + math.exp(found.theta[b] - found.theta[a]))
            expected[a] += surplus
            expected[b] -= surplus
    # The slope of the virtual votes balances that of the real ones, up to a common shift of the strengths.
    shift = np.linspace(-3, 3, 60_001)[:, None]
    virtual = 0.5 * (0.5 - 1 / (1 + np.exp(-(found.theta[None, :] + shift))))
    assert np.abs(virtual + expected).max(axis=1).min() < 1e-4


def test_components_of_nothing_are_none():
    assert components(bradley_terry([]).cells).tolist() == []


def test_a_newcomer_that_only_one_voter_saw_is_not_certain():
    rng = np.random.default_rng(6)
    battles = {"a": rng.integers(0, 4, 400), "b": rng.integers(4, 7, 400), "outcome": rng.integers(0, 3, 400)}
    battles["voter"] = rng.integers(0, 40, 400)
    more = {"a": [7] * 12, "b": [0, 1, 2, 3, 4, 5] * 2, "outcome": [0, 1, 0, 1, 2, 0] * 2, "voter": [40] * 12}
    found = bradley_terry({name: np.append(column, more[name]) for name, column in battles.items()})
    alone = bradley_terry({name: np.append(column, more[name]) for name, column in battles.items()}, cluster=None)
    assert found.se[7] >= 0.999 * alone.se[7] > 50
