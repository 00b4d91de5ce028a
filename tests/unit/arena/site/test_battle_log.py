"""Battles as a file of another arena has them: whole, and the same board."""

import json

import pytest
from tests.unit.arena.site.test_store import NOW, battle, cast, database, filled, undo, where  # noqa: F401

from moreseek.arena.live.boards import LiveBoards
from moreseek.arena.ratings import bradley_terry
from moreseek.arena.store import battles, turns, voters
from moreseek.arena.store.export import write_battles
from moreseek.arena.vote_formats import read_votes


def test_battles_go_out_with_their_texts_and_come_in_elsewhere_as_the_same_board(database, tmp_path):  # noqa: F811
    filled(database, 60)
    longer = battle(database, prompt="first")
    with database.write() as connection:
        turns.begin(connection, "someone", longer, "second", 8, NOW)
        answer = battles.Answer("again", "", 5, 7, 0.1, 0.2, 0.001, False, None)
        battles.finish(connection, longer, (answer, answer), NOW, 2)
    cast(database, longer, "both_bad")
    gone = battle(database, prompt="gone")
    cast(database, gone, "tie")
    undone = battle(database, prompt="undone")
    cast(database, undone)
    undo(database, undone, "someone", NOW + 1)
    with database.write() as connection:
        voters.forget_battle(connection, gone, NOW)
    out = tmp_path / "battles.jsonl"
    board = LiveBoards(database, 10).board()
    assert write_battles(database, out) == board["votes"]
    lines = {line["question_id"]: line for line in map(json.loads, out.read_text(encoding="utf-8").splitlines())}
    assert undone not in lines
    assert lines[gone]["conversation_a"] == []
    assert lines[longer]["winner"] == "tie (bothbad)"
    assert lines[longer]["turn"] == 2
    assert [one["content"] for one in lines[longer]["conversation_b"]] == ["first", "right text", "second", "again"]
    assert lines[longer]["tokens_a"] == 10
    ratings = bradley_terry(read_votes(out, "lmarena"), min_votes=10)
    theirs = {row["name"]: row for row in ratings.rows()}
    for row in board["rows"]:
        assert theirs[row["name"]]["rating"] == pytest.approx(row["rating"], abs=1e-9)
        assert theirs[row["name"]]["se"] == pytest.approx(row["se"], rel=1e-9)
