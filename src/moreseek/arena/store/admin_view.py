"""What the admin page shows: contestants with their state, the voters worth a look, the log."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, or_, select

from moreseek.arena.replay import PANEL
from moreseek.arena.store import actions, registry
from moreseek.arena.store.tables import added, undos, voters, votes

_MOST = 15


@dataclass(frozen=True)
class Voter:
    """A voter as the house sees it: never an address, never a text."""

    pseudonym: str
    since: float
    votes: int
    excluded_by: str | None
    flagged: bool
    banned: bool


@dataclass(frozen=True)
class View:
    """Everything on the page."""

    contestants: list[dict[str, Any]]
    voters: list[Voter]
    log: list[actions.Action]


def view(connection: Connection, pseudonym: str, now: float) -> View:
    """The page; ``pseudonym`` brings that voter to the front of the list."""
    held, resting = actions.standing(connection, "pause"), registry.paused(connection, now)
    by_hand = set(connection.execute(select(added.c.contestant_id)).scalars())
    shown = [
        {
            "name": row.name, "class": row.kind, "family": row.family, "model": row.model, "quota": row.quota,
            "withdrawn": row.withdrawn_at is not None, "held": row.id in held, "resting": row.id in resting,
            "added": row.id in by_hand,
        }
        for row in registry.registered(connection)
    ]  # fmt: skip
    return View(shown, _voters(connection, pseudonym), actions.log(connection))


def _voters(connection: Connection, pseudonym: str) -> list[Voter]:
    """The one asked for, those with a mark, and the busiest."""
    flagged, banned = actions.standing(connection, "flag"), actions.standing(connection, "ban")
    n = func.count(votes.c.id)
    counted = (
        select(voters, n.label("n"))
        .outerjoin(votes, votes.c.voter_id == voters.c.id)
        .outerjoin(undos, undos.c.vote_id == votes.c.id)
        .where(undos.c.vote_id.is_(None), voters.c.pseudonym != PANEL)
        .group_by(voters.c.id)
    )
    marked = counted.where(or_(voters.c.excluded_at.is_not(None), voters.c.id.in_(flagged | banned)))
    asked = counted.where(voters.c.pseudonym == pseudonym)
    found: dict[int, Any] = {}
    for chosen in (asked, marked.order_by(voters.c.id.desc()), counted.order_by(n.desc(), voters.c.id).limit(_MOST)):
        for row in connection.execute(chosen):
            found.setdefault(row.id, row)
    return [
        Voter(row.pseudonym, row.created_at, row.n, row.excluded_by, row.id in flagged, row.id in banned)
        for row in found.values()
    ]


def flagged_voters(connection: Connection) -> Sequence[str]:
    """Pseudonyms of the voters that the house is looking at."""
    ids = actions.standing(connection, "flag")
    return (
        connection.execute(select(voters.c.pseudonym).where(voters.c.id.in_(ids)).order_by(voters.c.id)).scalars().all()
    )
