"""Guesses of the next tokens, which the model then checks all at once: by the MTP module, or from the text itself.

A guess is right where the model, with the token's own draw, chooses the same. So the text does not depend on guesses.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from moreseek.engine.native_runner import NativeRunner
from moreseek.engine.rows import spread
from moreseek.engine.runner import Runner
from moreseek.engine.scheduler import NOTHING, Scheduler, Step
from moreseek.engine.sequence import DRAWS


class Drafter(Protocol):
    """Writes guesses behind the known tokens of a scheduler's rows."""

    def draft(self, scheduler: Scheduler, step: Step, going: np.ndarray, states: Tensor | None) -> None:
        """After a step, for its rows ``going`` (n,). states: what the runner gave for the step's tokens."""
        ...


def room(scheduler: Scheduler, rows: np.ndarray, most: int) -> np.ndarray:
    """(r,) how many tokens may be guessed: one more is always chosen, draws come in pieces of DRAWS, and the look for
    guess g writes to the cache at place known + g − 3, which must be the row's own.
    """
    known, made = scheduler.known[rows], scheduler.known[rows] - scheduler.prompt[rows]
    left = np.minimum(scheduler.limit[rows] - known - 1, DRAWS - 1 - made % DRAWS)
    left = np.minimum(left, scheduler.owned[rows] * scheduler.blocks.size - known + 2)
    return np.where(scheduler.single[rows], 0, np.clip(left, 0, most))


class MTPDrafter:
    """The model's own multi-token prediction (V3 §2.2), applied to its own states for the second guess and on."""

    def __init__(self, runner: Runner, most: int) -> None:
        self.runner, self.most = runner, most

    def draft(self, scheduler: Scheduler, step: Step, going: np.ndarray, states: Tensor | None) -> None:
        assert states is not None
        if isinstance(self.runner, NativeRunner) and step.settled == len(step.count):
            self.runner.guess(scheduler, step, going, states, self.most)
            return
        reading = going & (step.count > 0)
        following = going & (step.count == 0)  # rows that share another's reading
        following[: step.settled] = False
        look, places, rows = self._first_look(scheduler, step, reading, following)
        if not len(look.ids):
            return
        decoding = rows[look.output_rows]
        guesses = room(scheduler, decoding, self.most)
        logits, hidden = self.runner.look_ahead(look, states[torch.from_numpy(places)])
        for turn in range(int(guesses.max(initial=0))):
            tokens = logits.argmax(-1).cpu().numpy()
            more = np.flatnonzero(guesses > turn)
            at = scheduler.known[decoding[more]] + turn
            scheduler.tokens[decoding[more], at] = tokens[more]
            scheduler.drafted[decoding[more]] = turn + 1
            further = np.flatnonzero(guesses > turn + 1)
            if not len(further):
                break
            decoding, guesses = decoding[further], guesses[further]
            again = _single(scheduler, decoding, tokens[further], scheduler.known[decoding] - 1 + turn)
            logits, hidden = self.runner.look_ahead(again, hidden[torch.from_numpy(further)].contiguous())

    def _first_look(
        self, scheduler: Scheduler, step: Step, reading: np.ndarray, following: np.ndarray
    ) -> tuple[Step, np.ndarray, np.ndarray]:
        """The module's pass over what the step computed and what stayed of it: positions, with the tokens after them.
        Also each token's place among the step's states, and the scheduler's rows.
        """
        rows = np.flatnonzero(reading | following)
        count = scheduler.computed[rows] - step.start[rows]
        start = step.start[rows].copy()
        first_place = step.first[rows].copy()
        alone = following[rows]
        if alone.any():
            last = dict(zip(step.output_rows.tolist(), step.output.tolist(), strict=True))
            first_place[alone] = [last[row] for row in rows[alone].tolist()]
            count[alone], start[alone] = 1, start[alone] - 1
        first = np.cumsum(count) - count
        whose, inside = spread(count)
        ids = scheduler.tokens[rows[whose], start[whose] + inside + 1]
        chose = np.flatnonzero(scheduler.known[rows] == start + count + 1)  # a new token stands behind its last one
        table, output = np.ascontiguousarray(scheduler.table[rows]), first[chose] + count[chose] - 1
        look = Step(ids, first, count, start, table, output, chose, NOTHING, NOTHING, NOTHING, [], len(rows))
        return look, first_place[whose] + inside, rows


def _single(scheduler: Scheduler, rows: np.ndarray, ids: np.ndarray, positions: np.ndarray) -> Step:
    """One token a row."""
    n, each = len(rows), np.arange(len(rows))
    table = np.ascontiguousarray(scheduler.table[rows])
    return Step(ids, each, np.ones(n, np.int64), positions, table, each, each, NOTHING, NOTHING, NOTHING, [], n)


class TextDrafter:
    """What followed the last time that the text's newest tokens stood there (prompt look-up decoding)."""

    def __init__(self, most: int, longest: int = 3, shortest: int = 2) -> None:
        self.most, self.longest, self.shortest = most, longest, shortest

    def draft(self, scheduler: Scheduler, step: Step, going: np.ndarray, states: Tensor | None) -> None:
        rows = np.unique(step.output_rows)
        rows = rows[going[rows]]
        for row, most in zip(rows.tolist(), room(scheduler, rows, self.most).tolist(), strict=True):
            if most:
                known = int(scheduler.known[row])
                found = self._look_up(scheduler.tokens[row, :known], most)
                scheduler.tokens[row, known : known + len(found)] = found
                scheduler.drafted[row] = len(found)

    def _look_up(self, text: np.ndarray, most: int) -> np.ndarray:
        for size in range(min(self.longest, len(text) - 1), self.shortest - 1, -1):
            match = np.ones(len(text) - size, np.bool_)
            for place in range(size):
                match &= text[place : place + len(match)] == text[len(text) - size + place]
            found = np.flatnonzero(match)
            if len(found):
                after = int(found[-1]) + size
                return text[after : after + most].copy()
        return text[:0]
