"""Talking to contestants by name, one or two side by side. There is no vote, and what was said is not kept."""

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from starlette.concurrency import run_in_threadpool

from moreseek.arena.live.contestants import Contestant
from moreseek.arena.live.endpoint import Clients, Reply, ask
from moreseek.arena.live.fight import Event, Messages, failure
from moreseek.arena.live.markup import to_html
from moreseek.arena.live.pacing import TICK_S
from moreseek.arena.live.settings import ArenaSettings
from moreseek.arena.store import registry
from moreseek.arena.store.database import Database


async def chat(
    database: Database, clients: Clients, settings: ArenaSettings, sides: Sequence[Contestant],
    said: Sequence[Messages],
) -> AsyncGenerator[Event, None]:  # fmt: skip
    """The events that a browser gets: what each side adds as it comes, and in the end both as HTML, with facts."""
    replies = [Reply(side.opens_thinking) for side in sides]
    tasks = [
        asyncio.create_task(ask(clients, side, list(messages), settings.arena, reply))
        for side, messages, reply in zip(sides, said, replies, strict=True)
    ]
    shown = [0] * len(sides)
    try:
        yield {"chat": [side.name for side in sides]}
        while True:
            ended = all(task.done() for task in tasks)
            if failed := failure(tasks):
                loser = sides[failed[0]].name
                await run_in_threadpool(_rest, database, loser, failed[1], settings.arena.pause_s)
                yield {"error": f"{loser} could not answer. Please try again later, or choose another."}
                return
            more = {key: reply.text[done:] for key, reply, done in zip("ab", replies, shown, strict=False)}
            shown = [len(reply.text) for reply in replies]
            yield {key: text for key, text in more.items() if text}
            if ended:
                break
            await asyncio.sleep(TICK_S)
        yield {"end": [to_html(reply.text) for reply in replies],
               "facts": [_facts(*one) for one in zip(sides, replies, strict=True)]}  # fmt: skip
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _facts(side: Contestant, reply: Reply) -> dict[str, Any]:
    return {
        "name": side.name, "class": side.kind, "family": side.family or side.name, "model": side.model,
        "settings": dict(side.shaping), "tokens": reply.tokens,
        "first_s": reply.first_s or 0.0, "total_s": reply.total_s, "cut_short": reply.cut_short,
        "cost_usd": side.cost(reply.prompt_tokens, reply.tokens), "text": reply.text,
        "thinking": to_html(reply.whole_thinking) or None,
    }  # fmt: skip


def _rest(database: Database, name: str, reason: str, pause_s: float) -> None:
    with database.write() as connection:
        row = registry.named(connection, name)
        if row is not None:
            registry.pause(connection, row.id, reason, time.time(), pause_s)
