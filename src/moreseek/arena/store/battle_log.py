"""Battles out, with their texts, in the columns of LMArena's files: for other tools, and for reading."""

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Connection, select

from moreseek.arena.store.battles import total
from moreseek.arena.store.database import Database
from moreseek.arena.store.tables import answers, battles, turns, votes
from moreseek.arena.store.vote_list import Which, rated
from moreseek.arena.votes import BOTH_BAD, OUTCOMES

_AT_ONCE = 500  # battles in one statement


def battle_lines(database: Database) -> Iterator[dict[str, Any]]:
    """The battles whose votes are rated, in order: who fought, both conversations, who won, and what answers took.

    ``prompt_id`` is the same for the same question. A battle whose texts were forgotten has empty conversations.
    """
    with database.read() as connection:
        cast = connection.execute(rated(Which()).order_by(votes.c.id)).yield_per(_AT_ONCE)
        for some in cast.partitions():
            questions, said = _texts(connection, [row.battle_id for row in some])
            for row in some:
                asked, both = questions[row.battle_id], said.get(row.battle_id, [])
                yield {
                    "question_id": row.battle_id, "model_a": row.left, "model_b": row.right,
                    "winner": "tie (bothbad)" if row.outcome == BOTH_BAD else OUTCOMES[row.outcome],
                    "judge": row.whose, "prompt_id": row.prompt_key[:32], "category": row.category,
                    "language": row.language, "tstamp": row.at, "turn": len(asked),
                    **{
                        f"{key}_{side}": made
                        for side, mine in (("a", both[0::2]), ("b", both[1::2]))
                        for key, made in _side(asked, mine).items()
                    },
                }  # fmt: skip


def _texts(connection: Connection, ids: Sequence[str]) -> tuple[dict[str, list[str | None]], dict[str, list[Any]]]:
    """Of each battle its questions, and its answers turn by turn, the left one before the right one."""
    questions: dict[str, list[str | None]] = {}
    for row in connection.execute(select(battles.c.id, battles.c.prompt).where(battles.c.id.in_(ids))):
        questions[row.id] = [row.prompt]
    for row in connection.execute(select(turns).where(turns.c.battle_id.in_(ids)).order_by(turns.c.turn)):
        questions[row.battle_id].append(row.prompt)
    said: dict[str, list[Any]] = {}
    order = (answers.c.turn, answers.c.side)
    for row in connection.execute(select(answers).where(answers.c.battle_id.in_(ids)).order_by(*order)):
        said.setdefault(row.battle_id, []).append(row)
    return questions, said


def _side(questions: Sequence[str | None], mine: Sequence[Any]) -> dict[str, Any]:
    """One side's conversation, tokens, seconds and USD."""
    there = len(mine) == len(questions) and None not in (*questions, *(one.text for one in mine))
    return {
        "conversation": [
            {"role": role, "content": content}
            for question, one in zip(questions, mine, strict=True)
            for role, content in (("user", question), ("assistant", one.text))
        ] if there else [],
        "tokens": total(one.tokens for one in mine), "latency": total(one.total_s for one in mine),
        "cost": total(one.cost_usd for one in mine),
    }  # fmt: skip
