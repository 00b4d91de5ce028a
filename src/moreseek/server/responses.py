"""OpenAI's responses: /v1/responses, for text and calls. A whole answer is what its stream ends with."""

from __future__ import annotations

import time
import uuid
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter

from moreseek.engine.llm import LLM
from moreseek.server.chat import ChatAnswer, Delta
from moreseek.server.documents.library import Documents
from moreseek.server.errors import RefusedError
from moreseek.server.metrics import Meter
from moreseek.server.requests import ChatMessage
from moreseek.server.response_requests import Item, ResponseRequest, turns_of

MOST_KEPT, MOST_CHARACTERS = 1_000, 32 << 20
ITEMS = TypeAdapter(list[Item])


@dataclass
class Kept:
    """A response that can be gone on from: the turns up to its end, without instructions."""

    response: dict[str, Any]
    turns: list[ChatMessage]

    @property
    def size(self) -> int:
        """About how many characters it holds."""
        return sum(len(turn.text) + len(turn.reasoning_content or "") + 200 for turn in self.turns)


@dataclass
class KeptResponses:
    """The latest responses, in memory and bounded; they are gone when the server ends."""

    _kept: OrderedDict[str, Kept] = field(default_factory=OrderedDict)
    _size: int = 0

    def add(self, kept: Kept) -> None:
        """Keep one; the oldest make room."""
        self._kept[kept.response["id"]] = kept
        self._size += kept.size
        while len(self._kept) > MOST_KEPT or self._size > MOST_CHARACTERS:
            self._size -= self._kept.popitem(last=False)[1].size

    def find(self, id: str) -> Kept:
        """Raises RefusedError (404)."""
        if id not in self._kept:
            raise RefusedError(
                404, f"There is no response {id[:80]!r} here, or no longer. Send the earlier turns as input.",
                "response_not_found", "previous_response_id",
            )  # fmt: skip
        return self._kept[id]

    def remove(self, id: str) -> None:
        """Forget one. Raises RefusedError (404)."""
        self._size -= self.find(id).size
        del self._kept[id]


