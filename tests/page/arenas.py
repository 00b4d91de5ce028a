"""An arena for the browser: four contestants with scripted answers, simulated voters, one of whom rigs, and a judge."""

import random
import threading
import time

from tests.unit.arena.site.running import settings

from moreseek.arena.live import examine
from moreseek.arena.store import actions, battles, judges, voters, votes
from moreseek.arena.store.tables import battles as battle_rows
from moreseek.arena.votes import OUTCOMES

KEY = "the house's own key of tests"
DAY = 86_400.0
QUESTIONS = {"en": "What is 17 × 24? Show your steps.", "zh": "17 × 24 等于多少？请写出步骤。"}
_THOUGHT = {
    "en": "The second factor splits well: 24 = 20 + 4.\n\n17 × 20 = 340 and 17 × 4 = 68, together 408.",
    "zh": "第二个因数好拆：24 = 20 + 4。\n\n17 × 20 = 340，17 × 4 = 68，合起来 408。",
}
_LONG = {
    "en": "Split 24 into **20 + 4**:\n\n1. 17 × 20 = 340\n2. 17 × 4 = 68\n3. 340 + 68 = **408**\n\n"
    "| part | product |\n|---|---|\n| 17 × 20 | 340 |\n| 17 × 4 | 68 |\n\n```python\nprint(17 * 24)  # 408\n```",
    "zh": "把 24 拆成 **20 + 4**：\n\n1. 17 × 20 = 340\n2. 17 × 4 = 68\n3. 340 + 68 = **408**\n\n"
    "| 部分 | 乘积 |\n|---|---|\n| 17 × 20 | 340 |\n| 17 × 4 | 68 |\n\n```python\nprint(17 * 24)  # 408\n```",
}
_SHORT = {
    "en": "17 × 25 = 425, and one 17 less is **408**.",
    "zh": "17 × 25 = 425，减去一个 17，得 **408**。",
}
STRENGTHS = {"Alder": 1.1, "Birch": 1.0, "Cedar": 0.4, "Dogwood": -0.6}
_SPEED = {"Alder": (6.0, 420), "Birch": (2.5, 180), "Cedar": (1.6, 90), "Dogwood": (1.2, 80)}


class Script:
    """What the contestants say; a question with "wait" in it holds both answers until ``go`` is set."""

    def __init__(self):
        self.go, self.answers = threading.Event(), {}

    def says(self, long):
        def parts(question):
            language = "zh" if "多少" in question else "en"
            text = self.answers.get(question, (_LONG if long else _SHORT)[language])
            if long:
                yield {"think": _THOUGHT[language]}
            if "wait" in question:
                yield text[:12]
                self.go.wait(20)
                text = text[12:]
            yield from (text[at : at + 9] for at in range(0, len(text), 9))

        return parts


def wanted(endpoint, database, script, **house):
    """Settings of an arena with two contestants of each class."""
    found = settings(
        endpoint.url, database, [(name, "reasoning" if name in ("Alder", "Birch") else "base") for name in STRENGTHS],
        **{
            "title": "Arena of simulated voters", "categories": ["maths", "writing"], "min_votes": 20,
            "suggestions": ["Explain why the sky is blue.", "What is 17 × 24? Show your steps."], "silence_s": 30.0,
            "category_suggestions": {"writing": ["Write a haiku about autumn rain."]}, "answer_timeout_s": 60.0,
            "characters_per_s": 3000.0, **house,
        },
    )  # fmt: skip
    table = []
    for place, one in enumerate(found.contestant):
        name = one.name.removesuffix("-9000")
        endpoint.say[name] = script.says(long=place % 2 == 0)
        family = "Grove" if name in ("Alder", "Cedar") else name
        price = (None, None) if name == "Dogwood" else (0.1, 0.4 * (4 - place))
        update = {"name": name, "family": family, "price_in": price[0], "price_out": price[1]}
        table.append(one.model_copy(update=update))
    return found.model_copy(update={"contestant": tuple(table)})


