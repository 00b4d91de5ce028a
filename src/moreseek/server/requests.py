"""What clients send, checked and turned into settings of the engine."""

from __future__ import annotations

import secrets
from typing import Annotated, Any, Literal

from pydantic import Field

from moreseek.engine.sampling import SamplingParams, Structure
from moreseek.errors import InputError
from moreseek.server.errors import RefusedError
from moreseek.server.parsing import WHOLE, Body, Few, Id, Lenient, Name, Positive, Some, Whole
from moreseek.server.tools import MOST_TOOLS, Tool, ToolCall, ToolChoice, call_for_template
from moreseek.text.chat import ToolTurn

MOST_N = 16
MOST_PASSAGES = 16
DEFAULT_COMPLETION_TOKENS = 16  # of /v1/completions, as with OpenAI; a chat may fill the context


class Part(Lenient):
    """A piece of a message's content. Only text is understood."""

    type: Literal["text"]
    text: str


class ChatMessage(Lenient):
    """One turn."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[Part] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[ToolCall] | None = Field(default=None, max_length=MOST_TOOLS)
    tool_call_id: str | None = None
    name: str | None = None

    @property
    def text(self) -> str:
        if isinstance(self.content, list):
            return "".join(part.text for part in self.content)
        return self.content or ""

    def turn(self) -> ToolTurn:
        """As templates read it. Raises RefusedError where a call's arguments are no JSON object."""
        calls = tuple(map(call_for_template, self.tool_calls)) if self.tool_calls else None
        return ToolTurn(
            role="system" if self.role == "developer" else self.role, content=self.text, name=self.name,
            reasoning_content=self.reasoning_content or self.reasoning, tool_calls=calls,
            tool_call_id=self.tool_call_id,
        )  # fmt: skip


class StreamOptions(Lenient):
    """Of a streamed answer."""

    include_usage: bool = False


class ResponseFormat(Lenient):
    """OpenAI's structured output."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: dict[str, Any] | None = None


class Thinking(Lenient):
    """DeepSeek's switch."""

    type: Literal["enabled", "disabled"]


class TemplateSettings(Lenient):
    """vLLM's switch, under the names that templates have for it."""

    enable_thinking: bool | None = None
    thinking: bool | None = None


class Retrieval(Lenient):
    """Which of a model's documents are looked into: ``k`` passages at most; of these files or folders alone."""

    k: Annotated[int, Field(ge=1, le=MOST_PASSAGES), WHOLE] = 4
    files: Annotated[list[Name], Field(max_length=20)] | None = None


class Sampling(Body):
    """What both kinds of requests have."""

    model: Name
    max_tokens: Positive | None = None
    n: Annotated[int, Field(ge=1, le=MOST_N), WHOLE] = 1
    temperature: float | None = None
    top_p: float | None = None
    top_k: Whole | None = None
    min_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    seed: Whole | None = None
    stop: str | list[str] | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    min_tokens: Whole | None = None
    ignore_eos: bool | None = None
    stop_token_ids: list[Id] | None = None
    include_stop_str_in_output: bool = False

    def settings(self, room: int, default_tokens: int, **more: Any) -> SamplingParams:
        """``room``: tokens that the context has left. Raises RefusedError."""
        fields: dict[str, Any] = {
            name: value
            for name in ("temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty",
                         "repetition_penalty", "seed", "min_tokens", "ignore_eos")
            if (value := getattr(self, name)) is not None
        }  # fmt: skip
        fields.setdefault("seed", secrets.randbits(63))  # who wants the same text again says a seed
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
    max_completion_tokens: Positive | None = None
    logprobs: bool = False
    top_logprobs: Few | None = None
    response_format: ResponseFormat | None = None
    thinking_budget: Id | None = None
    tools: list[Tool] | None = Field(default=None, max_length=MOST_TOOLS)
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool = True
    thinking: Thinking | None = None
    reasoning_effort: str | None = None
    chat_template_kwargs: TemplateSettings | None = None
    chat_template: str | None = None
    continue_final_message: bool = False
    retrieval: bool | Retrieval | None = None

    @property
    def switch(self) -> dict[str, bool]:
        """Whether to think, under the names that templates have for it; nothing where it was not said."""
        said = self.chat_template_kwargs or TemplateSettings()
        wanted = said.thinking if said.enable_thinking is None else said.enable_thinking
        if wanted is None and self.thinking is not None:
            wanted = self.thinking.type == "enabled"
        if wanted is None and self.reasoning_effort == "none":
            wanted = False
        return {} if wanted is None else {"enable_thinking": wanted, "thinking": wanted}

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

    prompt: Name | Some[Name] | Some[Id] | Some[list[Id]]
    echo: bool = False
    logprobs: Few | None = None
    return_token_ids: bool = False

    def prompts(self) -> list[str | list[int]]:
        """One or several, as text or ids."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if self.prompt and isinstance(self.prompt[0], int):
            return [self.prompt]  # pyright: ignore[reportReturnType]
        return list(self.prompt)  # pyright: ignore[reportReturnType]


class TokenizeRequest(Body):
    """POST /tokenize."""

    prompt: str
    model: Name | None = None


class DetokenizeRequest(Body):
    """POST /detokenize."""

    tokens: list[Id]
    model: Name | None = None
