"""Who runs: sequences wait, enter a row with their blocks, make room and leave. No torch in here."""

from collections import deque

import numpy as np

from moreseek.engine.block_manager import ROOT, BlockManager
from moreseek.engine.rows import Rows
from moreseek.engine.sequence import Sequence
from moreseek.errors import InputError

MOST_SCORED = 256  # tokens a step, of all prompts whose every token's logits are wanted: they take memory


class Admission(Rows):
    """First come, first served; the youngest makes room when blocks run out, and comes back first.

    ``budget``: tokens a step computes at most.
    """

    def __init__(self, blocks: BlockManager, max_rows: int, context: int, budget: int) -> None:
        super().__init__(max_rows, blocks.size)
        self.blocks, self.max_rows, self.context = blocks, max_rows, context
        self.budget = max(budget, max_rows)
        self.waiting: deque[Sequence] = deque()
        self.preemptions = 0
        self.queries = self.hits = 0  # tokens of prompts, and those of them that were in the cache
        self._steady = False  # each row got a token in the last step, and nobody has left since

    # ---------------------------------------------------------------------------------------------------- requests

    def add(self, sequence: Sequence) -> None:
        """Put it at the end of the queue. Raises InputError for what could never run."""
        self.check(sequence)
        self.waiting.append(sequence)

    def check(self, sequence: Sequence) -> None:
        """Raise InputError for what could never run."""
        if not sequence.prompt:
            raise InputError("the prompt is empty: there is nothing to continue.")
        room = min(self.context, (self.blocks.count - 1) * self.blocks.size)
        if sequence.most > room:
            raise InputError(
                f"the prompt has {len(sequence.prompt)} tokens; with max_tokens {sequence.params.max_tokens} that "
                f"passes the context of {room}. Shorten it or lower max_tokens."
            )

    def abort(self, sequence: Sequence, reason: str = "abort") -> None:
        """End it where it stands and free its blocks at once. Nothing happens when it has ended."""
        if sequence.finish_reason is not None:
            return
        if sequence.row >= 0:
            self._leave(sequence)
        else:
            self.waiting.remove(sequence)
        sequence.finish_reason = reason

    @property
    def busy(self) -> bool:
        return bool(self.running or self.waiting)

    # ------------------------------------------------------------------------------------------------------ blocks

    def _allocate(self, take: np.ndarray) -> None:
        """Blocks for these tokens; the youngest sequences make room when there are too few. Changes ``take``."""
        while True:
            n = len(self.running)
            need = -(-(self.computed[:n] + take[:n]) // self.blocks.size) - self.owned[:n]
            if int(need.clip(min=0).sum()) <= self.blocks.free:
                break
            if self.drafted[:n].any():
                self.drop_guesses(take[:n])
                continue
            row = max(range(n), key=lambda row: self.running[row].arrival)
            self._preempt(self.running[row])
            take[row] = take[n - 1]
        take.resize(n, refcheck=False)
        for row in np.flatnonzero(need > 0).tolist():
            self.give(row, self.blocks.allocate(int(need[row])) or [])

    def _remember(self, rows: np.ndarray, take: np.ndarray) -> None:
        """Blocks that this step fills can be used by others from now on, even in this step."""
        if not self.blocks.reuse:
            return
        size = self.blocks.size
        for row in rows.tolist():
            sequence = self.running[row]
            until = int(self.computed[row] + take[row]) // size
            for place in range(sequence.remembered, until):
                tokens = self.tokens[row, place * size : (place + 1) * size].tolist()
                sequence.prefix = self.blocks.remember(sequence.blocks[place], sequence.prefix, tokens)
            sequence.remembered = until
            self.remembered[row] = until

    # --------------------------------------------------------------------------------------------------- admission

    def _admit(self, take: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[tuple[int, int]]]:
        """Let waiting sequences in. The takes of all rows, whose result each row uses, and blocks to copy.

        A prompt that equals one whose reading ends in this step (a group of rollouts) is not read again.
        """
        takes, copies = take.tolist(), list[tuple[int, int]]()
        source = list(range(len(takes)))
        left, scored = self.budget - int(take.sum()), MOST_SCORED - int(take[self._scoring()].sum())
        leaders: dict[tuple[int, ...], int] = {}
        while self.waiting and len(self.running) < self.max_rows:
            sequence = self.waiting[0]
            tokens = sequence.tokens
            leader = None if sequence.params.prompt_logprobs else leaders.get(tokens)
            if leader is not None:
                if not self._follow(sequence, leader, copies):
                    break
                takes.append(0)
                source.append(leader)
                continue
            wanted = sequence.params.prompt_logprobs
            count = self._read(sequence, tokens, min(left, scored) if wanted else left)
            if not count:
                break
            scored -= count if wanted else 0
            row = sequence.row
            takes.append(count)
            source.append(row)
            left -= count
            full = np.array(takes, np.int64)
            self._remember(np.array([row]), full)
            if self.computed[row] + count == len(tokens):
                leaders[tokens] = row
        return np.array(takes, np.int64), np.array(source, np.int64), copies

    def _read(self, sequence: Sequence, tokens: tuple[int, ...], left: int) -> int:
        """Let it in to have its prompt read, so many tokens at most; how many now, 0 when there is no room."""
        if not left:
            return 0
        matched, number = ([], ROOT) if sequence.params.prompt_logprobs else self.blocks.match(tokens)
        reused = len(matched) * self.blocks.size
        count = min(len(tokens) - reused, left)
        self.blocks.share(matched)
        more = self.blocks.allocate(-(-(reused + count) // self.blocks.size) - len(matched))
        if more is None:
            self.blocks.release(matched)
            return 0
        sequence.remembered, sequence.prefix = len(matched), number
        self._enter(sequence, tokens, [*matched, *more], reused)
        return count

    def _scoring(self) -> np.ndarray:
        """(r,) running rows whose prompt is being scored."""
        n = len(self.running)
        return np.flatnonzero(self.scored[:n] & (self.computed[:n] < self.prompt[:n] - 1))

    def _follow(self, sequence: Sequence, leader: int, copies: list[tuple[int, int]]) -> bool:
        """Let it in beside a row that reads the same tokens in this step; False when there is no room."""
        first = self.running[leader]
        tokens = sequence.tokens
        whole, rest = divmod(len(tokens), self.blocks.size)
        more = self.blocks.allocate(1 if rest else 0)
        if more is None:
            return False
        self.blocks.share(first.blocks[:whole])
        if rest:
            copies.append((first.blocks[whole], more[0]))
        sequence.remembered, sequence.prefix = first.remembered, first.prefix
        self._enter(sequence, tokens, [*first.blocks[:whole], *more], len(tokens))
        return True

    def _enter(self, sequence: Sequence, tokens: tuple[int, ...], blocks: list[int], reused: int) -> None:
        """Take the first waiting sequence in, of whose tokens so many are in the cache already."""
        self.waiting.popleft()
        self.take_in(sequence, tokens, blocks, reused)
        if not sequence.entered:  # later it finds what it left itself
            sequence.entered, sequence.reused = True, min(reused, len(sequence.prompt))
            self.queries += len(sequence.prompt)
            self.hits += sequence.reused

    # ----------------------------------------------------------------------------------------------------- leaving

    def _preempt(self, sequence: Sequence) -> None:
        """Back to the head of the queue; what it wrote is read again later, and it goes on with the same tokens."""
        self._leave(sequence)
        self.preemptions += 1
        self.waiting.appendleft(sequence)

    def _leave(self, sequence: Sequence) -> None:
        """Out of its row, and its blocks free."""
        self._steady = False
        self.blocks.release(sequence.blocks)
        self.take_out(sequence)
