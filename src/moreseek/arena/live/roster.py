"""Who can be asked: the contestants of arena.toml, and those that entered on the admin page."""

import json
import os
from collections.abc import Sequence
from urllib.parse import urlsplit

from sqlalchemy import Connection, select

from moreseek.arena.live.contestants import Contestant, is_internal
from moreseek.arena.live.settings import ArenaSettings, House
from moreseek.arena.store import actions, registry
from moreseek.arena.store.registry import Entry, Registered
from moreseek.arena.store.tables import added
from moreseek.config import parse
from moreseek.errors import InputError

KEY_PREFIX = "ARENA_KEY_"
"""How variables begin that hold keys of contestants entered on the admin page, so that it can send no other secret."""


def roster(connection: Connection, settings: ArenaSettings) -> dict[str, Contestant]:
    """Contestants by name; whether they may be drawn is for the registry to say."""
    stored = [
        Contestant.model_validate(json.loads(config)) for config in connection.execute(select(added.c.config)).scalars()
    ]
    return {one.name: one for one in (*stored, *settings.contestant)}


def askable(
    connection: Connection, known: Sequence[Registered], settings: ArenaSettings, now: float | None = None
) -> dict[int, Contestant]:
    """Who may be asked, by number in the registry: neither withdrawn nor paused by the house; with ``now``, nor resting
    after a failure.
    """
    here, away = roster(connection, settings), actions.standing(connection, "pause")
    if now is not None:
        away |= registry.paused(connection, now)
    return {
        row.id: here[row.name] for row in known if row.name in here and row.withdrawn_at is None and row.id not in away
    }


def entry_of(one: Contestant) -> Entry:
    """What the registry keeps of a contestant."""
    return Entry(one.name, one.kind, one.family or one.name, one.model, one.quota, dict(one.shaping), one.withdrawn)


def new_contestant(given: dict[str, object], house: House) -> Contestant:
    """A contestant from the admin page's form. Raises InputError that lists every mistake.

    An address inside is refused unless arena.toml's ``internal_endpoints`` has it, and a key must come from a variable
    of the prefix: who has the admin page's key need not be who owns the machine.
    """
    address = urlsplit(str(given.get("url", "")))
    inside = is_internal(address.hostname or "")
    if inside and address.netloc not in house.internal_endpoints:
        raise InputError(
            f"{address.netloc or 'this URL'} is inside this machine or network. arena.toml's internal_endpoints lists "
            "those that may be entered here."
        )
    found = parse(Contestant, {**given, "internal": inside}, "the new contestant")
    variable = found.api_key_env
    if variable and not (variable.startswith(KEY_PREFIX) and os.environ.get(variable)):
        raise InputError(f"{variable}: a key comes from a variable that is set and begins with {KEY_PREFIX}.")
    return found
