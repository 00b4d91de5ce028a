"""Answers that were given before, shown to another voter: several people judge the same two."""

from random import SystemRandom

from sqlalchemy import select

from moreseek.arena.live.endpoint import Reply
from moreseek.arena.store.battles import ANSWERED, answers_of
from moreseek.arena.store.database import Database
from moreseek.arena.store.tables import answers, battles, ends

_RANDOM = SystemRandom()


def given_before(database: Database, battle_id: str, share: float) -> tuple[Reply, Reply] | None:
    """The two answers to this battle's question by its contestants, from a battle of somebody else; left one first.

    None where there is none with its texts, and in all but a ``share`` of the others. Judges' battles serve too.
    """
    if _RANDOM.random() >= share:
        return None
    with database.read() as connection:
        own = connection.execute(select(battles).where(battles.c.id == battle_id)).one()
        pair = (own.left_id, own.right_id)
        nothing = answers.c.text.is_(None) | (answers.c.text == "")
        silent = select(answers.c.battle_id).where(answers.c.battle_id == battles.c.id, answers.c.turn == 1, nothing)
        found = connection.execute(
            select(battles.c.id, battles.c.left_id)
            .join(ends, (ends.c.battle_id == battles.c.id) & (ends.c.how == ANSWERED))
            .where(battles.c.prompt_key == own.prompt_key, battles.c.voter_id != own.voter_id,
                   battles.c.prompt.is_not(None), ~silent.exists(),
                   battles.c.left_id.in_(pair), battles.c.right_id.in_(pair))
            .order_by(battles.c.at.desc(), battles.c.id).limit(1)
        ).first()  # fmt: skip
        if found is None:
            return None
        left, right = (
            Reply(
                thinking=row.thinking, ended=True, cut_short=row.cut_short, tokens=row.tokens,
                prompt_tokens=row.prompt_tokens, first_s=row.first_s, total_s=row.total_s, _content=row.text,
            )
            for row in answers_of(connection, found.id)[:2]  # of the first turn: later ones answer other questions
        )  # fmt: skip
    return (left, right) if found.left_id == own.left_id else (right, left)
