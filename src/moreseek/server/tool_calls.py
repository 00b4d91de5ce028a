"""Calls of tools told apart from the answer while both stream."""

from __future__ import annotations

import json
import re
import uuid
from dataclasses import dataclass

from moreseek.engine.stops import unfinished
from moreseek.server.tools import CALL_CLOSE, CALL_OPEN

HEAD = re.compile(r'\s*\{\s*"name"\s*:\s*"([^"\\]*)"\s*,\s*"(?:arguments|parameters)"\s*:\s*(?=\{)')


@dataclass
class CallPart:
    """What has come of one call: its name first, then its arguments piece by piece."""

    index: int
    arguments: str = ""
    name: str | None = None
    id: str | None = None


class CallSplitter:
    """Text in, (content, parts of calls) out. What is marked as a call and is none stays content.

    White space around calls belongs to neither.
    """

    def __init__(self) -> None:
        self.calls = 0
        self._held = ""
        self._call: _Call | None = None
        self._closing = False  # a call's object has ended, its mark has not come

    def push(self, text: str) -> tuple[str, list[CallPart]]:
        """What can be told apart so far."""
        self._held += text
        content, parts = "", list[CallPart]()
        while self._held:
            before = self._held
            if self._call is not None:
                content += self._read_call(self._call, parts)
            elif self._closing:
                content += self._close()
            else:
                content += self._read_text()
            if self._held == before:
                break
        return content, parts

    def finish(self) -> tuple[str, list[CallPart]]:
        """What was held back. A call that was cut off stays as far as it was told."""
        held, self._held = self._held, ""
        if self._call is not None:
            return ("" if self._call.told else CALL_OPEN + self._call.text + held), []
        return ("" if self._closing or (self.calls and not held.strip()) else held), []

    def _read_text(self) -> str:
        text, found, rest = self._held.partition(CALL_OPEN)
        if found:
            self._held, self._call = rest, _Call(self.calls)
            return text.rstrip()
        sure = text[: len(text) - unfinished(text, (CALL_OPEN,))].rstrip()
        self._held = text[len(sure) :]
        return sure

    def _read_call(self, call: _Call, parts: list[CallPart]) -> str:
        self._held = call.read(self._held)
        if call.ended:
            self._call = None
            self._closing = True
        found = call.news()
        if found:
            self.calls += call.index == self.calls
            parts += found
        if call.wrong or (call.ended and not call.told):
            self._call, self._closing = None, False
            return CALL_OPEN + call.text
        return ""

    def _close(self) -> str:
        text = self._held.lstrip()
        if text.startswith(CALL_CLOSE):
            self._held, self._closing = text.removeprefix(CALL_CLOSE), False
        elif not CALL_CLOSE.startswith(text):  # forgotten
            self._closing = False
            return self._read_text()
        return ""


class _Call:
    """One call while it is read: an object with a name and arguments, followed bracket by bracket."""

    def __init__(self, index: int) -> None:
        self.index, self.text = index, ""
        self.told = self.ended = self.wrong = False
        self._depth, self._quoted, self._escaped = 0, False, False
        self._sent = 0  # where the arguments that are not sent begin
        self._arguments_end: int | None = None

    def read(self, text: str) -> str:
        """Take what belongs to the object; the rest."""
        for place, character in enumerate(text):
            self._step(character, len(self.text) + place)
            if self.ended or self.wrong:
                self.text += text[: place + 1]
                return text[place + 1 :]
        self.text += text
        return ""

    def _step(self, character: str, place: int) -> None:
        if self._quoted:
            self._quoted = self._escaped or character != '"'
            self._escaped = not self._escaped and character == "\\"
        elif character == '"' and self._depth:
            self._quoted = True
        elif character in "{[":
            self._depth += 1
        elif character in "}]":
            self._depth -= 1
            if self._depth == 1 and self._arguments_end is None:
                self._arguments_end = place + 1
            self.ended = self._depth == 0
        self.wrong = self._depth <= 0 and not self.ended and not character.isspace()

    def news(self) -> list[CallPart]:
        """What can be told now and could not before."""
        if self.wrong:
            return []
        if self.told:
            return self._more()
        head = HEAD.match(self.text)
        if head is None:
            return self._whole() if self.ended else []
        self.told, self._sent = True, head.end()
        return [CallPart(self.index, "", head[1], _id()), *self._more()]

    def _more(self) -> list[CallPart]:
        end = len(self.text) if self._arguments_end is None else self._arguments_end
        more, self._sent = self.text[self._sent : end], max(self._sent, end)
        return [CallPart(self.index, more)] if more else []

    def _whole(self) -> list[CallPart]:
        """A call whose parts stand in another order, or that has no arguments."""
        try:
            found = json.loads(self.text)
            arguments = found.get("arguments", found.get("parameters")) or {}
        except (ValueError, RecursionError, AttributeError):
            return []
        name = found.get("name")
        if not isinstance(name, str) or not name.isprintable() or not isinstance(arguments, dict):
            return []
        self.told = True
        return [CallPart(self.index, json.dumps(arguments), name, _id())]


def _id() -> str:
    return f"call_{uuid.uuid4().hex[:24]}"
