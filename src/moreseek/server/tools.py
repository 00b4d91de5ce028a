"""Tools: what a request offers, how the model is told, and what it writes where it has to call one.

Templates that know tools are handed them. Others get them as text, in the words and marks of Hermes and Qwen:
https://github.com/NousResearch/Hermes-Function-Calling
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from moreseek.engine.sampling import Structure
from moreseek.errors import InputError
from moreseek.records import Message
from moreseek.server.errors import RefusedError
from moreseek.server.parsing import Lenient
from moreseek.text.chat import ToolTurn
from moreseek.text.tokenizer import Tokenizer

CALL_OPEN, CALL_CLOSE = "<tool_call>", "</tool_call>"
MOST_TOOLS = 128
SPACES = "[ \\n]{0,1}"  # between the parts of a forced call's arguments
OFFER = """# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
{tools}
</tools>

For each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:
<tool_call>
{{"name": <function-name>, "arguments": <args-json-object>}}
</tool_call>"""


class Function(Lenient):
    """A function that the model may call. ``parameters`` is a JSON schema."""

    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_.-]{1,64}$")]
    description: str | None = None
    parameters: dict[str, Any] | None = None


class Tool(Lenient):
    """OpenAI's form of a function."""

    type: Literal["function"]
    function: Function


class FunctionName(Lenient):
    """Of a function that has to be called."""

    name: str


class NamedTool(Lenient):
    """The one tool that has to be called."""

    type: Literal["function"]
    function: FunctionName


class FunctionCall(Lenient):
    """A call that an assistant made. ``arguments`` is a JSON object as text."""

    name: str
    arguments: str


class ToolCall(Lenient):
    """OpenAI's form of a call."""

    id: str
    type: Literal["function"] = "function"
    function: FunctionCall


ToolChoice = Literal["none", "auto", "required"] | NamedTool


def offered(tools: Sequence[Tool], choice: ToolChoice | None) -> list[Tool]:
    """The tools that the model is told of and may call. Raises RefusedError for a choice that there is not."""
    if isinstance(choice, NamedTool):
        found = [tool for tool in tools if tool.function.name == choice.function.name]
        if not found:
            raise RefusedError(400, f"tool_choice: there is no tool {choice.function.name!r}.", param="tool_choice")
        return found
    if choice == "required" and not tools:
        raise RefusedError(400, "tool_choice is required, but there are no tools.", param="tool_choice")
    return [] if choice == "none" else list(tools)


def structure(
    tools: Sequence[Tool], choice: ToolChoice | None, several: bool, answer: Structure | None, tokenizer: Tokenizer
) -> Structure | None:
    """What the text must look like: calls where they are asked for; or else the answer's own structure, or calls.

    ``tools`` are those of ``offered``; ``several``: whether more than one call may be made. Raises InputError.
    """
    forced = choice == "required" or isinstance(choice, NamedTool)
    if not tools or (not forced and answer is None):
        return answer
    marks = [mark if mark in tokenizer.special_tokens else f'"{mark}"' for mark in (CALL_OPEN, CALL_CLOSE)]
    several = several and not isinstance(choice, NamedTool)
    rules = [
        "start: calls" if forced else "start: calls | answer",
        'calls: call ("\\n" call)*' if several else "calls: call",
        f'call: {marks[0]} "\\n" ({" | ".join(f"f{i}" for i in range(len(tools)))}) "\\n" {marks[1]}',
    ]
    for i, tool in enumerate(tools):
        start = json.dumps(f'{{"name": "{tool.function.name}", "arguments": ')
        rules += [f'f{i}: {start} a{i} "}}"', f"a{i}: %json {_schema(tool.function.parameters)}"]
    if not forced and answer is not None:
        rules.append(f"answer: %json {_schema(json.loads(answer.text) if answer.text else None, open=True)}")
    return Structure("grammar", "\n".join(rules))


def _schema(schema: dict[str, Any] | bool | None, *, open: bool = False) -> str:
    """A schema of objects as llguidance's grammars take it. None: no field, or any where it is ``open``."""
    if schema is None:
        schema = {"properties": {}, "additionalProperties": open}
    if isinstance(schema, bool):
        raise InputError("response_format: beside tools the schema has to be an object.")
    return json.dumps({"type": "object", **schema, "x-guidance": {"whitespace_pattern": SPACES}})


# ------------------------------------------------------------------------------------------- what the model is told


def knows_tools(tokenizer: Tokenizer) -> bool:
    """Whether the chat template shows tools and calls itself."""
    return re.search(r"\btools\b", tokenizer.chat_template or "") is not None


def as_text(turns: Sequence[ToolTurn], tools: Sequence[Tool]) -> list[Message]:
    """Turns for a template that knows no tools: the offer in the system turn, calls and results as text."""
    told: list[Message] = []
    for turn in turns:
        if turn.role == "tool":
            result = f"<tool_response>\n{turn.content}\n</tool_response>"
            if told and told[-1].role == "user" and told[-1].content.startswith("<tool_response>"):
                told[-1] = told[-1].model_copy(update={"content": f"{told[-1].content}\n{result}"})
            else:
                told.append(Message(role="user", content=result))
            continue
        calls = [call["function"] for call in turn.tool_calls or ()]
        parts = [turn.content] if turn.content else []
        parts += [f"{CALL_OPEN}\n{json.dumps(call, ensure_ascii=False)}\n{CALL_CLOSE}" for call in calls]
        told.append(Message(role=turn.role, content="\n".join(parts), reasoning_content=turn.reasoning_content))
    if tools:
        offer = OFFER.format(tools="\n".join(json.dumps(dump(tool), ensure_ascii=False) for tool in tools))
        if told[0].role == "system":
            told[0] = told[0].model_copy(update={"content": f"{told[0].content}\n\n{offer}"})
        else:
            told.insert(0, Message(role="system", content=offer))
    return told


def dump(tool: Tool) -> dict[str, Any]:
    """A tool as templates show it."""
    return tool.model_dump(exclude_none=True)


def call_for_template(call: ToolCall) -> dict[str, Any]:
    """A call with its arguments as an object, which templates write down themselves. Raises RefusedError."""
    try:
        arguments = json.loads(call.function.arguments or "{}")
    except (ValueError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        raise RefusedError(
            400, f"tool_calls: the arguments of {call.function.name} are not a JSON object.", param="messages"
        )
    return {"id": call.id, "type": "function", "function": {"name": call.function.name, "arguments": arguments}}
