"""Battles: a question, two contestants, two answers, and how it ended."""

import secrets
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, insert, select

from moreseek.arena.store.tables import answers, battles, ends

ANSWERED, FAILED, ABANDONED = "answered", "failed", "abandoned"


@dataclass(frozen=True)
class NewBattle:
    """What is known when a battle begins."""

    voter_id: int
    address_key: str
    left_id: int
    right_id: int
    across: bool
    probability: float
    category: str
    language: str
    prompt_key: str
    prompt: str


@dataclass(frozen=True)
class Answer:
    """What one side wrote and what it took."""

    text: str
    thinking: str
    tokens: int | None
    prompt_tokens: int | None
    first_s: float
    total_s: float
    cost_usd: float | None
    cut_short: bool
    leak: str | None


def begin(connection: Connection, battle: NewBattle, now: float) -> str:
    """Note a battle before its contestants are asked. Returns its random name."""
    name = secrets.token_urlsafe(16)
    connection.execute(insert(battles), {**vars(battle), "id": name, "at": now})
    return name


def finish(connection: Connection, battle_id: str, both: tuple[Answer, Answer], now: float) -> None:
    """Both answers are whole and were shown: from now on there can be a vote."""
    connection.execute(
        insert(answers), [{"battle_id": battle_id, "side": side, **vars(one)} for side, one in enumerate(both)]
    )
    connection.execute(insert(ends), {"battle_id": battle_id, "at": now, "how": ANSWERED})


def give_up(
    connection: Connection, battle_id: str, how: str, now: float, contestant_id: int | None = None, reason: str = ""
) -> None:
    """The battle is void: somebody failed, or the voter left."""
    row = {"battle_id": battle_id, "at": now, "how": how, "contestant_id": contestant_id, "reason": reason[:200]}
    connection.execute(insert(ends), row)


def find(connection: Connection, battle_id: str) -> Any:
    """The battle with its end (``ended_at`` and ``how`` are None while it runs), or None."""
    chosen = (
        select(battles, ends.c.at.label("ended_at"), ends.c.how)
        .outerjoin(ends, ends.c.battle_id == battles.c.id)
        .where(battles.c.id == battle_id)
    )
    return connection.execute(chosen).first()


def answers_of(connection: Connection, battle_id: str) -> list[Any]:
    """The left answer and the right one; nothing while the battle runs."""
    chosen = select(answers).where(answers.c.battle_id == battle_id).order_by(answers.c.side)
    return list(connection.execute(chosen))
