"""Decoding on a GPU as one launch: a step's kernels are recorded once for a number of rows and a length, and replayed.

A step of a small batch is hundreds of kernels that each take less time than their launch does.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from moreseek.engine.scheduler import Step
from moreseek.engine.torch_runner import TorchRunner
from moreseek.model.cache import CacheView
from moreseek.model.transformer import Transformer
from moreseek.native.step import BLOCK_SIZE

MOST_ROWS = 64  # more, and the kernels take longer than their launches
SHORTEST = 256  # places of the cache that a recorded step looks at, at the least

Run = Callable[[], Tensor]
Recorder = Callable[[Run], tuple[Callable[[], None], Tensor]]


def record(run: Run) -> tuple[Callable[[], None], Tensor]:
    """What repeats ``run`` on what its inputs then hold, and where its result then lies. Raises RuntimeError."""
    stream = torch.Stream()
    torch.accelerator.synchronize()
    with stream:
        run()  # what libraries set up at a first call cannot be recorded
    graph = torch.accelerator.Graph(capture_error_mode="thread_local")  # other threads may have models of their own
    with stream, graph:
        result = run()
    return graph.replay, result


class _Recorded:
    """A step of ``rows`` rows, each of which decodes and has fewer than ``span`` tokens."""

    def __init__(self, runner: TorchRunner, rows: int, span: int, recorder: Recorder) -> None:
        model = runner.model
        self._blocks = -(-span // BLOCK_SIZE)
        self._inputs = torch.zeros(rows, 3 + self._blocks, dtype=torch.int64, device=model.device)
        model.rope(torch.zeros(1, dtype=torch.int64, device=model.device), span + 1)
        self._phases = model.rope.table  # what was recorded reads this one, even when a longer text has a new one made

        def run() -> Tensor:
            ids, start, count, table = self._inputs.split([1, 1, 1, self._blocks], dim=1)
            view = CacheView(runner.cache, start[:, 0], count[:, 0], table, 1, span)
            return model.logits(model.cached_hidden_states(ids, view)[:, 0]).float()

        self._replay, self._logits = recorder(run)

    def __call__(self, step: Step) -> Tensor:
        """→ (n, V)"""
        n = len(step.ids)
        inputs = np.zeros(self._inputs.shape, np.int64)  # padding: nothing to write, and all it reads is block 0
        inputs[:n, 0], inputs[:n, 1], inputs[:n, 2] = step.ids, step.start, 1
        width = min(self._blocks, step.table.shape[1])
        inputs[:n, 3 : 3 + width] = step.table[:, :width]
        self._inputs.copy_(torch.from_numpy(inputs))
        self._replay()
        return self._logits[:n].clone()


class GraphRunner(TorchRunner):
    """The model's own forward pass, recorded where every row decodes. ``recorder``: as ``record``."""

    def __init__(self, model: Transformer, blocks: int, drafting: bool = False, recorder: Recorder = record) -> None:
        super().__init__(model, blocks, drafting)
        self._recorder, self._able = recorder, True
        self._recorded: dict[tuple[int, int], _Recorded] = {}

    @torch.no_grad()
    def logits(self, step: Step) -> tuple[Tensor, Tensor | None]:
        if self._able and self._plain(step):
            try:
                return self._fitting(step)(step), None
            except RuntimeError as error:
                self._able = False
                reason = str(error).partition("\n")[0]
                print(f"decoding goes on kernel by kernel; it could not be recorded: {reason}", file=sys.stderr)
        return super().logits(step)

    def _plain(self, step: Step) -> bool:
        """Whether each row has one new token, and all that it needs from before this step."""
        n = len(step.count)
        return (
            n == len(step.ids) == len(step.output) == step.settled <= MOST_ROWS
            and not (self.drafting or len(step.scored) or step.copies)
            and not torch.is_autocast_enabled(self.model.device.type)
        )

    def _fitting(self, step: Step) -> _Recorded:
        """Recorded for the next power of two of rows and of tokens."""
        rows = 1 << (len(step.ids) - 1).bit_length()
        span = max(SHORTEST, 1 << int(step.start.max()).bit_length())
        if (rows, span) not in self._recorded:
            self._recorded[rows, span] = _Recorded(self, rows, span, self._recorder)
        return self._recorded[rows, span]
