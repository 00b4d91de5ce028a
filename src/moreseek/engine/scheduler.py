"""Which tokens of which sequences go through the model in the next step. No torch in here.

Every running sequence (a row, see engine/rows.py) has tokens that are known and tokens that are computed (in the
cache); a step computes some of the difference. One token is left: decoding. Many are: a prompt, which may be cut.

A row that decodes may have drafted tokens after its known ones (engine/drafts.py). The model computes them as if they
were known, a token is chosen after each with the draw that is its own, and as many stay as were guessed right: the text
is the one that plain decoding writes.
"""

from collections.abc import Callable
from collections.abc import Sequence as Items
from dataclasses import dataclass

import numpy as np

from moreseek.engine.admission import MOST_SCORED, Admission
from moreseek.engine.block_manager import BlockManager
from moreseek.engine.rows import spread
from moreseek.engine.sequence import DRAWS, Sequence

NOTHING = np.zeros(0, np.int64)
MOST_AT_ONCE = 64  # tokens of all rows that one call of several steps chooses


@dataclass(slots=True)
class Step:
    """What the model has to compute. n rows, t tokens that lie flat, o outputs."""

    ids: np.ndarray  # (t,) int64
    first: np.ndarray  # (n,) int64: where a row's tokens begin among ids
    count: np.ndarray  # (n,) int64: how many it has
    start: np.ndarray  # (n,) int64: position of the first of them, which is how many the cache holds
    table: np.ndarray  # (n, blocks) int32
    output: np.ndarray  # (o,) int64: among ids, the tokens after which a new one is chosen
    output_rows: np.ndarray  # (o,) int64: and the rows that get it
    ahead: np.ndarray  # (o,) int64: how many drafted tokens stand between a row's newest token and that one
    scored: np.ndarray  # (s,) int64: among ids, tokens of prompts whose logits are wanted too
    scored_rows: np.ndarray  # (s,) int64
    copies: list[tuple[int, int]]  # blocks to copy, (from, to), once the step is done
    settled: int  # rows that ran before; those after them may read blocks that other rows fill in this same step


