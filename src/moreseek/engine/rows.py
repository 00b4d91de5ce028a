"""The running sequences as rows of a few arrays. No torch in here.

Always rows 0 to n − 1, so that a step of hundreds of them costs a few array operations.
"""

import numpy as np

from moreseek.engine.sequence import DRAWS, Sequence

NEVER = -1


def spread(count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n,) counts, whose things lie one behind another → of each thing (t,) whose it is, and which one of those."""
    whose = np.repeat(np.arange(len(count)), count)
    return whose, np.arange(len(whose)) - (np.cumsum(count) - count)[whose]


class Rows:
    """``running[row]`` is the sequence of a row; its tokens beyond those known are guesses, or nothing."""

    def __init__(self, max_rows: int, block_size: int) -> None:
        self.running: list[Sequence] = []
        self.block_size = block_size
        long = np.zeros((7, max_rows), np.int64)
        self.prompt, self.known, self.drafted, self.computed, self.limit, self.owned, self.remembered = long
        self.temperature = np.zeros(max_rows, np.float32)
        self.inverse = np.zeros(max_rows, np.float32)  # one over it; 0 for greedy
        self.draws = np.zeros((max_rows, DRAWS))
        self.watched = np.zeros(max_rows, np.bool_)  # somebody hears of each token
        self.single = np.zeros(max_rows, np.bool_)  # one token a step: what comes next depends on who listens
        self.scored = np.zeros(max_rows, np.bool_)  # the prompt's log-probabilities are wanted
        self.stops = np.full((max_rows, 1), NEVER, np.int64)
        self.tokens = np.zeros((max_rows, 64), np.int64)
        self.logprobs = np.zeros((max_rows, 64), np.float32)
        self.table = np.zeros((max_rows, 4), np.int32)
        self._names = [name for name, value in vars(self).items() if isinstance(value, np.ndarray)]

    def take_in(self, sequence: Sequence, tokens: tuple[int, ...], blocks: list[int], computed: int) -> None:
        """A sequence into the next row, whose known text is ``tokens``, of which ``computed`` are in the cache."""
        row = sequence.row = len(self.running)
        self.running.append(sequence)
        self._widen(sequence)
        params, prompt = sequence.params, len(sequence.prompt)
        sequence.blocks = blocks
        self.tokens[row, : len(tokens)] = tokens
        self.logprobs[row, prompt : len(tokens)] = sequence.logprobs
        self.table[row] = 0
        self.table[row, : len(blocks)] = blocks
        self.drafted[row] = 0
        self.known[row], self.computed[row], self.owned[row] = len(tokens), computed, len(blocks)
        self.remembered[row] = sequence.remembered
        self.prompt[row], self.limit[row] = prompt, sequence.most
        self.scored[row] = params.prompt_logprobs and len(sequence.prompt_logprobs) < prompt
        self.single[row] = params.single
        self.temperature[row] = params.temperature
        self.inverse[row] = 1 / params.temperature if params.temperature else 0.0
        self.watched[row] = sequence.on_token is not None or sequence.shaper is not None
        self.stops[row] = NEVER
        self.stops[row, : len(sequence.stops)] = sequence.stops
        made = len(tokens) - prompt
        if made % DRAWS and params.temperature > 0:
            self.draws[row] = sequence.uniforms(made // DRAWS)

    def take_out(self, sequence: Sequence) -> None:
        """A sequence out of its row, with what it has written; the last row moves into the gap."""
        row, last = sequence.row, len(self.running) - 1
        written = slice(len(sequence.prompt), int(self.known[row]))
        sequence.output = self.tokens[row, written].tolist()
        sequence.logprobs = self.logprobs[row, written].tolist()
        sequence.blocks, sequence.row, sequence.remembered, sequence.prefix = [], -1, 0, 0
        if row != last:
            for name in self._names:
                array = getattr(self, name)
                array[row] = array[last]
            moved = self.running[row] = self.running[last]
            moved.row = row
        self.running.pop()

    def give(self, row: int, blocks: list[int]) -> None:
        """More blocks for a row."""
        sequence, owned = self.running[row], int(self.owned[row])
        self.table[row, owned : owned + len(blocks)] = blocks
        sequence.blocks.extend(blocks)
        self.owned[row] += len(blocks)

    def draw(self, rows: np.ndarray) -> None:
        """New uniforms for those of the rows that have used theirs up."""
        fresh = ((self.known[rows] - self.prompt[rows]) % DRAWS == 0) & (self.temperature[rows] > 0)
        for row in rows[fresh].tolist():
            made = int(self.known[row] - self.prompt[row])
            self.draws[row] = self.running[row].uniforms(made // DRAWS)

    def drop_guesses(self, take: np.ndarray) -> None:
        """Forget the guesses, and take their tokens out of ``take`` (n,)."""
        n = len(take)
        take -= self.drafted[:n]
        self.drafted[:n] = 0

    def _widen(self, sequence: Sequence) -> None:
        """Make the arrays wide enough for one more sequence."""
        self.tokens = _widened(self.tokens, sequence.most, 0)
        self.logprobs = _widened(self.logprobs, sequence.most, 0)
        self.table = _widened(self.table, -(-sequence.most // self.block_size), 0)
        wanted = max(len(one.stops) for one in self.running)
        if self.stops.shape[1] > max(64, 4 * wanted):  # one that had thousands must not slow all who come after it
            self.stops = self.stops[:, :wanted].copy()
        self.stops = _widened(self.stops, wanted, NEVER)


def _widened(array: np.ndarray, width: int, fill: int) -> np.ndarray:
    """(rows, at least width) with the same content."""
    if width <= array.shape[1]:
        return array
    wider = np.zeros((array.shape[0], max(width, 2 * array.shape[1])), array.dtype)  # memory as it is written
    wider[:, : array.shape[1]] = array
    if fill:
        wider[:, array.shape[1] :] = fill
    return wider
