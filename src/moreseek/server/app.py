"""The server as an ASGI application: OpenAI's API for one or several models, and a page to chat."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from moreseek.engine.llm import LLM
from moreseek.engine.sampling import SamplingParams
from moreseek.errors import InputError, MoreseekError
from moreseek.records import Message
from moreseek.server.answers import (
    ChatAnswer,
    Job,
    event,
    finish_reason,
    identity,
    merged,
    text_logprobs,
    usage,
)
from moreseek.server.errors import RefusedError
from moreseek.server.requests import (
    DEFAULT_COMPLETION_TOKENS,
    ChatRequest,
    CompletionRequest,
    DetokenizeRequest,
    TokenizeRequest,
    parse,
)
from moreseek.text.chat import encode_chat, opens_thinking

MOST_BODY = 8 << 20
STATIC = Path(__file__).parent / "static"
OPEN_PATHS = ("/health", "/")  # a key guards all others but static files
T = TypeVar("T")


@dataclass
class Served:
    """What a server has and allows. ``queue``: requests that run or wait at most; more are told to come back."""

    models: dict[str, LLM]
    api_key: str | None = None
    queue: int = 256
    running: int = field(default=0, init=False)


def build_app(served: Served) -> Starlette:
    """The application; when it ends, so do the engines."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        for llm in served.models.values():
            await run_in_threadpool(llm.loop.close)

    app = Starlette(
        routes=[
            Route("/", _page),
            Route("/health", _health),
            Route("/v1/models", _models),
            Route("/v1/chat/completions", _chat, methods=["POST"]),
            Route("/v1/completions", _complete, methods=["POST"]),
            Route("/tokenize", _tokenize, methods=["POST"]),
            Route("/detokenize", _detokenize, methods=["POST"]),
            Route("/tokenizer_info", _tokenizer_info),
            Mount("/static", StaticFiles(directory=STATIC)),
        ],
        middleware=[Middleware(_Key, served=served)],
        exception_handlers={RefusedError: _refused, HTTPException: _http, Exception: _defect},
        lifespan=lifespan,
    )
    app.state.served = served
    return app


class _Key:
    """Refuses requests without the key. (By hand: Starlette's base class for middleware holds streams back.)"""

    def __init__(self, app: ASGIApp, served: Served) -> None:
        self.app, self.key = app, served.api_key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer: ASGIApp = self.app
        if scope["type"] == "http" and not self._may(scope):
            error = RefusedError(401, "The API key is missing or wrong.", "invalid_api_key")
            answer = JSONResponse(error.body(), 401, {"www-authenticate": "Bearer"})
        await answer(scope, receive, send)

    def _may(self, scope: Scope) -> bool:
        if self.key is None or scope["path"] in OPEN_PATHS or scope["path"].startswith("/static/"):
            return True
        given = Request(scope).headers.get("authorization", "").removeprefix("Bearer ").strip()
        return hmac.compare_digest(given.encode(), self.key.encode())


# ----------------------------------------------------------------------------------------------------- plain routes


async def _page(_: Request) -> Response:
    headers = {
        "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        "x-content-type-options": "nosniff",
    }
    return Response((STATIC / "chat.html").read_text(encoding="utf-8"), headers=headers, media_type="text/html")


async def _health(request: Request) -> Response:
    served: Served = request.app.state.served
    alive = all(llm.loop.alive for llm in served.models.values())
    return JSONResponse({"status": "ok" if alive else "down"}, 200 if alive else 503)


async def _models(request: Request) -> Response:
    served: Served = request.app.state.served
    data = [
        {"id": name, "object": "model", "created": 0, "owned_by": "moreseek",
         "max_model_len": llm.model.config.max_position_embeddings}
        for name, llm in served.models.items()
    ]  # fmt: skip
    return JSONResponse({"object": "list", "data": data})


async def _tokenize(request: Request) -> Response:
    asked = parse(TokenizeRequest, await _body(request))
    _, llm = _model(request, asked.model)
    ids = await _calmly(lambda: llm.tokenizer.encode(asked.prompt))
    return JSONResponse({"tokens": ids, "count": len(ids), "max_model_len": llm.model.config.max_position_embeddings})


