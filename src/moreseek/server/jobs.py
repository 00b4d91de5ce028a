"""From a prompt's tokens to the engine's requests, off the event loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from starlette.concurrency import run_in_threadpool

from moreseek.engine.llm import LLM
from moreseek.engine.sampling import SamplingParams
from moreseek.errors import InputError
from moreseek.server.answers import Job
from moreseek.server.errors import RefusedError
from moreseek.server.metrics import Meter

T = TypeVar("T")


async def calmly(work: Callable[[], T]) -> T:
    """Tokenising, templates and schemas: in a thread, so that nobody else waits. Raises RefusedError."""
    try:
        return await run_in_threadpool(work)
    except InputError as error:
        raise RefusedError(400, str(error), "invalid_value") from None


def room(llm: LLM, prompt: list[int]) -> int:
    """Tokens that the prompt leaves free. Raises RefusedError for an empty prompt and one past the context."""
    context = llm.engine.context
    if not prompt:
        raise RefusedError(400, "The prompt is empty: there is nothing to continue.", "invalid_value", "prompt")
    if len(prompt) >= context:
        raise RefusedError(
            400, f"The prompt has {len(prompt)} tokens; the model's context is {context}.", "context_length_exceeded",
            "messages",
        )  # fmt: skip
    return context - len(prompt)


def jobs(llm: LLM, prompt: list[int], params: SamplingParams, meter: Callable[[], Meter], first: int = 0) -> list[Job]:
    """One a completion. Checks the request and compiles its structure, so not for the event loop."""
    return [
        Job(first + number, llm.engine.request(prompt, params, params.seed + number), meter())
        for number in range(params.n)
    ]
