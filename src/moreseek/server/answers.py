"""Answers of the engine in the shapes of OpenAI's API, whole and as streams."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from moreseek.engine.llm import LLM
from moreseek.engine.loop import Token
from moreseek.engine.sequence import Sequence
from moreseek.errors import FaultError
from moreseek.server.errors import RefusedError
from moreseek.server.metrics import Meter
from moreseek.server.reasoning import Splitter

LOG = logging.getLogger("moreseek.server")
LEAST = -9999.0  # in place of −∞, which JSON does not have


@dataclass
class Job:
    """One completion that a request asks for."""

    index: int
    request: Sequence  # checked, and not yet in the queue
    meter: Meter


@dataclass
class Piece:
    """A part of one completion; the last has ``end``."""

    job: Job
    text: str
    tokens: list[int]
    end: Sequence | None = None


async def run(llm: LLM, job: Job) -> AsyncGenerator[Piece]:
    """The completion in pieces. Closing the iterator aborts it. Raises RefusedError where the engine failed."""
    text = llm.text_stream(job.request.params)
    try:
        async with aclosing(llm.loop.follow(job.request, text)) as stream:
            async for item in stream:
                if isinstance(item, Token):
                    job.meter.token()
                    yield Piece(job, item.text, [item.id])
                else:
                    yield Piece(job, text.finish(), [], item)
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


def finish_reason(sequence: Sequence) -> str:
    """``stop`` or ``length``."""
    return "stop" if sequence.finish_reason == "stop" else "length"


def chat_logprobs(llm: LLM, sequence: Sequence) -> dict[str, Any]:
    """OpenAI's logprobs of a chat completion."""
    content = []
    for token, shown in zip(sequence.output, sequence.top_logprobs, strict=False):
        ranked = sorted(shown.items(), key=lambda item: -item[1])[: sequence.params.logprobs or 0]
        top = [_named(llm, id, value) for id, value in ranked]
        content.append(_named(llm, token, shown[token]) | {"top_logprobs": top})
    return {"content": content}


def _named(llm: LLM, token: int, logprob: float) -> dict[str, Any]:
    text = llm.tokenizer.decode([token])
    return {"token": text, "logprob": max(logprob, LEAST), "bytes": list(text.encode("utf-8", "replace"))}


def text_logprobs(llm: LLM, tokens: list[int], shown: list[dict[int, float] | None], count: int) -> dict[str, Any]:
    """OpenAI's logprobs of a text completion; the first token of a prompt has none."""
    names = [llm.tokenizer.decode([token]) for token in tokens]
    offsets = [0, *accumulate(map(len, names))][: len(names)]
    top = []
    for found in shown:
        ranked = sorted(found.items(), key=lambda item: -item[1])[: max(count, 1)] if found else []
        top.append({llm.tokenizer.decode([id]): max(value, LEAST) for id, value in ranked} if found else None)
    values = [None if found is None else max(found[token], LEAST) for token, found in zip(tokens, shown, strict=True)]
    return {"tokens": names, "token_logprobs": values, "top_logprobs": top, "text_offset": offsets}


class ChatAnswer:
    """A chat completion: its choices as pieces come, and the thinking of each."""

    def __init__(self, llm: LLM, name: str, jobs: list[Job], thinking: bool) -> None:
        self.llm, self.jobs = llm, jobs
        self.base = identity("chatcmpl", name)
        self._splitters = [Splitter(thinking) for _ in jobs]
        self._thinking_tokens = 0
        self._thinking = [thinking] * len(jobs)

    def _split(self, piece: Piece) -> tuple[str, str]:
        splitter = self._splitters[piece.job.index]
        thought, answer = splitter.push(piece.text)
        if piece.end is not None:
            more = splitter.finish()
            thought, answer = thought + more[0], answer + more[1]
        if not self._thinking[piece.job.index] and thought:
            self._thinking[piece.job.index] = True
        if answer:
            self._thinking[piece.job.index] = False
        self._thinking_tokens += len(piece.tokens) if self._thinking[piece.job.index] else 0
        return thought, answer

    async def whole(self) -> dict[str, Any]:
        """The whole answer."""
        texts = [["", ""] for _ in self.jobs]
        async for piece in merged(self.llm, self.jobs):
            thought, answer = self._split(piece)
            texts[piece.job.index][0] += thought
            texts[piece.job.index][1] += answer
        choices = []
        for job, (thought, answer) in zip(self.jobs, texts, strict=True):
            sequence = job.request
            message = {"role": "assistant", "content": answer, "reasoning_content": thought or None}
            message["reasoning"] = thought or None
            logprobs = None if sequence.params.logprobs is None else chat_logprobs(self.llm, sequence)
            choices.append(
                {"index": job.index, "message": message, "finish_reason": finish_reason(sequence), "logprobs": logprobs}
            )
        return self.base | {
            "object": "chat.completion", "choices": choices, "usage": usage(self.jobs, self._thinking_tokens),
        }  # fmt: skip

    async def events(self, with_usage: bool) -> AsyncIterator[dict[str, Any]]:
        """The chunks of a stream."""
        for job in self.jobs:
            yield self._chunk(job.index, {"role": "assistant", "content": ""})
        async for piece in merged(self.llm, self.jobs):
            thought, answer = self._split(piece)
            if thought:
                yield self._chunk(piece.job.index, {"reasoning_content": thought, "reasoning": thought})
            if answer:
                yield self._chunk(piece.job.index, {"content": answer})
            if piece.end is not None:
                yield self._chunk(piece.job.index, {}, finish_reason(piece.end))
        if with_usage:
            yield self.base | {
                "object": "chat.completion.chunk", "choices": [], "usage": usage(self.jobs, self._thinking_tokens),
            }  # fmt: skip

    def _chunk(self, index: int, delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
        choice = {"index": index, "delta": delta, "finish_reason": reason, "logprobs": None}
        return self.base | {"object": "chat.completion.chunk", "choices": [choice]}
