"""Counts in memory are the database's at every moment, whatever was done to it and by whom."""

import random

import numpy as np
from tests.unit.arena.site.test_store import NOW, battle, cast, database, undo, where  # noqa: F401

from moreseek.arena.live.kept_counts import KeptCounts
from moreseek.arena.store import counts, registry, voters
from moreseek.arena.store.registry import Entry

BOARDS = [("overall", ""), ("base", "maths"), ("zh", ""), ("reasoning", ""), ("apart", "")]


def same(kept, database):  # noqa: F811
    with database.read() as connection:
        known = registry.registered(connection)
        for board, category in BOARDS:
            table = counts.table(connection, [row.id for row in known], board, category)
            assert np.array_equal(kept.table(connection, known, board, category), table)


def test_counts_in_memory_follow_votes_undos_exclusions_and_entries(database):  # noqa: F811
    kept, rng, cast_by = KeptCounts(), random.Random(3), []
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
    kept = KeptCounts()
    cast(database, battle(database))
    with database.read() as earlier:
        known = registry.registered(earlier)
        before = kept.table(earlier, known, "overall", "")
        cast(database, battle(database, "another", prompt="another"), session="another")
        same(kept, database)
        assert np.array_equal(kept.table(earlier, known, "overall", ""), before)
    same(kept, database)


def test_who_changes_what_it_got_changes_nothing_here(database):  # noqa: F811
    kept = KeptCounts()
    cast(database, battle(database))
    with database.read() as connection:
        known = registry.registered(connection)
        kept.table(connection, known, "overall", "")[:] = 7
    same(kept, database)
