"""Votes of other arenas in a database: every format, all or nothing, once, by nobody's name; then as any votes."""

import json
import random

import pytest
from sqlalchemy import text
from tests.unit.arena.site.test_commands import run  # noqa: F401
from tests.unit.arena.site.test_store import NOW, check_counts, where  # noqa: F401

from moreseek.arena.live.boards import LiveBoards
from moreseek.arena.live.fight import choose
from moreseek.arena.live.foreign import IMPORTED, import_votes, read_foreign
from moreseek.arena.live.kept import Kept
from moreseek.arena.live.settings import ArenaSettings
from moreseek.arena.replay import read_export
from moreseek.arena.standings import board_of
from moreseek.arena.store import actions, registry, vote_list, voters
from moreseek.arena.store.database import open_database
from moreseek.arena.store.export import preferences, read_ledger, write_ledger
from moreseek.arena.store.judges import unjudged
from moreseek.arena.store.registry import Entry
from moreseek.arena.store.tables import answers, battles, turns, votes
from moreseek.arena.store.vote_list import Which
from moreseek.arena.vote_formats import read_votes
from moreseek.errors import InputError

NAMES = ("alpha", "beta", "gamma")


def said(*turns_):
    return [{"role": role, "content": words} for asked, answer in turns_
            for role, words in (("user", asked), ("assistant", answer))]  # fmt: skip


def drawn(n, seed=0):
    rng = random.Random(seed)
    for i in range(n):
        a, b = rng.sample(NAMES, 2)
        yield i, a, b, rng.choice(("model_a", "model_b", "tie", "tie (bothbad)")), f"person {rng.randrange(9)}"


def lmarena(n=60):
    rows = [
        {
            "model_a": a, "model_b": b, "winner": winner, "judge": judge, "language": "Chinese" if i % 3 else "English",
            "tstamp": 1.7e9 + 3600 * i, "anony": i % 10 != 9,
            "conversation_a": said((f"question {i}", f"**{a}** answers"), *([("and?", "so")] if i % 5 == 0 else [])),
            "conversation_b": said((f"question {i}", f"# {b}\n\nanswers"), *([("and?", "no")] if i % 5 == 0 else [])),
        }
        for i, a, b, winner, judge in drawn(n)
    ]  # fmt: skip
    return "battles.jsonl", "".join(json.dumps(row) + "\n" for row in rows)


def fastchat(n=60):
    kinds = {"model_a": "leftvote", "model_b": "rightvote", "tie": "tievote", "tie (bothbad)": "bothbad_vote"}
    lines = [{"tstamp": 1.0, "type": "chat", "model": "alpha", "state": {}}]
    for i, a, b, winner, judge in drawn(n, 1):
        state = lambda name, i=i: {  # noqa: E731
            "model_name": name, "roles": ["USER", "ASSISTANT"], "offset": 2,
            "messages": [["USER", "example"], ["ASSISTANT", "shown"], ["USER", f"question {i % 20}"],
                         ["ASSISTANT", f"{name} answers"]],
        }  # fmt: skip
        shown = [a, b] if i % 10 == 9 else (["", ""], ["Model A", "Model B"])[i % 2]
        lines.append({"tstamp": 1.7e9 + i, "type": kinds[winner], "models": shown, "states": [state(a), state(b)],
                      "ip": judge})  # fmt: skip
    return "log.jsonl", "".join(json.dumps(line) + "\n" for line in lines)


def llmfao(n=60):
    winners = {"model_a": "left", "model_b": "right", "tie": "tie", "tie (bothbad)": "tie"}
    rows = [f"{i},{i % 7},{judge},{winners[winner]},{a},{b}" for i, a, b, winner, judge in drawn(n, 2)]
    return "votes.csv", "\n".join(["id,prompt,worker,winner,left,right", *rows]) + "\n"


FORMATS = {"lmarena": lmarena, "fastchat": fastchat, "llmfao": llmfao}


