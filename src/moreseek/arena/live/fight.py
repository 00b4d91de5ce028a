"""One battle from the question to both answers: drawn, asked, shown in step, and written down."""

import asyncio
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from random import SystemRandom
from typing import Any

import anyio
from starlette.concurrency import run_in_threadpool

from moreseek.arena.live.contestants import Contestant
from moreseek.arena.live.endpoint import Clients, ContestantError, Reply, ask
from moreseek.arena.live.identity import leak
from moreseek.arena.live.markup import to_html
from moreseek.arena.live.overlap import given_before
from moreseek.arena.live.pacing import in_step
from moreseek.arena.live.settings import ArenaSettings
from moreseek.arena.matchmaking import Candidate, Draw, draw
from moreseek.arena.store import battles, counts, registry
from moreseek.arena.store.database import Database

Event = dict[str, Any]
_RANDOM = SystemRandom()
_SORRY = "One of the two could not answer. This battle does not count; please ask again."


@dataclass(frozen=True)
class Fight:
    """A battle that was written down and may begin."""

    id: str
    prompt: str
    draw: Draw


def choose(database: Database, settings: ArenaSettings, now: float) -> Draw | None:
    """A pair among those who are there: entered, not withdrawn, not resting, below their quota."""
    with database.read() as connection:
        known = registry.registered(connection)
        resting = registry.paused(connection, now)
        ids = [row.id for row in known]
        table = counts.table(connection, ids) + counts.table(connection, ids, counts.APART)
    here = {one.name for one in settings.contestant}
    had = table.sum(axis=(1, 2)) + table.sum(axis=(0, 2))  # (M,) votes on each
    candidates = [
        Candidate(row.id, row.name, row.kind, place)
        for place, row in enumerate(known)
        if row.name in here and row.withdrawn_at is None and row.id not in resting
        and (row.quota is None or had[place] < row.quota)
    ]  # fmt: skip
    house = settings.arena
    return draw(candidates, table, house.floor, house.across_classes, _RANDOM)  # pyright: ignore[reportArgumentType]


async def fight(
    database: Database, clients: Clients, settings: ArenaSettings, battle: Fight
) -> AsyncGenerator[Event, None]:
    """The events that a browser gets. Nothing in them depends on who answers, only on what is answered.

    Closing the iterator before its end gives the battle up.
    """
    contestants = {one.name: one for one in settings.contestant}
    sides = contestants[battle.draw.left.name], contestants[battle.draw.right.name]
    tasks: list[asyncio.Task[None]] = []
    settled = False
    try:
        known = await run_in_threadpool(given_before, database, battle.id, settings.arena.overlap)
        replies = known or (Reply(sides[0].opens_thinking), Reply(sides[1].opens_thinking))
        messages = [{"role": "user", "content": battle.prompt}]
        tasks += [
            asyncio.create_task(ask(clients, side, messages, settings.arena, reply))
            for side, reply in zip(sides, replies, strict=True)
            if not reply.ended
        ]
        yield {"battle": battle.id}
        failed = None
        async for parts in in_step(replies, settings.arena.characters_per_s, battle.draw.across):
            if failed := _failure(tasks):
                break
            yield {"a": parts[0], "b": parts[1]} if parts else {}
        else:
            await asyncio.gather(*tasks, return_exceptions=True)
            failed = _failure(tasks)
        settled = True
        if failed:
            await run_in_threadpool(_failed, database, settings, battle, *failed)
            yield {"error": _SORRY}
        else:
            await run_in_threadpool(_write_down, database, settings, battle, sides, replies)
            yield {"end": [to_html(reply.text) for reply in replies]}
    finally:
        for task in tasks:
            task.cancel()
        with anyio.CancelScope(shield=True):  # the browser is gone, and still this is to be written down
            await asyncio.gather(*tasks, return_exceptions=True)
            if not settled:
                await run_in_threadpool(_abandon, database, battle)


def _failure(tasks: list[asyncio.Task[None]]) -> tuple[int, str] | None:
    for side, task in enumerate(tasks):
        if task.done() and not task.cancelled() and (error := task.exception()) is not None:
            return side, str(error) if isinstance(error, ContestantError) else f"a defect: {type(error).__name__}"
    return None


def _failed(database: Database, settings: ArenaSettings, battle: Fight, side: int, reason: str) -> None:
    now = time.time()
    loser = (battle.draw.left, battle.draw.right)[side]
    with database.write() as connection:
        battles.give_up(connection, battle.id, battles.FAILED, now, loser.id, reason)
        registry.pause(connection, loser.id, reason, now, settings.arena.pause_s)


def _abandon(database: Database, battle: Fight) -> None:
    with database.write() as connection:
        battles.give_up(connection, battle.id, battles.ABANDONED, time.time())


def _write_down(
    database: Database, settings: ArenaSettings, battle: Fight, sides: tuple[Contestant, Contestant],
    replies: tuple[Reply, Reply],
) -> None:  # fmt: skip
    names = names_of(settings)
    left, right = (
        as_written(side, reply, names, battle.prompt) for side, reply in zip(sides, replies, strict=True)
    )  # fmt: skip
    with database.write() as connection:
        battles.finish(connection, battle.id, (left, right), time.time())


def names_of(settings: ArenaSettings) -> list[str]:
    """The names by which an answer could give a contestant away."""
    return [name for one in settings.contestant for name in (one.name, one.model, one.family) if name]


def as_written(side: Contestant, reply: Reply, names: list[str], prompt: str) -> battles.Answer:
    """A whole reply as it is stored."""
    return battles.Answer(
        reply.text, reply.whole_thinking, reply.tokens, reply.prompt_tokens, reply.first_s or 0.0, reply.total_s,
        side.cost(reply.prompt_tokens, reply.tokens), reply.cut_short, leak(reply.text, names, prompt),
    )  # fmt: skip
