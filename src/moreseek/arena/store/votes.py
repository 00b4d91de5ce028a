"""A vote: by the voter whose battle it is, once, after both answers, in time; and taking it back for a minute."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import Connection, bindparam, func, insert, select, true

from moreseek.arena.replay import START
from moreseek.arena.store import battles as stored_battles
from moreseek.arena.store import ledger, tallies
from moreseek.arena.store.counts import add_to_counts, board_keys
from moreseek.arena.store.tables import answers, battles, undos, votes
from moreseek.arena.store.voters import Voter
from moreseek.arena.votes import OUTCOMES
from moreseek.errors import MoreseekError

DAY_S = 86_400.0


_TODAY = (
    select(func.count())
    .select_from(votes)
    .join(battles, battles.c.id == votes.c.battle_id)
    .outerjoin(undos, undos.c.vote_id == votes.c.id)
    .where(votes.c.at > bindparam("day_ago"), votes.c.set_apart.is_(None), undos.c.vote_id.is_(None))
)
_OWN = _TODAY.where(votes.c.voter_id == bindparam("voter"))
_HEAD = ledger.HEAD.subquery()
# The answers of a battle, and beside each the rated votes of a day: by its voter, from its address (a battle begins
# before its vote, and at most so long before), by its voter on its question; and the ledger's head. In one statement,
# since while a vote is cast no other is.
_BEFORE = (
    select(
        answers,
        _OWN.scalar_subquery().label("of_voter"),
        _TODAY.where(battles.c.address_key == bindparam("address"), battles.c.at > bindparam("earliest"))
        .scalar_subquery().label("of_address"),
        _OWN.where(battles.c.prompt_key == bindparam("question")).scalar_subquery().label("of_question"),
        _HEAD.c.seq, _HEAD.c.hash,
    )
    .outerjoin(_HEAD, true())
    .where(answers.c.battle_id == bindparam("battle"))
    .order_by(answers.c.turn, answers.c.side)
)  # fmt: skip


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
    """A vote as it stands, and what it was about."""

    outcome: str
    at: float
    set_apart: str | None
    undone: bool
    repeated: bool  # it was there already, and nothing changed
    battle: Any = field(repr=False, compare=False)  # as stored_battles.find gives it
    answers: Sequence[Any] = field(default=(), repr=False, compare=False)

    @property
    def voter(self) -> Voter:
        """Whose vote it is."""
        return Voter(self.battle.voter_id, self.battle.pseudonym, self.battle.excluded_at is not None)

    def said(self) -> dict[str, Any]:
        """What its voter is told of it."""
        return {key: getattr(self, key) for key in ("outcome", "at", "set_apart", "undone", "repeated")}


def cast(connection: Connection, session_key: str, battle_id: str, given: Given, rules: Rules, now: float) -> Cast:
    """Count a vote, in one transaction with its line in the ledger. The same vote again changes nothing.

    ``connection`` is that of Database.write(). Raises RefusedError.
    """
    battle = owned(connection, session_key, battle_id)
    before = _standing(battle)
    if before is not None:
        if before.outcome == given.outcome and not before.undone:
            return replace(before, answers=stored_battles.answers_of(connection, battle_id))
        raise RefusedError("already_voted", 409, "This battle has its vote.")
    if now > _ended(battle) + rules.window_s:
        raise RefusedError("too_late", 409, "The time to vote on this battle is over.")
    said = _before(connection, battle, rules, now)
    kept_apart = _set_apart(battle, said, rules)
    code, style = OUTCOMES.index(given.outcome), stored_battles.styles_of(said)
    row = {
        "battle_id": battle_id, "voter_id": battle.voter_id, "at": now, "outcome": code, "reason": given.reason or None,
        "tags": json.dumps(given.tags, ensure_ascii=False) if given.tags else None, "style": json.dumps(style),
        "set_apart": kept_apart,
    }  # fmt: skip
    connection.execute(insert(votes).inline(), row)
    pair = battle.left_id, battle.right_id
    add_to_counts(connection, _boards(battle, kept_apart is None), *pair, code, 1)
    # Not before the vote: who watches the means would know who answered.
    tallies.add(connection, [(pair[answer.side], answer) for answer in said if not answer.replayed])
    ledger.append(connection, {
        "kind": "vote", "at": now, "battle": battle_id, "voter": battle.pseudonym, "prompt": battle.prompt_key[:32],
        "left": battle.left_name, "right": battle.right_name, "outcome": given.outcome, "category": battle.category,
        "language": battle.language, "probability": battle.probability, "across": battle.across,
        "set_apart": kept_apart, "style": style,
    }, after=(said[0].seq or 0, said[0].hash or START))  # fmt: skip
    return Cast(given.outcome, now, kept_apart, undone=False, repeated=False, battle=battle, answers=said)


def undo(connection: Connection, session_key: str, battle_id: str, rules: Rules, now: float) -> Cast:
    """Take a vote back. The names are known by then, so the battle takes no other. Raises RefusedError."""
    battle = owned(connection, session_key, battle_id)
    before = _standing(battle)
    if before is None:
        raise RefusedError("no_vote", 409, "This battle has no vote.")
    if before.undone:
        return before
    if now > before.at + rules.undo_s:
        raise RefusedError("too_late", 409, "The time to take this vote back is over.")
    connection.execute(insert(undos), {"vote_id": battle.vote_id, "at": now})
    rated = before.set_apart is None and battle.excluded_at is None
    outcome = OUTCOMES.index(before.outcome)
    add_to_counts(connection, _boards(battle, rated), battle.left_id, battle.right_id, outcome, -1)
    ledger.append(connection, {"kind": "undo", "at": now, "battle": battle_id})
    return replace(before, undone=True, repeated=False)


def owned(connection: Connection, session_key: str, battle_id: str) -> Any:
    """The battle, if it is of this session's voter. Another's looks exactly like none. Raises RefusedError."""
    battle = stored_battles.find(connection, battle_id)
    if battle is None or battle.session_key != session_key:
        raise RefusedError("no_such_battle", 404, "There is no such battle of yours.")
    return battle


def open_for_more(connection: Connection, session_key: str, battle_id: str) -> Any:
    """The voter's battle, if another question can be asked in it. Raises RefusedError."""
    battle = owned(connection, session_key, battle_id)
    if _standing(battle) is not None:
        raise RefusedError("already_voted", 409, "This battle has its vote.")
    _ended(battle)
    return battle


