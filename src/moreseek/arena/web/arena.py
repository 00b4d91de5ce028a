"""One running arena: its settings, database, boards and client, shared by all pages."""

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

from moreseek.arena.live.boards import LiveBoards
from moreseek.arena.live.endpoint import Clients
from moreseek.arena.live.settings import ArenaSettings
from moreseek.arena.store import registry
from moreseek.arena.store.database import Database, open_database
from moreseek.arena.store.registry import Entry
from moreseek.arena.store.votes import Rules


@dataclass
class Arena:
    """What every request needs."""

    settings: ArenaSettings
    database: Database
    boards: LiveBoards
    rules: Rules
    clients: Clients = field(default_factory=Clients)
    seats: asyncio.Semaphore = field(init=False)
    audited: tuple[float, dict[str, Any]] | None = None

    def __post_init__(self) -> None:
        self.seats = asyncio.Semaphore(self.settings.arena.battles_at_once)


def open_arena(settings: ArenaSettings) -> Arena:
    """Open the database, migrate it, and enter the contestants. Raises InputError where the registry refuses one."""
    house = settings.arena
    database = open_database(house.database, create=True, with_secret=True)
    entries = [
        Entry(one.name, one.kind, one.family or one.name, one.model, one.quota, dict(one.shaping), one.withdrawn)
        for one in settings.contestant
    ]
    try:
        with database.write() as connection:
            registry.enter(connection, entries, time.time())
    except BaseException:
        database.close()
        raise
    rules = Rules(house.vote_window_s, house.undo_s, house.rated_votes_a_day, house.rated_votes_a_day_per_address)
    return Arena(settings, database, LiveBoards(database, house.min_votes), rules)
