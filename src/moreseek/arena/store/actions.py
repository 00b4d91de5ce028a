"""What the house does on the admin page: each action has its row here, its line in the ledger, and a way back."""

import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, insert, select

from moreseek.arena.store import ledger, registry, voters
from moreseek.arena.store.tables import actions, added, barred, battles, contestants
from moreseek.arena.store.tables import voters as voter_rows
from moreseek.errors import InputError

FINAL = ("enter", "retire", "undo")
"""Actions that are not taken back: the registry only grows, and who is withdrawn stays so."""


@dataclass(frozen=True)
class Action:
    """One line of the house's log."""

    id: int
    at: float
    kind: str  # enter, pause, quota, retire, flag, ban, restore, undo
    contestant: str | None
    voter: str | None
    value: str | None
    reason: str
    undoes: int | None
    undone: bool


def log(connection: Connection, most: int = 200) -> list[Action]:
    """The last actions, newest first."""
    taken_back = actions.alias()
    chosen = (
        select(actions, contestants.c.name, voter_rows.c.pseudonym, taken_back.c.id.label("undone"))
        .outerjoin(contestants, contestants.c.id == actions.c.contestant_id)
        .outerjoin(voter_rows, voter_rows.c.id == actions.c.voter_id)
        .outerjoin(taken_back, taken_back.c.undoes == actions.c.id)
        .order_by(actions.c.id.desc()).limit(most)
    )  # fmt: skip
    return [
        Action(row.id, row.at, row.kind, row.name, row.pseudonym, row.value, row.reason, row.undoes,
               row.undone is not None)
        for row in connection.execute(chosen)
    ]  # fmt: skip


def standing(connection: Connection, kind: str) -> set[int]:
    """The contestants, or voters, on whom an action of this kind stands that was not taken back."""
    chosen = registry.not_taken_back(actions.c.contestant_id, actions.c.voter_id).where(actions.c.kind == kind)
    return {row.contestant_id or row.voter_id for row in connection.execute(chosen)}


def enter(connection: Connection, entry: registry.Entry, config: dict[str, Any], reason: str, now: float) -> None:
    """A new contestant; ``config`` is its table as arena.toml would have it. Raises InputError."""
    if any(row.name.casefold() == entry.name.casefold() for row in registry.registered(connection)):
        raise InputError(f"'{entry.name}' is in the registry already; a name is never used again.")
    registry.enter(connection, [entry], now)
    row = _contestant(connection, entry.name)
    connection.execute(insert(added), {"contestant_id": row.id, "config": json.dumps(config, sort_keys=True)})
    _note(connection, "enter", reason, now, contestant=row)


def pause(connection: Connection, name: str, reason: str, now: float) -> None:
    """No battles for a contestant until this is taken back."""
    row = _contestant(connection, name)
    _not_yet(connection, "pause", row, f"'{name}' is paused already.")
    _note(connection, "pause", reason, now, contestant=row)


def set_quota(connection: Connection, name: str, quota: int | None, reason: str, now: float) -> None:
    """Another number of votes at most; from now on arena.toml's quota of this contestant is not looked at."""
    row = _contestant(connection, name)
    if quota == row.quota:
        raise InputError(f"'{name}' has that quota already.")
    registry.change(connection, row, quota, row.settings, now)
    _note(connection, "quota", reason, now, contestant=row, value=_said(quota), before=_said(row.quota))


def retire(connection: Connection, name: str, reason: str, now: float) -> None:
    """Withdraw a contestant for good: the row, its votes and the reason stay."""
    row = _contestant(connection, name)
    registry.withdraw(connection, row, reason, now)
    _note(connection, "retire", reason, now, contestant=row)


def flag(connection: Connection, pseudonym: str, reason: str, now: float) -> None:
    """Say in public that a voter is looked at; its votes go on counting."""
    row = _voter(connection, pseudonym)
    _not_yet(connection, "flag", row, f"{pseudonym} is flagged already.")
    _note(connection, "flag", reason, now, voter=row)


def ban(connection: Connection, pseudonym: str, reason: str, bar: bool, now: float) -> None:
    """Take a voter out of every board; with ``bar``, nobody asks from its addresses any more."""
    row = _voter(connection, pseudonym)
    _not_yet(connection, "ban", row, f"{pseudonym} is banned already.")
    voters.exclude(connection, row.id, "banned", None, now)
    action = _note(connection, "ban", reason, now, voter=row, value="addresses" if bar else None,
                   before=row.excluded_by)  # fmt: skip
    if bar:
        used = select(battles.c.address_key).where(battles.c.voter_id == row.id, battles.c.address_key.is_not(None))
        rows = [{"address_key": key, "action_id": action} for key in connection.execute(used.distinct()).scalars()]
        if rows:
            connection.execute(insert(barred), rows)


