"""The votes behind a figure: page by page for people, and the latest of them with their style for style control."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from sqlalchemy import Connection, and_, or_, select, tuple_

from moreseek.arena.standings import BOARDS
from moreseek.arena.store.battles import styles_of
from moreseek.arena.store.tables import answers, battles, contestants, judgements, judges, undos, voters, votes
from moreseek.arena.vote_lines import STYLE, tells, votes_from
from moreseek.arena.votes import LABELS, OUTCOMES, Votes

_AT_ONCE = 500  # battles in one statement
_LEFT, _RIGHT = contestants.alias("l"), contestants.alias("r")


@dataclass(frozen=True)
class Which:
    """Of which board, and between whom: nobody named is everybody; of a judge what it said, else people's votes."""

    board: str = "overall"
    category: str = ""
    a: str = ""
    b: str = ""
    judge: str = ""


def rated(which: Which) -> Any:
    """The rated votes of a board, or what a judge said on it, without texts; ``whose`` says who."""
    said = judgements if which.judge else votes
    chosen = (
        select(said.c.at, said.c.outcome, said.c.battle_id, battles.c.category, battles.c.language,
               battles.c.prompt_key, battles.c.probability, _LEFT.c.name.label("left"), _RIGHT.c.name.label("right"))
        .join(battles, battles.c.id == said.c.battle_id)
        .join(_LEFT, _LEFT.c.id == battles.c.left_id).join(_RIGHT, _RIGHT.c.id == battles.c.right_id)
    )  # fmt: skip
    if which.judge:
        chosen = chosen.add_columns(judges.c.name.label("whose")).join(judges, judges.c.id == judgements.c.judge_id)
        chosen = chosen.where(judges.c.name == which.judge)
    else:
        chosen = (
            chosen.add_columns(votes.c.style, voters.c.pseudonym.label("whose"))
            .join(voters, voters.c.id == votes.c.voter_id)
            .outerjoin(undos, undos.c.vote_id == votes.c.id)
            .where(votes.c.set_apart.is_(None), undos.c.vote_id.is_(None), voters.c.excluded_at.is_(None))
        )
    if which.board in ("base", "reasoning"):
        chosen = chosen.where(_LEFT.c.kind == which.board, _RIGHT.c.kind == which.board)
    elif which.board in BOARDS and which.board != "overall":
        chosen = chosen.where(battles.c.language == which.board)
    if which.category:
        chosen = chosen.where(battles.c.category == which.category)
    return chosen


def on_same(which: Which, judge: str) -> Any:
    """The same, of battles that this judge judged too."""
    own = select(judgements.c.battle_id).join(judges, judges.c.id == judgements.c.judge_id)
    return rated(which).where(battles.c.id.in_(own.where(judges.c.name == judge)))


def page(connection: Connection, which: Which, most: int, before: str = "") -> list[dict[str, Any]]:
    """At most so many, the newest first; ``before`` is the ``battle`` of the last one of the page before."""
    chosen = rated(which)
    ids = {row.name: row.id for row in connection.execute(select(contestants.c.name, contestants.c.id))}
    a, b = ids.get(which.a), ids.get(which.b)
    if a is not None and b is not None:
        met = lambda x, y: and_(battles.c.left_id == x, battles.c.right_id == y)  # noqa: E731
        chosen = chosen.where(or_(met(a, b), met(b, a)))
    elif a is not None:
        chosen = chosen.where(or_(battles.c.left_id == a, battles.c.right_id == a))
    # A judge says much in one moment, so that its battles order what its times do not.
    order = (judgements.c.at, judgements.c.battle_id) if which.judge else (votes.c.id,)
    if before:
        last = connection.execute(rated(which).add_columns(*order).where(battles.c.id == before)).first()
        if last is None:
            return []
        chosen = chosen.where(tuple_(*order) < tuple_(*last[-len(order) :]))
    return [
        {
            "at": row.at, "battle": row.battle_id, "judge" if which.judge else "voter": row.whose, "left": row.left,
            "right": row.right, "outcome": OUTCOMES[row.outcome], "category": row.category, "language": row.language,
            "probability": row.probability,
        }
        for row in connection.execute(chosen.order_by(*(one.desc() for one in order)).limit(most))
    ]  # fmt: skip


def lines(connection: Connection, which: Which, chosen: Any = None) -> list[dict[str, Any]]:
    """The same as lines of the ledger have it: all of ``rated(which)``, or what was chosen of it."""
    chosen = rated(which) if chosen is None else chosen
    return [
        {
            "battle": row.battle_id, "voter": row.whose, "prompt": row.prompt_key[:32], "category": row.category,
            "language": row.language, "left": row.left, "right": row.right, "outcome": OUTCOMES[row.outcome],
            "at": row.at, "style": None if which.judge or row.style is None else json.loads(row.style),
        }
        for row in connection.execute(chosen)
    ]  # fmt: skip


def names(connection: Connection) -> list[str]:
    """Every contestant ever entered, in order of entry."""
    return list(connection.execute(select(contestants.c.name).order_by(contestants.c.id)).scalars())


def styled(connection: Connection, which: Which, most: int, features: Sequence[str] = STYLE) -> Votes:
    """The latest rated votes of a board that tell these features of the answers, at most so many, oldest first."""
    if which.judge:
        latest = rated(which).order_by(judgements.c.at.desc(), judgements.c.battle_id.desc()).limit(most)
        found = _with_styles(connection, lines(connection, which, latest))
    else:
        latest = rated(which).where(votes.c.style.is_not(None)).order_by(votes.c.id.desc()).limit(most)
        found = lines(connection, which, latest)
    labels = ("prompt", "category", "language") if which.judge else LABELS
    told = [line for line in found if tells(line, features)]
    return votes_from(told[::-1], names(connection), labels).present()


def _with_styles(connection: Connection, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Lines with the style of their answers, counted in the texts; without one where those were forgotten."""
    styles: dict[str, Any] = {}
    for start in range(0, len(found), _AT_ONCE):
        some = [line["battle"] for line in found[start : start + _AT_ONCE]]
        chosen = select(answers).where(answers.c.battle_id.in_(some)).order_by(answers.c.battle_id)
        for battle, said in groupby(connection.execute(chosen), key=lambda row: row.battle_id):
            both = list(said)
            styles[battle] = None if any(row.text is None for row in both) else styles_of(both)
    return [line | {"style": styles.get(line["battle"])} for line in found]
