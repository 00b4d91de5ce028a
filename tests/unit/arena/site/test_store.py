"""The store on SQLite and on PostgreSQL: the same promises on both."""

import json
import random
import sqlite3
import threading
import time

import pytest
from sqlalchemy import text

from moreseek.arena.live.boards import LiveBoards
from moreseek.arena.replay import Replay, read_export
from moreseek.arena.standings import board_of
from moreseek.arena.store import battles, counts, ledger, registry, voters, votes
from moreseek.arena.store.database import address, open_database, shown
from moreseek.arena.store.export import preferences, read_ledger, write_ledger, write_preferences
from moreseek.arena.store.registry import Entry
from moreseek.arena.store.tables import metadata
from moreseek.arena.store.votes import RefusedError, Rules
from moreseek.arena.votes import OUTCOMES
from moreseek.errors import InputError
from moreseek.records import Preference

RULES = Rules(window_s=100, undo_s=10, rated_a_day=1000, rated_a_day_per_address=1000)
NOW = 1_800_000_000.0


@pytest.fixture(params=["sqlite", "postgresql"])
def where(request, tmp_path, monkeypatch):
    monkeypatch.setenv("MORESEEK_ARENA_SECRET", "a secret of the tests")
    if request.param == "sqlite":
        yield str(tmp_path / "arena.sqlite")
        return
    url = request.getfixturevalue("server")
    yield url
    database = open_database(url, create=True)
    with database.write() as connection:
        metadata.drop_all(connection)
        connection.execute(text("DROP TABLE alembic_version"))
    database.close()


@pytest.fixture
def database(where):
    found = open_database(where, create=True, with_secret=True)
    with found.write() as connection:
        kinds = {"x": "base", "y": "base", "z": "base", "r": "reasoning", "s": "reasoning"}
        entries = [Entry(name, kind, "family", name, None, {"temperature": 0.6}) for name, kind in kinds.items()]
        registry.enter(connection, entries, NOW)
    yield found
    found.close()


def battle(database, session="someone", pair=(1, 2), prompt="what?", category="other", language="en", at=NOW):
    with database.write() as connection:
        voter = voters.find_or_add(connection, session, at)
        new = battles.NewBattle(
            voter.id, "address", *pair, (pair[0] > 3) != (pair[1] > 3), 0.25, category, language,
            database.keyed("prompt", prompt), prompt,
        )  # fmt: skip
        name = battles.begin(connection, new, at)
        answer = battles.Answer("left text", "musing", 5, 7, 0.1, 0.2, 0.001, False, None)
        battles.finish(connection, name, (answer, answer.__class__(**{**vars(answer), "text": "right text"})), at)
    return name


def cast(database, name, outcome="model_a", session="someone", at=NOW):
    with database.write() as connection:
        return votes.cast(connection, session, name, votes.Given(outcome, "because"), RULES, at)


def filled(database, n=80, seed=0):
    rng = random.Random(seed)
    names = []
    for i in range(n):
        pair = rng.choice([(1, 2), (2, 1), (2, 3), (3, 1), (4, 5), (5, 4), (1, 4)])
        session = f"voter {rng.randrange(7)}"
        language, category = rng.choice(["zh", "en", "other"]), rng.choice(["maths", "other"])
        name = battle(database, session, pair, f"prompt {i}", category, language, NOW + i)
        cast(database, name, rng.choice(OUTCOMES), session, NOW + i + 0.125)
        names.append((name, session))
    return names


def check_counts(database):
    with database.read() as connection:
        assert counts.kept(connection) == counts.recount(connection)


def undo(database, name, session, at):
    with database.write() as connection:
        votes.undo(connection, session, name, RULES, at)


def test_counts_equal_a_recount_after_votes_undos_and_exclusions(database):
    names = filled(database)
    check_counts(database)
    for i in (3, 30, 60):
        undo(database, *names[i], NOW + i + 1)
    with database.write() as connection:
        voter = voters.find(connection, "voter 2")
        voters.exclude(connection, voter.id, "likelihood", 0.0001, NOW + 500)
    check_counts(database)
    name = battle(database, "voter 2", at=NOW + 600)
    assert cast(database, name, session="voter 2", at=NOW + 600).set_apart == "voter"
    undo(database, name, "voter 2", NOW + 601)
    check_counts(database)


