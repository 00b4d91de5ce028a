"""Decoding on a GPU as one launch: a step's kernels are recorded once for a number of rows and a length, and replayed.

A step of a small batch is hundreds of kernels that each take less time than their launch does.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from moreseek.engine.scheduler import Step
from moreseek.engine.torch_runner import TorchRunner
from moreseek.model.cache import CacheView
from moreseek.model.transformer import Transformer
from moreseek.native.step import BLOCK_SIZE

MOST_ROWS = 64  # more, and the kernels take longer than their launches
MOST_PLACES = 1 << 16  # of the cache that a recorded step reads, all rows together; likewise
SHORTEST = 256  # places of each row that it reads at the least

Run = Callable[[], Tensor]
Recorder = Callable[[Run], tuple[Callable[[], None], Tensor]]

_one_at_a_time = threading.Lock()
"""While one thread records, no other may wait for the whole device, as it does before it records."""


class Graphs:
    """Records on one GPU: what repeats a ``run`` on whatever its inputs then hold, and where its result then lies.

    Results live until another recording of these is replayed: all share their memory. Raises RuntimeError.
    """

    def __init__(self, device: torch.device) -> None:
        self._device, self._module = device, torch.get_device_module(device)
        self._stream: Any = None
        self._pool: Any = None

    def __call__(self, run: Run) -> tuple[Callable[[], None], Tensor]:
        if not hasattr(self._module, "CUDAGraph"):
            raise RuntimeError(f"torch records nothing on {self._device.type}")
        with _one_at_a_time, self._module.device(self._device):
            self._stream = self._stream or self._module.Stream()
            self._module.synchronize()
            with self._module.stream(self._stream):
                run()  # what libraries set up at a first call cannot be recorded
            self._module.synchronize()
            graph = self._module.CUDAGraph()
            # thread_local: what other threads do meanwhile with their own models is none of this recording's business
            with self._module.graph(graph, self._pool, self._stream, "thread_local"):
                result = run()
            self._pool = graph.pool()
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
    """The model's own forward pass, recorded where every row decodes."""

    def __init__(
        self, model: Transformer, blocks: int, drafting: bool = False, recorder: Recorder | None = None
    ) -> None:
        super().__init__(model, blocks, drafting)
        self._recorder: Recorder | None = recorder or Graphs(model.device)  # None: nothing can be recorded
        self._recorded: dict[tuple[int, int], _Recorded] = {}

    @torch.no_grad()
    def logits(self, step: Step) -> tuple[Tensor, Tensor | None]:
        recorded = self._fitting(step)
        return super().logits(step) if recorded is None else (recorded(step), None)

    def _fitting(self, step: Step) -> _Recorded | None:
        """Recorded for the next power of two of rows and of tokens; None where the step goes kernel by kernel."""
        rows = 1 << (len(step.count) - 1).bit_length()
        span = max(SHORTEST, 1 << int(step.start.max()).bit_length())
        if self._recorder is None or rows * span > MOST_PLACES or not self._plain(step):
            return None
        if (rows, span) not in self._recorded:
            try:
                self._recorded[rows, span] = _Recorded(self, rows, span, self._recorder)
            except RuntimeError as error:
                self._recorder = None
                self._recorded.clear()
                reason = str(error).partition("\n")[0]
                print(f"decoding goes on kernel by kernel; it could not be recorded: {reason}", file=sys.stderr)
                return None
        return self._recorded[rows, span]

    def _plain(self, step: Step) -> bool:
        """Whether each row has one new token, and all that it needs from before this step."""
        n = len(step.count)
        return (
            n == len(step.ids) == len(step.output) == step.settled <= MOST_ROWS
            and not (self.drafting or len(step.scored) or step.copies)
            and not torch.is_autocast_enabled(self.model.device.type)
        )