async def _detokenize(request: Request) -> Response:
    asked = parse(DetokenizeRequest, await _body(request))
    _, llm = _model(request, asked.model)
    if any(not 0 <= token < llm.tokenizer.vocab_size for token in asked.tokens):
        raise RefusedError(400, f"tokens: ids run from 0 to {llm.tokenizer.vocab_size - 1}.", param="tokens")
    return JSONResponse({"prompt": await _calmly(lambda: llm.tokenizer.decode(asked.tokens))})


async def _tokenizer_info(request: Request) -> Response:
    _, llm = _model(request, None)
    tokenizer = llm.tokenizer
    bos = None if tokenizer.bos_id is None else tokenizer.decode([tokenizer.bos_id])
    eos = tokenizer.decode([tokenizer.eos_ids[0]]) if tokenizer.eos_ids else None
    return JSONResponse({"eos_token": eos, "bos_token": bos, "chat_template": tokenizer.chat_template})


# ------------------------------------------------------------------------------------------------------ completions


async def _chat(request: Request) -> Response:
    asked = parse(ChatRequest, await _body(request))
    if asked.tools:
        raise RefusedError(400, "tools are not supported by this server.", "unsupported", "tools")
    name, llm = _model(request, asked.model)
    messages = [
        Message(
            role="system" if turn.role == "developer" else turn.role, content=turn.text,
            reasoning_content=turn.reasoning_content or turn.reasoning,
        )
        for turn in asked.messages
    ]  # fmt: skip
    prompt = await _calmly(lambda: encode_chat(llm.tokenizer, messages, add_generation_prompt=True))
    room = _room(llm, prompt)
    asked.max_tokens = asked.max_completion_tokens or asked.max_tokens
    logprobs = (asked.top_logprobs or 0) if asked.logprobs else None
    params = asked.settings(
        room, room, logprobs=logprobs, structured=asked.structure(), thinking_budget=asked.thinking_budget
    )
    jobs = await _calmly(partial(_jobs, llm, prompt, params))
    answer = ChatAnswer(llm, name, jobs, await _calmly(lambda: opens_thinking(llm.tokenizer)))
    if asked.stream:
        options = asked.stream_options
        return await _stream(request, answer.events(options is not None and options.include_usage))
    return JSONResponse(await _unless_gone(request, answer.whole()))


async def _complete(request: Request) -> Response:
    asked = parse(CompletionRequest, await _body(request))
    name, llm = _model(request, asked.model)
    jobs: list[Job] = []
    for given in asked.prompts():
        ids = await _calmly(lambda given=given: llm.tokenizer.encode(given) if isinstance(given, str) else given)
        room = _room(llm, ids)
        scored = asked.echo and asked.logprobs is not None
        params = asked.settings(room, DEFAULT_COMPLETION_TOKENS, logprobs=asked.logprobs, prompt_logprobs=scored)
        jobs += await _calmly(partial(_jobs, llm, ids, params, len(jobs)))
    base = identity("cmpl", name) | {"object": "text_completion"}
    if asked.stream:
        return await _stream(request, _text_events(llm, jobs, base, asked))
    return JSONResponse(await _unless_gone(request, _whole_text(llm, jobs, base, asked)))


async def _whole_text(llm: LLM, jobs: list[Job], base: dict[str, Any], asked: CompletionRequest) -> dict[str, Any]:
    texts = [""] * len(jobs)
    async for piece in merged(llm, jobs):
        texts[piece.job.index] += piece.text
    choices = []
    for job, text in zip(jobs, texts, strict=True):
        sequence, logprobs = job.request, None
        if asked.logprobs is not None:
            tokens, shown = sequence.output, list[dict[int, float] | None](sequence.top_logprobs)
            if asked.echo:
                tokens, shown = [*sequence.prompt, *tokens], [*(sequence.prompt_logprobs or [None]), *shown]
            logprobs = await run_in_threadpool(text_logprobs, llm, tokens, shown, asked.logprobs)
        choices.append({
            "index": job.index, "text": (llm.tokenizer.decode(sequence.prompt) if asked.echo else "") + text,
            "finish_reason": finish_reason(sequence), "logprobs": logprobs,
        } | ({"token_ids": sequence.output} if asked.return_token_ids else {}))  # fmt: skip
    return base | {"choices": choices, "usage": usage(jobs, 0)}