@pytest.fixture
def load(where, tmp_path):  # noqa: F811
    """``load(name, text)``: a file of votes into the database; what became of it, and the database."""
    opened = []

    def into(name, content):
        path = tmp_path / name
        path.write_text(content, encoding="utf-8")
        found = read_foreign(path, "auto")
        if not opened:
            opened.append(open_database(where, create=True, with_secret=True))
        return import_votes(opened[0], path, "auto", found, NOW), opened[0]

    yield into
    for database in opened:
        database.close()


@pytest.mark.parametrize("format", FORMATS)
def test_boards_exports_and_copies_of_imported_votes_are_as_of_any_votes(load, tmp_path, format):
    name, content = FORMATS[format]()
    done, database = load(name, content)
    assert done.votes == 60
    named = 0 if format == "llmfao" else 6
    assert (done.named, done.contestants) == (named, 3)
    check_counts(database)
    board = LiveBoards(database, 10).board()
    file = board_of_file(tmp_path / name)
    assert board["votes"] == len(read_votes(tmp_path / name)) == 60 - named
    assert {row["name"]: row["rating"] for row in board["rows"]} == pytest.approx(file, abs=1e-6)
    out, again = tmp_path / "out.jsonl", tmp_path / "again.jsonl"
    write_ledger(database, out)
    boards = LiveBoards(database, 10)
    replay = read_export(out)
    for which in ("overall", "base", "zh", "en"):
        assert json.dumps(boards.board(which)) == json.dumps(board_of(replay, which, "", 10))
    assert boards.board("base")["votes"] == 0
    assert replay.imports == [{"at": NOW, "file": name, "votes": 60, "sha256": replay.imports[0]["sha256"]}]
    copy = open_database(str(tmp_path / "copy.sqlite"), create=True)
    read_ledger(copy, out)
    check_counts(copy)
    write_ledger(copy, again)
    assert out.read_bytes() == again.read_bytes()
    copy.close()


def board_of_file(path):
    from moreseek.arena.ratings import bradley_terry

    found = bradley_terry(read_votes(path))
    return dict(zip(found.names, found.rating, strict=True))


def test_conversations_come_with_every_turn_and_give_pairs_style_and_judges_their_texts(load):
    _, database = load(*lmarena())
    with database.read() as connection:
        first = connection.execute(battles.select().where(battles.c.prompt == "question 5")).one()
        assert first.language == "zh"
        further = connection.execute(turns.select().where(turns.c.battle_id == first.id)).all()
        assert [(one.turn, one.prompt, one.how) for one in further] == [(2, "and?", "answered")]
        told = connection.execute(answers.select().where(answers.c.battle_id == first.id)).all()
        assert {(one.turn, one.side) for one in told} == {(1, 0), (1, 1), (2, 0), (2, 1)}
        styled = vote_list.styled(connection, Which(), 1000)
        assert styled.features["headers"][:, 1].all()
        assert styled.features["bold"][:, 0].all()
        assert len(unjudged(connection, 1, voted=True)) == sum(i % 5 != 0 for i in range(60))
    decided = [(i, a, b, winner) for i, a, b, winner, _ in drawn(60) if winner in ("model_a", "model_b")]
    expected = {f"question {i}": (a if winner == "model_a" else b) for i, a, b, winner in decided
                if i % 5 and i % 10 != 9}  # fmt: skip
    pairs = {pair["prompt"]: pair for pair in preferences(database)}
    assert pairs.keys() == expected.keys()
    assert all(expected[prompt] in pair["chosen"] for prompt, pair in pairs.items())


def test_a_log_of_fastchat_gives_the_question_after_the_templates_own_examples(load):
    _, database = load(*fastchat())
    pairs = list(preferences(database))
    assert pairs
    assert all(pair["prompt"].startswith("question ") and pair["chosen"].endswith("answers") for pair in pairs)
    with database.read() as connection:
        keys = set(connection.execute(battles.select().with_only_columns(battles.c.prompt_key)).scalars())
    assert len(keys) == 20


def test_who_voted_is_kept_as_a_keyed_hash_only(load, tmp_path):
    _, database = load(*llmfao())
    with database.read() as connection:
        rows = connection.execute(text("SELECT pseudonym, session_key FROM voters")).all()
    write_ledger(database, tmp_path / "out.jsonl")
    kept = (tmp_path / "out.jsonl").read_text(encoding="utf-8") + repr(rows)
    kept += b"".join(path.read_bytes() for path in tmp_path.glob("*.sqlite*")).decode("latin-1")
    assert "person" not in kept
    assert len(rows) == 9
    assert all(row.pseudonym.startswith("v-") and row.session_key is None for row in rows)