def fill(arena, days=4, a_day=90, seed=1):
    """Votes of simulated people over some days, and a judge's verdicts on a third of their battles."""
    rng, now = random.Random(seed), time.time()
    said = []
    for day in range(days):
        at = now - (days - day) * DAY
        arena.boards.close_days(at)
        with arena.database.write() as connection:
            for i in range(a_day):
                session = f"person {rng.randrange(24)}"
                name = _battle(connection, arena, rng, session, at + 60 * i, f"{day} {i}")
                _vote(connection, arena, rng, session, name, at + 60 * i + 20, said)
    with arena.database.write() as connection:
        judge = judges.enter(connection, "llm-judge", {"kind": "llm", "model": "a judge of the tests"}, now)
        known = {one.id: one for one in judges.unjudged(connection, judge, voted=True)}
        chosen = [(known[name], outcome if rng.random() < 0.8 else rng.randrange(4)) for name, outcome in said[::3]]
        judges.record(connection, judge, "llm-judge", chosen, now)


def _battle(connection, arena, rng, session, at, prompt):
    voter = voters.find_or_add(connection, session, at)
    pair = rng.sample((1, 2), 2) if rng.random() < 0.5 else rng.sample((3, 4), 2)
    pair = rng.sample((1, 2, 3, 4), 2) if rng.random() < 0.3 else pair
    category, language = rng.choice(("maths", "writing")), rng.choice(("en", "en", "zh"))
    new = battles.NewBattle(
        voter.id, "somewhere", *pair, (pair[0] > 2) != (pair[1] > 2), 0.25, category, language,
        arena.database.question_key(prompt), f"question {prompt}",
    )  # fmt: skip
    name = battles.begin(connection, new, at)
    battles.finish(connection, name, tuple(_answer(list(STRENGTHS)[one - 1], rng) for one in pair), at + 10)
    return name


def _answer(name, rng):
    seconds, tokens = (part * rng.uniform(0.7, 1.4) for part in _SPEED[name])
    cost = None if name == "Dogwood" else tokens * 4e-7 * (4 - list(STRENGTHS).index(name))
    text = "word " * int(tokens * 0.7) + ("\n\n- one\n- **two**\n" if rng.random() < 0.5 else "")
    return battles.Answer(text, "", int(tokens), 30, 0.2 * seconds, seconds, cost, False, None)


def _vote(connection, arena, rng, session, name, at, said, choose=None):
    row = connection.execute(battle_rows.select().where(battle_rows.c.id == name)).one()
    pair = [list(STRENGTHS)[one - 1] for one in (row.left_id, row.right_id)]
    gap = STRENGTHS[pair[0]] - STRENGTHS[pair[1]]
    outcome = rng.choice(("tie", "both_bad")) if rng.random() < 0.2 else (
        "model_a" if rng.random() < 1 / (1 + 2.718 ** (-1.6 * gap)) else "model_b"
    )  # fmt: skip
    outcome = choose(pair, outcome) if choose else outcome
    votes.cast(connection, session, name, votes.Given(outcome), arena.rules, at)
    said.append((name, OUTCOMES.index(outcome)))


def rig(arena, monkeypatch, n=60):
    """Somebody who votes for Dogwood whenever it is there; then the house looks. Returns what it found."""
    rng, now = random.Random(7), time.time()
    push = lambda pair, honest: ("model_a", "model_b")[pair.index("Dogwood")] if "Dogwood" in pair else honest  # noqa: E731
    with arena.database.write() as connection:
        for i in range(n):
            name = _battle(connection, arena, rng, "the rigger", now - 3600 + 30 * i, f"rigged {i}")
            _vote(connection, arena, rng, "the rigger", name, now - 3580 + 30 * i, [], push)
    with arena.database.read() as connection:
        voter = voters.find(connection, "the rigger")
    with monkeypatch.context() as patch:
        patch.setattr(examine, "is_a_look", lambda *_: True)
        return voter.pseudonym, examine.examine_voter(arena.database, arena.boards, voter, now)


def act(arena):
    """A few things that the house did."""
    now = time.time()
    with arena.database.write() as connection:
        actions.pause(connection, "Dogwood", "its endpoint is being moved", now - 5000)
        (last,) = actions.log(connection, 1)
        actions.undo(connection, last.id, "moved", now - 3000)
        actions.set_quota(connection, "Alder", 5000, "as declared", now - 2000)
