"""The audit: the registry, who was drawn how often, who failed, whose votes were taken out, and the ledger's head."""

import json
import time
from typing import Any

from sqlalchemy import func, or_, select

from moreseek.arena.replay import PANEL
from moreseek.arena.store import actions, admin_view, counts, ledger, registry
from moreseek.arena.store.battles import ANSWERED
from moreseek.arena.store.tables import battles, chats, ends, judgements, judges, pauses, undos, voters, votes
from moreseek.arena.store.votes import DAY_S
from moreseek.arena.web.arena import Arena

_ACTIVE = 10
_FRESH_S = 5.0


def audit_of(arena: Arena) -> dict[str, Any]:
    """Everything that the audit page shows. Voters appear under their pseudonyms, never with texts or addresses.

    It recounts every vote, so an answer serves for some seconds, however many people ask.
    """
    now = time.monotonic()
    if arena.audited is None or now - arena.audited[0] > _FRESH_S:
        arena.audited = (now, _audit(arena))
    return arena.audited[1]


def _settled(since: float) -> Any:
    """People's battles that take no vote any more. The others must not show: who watches them would know the draw."""
    return (
        select(battles.c.id)
        .join(voters, voters.c.id == battles.c.voter_id)
        .outerjoin(votes, votes.c.battle_id == battles.c.id)
        .outerjoin(ends, ends.c.battle_id == battles.c.id)
        .where(voters.c.pseudonym != PANEL)
        .where(or_(votes.c.id.is_not(None), ends.c.how != ANSWERED, battles.c.at < since - DAY_S))
    )


def _audit(arena: Arena) -> dict[str, Any]:
    with arena.database.read() as connection:
        known = registry.registered(connection)
        drawn: dict[int, int] = {}
        settled = _settled(time.time() - arena.settings.arena.vote_window_s)
        for side in (battles.c.left_id, battles.c.right_id):
            counted = settled.with_only_columns(side.label("who"), func.count().label("n")).group_by(side)
            for row in connection.execute(counted):
                drawn[row.who] = drawn.get(row.who, 0) + row.n
        failures = dict(
            connection.execute(select(pauses.c.contestant_id, func.count()).group_by(pauses.c.contestant_id)).all()
        )
        seq, head = ledger.head(connection)
        excluded = connection.execute(
            select(voters.c.pseudonym, voters.c.excluded_by, voters.c.excluded_at, func.count(votes.c.id).label("n"))
            .outerjoin(votes, votes.c.voter_id == voters.c.id).where(voters.c.excluded_at.is_not(None))
            .group_by(voters.c.id, voters.c.pseudonym, voters.c.excluded_by, voters.c.excluded_at)
            .order_by(voters.c.excluded_at.desc())
        ).all()  # fmt: skip
        apart = connection.execute(
            select(votes.c.set_apart, func.count()).where(votes.c.set_apart.is_not(None)).group_by(votes.c.set_apart)
        ).all()  # fmt: skip
        taken_back = connection.execute(select(func.count()).select_from(undos)).scalar_one()
        active = connection.execute(
            select(voters.c.pseudonym, func.count().label("n")).join(votes, votes.c.voter_id == voters.c.id)
            .group_by(voters.c.pseudonym).order_by(func.count().desc(), voters.c.pseudonym).limit(_ACTIVE)
        ).all()  # fmt: skip
        total = connection.execute(select(func.count()).select_from(votes)).scalar_one()
        house, flagged = actions.log(connection), admin_view.flagged_voters(connection)
        said_by = connection.execute(
            select(judges.c.name, judges.c.settings, func.count(judgements.c.battle_id).label("n"))
            .outerjoin(judgements, judgements.c.judge_id == judges.c.id)
            .group_by(judges.c.id, judges.c.name, judges.c.settings).order_by(judges.c.id)
        ).all()  # fmt: skip
        chats_held = connection.execute(select(func.count()).select_from(chats)).scalar_one()
        hold = counts.kept(connection) == counts.recount(connection)
    return {
        "contestants": [
            {
                "name": row.name, "class": row.kind, "family": row.family, "model": row.model, "quota": row.quota,
                "settings": row.settings, "entered_at": row.entered_at, "withdrawn_at": row.withdrawn_at,
                "withdrawn_reason": row.withdrawn_reason, "drawn": drawn.get(row.id, 0),
                "failures": failures.get(row.id, 0),
            }
            for row in known
        ],
        "votes": total, "apart": {reason: n for reason, n in apart if reason}, "taken_back": taken_back,
        "excluded": [
            {"voter": row.pseudonym, "test": row.excluded_by, "at": row.excluded_at, "votes": row.n}
            for row in excluded
        ],
        "active": [{"voter": row.pseudonym, "votes": row.n, "share": row.n / total} for row in active],
        "ledger": {"lines": seq, "head": head},
        "judges": [
            {"name": row.name, "settings": json.loads(row.settings), "judgements": row.n} for row in said_by
        ],
        "counts_hold": hold, "flagged": list(flagged), "chats": chats_held,
        "house": [
            {"id": one.id, "at": one.at, "action": one.kind, "on": one.contestant or one.voter, "value": one.value,
             "reason": one.reason, "undoes": one.undoes, "undone": one.undone}
            for one in house
        ],
    }  # fmt: skip
