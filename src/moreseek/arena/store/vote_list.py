"""The votes behind a figure: page by page for people, and the latest of them with their style for style control."""

import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, and_, or_, select

from moreseek.arena.replay import votes_from
from moreseek.arena.standings import BOARDS
from moreseek.arena.store.tables import battles, contestants, undos, voters, votes
from moreseek.arena.votes import OUTCOMES, Votes

_LEFT, _RIGHT = contestants.alias("l"), contestants.alias("r")


@dataclass(frozen=True)
class Which:
    """Of which board, and between whom: nobody named is everybody."""

    board: str = "overall"
    category: str = ""
    a: str = ""
    b: str = ""


def rated(which: Which) -> Any:
    """The rated votes of a board, without texts."""
    chosen = (
        select(votes.c.id, votes.c.at, votes.c.outcome, votes.c.style, votes.c.battle_id, battles.c.category,
               battles.c.language, battles.c.prompt_key, battles.c.probability, voters.c.pseudonym,
               _LEFT.c.name.label("left"), _RIGHT.c.name.label("right"))
        .join(battles, battles.c.id == votes.c.battle_id)
        .join(voters, voters.c.id == votes.c.voter_id)
        .join(_LEFT, _LEFT.c.id == battles.c.left_id).join(_RIGHT, _RIGHT.c.id == battles.c.right_id)
        .outerjoin(undos, undos.c.vote_id == votes.c.id)
        .where(votes.c.set_apart.is_(None), undos.c.vote_id.is_(None), voters.c.excluded_at.is_(None))
    )  # fmt: skip
    if which.board in ("base", "reasoning"):
        chosen = chosen.where(_LEFT.c.kind == which.board, _RIGHT.c.kind == which.board)
    elif which.board in BOARDS and which.board != "overall":
        chosen = chosen.where(battles.c.language == which.board)
    if which.category:
        chosen = chosen.where(battles.c.category == which.category)
    return chosen


def page(connection: Connection, which: Which, most: int, before: int | None = None) -> list[dict[str, Any]]:
    """At most so many, the newest first; ``before`` is the ``id`` of the last one of the page before."""
    chosen = rated(which)
    ids = {row.name: row.id for row in connection.execute(select(contestants.c.name, contestants.c.id))}
    a, b = ids.get(which.a), ids.get(which.b)
    if a is not None and b is not None:
        met = lambda x, y: and_(battles.c.left_id == x, battles.c.right_id == y)  # noqa: E731
        chosen = chosen.where(or_(met(a, b), met(b, a)))
    elif a is not None:
        chosen = chosen.where(or_(battles.c.left_id == a, battles.c.right_id == a))
    if before is not None:
        chosen = chosen.where(votes.c.id < before)
    return [
        {
            "id": row.id, "at": row.at, "battle": row.battle_id, "voter": row.pseudonym, "left": row.left,
            "right": row.right, "outcome": OUTCOMES[row.outcome], "category": row.category, "language": row.language,
            "probability": row.probability,
        }
        for row in connection.execute(chosen.order_by(votes.c.id.desc()).limit(most))
    ]  # fmt: skip


def styled(connection: Connection, which: Which, most: int) -> Votes:
    """The latest rated votes of a board whose answers' style is known, at most so many, oldest first."""
    chosen = rated(which).where(votes.c.style.is_not(None)).order_by(votes.c.id.desc()).limit(most)
    names = list(connection.execute(select(contestants.c.name).order_by(contestants.c.id)).scalars())
    found = [
        {
            "voter": row.pseudonym, "prompt": row.prompt_key[:32], "category": row.category, "language": row.language,
            "left": row.left, "right": row.right, "outcome": OUTCOMES[row.outcome], "at": row.at,
            "style": json.loads(row.style),
        }
        for row in connection.execute(chosen)
    ]  # fmt: skip
    return votes_from(found[::-1], names).present()