def _ended(battle: Any) -> float:
    """When the answers of the last turn ended. Raises RefusedError where they did not, or never will."""
    if battle.how is None:
        raise RefusedError("not_ended", 409, "Both answers must have ended.")
    if battle.how != stored_battles.ANSWERED:
        raise RefusedError("void", 409, "This battle was given up and takes no vote.")
    return battle.ended_at


def _boards(battle: Any, rated: bool) -> list[tuple[str, str]]:
    return board_keys(battle.left_kind, battle.right_kind, battle.category, battle.language, rated)


def _standing(battle: Any) -> Cast | None:
    """The vote that a battle has."""
    if battle.vote_id is None:
        return None
    undone = battle.undone_at is not None
    return Cast(OUTCOMES[battle.outcome], battle.voted_at, battle.set_apart, undone, repeated=True, battle=battle)


def _before(connection: Connection, battle: Any, rules: Rules, now: float) -> list[Any]:
    """The answers that are voted on (both were written down together), each with what stands before the vote."""
    day_ago = now - DAY_S
    return list(connection.execute(_BEFORE, {
        "battle": battle.id, "voter": battle.voter_id, "address": battle.address_key, "question": battle.prompt_key,
        "day_ago": day_ago, "earliest": day_ago - rules.window_s,
    }))  # fmt: skip


def _set_apart(battle: Any, said: Sequence[Any], rules: Rules) -> str | None:
    """Why a vote is kept but not rated; None for one that is."""
    if battle.excluded_at is not None:
        return "voter"
    if any(answer.leak is not None for answer in said):
        return "identity"
    if said[0].of_voter >= rules.rated_a_day or said[0].of_address >= rules.rated_a_day_per_address:
        return "cap"
    return "repeat" if said[0].of_question else None
