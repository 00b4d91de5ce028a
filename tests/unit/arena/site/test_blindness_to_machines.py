"""A machine that hears every byte, header and moment before the vote guesses sides no better than by chance."""

import asyncio

import numpy as np
import pytest
from tests.unit.arena.site.eavesdropping import guessed, overhear
from tests.unit.arena.site.endpoints import Pace
from tests.unit.arena.site.running import running, settings

from moreseek.arena.live import fight

QUICK, FULL = 60, 800
# Of 800 guesses at random more than 55 % are right with p = 0.002; of 60 more than 70 % with p = 0.0007.
MOST = {QUICK: 0.7, FULL: 0.55}
SWIFT = Pace(characters=60)
SLOW = Pace(first_s=0.04, every_s=0.004, characters=11)
KINDS = {
    "who is slow": (SWIFT, SLOW, "base", {}),
    "who thinks": (Pace(characters=30), Pace(every_s=0.002, thinking="hm, " * 300), "reasoning", {}),
    "who fails": (Pace(every_s=0.001, fails=lambda question: hash(question) % 3 == 0, fails_after=60,
                       error="alpha is out of memory on a machine with a long name"), SLOW, "base", {}),
    "which class": (SWIFT, Pace(first_s=0.03, every_s=0.002, thinking="so " * 300), ("base", "reasoning"),
                    {"across_classes": 1.0}),
}  # fmt: skip
TEXT = "Both write **the same**, for only the text may tell them apart. " * 4


@pytest.fixture
def eavesdrop(endpoint, tmp_path):
    """``eavesdrop(kind, count)``: the share of sides that the machine guesses of so many battles."""

    def heard(kind, count):
        first, second, classes, house = KINDS[kind]
        classes = (classes, classes) if isinstance(classes, str) else classes
        for model, pace in (("alpha", first), ("omega", second)):
            endpoint.pace[model], endpoint.say[model] = pace, lambda question: f"{TEXT}{question}"
        house = {"pause_s": 1e-9, "silence_s": 20, "answer_timeout_s": 30, "battles_a_minute": 10**6,
                 "battles_a_minute_per_address": 10**6, "characters_per_s": 3000, **house}  # fmt: skip
        models = tuple(zip(("alpha", "omega"), classes, strict=True))
        with running(settings(endpoint.url, tmp_path / f"{count}.sqlite", models, **house)) as site:
            found, left = overhear(site, count)
        assert 0.25 < np.mean(left) < 0.75
        assert len({one.headers.count(b"\r\n") for one in found}) == 1
        failed = sum(any("error" in event for _, event in one.events) for one in found)
        assert (failed > count / 10) == (kind == "who fails")
        return guessed(found, left)

    return heard


def check(share, count):
    assert share <= MOST[count], f"the machine guessed {share:.1%} of {count} battles"


@pytest.mark.parametrize("kind", ["who is slow", "who fails"])
def test_a_machine_cannot_tell_the_sides_of_a_few_battles(eavesdrop, kind):
    check(eavesdrop(kind, QUICK), QUICK)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("kind", KINDS)
def test_a_machine_cannot_guess_55_in_a_hundred_sides(eavesdrop, kind):
    share = eavesdrop(kind, FULL)
    print(f"{kind}: {share:.1%} of {FULL} battles")
    check(share, FULL)


async def _unpaced(replies, characters_per_s, held):
    """What an arena would send that shows each answer as it comes."""
    shown = [0, 0]
    while True:
        both = replies[0].ended and replies[1].ended
        texts = replies[0].text, replies[1].text
        parts = tuple(text[at:] for text, at in zip(texts, shown, strict=True))
        shown = [len(text) for text in texts]
        yield parts if any(parts) else None
        if both:
            return
        await asyncio.sleep(0.005)


def test_the_machine_sees_what_an_arena_without_pacing_would_give_away(eavesdrop, monkeypatch):
    monkeypatch.setattr(fight, "in_step", _unpaced)
    assert eavesdrop("who is slow", QUICK) >= 0.9
