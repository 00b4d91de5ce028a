"""Calls of tools told apart from the answer while both stream.

Two ways of writing them are read: an object between the marks of Hermes and Qwen, and DeepSeek's own marks, as the chat
templates of V3 and R1 (with "function" and fenced arguments) and of V3.1 (without) have them.
"""

from __future__ import annotations

import json
import re
import uuid
from dataclasses import dataclass

from moreseek.engine.stops import unfinished
from moreseek.server.tools import CALL_CLOSE, CALL_OPEN

SIGN, GAP = "\uff5c", "\u2581"  # what DeepSeek's marks have in place of a bar and of spaces
CALLS_BEGIN, CALL_BEGIN, SEPARATOR, CALL_END, CALLS_END = (
    f"<{SIGN}tool{GAP}{name}{SIGN}>"
    for name in (f"calls{GAP}begin", f"call{GAP}begin", "sep", f"call{GAP}end", f"calls{GAP}end")
)
OPENINGS = (CALL_OPEN, CALLS_BEGIN, CALL_BEGIN)
CLOSINGS = {
    CALL_OPEN: (CALL_CLOSE,),
    CALLS_BEGIN: ("```", CALL_END, CALLS_END),
    CALL_BEGIN: ("```", CALL_END, CALLS_END),
}
LONGEST_HEAD = 300  # characters before DeepSeek's arguments; more is no call
HEAD = re.compile(r'\s*\{\s*"name"\s*:\s*"([^"\\]*)"\s*,\s*"(?:arguments|parameters)"\s*:\s*(?=\{)')
DEEPSEEK_HEAD = re.compile(
    rf"\s*(?:{CALL_BEGIN}\s*)?(?:function{SEPARATOR}([^\n<`]+)\n\s*```(?:json)?\s*|([^\n<`{{]+){SEPARATOR}\s*)"
)


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
        self._closing: tuple[str, ...] = ()  # a call's object has ended; the marks that may follow

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
            return ("" if self._call.told else self._call.opening + self._call.text + held), []
        return ("" if self._closing or (self.calls and not held.strip()) else held), []

    def _read_text(self) -> str:
        text = self._held
        found = [(place, mark) for mark in OPENINGS if (place := text.find(mark)) >= 0]
        if found:
            place, mark = min(found)
            kind = _Call if mark == CALL_OPEN else _DeepSeekCall
            self._held, self._call = text[place + len(mark) :], kind(self.calls, mark)
            return text[:place].rstrip()
        sure = text[: len(text) - unfinished(text, OPENINGS)].rstrip()
        self._held = text[len(sure) :]
        return sure

    def _read_call(self, call: _Call, parts: list[CallPart]) -> str:
        self._held = call.read(self._held)
        if call.ended:
            self._call = None
            self._closing = CLOSINGS[call.opening]
        found = call.news()
        if found:
            self.calls += call.index == self.calls
            parts += found
        if call.wrong or (call.ended and not call.told):
            self._call, self._closing = None, ()
            return call.opening + call.text
        return ""

    def _close(self) -> str:
        text = self._held.lstrip()
        for mark in self._closing:
            if text.startswith(mark):
                self._held = text.removeprefix(mark)
                return ""
        if not any(mark.startswith(text) for mark in self._closing):  # the answer goes on, or another call comes
            self._closing = ()
            return self._read_text()
        return ""


class _Call:
    """One call while it is read: an object with a name and arguments, followed bracket by bracket."""

    level = 1  # how deep the arguments' object stands

    def __init__(self, index: int, opening: str) -> None:
        self.index, self.opening, self.text = index, opening, ""
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
            if self._depth == self.level and self._arguments_end is None:
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


class _DeepSeekCall(_Call):
    """A name after DeepSeek's marks, then the arguments' object alone."""

    level = 0
    name = ""

    def read(self, text: str) -> str:
        if self.name:
            return super().read(text)
        self.text += text
        place = self.text.find("{")
        if place < 0:
            self.wrong = len(self.text) > LONGEST_HEAD
            return ""
        head = DEEPSEEK_HEAD.fullmatch(self.text[:place])
        self.name = ((head[1] or head[2]).strip() if head else "").removeprefix("functions.")
        rest, self.text, self._sent = self.text[place:], self.text[:place], place
        if not self.name or not self.name.isprintable():
            self.wrong = True
            return rest
        return super().read(rest)

    def news(self) -> list[CallPart]:
        if self.wrong or not self.name:
            return []
        first = [] if self.told else [CallPart(self.index, "", self.name, _id())]
        self.told = True
        return [*first, *self._more()]


def _id() -> str:
    return f"call_{uuid.uuid4().hex[:24]}"
