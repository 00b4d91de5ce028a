"""How much hangs on few votes, and on few voters."""

import itertools

import numpy as np
import pytest
from tests.unit.arena.simulated import Arena

from moreseek.arena.columns import as_votes
from moreseek.arena.ratings import bradley_terry
from moreseek.arena.robustness import cap_voters, fewest_votes_to_flip, leave_one_voter_out
from moreseek.errors import InputError


def leader(battles) -> str:
    found = bradley_terry(battles, prior=1e-3)
    return found.names[int(found.theta.argmax())]


def test_the_flip_is_no_worse_than_trying_every_set_of_votes():
    rng = np.random.default_rng(0)
    battles = [("x", "y", "model_a")] * 4 + [("y", "z", "model_a")] * 2 + [("y", "z", "model_b")]
    battles += [("x", "z", "tie")] * 3 + [("y", "x", "model_a")] * 2 + [("z", "x", "model_b")]
    rng.shuffle(battles)
    battles = [tuple(battle) for battle in battles]
    found = fewest_votes_to_flip(bradley_terry(battles, min_votes=1))
    fewest = next(
        k for k in range(1, len(battles))
        if any(leader([b for i, b in enumerate(battles) if i not in gone]) != "x"
               for gone in itertools.combinations(range(len(battles)), k))
    )  # fmt: skip
    assert found.leader == "x"
    assert fewest <= found.removed <= fewest + 1


def test_removing_the_named_votes_changes_the_first_place():
    votes = Arena(np.array([0.1, 0.0, -0.1, -0.5])).votes(2000, np.random.default_rng(1))
    ratings = bradley_terry(votes)
    found = fewest_votes_to_flip(ratings)
    rest = [
        (votes.names[a], votes.names[b], ("model_a", "model_b", "tie", "both_bad")[o])
        for a, b, o in zip(votes.a, votes.b, votes.outcome, strict=True)
    ]
    for cell in found.cells:
        for _ in range(cell["count"]):
            rest.remove((cell["a"], cell["b"], cell["outcome"]))
    assert len(rest) == 2000 - found.removed
    assert leader(rest) == found.rival != found.leader
    assert found.removed < 60
    assert found.rival in found.sentence()


def test_a_board_of_one_cannot_flip():
    assert fewest_votes_to_flip(bradley_terry([("x", "x", "tie")])) is None
    assert fewest_votes_to_flip(bradley_terry([])) is None


def rigged() -> dict:
    """Honest voters, and one who votes for "bad" 400 times."""
    votes = Arena(np.array([0.5, 0.2, 0.0, -0.7]), voters=50).votes(1500, np.random.default_rng(2))
    honest = {
        "a": [votes.names[i] for i in votes.a], "b": [votes.names[i] for i in votes.b],
        "outcome": [("model_a", "model_b", "tie", "both_bad")[i] for i in votes.outcome],
        "voter": [votes.labels["voter"].names[i] for i in votes.labels["voter"].codes],
    }  # fmt: skip
    bad = {"a": ["m3"] * 400, "b": ["m0", "m1"] * 200, "outcome": ["model_a"] * 400, "voter": ["rigger"] * 400}
    return {name: honest[name] + bad[name] for name in honest}


def test_a_cap_takes_the_weight_from_a_voter_who_never_stops():
    votes = as_votes(rigged())
    gain = bradley_terry(votes).rating[votes.names.index("m3")]
    capped = bradley_terry(cap_voters(votes, 60))
    assert capped.rating[votes.names.index("m3")] < gain - 50
    assert capped.cells.votes == pytest.approx(1500 + 60)
    assert cap_voters(votes, 10_000) is votes
    for wrong, said in ((0, "1 is the least"), (5, "column 'voter'")):
        with pytest.raises(InputError, match=said):
            cap_voters(votes if wrong == 0 else as_votes([("x", "y", "tie")]), wrong)


def test_leaving_each_voter_out_names_the_one_that_matters():
    votes = as_votes(rigged())
    found = leave_one_voter_out(votes)
    assert next(iter(found["influence"])) == "rigger"
    place = found["names"].index("m3")
    assert found["rank_low"][place] < found["rank_high"][place]
    without = bradley_terry(votes.where(votes.labels["voter"].codes != votes.labels["voter"].names.index("rigger")))
    whole = bradley_terry(votes)
    assert found["influence"]["rigger"] == pytest.approx(np.abs(without.rating - whole.rating).max(), abs=0.1)
