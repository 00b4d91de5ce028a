"""Chat completions: /v1/chat/completions, and what their pieces are made of, which other shapes share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from moreseek.engine.llm import LLM
from moreseek.engine.sequence import Sequence
from moreseek.server import logprobs, tools
from moreseek.server.answers import Job, Piece, identity, merged, timings, usage
from moreseek.server.documents.library import Documents
from moreseek.server.errors import RefusedError
from moreseek.server.jobs import calmly, jobs, room
from moreseek.server.metrics import Meter
from moreseek.server.prompts import prompt_of
from moreseek.server.reasoning import Splitter
from moreseek.server.requests import ChatRequest
from moreseek.server.tool_calls import CallPart, CallSplitter
from moreseek.text.chat import opens_thinking


@dataclass
class Delta:
    """What one piece adds to a choice; the last has ``end``."""

    index: int
    thought: str = ""
    content: str = ""
    calls: list[CallPart] = field(default_factory=list)
    logprobs: list[dict[str, Any]] = field(default_factory=list)
    end: Sequence | None = None
    reason: str | None = None


class Reader:
    """One choice: its thinking, answer and calls told apart as pieces come."""

    def __init__(self, llm: LLM, thinking: bool, calls: bool) -> None:
        self.llm = llm
        self.thinking_tokens = 0
        self._thinking = thinking
        self._splitter = Splitter(thinking)
        self._calls = CallSplitter() if calls else None

    def read(self, piece: Piece) -> Delta:
        """What the next piece adds."""
        thought, answer = self._splitter.push(piece.text)
        if piece.end is not None:
            more = self._splitter.finish()
            thought, answer = thought + more[0], answer + more[1]
        self._thinking = (self._thinking or bool(thought)) and not answer
        self.thinking_tokens += len(piece.tokens) if self._thinking else 0
        delta = Delta(piece.job.index, thought, answer, end=piece.end)
        if self._calls is not None:
            self._split_calls(self._calls, delta)
        if piece.shown:
            count = piece.job.request.params.logprobs or 0
            delta.logprobs = logprobs.of_chat(self.llm, piece.tokens, piece.shown, count)
        if piece.end is not None:
            called = self._calls is not None and self._calls.calls > 0
            reason = piece.end.told_reason
            delta.reason = "tool_calls" if called and reason == "stop" else reason
        return delta

    @staticmethod
    def _split_calls(splitter: CallSplitter, delta: Delta) -> None:
        delta.content, delta.calls = splitter.push(delta.content)
        if delta.end is not None:
            content, calls = splitter.finish()
            delta.content, delta.calls = delta.content + content, delta.calls + calls


@dataclass
class Choice:
    """A whole choice, put together from its deltas."""

    thought: str = ""
    content: str = ""
    calls: list[dict[str, Any]] = field(default_factory=list)
    reason: str | None = None

    def add(self, delta: Delta) -> None:
        """What came next."""
        self.thought += delta.thought
        self.content += delta.content
        self.reason = delta.reason
        for part in delta.calls:
            if part.name is not None:
                function = {"name": part.name, "arguments": ""}
                self.calls.append({"id": part.id, "type": "function", "function": function})
            self.calls[-1]["function"]["arguments"] += part.arguments

    def message(self) -> dict[str, Any]:
        """OpenAI's message."""
        thought = self.thought or None
        content = None if self.calls and not self.content else self.content
        message = {"role": "assistant", "content": content, "reasoning_content": thought, "reasoning": thought}
        return message | {"tool_calls": self.calls} if self.calls else message


