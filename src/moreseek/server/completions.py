"""Text completions: /v1/completions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

from starlette.concurrency import run_in_threadpool

from moreseek.engine.llm import LLM
from moreseek.server import logprobs
from moreseek.server.answers import Job, identity, merged, timings, usage
from moreseek.server.jobs import calmly, jobs, room
from moreseek.server.metrics import Meter
from moreseek.server.requests import DEFAULT_COMPLETION_TOKENS, CompletionRequest


class TextAnswer:
    """The answer to a request: its choices as pieces come."""

    def __init__(self, llm: LLM, name: str, jobs: list[Job], asked: CompletionRequest) -> None:
        self.llm, self.jobs, self.asked = llm, jobs, asked
        self.base = identity("cmpl", name) | {"object": "text_completion"}
        self._offsets: dict[int, int] = {}  # by choice: characters of the tokens that were told of

    @classmethod
    async def to(cls, asked: CompletionRequest, name: str, llm: LLM, meter: Callable[[], Meter]) -> TextAnswer:
        """Checked, and not yet begun. Raises RefusedError."""
        found: list[Job] = []
        for given in asked.prompts():
            ids = await calmly(lambda given=given: llm.tokenizer.encode(given) if isinstance(given, str) else given)
            scored = asked.echo and asked.logprobs is not None
            params = asked.settings(
                room(llm, ids), DEFAULT_COMPLETION_TOKENS, logprobs=asked.logprobs, prompt_logprobs=scored
            )
            found += await calmly(partial(jobs, llm, ids, params, meter, len(found)))
        return cls(llm, name, found, asked)

    async def whole(self) -> dict[str, Any]:
        """The whole answer."""
        texts = [""] * len(self.jobs)
        async for piece in merged(self.llm, self.jobs):
            texts[piece.job.index] += piece.text
        choices = []
        for job, text in zip(self.jobs, texts, strict=True):
            sequence = job.request
            found = await run_in_threadpool(self._logprobs, job, sequence.output, sequence.top_logprobs)
            ids = {"token_ids": sequence.output} if self.asked.return_token_ids else {}
            choices.append(self._choice(job, self._echo(job) + text, sequence.told_reason, found) | ids)
        return self.base | {"choices": choices, "usage": usage(self.jobs, 0), "timings": timings(self.jobs)}

    async def events(self) -> AsyncIterator[dict[str, Any]]:
        """The chunks of a stream."""
        begun: set[int] = set()
        running, with_usage = len(self.jobs), self.asked.stream_options and self.asked.stream_options.include_usage
        async for piece in merged(self.llm, self.jobs):
            job = piece.job
            echo = "" if job.index in begun else self._echo(job)
            begun.add(job.index)
            reason = None if piece.end is None else piece.end.told_reason
            running -= piece.end is not None
            last = {} if running or with_usage else {"timings": timings(self.jobs)}
            if echo or piece.text or reason or piece.shown:
                found = self._logprobs(job, piece.tokens, piece.shown)
                yield self.base | {"choices": [self._choice(job, echo + piece.text, reason, found)]} | last
        if with_usage:
            yield self.base | {"choices": [], "usage": usage(self.jobs, 0), "timings": timings(self.jobs)}

    def _echo(self, job: Job) -> str:
        return self.llm.tokenizer.decode(job.request.prompt) if self.asked.echo else ""

    def _logprobs(self, job: Job, tokens: list[int], shown: list[dict[int, float]]) -> dict[str, Any] | None:
        """Of the next tokens of a choice; before the first ones stand those of an echoed prompt."""
        if self.asked.logprobs is None:
            return None
        mine: list[int] = list(tokens)
        found: list[dict[int, float] | None] = list(shown)
        if self.asked.echo and job.index not in self._offsets:
            mine = [*job.request.prompt, *mine]
            found = [*(job.request.prompt_logprobs or [None]), *found]
        start = self._offsets.get(job.index, 0)
        told = logprobs.of_text(self.llm, mine, found, self.asked.logprobs, start)
        self._offsets[job.index] = start + sum(map(len, told["tokens"]))
        return told

    @staticmethod
    def _choice(job: Job, text: str, reason: str | None, found: dict[str, Any] | None) -> dict[str, Any]:
        return {"index": job.index, "text": text, "finish_reason": reason, "logprobs": found}
