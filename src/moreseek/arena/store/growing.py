"""Rows that are made where they are not; where they are, their numbers grow, or nothing changes: in one statement."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Table
from sqlalchemy.dialects import postgresql, sqlite


def grow(connection: Connection, table: Table, keys: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Add each row's numbers to those under its ``keys``, which no two rows share. Inside Database.write()."""
    if not rows:
        return
    insert = _insert(connection, table)
    grown = {column.name: column + insert.excluded[column.name] for column in table.c if column.name not in keys}
    # RETURNING, of which nothing is read, makes SQLAlchemy send all rows as one statement.
    connection.execute(insert.on_conflict_do_update(index_elements=keys, set_=grown).returning(table.c[keys[0]]), rows)


def unless_there(connection: Connection, table: Table, keys: Sequence[str], row: Mapping[str, Any]) -> None:
    """Add a row, unless there is one under its ``keys``."""
    connection.execute(_insert(connection, table).on_conflict_do_nothing(index_elements=keys), row)


def _insert(connection: Connection, table: Table) -> Any:
    return {"sqlite": sqlite.insert, "postgresql": postgresql.insert}[connection.dialect.name](table)
