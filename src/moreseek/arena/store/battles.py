"""Battles: a question, two contestants, two answers, and how it ended."""

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, case, insert, select, update

from moreseek.arena.store.tables import answers, battles, contestants, ends, turns, undos, voters, votes
from moreseek.arena.style import style_of
from moreseek.arena.vote_lines import STYLE

ANSWERED, FAILED, ABANDONED = "answered", "failed", "abandoned"


_SIDES = {"left": contestants.alias("l"), "right": contestants.alias("r")}
_WHOLE = (
    select(
        battles,
        case((turns.c.turn.is_(None), ends.c.at), else_=turns.c.ended_at).label("ended_at"),
        case((turns.c.turn.is_(None), ends.c.how), else_=turns.c.how).label("how"),
        votes.c.id.label("vote_id"), votes.c.at.label("voted_at"), votes.c.outcome, votes.c.set_apart,
        undos.c.at.label("undone_at"), voters.c.session_key, voters.c.pseudonym, voters.c.excluded_at,
        *(side.c[column].label(f"{where}_{column}") for where, side in _SIDES.items()
          for column in ("name", "kind", "family", "model", "settings")),
    )
    .join(voters, voters.c.id == battles.c.voter_id)
    .join(_SIDES["left"], _SIDES["left"].c.id == battles.c.left_id)
    .join(_SIDES["right"], _SIDES["right"].c.id == battles.c.right_id)
    .outerjoin(ends, ends.c.battle_id == battles.c.id)
    .outerjoin(turns, turns.c.battle_id == battles.c.id)
    .outerjoin(votes, votes.c.battle_id == battles.c.id)
    .outerjoin(undos, undos.c.vote_id == votes.c.id)
    .where(battles.c.id == bindparam("battle"))
    .order_by(turns.c.turn.desc())
    .limit(1)
)  # fmt: skip


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
    """All that is to be known of a battle but its texts, in one statement; None where there is none.

    ``ended_at`` and ``how`` are those of its last turn, None while that runs; ``voted_at``, ``outcome``, ``set_apart``,
    ``vote_id`` and ``undone_at`` None without a vote; ``left_name``, ``right_settings`` and so on from the registry;
    ``session_key``, ``pseudonym`` and ``excluded_at`` of its voter.
    """
    return connection.execute(_WHOLE, {"battle": battle_id}).first()


def answers_of(connection: Connection, battle_id: str) -> list[Any]:
    """The answers turn by turn, the left one before the right one; those of a turn appear when both are whole."""
    chosen = select(answers).where(answers.c.battle_id == battle_id).order_by(answers.c.turn, answers.c.side)
    return list(connection.execute(chosen))


def total(parts: Iterable[Any]) -> Any:
    """The sum, or None where a part is not known, or there is none."""
    known = list(parts)
    return None if None in known or not known else sum(known)


def styles_of(said: Sequence[Any]) -> list[list[float | None]]:
    """What all answers of the left side, and of the right one, are in vote_lines' STYLE and SERVED."""
    return [_style_of([answer for answer in said if answer.side == side]) for side in (0, 1)]


def _style_of(answers: Sequence[Any]) -> list[float | None]:
    counted = [style_of(answer.text or "") for answer in answers]
    costs = [answer.cost_usd for answer in answers]
    return [
        *(sum(one[feature] for one in counted) for feature in STYLE),
        round(sum(answer.total_s for answer in answers), 3), None if None in costs else round(sum(costs), 9),
    ]  # fmt: skip
