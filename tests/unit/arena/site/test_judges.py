"""Judges: what they say of which battles, and that none of it is a vote."""

import asyncio
import json
import time
from urllib.parse import urlsplit

import pytest
from sqlalchemy import update
from tests.unit.arena.site.running import settings as quick_settings
from tests.unit.arena.site.test_store import RULES, cast

from moreseek.arena.judged import agreements
from moreseek.arena.live.boards import LiveBoards
from moreseek.arena.live.endpoint import Clients
from moreseek.arena.live.judging import VerifierJudge, judge_battles
from moreseek.arena.live.posing import pose
from moreseek.arena.live.roster import entry_of, new_contestant
from moreseek.arena.replay import Replay, read_export
from moreseek.arena.standings import board_of
from moreseek.arena.store import actions, battles, counts, judges, ledger, registry, voters, votes
from moreseek.arena.store.database import open_database
from moreseek.arena.store.export import preferences, read_ledger, write_ledger, write_preferences
from moreseek.arena.store.tables import battles as stored
from moreseek.arena.store.tables import judgements
from moreseek.arena.web.arena import open_arena
from moreseek.arena.web.audit import audit_of
from moreseek.errors import FaultError, InputError
from moreseek.records import Preference, Problem, read_jsonl

PROBLEMS = [Problem(prompt=f"{i}+{i}=", answer=str(2 * i)) for i in range(10, 22)]


def settings(url, database, models):
    """Without a short limit: a busy machine is no failure of a contestant here."""
    return quick_settings(url, database, models, silence_s=60, answer_timeout_s=60)


def quiet(done, total):
    pass


def right(prompt):
    return str(2 * int(prompt.partition("+")[0]))


@pytest.fixture
def three(endpoint, tmp_path):
    """An arena of one that is always right, one that is right below 16, and one that is never right."""
    endpoint.say.update(
        right=right, half=lambda prompt: right(prompt) if int(prompt[:2]) < 16 else "7", wrong=lambda _: "7"
    )
    endpoint.asked.clear()
    arena = open_arena(settings(endpoint.url, tmp_path / "arena.sqlite", ["right", "half", ("wrong", "reasoning")]))
    yield arena
    arena.database.close()


def fight(arena, problems=PROBLEMS, judge=None, voted=False):
    outcome = asyncio.run(pose(arena.database, Clients(), arena.settings, problems, quiet))
    judge = judge or VerifierJudge("verifier", arena.database, problems)
    return outcome, asyncio.run(judge_battles(arena.database, judge, voted, quiet))


def replay(database):
    with database.read() as connection:
        return Replay(entry for _, entry, _ in ledger.lines(connection))


def human(arena, prompt, texts, outcome, session="someone"):
    """A person's battle of the first two contestants, and the vote."""
    database, now = arena.database, time.time()
    with database.write() as connection:
        voter = voters.find_or_add(connection, session, now)
        new = battles.NewBattle(voter.id, "a", 1, 2, False, 0.5, "other", "en", database.question_key(prompt), prompt)
        name = battles.begin(connection, new, now)
        both = [battles.Answer(text, "", 1, 1, 0.1, 0.1, None, False, None) for text in texts]
        battles.finish(connection, name, (both[0], both[1]), now)
    cast(database, name, outcome, session, now)
    return name


def test_the_verifier_says_right_or_wrong_of_both_answers(three):
    outcome, tally = fight(three)
    assert (outcome.battles, tally.judged, tally.undecided) == (36, 36, 0)
    said = {}
    for entry in replay(three.database).judged("verifier").values():
        said.setdefault(frozenset((entry["left"], entry["right"])), []).append(entry["outcome"])
    assert sorted(said[frozenset(("Right-9000", "Half-9000"))]).count("tie") == 6
    assert said[frozenset(("Half-9000", "Wrong-9000"))].count("both_bad") == 6
    assert set(said[frozenset(("Right-9000", "Wrong-9000"))]) == {"model_a", "model_b"}  # both sides are drawn
    board = board_of(replay(three.database), min_votes=1, judge="verifier")
    assert [row["name"] for row in board["rows"]] == ["Right-9000", "Half-9000", "Wrong-9000"]
    assert board["rows"][0]["wins"] == 18
    assert "voter" not in board["clusters"]
    assert board["side_effect"] is None  # it sees no sides


