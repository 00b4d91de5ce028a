"""The house's own filter of questions: a Python function, or a hook over HTTP. What it cannot judge is not sent."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

import httpx

from moreseek.arena.live.settings import House
from moreseek.arena.store.votes import RefusedError
from moreseek.config import import_name
from moreseek.errors import InputError

TIMEOUT_S = 5.0
_LONGEST_MESSAGE = 300
_KIND = "This question cannot be sent here. Please ask something else."
_DOWN = "Questions cannot be checked at the moment, so none is sent. Please try again later."


class ContentFilter:
    """Asks the house's filter. Without one every question passes."""

    def __init__(self, house: House) -> None:
        where = house.content_filter
        self._url = where if where.startswith(("http://", "https://")) else None
        self._function: Callable[[str], Any] | None = None
        if where and not self._url:
            try:
                self._function = import_name(where)
            except InputError as error:
                raise InputError(f"content_filter: {error}") from error
        # The house named the hook itself, so it may be inside; a proxy for the world has no business before it.
        self._client = httpx.AsyncClient(timeout=TIMEOUT_S, follow_redirects=False, trust_env=False)

    async def check(self, question: str) -> None:
        """Raises RefusedError for a question that the filter refuses, and for one that it cannot judge."""
        ask: Awaitable[str | None] | None = None
        if self._url:
            ask = self._hook(self._url, question)
        elif self._function:
            ask = self._call(self._function, question)
        if ask is None:
            return
        try:
            async with asyncio.timeout(TIMEOUT_S):
                refusal = await ask
        except Exception as error:  # whatever it is: nobody has looked at the question
            raise RefusedError("filter_down", 503, _DOWN) from error
        if refusal is not None:
            raise RefusedError("filtered", 422, refusal[:_LONGEST_MESSAGE] or _KIND)

    async def _hook(self, url: str, question: str) -> str | None:
        answer = await self._client.post(url, json={"text": question})
        answer.raise_for_status()
        found = answer.json()
        if found["allowed"] is True:
            return None
        if found["allowed"] is False:
            return str(found.get("message") or "")
        raise ValueError("allowed must be true or false")

    async def _call(self, function: Callable[[str], Any], question: str) -> str | None:
        found = await asyncio.to_thread(function, question)
        if inspect.isawaitable(found):
            found = await found
        if found is None or isinstance(found, str):
            return found
        raise ValueError("a filter gives None, or the sentence with which it refuses")

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()
