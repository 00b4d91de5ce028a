"""The database's history, there and back, with what was in it."""

from sqlalchemy import inspect, text
from tests.unit.arena.site.test_store import where  # noqa: F401

from moreseek.arena.store.database import migrate, open_database
from moreseek.arena.store.tables import metadata


def test_migrations_go_up_and_down(where):  # noqa: F811
    database = open_database(where, create=True)
    with database.write() as connection:
        there = {table.name for table in metadata.sorted_tables}
        assert there <= set(inspect(connection).get_table_names())
        migrate(connection, "base")
        assert not there & set(inspect(connection).get_table_names())
        migrate(connection)
        found = {name: {column["name"] for column in inspect(connection).get_columns(name)} for name in there}
        assert found == {table.name: set(table.columns.keys()) for table in metadata.sorted_tables}
    database.close()


def test_the_later_migrations_keep_what_was_there_both_ways(where):  # noqa: F811
    database = open_database(where, create=True)
    rows = (
        "INSERT INTO contestants VALUES (1, 'x', 'base', 'f', 'x', NULL, '{}', 1, NULL, NULL), "
        "(2, 'y', 'base', 'f', 'y', NULL, '{}', 1, NULL, NULL)",
        "INSERT INTO voters (id, pseudonym, created_at) VALUES (1, 'v-1', 1)",
        "INSERT INTO battles VALUES ('b', 1, NULL, 1, 1, 2, false, 0.5, 'other', 'en', 'k', 'What?')",
        "INSERT INTO answers (battle_id, side, text, tokens, first_s, total_s, cost_usd, cut_short) VALUES "
        "('b', 0, 'left', 10, 0.5, 1, 0.25, false), ('b', 1, 'right', NULL, 0.5, 3, NULL, false)",
    )
    rows += ("INSERT INTO votes (battle_id, voter_id, at, outcome) VALUES ('b', 1, 2, 0)",)
    with database.write() as connection:
        migrate(connection, "0001")
        assert not {"turns", "judges"} & set(inspect(connection).get_table_names())
        assert "turn" not in {column["name"] for column in inspect(connection).get_columns("answers")}
        for row in rows:
            connection.execute(text(row))
        migrate(connection)
        read = lambda what: [tuple(row) for row in connection.execute(text(what))]  # noqa: E731
        assert read("SELECT turn, side, text FROM answers ORDER BY side") == [(1, 0, "left"), (1, 1, "right")]
        found = read("SELECT contestant_id, answers, tokens, counted, priced, cost_usd FROM tallies ORDER BY 1")
        assert found == [(1, 1, 10, 1, 1, 0.25), (2, 1, 0, 0, 0, 0.0)]
        connection.execute(text("INSERT INTO turns (battle_id, turn, at, prompt) VALUES ('b', 2, 1, 'And?')"))
        connection.execute(
            text("INSERT INTO answers (battle_id, turn, side, text, cut_short) VALUES ('b', 2, 0, 'more', false)")
        )
        key = inspect(connection).get_pk_constraint("answers")["constrained_columns"]
        assert sorted(key) == ["battle_id", "side", "turn"]
        migrate(connection, "0001")
        assert read("SELECT side, text FROM answers ORDER BY side") == [(0, "left"), (1, "right")]
        migrate(connection)
    database.close()
