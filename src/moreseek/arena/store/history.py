"""Boards as they stood at the end of each day (UTC) on which there were votes: M rows a board and day."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, func, insert, select

from moreseek.arena.ratings import Ratings
from moreseek.arena.store.counts import APART
from moreseek.arena.store.tables import contestants, counts, history, votes

DAY_S = 86_400


@dataclass(frozen=True)
class Point:
    """One contestant on one board at the end of one day (days since 1970)."""

    day: int
    name: str
    rating: float
    ci_low: float
    ci_high: float
    battles: int


def day_of(seconds: float) -> int:
    """Days since 1970, UTC."""
    return int(seconds // DAY_S)


def days(connection: Connection) -> tuple[int | None, int | None]:
    """The last day that was noted, and the day of the last vote."""
    noted = connection.execute(select(func.max(history.c.day))).scalar()
    last = connection.execute(select(func.max(votes.c.at))).scalar()  # imported ones stand in their file's order
    return noted, None if last is None else day_of(last)


def boards(connection: Connection) -> list[tuple[str, str]]:
    """Every board and category that has counts."""
    chosen = select(counts.c.board, counts.c.category).where(counts.c.board != APART).distinct()
    return [(row.board, row.category) for row in connection.execute(chosen)]


def note(connection: Connection, day: int, board: str, category: str, ratings: Ratings, ids: dict[str, int]) -> None:
    """Keep a board. Inside Database.write()."""
    rows = [
        {"day": day, "board": board, "category": category, "contestant_id": ids[row["name"]],
         **{key: row[key] for key in ("rating", "ci_low", "ci_high", "battles")}}
        for row in ratings.rows()
    ]  # fmt: skip
    if rows:
        connection.execute(insert(history), rows)


def of(connection: Connection, board: str, category: str) -> Sequence[Point]:
    """What was kept of a board, day by day."""
    chosen = (
        select(history, contestants.c.name)
        .join(contestants, contestants.c.id == history.c.contestant_id)
        .where(history.c.board == board, history.c.category == category)
        .order_by(history.c.day, history.c.contestant_id)
    )
    return [
        Point(row.day, row.name, row.rating, row.ci_low, row.ci_high, row.battles) for row in connection.execute(chosen)
    ]
