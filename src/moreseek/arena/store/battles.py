"""Battles: a question, two contestants, two answers, and how it ended."""

import secrets
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, insert, select, update

from moreseek.arena.store.tables import answers, battles, ends, turns

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
    replayed: bool = False  # an answer from another battle, shown again


def begin(connection: Connection, battle: NewBattle, now: float) -> str:
    """Note a battle before its contestants are asked. Returns its random name."""
    name = secrets.token_urlsafe(16)
    connection.execute(insert(battles), {**vars(battle), "id": name, "at": now})
    return name


def finish(connection: Connection, battle_id: str, both: tuple[Answer, Answer], now: float, turn: int = 1) -> None:
    """Both answers are whole and were shown: from now on there can be a vote, or a next turn."""
    rows = [{"battle_id": battle_id, "turn": turn, "side": side, **vars(one)} for side, one in enumerate(both)]
    connection.execute(insert(answers), rows)
    _end(connection, battle_id, turn, {"how": ANSWERED}, now)


def give_up(
    connection: Connection, battle_id: str, how: str, now: float, contestant_id: int | None = None, reason: str = "",
    turn: int = 1,
) -> None:  # fmt: skip
    """The battle is void: somebody failed, or the voter left."""
    _end(connection, battle_id, turn, {"how": how, "contestant_id": contestant_id, "reason": reason[:200]}, now)


def _end(connection: Connection, battle_id: str, turn: int, row: dict[str, Any], now: float) -> None:
    if turn == 1:
        connection.execute(insert(ends), {"battle_id": battle_id, "at": now, **row})
    else:
        this = (turns.c.battle_id == battle_id) & (turns.c.turn == turn)
        connection.execute(update(turns).where(this).values(ended_at=now, **row))


def find(connection: Connection, battle_id: str) -> Any:
    """The battle with its end (``ended_at`` and ``how`` are None while it runs), or None."""
    chosen = (
        select(battles, ends.c.at.label("ended_at"), ends.c.how)
        .outerjoin(ends, ends.c.battle_id == battles.c.id)
        .where(battles.c.id == battle_id)
    )
    return connection.execute(chosen).first()


def last_turn(connection: Connection, battle_id: str) -> Any:
    """The last turn after the first one (``turn``, ``how``, ``ended_at``), or None."""
    chosen = select(turns).where(turns.c.battle_id == battle_id).order_by(turns.c.turn.desc()).limit(1)
    return connection.execute(chosen).first()


def answers_of(connection: Connection, battle_id: str) -> list[Any]:
    """The answers turn by turn, the left one before the right one; those of a turn appear when both are whole."""
    chosen = select(answers).where(answers.c.battle_id == battle_id).order_by(answers.c.turn, answers.c.side)
    return list(connection.execute(chosen))
