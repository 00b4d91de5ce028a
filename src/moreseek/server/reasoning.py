"""Thinking told apart from the answer while both stream."""

from __future__ import annotations

OPEN, CLOSE = "<think>", "</think>"


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
            if OPEN.startswith(self._held) and self._held != OPEN:
                return "", ""
            self._stage = "inside" if self._held.startswith(OPEN) else "after"
            self._held = self._held.removeprefix(OPEN) if self._stage == "inside" else self._held
        if self._stage == "inside":
            thought, found, rest = self._held.partition(CLOSE)
            if not found:
                keep = _partial(thought)
                self._held = thought[len(thought) - keep :]
                return thought[: len(thought) - keep], ""
            self._stage, self._held = "after", rest
        answer, self._held = self._held, ""
        return thought, answer

    def finish(self) -> tuple[str, str]:
        """What was held back."""
        held, self._held = self._held, ""
        return (held, "") if self._stage == "inside" else ("", held)


def _partial(text: str) -> int:
    """How many characters at the end may begin </think>."""
    return next((size for size in range(len(CLOSE) - 1, 0, -1) if text.endswith(CLOSE[:size])), 0)
