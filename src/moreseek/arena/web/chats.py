"""Named side by side, or direct: nothing of it is a vote, and nothing that was said is kept."""

import time
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from moreseek.arena.live.chat import chat
from moreseek.arena.live.contestants import Contestant
from moreseek.arena.live.roster import askable
from moreseek.arena.store import registry, voters
from moreseek.arena.store.votes import RefusedError
from moreseek.arena.web.arena import Arena
from moreseek.arena.web.asked import body, cleaned, may_ask, question, session_in
from moreseek.arena.web.battles import streamed


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    role: Literal["user", "assistant"]
    content: str


class _Chat(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    contestants: list[str] = Field(min_length=1, max_length=2)
    said: list[list[_Message]]  # of each side, before this question
    prompt: str = Field(min_length=1)


def _here(arena: Arena) -> dict[str, Contestant]:
    """Whom one can talk to by name at the moment."""
    with arena.database.read() as connection:
        found = askable(connection, registry.registered(connection), arena.settings, time.time())
    return {one.name: one for one in found.values()}


async def contestants(request: Request) -> Response:
    """GET /api/contestants: the names that can be chosen. The page of a blind battle holds none."""
    here = await run_in_threadpool(_here, request.app.state.arena)
    return JSONResponse({"names": sorted(here, key=str.casefold)})


async def talk(request: Request) -> Response:
    """Stream the answers of one contestant, or of two beside each other."""
    arena: Arena = request.app.state.arena
    session = session_in(request, arena)
    asked = await body(request, _Chat)
    house = arena.settings.arena
    mode = "direct" if len(asked.contestants) == 1 else "named"
    if mode not in house.modes:
        raise RefusedError("no_such_mode", 403, "This arena does not offer that.")
    prompt = question(arena, asked.prompt)
    said = [[{"role": one.role, "content": cleaned(one.content)} for one in side] for side in asked.said]
    _in_form(said, len(asked.contestants), house.max_turns)
    here = await run_in_threadpool(_here, arena)
    if len(set(asked.contestants)) != len(asked.contestants):
        raise RefusedError("same_twice", 400, "Please choose two different models.")
    for name in asked.contestants:
        if name not in here:
            raise RefusedError("not_here", 409, "This model cannot answer at the moment. Please choose another.")
    keys = await may_ask(request, arena, session, prompt)
    await run_in_threadpool(_note, arena, *keys)
    last = {"role": "user", "content": prompt}
    events = chat(
        arena.database, arena.clients, arena.settings, [here[name] for name in asked.contestants],
        [[*side, last] for side in said],
    )  # fmt: skip
    return streamed(arena, events)


def _in_form(said: list[list[dict[str, str]]], sides: int, most: int) -> None:
    """Questions and answers in turn, as many on each side. Raises RefusedError."""
    turns = len(said[0]) // 2 if said else 0
    roles = ["user", "assistant"] * turns
    if len(said) != sides or any([one["role"] for one in side] != roles for side in said):
        raise RefusedError("malformed", 400, "The request is malformed.")
    if turns + 1 > most:
        raise RefusedError("too_many_turns", 409, f"A chat has at most {most} turns. Please begin a new one.")


def _note(arena: Arena, session_key: str, address: str) -> None:
    now = time.time()
    with arena.database.write() as connection:
        voter = voters.find_or_add(connection, session_key, now)
        voters.note_chat(connection, voter.id, address, now)
