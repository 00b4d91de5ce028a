"""Text from tokens as they come: no broken characters, and nothing of a stop string before it is known to be none."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Sequence as Items
from typing import Protocol

BROKEN = "\ufffd"
WINDOW = 8  # tokens that are decoded again for each new one; byte-level text never waits for more


class Decoder(Protocol):
    """A tokenizer, as far as it is needed here."""

    def decode(self, ids: Items[int]) -> str:
        """Their text."""
        ...


class TextStream:
    """The text of a completion, which only grows.

    ``stopped``: a stop string has come; the text ends before it, or with it where ``include_stop`` is set.
    """

    def __init__(
        self, tokenizer: Decoder, stops: Items[str] = (), include_stop: bool = False, skip: Collection[int] = (),
        min_tokens: int = 0,
    ) -> None:  # fmt: skip
        self._tokenizer, self._stops, self._include, self._skip = tokenizer, tuple(stops), include_stop, skip
        self._early = min_tokens  # tokens still to come before a stop string counts
        self._ids: list[int] = []  # whose text is not all in ``_sure`` yet, after some that give them their context
        self._begun = 0  # characters of the window's text that are in ``_sure``
        self._sure = ""
        self._shown = 0
        self.stopped = False

    @property
    def text(self) -> str:
        """All that has been shown."""
        return self._sure[: self._shown]

    def push(self, token: int) -> str:
        """The text that can be shown now and could not before."""
        self._early -= 1
        if token in self._skip or self.stopped:
            return ""
        self._ids.append(token)
        window = self._tokenizer.decode(self._ids)
        if window.endswith(BROKEN) and len(self._ids) < 4 * WINDOW:  # the rest of a character is to come
            return ""
        before = len(self._sure)
        self._sure += window[self._begun :]
        self._begun = len(window)
        if len(self._ids) > WINDOW:
            self._forget(window)
        self._look_for_stops(before)
        return self._show(
            self._sure if self.stopped else self._sure[: len(self._sure) - unfinished(self._sure, self._stops)]
        )

    def _forget(self, window: str) -> None:
        """Keep the last few tokens of the window, from the beginning of a character: where each byte is a token, half a
        one before them would break all that follow.
        """
        for kept in range(WINDOW // 2, len(self._ids)):
            text = self._tokenizer.decode(self._ids[-kept:])
            if (text and window.endswith(text)) or len(self._ids) >= 4 * WINDOW:
                self._ids, self._begun = self._ids[-kept:], len(text)
                return

    def finish(self) -> str:
        """What was held back, once nothing more comes. An incomplete character shows as U+FFFD."""
        if not self.stopped:
            before = len(self._sure)
            self._sure += self._tokenizer.decode(self._ids)[self._begun :]
            self._look_for_stops(before)
        return self._show(self._sure)

    def _look_for_stops(self, before: int) -> None:
        if self._early > 0:
            return
        starts = (max(0, before + 1 - len(stop)) for stop in self._stops)  # what ends earlier was looked at
        found = [
            (at, -len(stop), stop)
            for stop, start in zip(self._stops, starts, strict=True)
            if (at := self._sure.find(stop, start)) >= 0
        ]
        if found:
            at, _, stop = min(found)
            self._sure = self._sure[: at + len(stop) if self._include else at]
            self.stopped = True

    def _show(self, text: str) -> str:
        new, self._shown = text[self._shown :], max(self._shown, len(text))
        return new


def unfinished(text: str, marks: Items[str]) -> int:
    """How many characters at the end of a text may be the beginning of one of the marks."""
    longest = max(map(len, marks), default=1) - 1
    for size in range(min(longest, len(text)), 0, -1):
        end = text[-size:]
        if any(mark.startswith(end) for mark in marks):
            return size
    return 0
