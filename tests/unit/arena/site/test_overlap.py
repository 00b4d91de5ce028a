"""Several people judge the same two answers, and nobody twice."""

import time
from types import SimpleNamespace

from tests.unit.arena.site.test_judges import PROBLEMS, fight, right

from moreseek.arena.agreement import agreement
from moreseek.arena.replay import Replay
from moreseek.arena.store import ledger, voters


def test_a_known_question_shows_another_voter_the_same_answers(arena, endpoint):
    said = iter(range(100))
    endpoint.say.update(counts=lambda _: f"answer {next(said)}", more=lambda _: f"more {next(said)}")
    site = arena(("counts", "more"), overlap=1.0)
    endpoint.asked.clear()
    first, second = site.browser(), site.browser()
    battle = first.battle("What is it?")
    assert len(endpoint.asked) == 2
    seen = [second.battle("what  IS it?") for _ in range(1)] + [site.browser().battle("What is it?") for _ in range(5)]
    assert len(endpoint.asked) == 2
    assert {frozenset(other.texts) for other in seen} == {frozenset(battle.texts)}
    for browser, one in ((first, battle), (second, seen[0])):
        left = one.texts[0].startswith("answer")
        assert browser.vote(one.id, "model_a" if left else "model_b").json()["vote"]["set_apart"] is None
    with site.arena.database.read() as connection:
        replay = Replay(entry for _, entry, _ in ledger.lines(connection))
    found = agreement(replay.votes())
    assert (found.units, found.judgements) == (1, 2)
    assert set(found.per_voter.values()) == {1.0}


def test_what_an_answer_took_is_counted_once_however_many_people_judge_it(arena, endpoint):
    endpoint.say.update(counts=lambda _: "answer", more=lambda _: "more", right=right, wrong=lambda _: "7")
    site = arena(("counts", "more"), overlap=1.0)
    for _ in range(4):
        browser = site.browser()
        battle = browser.battle("What is it?")
        browser.vote(battle.id)
    assert {one.answers for one in site.arena.boards.tallies().values()} == {1}
    browser.post(f"/api/battles/{browser.battle('another').id}/turns", {"prompt": "and?"})
    again = site.browser()
    battle = again.battle("What is it?")
    again.post(f"/api/battles/{battle.id}/turns", {"prompt": "and then?"})
    again.vote(battle.id)
    assert {one.answers for one in site.arena.boards.tallies().values()} == {2}  # the further turn was answered anew


def test_what_judges_saw_counts_for_no_mean(arena, endpoint):
    endpoint.say.update(right=right, wrong=lambda _: "7")
    site = arena(("right", "wrong"), overlap=1.0)
    fight(SimpleNamespace(database=site.arena.database, settings=site.arena.settings), PROBLEMS[:1])
    assert site.arena.boards.tallies() == {}
    browser = site.browser()
    assert browser.vote(browser.battle(PROBLEMS[0].prompt).id).status_code == 200
    assert site.arena.boards.tallies() == {}


def test_nobody_is_shown_an_own_battle_again(arena, endpoint):
    browser = arena(("ok", "second"), overlap=1.0).browser()
    endpoint.asked.clear()
    browser.battle("What is it?")
    browser.battle("What is it?")
    assert len(endpoint.asked) == 4


def test_what_was_forgotten_is_not_shown_and_without_overlap_nothing_is(arena, endpoint):
    site = arena(("ok", "second"), overlap=1.0)
    endpoint.asked.clear()
    battle = site.browser().battle("What is it?")
    with site.arena.database.write() as connection:
        voters.forget_battle(connection, battle.id, time.time())
    site.browser().battle("What is it?")
    assert len(endpoint.asked) == 4
    site = arena(("ok", "second"))
    site.browser().battle("What is it?")
    assert len(endpoint.asked) == 6


def test_people_see_what_the_judges_saw(arena, endpoint):
    endpoint.say.update(right=right, wrong=lambda _: "7")
    site = arena(("right", "wrong"), overlap=1.0)
    fight(SimpleNamespace(database=site.arena.database, settings=site.arena.settings), PROBLEMS[:2])
    endpoint.asked.clear()
    assert set(site.browser().battle(PROBLEMS[0].prompt).texts) == {"20", "7"}
    assert endpoint.asked == []


def test_of_a_battle_of_several_turns_the_first_answers_are_shown_and_no_judge_judges_it(arena, endpoint):
    endpoint.say.update(right=right, wrong=lambda _: "7")
    site = arena(("right", "wrong"), overlap=1.0)
    first, second = site.browser(), site.browser()
    battle, question = first.battle(PROBLEMS[0].prompt), {"prompt": PROBLEMS[1].prompt}
    assert first.post(f"/api/battles/{battle.id}/turns", question).status_code == 200
    assert first.vote(battle.id).status_code == 200
    endpoint.asked.clear()
    seen = second.battle(PROBLEMS[0].prompt)
    assert set(seen.texts) == {"20", "7"}
    assert endpoint.asked == []
    assert second.post(f"/api/battles/{seen.id}/turns", question).status_code == 200
    assert len(endpoint.asked) == 2  # a further turn has a conversation of its own
    third = site.browser()
    assert third.vote(third.battle(PROBLEMS[0].prompt).id).status_code == 200
    here = SimpleNamespace(database=site.arena.database, settings=site.arena.settings)
    _, tally = fight(here, PROBLEMS[:1], voted=True)
    assert tally.judged == 2  # the third voter's battle, and the one fought for the judge
