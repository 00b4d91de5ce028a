"""Tests of voters on simulated ones: honest voters pass, also on sparse pairs; random and rigging ones do not."""

import numpy as np
import pytest

from moreseek.arena.trust import ALPHA, p_values, suspicious, too_fast
from moreseek.arena.votes import Labels, Votes

STRENGTHS = np.linspace(-1.5, 1.5, 8)


def crowd(rng, a_pair, ties, behaviour, own=100, strengths=STRENGTHS):
    """Votes of honest voters, about ``a_pair`` a pair, and then ``own`` of one voter who behaves in a way."""
    M = len(strengths)
    n = a_pair * M * (M - 1) // 2
    a = rng.integers(M, size=n + own)
    b = (a + rng.integers(1, M, size=n + own)) % M
    left = rng.random(n + own) < 1 / (1 + np.exp(-(strengths[a] - strengths[b])))
    outcome = np.where(rng.random(n + own) < ties, rng.integers(2, 4, size=n + own), np.where(left, 0, 1))
    who = np.append(rng.integers(20, size=n), np.full(own, 20)).astype(np.int32)
    mine = who == 20
    if behaviour == "random":
        outcome[mine] = rng.integers(4, size=own)
    elif behaviour == "coin":
        outcome[mine] = rng.integers(2, size=own)
    elif behaviour == "contrarian":
        outcome[mine] = np.where(left[mine], 1, 0)
    elif behaviour == "left":
        outcome[mine] = np.where(rng.random(own) < 0.9, 0, outcome[mine])
    elif behaviour == "rigger":  # for its target whenever it sees it, honest elsewhere
        outcome[mine & (a == 0)] = 0
        outcome[mine & (b == 0)] = 1
    names = tuple(f"m{i}" for i in range(M))
    return Votes(names, a, b, outcome, {"voter": Labels(who, tuple(map(str, range(21))))})


def apart(votes, voter="20"):
    """The counts of everybody else's votes, and the voter's own."""
    own = votes.labels["voter"].codes == votes.labels["voter"].names.index(voter)
    counts = np.zeros((len(votes.names), len(votes.names), 4))
    others = votes.where(~own)
    np.add.at(counts, (others.a, others.b, others.outcome), 1)
    return counts, votes.where(own)


def flagged(times, a_pair, ties, behaviour, own=100):
    rng = np.random.default_rng(7)
    return sum(suspicious(*apart(crowd(rng, a_pair, ties, behaviour, own))) is not None for _ in range(times)) / times


@pytest.mark.parametrize(("a_pair", "ties"), [(5, 0.5), (50, 0.25)])
def test_few_honest_voters_are_flagged(a_pair, ties):
    assert flagged(40, a_pair, ties, "honest") == 0


@pytest.mark.slow
@pytest.mark.parametrize(("a_pair", "ties"), [(5, 0.5), (5, 0.25), (50, 0.25)])
def test_at_most_two_in_a_hundred_honest_voters_are_ever_flagged(a_pair, ties):
    assert flagged(500, a_pair, ties, "honest") <= 0.01  # one look; a voter with 300 votes is looked at four times


@pytest.mark.parametrize("behaviour", ["random", "coin", "contrarian", "left", "rigger"])
def test_who_does_not_vote_honestly_is_flagged_within_a_hundred_votes(behaviour):
    assert flagged(20, 50, 0.25, behaviour) >= 0.9


def test_little_is_said_of_few_votes():
    votes = crowd(np.random.default_rng(0), 5, 0.2, "left", own=19)
    assert p_values(*apart(votes)) == {}
    assert suspicious(*apart(votes)) is None


def test_the_test_that_fails_is_named():
    rng = np.random.default_rng(3)
    assert "side" in suspicious(*apart(crowd(rng, 50, 0.25, "left"))).test
    found = suspicious(*apart(crowd(rng, 50, 0.25, "rigger", own=200)))
    assert "target" in found.test
    assert found.p <= ALPHA


def test_who_votes_before_anybody_could_read_is_flagged():
    assert too_fast(np.full(30, 0.8)).test == "too_fast"
    assert too_fast(np.full(30, 9.0)) is None
    assert too_fast(np.full(10, 0.1)) is None


def test_a_voter_on_contestants_that_nobody_else_saw_is_not_judged_by_guesses():
    rng = np.random.default_rng(0)
    votes = crowd(rng, 50, 0.25, "honest")
    mine = votes.labels["voter"].codes == 20
    names = (*votes.names, "new")
    a = np.where(mine, 8, votes.a)
    lone = Votes(names, a, votes.b, np.where(mine, 0, votes.outcome), votes.labels)
    assert p_values(*apart(lone)) == {}
