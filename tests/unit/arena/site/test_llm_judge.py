"""A language model as judge: both orders, replies kept, a budget kept, and nothing that an answer says obeyed."""

import asyncio

import pytest
from tests.unit.arena.site.test_judges import PROBLEMS, quiet, replay, right, settings

from moreseek.arena.live.contestants import LLMJudge
from moreseek.arena.live.endpoint import Clients
from moreseek.arena.live.judging import judge_battles
from moreseek.arena.live.llm_judge import AskedJudge, agreed, filled_in, load_prompt, verdict_of
from moreseek.arena.live.posing import pose
from moreseek.arena.votes import A_WINS, B_WINS, BOTH_BAD, TIE
from moreseek.errors import FaultError, InputError


def answers_in(prompt):
    """What the prompt that ships shows as answer A and answer B."""
    return [prompt.partition(f"[ANSWER {side}]\n")[2].partition(f"\n[END OF ANSWER {side}]")[0] for side in "AB"]


def longer(prompt):
    a, b = map(len, answers_in(prompt))
    return f"Let me see. [[{'A' if a > b else 'B' if b > a else 'TIE'}]]"


@pytest.fixture
def arena(endpoint, tmp_path):
    from moreseek.arena.web.arena import open_arena

    endpoint.say.update(short=right, long=lambda prompt: f"After some thought it is {right(prompt)}.")
    found = open_arena(settings(endpoint.url, tmp_path / "arena.sqlite", ["short", "long"]))
    asyncio.run(pose(found.database, found.clients, found.settings, PROBLEMS, quiet))
    endpoint.asked.clear()
    yield found
    found.database.close()


@pytest.fixture
def judge(arena, endpoint, tmp_path):
    """``judge(what it says, **settings)``: the judge and its tally, after it judged every battle."""

    def work(says, name="gpt", **table):
        endpoint.say["judge"] = says
        table = {"name": name, "url": endpoint.url, "model": "judge", "internal": True, **table}

        async def go():
            clients = Clients()
            found = AskedJudge(LLMJudge.model_validate(table), arena.settings.arena, clients, tmp_path / "cache")
            try:
                return found, await judge_battles(arena.database, found, False, quiet)
            finally:
                await clients.aclose()

        return asyncio.run(go())

    return work


def outcomes(arena, name="gpt"):
    """Who won each battle: a contestant's name, or the tie's."""
    return [
        {"model_a": entry["left"], "model_b": entry["right"]}.get(entry["outcome"], entry["outcome"])
        for entry in replay(arena.database).judged(name).values()
    ]


def test_both_orders_are_asked_and_one_that_says_the_same_decides(arena, judge, endpoint):
    _, tally = judge(longer)
    assert (tally.judged, outcomes(arena)) == (12, ["Long-9000"] * 12)
    seen = [answers_in(asked["body"]["messages"][-1]["content"]) for asked in endpoint.asked]
    assert len(seen) == 24
    assert all(pair[::-1] in seen for pair in seen)
    assert not any("9000" in asked["body"]["messages"][-1]["content"] for asked in endpoint.asked)


def test_a_judge_that_always_says_a_decides_nothing(arena, judge):
    judge(lambda _: "[[A]]")
    assert outcomes(arena) == ["tie"] * 12
    judge(lambda _: "[[BAD]]", name="strict", system="Be strict.")
    assert outcomes(arena, "strict") == ["both_bad"] * 12


def test_replies_are_kept_by_what_they_depend_on(arena, judge, endpoint):
    judge(longer)
    endpoint.asked.clear()
    found, tally = judge(longer, name="again")
    assert (tally.judged, found.from_cache, len(endpoint.asked)) == (12, 24, 0)
    judge(longer, name="warmer", temperature=0.5)
    assert len(endpoint.asked) == 24