class ChatAnswer:
    """The answer to a request: its choices as pieces come, and the thinking of each."""

    def __init__(
        self, llm: LLM, name: str, jobs: list[Job], asked: ChatRequest, thinking: bool, told: dict[str, Any]
    ) -> None:
        self.llm, self.jobs, self.asked, self.told = llm, jobs, asked, told
        self.base = identity("chatcmpl", name)
        calls = bool(asked.tools) and asked.tool_choice != "none"
        self._readers = [Reader(llm, thinking, calls) for _ in jobs]

    @classmethod
    async def to(
        cls, asked: ChatRequest, name: str, llm: LLM, meter: Callable[[], Meter], documents: Documents | None = None
    ) -> ChatAnswer:
        """Checked, and not yet begun. ``documents``: those that the model may look into. Raises RefusedError."""
        if asked.chat_template is not None:
            raise RefusedError(400, "chat_template: the model's own is used, and no other.", param="chat_template")
        offered = tools.offered(asked.tools or [], asked.tool_choice)
        asked.max_tokens = asked.max_completion_tokens or asked.max_tokens
        prompt, told = await calmly(partial(prompt_of, asked, llm, offered, documents))
        free = room(llm, prompt)
        structure = await calmly(
            lambda: tools.structure(
                offered, asked.tool_choice, asked.parallel_tool_calls, asked.structure(), llm.tokenizer
            )
        )
        params = asked.settings(
            free, free, logprobs=(asked.top_logprobs or 0) if asked.logprobs else None, structured=structure,
            thinking_budget=asked.thinking_budget,
        )  # fmt: skip
        found = await calmly(partial(jobs, llm, prompt, params, meter))
        if asked.continue_final_message:
            thinking = not asked.messages[-1].text
        else:
            thinking = await calmly(lambda: opens_thinking(llm.tokenizer, **asked.switch))
        return cls(llm, name, found, asked, thinking, told)

    @property
    def usage(self) -> dict[str, Any]:
        """Tokens, once all have ended."""
        return usage(self.jobs, sum(reader.thinking_tokens for reader in self._readers))

    async def deltas(self) -> AsyncIterator[Delta]:
        """What comes, told apart."""
        async for piece in merged(self.llm, self.jobs):
            yield self._readers[piece.job.index].read(piece)

    async def whole(self) -> dict[str, Any]:
        """The whole answer."""
        found = [Choice() for _ in self.jobs]
        logs: list[list[dict[str, Any]]] = [[] for _ in self.jobs]
        async for delta in self.deltas():
            found[delta.index].add(delta)
            logs[delta.index] += delta.logprobs
        choices = [
            {"index": job.index, "message": choice.message(), "finish_reason": choice.reason,
             "logprobs": {"content": log} if self.asked.logprobs else None}
            for job, choice, log in zip(self.jobs, found, logs, strict=True)
        ]  # fmt: skip
        ended = {"object": "chat.completion", "choices": choices, "usage": self.usage, "timings": timings(self.jobs)}
        return self.base | ended | self.told

    async def events(self) -> AsyncIterator[dict[str, Any]]:
        """The chunks of a stream. A choice begins with its first token, so its first chunk tells when reading ended."""
        running, with_usage = len(self.jobs), self.asked.stream_options and self.asked.stream_options.include_usage
        silent, told = {job.index for job in self.jobs}, self.told
        async for delta in self.deltas():
            if delta.index in silent:
                silent.discard(delta.index)
                yield self._chunk(delta.index, {"role": "assistant", "content": ""}) | told
                told = {}
            for shown in _shown(delta):
                yield self._chunk(delta.index, shown, log=delta.logprobs)
                delta.logprobs = []
            if delta.logprobs and delta.end is None:
                yield self._chunk(delta.index, {}, log=delta.logprobs)
            if delta.end is not None:
                running -= 1
                last = {} if running or with_usage else {"timings": timings(self.jobs)}
                yield self._chunk(delta.index, {}, delta.reason) | last
        if with_usage:
            last = {"choices": [], "usage": self.usage, "timings": timings(self.jobs)}
            yield self.base | {"object": "chat.completion.chunk"} | last

    def _chunk(
        self, index: int, delta: dict[str, Any], reason: str | None = None, log: list[dict[str, Any]] | None = None
    ) -> dict[str, Any]:
        found = {"content": log} if log else None
        choice = {"index": index, "delta": delta, "finish_reason": reason, "logprobs": found}
        return self.base | {"object": "chat.completion.chunk", "choices": [choice]}


def _shown(delta: Delta) -> list[dict[str, Any]]:
    """OpenAI's deltas of what came."""
    shown: list[dict[str, Any]] = []
    if delta.thought:
        shown.append({"reasoning_content": delta.thought, "reasoning": delta.thought})
    if delta.content:
        shown.append({"content": delta.content})
    for part in delta.calls:
        first = {} if part.name is None else {"id": part.id, "type": "function"}
        named = {} if part.name is None else {"name": part.name}
        shown.append(
            {"tool_calls": [{"index": part.index, **first, "function": named | {"arguments": part.arguments}}]}
        )
    return shown
