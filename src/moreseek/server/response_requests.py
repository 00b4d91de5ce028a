"""What clients send to /v1/responses, as the chat that it stands for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from moreseek.server.parsing import Body, Few, Lenient, Name, Positive, Some
from moreseek.server.requests import ChatMessage, ChatRequest, ResponseFormat, Retrieval
from moreseek.server.tools import MOST_TOOLS, Function, FunctionCall, FunctionName, NamedTool, Tool, ToolCall

WITH_LOGPROBS = "message.output_text.logprobs"


class TextPart(Lenient):
    """A piece of a message's content. Only text is understood."""

    type: Literal["input_text", "output_text", "text"]
    text: str


class MessageItem(Lenient):
    """A message of either side."""

    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[TextPart]


class ReasoningText(Lenient):
    """A piece of thinking."""

    type: Literal["reasoning_text"]
    text: str


class ReasoningItem(Lenient):
    """The thinking before a message or a call."""

    type: Literal["reasoning"]
    content: list[ReasoningText] | None = None


class FunctionCallItem(Lenient):
    """A call that the model made."""

    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str


class FunctionOutputItem(Lenient):
    """The result of a call."""

    type: Literal["function_call_output"]
    call_id: str
    output: str | list[TextPart]


Item = FunctionCallItem | FunctionOutputItem | ReasoningItem | MessageItem


class OfFunction(Lenient):
    """The kind of tool that is understood; looked at first."""

    type: Literal["function"]


class FunctionTool(Function, OfFunction):
    """A tool in the flat form that this route has."""


class NamedFunction(FunctionName, OfFunction):
    """The one function that has to be called."""


class TextFormat(Lenient):
    """Structured output, in the flat form that this route has."""

    type: Literal["text", "json_object", "json_schema"]
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")


class TextSettings(Lenient):
    """Of the answer's text."""

    format: TextFormat | None = None


class ReasoningSettings(Lenient):
    """Of the thinking."""

    effort: str | None = None


class ResponseRequest(Body):
    """POST /v1/responses."""

    model: Name
    input: Name | Some[Item]
    instructions: str | None = None
    previous_response_id: str | None = None
    store: bool = True
    stream: bool = False
    max_output_tokens: Positive | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_logprobs: Few | None = None
    include: list[str] | None = None
    text: TextSettings | None = None
    tools: list[FunctionTool] | None = Field(default=None, max_length=MOST_TOOLS)
    tool_choice: Literal["none", "auto", "required"] | NamedFunction | None = None
    parallel_tool_calls: bool = True
    reasoning: ReasoningSettings | None = None
    metadata: dict[str, str] | None = None
    retrieval: bool | Retrieval | None = None

    @property
    def logprobs(self) -> bool:
        return WITH_LOGPROBS in (self.include or [])

    def messages(self) -> list[ChatMessage]:
        """The input as turns of a chat."""
        if isinstance(self.input, str):
            return [ChatMessage(role="user", content=self.input)]
        return turns_of(self.input)

    def chat(self, messages: list[ChatMessage]) -> ChatRequest:
        """The same request for a chat of these turns."""
        first = [ChatMessage(role="system", content=self.instructions)] if self.instructions else []
        choice = self.tool_choice
        if isinstance(choice, NamedFunction):
            choice = NamedTool(type="function", function=FunctionName(name=choice.name))
        return ChatRequest(
            model=self.model, messages=first + messages, stream=self.stream, temperature=self.temperature,
            top_p=self.top_p, max_completion_tokens=self.max_output_tokens, logprobs=self.logprobs,
            top_logprobs=self.top_logprobs, response_format=self._format(), tools=self._tools(), tool_choice=choice,
            parallel_tool_calls=self.parallel_tool_calls,
            reasoning_effort=self.reasoning.effort if self.reasoning else None, retrieval=self.retrieval,
        )  # fmt: skip

    def _format(self) -> ResponseFormat | None:
        wanted = self.text.format if self.text else None
        if wanted is None:
            return None
        return ResponseFormat(type=wanted.type, json_schema={"schema": wanted.schema_})

    def _tools(self) -> list[Tool] | None:
        if self.tools is None:
            return None
        return [Tool(type="function", function=Function(**tool.model_dump(exclude={"type"}))) for tool in self.tools]


def turns_of(items: Sequence[Item]) -> list[ChatMessage]:
    """Items as turns: an assistant's thinking, text and calls that follow one another are one turn."""
    turns: list[ChatMessage] = []
    own: ChatMessage | None = None  # the assistant's turn that goes on
    for item in items:
        if isinstance(item, FunctionOutputItem):
            turns.append(ChatMessage(role="tool", content=_text(item.output), tool_call_id=item.call_id))
            own = None
        elif isinstance(item, MessageItem) and item.role != "assistant":
            turns.append(ChatMessage(role=item.role, content=_text(item.content)))
            own = None
        else:
            if own is None or (own.content is not None and not isinstance(item, FunctionCallItem)):
                own = ChatMessage(role="assistant")
                turns.append(own)
            _add(own, item)
    return turns


def _add(turn: ChatMessage, item: MessageItem | ReasoningItem | FunctionCallItem) -> None:
    if isinstance(item, MessageItem):
        turn.content = _text(item.content)
    elif isinstance(item, ReasoningItem):
        turn.reasoning_content = (turn.reasoning_content or "") + "".join(part.text for part in item.content or [])
    else:
        function = FunctionCall(name=item.name, arguments=item.arguments)
        turn.tool_calls = [*(turn.tool_calls or []), ToolCall(id=item.call_id, function=function)]


def _text(content: str | list[TextPart]) -> str:
    return content if isinstance(content, str) else "".join(part.text for part in content)
