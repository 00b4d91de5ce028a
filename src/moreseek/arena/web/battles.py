"""The JSON that the battle page talks to: begin a battle (a stream of events), vote, take the vote back."""

import json
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from moreseek.arena.live.examine import examine_voter
from moreseek.arena.live.fight import Fight, choose, fight
from moreseek.arena.live.language import language_of
from moreseek.arena.live.markup import to_html
from moreseek.arena.store import battles, registry, voters, votes
from moreseek.arena.store.votes import RefusedError
from moreseek.arena.votes import OUTCOMES
from moreseek.arena.web.arena import Arena
from moreseek.arena.web.safety import address_of, is_forged, session_of

_LONGEST_BODY = 256 * 1024
_MINUTE_S = 60.0
_PING_S = 5.0  # often enough for proxies that close silent connections


class _Question(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    prompt: str = Field(min_length=1)
    category: str = ""


class _Vote(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    outcome: str
    reason: str = Field("", max_length=2000)


async def begin(request: Request) -> Response:
    """POST /api/battles: draw a pair and stream both answers. The names stay here."""
    arena: Arena = request.app.state.arena
    session = _session(request, arena)
    asked = await _body(request, _Question)
    prompt = asked.prompt.replace("\x00", "").encode("utf-8", "replace").decode().strip()
    house = arena.settings.arena
    if not prompt:
        raise RefusedError("empty", 400, "Please write a question.")
    if len(prompt) > house.max_prompt_characters:
        raise RefusedError("too_long", 413, f"A question has at most {house.max_prompt_characters} characters.")
    category = asked.category or house.categories[0]
    if category not in house.categories:
        raise RefusedError("no_such_category", 400, "There is no such category.")
    if arena.seats.locked():
        raise RefusedError("busy", 503, "Too many battles are running. Please try again in a minute.")
    battle = await run_in_threadpool(_write_down, request, arena, session, prompt, category)
    headers = {"content-type": "text/event-stream", "cache-control": "no-store", "x-accel-buffering": "no"}
    return StreamingResponse(_stream(arena, battle), headers=headers)


async def _stream(arena: Arena, battle: Fight) -> AsyncIterator[str]:
    async with arena.seats, aclosing(fight(arena.database, arena.clients, arena.settings, battle)) as events:
        sent = time.monotonic()
        async for event in events:
            if event:
                yield f"data: {json.dumps(event, ensure_ascii=False)}\n\n"
            elif time.monotonic() - sent > _PING_S:
                yield ": waiting\n\n"
            else:
                continue
            sent = time.monotonic()


def _write_down(request: Request, arena: Arena, session: str, prompt: str, category: str) -> Fight:
    house, database, now = arena.settings.arena, arena.database, time.time()
    address = database.keyed("address", address_of(request, house.trusted_proxies))
    session_key = database.keyed("session", session)
    _slow_down(arena, session_key, address, now)
    drawn = choose(database, arena.settings, now)
    if drawn is None:
        raise RefusedError(
            "nobody", 503, "At the moment there are no two models that could answer. Please try again later."
        )
    question = " ".join(prompt.split()).casefold()
    with database.write() as connection:
        voter = voters.find_or_add(connection, session_key, now)
        battle = battles.NewBattle(
            voter.id, address, drawn.left.id, drawn.right.id, drawn.across, drawn.probability, category,
            language_of(prompt), database.keyed("prompt", question), prompt,
        )  # fmt: skip
        return Fight(battles.begin(connection, battle, now), prompt, drawn)


def _slow_down(arena: Arena, session_key: str, address: str, now: float) -> None:
    house = arena.settings.arena
    with arena.database.read() as connection:
        voter = voters.find(connection, session_key)
        own, shared = voters.battles_since(connection, now - _MINUTE_S, voter.id if voter else None, address)
    if own >= house.battles_a_minute or shared >= house.battles_a_minute_per_address:
        raise RefusedError("too_fast", 429, "That is faster than anybody reads. Please wait a minute.")


async def vote(request: Request) -> Response:
    """POST /api/battles/{id}/vote: count the vote, and only then say who answered."""
    arena: Arena = request.app.state.arena
    session = _session(request, arena)
    given = await _body(request, _Vote)
    if given.outcome not in OUTCOMES:
        raise RefusedError("no_such_outcome", 400, f"An outcome is one of {', '.join(OUTCOMES)}.")
    reason = given.reason.replace("\x00", "").encode("utf-8", "replace").decode().strip()
    return JSONResponse(
        await run_in_threadpool(_cast, arena, session, request.path_params["id"], given.outcome, reason)
    )


def _cast(arena: Arena, session: str, battle_id: str, outcome: str, reason: str) -> dict[str, Any]:
    database, now = arena.database, time.time()
    with database.write() as connection:
        voter = voters.find(connection, database.keyed("session", session))
        cast = votes.cast(connection, voter, battle_id, outcome, reason, arena.rules, now)
    if voter is not None and not cast.repeated:
        examine_voter(database, arena.boards, voter, now)
    with database.read() as connection:
        return {"vote": vars(cast), "reveal": _reveal(connection, battle_id), "undo_s": arena.rules.undo_s}


async def undo(request: Request) -> Response:
    """POST /api/battles/{id}/undo."""
    arena: Arena = request.app.state.arena
    session = _session(request, arena)

    def take_back() -> dict[str, Any]:
        with arena.database.write() as connection:
            voter = voters.find(connection, arena.database.keyed("session", session))
            found = votes.undo(connection, voter, request.path_params["id"], arena.rules, time.time())
            return {"vote": vars(found)}

    return JSONResponse(await run_in_threadpool(take_back))


def _reveal(connection: Any, battle_id: str) -> list[dict[str, Any]]:
    battle = battles.find(connection, battle_id)
    known = {row.id: row for row in registry.registered(connection)}
    out = []
    for identity, answer in zip(
        (battle.left_id, battle.right_id), battles.answers_of(connection, battle_id), strict=True
    ):
        row = known[identity]
        out.append({
            "name": row.name, "class": row.kind, "family": row.family, "tokens": answer.tokens,
            "first_s": answer.first_s, "total_s": answer.total_s, "cost_usd": answer.cost_usd,
            "cut_short": answer.cut_short, "thinking": to_html(answer.thinking or "") or None, "leak": answer.leak,
        })  # fmt: skip
    return out


def _session(request: Request, arena: Arena) -> str:
    session = session_of(request)
    if session is None:
        raise RefusedError("no_session", 403, "The session is not known. Load the page again; cookies are needed.")
    if is_forged(request, arena.database, session):
        raise RefusedError("forged", 403, "This request does not come from the arena's own page. Load it again.")
    return session


async def _body(request: Request, wanted: Any) -> Any:
    if request.headers.get("content-type", "").split(";")[0].strip().lower() != "application/json":
        raise RefusedError("not_json", 415, "JSON is needed.")
    raw = b""
    async for part in request.stream():
        raw += part
        if len(raw) > _LONGEST_BODY:
            raise RefusedError("too_large", 413, "The request is too large.")
    try:
        return wanted.model_validate_json(raw)
    except (ValidationError, RecursionError):
        raise RefusedError("malformed", 400, "The request is malformed.") from None
