"""Registry and counts in memory are the database's at every moment, whatever was done to it and by whom."""

import random

import numpy as np
import pytest
from tests.unit.arena.site.test_store import NOW, battle, cast, database, undo, where  # noqa: F401

from moreseek.arena.live.kept import Kept
from moreseek.arena.store import counts, registry, voters
from moreseek.arena.store.registry import Entry

BOARDS = [("overall", ""), ("base", "maths"), ("zh", ""), ("reasoning", ""), ("apart", "")]


def same(kept, database):  # noqa: F811
    with database.read() as connection:
        known = registry.registered(connection)
        for board, category in BOARDS:
            table = counts.table(connection, [row.id for row in known], board, category)
            found, (ours,) = kept.counted(connection, (board, category))
            assert found == kept.known(connection) == known
            assert np.array_equal(ours, table)


def test_counts_in_memory_follow_votes_undos_exclusions_and_entries(database):  # noqa: F811
    kept, rng, cast_by = Kept(), random.Random(3), []
    same(kept, database)
    for i in range(90):
        at, session = NOW + 10 * i, f"voter {rng.randrange(5)}"
        pair = rng.choice([(1, 2), (2, 3), (3, 1), (4, 5), (1, 4)])
        language, category = rng.choice(["zh", "en"]), rng.choice(["maths", "other"])
        name = battle(database, session, pair, f"prompt {rng.randrange(60)}", category, language, at)
        cast(database, name, rng.choice(["model_a", "model_b", "tie", "both_bad"]), session, at)
        cast_by.append((name, session))
        if i % 9 == 4:
            undo(database, *cast_by[-1], at + 1)
        with database.write() as connection:
            if i == 30:
                voters.exclude(connection, voters.find(connection, "voter 1").id, "side", 0.01, at)
            if i == 60:
                voters.restore(connection, voters.find(connection, "voter 1").id, at)
            if i == 70:
                registry.enter(connection, [Entry("new", "base", "f", "m", None, {})], at)
            if i == 80:
                voters.forget_voter(connection, voters.find(connection, "voter 2").pseudonym, at)
        if i % 3 == 0:
            same(kept, database)


def test_an_earlier_moment_is_read_as_it_was(database):  # noqa: F811
    kept = Kept()
    cast(database, battle(database))
    with database.read() as earlier:
        before, (table_before,) = kept.counted(earlier, ("overall", ""))
        cast(database, battle(database, "another", prompt="another"), session="another")
        same(kept, database)
        known, (table,) = kept.counted(earlier, ("overall", ""))
        assert known == before
        assert np.array_equal(table, table_before)
    same(kept, database)


def test_what_was_given_out_stays_as_it_was_and_nobody_can_change_it(database):  # noqa: F811
    kept = Kept()
    cast(database, battle(database))
    with database.read() as connection:
        _, (table,) = kept.counted(connection, ("overall", ""))
        with pytest.raises(ValueError, match="read-only"):
            table[:] = 7
    cast(database, battle(database, "another", prompt="another"), session="another")
    same(kept, database)
    assert table.sum() == 1


def test_a_quota_and_a_withdrawal_are_seen_at_once(database):  # noqa: F811
    kept = Kept()
    same(kept, database)
    with database.write() as connection:
        row = registry.registered(connection)[0]
        registry.change(connection, row, 7, {"max_tokens": 9}, NOW)
    same(kept, database)
    with database.write() as connection:
        registry.withdraw(connection, row, "too old", NOW + 1)
    same(kept, database)
    with database.read() as connection:
        first = kept.known(connection)[0]
    assert (first.quota, first.withdrawn_reason) == (7, "too old")
