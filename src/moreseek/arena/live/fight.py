"""One battle from the question to both answers: drawn, asked, shown in step, and written down."""

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field, replace
from random import SystemRandom
from typing import Any

import anyio
from starlette.concurrency import run_in_threadpool

from moreseek.arena.live.contestants import Contestant
from moreseek.arena.live.endpoint import Clients, ContestantError, Reply, ask
from moreseek.arena.live.identity import leak
from moreseek.arena.live.kept import Kept
from moreseek.arena.live.markup import to_html
from moreseek.arena.live.overlap import given_before
from moreseek.arena.live.pacing import in_step
from moreseek.arena.live.roster import askable
from moreseek.arena.live.settings import ArenaSettings
from moreseek.arena.matchmaking import Candidate, Draw, draw
from moreseek.arena.store import battles, counts, registry
from moreseek.arena.store.database import Database

Event = dict[str, Any]
Messages = Sequence[dict[str, str]]
_RANDOM = SystemRandom()
_SORRY = "One of the two could not answer. This battle does not count; please ask again."


@dataclass(frozen=True)
class Fight:
    """A battle, or a further turn of one, that was written down and may begin."""

    id: str
    prompt: str
    sides: tuple[Contestant, Contestant]
    ids: tuple[int, int]
    across: bool
    turn: int = 1
    said: tuple[Messages, Messages] = field(default=((), ()))  # what each side was asked and answered before


def choose(
    database: Database, kept: Kept, settings: ArenaSettings, now: float
) -> tuple[Draw, tuple[Contestant, Contestant]] | None:
    """A pair among those who are there: entered, not withdrawn, not resting or paused, below their quota."""
    with database.read() as connection:
        known, tables = kept.counted(connection, ("overall", counts.ALL), (counts.APART, counts.ALL))
        here = askable(connection, known, settings, now)
    table = tables[0] + tables[1]
    had = table.sum(axis=(1, 2)) + table.sum(axis=(0, 2))  # (M,) votes on each
    candidates = [
        Candidate(row.id, row.name, row.kind, place)
        for place, row in enumerate(known)
        if row.id in here and (row.quota is None or had[place] < row.quota)
    ]
    house = settings.arena
    drawn = draw(candidates, table, house.floor, house.across_classes, _RANDOM)  # pyright: ignore[reportArgumentType]
    return None if drawn is None else (drawn, (here[drawn.left.id], here[drawn.right.id]))


async def fight(
    database: Database, clients: Clients, settings: ArenaSettings, battle: Fight
) -> AsyncGenerator[Event, None]:
    """The events that a browser gets. Nothing in them depends on who answers, only on what is answered.

    Closing the iterator before its end gives the battle up.
    """
    house = settings.arena
    tasks: list[asyncio.Task[None]] = []
    settled = False
    try:
        known = None
        if battle.turn == 1:
            known = await run_in_threadpool(given_before, database, battle.id, house.overlap)
        replies = known or (Reply(battle.sides[0].opens_thinking), Reply(battle.sides[1].opens_thinking))
        tasks += [
            asyncio.create_task(ask(clients, side, [*said, {"role": "user", "content": battle.prompt}], house, reply))
            for side, said, reply in zip(battle.sides, battle.said, replies, strict=True)
            if not reply.ended
        ]
        yield {"battle": battle.id}
        failed = None
        async for parts in in_step(replies, house.characters_per_s, battle.across):
            if failed := failure(tasks):
                break
            yield {"a": parts[0], "b": parts[1]} if parts else {}
        else:
            await asyncio.gather(*tasks, return_exceptions=True)
            failed = failure(tasks)
        settled = True
        if failed:
            await run_in_threadpool(_failed, database, house.pause_s, battle, *failed)
            yield {"error": _SORRY}
        else:
            await run_in_threadpool(_write_down, database, battle, replies, known is not None)
            yield {"end": [to_html(reply.text) for reply in replies]}
    finally:
        for task in tasks:
            task.cancel()
        with anyio.CancelScope(shield=True):  # the browser is gone, and still this is to be written down
            await asyncio.gather(*tasks, return_exceptions=True)
            if not settled:
                await run_in_threadpool(_abandon, database, battle)


def failure(tasks: list[asyncio.Task[None]]) -> tuple[int, str] | None:
    """Which side failed and why, for the house's log; None while nobody did."""
    for side, task in enumerate(tasks):
        if task.done() and not task.cancelled() and (error := task.exception()) is not None:
            return side, str(error) if isinstance(error, ContestantError) else f"a defect: {type(error).__name__}"
    return None


def _failed(database: Database, pause_s: float, battle: Fight, side: int, reason: str) -> None:
    now, loser = time.time(), battle.ids[side]
    with database.write() as connection:
        battles.give_up(connection, battle.id, battles.FAILED, now, loser, reason, battle.turn)
        registry.pause(connection, loser, reason, now, pause_s)


def _abandon(database: Database, battle: Fight) -> None:
    with database.add() as connection:
        battles.give_up(connection, battle.id, battles.ABANDONED, time.time(), turn=battle.turn)


def _write_down(database: Database, battle: Fight, replies: tuple[Reply, Reply], replayed: bool) -> None:
    with database.read() as connection:
        names = names_of(registry.registered(connection))
    left, right = (
        replace(as_written(side, reply, names, _asked(battle, said)), replayed=replayed)
        for side, said, reply in zip(battle.sides, battle.said, replies, strict=True)
    )  # fmt: skip
    with database.add() as connection:
        battles.finish(connection, battle.id, (left, right), time.time(), battle.turn)


def _asked(battle: Fight, said: Messages) -> str:
    return "\n".join([*(one["content"] for one in said if one["role"] == "user"), battle.prompt])


def names_of(known: Sequence[registry.Registered]) -> list[str]:
    """The names by which an answer could give a contestant away."""
    return [name for one in known for name in (one.name, one.model, one.family) if name]


def as_written(side: Contestant, reply: Reply, names: list[str], asked: str) -> battles.Answer:
    """A whole reply as it is stored; ``asked``: all questions so far."""
    return battles.Answer(
        reply.text, reply.whole_thinking, reply.tokens, reply.prompt_tokens, reply.first_s or 0.0, reply.total_s,
        side.cost(reply.prompt_tokens, reply.tokens), reply.cut_short, leak(reply.text, names, asked),
    )  # fmt: skip