class ResponseAnswer:
    """The answer to a request: events as pieces come, each with its number."""

    def __init__(self, chat: ChatAnswer, asked: ResponseRequest, turns: list[ChatMessage], kept: KeptResponses) -> None:
        self.chat, self.asked, self.turns, self.kept, self.jobs = chat, asked, turns, kept, chat.jobs
        self.id, self.created = _new("resp"), int(time.time())
        self.output: list[dict[str, Any]] = []
        self._open: dict[str, Any] | None = None  # the item of ``output`` that goes on
        self._number = 0

    @classmethod
    async def to(
        cls,
        asked: ResponseRequest,
        name: str,
        llm: LLM,
        kept: KeptResponses,
        meter: Callable[[], Meter],
        documents: Documents | None = None,
    ) -> ResponseAnswer:
        """Checked, and not yet begun. Raises RefusedError."""
        earlier = kept.find(asked.previous_response_id).turns if asked.previous_response_id else []
        turns = [*earlier, *asked.messages()]
        return cls(await ChatAnswer.to(asked.chat(turns), name, llm, meter, documents), asked, turns, kept)

    async def whole(self) -> dict[str, Any]:
        """The response at its end."""
        last: dict[str, Any] = {}
        async for event in self.events():
            last = event
        return last["response"]

    async def events(self) -> AsyncIterator[dict[str, Any]]:
        """Everything that happens, in order."""
        yield self._event("response.created", response=self._response("in_progress"))
        yield self._event("response.in_progress", response=self._response("in_progress"))
        reason: str | None = None
        async for delta in self.chat.deltas():
            for event in self._read(delta):
                yield event
            reason = delta.reason
        status = "incomplete" if reason == "length" else "completed"
        if not self.output:
            for event in self._begin("message"):
                yield event
        for event in self._end(status):
            yield event
        response = self._response(status)
        if self.asked.store:
            self.kept.add(Kept(response, [*self.turns, *turns_of(ITEMS.validate_python(self.output))]))
        yield self._event(f"response.{status}", response=response)

    def _read(self, delta: Delta) -> Iterator[dict[str, Any]]:
        if delta.thought:
            yield from self._begin("reasoning")
            yield self._grow("reasoning_text", delta.thought)
        if delta.content:
            yield from self._begin("message")
            yield self._grow("output_text", delta.content, delta.logprobs)
        for part in delta.calls:
            if part.name is not None:
                yield from self._begin("function_call", call_id=part.id, name=part.name, arguments="")
            if part.arguments and self._open is not None:
                self._open["arguments"] += part.arguments
                yield self._event("response.function_call_arguments.delta", **self._place(), delta=part.arguments)

    def _begin(self, kind: str, **fields: Any) -> Iterator[dict[str, Any]]:
        """An item of this kind; one that goes on goes on, but for a call, which is a new one."""
        if self._open is not None and self._open["type"] == kind and not fields:
            return
        yield from self._end("completed")
        self._open = {"id": _new(kind[:3]), "type": kind, "status": "in_progress", **fields}
        if kind == "reasoning":
            self._open |= {"summary": [], "content": []}
        elif kind == "message":
            self._open |= {"role": "assistant", "content": []}
        self.output.append(self._open)
        yield self._event("response.output_item.added", output_index=len(self.output) - 1, item=_copy(self._open))
        if kind != "function_call":
            part = {"type": "reasoning_text", "text": ""}
            if kind == "message":
                part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
            self._open["content"].append(part)
            yield self._event("response.content_part.added", **self._place(0), part=dict(part))

    def _grow(self, kind: str, text: str, log: list[dict[str, Any]] | None = None) -> dict[str, Any]:
        assert self._open is not None
        part = self._open["content"][0]
        part["text"] += text
        more: dict[str, Any] = {}
        if kind == "output_text":
            part["logprobs"] += log or []
            more = {"logprobs": log or []}
        return self._event(f"response.{kind}.delta", **self._place(0), delta=text, **more)

    def _end(self, status: str) -> Iterator[dict[str, Any]]:
        """The open item is whole, or as much of it as there will be."""
        item = self._open
        if item is None:
            return
        item["status"] = status
        if item["type"] == "function_call":
            done = {"arguments": item["arguments"], "name": item["name"]}
            yield self._event("response.function_call_arguments.done", **self._place(), **done)
        else:
            part = item["content"][0]
            more = {"logprobs": part["logprobs"]} if "logprobs" in part else {}
            yield self._event(f"response.{part['type']}.done", **self._place(0), text=part["text"], **more)
            yield self._event("response.content_part.done", **self._place(0), part=part)
        yield self._event("response.output_item.done", output_index=len(self.output) - 1, item=item)
        self._open = None

    def _place(self, part: int | None = None) -> dict[str, Any]:
        place = {"item_id": self.output[-1]["id"], "output_index": len(self.output) - 1}
        return place if part is None else place | {"content_index": part}

    def _event(self, kind: str, **fields: Any) -> dict[str, Any]:
        self._number += 1
        return {"type": kind, "sequence_number": self._number - 1, **fields}

    def _response(self, status: str) -> dict[str, Any]:
        asked, params = self.asked, self.jobs[0].request.params
        given = asked.model_dump(by_alias=True, exclude_none=True, include={"tools", "tool_choice", "text"})
        return {
            "id": self.id, "object": "response", "created_at": self.created, "status": status, "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "instructions": asked.instructions, "max_output_tokens": asked.max_output_tokens,
            "model": self.chat.base["model"], "output": list(self.output) if status != "in_progress" else [],
            "parallel_tool_calls": asked.parallel_tool_calls, "previous_response_id": asked.previous_response_id,
            "reasoning": {"effort": asked.reasoning.effort if asked.reasoning else None, "summary": None},
            "store": asked.store, "temperature": params.temperature, "top_p": params.top_p,
            "text": given.get("text") or {"format": {"type": "text"}}, "tools": given.get("tools", []),
            "tool_choice": given.get("tool_choice", "auto"), "truncation": "disabled",
            "metadata": asked.metadata or {}, "usage": None if status == "in_progress" else self._usage(),
        } | self.chat.told  # fmt: skip

    def _usage(self) -> dict[str, Any]:
        found = self.chat.usage
        return {
            "input_tokens": found["prompt_tokens"], "input_tokens_details": found["prompt_tokens_details"],
            "output_tokens": found["completion_tokens"], "total_tokens": found["total_tokens"],
            "output_tokens_details": found["completion_tokens_details"],
        }  # fmt: skip


def _copy(item: dict[str, Any]) -> dict[str, Any]:
    """An item as it is now: its content has parts later."""
    return item | ({"content": []} if "content" in item else {})


def _new(kind: str) -> str:
    return f"{ {'rea': 'rs', 'mes': 'msg', 'fun': 'fc'}.get(kind, kind) }_{uuid.uuid4().hex}"