def test_imported_contestants_are_marked_and_never_drawn(load, tmp_path):
    _, database = load(*llmfao())
    with database.read() as connection:
        assert {row.kind for row in registry.registered(connection)} == {IMPORTED}
    house = {"arena": {"database": str(tmp_path / "x.sqlite")}}
    assert choose(database, Kept(), ArenaSettings.model_validate(house), NOW) is None
    entry = {"name": "alpha", "class": "base", "url": "https://models.example/v1", "model": "m"}
    settings = ArenaSettings.model_validate({**house, "contestant": [entry]})
    assert choose(database, Kept(), settings, NOW) is None  # nor is anybody with one of them
    with database.write() as connection, pytest.raises(InputError, match="class 'imported'"):
        registry.enter(connection, [Entry("alpha", "base", "alpha", "m", None, {})], NOW)


def test_the_same_file_is_imported_once_and_another_adds_to_it(load):
    first, database = load(*llmfao())
    again, _ = load("another name.csv", llmfao()[1])
    assert first.before is None
    assert (again.before, again.votes) == (NOW, 60)
    more, _ = load("more.csv", llmfao(80)[1])
    assert more.before is None
    check_counts(database)
    with database.read() as connection:
        assert len(connection.execute(votes.select()).all()) == 140
        assert len(registry.registered(connection)) == 3
        assert connection.execute(text("SELECT count(*) FROM voters")).scalar() == 9  # the same people


def test_an_arena_with_contestants_of_its_own_takes_no_imported_ones(load, where):  # noqa: F811
    database = open_database(where, create=True, with_secret=True)
    with database.write() as connection:
        registry.enter(connection, [Entry("mine", "base", "f", "m", None, {})], NOW)
    database.close()
    with pytest.raises(InputError, match=r"contestants of its own \(mine\)"):
        load(*llmfao())


def test_whatever_stops_an_import_nothing_of_it_is_there(load, monkeypatch):
    _, database = load("first.csv", llmfao(40)[1])
    monkeypatch.setattr("moreseek.arena.live.foreign._BATCH", 20)
    monkeypatch.setattr("moreseek.arena.live.foreign._Load.count", None)
    with pytest.raises(TypeError):
        load(*lmarena())
    check_counts(database)
    with database.read() as connection:
        assert len(connection.execute(votes.select()).all()) == 40


def test_a_voter_of_an_imported_file_can_be_banned_and_forgotten(load):
    _, database = load(*lmarena())
    with database.read() as connection:
        pseudonym = connection.execute(text("SELECT pseudonym FROM voters ORDER BY id LIMIT 1")).scalar()
    before = LiveBoards(database, 10).board()["votes"]
    with database.write() as connection:
        assert voters.forget_voter(connection, pseudonym, NOW) > 0
    assert LiveBoards(database, 10).board()["votes"] == before
    with database.write() as connection:
        actions.ban(connection, pseudonym, "a rigger", False, NOW)
    assert LiveBoards(database, 10).board()["votes"] < before
    check_counts(database)


