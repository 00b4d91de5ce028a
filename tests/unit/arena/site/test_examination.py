"""A rigger is caught while it votes, leaves every board, and is shown in the audit."""

import random
import time

import pytest
from tests.unit.arena.site import test_store

from moreseek.arena.live import examine
from moreseek.arena.live.boards import LiveBoards
from moreseek.arena.store import registry, voters
from moreseek.arena.store.database import open_database
from moreseek.arena.store.registry import Entry


@pytest.fixture
def database(tmp_path):
    found = open_database(str(tmp_path / "arena.sqlite"), create=True, with_secret=True)
    with found.write() as connection:
        registry.enter(connection, [Entry(name, "base", "f", name, None, {}) for name in "wxyz"], test_store.NOW)
    yield found
    found.close()


def vote(database, session, choose, n, rng):
    for i in range(n):
        pair = tuple(rng.sample([1, 2, 3, 4], 2))
        name = test_store.battle(database, session, pair, f"{session} {i}")
        test_store.cast(database, name, choose(pair, rng), session, test_store.NOW + 30)


def honest(pair, rng):
    return "model_a" if rng.random() < 1 / (1 + 2.0 ** (pair[1] - pair[0])) else "model_b"


def rigged(pair, rng):
    return ("model_a" if pair[0] == 1 else "model_b") if 1 in pair else honest(pair, rng)


def examined(database, boards, session):
    with database.read() as connection:
        voter = voters.find(connection, session)
    return examine.examine_voter(database, boards, voter, time.time())


def test_a_rigger_is_taken_out_and_an_honest_voter_is_not(database, monkeypatch):
    monkeypatch.setattr(examine, "is_a_look", lambda *_: True)
    rng, boards = random.Random(0), LiveBoards(database, 10)
    for i in range(4):
        vote(database, f"honest {i}", honest, 60, rng)
    vote(database, "rigger", rigged, 60, rng)
    before = boards.board()["votes"]
    assert [examined(database, boards, f"honest {i}") for i in range(4)] == [None] * 4
    assert "target" in examined(database, boards, "rigger").test
    assert boards.board()["votes"] == before - 60
    assert examined(database, boards, "rigger") is None  # once is enough
    test_store.check_counts(database)


def test_who_votes_too_fast_is_taken_out(database, monkeypatch):
    monkeypatch.setattr(examine, "is_a_look", lambda *_: True)
    rng, boards = random.Random(0), LiveBoards(database, 10)
    for i in range(25):
        name = test_store.battle(database, "fast", (1, 2), str(i))
        test_store.cast(database, name, rng.choice(["model_a", "model_b"]), "fast", test_store.NOW + 0.5)
    assert examined(database, boards, "fast").test == "too_fast"
    assert boards.board()["votes"] == 0


def test_looks_are_rare_and_at_times_that_differ_from_voter_to_voter():
    looks = {name: [n for n in range(1, 641) if examine.is_a_look(name, n)] for name in ("v-1", "v-2", "v-3")}
    assert all(len(times) == 5 for times in looks.values())
    assert all(20 <= times[0] < 40 for times in looks.values())
    assert len({tuple(times) for times in looks.values()}) == 3
