"""Counts (board, category, a, b, outcome): changed in a vote's own transaction, so that boards need no scan."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sqlalchemy import Connection, select

from moreseek.arena.standings import BOARDS
from moreseek.arena.store.growing import grow
from moreseek.arena.store.tables import battles, contestants, counts, undos, voters, votes
from moreseek.arena.votes import OUTCOMES

ALL = ""
"""The category of votes of every category."""
APART = "apart"
"""Where votes that are not rated are counted: matchmaking and quotas take them for spent."""


_KEYS: tuple[str, ...] = ("board", "category", "a", "b", "outcome", "n")


def board_keys(
    left_kind: str, right_kind: str, category: str, language: str, rated: bool = True
) -> list[tuple[str, str]]:
    """The boards that a vote is on, each with all categories and with its own. One that is not rated is on none."""
    if not rated:
        return [(APART, ALL)]
    boards = ["overall"]
    if left_kind == right_kind and left_kind in BOARDS:  # imported contestants have no class of their own
        boards.append(left_kind)
    if language in BOARDS:
        boards.append(language)
    return [(board, part) for board in boards for part in (ALL, category)]


def add_to_counts(
    connection: Connection, keys: Sequence[tuple[str, str]], a: int, b: int, outcome: int, by: int
) -> None:
    """Count a vote (``by`` 1) or take it back (−1). Inside Database.write(), where nobody else writes."""
    add_many(connection, {(board, category, a, b, outcome): by for board, category in keys})


def add_many(connection: Connection, cells: Mapping[tuple[str, str, int, int, int], int]) -> None:
    """Count many votes at once, by (board, category, a, b, outcome). Inside Database.write()."""
    grow(connection, counts, _KEYS[:-1], [dict(zip(_KEYS, (*cell, n), strict=True)) for cell, n in cells.items()])


def table(connection: Connection, ids: Sequence[int], board: str = "overall", category: str = ALL) -> np.ndarray:
    """Counts as a table (M, M, 4) of left contestant, right contestant, outcome, in the order of ``ids``."""
    out = np.zeros((len(ids), len(ids), len(OUTCOMES)))
    columns = (counts.c.a, counts.c.b, counts.c.outcome, counts.c.n)
    chosen = select(*columns).where(counts.c.board == board, counts.c.category == category)
    # Tens of thousands of rows: the driver's own tuples go straight into an array.
    cursor: Any = connection.execute(chosen).cursor
    rows = np.array(cursor.fetchall(), np.int64).reshape(-1, 4)
    if len(rows):
        places = np.full(max(ids) + 1, -1)
        places[list(ids)] = np.arange(len(ids))
        out[places[rows[:, 0]], places[rows[:, 1]], rows[:, 2]] = rows[:, 3]
    return out


def recount(connection: Connection) -> dict[tuple[str, str, int, int, int], int]:
    """The counts as the votes themselves give them: the slow twin. Zeros are left out."""
    kinds: dict[int, str] = {
        row.id: row.kind for row in connection.execute(select(contestants.c.id, contestants.c.kind))
    }
    cast = connection.execute(
        select(
            votes.c.outcome,
            votes.c.set_apart,
            voters.c.excluded_at,
            battles.c.left_id,
            battles.c.right_id,
            battles.c.category,
            battles.c.language,
        )
        .join(battles, battles.c.id == votes.c.battle_id)
        .join(voters, voters.c.id == votes.c.voter_id)
        .outerjoin(undos, undos.c.vote_id == votes.c.id)
        .where(undos.c.vote_id.is_(None))
    )
    found: Counter[tuple[str, str, int, int, int]] = Counter()
    for vote in cast:
        rated = vote.set_apart is None and vote.excluded_at is None
        left, right = kinds[vote.left_id], kinds[vote.right_id]
        for board, category in board_keys(left, right, vote.category, vote.language, rated):
            found[board, category, vote.left_id, vote.right_id, vote.outcome] += 1
    return found


def kept(connection: Connection) -> dict[tuple[str, str, int, int, int], int]:
    """The counts as they are kept, without zeros."""
    rows = connection.execute(select(counts).where(counts.c.n != 0))
    return {(row.board, row.category, row.a, row.b, row.outcome): row.n for row in rows}