async def _text_events(
    llm: LLM, jobs: list[Job], base: dict[str, Any], asked: CompletionRequest
) -> AsyncIterator[dict[str, Any]]:
    if asked.echo:
        for job in jobs:
            choice = {"index": job.index, "text": llm.tokenizer.decode(job.request.prompt), "finish_reason": None}
            yield base | {"choices": [choice | {"logprobs": None}]}
    async for piece in merged(llm, jobs):
        reason = None if piece.end is None else finish_reason(piece.end)
        if piece.text or reason:
            choice = {"index": piece.job.index, "text": piece.text, "finish_reason": reason, "logprobs": None}
            yield base | {"choices": [choice]}
    if asked.stream_options is not None and asked.stream_options.include_usage:
        yield base | {"choices": [], "usage": usage(jobs, 0)}


# ------------------------------------------------------------------------------------------------------------ parts


async def _body(request: Request) -> bytes:
    raw = bytearray()
    async for part in request.stream():
        raw += part
        if len(raw) > MOST_BODY:
            raise RefusedError(413, f"The request has more than {MOST_BODY >> 20} MiB.", "request_too_large")
    return bytes(raw)


def _model(request: Request, name: str | None) -> tuple[str, LLM]:
    """By its name; the first one where none is named. Raises RefusedError (404)."""
    models = request.app.state.served.models
    name = name or next(iter(models))
    if name not in models:
        known = ", ".join(models)
        raise RefusedError(404, f"The model `{name}` is not served here. Served: {known}.", "model_not_found", "model")
    return name, models[name]


def _room(llm: LLM, prompt: list[int]) -> int:
    context = llm.model.config.max_position_embeddings
    if not prompt:
        raise RefusedError(400, "The prompt is empty: there is nothing to continue.", "invalid_value", "prompt")
    if len(prompt) >= context:
        raise RefusedError(
            400, f"The prompt has {len(prompt)} tokens; the model's context is {context}.", "context_length_exceeded",
            "messages",
        )  # fmt: skip
    return context - len(prompt)


def _jobs(llm: LLM, prompt: list[int], params: SamplingParams, first: int = 0) -> list[Job]:
    """One a completion. Checks the request and compiles its structure, so not for the event loop."""
    return [Job(first + number, llm.engine.request(prompt, params, params.seed + number)) for number in range(params.n)]


async def _calmly(work: Callable[[], T]) -> T:
    """Tokenising, templates and schemas: in a thread, so that nobody else waits. Raises RefusedError."""
    try:
        return await run_in_threadpool(work)
    except InputError as error:
        raise RefusedError(400, str(error), "invalid_value") from None


def _check_queue(request: Request) -> Served:
    served: Served = request.app.state.served
    if served.running >= served.queue:
        raise RefusedError(429, "Too many requests are waiting. Please come back.", "queue_full", retry_s=2)
    return served


async def _stream(request: Request, chunks: AsyncIterator[dict[str, Any]]) -> Response:
    _check_queue(request)

    async def body() -> AsyncIterator[str]:
        served: Served = request.app.state.served
        served.running += 1  # in here, since a body that never begins never ends
        try:
            async with aclosing(chunks) as source:  # pyright: ignore[reportArgumentType]
                async for chunk in source:
                    yield event(chunk)
            yield "data: [DONE]\n\n"
        except RefusedError as error:  # the headers are sent, so it is told in the stream
            yield event(error.body())
        except MoreseekError as error:
            yield event(RefusedError(500, str(error), "engine_error").body())
        finally:
            served.running -= 1

    headers = {"cache-control": "no-cache", "x-accel-buffering": "no"}
    return StreamingResponse(body(), headers=headers, media_type="text/event-stream")


async def _unless_gone(request: Request, work: Any) -> Any:
    """The result of ``work``, which is dropped when the client goes away before."""
    try:
        served = _check_queue(request)
    except RefusedError:
        work.close()
        raise
    served.running += 1
    task = asyncio.ensure_future(work)
    try:
        while not task.done():
            await asyncio.wait([task], timeout=0.5)
            if not task.done() and await request.is_disconnected():
                raise ClientDisconnect
        return task.result()
    finally:
        served.running -= 1
        task.cancel()


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedError)
    return JSONResponse(error.body(), error.status, {"retry-after": str(error.retry_s)} if error.retry_s else None)


async def _http(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse(RefusedError(error.status_code, str(error.detail)).body(), error.status_code)


async def _defect(_: Request, error: Exception) -> Response:
    del error  # the server's log has it
    return JSONResponse(RefusedError(500, "Something went wrong here.").body(), 500)