def test_votes_of_many_threads_lose_and_double_nothing(database):
    names = [battle(database, f"voter {i}", prompt=str(i)) for i in range(24)]
    refused = []

    def vote(i):
        for outcome in ("model_a", "tie"):
            try:
                cast(database, names[i], outcome, f"voter {i}")
            except RefusedError as error:
                refused.append(error.code)

    threads = [threading.Thread(target=vote, args=(i,)) for i in range(24) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    check_counts(database)
    with database.read() as connection:
        entries = [entry for _, entry, _ in ledger.lines(connection)]
        assert sum(entry["kind"] == "vote" for entry in entries) == 24
        assert [seq for seq, _, _ in ledger.lines(connection)] == list(range(1, 30))


def test_an_export_gives_every_board_to_the_last_digit(database, tmp_path, where):
    names = filled(database, 110)
    for i in (5, 50):
        undo(database, *names[i], NOW + i + 1)
    with database.write() as connection:
        voters.exclude(connection, voters.find(connection, "voter 3").id, "side", 0.0001, NOW + 900)
    out = tmp_path / "ledger.jsonl"
    lines = write_ledger(database, out)
    assert lines == 5 + 110 + 2 + 1
    boards = LiveBoards(database, min_votes=10)
    replay = read_export(out)
    for name in ("overall", "base", "reasoning", "zh", "en"):
        for category in ("", "maths"):
            ours = json.dumps(boards.board(name, category))
            assert ours == json.dumps(board_of(replay, name, category, 10))
            assert json.loads(ours)["votes"] > 0
    few = LiveBoards(database, min_votes=10, most=20)  # from counts alone, as in a large arena
    assert json.dumps(few.board()) == json.dumps(board_of(replay, "overall", "", 10, most=20))
    assert "counts alone" in few.board()["warnings"][-1]
    assert few.board()["rows"][0]["rating"] == pytest.approx(boards.board()["rows"][0]["rating"], abs=1e-6)


def test_an_import_is_the_same_arena_without_texts(database, tmp_path):
    names = filled(database, 60)
    undo(database, *names[5], NOW + 6)
    out, again = tmp_path / "ledger.jsonl", tmp_path / "again.jsonl"
    write_ledger(database, out)
    copy = open_database(str(tmp_path / "copy.sqlite"), create=True)
    assert read_ledger(copy, out) == 66
    write_ledger(copy, again)
    assert out.read_bytes() == again.read_bytes()
    with database.read() as one, copy.read() as other:
        assert counts.kept(one) == counts.kept(other)
    check_counts(copy)
    with pytest.raises(InputError, match="ledger of its own"):
        read_ledger(copy, out)
    copy.close()


def test_a_changed_ledger_is_refused_with_its_line(database, tmp_path):
    filled(database, 10)
    out, bad = tmp_path / "ledger.jsonl", tmp_path / "bad.jsonl"
    write_ledger(database, out)
    lines = out.read_text(encoding="utf-8").splitlines()
    changes = {
        8: [line.replace("model_b", "model_a").replace("both_bad", "model_a").replace('"tie"', '"model_a"') if i == 7
            else line for i, line in enumerate(lines)],
        9: lines[:8] + lines[9:],
        4: [*lines[:3], "{", *lines[3:]],
        11: [*lines[:10], lines[9], *lines[10:]],
    }  # fmt: skip
    for number, changed in changes.items():
        if changed == lines:
            continue
        bad.write_text("\n".join(changed) + "\n", encoding="utf-8")
        with pytest.raises(InputError, match=f"bad.jsonl:{number}:"):
            read_export(bad)
        fresh = open_database(str(tmp_path / f"fresh{number}.sqlite"), create=True)
        with pytest.raises(InputError):
            read_ledger(fresh, bad)
        with fresh.read() as connection:
            assert ledger.head(connection)[0] == 0
        fresh.close()


def test_a_ledger_changed_inside_the_database_is_not_exported(database, tmp_path):
    filled(database, 5)
    with database.write() as connection:
        connection.execute(text("UPDATE ledger SET body = replace(body, 'other', 'maths') WHERE seq = 7"))
        changed = connection.execute(text("SELECT body LIKE '%maths%' FROM ledger WHERE seq = 7")).scalar()
    assert changed
    with database.write() as connection:
        connection.execute(text("UPDATE ledger SET body = replace(body, '0.25', '0.75') WHERE seq = 7"))
    with pytest.raises(InputError, match="line 7"):
        write_ledger(database, tmp_path / "out.jsonl")
    assert list(tmp_path.glob("out.jsonl*")) == []


def test_what_is_forgotten_is_gone_and_the_board_stays(database, tmp_path, where):
    filled(database, 60)
    one = battle(database, "voter 1", prompt="my secret question")
    cast(database, one, session="voter 1")
    before = json.dumps(LiveBoards(database, 10).board())
    with database.read() as connection:
        pseudonym = voters.find(connection, "voter 1").pseudonym
    with database.write() as connection:
        assert voters.forget_voter(connection, pseudonym, NOW + 999) > 1
    with database.read() as connection:
        assert voters.find(connection, "voter 1") is None
        own = connection.execute(text("SELECT prompt, address_key FROM battles b JOIN voters v ON v.id = b.voter_id "
                                      "WHERE v.pseudonym = :p"), {"p": pseudonym}).all()  # fmt: skip
        assert set(own) == {(None, None)}
        texts = connection.execute(text("SELECT text, thinking, reason FROM answers a JOIN votes v ON v.battle_id = "
                                        "a.battle_id WHERE a.battle_id = :b"), {"b": one}).all()  # fmt: skip
        assert set(texts) == {(None, None, None)}
    assert json.dumps(LiveBoards(database, 10).board()) == before
    check_counts(database)
    write_ledger(database, tmp_path / "out.jsonl")
    assert b"secret" not in (tmp_path / "out.jsonl").read_bytes()
    assert json.dumps(board_of(read_export(tmp_path / "out.jsonl"), min_votes=10)) == before
    with database.write() as connection, pytest.raises(InputError, match="no voter"):
        voters.forget_voter(connection, "v-nobody", NOW)
    with database.write() as connection, pytest.raises(InputError, match="no battle"):
        voters.forget_battle(connection, "nothing", NOW)


def test_forgotten_texts_are_not_left_in_sqlites_files(tmp_path):
    database = open_database(str(tmp_path / "a.sqlite"), create=True, with_secret=True)
    server = sqlite3.connect(tmp_path / "a.sqlite")  # a running server keeps the write-ahead log
    server.execute("SELECT count(*) FROM votes").fetchall()
    with database.write() as connection:
        registry.enter(connection, [Entry(name, "base", "f", name, None, {}) for name in "xy"], NOW)
    name = battle(database, prompt="a most unusual question")
    with database.write() as connection:
        voters.forget_battle(connection, name, NOW)
    left = lambda: b"most unusual" in b"".join(path.read_bytes() for path in tmp_path.iterdir())  # noqa: E731
    assert left()
    database.scrub()
    assert not left()
    server.close()
    database.close()


def test_preference_pairs_are_rated_decided_votes_with_texts(database, tmp_path):
    decided = {outcome: battle(database, f"voter {outcome}", prompt=outcome) for outcome in OUTCOMES}
    for outcome, name in decided.items():
        cast(database, name, outcome, f"voter {outcome}")
    forgotten = battle(database, prompt="forgotten")
    cast(database, forgotten)
    with database.write() as connection:
        voters.forget_battle(connection, forgotten, NOW)
    undone = battle(database, prompt="undone")
    cast(database, undone)
    undo(database, undone, "someone", NOW + 1)
    pairs = list(preferences(database))
    assert [(one["prompt"], one["chosen"], one["rejected"]) for one in pairs] == [
        ("model_a", "left text", "right text"), ("model_b", "right text", "left text"),
    ]  # fmt: skip
    assert write_preferences(database, tmp_path / "pairs.jsonl") == 2
    assert json.loads((tmp_path / "pairs.jsonl").read_text(encoding="utf-8").splitlines()[0])["chosen"] == "left text"


def test_a_pair_brings_the_thinking_and_says_what_was_cut(database):
    def fought(prompt, left, right, outcome):
        with database.write() as connection:
            voter = voters.find_or_add(connection, prompt, NOW)
            new = battles.NewBattle(voter.id, "", 1, 2, False, 0.5, "other", "en", prompt, prompt)
            name = battles.begin(connection, new, NOW)
            both = [
                battles.Answer(text, thinking, 1, 1, 0.1, 0.1, None, cut, None) for text, thinking, cut in (left, right)
            ]
            battles.finish(connection, name, (both[0], both[1]), NOW)
        cast(database, name, outcome, prompt)

    fought("thought", ("3", "1+2=3", False), ("4", "", False), "model_a")
    fought("ran on", ("3 and 3 and", "", True), ("", "1+1+1+", True), "model_a")
    fought("said nothing", ("", "", True), ("3", "", False), "model_b")  # nothing to learn from
    fought("ended at once", ("", "", False), ("3", "", False), "model_b")
    pairs = {pair.pop("prompt"): pair for pair in preferences(database)}
    told = {
        prompt: {key: value for key, value in pair.items() if key.startswith(("chosen", "rejected"))}
        for prompt, pair in pairs.items()
    }
    assert told == {
        "thought": {"chosen": "3", "chosen_reasoning": "1+2=3", "rejected": "4"},
        "ran on": {
            "chosen": "3 and 3 and", "chosen_truncated": True, "rejected": "", "rejected_reasoning": "1+1+1+",
            "rejected_truncated": True,
        },
        "ended at once": {"chosen": "3", "rejected": ""},
    }  # fmt: skip
    assert all(Preference.model_validate({"prompt": prompt} | pair) for prompt, pair in pairs.items())


def test_people_who_judged_the_same_two_answers_give_one_pair_by_their_majority(database):
    for i, (outcome, pair) in enumerate(
        [("model_a", (1, 2)), ("model_a", (1, 2)), ("model_b", (1, 2)), ("tie", (1, 2))]
    ):
        cast(database, battle(database, f"v{i}", pair, "same"), outcome, f"v{i}")
    for i, outcome in enumerate(("model_a", "model_b")):  # as many for either
        cast(database, battle(database, f"v{i}", (2, 3), "split"), outcome, f"v{i}")
    cast(database, battle(database, "alone", (2, 3), "bad"), "both_bad", "alone")
    (pair,) = preferences(database)
    assert (pair["prompt"], pair["chosen"], pair["rejected"]) == ("same", "left text", "right text")
    assert pair["votes"] == {"for": 2, "against": 1, "neither": 1}
    with database.write() as connection:  # without the one who is taken out, the majority is another
        for session in ("v0", "v1"):
            voters.exclude(connection, voters.find(connection, session).id, "side", 0.01, NOW)
    (pair,) = [one for one in preferences(database) if one["prompt"] == "same"]
    assert pair["chosen"] == "right text"


def test_the_counts_board_costs_the_same_however_many_votes(database):
    filled(database, 80)
    with database.write() as connection:
        connection.execute(text("UPDATE counts SET n = n * 1000"))
    begun = time.process_time()
    board = LiveBoards(database, 10).board()
    assert board["votes"] > 20_000
    assert time.process_time() - begun < 2


def test_two_servers_see_each_others_votes(database, where):
    other = open_database(where)
    boards = LiveBoards(other, 10)
    assert boards.board()["votes"] == 0
    filled(database, 5)
    assert boards.board()["votes"] == 5
    other.close()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("no-such.sqlite", "no such database"),
        ("mysql://x/y", "postgresql:// URL"),
        ("://", "URL"),
        ("text.db", "not a database"),
    ],
)
def test_a_wrong_database_is_named(tmp_path, name, said):
    (tmp_path / "text.db").write_text("just text, and more of it than a header " * 20, encoding="utf-8")
    with pytest.raises(InputError, match=said):
        open_database(name if "://" in name else str(tmp_path / name))


