"""A further question in a battle, to the same two on the same sides."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, insert, select

from moreseek.arena.store import battles as stored_battles
from moreseek.arena.store.tables import turns
from moreseek.arena.store.votes import RefusedError, open_for_more

Messages = list[dict[str, str]]


@dataclass(frozen=True)
class NextTurn:
    """What is asked next, and what was said before, as each side saw it."""

    battle: Any
    turn: int
    said: tuple[Messages, Messages]


def begin(connection: Connection, session_key: str, battle_id: str, prompt: str, most: int, now: float) -> NextTurn:
    """Note a further question before it is asked. Inside Database.write(); raises RefusedError."""
    battle = open_for_more(connection, session_key, battle_id)
    prompts = [battle.prompt, *_later_prompts(connection, battle_id)]
    turn = len(prompts) + 1
    if turn > most:
        raise RefusedError("too_many_turns", 409, f"A battle has at most {most} turns. Please vote.")
    connection.execute(insert(turns), {"battle_id": battle_id, "turn": turn, "at": now, "prompt": prompt})
    said: tuple[Messages, Messages] = [], []
    for answer in stored_battles.answers_of(connection, battle_id):
        said[answer.side].append({"role": "user", "content": prompts[answer.turn - 1] or ""})
        said[answer.side].append({"role": "assistant", "content": answer.text or ""})
    return NextTurn(battle, turn, said)


def _later_prompts(connection: Connection, battle_id: str) -> list[str | None]:
    chosen = select(turns.c.prompt).where(turns.c.battle_id == battle_id).order_by(turns.c.turn)
    return list(connection.execute(chosen).scalars())
