"""One running arena: its settings, database, boards and client, shared by all pages."""

import asyncio
import os
import time
from dataclasses import dataclass, field
from typing import Any

from moreseek.arena.live.boards import LiveBoards
from moreseek.arena.live.content_filter import ContentFilter
from moreseek.arena.live.endpoint import Clients
from moreseek.arena.live.judged_boards import JudgedBoards
from moreseek.arena.live.roster import entry_of
from moreseek.arena.live.settings import ArenaSettings
from moreseek.arena.store import registry
from moreseek.arena.store.database import Database, open_database
from moreseek.arena.store.votes import Rules
from moreseek.errors import InputError

ADMIN_KEY_VARIABLE = "MORESEEK_ARENA_ADMIN_KEY"


@dataclass
class Arena:
    """What every request needs."""

    settings: ArenaSettings
    database: Database
    boards: LiveBoards
    judged: JudgedBoards
    rules: Rules
    filter: ContentFilter
    admin_key: str | None = None
    clients: Clients = field(default_factory=Clients)
    seats: asyncio.Semaphore = field(init=False)
    audited: tuple[float, dict[str, Any]] | None = None
    wrong_keys: list[tuple[float, str]] = field(
        default_factory=list
    )  # when, and from where, the admin page's key was wrong

    async def aclose(self) -> None:
        """Close connections and database."""
        await self.clients.aclose()
        await self.filter.aclose()
        self.database.close()

    def __post_init__(self) -> None:
        self.seats = asyncio.Semaphore(self.settings.arena.battles_at_once)


def open_arena(settings: ArenaSettings) -> Arena:
    """Open the database, migrate it, and enter the contestants. Raises InputError where the registry refuses one."""
    house = settings.arena
    admin_key, questions = admin_key_given(), ContentFilter(house)
    database = open_database(house.database, create=True, with_secret=True)
    try:
        with database.write() as connection:
            registry.enter(connection, [entry_of(one) for one in settings.contestant], time.time())
    except BaseException:
        database.close()
        raise
    rules = Rules(house.vote_window_s, house.undo_s, house.rated_votes_a_day, house.rated_votes_a_day_per_address)
    boards = LiveBoards(database, house.min_votes)
    boards.close_days(time.time())
    return Arena(settings, database, boards, JudgedBoards(database, house.min_votes), rules, questions, admin_key)


def admin_key_given() -> str | None:
    """The admin page's key, from the environment; None: there is no such page. Raises InputError for a weak one."""
    found = os.environ.get(ADMIN_KEY_VARIABLE, "")
    if found and len(found) < 16:
        raise InputError(f"{ADMIN_KEY_VARIABLE}: at least 16 characters. `openssl rand -hex 32` makes some.")
    return found or None
