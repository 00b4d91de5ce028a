"""Who meets whom: what a vote would teach, a floor for every pair, classes kept apart, sides at random."""

import random

import numpy as np
import pytest

from moreseek.arena.matchmaking import Candidate, chances, draw

PEOPLE = [Candidate(10 + i, f"m{i}", "base" if i < 3 else "reasoning", i) for i in range(5)]


def chance_of(counts, floor=0.2, across=0.0, people=PEOPLE):
    return {(a.place, b.place): chance for a, b, chance in chances(people, counts, floor, across)}


def test_chances_sum_to_one_and_classes_stay_apart():
    found = chance_of(np.zeros((5, 5, 4)))
    assert sum(found.values()) == pytest.approx(1)
    assert set(found) == {(0, 1), (0, 2), (1, 2), (3, 4)}


def test_the_share_across_classes_is_kept():
    found = chance_of(np.zeros((5, 5, 4)), across=0.3)
    across = sum(chance for (a, b), chance in found.items() if (a < 3) != (b < 3))
    assert across == pytest.approx(0.3)


def test_a_pair_with_fewer_votes_and_more_doubt_is_drawn_more_often():
    counts = np.zeros((5, 5, 4))
    counts[0, 1] = (50, 50, 0, 0)
    counts[0, 2] = (5, 5, 0, 0)
    counts[1, 2] = (10, 0, 0, 0)
    found = chance_of(counts)
    assert found[0, 2] > found[1, 2] > found[0, 1]


def test_every_pair_keeps_a_chance():
    counts = np.zeros((5, 5, 4))
    counts[0, 1] = (1e6, 0, 0, 0)
    assert chance_of(counts)[0, 1] >= 0.2 / 4
    assert set(chance_of(counts, floor=1.0).values()) == {0.25}


def test_the_gain_is_what_a_vote_takes_off_the_variance():
    counts = np.zeros((3, 3, 4))
    counts[0, 1], counts[1, 0] = (3, 1, 2, 0), (1, 2, 0, 1)  # with the two imagined: wins 3+2+1, losses 1+1+1, ties 3
    people = PEOPLE[:3]
    scores = np.array([1.0] * 6 + [0.0] * 3 + [0.5] * 3)
    gains = np.array([scores.var() / 12 - scores.var() / 13, 0.25 / 2 - 0.25 / 3, 0.25 / 2 - 0.25 / 3])
    found = chance_of(counts, floor=1e-9, people=people)
    assert list(found.values()) == pytest.approx(list(gains / gains.sum()), rel=1e-6)


def test_nobody_is_drawn_where_no_two_can_meet():
    empty = np.zeros((5, 5, 4))
    assert draw(PEOPLE[:1], empty, 0.2, 0.0, random.Random(0)) is None
    assert draw([], empty, 0.2, 0.5, random.Random(0)) is None
    assert draw([PEOPLE[0], PEOPLE[4]], empty, 0.2, 0.0, random.Random(0)) is None
    assert draw([PEOPLE[0], PEOPLE[4]], empty, 0.2, 0.5, random.Random(0)).probability == 1.0


def test_draws_follow_the_chances_and_sides_are_even():
    counts = np.zeros((5, 5, 4))
    counts[0, 1] = (5, 5, 0, 0)
    expected, rng = chance_of(counts), random.Random(1)
    draws = [draw(PEOPLE, counts, 0.2, 0.0, rng) for _ in range(8_000)]
    for pair, chance in expected.items():
        seen = [one for one in draws if {one.left.place, one.right.place} == set(pair)]
        assert len(seen) / len(draws) == pytest.approx(chance, abs=0.02)
        assert {one.probability for one in seen} == {chance}
    assert sum(one.left.place < one.right.place for one in draws) / len(draws) == pytest.approx(0.5, abs=0.02)
