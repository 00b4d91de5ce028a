"""Completions of the engine as they come, and what answers of every shape have in common."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from moreseek.engine.llm import LLM
from moreseek.engine.loop import Token
from moreseek.engine.sequence import Sequence
from moreseek.errors import FaultError
from moreseek.server.errors import RefusedError
from moreseek.server.metrics import Meter

LOG = logging.getLogger("moreseek.server")


@dataclass
class Job:
    """One completion that a request asks for."""

    index: int
    request: Sequence  # checked, and not yet in the queue
    meter: Meter


@dataclass
class Piece:
    """A part of one completion; the last has ``end``. ``shown``: the tokens' log-probabilities, where asked for."""

    job: Job
    text: str
    tokens: list[int]
    shown: list[dict[int, float]]
    end: Sequence | None = None


async def run(llm: LLM, job: Job) -> AsyncGenerator[Piece]:
    """The completion in pieces. Closing the iterator aborts it. Raises RefusedError where the engine failed."""
    text, read = llm.text_stream(job.request.params), 0
    job.meter.start()
    try:
        async with aclosing(llm.loop.follow(job.request, text)) as stream:
            async for item in stream:
                if isinstance(item, Token):
                    job.meter.token()
                    yield Piece(job, item.text, [item.id], job.request.top_logprobs[read : read + 1])
                    read += 1
                else:
                    yield Piece(job, text.finish(), [], [], item)
    except FaultError as error:
        LOG.error("a completion broke: %s", error)
        raise RefusedError(
            500, "The engine failed while it wrote this; the server's log has the reason.", "engine_error"
        ) from None
    finally:
        job.meter.end(job.request)


async def merged(llm: LLM, jobs: list[Job]) -> AsyncIterator[Piece]:
    """The pieces of several completions as they come."""
    if len(jobs) == 1:  # most are, and need no further task
        async with aclosing(run(llm, jobs[0])) as pieces:
            async for piece in pieces:
                yield piece
        return
    queue: asyncio.Queue[Piece | BaseException] = asyncio.Queue()

    async def pump(job: Job) -> None:
        try:
            async for piece in run(llm, job):
                queue.put_nowait(piece)
        except Exception as error:
            queue.put_nowait(error)

    tasks = [asyncio.create_task(pump(job)) for job in jobs]
    left = len(jobs)
    try:
        while left:
            piece = await queue.get()
            if isinstance(piece, BaseException):
                raise piece
            left -= piece.end is not None
            yield piece
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def identity(kind: str, model: str) -> dict[str, Any]:
    """What every chunk of an answer repeats."""
    return {"id": f"{kind}-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}


def usage(jobs: list[Job], thoughts: int) -> dict[str, Any]:
    """Tokens read and written, once all have ended. Several completions of one prompt count it once."""
    prompts = {job.request.prompt: job.request.reused for job in jobs}
    read, written = sum(map(len, prompts)), sum(len(job.request.output) for job in jobs)
    return {
        "prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written,
        "prompt_tokens_details": {"cached_tokens": sum(prompts.values())},
        "completion_tokens_details": {"reasoning_tokens": thoughts},
    }  # fmt: skip


def timings(jobs: list[Job]) -> dict[str, Any]:
    """How fast the prompt was read and the answer written, under llama.cpp's names; without the wait for a turn.

    ``prompt_ms`` lasts until the first token of the first completion, ``predicted_ms`` from there to the last token of
    all; several completions of one prompt read it once.
    """
    meters, prompts = [job.meter for job in jobs], {job.request.prompt: job.request.reused for job in jobs}
    first = min(meter.first for meter in meters)
    cached, written = sum(prompts.values()), sum(len(job.request.output) for job in jobs)
    reading = _rate("prompt", sum(map(len, prompts)) - cached, first - min(meter.started for meter in meters))
    writing = _rate("predicted", written, max(meter.last for meter in meters) - first)
    return {"cache_n": cached, **reading, **writing}


def _rate(name: str, tokens: int, seconds: float) -> dict[str, Any]:
    seconds = max(seconds, 1e-6)  # a single token takes no time, and JSON knows no infinity
    return {
        f"{name}_n": tokens, f"{name}_ms": 1e3 * seconds, f"{name}_per_token_ms": 1e3 * seconds / max(tokens, 1),
        f"{name}_per_second": tokens / seconds,
    }  # fmt: skip