class Scheduler(Admission):
    """Cuts what is known into steps, and takes in what they give.

    ``budget``: tokens a step computes at most, prompts in chunks beside the rows that decode.
    """

    def __init__(self, blocks: BlockManager, max_rows: int, context: int, budget: int = 2048) -> None:
        super().__init__(blocks, max_rows, context, budget)
        self.guesses = self.guessed_right = 0

    # ------------------------------------------------------------------------------------------------------- steps

    def schedule(self) -> Step | None:
        """The next step, or None when there is nothing to do."""
        if self._steady and not self.waiting and (step := self._go_on()) is not None:
            return step
        before = self.preemptions
        take = self._takes()
        self._allocate(take)
        sure = take - self.drafted[: len(take)]
        filled = (self.computed[: len(take)] + sure) // self.blocks.size
        self._remember(np.flatnonzero(filled > self.remembered[: len(take)]), sure)
        settled, source, copies = len(take), np.arange(len(take)), list[tuple[int, int]]()
        if self.waiting and self.preemptions == before:  # whoever just made room does not come back at once
            take, source, copies = self._admit(take)
        n = len(self.running)
        if n == 0:
            return None
        start = self.computed[:n].copy()
        first = np.cumsum(take) - take
        drafted = self.drafted[:n]
        output_rows = np.flatnonzero(start + take == self.known[:n] + drafted)
        row, place = spread(take)
        ids = self.tokens[row, start[row] + place]
        self.draw(output_rows)
        leaders = source[output_rows]
        output = first[leaders] + take[leaders] - 1
        ahead = np.zeros(len(output), np.int64)
        if drafted.any():
            whose, ahead = spread(1 + drafted[output_rows])
            output = (output - drafted[output_rows])[whose] + ahead
            output_rows = output_rows[whose]
        scored = self._scored(first, take, start)
        step = Step(ids, first, take, start, self.table[:n], output, output_rows, ahead, *scored, copies, settled)
        self._steady = int((ahead == 0).sum()) == n
        return step

    def several(self) -> int:
        """How many steps can be made one after the other with nothing for the scheduler to do in between, however they
        come out: every row has blocks and draws for them. 0 when it must be asked before the next one.

        Few where rows are many: one of them ends soon, and then somebody else may enter.
        """
        n = len(self.running)
        if not self._steady or self.waiting or 2 * n > MOST_AT_ONCE or self.single[:n].any() or self.drafted[:n].any():
            return 0
        known, size = self.known[:n], self.blocks.size
        drawn = np.where(self.temperature[:n] > 0, (known - self.prompt[:n]) % DRAWS, 0)
        most = min(MOST_AT_ONCE // n, int((self.limit[:n] - known).min()), DRAWS - int(drawn.max()))
        need = (-(-(known - 1 + most) // size) - self.owned[:n]).clip(min=0)
        if int(need.sum()) > self.blocks.free:
            return 0
        for row in np.flatnonzero(need).tolist():
            self.give(row, self.blocks.allocate(int(need[row])) or [])
        self._remember(np.flatnonzero(self.computed[:n] // size > self.remembered[:n]), np.zeros(n, np.int64))
        self.draw(np.arange(n))
        return most

    def catch_up(self, steps: int) -> tuple[Step, list[Sequence]]:
        """After so many steps of all rows, whose tokens lie behind those known: take in all but the last one's. That
        last step, for ``commit``, and those whose listener has heard enough before it.
        """
        n = len(self.running)
        rows, cut = np.arange(n), list[Sequence]()
        if not self.watched[:n].any():
            self.known[:n] += steps - 1
            steps = 1
        for _ in range(steps - 1):
            at = self.known[rows]
            self.known[rows] += 1
            told, _ = self._tell(rows, self.tokens[rows, at], self.logprobs[rows, at])
            rows = np.setdiff1d(rows, [sequence.row for sequence in told]) if told else rows
            cut += told
        self.computed[:n] = self.known[:n] - 1
        step = self._one_each(n)
        if cut:
            step.count = np.isin(step.first, rows).astype(np.int64)
            step.output = step.output_rows = rows
            step.ahead = step.ahead[rows]
        return step, cut

    def _go_on(self) -> Step | None:
        """The next step of the same rows, each with one new token and its guesses; None when one of them needs a block
        or has filled one, or where the guesses are too many.
        """
        n, size = len(self.running), self.blocks.size
        start, drafted = self.computed[:n].copy(), self.drafted[:n]
        known = start + 1
        if (known + drafted > self.owned[:n] * size).any() or n + int(drafted.sum()) > self.budget:
            return None
        if self.blocks.reuse and (known // size > self.remembered[:n]).any():
            return None
        self.draw(np.arange(n))
        if not drafted.any():
            return self._one_each(n)
        wide = 1 + drafted
        output_rows, ahead = spread(wide)
        output = np.arange(len(output_rows))
        ids, table = self.tokens[output_rows, start[output_rows] + ahead], self.table[:n]
        return Step(
            ids, np.cumsum(wide) - wide, wide, start, table, output, output_rows, ahead, NOTHING, NOTHING, [], n
        )

    def _one_each(self, n: int) -> Step:
        """A step of all n rows with the newest token of each."""
        rows, one, nothing = np.arange(n), np.ones(n, np.int64), np.zeros(n, np.int64)
        start = self.computed[:n].copy()
        ids, table = self.tokens[rows, start], self.table[:n]
        return Step(ids, rows, one, start, table, rows, rows, nothing, NOTHING, NOTHING, [], n)

    def _scored(self, first: np.ndarray, take: np.ndarray, start: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Places of the prompts' tokens whose logits are wanted, and their rows: all but the prompt's last one."""
        rows = np.flatnonzero(self.scored[: len(take)])
        count = np.clip(self.prompt[rows] - 1 - start[rows], 0, take[rows])
        if not count.any():
            return NOTHING, NOTHING
        whose, place = spread(count)
        return first[rows][whose] + place, rows[whose]

    def uniforms(self, step: Step) -> np.ndarray:
        """(o,) fp64: each output's draw, from its own seed."""
        rows = step.output_rows
        return self.draws[rows, (self.known[rows] - self.prompt[rows] + step.ahead) % DRAWS]

    def commit(
        self,
        step: Step,
        tokens: np.ndarray,
        logprobs: np.ndarray,
        draft: Callable[[Step, np.ndarray], None] | None = None,
        cut: Items[Sequence] = (),
    ) -> tuple[list[Sequence], list[Sequence]]:
        """Take in the chosen tokens (o,) and their log-probabilities. The sequences that ended with them, and those
        that broke: a log-probability that is NaN marks a token that was not chosen. Those still hold their blocks.

        ``draft(step, going)``: called before rows change places; it may draft tokens for the rows of ``going`` (n,).
        ``cut``: sequences that end with this step and get no token in it.
        """
        n, rows = len(step.count), step.output_rows
        at = self.known[rows] + step.ahead
        stopped = (self.stops[rows] == tokens[:, None]).any(1)  # before min_tokens a Shaper lets none through
        full = at + 1 >= self.limit[rows]
        broken = np.isnan(logprobs)
        if len(rows) and step.ahead.any():
            kept = self._kept(step, tokens, at, stopped | full | broken)
            self.guesses += int(self.drafted[:n].sum())
            self.guessed_right += int(kept.sum()) - int((step.ahead == 0).sum())
            rows, at, tokens, logprobs, stopped, full, broken = (
                array[kept] for array in (rows, at, tokens, logprobs, stopped, full, broken)
            )
        told, heard = self._tell(rows, tokens, logprobs)
        if not heard.all():
            rows, at, tokens, logprobs, stopped, full, broken = (
                array[heard] for array in (rows, at, tokens, logprobs, stopped, full, broken)
            )
        self.tokens[rows, at] = tokens
        self.logprobs[rows, at] = logprobs
        self.computed[:n] += step.count - self.drafted[:n]
        self.computed[rows], self.known[rows] = at, at + 1  # of a row's kept tokens the last one counts
        self.drafted[:n] = 0
        self.known[rows[broken]] -= 1
        faulty = [self.running[row] for row in rows[broken].tolist()]
        ended = []
        for place in np.flatnonzero((stopped | full) & ~broken).tolist():
            sequence = self.running[int(rows[place])]
            sequence.finish_reason = "stop" if stopped[place] else "length"
            ended.append(sequence)
        for sequence in (*cut, *told):
            if sequence.finish_reason is None:
                ended.append(sequence)
            sequence.finish_reason = "stop"
        if draft is not None:
            going = np.ones(n, np.bool_)
            going[[sequence.row for sequence in (*ended, *faulty)]] = False
            draft(step, going)
        for sequence in ended:
            self._leave(sequence)
        return ended, faulty

    def _kept(self, step: Step, tokens: np.ndarray, at: np.ndarray, last: np.ndarray) -> np.ndarray:
        """(o,) which chosen tokens stay: a row's first, and each after one that stays, was drafted and ends nothing."""
        drafted = self.tokens[step.output_rows, at - 1].tolist()  # of a row's first token: the newest that is known
        chosen, ends = tokens.tolist(), last.tolist()
        kept = []
        for place, ahead in enumerate(step.ahead.tolist()):
            before = place - 1
            kept.append(ahead == 0 or (kept[before] and chosen[before] == drafted[place] and not ends[before]))
        return np.array(kept)

    def _tell(self, rows: np.ndarray, tokens: np.ndarray, logprobs: np.ndarray) -> tuple[list[Sequence], np.ndarray]:
        """Let those hear who listen to their tokens; the sequences whose listener has heard enough, and (o,) which
        tokens are not behind what one of them ended with.
        """
        cut, heard = list[Sequence](), np.ones(len(rows), np.bool_)
        if self.watched[: len(self.running)].any():
            for place, (row, token, logprob) in enumerate(
                zip(rows.tolist(), tokens.tolist(), logprobs.tolist(), strict=True)
            ):
                sequence = self.running[row]
                if sequence in cut:
                    heard[place] = False
                elif logprob == logprob:
                    sequence.observe(token)
                    if sequence.on_token is not None and sequence.on_token(token, logprob):
                        cut.append(sequence)
        return cut, heard

    # ---------------------------------------------------------------------------------------------- tokens to take

    def _takes(self) -> np.ndarray:
        """(n,) tokens of each running row: all that decode, and of prompts what the budget allows."""
        n = len(self.running)
        take = self.known[:n] - self.computed[:n] + self.drafted[:n]
        left = MOST_SCORED
        for row in self._scoring().tolist():
            take[row] = min(int(take[row]), left)
            left -= int(take[row])
        if take.sum() > self.budget:
            self.drop_guesses(take)
            left = self.budget - int((take == 1).sum())
            for row in np.flatnonzero(take > 1).tolist():
                take[row] = min(int(take[row]), left)
                left -= int(take[row])
        return take
