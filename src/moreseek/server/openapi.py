"""The OpenAPI document, made of the classes that check the requests, so that it cannot say anything else."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

import moreseek
from moreseek.server.requests import ChatRequest, CompletionRequest, DetokenizeRequest, TokenizeRequest
from moreseek.server.response_requests import ResponseRequest

REFERENCE = "#/components/schemas/{model}"
JSON, EVENTS, TEXT = "application/json", "text/event-stream", "text/plain"


class ErrorBody(BaseModel):
    """What was wrong; ``code`` and ``type`` are OpenAI's words."""

    message: str
    type: Literal["invalid_request_error", "rate_limit_error", "server_error"]
    param: str | None
    code: str | None


class Error(BaseModel):
    """How every request is refused."""

    error: ErrorBody


POSTS: list[tuple[str, str, type[BaseModel], bool]] = [
    ("/v1/chat/completions", "Answer a chat", ChatRequest, True),
    ("/v1/completions", "Go on from a text", CompletionRequest, True),
    ("/v1/responses", "Answer as items", ResponseRequest, True),
    ("/tokenize", "A text's token ids", TokenizeRequest, False),
    ("/detokenize", "The text of token ids", DetokenizeRequest, False),
]
GETS = [
    ("/v1/models", "What is served"),
    ("/tokenizer_info", "The tokenizer's end tokens and chat template"),
    ("/health", "Whether the engines answer"),
    ("/openapi.json", "This document"),
    ("/metrics", "For Prometheus"),
]
REFUSALS = {
    "400": "Something in the request is wrong; param names it", "401": "The key is missing or wrong",
    "404": "There is nothing of this name", "413": "The body is too large", "429": "The queue is full; see Retry-After",
    "500": "The server is at fault", "503": "Not ready; see Retry-After",
}  # fmt: skip


def document(vocab_size: int) -> dict[str, Any]:
    """OpenAPI 3.1. ``vocab_size``: of the model that is meant where none is named."""
    models = [model for _, _, model, _ in POSTS]
    _, found = models_json_schema([(model, "validation") for model in [*models, Error]], ref_template=REFERENCE)
    found["$defs"]["DetokenizeRequest"]["properties"]["tokens"]["items"]["maximum"] = vocab_size - 1
    paths: dict[str, Any] = {path: {"get": _operation(summary)} for path, summary in GETS}
    paths["/metrics"]["get"]["responses"]["200"]["content"] = {TEXT: {"schema": {"type": "string"}}}
    for path, summary, model, streams in POSTS:
        body = {"required": True, "content": {JSON: {"schema": _reference(model)}}}
        paths[path] = {"post": _operation(summary, streams=streams) | {"requestBody": body}}
    id = {"name": "id", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    kept = {"get": _operation("A kept response"), "delete": _operation("Forget a kept response")}
    paths["/v1/responses/{id}"] = {"parameters": [id], **kept}
    return {
        "openapi": "3.1.0",
        "info": {"title": "moreseek", "version": moreseek.__version__, "summary": "OpenAI's API over your models"},
        "paths": paths,
        "components": {
            "schemas": found["$defs"], "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"key": []}, {}],
    }  # fmt: skip


def _operation(summary: str, *, streams: bool = False) -> dict[str, Any]:
    kinds: dict[str, Any] = {JSON: {"schema": {"type": "object"}}}
    if streams:
        kinds[EVENTS] = {}  # OpenAPI 3.1 has no words for a stream of events
    refusals = {
        status: {"description": told, "content": {JSON: {"schema": _reference(Error)}}}
        for status, told in REFUSALS.items()
    }
    return {"summary": summary, "responses": {"200": {"description": "OK", "content": kinds}, **refusals}}


def _reference(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": REFERENCE.format(model=model.__name__)}