def restore(connection: Connection, pseudonym: str, reason: str, now: float) -> None:
    """Vouch for a voter that a test took out: its votes come back, and tests leave it alone."""
    row = _voter(connection, pseudonym)
    if row.excluded_at is None or row.id in standing(connection, "ban"):
        raise InputError(f"{pseudonym} was not taken out by a test. A ban is taken back in the log.")
    if row.excluded_by == voters.FORGOTTEN:
        raise InputError(f"{pseudonym} wished its votes forgotten: they stay off the boards.")
    voters.restore(connection, row.id, now)
    _note(connection, "restore", reason, now, voter=row, before=row.excluded_by)


def undo(connection: Connection, action_id: int, reason: str, now: float) -> None:
    """Take an action back. Raises InputError for one that cannot be."""
    row = connection.execute(select(actions).where(actions.c.id == action_id)).first()
    if row is None:
        raise InputError(f"there is no action {action_id}.")
    if row.kind in FINAL:
        raise InputError("this action is final.")
    if connection.execute(select(actions.c.id).where(actions.c.undoes == action_id)).first() is not None:
        raise InputError("this action was taken back already.")
    if row.kind == "quota":
        last = select(actions.c.id).where(actions.c.contestant_id == row.contestant_id, actions.c.kind == "quota")
        if connection.execute(last.order_by(actions.c.id.desc()).limit(1)).scalar_one() != action_id:
            raise InputError("the quota was changed again since; take that back, or set another.")
        one = next(found for found in registry.registered(connection) if found.id == row.contestant_id)
        registry.change(connection, one, None if row.before is None else int(row.before), one.settings, now)
    elif row.kind == "ban":
        connection.execute(delete(barred).where(barred.c.action_id == action_id))
        if row.before is None:
            voters.restore(connection, row.voter_id, now)
    elif row.kind == "restore":
        voters.exclude(connection, row.voter_id, row.before, None, now)
    said = {"contestant_id": row.contestant_id, "voter_id": row.voter_id}
    _insert(connection, "undo", reason, now, {**said, "undoes": action_id, "value": row.kind})


def _not_yet(connection: Connection, kind: str, row: Any, message: str) -> None:
    if row.id in standing(connection, kind):
        raise InputError(message)


def _contestant(connection: Connection, name: str) -> registry.Registered:
    row = registry.named(connection, name)
    if row is None:
        raise InputError(f"there is no contestant '{name}'.")
    if row.withdrawn_at is not None:
        raise InputError(f"'{name}' was withdrawn.")
    return row


def _voter(connection: Connection, pseudonym: str) -> Any:
    row = connection.execute(select(voter_rows).where(voter_rows.c.pseudonym == pseudonym)).first()
    if row is None:
        raise InputError(f"there is no voter '{pseudonym}'.")
    return row


def _said(quota: int | None) -> str | None:
    return None if quota is None else str(quota)


def _note(
    connection: Connection, kind: str, reason: str, now: float, *, contestant: Any = None, voter: Any = None,
    value: str | None = None, before: str | None = None,
) -> int:  # fmt: skip
    on = {"contestant_id": contestant.id if contestant else None, "voter_id": voter.id if voter else None}
    return _insert(connection, kind, reason, now, {**on, "value": value, "before": before})


def _insert(connection: Connection, kind: str, reason: str, now: float, row: dict[str, Any]) -> int:
    if not reason.strip():
        raise InputError("say why; the audit page shows it.")
    whole = {"value": None, "before": None, "undoes": None, **row, "kind": kind, "at": now, "reason": reason.strip()}
    number = connection.execute(insert(actions).returning(actions.c.id), whole).scalar_one()
    (found,) = log(connection, 1)
    ledger.append(connection, {
        "kind": "action", "at": now, "id": number, "action": kind, "name": found.contestant, "voter": found.voter,
        "value": found.value, "reason": found.reason, "undoes": found.undoes,
    })  # fmt: skip
    return number


def read_line(connection: Connection, entry: dict[str, Any]) -> None:
    """The row of an action from its line in a ledger: for imports."""
    of = lambda table, column, value: select(table.c.id).where(column == value).scalar_subquery()  # noqa: E731
    connection.execute(insert(actions).values(
        id=entry["id"], at=entry["at"], kind=entry["action"], value=entry["value"], reason=entry["reason"],
        undoes=entry["undoes"],
        contestant_id=of(contestants, contestants.c.name, entry["name"]) if entry["name"] else None,
        voter_id=of(voter_rows, voter_rows.c.pseudonym, entry["voter"]) if entry["voter"] else None,
    ))  # fmt: skip
