"""How far a completion is in its thinking, and a budget of tokens that closes it. No torch in here."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto

from moreseek.text.chat import THINK_CLOSE, THINK_OPEN
from moreseek.text.tokenizer import Tokenizer

ENDING = "\n"
NEAR_THE_END = 8  # tokens of a prompt after </think> that still belong to the turn which it closed


@dataclass(frozen=True)
class ThinkingIds:
    """The ids of <think> and </think>, and what is written to end a thought that used up its budget."""

    open: int
    close: int
    closing: tuple[int, ...]  # ends with ``close``

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> "ThinkingIds | None":
        """None where <think> and </think> are not one token each."""
        opening, close = (tokenizer.backend.token_to_id(mark) for mark in (THINK_OPEN, THINK_CLOSE))
        if opening is None or close is None:
            return None
        return cls(opening, close, (*tokenizer.encode(ENDING), close))


class Stage(Enum):
    """Where a completion stands."""

    BEFORE = auto()  # nothing written, and the prompt leaves it open whether the model thinks
    INSIDE = auto()
    AFTER = auto()


class Thinking:
    """Follows one completion token by token. ``budget``: most tokens of thinking, None for any number."""

    def __init__(self, ids: ThinkingIds, prompt: Sequence[int], budget: int | None = None) -> None:
        self.ids = ids
        self.budget = budget
        self.stage = _stage_after(prompt, ids)
        self.used = 0
        self._written = 0  # tokens of the closing

    @property
    def forced(self) -> int | None:
        """The token that must come next, if the budget is used up."""
        if self.stage is not Stage.INSIDE or self.budget is None or self.used < self.budget:
            return None
        return self.ids.closing[self._written]

    def observe(self, token: int) -> None:
        """A token was written. Raises ValueError where it is not the forced one."""
        forced = self.forced
        if forced is not None and token != forced:
            raise ValueError(f"token {token} was written where {forced} was forced.")
        if self.stage is Stage.BEFORE:
            self.stage = Stage.INSIDE if token == self.ids.open else Stage.AFTER
        elif self.stage is Stage.INSIDE:
            if token == self.ids.close:
                self.stage = Stage.AFTER
            elif forced is not None:
                self._written += 1
            else:
                self.used += 1


def _stage_after(prompt: Sequence[int], ids: ThinkingIds) -> Stage:
    """An open <think> goes on in the completion; one that the prompt's end closed leaves no place for another."""
    for distance, token in enumerate(reversed(prompt)):
        if token == ids.open:
            return Stage.INSIDE
        if token == ids.close:
            return Stage.AFTER if distance < NEAR_THE_END else Stage.BEFORE
    return Stage.BEFORE