def test_every_contestant_answers_a_question_once_and_nothing_is_done_twice(three, endpoint):
    fight(three)
    assert len(endpoint.asked) == 3 * len(PROBLEMS)
    again, tally = fight(three)
    assert (again.battles, tally.judged, len(endpoint.asked)) == (0, 0, 3 * len(PROBLEMS))
    more = [*PROBLEMS, Problem(prompt="50+50=", answer="100")]
    outcome, tally = fight(three, more)
    assert (outcome.battles, tally.judged, len(endpoint.asked)) == (3, 3, 3 * len(more))


def test_the_admin_pages_contestants_fight_for_judges_too_and_the_paused_do_not(three, endpoint):
    endpoint.say["late"] = right
    given = {"name": "Late", "class": "base", "url": endpoint.url, "model": "late"}
    house = three.settings.arena.model_copy(update={"internal_endpoints": (urlsplit(endpoint.url).netloc,)})
    with three.database.write() as connection:
        one = new_contestant(given, house)
        config = one.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        actions.enter(connection, entry_of(one), config, "a new one", time.time())
        actions.pause(connection, "Half-9000", "broken", time.time())
    outcome, _ = fight(three, PROBLEMS[:1])
    assert outcome.battles == 3
    assert {asked["body"]["model"] for asked in endpoint.asked} == {"right", "wrong", "late"}


def test_a_new_contestant_meets_the_answers_that_are_there(three, endpoint):
    fight(three)
    names = ["right", "half", ("wrong", "reasoning"), "second"]
    with three.database.write() as connection:
        registry.enter(connection, [registry.Entry("Second-9000", "base", "fam", "second", None, {})], time.time())
    three.settings = settings(endpoint.url, three.settings.arena.database, names)
    endpoint.asked.clear()
    outcome, _ = fight(three)
    assert outcome.battles == 3 * len(PROBLEMS)
    assert {asked["body"]["model"] for asked in endpoint.asked} == {"second"}


def test_judgements_are_no_votes(three, tmp_path):
    human(three, "who are you?", ("x", "y"), "model_a")
    before, boards = replay(three.database), LiveBoards(three.database, 1)
    people, audit = boards.board(), audit_of(three)
    fight(three)
    with three.database.write() as connection:
        connection.execute(update(stored).values(at=0))  # so long ago that no vote could come any more
    three.audited = None
    assert boards.board() == people
    assert board_of(replay(three.database), min_votes=1) == board_of(before, min_votes=1)
    after = audit_of(three)
    assert [row["drawn"] for row in after["contestants"]] == [row["drawn"] for row in audit["contestants"]] == [1, 1, 0]
    assert (after["votes"], after["apart"], after["counts_hold"]) == (1, {}, True)
    assert len(list(preferences(three.database))) == 1
    with three.database.read() as connection:
        assert counts.kept(connection) == counts.recount(connection)
        assert counts.table(connection, [1, 2, 3]).sum() == 1
        assert len(connection.execute(judgements.select()).all()) == 36


def test_an_export_gives_a_judges_board_again(three, tmp_path):
    human(three, PROBLEMS[0].prompt, ("20", "7"), "model_a")
    fight(three, voted=True)
    out = tmp_path / "ledger.jsonl"
    write_ledger(three.database, out)
    copy = open_database(str(tmp_path / "copy.sqlite"), create=True)
    read_ledger(copy, out)
    for judge in ("", "verifier"):
        board = board_of(replay(three.database), min_votes=1, judge=judge)
        assert board == board_of(read_export(out), min_votes=1, judge=judge)
        assert board == board_of(replay(copy), min_votes=1, judge=judge)
    with copy.read() as connection:
        assert len(connection.execute(judgements.select()).all()) == 37
        assert counts.kept(connection) == counts.recount(connection)
    copy.close()


def test_a_judge_and_people_are_compared_on_the_same_answers(three):
    human(three, PROBLEMS[0].prompt, ("20", "7"), "model_a")
    human(three, PROBLEMS[1].prompt, ("7", "22"), "model_a", "another")
    human(three, PROBLEMS[2].prompt, ("24", "24"), "tie", "a third")
    human(three, "no problem of ours", ("24", "24"), "tie", "a fourth")
    assert fight(three)[1].judged == 36
    assert agreements(replay(three.database), "verifier") == []
    assert fight(three, voted=True)[1].judged == 3
    (found,) = agreements(replay(three.database), "verifier")
    assert (found["with"], found["battles"], found["decided"]["battles"]) == ("people", 3, 2)
    assert found["same"]["value"] == pytest.approx(2 / 3)
    assert found["decided"]["same"]["value"] == 0.5
    assert -1 <= found["alpha"] <= 1


