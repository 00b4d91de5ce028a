"""Before the vote nothing that a browser receives says who answers: names, thinking, errors, order, pace."""

import json
import time

import pytest

from moreseek.arena.live.endpoint import Reply
from moreseek.arena.live.identity import leak
from moreseek.arena.live.language import language_of
from moreseek.arena.live.pacing import in_step
from moreseek.arena.web.chosen import PLOTS


def names(site):
    return [word for one in site.arena.settings.contestant for word in (one.name, one.model + '"', one.family, one.url)]


@pytest.mark.parametrize("models", [("ok", "second"), (("think", "reasoning"), ("tags", "reasoning")), ("ok", "fail")])
def test_no_name_and_no_thinking_before_the_vote(arena, models):
    site = arena(models, across_classes=0)
    browser = site.browser()
    battle = browser.battle()
    everything = browser.page + battle.raw + json.dumps(dict(battle.response.headers))
    for word in [*names(site), "hidden thoughts", "Let me think", "secret-name"]:
        assert word.lower() not in everything.lower(), word
    for path, body in ((f"/api/battles/{battle.id}/undo", {}), (f"/api/battles/{battle.id}/vote", {"outcome": "x"})):
        assert not any(word.lower() in browser.post(path, body).text.lower() for word in names(site))
    if battle.error is None:
        revealed = browser.vote(battle.id).json()["reveal"]
        assert [one["thinking"] is not None for one in revealed] == [one["class"] == "reasoning" for one in revealed]
        assert "<think>" not in json.dumps(revealed)


async def shown(replies, held=False):
    return [parts async for parts in in_step(replies, 1e6, held)]


def run(coroutine):
    import asyncio

    return asyncio.run(coroutine)


def test_both_sides_advance_alike_whoever_is_slow():
    fast, slow = Reply(), Reply()
    fast.add("a" * 500, "")
    fast.end()

    async def battle():
        import asyncio

        async def trickle():
            for _ in range(10):
                slow.add("b" * 50, "")
                await asyncio.sleep(0.01)
            slow.end()

        task = asyncio.create_task(trickle())
        parts = [part for part in await shown((fast, slow)) if part]
        await task
        return parts

    parts = run(battle())
    assert len(parts) > 3
    assert all(len(left) == len(right) for left, right in parts)
    assert "".join(left for left, _ in parts) == "a" * 500


def test_a_shorter_answer_ends_and_the_longer_goes_on_to_its_end():
    short, long = Reply(), Reply()
    short.add("ab", "")
    long.add("c" * 300, "")
    short.end(), long.end()
    parts = run(shown((short, long)))
    assert "".join(left for left, _ in filter(None, parts)) == "ab"
    assert "".join(right for _, right in filter(None, parts)) == "c" * 300


def test_across_classes_both_answers_are_held_and_come_at_once(arena):
    site = arena((("think", "reasoning"), "ok"), across_classes=1.0)
    battle = site.browser().battle()
    shown = [event for event in battle.events if "a" in event]
    assert len(shown) == 1
    assert all(shown[0].values())


def test_thinking_in_tags_is_told_apart_even_when_the_tag_comes_in_pieces():
    reply = Reply()
    for piece in ("\n<th", "ink>secret ", "thought</thi", "nk>\n\nThe ans", "wer"):
        reply.add(piece, "")
        assert "secret" not in reply.text
        assert "<" not in reply.text
    reply.end()
    assert reply.text == "The answer"
    assert reply.whole_thinking == "secret thought"
    opened = Reply(opens_thinking=True)
    opened.add("musing</think>four", "")
    assert (opened.text, opened.whole_thinking) == ("four", "musing")
    plain = Reply()
    plain.add("<b>", "")
    assert plain.text == "<b>"


def test_sides_are_random_and_say_nothing(arena):
    site = arena(battles_a_minute=1000)
    browser = site.browser()
    left = [browser.battle_and_vote(f"question {i}").json()["reveal"][0]["name"] for i in range(24)]
    assert 3 <= left.count("Ok-9000") <= 21  # outside with p < 0.0001


@pytest.mark.parametrize(
    ("answer", "is_leak"),
    [
        ("I am Claude, made by Anthropic.", True),
        ("Hi! I'm DeepSeek-R1.", True),
        ("我是通义千问，由阿里云开发。", True),
        ("由OpenAI训练的语言模型。", True),
        ("As an AI model trained by Google, I cannot.", True),
        ("You can call me Zero.", True),
        ("tiny-r1 zero thinks so.", True),
        ("TINY R1_zero thinks so.", True),
        ("Zero is a number; I am sure of it.", False),
        ("Claude Shannon founded information theory.", False),
        ("I am not sure. Let us go step by step.", False),
        ("Google was founded in 1998.", False),
        ("我是这样想的：先算乘法。", False),
    ],
)
def test_an_answer_that_names_itself_is_seen(answer, is_leak):
    assert (leak(answer, ["tiny-r1 zero", "zero"], "Who are you?") is not None) == is_leak


def test_a_name_that_the_question_brought_up_is_no_leak():
    assert leak("tiny-r1 is a recipe.", ["tiny-r1"], "What is tiny-r1?") is None
    assert leak("I am tiny-r1.", ["tiny-r1"], "Are you tiny-r1?") is not None


def test_the_vote_on_an_answer_that_names_itself_is_kept_apart(arena):
    site = arena(("ok", "leaky"))
    browser = site.browser()
    answer = browser.battle_and_vote().json()
    assert answer["vote"]["set_apart"] == "identity"
    assert browser.http.get("/leaderboard.json").json()["votes"] == 0


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("What is the capital of France?", "en"), ("用一句话解释强化学习", "zh"), ("17 * 24 = ?", "other"),
        ("请用 Python 写一个快速排序", "zh"), ("これは何ですか", "other"), ("Was ist die Hauptstadt?", "other"),
        ("Write code that prints 你好", "en"), ("Сколько будет 2+2", "other"),
    ],
)  # fmt: skip
def test_the_language_of_a_question(text, language):
    assert language_of(text) == language


def test_language_and_leaks_cost_little_on_hostile_texts():
    begun = time.process_time()
    for text in ("由" * 20_000, "i am " * 10_000, "a" * 60_000, "- " * 30_000, "I am\n" * 10_000):
        leak(text, ["tiny-r1 zero", "a-1-a-1-a"], "")
        language_of(text)
    assert time.process_time() - begun < 4


def test_no_page_moves_before_the_vote_so_that_nobody_sees_who_was_drawn(arena):
    site = arena(("ok", "second", "third"), min_votes=1)
    site.browser().battle_and_vote("one")
    watcher, browser = site.browser().http, site.browser()

    def seen():
        site.arena.audited = None
        pages = ["/audit.json", "/leaderboard?lang=en", "/votes.json", "/"]
        texts = [watcher.get(path).text for path in (*pages, *(f"/plots/{name}.json" for name in PLOTS))]
        return [text.replace(watcher.cookies.get("arena_session", ""), "") for text in texts]

    before = seen()
    battle = browser.battle("two")
    assert seen() == before
    browser.post(f"/api/battles/{battle.id}/turns", {"prompt": "three"})
    assert seen() == before
    browser.vote(battle.id)
    assert seen() != before
