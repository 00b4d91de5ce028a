"""A vote: by the voter whose battle it is, once, after both answers, in time; and taking it back for a minute."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, insert, select

from moreseek.arena.store import battles as stored_battles
from moreseek.arena.store import ledger, tallies
from moreseek.arena.store.counts import add_to_counts, board_keys
from moreseek.arena.store.tables import answers, battles, contestants, undos, votes
from moreseek.arena.store.voters import Voter
from moreseek.arena.style import style_of
from moreseek.arena.vote_lines import STYLE
from moreseek.arena.votes import OUTCOMES
from moreseek.errors import MoreseekError

DAY_S = 86_400.0


class RefusedError(MoreseekError):
    """A vote that does not count, and why: ``code`` is for programs, ``status`` is HTTP's."""

    def __init__(self, code: str, status: int, message: str) -> None:
        super().__init__(message)
        self.code, self.status = code, status


@dataclass(frozen=True)
class Rules:
    """What limits votes."""

    window_s: float
    undo_s: float
    rated_a_day: int
    rated_a_day_per_address: int


@dataclass(frozen=True)
class Given:
    """What a voter says."""

    outcome: str
    reason: str = ""
    tags: Sequence[str] = ()


@dataclass(frozen=True)
class Cast:
    """A vote as it stands."""

    outcome: str
    at: float
    set_apart: str | None
    undone: bool
    repeated: bool  # it was there already, and nothing changed


def cast(connection: Connection, voter: Voter | None, battle_id: str, given: Given, rules: Rules, now: float) -> Cast:
    """Count a vote, in one transaction with its line in the ledger. The same vote again changes nothing.

    ``connection`` is that of Database.write(). Raises RefusedError.
    """
    battle = owned(connection, voter, battle_id)
    assert voter is not None
    before = standing(connection, battle_id)
    if before is not None:
        if before.outcome == given.outcome and not before.undone:
            return before
        raise RefusedError("already_voted", 409, "This battle has its vote.")
    ended_at = _ended(connection, battle)
    if now > ended_at + rules.window_s:
        raise RefusedError("too_late", 409, "The time to vote on this battle is over.")
    kept_apart = _set_apart(connection, voter, battle, rules, now)
    said = stored_battles.answers_of(connection, battle_id)
    code, style = OUTCOMES.index(given.outcome), _style(said)
    row = {
        "battle_id": battle_id, "voter_id": voter.id, "at": now, "outcome": code, "reason": given.reason or None,
        "tags": json.dumps(given.tags, ensure_ascii=False) if given.tags else None, "style": json.dumps(style),
        "set_apart": kept_apart,
    }  # fmt: skip
    connection.execute(insert(votes), row)
    left, right = _pair(connection, battle)
    keys = board_keys(left.kind, right.kind, battle.category, battle.language, kept_apart is None)
    add_to_counts(connection, keys, left.id, right.id, code, 1)
    for answer in said:  # not before the vote: who watches the means would know who answered
        if not answer.replayed:
            tallies.add(connection, (left.id, right.id)[answer.side], answer)
    ledger.append(connection, {
        "kind": "vote", "at": now, "battle": battle_id, "voter": voter.pseudonym, "prompt": battle.prompt_key[:32],
        "left": left.name, "right": right.name, "outcome": given.outcome, "category": battle.category,
        "language": battle.language, "probability": battle.probability, "across": battle.across,
        "set_apart": kept_apart, "style": style,
    })  # fmt: skip
    return Cast(given.outcome, now, kept_apart, undone=False, repeated=False)


def undo(connection: Connection, voter: Voter | None, battle_id: str, rules: Rules, now: float) -> Cast:
    """Take a vote back. The names are known by then, so the battle takes no other. Raises RefusedError."""
    battle = owned(connection, voter, battle_id)
    before = standing(connection, battle_id)
    if before is None:
        raise RefusedError("no_vote", 409, "This battle has no vote.")
    if before.undone:
        return before
    if now > before.at + rules.undo_s:
        raise RefusedError("too_late", 409, "The time to take this vote back is over.")
    vote_id = connection.execute(select(votes.c.id).where(votes.c.battle_id == battle_id)).scalar_one()
    connection.execute(insert(undos), {"vote_id": vote_id, "at": now})
    left, right = _pair(connection, battle)
    rated = before.set_apart is None and voter is not None and not voter.excluded
    keys = board_keys(left.kind, right.kind, battle.category, battle.language, rated)
    add_to_counts(connection, keys, left.id, right.id, OUTCOMES.index(before.outcome), -1)
    ledger.append(connection, {"kind": "undo", "at": now, "battle": battle_id})
    return Cast(before.outcome, before.at, before.set_apart, undone=True, repeated=False)


