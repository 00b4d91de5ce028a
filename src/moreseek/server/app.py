"""The server as an ASGI application: OpenAI's API for one or several models, and a page to chat."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from moreseek.server.chat import ChatAnswer
from moreseek.server.completions import TextAnswer
from moreseek.server.errors import RefusedError
from moreseek.server.gate import Gate
from moreseek.server.jobs import calmly
from moreseek.server.metrics import CONTENT_TYPE
from moreseek.server.openapi import document
from moreseek.server.page import page_routes
from moreseek.server.parsing import parse
from moreseek.server.requests import ChatRequest, CompletionRequest, DetokenizeRequest, TokenizeRequest
from moreseek.server.response_requests import ResponseRequest
from moreseek.server.responses import KeptResponses, ResponseAnswer
from moreseek.server.service import Served, body_of, meter_of, model_of, visit_of
from moreseek.server.streams import GONE, EventStream, refusal_of, unless_gone


def build_app(served: Served) -> Starlette:
    """The application. It loads its first model when it begins; when it ends, so do the engines."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        if served.models.first.state == "unloaded":
            served.models.load(served.models.first)
        yield
        await served.models.close()

    app = Starlette(
        routes=[
            *page_routes(),
            Route("/health", _health),
            Route("/openapi.json", _openapi),
            Route("/v1/models", _models),
            Route("/v1/chat/completions", _chat, methods=["POST"]),
            Route("/v1/completions", _complete, methods=["POST"]),
            Route("/v1/responses", _respond, methods=["POST"]),
            Route("/v1/responses/{id}", _kept_response, methods=["GET", "DELETE"]),
            Route("/tokenize", _tokenize, methods=["POST"]),
            Route("/detokenize", _detokenize, methods=["POST"]),
            Route("/tokenizer_info", _tokenizer_info),
            Route("/metrics", _metrics),
        ],
        middleware=[Middleware(Gate, served=served)],
        exception_handlers={RefusedError: _refused, HTTPException: _http, ClientDisconnect: _gone, Exception: _refused},
        lifespan=lifespan,
    )
    app.state.served = served
    app.state.responses = KeptResponses()
    return app


# ----------------------------------------------------------------------------------------------------- plain routes


async def _health(request: Request) -> Response:
    served: Served = request.app.state.served
    status = "draining" if served.draining else served.models.health()
    body = {"status": status, "models": served.models.states()}
    return JSONResponse(body, 200 if status == "ok" else 503)


async def _metrics(request: Request) -> Response:
    served: Served = request.app.state.served
    return Response(served.metrics.text(served.models), media_type=CONTENT_TYPE)


async def _openapi(request: Request) -> Response:
    _, llm = await model_of(request, None)
    return JSONResponse(await run_in_threadpool(document, llm.tokenizer.vocab_size))


async def _models(request: Request) -> Response:
    served: Served = request.app.state.served
    data = [
        {"id": name, "object": "model", "created": model.created, "owned_by": "moreseek",
         "max_model_len": model.context, "state": model.state, "documents": name in served.documents}
        for name, model in served.models.named.items()
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
    name, llm = await model_of(request, asked.model)
    documents = request.app.state.served.documents.get(name)
    answer = await ChatAnswer.to(asked, name, llm, meter_of(request), documents)
    return await _answered(request, answer)


async def _complete(request: Request) -> Response:
    asked = parse(CompletionRequest, await body_of(request))
    name, llm = await model_of(request, asked.model)
    answer = await TextAnswer.to(asked, name, llm, meter_of(request))
    return await _answered(request, answer)


async def _respond(request: Request) -> Response:
    asked = parse(ResponseRequest, await body_of(request))
    name, llm = await model_of(request, asked.model)
    served: Served = request.app.state.served
    kept, documents = request.app.state.responses, served.documents.get(name)
    answer = await ResponseAnswer.to(asked, name, llm, kept, meter_of(request), documents)
    return await _answered(request, answer, named=True)


async def _answered(
    request: Request, answer: ChatAnswer | TextAnswer | ResponseAnswer, named: bool = False
) -> Response:
    """As events or whole, once there is room for its completions; it is dropped when the client goes.

    ``named``: events have their type as their name, and no [DONE] follows the last one. Raises RefusedError (429).
    """
    visit = visit_of(request)
    assert visit.model is not None
    turn = visit.model.queue.join(visit.key, len(answer.jobs))
    if answer.asked.stream:
        return EventStream(answer.events(), turn, visit, named)
    return await unless_gone(request, turn, answer.whole)


async def _kept_response(request: Request) -> Response:
    kept: KeptResponses = request.app.state.responses
    id = request.path_params["id"]
    if request.method == "DELETE":
        kept.remove(id)
        return JSONResponse({"id": id, "object": "response.deleted", "deleted": True})
    return JSONResponse(kept.find(id).response)


# ----------------------------------------------------------------------------------------------------------- errors


async def _refused(_: Request, error: Exception) -> Response:
    return refusal_of(error).response()


async def _http(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    answer = RefusedError(error.status_code, str(error.detail)).response()
    answer.headers.update(error.headers or {})
    return answer


async def _gone(_: Request, error: Exception) -> Response:
    del error  # the client left before it had sent its request
    return Response(status_code=GONE)
