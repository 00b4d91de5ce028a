"""The best of several variants: the plain interval misses too often, the one that allows for the choice does not."""

import numpy as np
import pytest
from tests.unit.arena.simulated import Arena

from moreseek.arena.ratings import POINTS, bradley_terry
from moreseek.arena.selection import best_of_families


def held(arena, families, votes, runs, seed, cluster=()):
    """Shares of arenas in which the plain interval of the family's best, and the adjusted one, hold the truth."""
    rng, truth = np.random.default_rng(seed), dict(zip(arena.names, 1000 + POINTS * arena.truth(), strict=True))
    plain = adjusted = 0
    for _ in range(runs):
        found = bradley_terry(arena.votes(votes, rng), cluster=cluster)
        (name,) = [name for name in best_of_families(found, families) if families.get(name) == "f"]
        best = best_of_families(found, families)[name]
        place = found.place(name)
        plain += bool(found.ci_low[place] <= truth[name] <= found.ci_high[place])
        adjusted += bool(best.ci_low <= truth[name] <= best.ci_high)
    return plain / runs, adjusted / runs


def family(variants, others):
    return {f"m{i}": "f" if i < variants else f"own{i}" for i in range(variants + others)}


def test_of_eight_equal_variants_the_plain_interval_misses_and_the_adjusted_one_holds():
    """1,000 arenas: with no true difference, the best one's plain interval holds in about 82 per cent."""
    arena = Arena(np.concatenate([np.zeros(8), np.linspace(-0.6, 0.6, 4)]))
    plain, adjusted = held(arena, family(8, 4), 1200, 1000, seed=0)
    assert plain < 0.87
    assert 0.95 <= adjusted <= 0.99


def test_the_adjusted_interval_holds_when_one_variant_is_truly_better():
    """Then there is little to choose, and the interval is hardly wider than it must be."""
    arena = Arena(np.array([0.9, 0.1, 0.0, -0.1, 0.0, -0.4, 0.3, -0.8]))
    plain, adjusted = held(arena, family(5, 3), 1500, 600, seed=1)
    assert plain >= 0.93
    assert adjusted >= 0.95


def test_the_adjusted_interval_holds_when_voters_have_tastes():
    arena = Arena(np.concatenate([np.zeros(6), [-0.5, 0.5]]), voters=80, taste=0.5)
    plain, adjusted = held(arena, family(6, 2), 1600, 400, seed=2, cluster=("voter",))
    assert plain < 0.9
    assert adjusted >= 0.94  # of 400 arenas


def test_only_families_with_several_variants_on_the_board_have_one():
    votes = {"a": ["x", "y", "z"], "b": ["y", "z", "x"], "outcome": ["model_a", "tie", "model_b"]}
    found = bradley_terry(votes)
    assert best_of_families(found, {"x": "one", "y": "two"}) == {}
    best = best_of_families(found, {"x": "one", "y": "one", "z": "one"})
    (name,) = best
    row = found[name]
    assert best[name].of == 3
    assert best[name].ci_low < row["ci_low"]
    assert best[name].ci_high == pytest.approx(row["ci_high"])