def test_a_vote_that_was_taken_back_is_not_judged(three):
    name = human(three, PROBLEMS[0].prompt, ("20", "7"), "model_a")
    with three.database.write() as connection:
        votes.undo(connection, "someone", name, RULES, time.time())
    assert fight(three, voted=True)[1].judged == 36


def test_a_verifier_that_fails_judges_nothing(three):
    broken = [problem.model_copy(update={"answer": "no number"}) for problem in PROBLEMS[:2]]
    outcome, tally = fight(three, broken)
    assert (outcome.battles, tally.judged, tally.undecided) == (6, 0, 6)
    assert "not a number" in tally.last_reason
    broken = [problem.model_copy(update={"answer": "no number"}) for problem in PROBLEMS]
    with pytest.raises(FaultError, match="none of 8 battles in a row"):
        fight(three, broken)


def test_an_empty_answer_is_a_wrong_one_and_a_failure_is_none(endpoint, tmp_path):
    endpoint.say.update(right=right)
    arena = open_arena(settings(endpoint.url, tmp_path / "arena.sqlite", ["right", "empty"]))
    fight(arena)
    said = replay(arena.database).judged("verifier").values()
    assert {entry["left"] if entry["outcome"] == "model_a" else entry["right"] for entry in said} == {"Right-9000"}
    arena.database.close()
    arena = open_arena(settings(endpoint.url, tmp_path / "other.sqlite", ["right", "fail"]))
    with pytest.raises(FaultError, match=r"'Fail-9000' failed .* HTTP status 500"):
        fight(arena)
    arena.settings = settings(endpoint.url, tmp_path / "other.sqlite", ["right"])
    with pytest.raises(InputError, match="two contestants"):
        fight(arena)
    arena.database.close()


def test_a_judge_keeps_its_settings(three):
    fight(three)
    with (
        three.database.write() as connection,
        pytest.raises(InputError, match="judged with another kind before"),
    ):
        judges.enter(connection, "verifier", {"kind": "llm"}, time.time())
    with pytest.raises(InputError, match="no judge 'verifer'"):
        replay(three.database).judged("verifer")


def test_a_damaged_judgement_in_an_export_is_named(three, tmp_path):
    fight(three, PROBLEMS[:1])
    entries = []
    with three.database.read() as connection:
        entries = [entry for _, entry, _ in ledger.lines(connection)]
    twice = next(entry for entry in entries if entry["kind"] == "judgement")
    with pytest.raises(ValueError, match=r"judged battle .* twice"):
        Replay([*entries, twice])
    with pytest.raises(KeyError):
        Replay([*entries, {**twice, "judge": "nobody"}])
    assert json.dumps(entries[-1])


def test_what_a_judge_said_gives_pairs_apart_from_peoples(three, tmp_path):
    human(three, "who are you?", ("x", "y"), "model_a")
    human(three, PROBLEMS[0].prompt, ("20", "7"), "model_b")  # against the verifier
    fight(three, voted=True)
    people = list(preferences(three.database))
    assert [(pair["chosen"], pair["rejected"], "judge" in pair) for pair in people] == [("x", "y", 0), ("7", "20", 0)]
    pairs = {pair["prompt"]: pair for pair in preferences(three.database, "verifier")}
    assert len(pairs) == len(PROBLEMS)
    assert all((pair["chosen"], pair["rejected"]) == (right(prompt), "7") for prompt, pair in pairs.items())
    assert {pair["judge"] for pair in pairs.values()} == {"verifier"}
    # Right and half are right below 16, wrong never: two battles, and the person's on the first question.
    assert [pairs[problem.prompt]["votes"]["for"] for problem in (PROBLEMS[0], PROBLEMS[1], PROBLEMS[-1])] == [3, 2, 2]
    assert write_preferences(three.database, tmp_path / "pairs.jsonl", "verifier") == len(PROBLEMS)
    assert len(list(read_jsonl(tmp_path / "pairs.jsonl", Preference))) == len(PROBLEMS)
    with pytest.raises(InputError, match="Did you mean 'verifier'"):
        list(preferences(three.database, "verifer"))
