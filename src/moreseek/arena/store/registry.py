"""The registry of contestants: it only grows. Who is withdrawn keeps row, date and reason."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, insert, select, update

from moreseek.arena.store import ledger
from moreseek.arena.store.tables import actions, contestants, pauses
from moreseek.errors import InputError

MOST_PAUSED_S = 3600.0
_FORGIVEN_S = 6 * 3600.0  # failures longer ago do not lengthen a pause


@dataclass(frozen=True)
class Described:
    """A contestant, without its address and key."""

    name: str
    kind: str
    family: str
    model: str
    quota: int | None
    settings: dict[str, Any]


@dataclass(frozen=True)
class Entry(Described):
    """A contestant as it enters."""

    withdrawn: str = ""


@dataclass(frozen=True)
class Registered(Described):
    """A row of the registry."""

    id: int
    entered_at: float
    withdrawn_at: float | None
    withdrawn_reason: str | None


def registered(connection: Connection) -> list[Registered]:
    """Every contestant ever entered, in order of entry: their places on all boards."""
    return _read(connection, select(contestants).order_by(contestants.c.id))


def named(connection: Connection, name: str) -> Registered | None:
    """The contestant of this name."""
    return next(iter(_read(connection, select(contestants).where(contestants.c.name == name))), None)


def _read(connection: Connection, chosen: Any) -> list[Registered]:
    rows = connection.execute(chosen)
    names = tuple(rows.keys())  # a mapping a row would cost more than all the rest, and boards ask after every vote
    known = (dict(zip(names, row, strict=True)) for row in rows)
    return [Registered(**row | {"settings": json.loads(row["settings"])}) for row in known]


def enter(connection: Connection, entries: Sequence[Entry], now: float) -> None:
    """Bring the registry up to what arena.toml says.

    Raises InputError where a name stands for another model than before, or a withdrawn one would come back: boards
    would mix the votes on two models under one name.
    """
    known = {row.name: row for row in registered(connection)}
    decided = _by_house(connection)
    for entry in entries:
        row = known.get(entry.name)
        if row is None:
            _insert(connection, entry, now)
            row = named(connection, entry.name)
            assert row is not None
            known[entry.name] = row
        by_house = decided.get(row.id, set())
        _refuse_another(row, entry, by_house)
        quota = row.quota if "quota" in by_house else entry.quota
        if row.quota != quota or row.settings != entry.settings:
            change(connection, row, quota, entry.settings, now)
        if entry.withdrawn and row.withdrawn_at is None:
            withdraw(connection, row, entry.withdrawn, now)


def not_taken_back(*columns: Any) -> Any:
    """A select of what the admin page did and did not take back."""
    undo = actions.alias()
    return select(*columns).outerjoin(undo, undo.c.undoes == actions.c.id).where(undo.c.id.is_(None))


def _by_house(connection: Connection) -> dict[int, set[str]]:
    """What the admin page decided of each contestant: quota, retire, …"""
    chosen = not_taken_back(actions.c.contestant_id, actions.c.kind).where(actions.c.contestant_id.is_not(None))
    found: dict[int, set[str]] = {}
    for row in connection.execute(chosen):
        found.setdefault(row.contestant_id, set()).add(row.kind)
    return found


def withdraw(connection: Connection, row: Registered, reason: str, now: float) -> None:
    """No battles any more, under this name; row and reason stay."""
    values = {"withdrawn_at": now, "withdrawn_reason": reason}
    connection.execute(update(contestants).where(contestants.c.id == row.id).values(values))
    ledger.append(connection, {"kind": "withdrawn", "at": now, "name": row.name, "reason": reason})


def _refuse_another(row: Registered, entry: Entry, by_house: set[str]) -> None:
    for key in ("kind", "model", "family"):
        before, after = getattr(row, key), getattr(entry, key)
        if key == "model" and entry.withdrawn and not after:
            continue  # its files may be gone
        if before != after:
            word = "class" if key == "kind" else key
            raise InputError(
                f"contestant '{entry.name}' entered with {word} '{before}' and now has '{after}': its votes were on "
                "another one. Enter the new one under a new name, and withdraw the old."
            )
    if row.withdrawn_at is not None and not entry.withdrawn and "retire" not in by_house:
        raise InputError(
            f"contestant '{entry.name}' was withdrawn ({row.withdrawn_reason}). Keep its line `withdrawn`, or enter it "
            "anew under another name."
        )


def _insert(connection: Connection, entry: Entry, now: float) -> None:
    row = {
        "name": entry.name, "kind": entry.kind, "family": entry.family, "model": entry.model, "quota": entry.quota,
        "settings": json.dumps(entry.settings, sort_keys=True), "entered_at": now,
    }  # fmt: skip
    connection.execute(insert(contestants), row)
    ledger.append(connection, {
        "kind": "entered", "at": now, "name": entry.name, "class": entry.kind, "family": entry.family,
        "model": entry.model, "quota": entry.quota, "settings": entry.settings,
    })  # fmt: skip


def change(connection: Connection, row: Registered, quota: int | None, settings: dict[str, Any], now: float) -> None:
    """Another quota, or other settings; the ledger says what they were before."""
    values = {"quota": quota, "settings": json.dumps(settings, sort_keys=True)}
    connection.execute(update(contestants).where(contestants.c.id == row.id).values(values))
    ledger.append(connection, {
        "kind": "changed", "at": now, "name": row.name,
        "before": {"quota": row.quota, "settings": row.settings}, "after": {"quota": quota, "settings": settings},
    })  # fmt: skip


def pause(connection: Connection, contestant_id: int, reason: str, now: float, first_s: float) -> float:
    """No battles for a contestant that failed; each failure of late doubles the pause. Returns its end."""
    lately = (pauses.c.contestant_id == contestant_id) & (pauses.c.at > now - _FORGIVEN_S)
    failures = connection.execute(select(func.count()).select_from(pauses).where(lately)).scalar_one()
    until = now + min(MOST_PAUSED_S, first_s * 2 ** min(failures, 12))
    row = {"contestant_id": contestant_id, "at": now, "until": until, "reason": reason[:200]}
    connection.execute(insert(pauses), row)
    return until


def paused(connection: Connection, now: float) -> set[int]:
    """Who rests at the moment."""
    return set(connection.execute(select(pauses.c.contestant_id).where(pauses.c.until > now)).scalars())
