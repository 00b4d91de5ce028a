"""What clients send, checked and turned into settings of the engine. Unknown fields are ignored, as by others."""

from __future__ import annotations

import json
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from moreseek.engine.sampling import SamplingParams, Structure
from moreseek.errors import InputError
from moreseek.server.errors import RefusedError

MOST_N = 16
DEFAULT_COMPLETION_TOKENS = 16  # of /v1/completions, as with OpenAI; a chat may fill the context


Kind = TypeVar("Kind", bound=BaseModel)


class _Lenient(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)


class Part(_Lenient):
    """A piece of a message's content. Only text is understood."""

    type: Literal["text"]
    text: str


class ChatMessage(_Lenient):
    """One turn."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[Part] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None

    @property
    def text(self) -> str:
        if isinstance(self.content, list):
            return "".join(part.text for part in self.content)
        return self.content or ""


class StreamOptions(_Lenient):
    """Of a streamed answer."""

    include_usage: bool = False


class ResponseFormat(_Lenient):
    """OpenAI's structured output."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: dict[str, Any] | None = None


class Sampling(_Lenient):
    """What both kinds of requests have."""

    model: str
    max_tokens: int | None = Field(None, ge=1)
    n: int = Field(1, ge=1, le=MOST_N)
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    min_tokens: int | None = None
    ignore_eos: bool | None = None
    stop_token_ids: list[int] | None = None
    include_stop_str_in_output: bool = False

    def settings(self, room: int, default_tokens: int, **more: Any) -> SamplingParams:
        """``room``: tokens that the context has left. Raises RefusedError."""
        fields: dict[str, Any] = {
            name: value
            for name in ("temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty",
                         "repetition_penalty", "seed", "min_tokens", "ignore_eos")
            if (value := getattr(self, name)) is not None
        }  # fmt: skip
        if fields.get("top_k") == -1:  # "off" in vLLM's words
            del fields["top_k"]
        wanted = self.max_tokens or default_tokens
        if self.max_tokens is not None and self.max_tokens > room:
            raise RefusedError(
                400, f"max_tokens {self.max_tokens} is more than the {room} tokens that the prompt leaves free.",
                "context_length_exceeded", "max_tokens",
            )  # fmt: skip
        fields |= {"n": self.n, "max_tokens": min(wanted, room), "include_stop": self.include_stop_str_in_output}
        fields |= {"stop": self.stop or (), "stop_token_ids": tuple(self.stop_token_ids or ())}
        try:
            fields["logit_bias"] = {int(id): bias for id, bias in (self.logit_bias or {}).items()}
        except ValueError:
            raise RefusedError(400, "logit_bias: token ids are integers.", param="logit_bias") from None
        try:
            return SamplingParams(**(fields | more))
        except InputError as error:
            raise RefusedError(400, str(error), "invalid_value", str(error).split(" ", 1)[0].rstrip(":")) from None


class ChatRequest(Sampling):
    """POST /v1/chat/completions."""

    messages: list[ChatMessage] = Field(min_length=1, max_length=10_000)
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool = False
    top_logprobs: int | None = Field(None, ge=0, le=20)
    response_format: ResponseFormat | None = None
    thinking_budget: int | None = Field(None, ge=0)
    tools: list[Any] | None = None

    def structure(self) -> Structure | None:
        """Raises RefusedError where the schema is missing or is no JSON."""
        wanted = self.response_format
        if wanted is None or wanted.type == "text":
            return None
        if wanted.type == "json_object":
            return Structure("json_object")
        schema = (wanted.json_schema or {}).get("schema")
        if not isinstance(schema, dict | bool):
            raise RefusedError(400, "response_format.json_schema.schema is missing.", param="response_format")
        try:
            return Structure.json_schema(schema)
        except InputError as error:
            raise RefusedError(400, str(error), param="response_format") from None


class CompletionRequest(Sampling):
    """POST /v1/completions."""

    prompt: str | list[str] | list[int] | list[list[int]]
    echo: bool = False
    logprobs: int | None = Field(None, ge=0, le=20)
    return_token_ids: bool = False

    def prompts(self) -> list[str | list[int]]:
        """One or several, as text or ids."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if self.prompt and isinstance(self.prompt[0], int):
            return [self.prompt]  # pyright: ignore[reportReturnType]
        return list(self.prompt)  # pyright: ignore[reportReturnType]


class TokenizeRequest(_Lenient):
    """POST /tokenize."""

    prompt: str
    model: str | None = None


class DetokenizeRequest(_Lenient):
    """POST /detokenize."""

    tokens: list[int]
    model: str | None = None


def parse(kind: type[Kind], raw: bytes) -> Kind:
    """A request from its JSON. Raises RefusedError, which names the field."""
    try:
        return kind.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"] if not isinstance(part, int) or part < 10_000)
        what = "the body is not valid JSON" if first["type"] == "json_invalid" else f"{where}: {first['msg']}"
        raise RefusedError(400, f"{what}.", "invalid_value", where or None) from None
    except (RecursionError, UnicodeDecodeError, json.JSONDecodeError):
        raise RefusedError(400, "the body is not valid JSON.", "invalid_value") from None
