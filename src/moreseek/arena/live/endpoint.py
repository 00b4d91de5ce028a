"""Asking a contestant: any OpenAI-compatible endpoint, streamed, with every way of failing told apart."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx

from moreseek.arena.live.contestants import Endpoint
from moreseek.arena.live.settings import House
from moreseek.errors import MoreseekError
from moreseek.text.chat import THINK_CLOSE, THINK_OPEN

_LONGEST_LINE = 1 << 20  # bytes; an event that is longer is no event


class ContestantError(MoreseekError):
    """A contestant did not answer as it should. The text is for the house's log: voters are told nothing of it."""


@dataclass
class Reply:
    """An answer as it grows."""

    opens_thinking: bool = False
    thinking: str = ""
    ended: bool = False
    cut_short: bool = False
    tokens: int | None = None
    prompt_tokens: int | None = None
    first_s: float | None = None
    total_s: float = 0.0
    _content: str = ""
    _begun: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        if self.opens_thinking:
            self._content = THINK_OPEN

    def add(self, content: str, thinking: str) -> None:
        """What came with one event."""
        self.thinking += thinking
        self._content += content
        if self.first_s is None and self.text:
            self.first_s = time.monotonic() - self._begun

    def end(self) -> None:
        """Nothing more will come."""
        self.ended, self.total_s = True, time.monotonic() - self._begun
        if self.first_s is None:
            self.first_s = self.total_s

    @property
    def size(self) -> int:
        """Characters so far, thinking included."""
        return len(self._content) + len(self.thinking)

    @property
    def text(self) -> str:
        """The answer as far as it is there and surely no thinking."""
        content = self._content.lstrip()
        if not content.startswith(THINK_OPEN):
            return "" if THINK_OPEN.startswith(content) and not self.ended else content
        return content.partition(THINK_CLOSE)[2].lstrip("\n")

    @property
    def whole_thinking(self) -> str:
        """All thinking: from its own field, or from between the tags."""
        content = self._content.lstrip()
        inside = content.removeprefix(THINK_OPEN).partition(THINK_CLOSE)[0] if content.startswith(THINK_OPEN) else ""
        return (self.thinking + inside).strip("\n")


class Clients:
    """The HTTP clients of a server. Redirects are not followed, since they could lead inside."""

    def __init__(self) -> None:
        limits = httpx.Limits(max_connections=256)
        self._outside = httpx.AsyncClient(follow_redirects=False, limits=limits)
        # A proxy for the world outside has no business in front of an endpoint inside.
        self._inside = httpx.AsyncClient(follow_redirects=False, limits=limits, trust_env=False)

    def to(self, contestant: Endpoint) -> httpx.AsyncClient:
        """The client for a contestant."""
        return self._inside if contestant.internal else self._outside

    async def aclose(self) -> None:
        """Close every connection."""
        await self._outside.aclose()
        await self._inside.aclose()


async def ask(
    clients: Clients, contestant: Endpoint, messages: list[dict[str, str]], house: House, reply: Reply,
    may_be_empty: bool = False,
) -> None:  # fmt: skip
    """Fill ``reply`` until the answer ends. Raises ContestantError; nothing of the endpoint's words gets further."""
    try:
        async with asyncio.timeout(house.answer_timeout_s):
            await _ask(clients.to(contestant), contestant, messages, house, reply)
    except TimeoutError:
        raise ContestantError(f"no whole answer within {house.answer_timeout_s:g} s") from None
    except httpx.TimeoutException:
        raise ContestantError(f"silent for {house.silence_s:g} s") from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ContestantError(f"connection: {type(error).__name__}") from None
    reply.end()
    if not may_be_empty and not reply.text.strip():
        raise ContestantError("an empty answer")


async def _ask(
    client: httpx.AsyncClient, contestant: Endpoint, messages: list[dict[str, str]], house: House, reply: Reply
) -> None:
    headers = {"Authorization": f"Bearer {contestant.api_key}"} if contestant.api_key else {}
    timeout = httpx.Timeout(house.silence_s, connect=min(10.0, house.silence_s))
    url = f"{contestant.url}/chat/completions"
    async with client.stream("POST", url, json=_body(contestant, messages), headers=headers, timeout=timeout) as found:
        if found.status_code != 200:
            raise ContestantError(f"HTTP status {found.status_code}")
        if not found.headers.get("content-type", "").startswith("text/event-stream"):
            raise ContestantError("no event stream")
        finished = False
        async for event in _events(found):
            finished |= _take(event, reply)
            if reply.size > house.max_answer_characters:
                raise ContestantError(f"more than {house.max_answer_characters} characters")
        if not finished:
            raise ContestantError("the stream broke off")


def _body(contestant: Endpoint, messages: list[dict[str, str]]) -> dict[str, Any]:
    system = [{"role": "system", "content": contestant.system}] if contestant.system else []
    body: dict[str, Any] = {
        "model": contestant.model, "messages": [*system, *messages], "stream": True,
        "stream_options": {"include_usage": True},
    }  # fmt: skip
    for key in ("temperature", "max_tokens"):
        if getattr(contestant, key) is not None:
            body[key] = getattr(contestant, key)
    return body


async def _events(response: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    """The JSON of every event up to [DONE]."""
    rest = b""
    async for more in response.aiter_bytes():
        *lines, rest = (rest + more).split(b"\n")
        if len(rest) > _LONGEST_LINE:
            raise ContestantError("an event of more than a megabyte")
        for line in lines:
            if not line.startswith(b"data:"):
                continue  # a comment, an event's name, or the blank line between two
            data = line[5:].strip()
            if data == b"[DONE]":
                return
            try:
                event = json.loads(data)
            except (ValueError, RecursionError):
                raise ContestantError("garbage in the event stream") from None
            if not isinstance(event, dict):
                raise ContestantError("garbage in the event stream")
            yield event


def _take(event: dict[str, Any], reply: Reply) -> bool:
    """Read one event into the reply; whether it is the one that says the answer is finished."""
    if "error" in event:
        raise ContestantError("an error in the event stream")
    try:
        usage = event.get("usage") or {}
        if usage:
            reply.tokens, reply.prompt_tokens = int(usage["completion_tokens"]), int(usage["prompt_tokens"])
        finished = False
        for choice in event.get("choices") or []:
            delta = choice.get("delta") or {}
            content = delta.get("content") or ""
            thinking = delta.get("reasoning_content") or delta.get("reasoning") or ""
            reply.add(_clean(content), _clean(thinking))
            finished |= choice.get("finish_reason") is not None
            reply.cut_short |= choice.get("finish_reason") == "length"
    except (AttributeError, KeyError, TypeError, ValueError):
        raise ContestantError("garbage in the event stream") from None
    return finished


def _clean(text: str) -> str:
    """Without NUL and halves of characters, which databases refuse."""
    if not isinstance(text, str):
        raise TypeError
    return text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode("utf-8")
