"""The trend of a run's checkpoints: ordered by step, with a slope whose interval knows that ratings hang together."""

import random

import pytest

from moreseek.arena.replay import Replay
from moreseek.arena.trend import trends
from moreseek.errors import InputError


def entered(name, **settings):
    return {"kind": "entered", "at": 0.0, "name": name, "class": "reasoning", "family": "tiny", "model": name,
            "quota": None, "settings": settings}  # fmt: skip


def ledger(gain, n=600):
    """Battles of three checkpoints and a stranger; every 100 steps are worth ``gain`` log-odds."""
    rng = random.Random(0)
    steps = {"late": 300, "early": 100, "middle": 200}
    strength = {name: gain * step / 100 for name, step in steps.items()} | {"stranger": gain * 2}
    yield entered("stranger")
    for name, step in steps.items():
        yield entered(name, stage="zero", step=step)
    yield {"kind": "judge", "at": 0.0, "name": "verifier", "settings": {}}
    for i in range(n):
        left, right = rng.sample(list(strength), 2)
        wins = rng.random() < 1 / (1 + 2.718281828 ** (strength[right] - strength[left]))
        yield {"kind": "judgement", "at": 1.0, "judge": "verifier", "battle": f"b{i}", "prompt": f"p{i % 50}",
               "left": left, "right": right, "outcome": "model_a" if wins else "model_b", "category": "problems",
               "language": "other", "probability": 1.0, "across": False}  # fmt: skip


def test_the_slope_is_found_and_steps_are_in_order():
    (trend,) = trends(Replay(ledger(1.0)), judge="verifier")
    assert [point["step"] for point in trend["points"]] == [100, 200, 300]
    assert [point["name"] for point in trend["points"]] == ["early", "middle", "late"]
    assert trend["slope"]["ci_low"] < 173.7 < trend["slope"]["ci_high"]
    assert trend["slope"]["ci_low"] > 0
    rise = trend["points"][2]["rating"] - trend["points"][1]["rating"]
    assert trend["points"][2]["change"]["value"] == pytest.approx(rise)


def test_without_a_trend_the_interval_holds_nothing_too():
    (trend,) = trends(Replay(ledger(0.0)), judge="verifier")
    assert trend["slope"]["ci_low"] < 0 < trend["slope"]["ci_high"]


def test_people_who_saw_no_checkpoint_give_no_trend():
    with pytest.raises(InputError, match="no checkpoint"):
        trends(Replay(ledger(0.0)))