MISTAKES = {
    "an outcome": (llmfao()[1] + "99,1,w,both,x,y\n", "votes.csv:62: column 'winner': outcome 'both'"),
    "a field": (llmfao()[1] + "99,1,w,left,x\n", "votes.csv:62: 5 fields, but the header has 6"),
    "a name": (llmfao()[1] + "99,1,w,left,<b>x</b>,y\n", "votes.csv:62: the name '<b>x</b>'"),
    "a category": ("a,b,outcome,category\nx,y,tie,maths\nx,y,tie,m\0\n", "votes.csv:3: the category 'm"),
    "no votes at all": ("hello\nworld\n", "votes.csv:1: the header needs the columns"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_wrong_line_is_named_and_leaves_no_database_behind(tmp_path, run, mistake):  # noqa: F811
    content, expected = MISTAKES[mistake]
    (tmp_path / "votes.csv").write_text(content, encoding="utf-8")
    printed = run("import", tmp_path / "votes.csv", tmp_path / "arena.sqlite", code=2)
    assert expected in printed.err.replace("\n", " ")
    assert list(tmp_path.glob("arena.sqlite*")) == []


def test_files_of_votes_and_ledgers_are_told_apart_on_the_command_line(tmp_path, run):  # noqa: F811
    path, where = tmp_path / "battles.jsonl", tmp_path / "arena.sqlite"  # noqa: F811
    path.write_text(lmarena()[1], encoding="utf-8")
    assert "60 votes on 3 contestants, 60 with their answers; 6 on battles" in run("import", path, where).err
    assert "nothing was changed" in run("import", path, where).err
    board = json.loads(run("leaderboard", where, "--json").out)
    run("export", where, tmp_path / "ledger.jsonl")
    assert json.loads(run("leaderboard", "--from-export", tmp_path / "ledger.jsonl", "--json").out) == board
    run("import", tmp_path / "ledger.jsonl", tmp_path / "copy.sqlite")
    assert json.loads(run("leaderboard", tmp_path / "copy.sqlite", "--json").out) == board
    assert "exported ledger" in run("import", tmp_path / "ledger.jsonl", where, "--format", "lmarena", code=2).err
    assert "no such file" in run("import", tmp_path / "none.csv", where, code=2).err
    ledger = (tmp_path / "ledger.jsonl").read_text(encoding="utf-8").replace('"tie"', '"model_a"', 1)
    (tmp_path / "bad.jsonl").write_text(ledger, encoding="utf-8")
    assert "the hash does not fit" in run("import", tmp_path / "bad.jsonl", tmp_path / "bad.sqlite", code=2).err


def test_answers_alone_several_turns_in_a_table_and_sides_that_were_asked_differently(load):
    rows = [
        ("x", "y", 1, 0, 0, '["q1", "q2"]', '["a1", "a2"]', '["b1", null]'),
        ("x", "y", 0, 1, 0, "[not json]", "a", "b"),
        ("x", "y", 0, 0, 1, "one", '["a1", "a2"]', "b"),
    ]
    header = "model_a,model_b,winner_model_a,winner_model_b,winner_tie,prompt,response_a,response_b"
    quoted = lambda value: '"' + str(value).replace('"', '""') + '"'  # noqa: E731
    done, database = load("kaggle.csv", "\n".join([header, *(",".join(map(quoted, row)) for row in rows)]) + "\n")
    assert done.with_texts == 2
    with database.read() as connection:
        told = [(one.turn, one.side, one.text) for one in connection.execute(
            answers.select().order_by(answers.c.battle_id, answers.c.turn, answers.c.side))]  # fmt: skip
        prompts = list(connection.execute(battles.select().with_only_columns(battles.c.prompt)).scalars())
    assert told == [(1, 0, "a1"), (1, 1, "b1"), (2, 0, "a2"), (2, 1, ""), (1, 0, "a"), (1, 1, "b")]
    assert prompts == ["q1", "[not json]", "one"]


def test_votes_without_voter_and_question_stand_for_themselves(load):
    _, database = load("bare.csv", "a,b,outcome\n" + "x,y,tie\ny,x,model_a\n" * 20)
    with database.read() as connection:
        assert connection.execute(text("SELECT count(*) FROM voters")).scalar() == 40
    assert LiveBoards(database, 10).board()["clusters"] == {"voter": 40, "prompt": 40}


def test_real_votes_give_the_board_of_their_file(real_votes, tmp_path, run):  # noqa: F811
    path, where = real_votes / "crowd-comparisons.csv", tmp_path / "arena.sqlite"  # noqa: F811
    run("import", path, where)
    file, stored = (json.loads(run("leaderboard", one, "--json").out) for one in (path, where))
    assert (stored["votes"], stored["clusters"]) == (8931, {"voter": 124, "prompt": 13})
    for key in ("rating", "se"):
        of = lambda board, key=key: {row["name"]: row[key] for row in board["rows"]}  # noqa: E731
        assert of(stored) == pytest.approx(of(file), abs=1e-9)