def owned(connection: Connection, voter: Voter | None, battle_id: str) -> Any:
    """The battle, if it is this voter's. Another's looks exactly like none. Raises RefusedError."""
    battle = stored_battles.find(connection, battle_id)
    if battle is None or voter is None or battle.voter_id != voter.id:
        raise RefusedError("no_such_battle", 404, "There is no such battle of yours.")
    return battle


def open_for_more(connection: Connection, voter: Voter | None, battle_id: str) -> Any:
    """The voter's battle, if another question can be asked in it. Raises RefusedError."""
    battle = owned(connection, voter, battle_id)
    if standing(connection, battle_id) is not None:
        raise RefusedError("already_voted", 409, "This battle has its vote.")
    _ended(connection, battle)
    return battle


def _ended(connection: Connection, battle: Any) -> float:
    """When the answers of the last turn ended. Raises RefusedError where they did not, or never will."""
    last = stored_battles.last_turn(connection, battle.id)
    how, at = (battle.how, battle.ended_at) if last is None else (last.how, last.ended_at)
    if how is None:
        raise RefusedError("not_ended", 409, "Both answers must have ended.")
    if how != stored_battles.ANSWERED:
        raise RefusedError("void", 409, "This battle was given up and takes no vote.")
    return at


def _style(said: Sequence[Any]) -> list[list[float | None]]:
    """What all answers of the left side, and of the right one, are in replay's STYLE and SERVED."""
    return [_style_of([answer for answer in said if answer.side == side]) for side in (0, 1)]


def _style_of(answers: Sequence[Any]) -> list[float | None]:
    counted = [style_of(answer.text or "") for answer in answers]
    costs = [answer.cost_usd for answer in answers]
    return [
        *(sum(one[feature] for one in counted) for feature in STYLE),
        round(sum(answer.total_s for answer in answers), 3), None if None in costs else round(sum(costs), 9),
    ]  # fmt: skip


def standing(connection: Connection, battle_id: str) -> Cast | None:
    """The vote that a battle has."""
    chosen = (
        select(votes, undos.c.at.label("undone_at"))
        .outerjoin(undos, undos.c.vote_id == votes.c.id)
        .where(votes.c.battle_id == battle_id)
    )
    row = connection.execute(chosen).first()
    if row is None:
        return None
    return Cast(OUTCOMES[row.outcome], row.at, row.set_apart, row.undone_at is not None, repeated=True)


def _set_apart(connection: Connection, voter: Voter, battle: Any, rules: Rules, now: float) -> str | None:
    """Why a vote is kept but not rated; None for one that is."""
    if voter.excluded:
        return "voter"
    named = select(answers.c.side).where(answers.c.battle_id == battle.id, answers.c.leak.is_not(None))
    if connection.execute(named.limit(1)).first() is not None:
        return "identity"
    today = (
        select(func.count())
        .select_from(votes)
        .join(battles, battles.c.id == votes.c.battle_id)
        .outerjoin(undos, undos.c.vote_id == votes.c.id)
        .where(votes.c.at > now - DAY_S, votes.c.set_apart.is_(None), undos.c.vote_id.is_(None))
    )
    own = today.where(votes.c.voter_id == voter.id)
    if connection.execute(own).scalar_one() >= rules.rated_a_day:
        return "cap"
    # A battle begins before its vote, and at most so long before.
    nearby = today.where(battles.c.address_key == battle.address_key, battles.c.at > now - DAY_S - rules.window_s)
    if connection.execute(nearby).scalar_one() >= rules.rated_a_day_per_address:
        return "cap"
    same = own.where(battles.c.prompt_key == battle.prompt_key)
    return "repeat" if connection.execute(same).scalar_one() else None


def _pair(connection: Connection, battle: Any) -> tuple[Any, Any]:
    both = {
        row.id: row
        for row in connection.execute(
            select(contestants).where(contestants.c.id.in_((battle.left_id, battle.right_id)))
        )
    }
    return both[battle.left_id], both[battle.right_id]
