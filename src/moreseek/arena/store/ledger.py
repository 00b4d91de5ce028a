"""The ledger: everything that moves a board, in order, each line sealed by the hash of all lines before it.

A line holds no text that a person or a model wrote, so that forgetting texts leaves the chain whole.
"""

import json
from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection, insert, select

from moreseek.arena.replay import START, Replay, seal, written
from moreseek.arena.store.tables import ledger

HEAD = select(ledger.c.seq, ledger.c.hash).order_by(ledger.c.seq.desc()).limit(1)
"""The last line's number and hash; no row where there is no line."""


def append(connection: Connection, *entries: dict[str, Any], after: tuple[int, str] | None = None) -> None:
    """Add lines, in the transaction of what they tell about; that transaction must be Database.write()'s.

    ``after``: the head, where that transaction has read it.
    """
    seq, previous = after or head(connection)
    rows = []
    for entry in entries:
        body = written(entry)
        seq, previous = seq + 1, seal(previous, body)
        rows.append({"seq": seq, "body": body, "hash": previous})
    if rows:
        connection.execute(insert(ledger), rows)


def head(connection: Connection) -> tuple[int, str]:
    """Number and hash of the last line."""
    last = connection.execute(HEAD).first()
    return (last.seq, last.hash) if last else (0, START)


def lines(connection: Connection, after: int = 0) -> Iterator[tuple[int, dict[str, Any], str]]:
    """The lines after one: number, entry, hash."""
    chosen = select(ledger).where(ledger.c.seq > after).order_by(ledger.c.seq)
    for row in connection.execute(chosen).yield_per(1000):
        yield row.seq, json.loads(row.body), row.hash


def replay(connection: Connection) -> Replay:
    """All of it, as the votes that count."""
    return Replay(entry for _, entry, _ in lines(connection))
