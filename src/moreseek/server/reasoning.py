"""Thinking told apart from the answer while both stream."""

from __future__ import annotations

from moreseek.engine.stops import unfinished
from moreseek.text.chat import THINK_CLOSE, THINK_OPEN


class Splitter:
    """Text in, (thinking, answer) out. ``thinking``: the prompt has opened the thinking already."""

    def __init__(self, thinking: bool) -> None:
        self._stage = "inside" if thinking else "before"
        self._held = ""

    def push(self, text: str) -> tuple[str, str]:
        """What can be told apart so far."""
        self._held += text
        thought = ""
        if self._stage == "before":
            if THINK_OPEN.startswith(self._held) and self._held != THINK_OPEN:
                return "", ""
            self._stage = "inside" if self._held.startswith(THINK_OPEN) else "after"
            self._held = self._held.removeprefix(THINK_OPEN) if self._stage == "inside" else self._held
        if self._stage == "inside":
            thought, found, rest = self._held.partition(THINK_CLOSE)
            if not found:
                keep = unfinished(thought, (THINK_CLOSE,))
                self._held = thought[len(thought) - keep :]
                return thought[: len(thought) - keep], ""
            self._stage, self._held = "after", rest
        answer, self._held = self._held, ""
        return thought, answer

    def finish(self) -> tuple[str, str]:
        """What was held back."""
        held, self._held = self._held, ""
        return (held, "") if self._stage == "inside" else ("", held)
