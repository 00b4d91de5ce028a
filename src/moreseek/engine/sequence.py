"""One request inside the engine. No torch in here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from moreseek.engine.block_manager import ROOT
from moreseek.engine.sampling import FinishReason, SamplingParams
from moreseek.errors import InputError

if TYPE_CHECKING:
    from moreseek.engine.logits import Shaper

DRAWS = 64
"""Uniforms that a request draws at a time from its own generator."""

OnToken = Callable[[int, float], object]
"""(token id, log-probability), as soon as a token is chosen. What is true of the answer ends the text: "stop"."""


@dataclass(eq=False, slots=True)
class Sequence:
    """A prompt and what has been made of it. While it runs, its newest tokens lie in the scheduler's rows."""

    prompt: tuple[int, ...]
    params: SamplingParams
    seed: int
    stops: tuple[int, ...] = ()  # tokens that end it
    on_token: OnToken | None = None
    shaper: Shaper | None = None  # for requests that want more than a temperature
    arrival: int = 0  # the youngest has the largest
    row: int = -1  # where it runs; −1: it waits, or has ended
    blocks: list[int] = field(default_factory=list)
    remembered: int = 0  # blocks that prefix reuse knows
    prefix: int = ROOT  # number of the prefix that ends with them
    entered: bool = False  # whether it has run, if only for a while
    reused: int = 0  # tokens of the prompt that it found in the cache
    output: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    top_logprobs: list[dict[int, float]] = field(default_factory=list)
    prompt_logprobs: list[dict[int, float] | None] = field(default_factory=list)
    finish_reason: str | None = None
    fault: str | None = None  # what broke, where the reason is "error"
    _draw: np.random.Generator | None = None
    _pieces: int = 0

    @property
    def tokens(self) -> tuple[int, ...]:
        """All that is known of the text when the sequence does not run."""
        return (*self.prompt, *self.output)

    @property
    def told_reason(self) -> FinishReason:
        """Why the text ended, for whoever asked: what was aborted or broke is cut short."""
        return "stop" if self.finish_reason == "stop" else "length"

    @property
    def most(self) -> int:
        """Tokens of the whole text at most."""
        return len(self.prompt) + self.params.max_tokens

    def observe(self, token: int) -> None:
        """A token was chosen. What cannot go on from it says so as ``fault``."""
        if self.shaper is not None:
            with self._faults():
                self.shaper.observe(token)

    def look_ahead(self) -> None:
        """Find out what may come next, where a grammar says it; ``fault`` where it cannot."""
        if self.fault is None and self.params.structured is not None and self.shaper is not None:
            with self._faults():
                self.shaper.allowed()

    @contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except InputError as error:
            self.fault = str(error)

    def uniforms(self, piece: int) -> np.ndarray:
        """(DRAWS,) fp64: the draws for output tokens piece · DRAWS and on, which follow from the seed alone."""
        if self._draw is None or piece < self._pieces:
            self._draw, self._pieces = np.random.Generator(np.random.Philox(self.seed % 2**64)), 0
        while self._pieces < piece:
            self._draw.random(DRAWS)
            self._pieces += 1
        self._pieces += 1
        return self._draw.random(DRAWS)