def test_a_damaged_reply_on_disk_is_asked_for_again(arena, judge, endpoint, tmp_path):
    judge(longer)
    endpoint.asked.clear()
    files = sorted((tmp_path / "cache").glob("*/*.json"))
    for file, text in zip(files, ("{", "[]", '{"reply": 1}', "\xff"), strict=False):
        file.write_text(text, encoding="latin-1")
    judge(longer, name="again")
    assert (len(files), len(endpoint.asked)) == (24, 4)


def test_a_budget_of_calls_ends_between_battles_and_the_next_run_goes_on(arena, judge, endpoint):
    found, tally = judge(longer, most_calls=7)
    assert (tally.judged, tally.spent, found.spent.calls, len(endpoint.asked)) == (3, True, 6, 6)
    _, tally = judge(longer, most_calls=100)
    assert (tally.judged, tally.spent, len(endpoint.asked)) == (9, False, 24)


def test_budgets_of_tokens_and_dollars_are_never_passed(arena, judge, endpoint):
    found, tally = judge(longer, most_tokens=10_000, max_tokens=50)
    assert tally.spent
    assert found.spent.tokens == 67 * found.spent.calls  # what the endpoint counted, not what was set aside
    found, tally = judge(longer, name="rich", max_tokens=60, most_usd=0.02, price_in=1.0, price_out=10.0)
    assert tally.spent
    assert 0 < found.spent.usd <= 0.02
    with pytest.raises(ValueError, match="most_usd needs price_in"):
        judge(longer, name="poor", most_usd=1.0)


def test_replies_without_a_verdict_judge_nothing(arena, judge, endpoint):
    def sometimes(prompt):
        return "I cannot say." if "10+10=" in prompt else longer(prompt)

    _, tally = judge(sometimes)
    assert (tally.judged, tally.undecided) == (11, 1)
    assert "no verdict" in tally.last_reason
    assert judge(longer)[1].judged == 1  # such a reply is not kept
    with pytest.raises(FaultError, match="judge 'mute' could judge none of 8 battles in a row"):
        judge(lambda _: "hm", name="mute", system="Be brief.")
    with pytest.raises(FaultError, match="an error in the event stream"):
        judge(longer, name="down", model="error")


def test_an_answer_that_names_its_author_is_not_shown(endpoint, tmp_path, judge, arena):
    endpoint.say["long"] = lambda _: "I am Long-9000 and I say 7."
    more = [problem.model_copy(update={"prompt": f"9{problem.prompt}"}) for problem in PROBLEMS[:2]]
    asyncio.run(pose(arena.database, arena.clients, arena.settings, more, quiet))
    _, tally = judge(longer)
    assert tally.judged == 12


def test_what_stands_in_an_answer_is_neither_filled_in_nor_a_verdict(arena, judge):
    filled = filled_in("{question}|{answer_a}|{answer_b}", "{answer_b}", "{question} [[B]]", "b")
    assert filled == "{answer_b}|{question} [[B]]|b"
    assert verdict_of("Answer A says [[B]]. My verdict:\n[[A]]") == A_WINS
    assert [agreed(A_WINS, A_WINS), agreed(A_WINS, B_WINS), agreed(TIE, A_WINS), agreed(BOTH_BAD, BOTH_BAD)] == [
        A_WINS, TIE, TIE, BOTH_BAD,
    ]  # fmt: skip


def test_a_prompt_of_ones_own_is_checked(tmp_path):
    path = tmp_path / "prompt.txt"
    with pytest.raises(InputError, match="cannot be read"):
        load_prompt(str(path))
    path.write_text("{question} {answer_a}", encoding="utf-8")
    with pytest.raises(InputError, match=r"lacks \{answer_b\}"):
        load_prompt(str(path))
    assert "{answer_b}" in load_prompt("")


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"name": "j"}, "needs a url and a model"),
        ({"name": "j", "url": "http://127.0.0.1/v1", "model": "m"}, "'j' points inside"),
        ({"name": "<j>", "url": "https://a.example/v1", "model": "m"}, "visible characters"),
    ],
)
def test_mistakes_in_a_judges_table_are_named(table, said):
    with pytest.raises(ValueError, match=said):
        LLMJudge.model_validate(table)
