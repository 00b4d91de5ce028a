"""The JSON that the battle page talks to: begin a battle (a stream of events), ask on, vote, take the vote back."""

import json
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from moreseek.arena.live.examine import examine_voter
from moreseek.arena.live.fight import Event, Fight, choose, fight
from moreseek.arena.live.language import language_of
from moreseek.arena.live.markup import to_html
from moreseek.arena.live.roster import roster
from moreseek.arena.store import battles, registry, turns, voters, votes
from moreseek.arena.store.votes import Cast, Given, RefusedError
from moreseek.arena.votes import OUTCOMES
from moreseek.arena.web.arena import Arena
from moreseek.arena.web.asked import body, cleaned, may_ask, one_of, question, session_in

_PING_S = 5.0  # often enough for proxies that close silent connections


class _Question(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    prompt: str = Field(min_length=1)
    category: str = ""


class _Further(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    prompt: str = Field(min_length=1)


class _Vote(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    outcome: str
    reason: str = Field("", max_length=2000)
    tags: list[str] = Field([], max_length=20)


async def begin(request: Request) -> Response:
    """POST /api/battles: draw a pair and stream both answers. The names stay here."""
    arena: Arena = request.app.state.arena
    session = session_in(request, arena)
    asked = await body(request, _Question)
    house = arena.settings.arena
    if "blind" not in house.modes:
        raise RefusedError("no_such_mode", 403, "This arena has no battles.")
    prompt = question(arena, asked.prompt)
    category = one_of(
        asked.category or house.categories[0], house.categories, "no_such_category", "There is no such category."
    )
    keys = await may_ask(request, arena, session, prompt)
    battle = await run_in_threadpool(_write_down, arena, *keys, prompt, category)
    return streamed(arena, fight(arena.database, arena.clients, arena.settings, battle))


async def ask_on(request: Request) -> Response:
    """POST /api/battles/{id}/turns: a further question to the same two, still without names."""
    arena: Arena = request.app.state.arena
    session = session_in(request, arena)
    asked = await body(request, _Further)
    prompt = question(arena, asked.prompt)
    keys = await may_ask(request, arena, session, prompt)
    battle = await run_in_threadpool(_write_on, arena, keys[0], request.path_params["id"], prompt)
    return streamed(arena, fight(arena.database, arena.clients, arena.settings, battle))


def streamed(arena: Arena, events: AsyncGenerator[Event, None]) -> Response:
    """Events as a stream that takes one of the arena's seats while it runs."""
    headers = {"content-type": "text/event-stream", "cache-control": "no-store", "x-accel-buffering": "no"}
    return StreamingResponse(_stream(arena, events), headers=headers)


async def _stream(arena: Arena, events: AsyncGenerator[Event, None]) -> AsyncIterator[str]:
    async with arena.seats, aclosing(events):
        sent = time.monotonic()
        async for event in events:
            if event:
                yield f"data: {json.dumps(event, ensure_ascii=False)}\n\n"
            elif time.monotonic() - sent > _PING_S:
                yield ": waiting\n\n"
            else:
                continue
            sent = time.monotonic()


def _write_down(arena: Arena, session_key: str, address: str, prompt: str, category: str) -> Fight:
    database, now = arena.database, time.time()
    chosen = choose(database, arena.boards.kept, arena.settings, now)
    if chosen is None:
        raise RefusedError(
            "nobody", 503, "At the moment there are no two models that could answer. Please try again later."
        )
    drawn, sides = chosen
    with database.add() as connection:
        voter = voters.find_or_add(connection, session_key, now)
        battle = battles.NewBattle(
            voter.id, address, drawn.left.id, drawn.right.id, drawn.across, drawn.probability, category,
            language_of(prompt), database.question_key(prompt), prompt,
        )  # fmt: skip
        name = battles.begin(connection, battle, now)
    return Fight(name, prompt, sides, (drawn.left.id, drawn.right.id), drawn.across)


def _write_on(arena: Arena, session_key: str, battle_id: str, prompt: str) -> Fight:
    with arena.database.write() as connection:
        found = turns.begin(connection, session_key, battle_id, prompt, arena.settings.arena.max_turns, time.time())
        names = {row.id: row.name for row in registry.registered(connection)}
        here = roster(connection, arena.settings)
        ids = found.battle.left_id, found.battle.right_id
        if not all(names[one] in here for one in ids):
            raise RefusedError("gone", 409, "One of the two is not here any more. Please vote, or begin a new battle.")
    sides = here[names[ids[0]]], here[names[ids[1]]]
    return Fight(battle_id, prompt, sides, ids, found.battle.across, found.turn, found.said)


async def vote(request: Request) -> Response:
    """POST /api/battles/{id}/vote: count the vote, and only then say who answered."""
    arena: Arena = request.app.state.arena
    session = session_in(request, arena)
    said = await body(request, _Vote)
    one_of(said.outcome, OUTCOMES, "no_such_outcome", f"An outcome is one of {', '.join(OUTCOMES)}.")
    for tag in said.tags:
        one_of(tag, arena.settings.arena.tags, "no_such_tag", "There is no such tag.")
    given = Given(said.outcome, cleaned(said.reason), tuple(dict.fromkeys(said.tags)))
    cast = await run_in_threadpool(_cast, arena, session, request.path_params["id"], given)
    told = {"vote": cast.said(), "reveal": _reveal(cast), "undo_s": arena.rules.undo_s}
    if cast.repeated:
        return JSONResponse(told)
    return JSONResponse(
        told, background=BackgroundTask(examine_voter, arena.database, arena.boards, cast.voter, cast.at)
    )


def _cast(arena: Arena, session: str, battle_id: str, given: Given) -> Cast:
    now, session_key = time.time(), arena.database.keyed("session", session)
    arena.boards.close_days(now)
    with arena.database.write() as connection:
        return votes.cast(connection, session_key, battle_id, given, arena.rules, now)


async def undo(request: Request) -> Response:
    """POST /api/battles/{id}/undo."""
    arena: Arena = request.app.state.arena
    session = session_in(request, arena)

    def take_back() -> dict[str, Any]:
        with arena.database.write() as connection:
            session_key = arena.database.keyed("session", session)
            found = votes.undo(connection, session_key, request.path_params["id"], arena.rules, time.time())
            return {"vote": found.said()}

    return JSONResponse(await run_in_threadpool(take_back))


def _reveal(cast: Cast) -> list[dict[str, Any]]:
    out = []
    for side, where in enumerate(("left", "right")):
        mine = [answer for answer in cast.answers if answer.side == side]
        name, kind, family, model, settings = (
            getattr(cast.battle, f"{where}_{column}") for column in ("name", "kind", "family", "model", "settings")
        )
        thinking = "\n\n---\n\n".join(answer.thinking for answer in mine if answer.thinking)
        out.append({
            "name": name, "class": kind, "family": family, "model": model, "settings": json.loads(settings),
            "tokens": battles.total(answer.tokens for answer in mine),
            "cost_usd": battles.total(answer.cost_usd for answer in mine),
            "first_s": mine[0].first_s, "total_s": sum(answer.total_s for answer in mine),
            "cut_short": any(answer.cut_short for answer in mine), "thinking": to_html(thinking) or None,
            "leak": next((answer.leak for answer in mine if answer.leak), None),
        })  # fmt: skip
    return out
