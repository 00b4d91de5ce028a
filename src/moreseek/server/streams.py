"""Answers that end when their client goes away: server-sent events, and JSON."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import aclosing
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from moreseek.server.errors import RefusedError
from moreseek.server.turns import Turn

LOG = logging.getLogger("moreseek.server")
GONE = 499  # as nginx calls it when the client went away before the end of its answer
PING_S = 15.0  # proxies cut connections that are silent for longer


class HasStatus(Protocol):
    """What is told how an answer ended whose headers said 200."""

    status: int


class EventStream(Response):
    """Server-sent events: the chunks, named by their type or followed by [DONE]. All ends when the client leaves.

    (Not Starlette's own: its body never begins, and so never ends, when the client leaves early.)
    """

    media_type = "text/event-stream"

    def __init__(self, chunks: AsyncIterator[dict[str, Any]], turn: Turn, told: HasStatus, named: bool = False) -> None:
        super().__init__(headers={"cache-control": "no-cache", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self.chunks, self.turn, self.told, self.named, self._silent = chunks, turn, told, named, True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del scope
        sending, *others = tasks = [
            asyncio.ensure_future(work) for work in (self._send(send), _gone(receive), self._ping(send))
        ]
        try:
            await asyncio.wait([sending, others[0]], return_when=asyncio.FIRST_COMPLETED)
            if not sending.done():
                self.told.status = GONE
        finally:
            await _ended(tasks)
            self.turn.leave()

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        try:
            await self.turn.wait()
            async with aclosing(self.chunks) as source:  # pyright: ignore[reportArgumentType]
                async for chunk in source:
                    await self._write(send, event(chunk, chunk["type"] if self.named else None))
            if not self.named:
                await self._write(send, "data: [DONE]\n\n")
        except Exception as error:  # the headers are sent, so it is told in the stream
            refused = refusal_of(error)
            self.told.status = refused.status
            await self._write(send, event(refused.body()))
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _write(self, send: Send, text: str) -> None:
        self._silent = False
        await send({"type": "http.response.body", "body": text.encode("utf-8", "replace"), "more_body": True})

    async def _ping(self, send: Send) -> None:
        while True:
            self._silent = True
            await asyncio.sleep(PING_S)
            if self._silent:
                await self._write(send, ": ping\n\n")


async def unless_gone(
    request: Request, turn: Turn, work: Callable[[], Coroutine[Any, Any, dict[str, Any]]]
) -> Response:
    """What ``work`` gives once it is its turn, as JSON; it is dropped when the client leaves before."""

    async def answer() -> dict[str, Any]:
        await turn.wait()
        return await work()

    tasks = [asyncio.ensure_future(answer()), asyncio.ensure_future(_gone(request.receive))]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return JSONResponse(tasks[0].result()) if tasks[0].done() else Response(status_code=GONE)
    finally:
        await _ended(tasks)
        turn.leave()


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _ended(tasks: Sequence[asyncio.Future[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def refusal_of(error: Exception) -> RefusedError:
    """What a client is told about an error; a defect's own text stays in the log."""
    if isinstance(error, RefusedError):
        return error
    LOG.error("a request failed", exc_info=error)
    return RefusedError(500, "Something went wrong here; the server's log has the reason.", "server_error")


def event(data: dict[str, Any], name: str | None = None) -> str:
    """One server-sent event."""
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(data, ensure_ascii=False)}\n\n"
