"""The server as an ASGI application: OpenAI's API for one or several models, and a page to chat."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from moreseek.engine.llm import LLM
from moreseek.records import Message
from moreseek.server.answers import ChatAnswer, Job, finish_reason, identity, merged, text_logprobs, usage
from moreseek.server.errors import RefusedError
from moreseek.server.gate import Gate
from moreseek.server.metrics import CONTENT_TYPE
from moreseek.server.models import Models
from moreseek.server.requests import (
    DEFAULT_COMPLETION_TOKENS,
    ChatRequest,
    CompletionRequest,
    DetokenizeRequest,
    TokenizeRequest,
    parse,
)
from moreseek.server.service import Served, body_of, calmly, jobs_of, model_of, room, stream, whole
from moreseek.server.streams import GONE, refusal_of
from moreseek.text.chat import encode_chat, opens_thinking

STATIC = Path(__file__).parent / "static"


def build_app(served: Served) -> Starlette:
    """The application. It loads its first model when it begins; when it ends, so do the engines."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        served.models.load(served.models.first)
        yield
        await served.models.close()

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
            Route("/metrics", _metrics),
            Mount("/static", StaticFiles(directory=STATIC)),
        ],
        middleware=[Middleware(Gate, served=served)],
        exception_handlers={RefusedError: _refused, HTTPException: _http, ClientDisconnect: _gone, Exception: _refused},
        lifespan=lifespan,
    )
    app.state.served = served
    return app


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
    status = "draining" if served.draining else served.models.health()
    body = {"status": status, "models": served.models.states()}
    return JSONResponse(body, 200 if status == "ok" else 503)


async def _metrics(request: Request) -> Response:
    served: Served = request.app.state.served
    return Response(served.metrics.text(served.models), media_type=CONTENT_TYPE)


async def _models(request: Request) -> Response:
    models: Models = request.app.state.served.models
    data = [
        {"id": name, "object": "model", "created": model.created, "owned_by": "moreseek",
         "max_model_len": model.context, "state": model.state}
        for name, model in models.named.items()
    ]  # fmt: skip
    return JSONResponse({"object": "list", "data": data})


async def _tokenize(request: Request) -> Response:
    asked = parse(TokenizeRequest, await body_of(request))
    _, llm = await model_of(request, asked.model)
    ids = await calmly(lambda: llm.tokenizer.encode(asked.prompt))
    return JSONResponse({"tokens": ids, "count": len(ids), "max_model_len": llm.model.config.max_position_embeddings})


async def _detokenize(request: Request) -> Response:
    asked = parse(DetokenizeRequest, await body_of(request))
    _, llm = await model_of(request, asked.model)
    if any(not 0 <= token < llm.tokenizer.vocab_size for token in asked.tokens):
        raise RefusedError(400, f"tokens: ids run from 0 to {llm.tokenizer.vocab_size - 1}.", param="tokens")
    return JSONResponse({"prompt": await calmly(lambda: llm.tokenizer.decode(asked.tokens))})


async def _tokenizer_info(request: Request) -> Response:
    _, llm = await model_of(request, None)
    tokenizer = llm.tokenizer
    bos = None if tokenizer.bos_id is None else tokenizer.decode([tokenizer.bos_id])
    eos = tokenizer.decode([tokenizer.eos_ids[0]]) if tokenizer.eos_ids else None
    return JSONResponse({"eos_token": eos, "bos_token": bos, "chat_template": tokenizer.chat_template})


# ------------------------------------------------------------------------------------------------------ completions


async def _chat(request: Request) -> Response:
    asked = parse(ChatRequest, await body_of(request))
    if asked.tools:
        raise RefusedError(400, "tools are not supported by this server.", "unsupported", "tools")
    name, llm = await model_of(request, asked.model)
    messages = [
        Message(
            role="system" if turn.role == "developer" else turn.role, content=turn.text,
            reasoning_content=turn.reasoning_content or turn.reasoning,
        )
        for turn in asked.messages
    ]  # fmt: skip
    prompt = await calmly(lambda: encode_chat(llm.tokenizer, messages, add_generation_prompt=True))
    left = room(llm, prompt)
    asked.max_tokens = asked.max_completion_tokens or asked.max_tokens
    logprobs = (asked.top_logprobs or 0) if asked.logprobs else None
    params = asked.settings(
        left, left, logprobs=logprobs, structured=asked.structure(), thinking_budget=asked.thinking_budget
    )
    jobs = await jobs_of(request, llm, prompt, params)
    answer = ChatAnswer(llm, name, jobs, await calmly(lambda: opens_thinking(llm.tokenizer)))
    if asked.stream:
        options = asked.stream_options
        return stream(request, answer.events(options is not None and options.include_usage), len(jobs))
    return await whole(request, answer.whole(), len(jobs))


async def _complete(request: Request) -> Response:
    asked = parse(CompletionRequest, await body_of(request))
    name, llm = await model_of(request, asked.model)
    jobs: list[Job] = []
    for given in asked.prompts():
        ids = await calmly(lambda given=given: llm.tokenizer.encode(given) if isinstance(given, str) else given)
        left = room(llm, ids)
        scored = asked.echo and asked.logprobs is not None
        params = asked.settings(left, DEFAULT_COMPLETION_TOKENS, logprobs=asked.logprobs, prompt_logprobs=scored)
        jobs += await jobs_of(request, llm, ids, params, len(jobs))
    base = identity("cmpl", name) | {"object": "text_completion"}
    if asked.stream:
        return stream(request, _text_events(llm, jobs, base, asked), len(jobs))
    return await whole(request, _whole_text(llm, jobs, base, asked), len(jobs))


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
        })  # fmt: skip
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


# ----------------------------------------------------------------------------------------------------------- errors


async def _refused(_: Request, error: Exception) -> Response:
    return refusal_of(error).response()


async def _http(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return RefusedError(error.status_code, str(error.detail)).response()


async def _gone(_: Request, error: Exception) -> Response:
    del error  # the client left before it had sent its request
    return Response(status_code=GONE)
