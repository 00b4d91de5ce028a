"""Voters: known by the keyed hash of a cookie, shown by a pseudonym, limited in speed, forgotten on request."""

import secrets
from dataclasses import dataclass

from sqlalchemy import Connection, delete, func, insert, select, update

from moreseek.arena.store import ledger
from moreseek.arena.store.counts import ALL, APART, add_to_counts, board_keys
from moreseek.arena.store.growing import unless_there
from moreseek.arena.store.tables import (
    actions,
    answers,
    barred,
    battles,
    chats,
    contestants,
    turns,
    undos,
    voters,
    votes,
)
from moreseek.errors import InputError

FORGOTTEN = "forgotten"
"""What took a voter's votes off the boards who wished so; nobody brings them back."""


@dataclass(frozen=True)
class Voter:
    """Who a session is."""

    id: int
    pseudonym: str
    excluded: bool


def find(connection: Connection, session_key: str) -> Voter | None:
    """The voter of a session, if it ever began a battle."""
    row = connection.execute(select(voters).where(voters.c.session_key == session_key)).first()
    return Voter(row.id, row.pseudonym, row.excluded_at is not None) if row else None


def find_or_add(connection: Connection, session_key: str, now: float) -> Voter:
    """The voter of a session; a row is made at the first battle, not at the first look."""
    found = find(connection, session_key)
    if found is not None:
        return found
    row = {"pseudonym": f"v-{secrets.token_hex(6)}", "session_key": session_key, "created_at": now}
    unless_there(connection, voters, ("session_key",), row)  # two windows may ask their first question at once
    found = find(connection, session_key)
    assert found is not None
    return found


def asked_since(connection: Connection, since: float, voter_id: int | None, address_key: str) -> tuple[int, int]:
    """How many questions this voter, and this address, asked lately: battles, their further turns, chats."""
    own, shared = [], []
    later = select(func.count()).select_from(turns.join(battles, battles.c.id == turns.c.battle_id))
    for table, counted, at in ((battles, select(func.count()).select_from(battles), battles.c.at),
                               (battles, later, turns.c.at),
                               (chats, select(func.count()).select_from(chats), chats.c.at)):  # fmt: skip
        recent = counted.where(at > since)
        own.append(recent.where(table.c.voter_id == voter_id).scalar_subquery())  # nobody's are those of NULL: none
        shared.append(recent.where(table.c.address_key == address_key).scalar_subquery())
    found = connection.execute(select(*own, *shared)).one()
    return sum(found[: len(own)]), sum(found[len(own) :])


def note_chat(connection: Connection, voter_id: int, address_key: str, now: float) -> None:
    """A named or direct chat: that it was, and nothing of what was said."""
    connection.execute(insert(chats), {"voter_id": voter_id, "address_key": address_key, "at": now})


def is_barred(connection: Connection, address_key: str) -> bool:
    """Whether the house lets nobody ask from this address."""
    return connection.execute(select(barred.c.action_id).where(barred.c.address_key == address_key)).first() is not None


def exclude(connection: Connection, voter_id: int, test: str, p: float | None, now: float) -> int:
    """Take a voter's votes out of every count; they stay in the database. Returns how many were rated."""
    row = connection.execute(select(voters).where(voters.c.id == voter_id)).one()
    if row.excluded_at is not None:
        return 0
    moved = _move(connection, voter_id, 1)
    connection.execute(update(voters).where(voters.c.id == voter_id).values(excluded_at=now, excluded_by=test))
    said = {"kind": "voter_excluded", "at": now, "voter": row.pseudonym, "test": test, "p": p}
    ledger.append(connection, said)
    return moved


def restore(connection: Connection, voter_id: int, now: float) -> int:
    """Bring an excluded voter's votes back; those cast while it was excluded stay apart. Returns how many."""
    row = connection.execute(select(voters).where(voters.c.id == voter_id)).one()
    if row.excluded_at is None:
        return 0
    moved = _move(connection, voter_id, -1)
    connection.execute(update(voters).where(voters.c.id == voter_id).values(excluded_at=None, excluded_by=None))
    ledger.append(connection, {"kind": "voter_restored", "at": now, "voter": row.pseudonym})
    return moved


def _move(connection: Connection, voter_id: int, by: int) -> int:
    """Move a voter's votes from the boards to those kept apart (``by`` 1), or back (−1)."""
    left, right = contestants.alias(), contestants.alias()
    rated = connection.execute(
        select(votes.c.outcome, battles.c.left_id, battles.c.right_id, battles.c.category, battles.c.language,
               left.c.kind.label("left_kind"), right.c.kind.label("right_kind"))
        .join(battles, battles.c.id == votes.c.battle_id)
        .join(left, left.c.id == battles.c.left_id).join(right, right.c.id == battles.c.right_id)
        .outerjoin(undos, undos.c.vote_id == votes.c.id)
        .where(votes.c.voter_id == voter_id, votes.c.set_apart.is_(None), undos.c.vote_id.is_(None))
    ).all()  # fmt: skip
    for vote in rated:
        keys = board_keys(vote.left_kind, vote.right_kind, vote.category, vote.language)
        add_to_counts(connection, keys, vote.left_id, vote.right_id, vote.outcome, -by)
        add_to_counts(connection, [(APART, ALL)], vote.left_id, vote.right_id, vote.outcome, by)
    return len(rated)


def forget_voter(connection: Connection, pseudonym: str, now: float, votes_too: bool = False) -> int:
    """Erase a voter's texts, cookie and addresses; votes and counts stay, unless ``votes_too`` takes them off every
    board for good. Returns the number of battles.
    """
    row = connection.execute(select(voters).where(voters.c.pseudonym == pseudonym)).first()
    if row is None:
        raise InputError(f"no voter '{pseudonym}'. The audit page and `moreseek arena export` show pseudonyms, v-….")
    if votes_too:
        exclude(connection, row.id, FORGOTTEN, None, now)
        connection.execute(update(voters).where(voters.c.id == row.id).values(excluded_by=FORGOTTEN))
    own = list(connection.execute(select(battles.c.id).where(battles.c.voter_id == row.id)).scalars())
    _erase(connection, own)
    connection.execute(update(voters).where(voters.c.id == row.id).values(session_key=None, forgotten_at=now))
    connection.execute(update(chats).where(chats.c.voter_id == row.id).values(address_key=None))
    of_voter = select(actions.c.id).where(actions.c.voter_id == row.id)
    connection.execute(delete(barred).where(barred.c.action_id.in_(of_voter)))
    ledger.append(connection, {"kind": "forgotten", "at": now, "voter": pseudonym})
    return len(own)


def forget_battle(connection: Connection, battle_id: str, now: float) -> None:
    """Erase the texts of one battle; its vote stays."""
    if connection.execute(select(battles.c.id).where(battles.c.id == battle_id)).first() is None:
        raise InputError(f"no battle '{battle_id}'.")
    _erase(connection, [battle_id])
    ledger.append(connection, {"kind": "forgotten", "at": now, "battle": battle_id})


def _erase(connection: Connection, ids: list[str]) -> None:
    for start in range(0, len(ids), 500):
        some = ids[start : start + 500]
        chosen = battles.c.id.in_(some)
        connection.execute(update(battles).where(chosen).values(prompt=None, address_key=None))
        connection.execute(update(turns).where(turns.c.battle_id.in_(some)).values(prompt=None))
        mine = answers.c.battle_id.in_(some)
        connection.execute(update(answers).where(mine).values(text=None, thinking=None, leak=None))
        connection.execute(update(votes).where(votes.c.battle_id.in_(some)).values(reason=None))
