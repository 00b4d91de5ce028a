"""What a request must bring before anything is done for it: a session, a body in form, and no haste."""

import time
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from moreseek.arena.store import voters
from moreseek.arena.store.votes import RefusedError
from moreseek.arena.web.arena import Arena
from moreseek.arena.web.safety import address_of, is_forged, session_of

B = TypeVar("B", bound=BaseModel)
_LONGEST_BODY = 256 * 1024
_MINUTE_S = 60.0


def session_in(request: Request, arena: Arena) -> str:
    """The session of a request from a page of ours. Raises RefusedError."""
    session = session_of(request)
    if session is None:
        raise RefusedError("no_session", 403, "The session is not known. Load the page again; cookies are needed.")
    if is_forged(request, arena.database, session):
        raise RefusedError("forged", 403, "This request does not come from the arena's own page. Load it again.")
    return session


async def raw_body(request: Request) -> bytes:
    """The body, unless it is too large. Raises RefusedError."""
    raw = b""
    async for part in request.stream():
        raw += part
        if len(raw) > _LONGEST_BODY:
            raise RefusedError("too_large", 413, "The request is too large.")
    return raw


async def body(request: Request, wanted: type[B]) -> B:
    """The JSON of a request. Raises RefusedError where it has another form."""
    if request.headers.get("content-type", "").split(";")[0].strip().lower() != "application/json":
        raise RefusedError("not_json", 415, "JSON is needed.")
    raw = await raw_body(request)
    try:
        return wanted.model_validate_json(raw)
    except (ValidationError, RecursionError):
        raise RefusedError("malformed", 400, "The request is malformed.") from None


def cleaned(text: str) -> str:
    """Without NUL and halves of characters, which databases refuse."""
    return text.replace("\x00", "").encode("utf-8", "replace").decode().strip()


def question(arena: Arena, text: str) -> str:
    """A question that may be asked: not empty, not too long, and somebody is free to answer."""
    asked, most = cleaned(text), arena.settings.arena.max_prompt_characters
    if not asked:
        raise RefusedError("empty", 400, "Please write a question.")
    if len(asked) > most:
        raise RefusedError("too_long", 413, f"A question has at most {most} characters.")
    if arena.seats.locked():
        raise RefusedError("busy", 503, "Too many battles are running. Please try again in a minute.")
    return asked


async def may_ask(request: Request, arena: Arena, session: str, prompt: str) -> tuple[str, str]:
    """The keyed hashes of session and address, if neither asks too fast or is barred and the house's filter lets the
    question pass. Raises RefusedError.
    """
    database = arena.database
    address = database.keyed("address", address_of(request, arena.settings.arena.trusted_proxies))
    session_key = database.keyed("session", session)
    await run_in_threadpool(_slow_down, arena, session_key, address)
    await arena.filter.check(prompt)
    return session_key, address


def _slow_down(arena: Arena, session_key: str, address: str) -> None:
    house = arena.settings.arena
    with arena.database.read() as connection:
        if voters.is_barred(connection, address):
            raise RefusedError("barred", 403, "This arena takes no questions from here.")
        voter = voters.find(connection, session_key)
        own, shared = voters.asked_since(connection, time.time() - _MINUTE_S, voter.id if voter else None, address)
    if own >= house.battles_a_minute or shared >= house.battles_a_minute_per_address:
        raise RefusedError("too_fast", 429, "That is faster than anybody reads. Please wait a minute.")


def one_of(value: str, known: Any, code: str, message: str) -> str:
    """The value, if it is known. Raises RefusedError."""
    if value not in known:
        raise RefusedError(code, 400, message)
    return value