def test_a_database_of_a_newer_version_is_left_alone(tmp_path):
    path = tmp_path / "arena.sqlite"
    database = open_database(str(path), create=True)
    with database.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    database.close()
    with pytest.raises(InputError, match="newer moreseek"):
        open_database(str(path))


def test_reading_a_board_makes_no_secret(tmp_path):
    open_database(str(tmp_path / "arena.sqlite"), create=True).close()
    assert not list(tmp_path.glob("*.secret"))


def test_another_programs_database_is_left_alone(tmp_path):
    path = tmp_path / "other.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE recipes (name)")
    with pytest.raises(InputError, match="not an arena's"):
        open_database(str(path))


def test_a_password_is_never_shown():
    assert shown("postgresql://me:secret@host/db") == "postgresql://…@host/db"
    assert address("postgresql://h/d").startswith("postgresql+psycopg://")


def test_a_replay_refuses_what_cannot_be():
    entered = {"kind": "entered", "name": "x", "class": "base", "family": "f", "settings": {}}
    with pytest.raises(ValueError, match="enters twice"):
        Replay([entered, entered])
    with pytest.raises(ValueError, match="none of"):
        Replay([{"kind": "magic"}])


def test_a_battle_begins_while_somebody_else_votes(database):
    if database.engine.dialect.name == "sqlite":
        pytest.skip("SQLite has one writer at a time, whatever it writes")
    with database.write(), database.add() as connection:  # would wait for ever where both queued
        voter = voters.find_or_add(connection, "new here", NOW)
        new = battles.NewBattle(voter.id, "address", 1, 2, False, 0.25, "other", "en", "key", "what?")
        name = battles.begin(connection, new, NOW)
    with database.read() as connection:
        assert battles.find(connection, name).session_key == "new here"


def test_first_questions_asked_at_once_are_of_one_voter(database):
    together, found = threading.Barrier(4), []

    def ask():
        together.wait()
        with database.add() as connection:
            found.append(voters.find_or_add(connection, "four windows", NOW).id)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(found)) == 1
