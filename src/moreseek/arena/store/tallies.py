"""What each contestant's answers took in all, those that were voted on, kept up in the vote's transaction."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, case, func, select

from moreseek.arena.store.growing import grow
from moreseek.arena.store.tables import answers, battles, judgements, judges, tallies


@dataclass(frozen=True)
class Tally:
    """Means over a contestant's answers; None where nothing is known."""

    answers: int
    seconds: float
    first_seconds: float
    tokens: float | None
    cost_usd: float | None


def add(connection: Connection, given: Iterable[tuple[int, Any]]) -> None:
    """Count answers: who gave it, and its row of ``answers``."""
    totals: dict[int, dict[str, Any]] = {}
    for contestant_id, answer in given:
        one = {
            "answers": 1, "seconds": answer.total_s, "first_seconds": answer.first_s,
            "counted": int(answer.tokens is not None), "tokens": answer.tokens or 0,
            "priced": int(answer.cost_usd is not None), "cost_usd": answer.cost_usd or 0.0,
        }  # fmt: skip
        mine = totals.setdefault(contestant_id, dict.fromkeys(one, 0))
        totals[contestant_id] = {key: mine[key] + value for key, value in one.items()}
    rows = [{"contestant_id": contestant_id, **total} for contestant_id, total in totals.items()]
    grow(connection, tallies, ("contestant_id",), rows)


def means(connection: Connection) -> dict[int, Tally]:
    """By contestant."""
    return {
        row.contestant_id: Tally(
            row.answers, row.seconds / row.answers, row.first_seconds / row.answers,
            row.tokens / row.counted if row.counted else None, row.cost_usd / row.priced if row.priced else None,
        )
        for row in connection.execute(select(tallies))
    }  # fmt: skip


def of_judged(connection: Connection, judge: str) -> dict[int, Tally]:
    """The same of the answers that a judge judged, which no vote counted: from the answers themselves."""
    whose = case((answers.c.side == 0, battles.c.left_id), else_=battles.c.right_id)
    columns = {
        "seconds": answers.c.total_s, "first": answers.c.first_s, "tokens": answers.c.tokens, "cost": answers.c.cost_usd
    }  # fmt: skip
    chosen = (
        select(whose.label("whose"), func.count().label("n"),
               *(func.avg(column).label(name) for name, column in columns.items()))
        .join(battles, battles.c.id == answers.c.battle_id)
        .join(judgements, judgements.c.battle_id == battles.c.id)
        .join(judges, judges.c.id == judgements.c.judge_id)
        .where(judges.c.name == judge)
        .group_by(whose)
    )  # fmt: skip
    # PostgreSQL's mean of integers is a Decimal.
    known = lambda value: None if value is None else float(value)  # noqa: E731
    return {
        row.whose: Tally(row.n, float(row.seconds), float(row.first), known(row.tokens), known(row.cost))
        for row in connection.execute(chosen)
    }
