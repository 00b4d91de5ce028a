"""Steps by the native kernels, on a CPU."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from moreseek.engine.caches import copy_blocks, make_cache
from moreseek.engine.packed import PackedModel
from moreseek.engine.rows import Rows
from moreseek.engine.scheduler import Step
from moreseek.engine.sequence import DRAWS
from moreseek.model.transformer import Transformer
from moreseek.native import step as native
from moreseek.native.step import Precision

FEW = 2
"""Tokens of a step up to which it waits for memory: a second thread makes it a tenth faster, if that."""


class NativeRunner:
    """One call a step into csrc/step.cpp, with packed copies of the weights."""

    spare = 0

    def __init__(self, model: Transformer, blocks: int, drafting: bool = False, precision: Precision = "fp32") -> None:
        self.model, self.drafting = model, drafting
        self.cache = make_cache(model, blocks, drafting)
        self.packed = PackedModel(model, self.cache, drafting, precision)

    def refresh(self) -> None:
        self.packed.refresh()

    def logits(self, step: Step) -> tuple[Tensor, Tensor | None]:
        every = torch.empty(len(step.ids), self.model.config.hidden_size) if self.drafting else None
        logits, _ = self._run(self.packed.model, step, every, None)
        copy_blocks(self.cache, step)
        return logits, every

    def look_ahead(self, step: Step, states: Tensor) -> tuple[Tensor, Tensor]:
        assert self.packed.mtp is not None
        return self._run(self.packed.mtp, step, None, states)

    def guess(self, rows: Rows, step: Step, going: np.ndarray, states: Tensor, most: int) -> None:
        """Up to ``most`` guesses behind the known tokens of ``rows``, in one call. ``step``, whose rows all ran before,
        gave ``states``; ``going`` (n,) are those that have not ended with it.
        """
        assert self.packed.mtp is not None
        n, config = len(going), self.model.config
        phases = self._phases(int(rows.known[:n].max()) + most)
        native.draft(
            self.packed.mtp,
            native.Draft(
                rows=n, most=most, draws=DRAWS, vocabulary=config.vocab_size, hidden=config.hidden_size,
                table_stride=rows.table.shape[1], token_stride=rows.tokens.shape[1],
                first=step.first.ctypes.data, start=step.start.ctypes.data, going=going.ctypes.data,
                states=states.data_ptr(), phases=phases.data_ptr(),
                **{name: getattr(rows, name).ctypes.data for name in (
                    "computed", "known", "prompt", "limit", "owned", "single", "table", "tokens", "drafted",
                )},
            ),
        )  # fmt: skip

    def multi_step(self, rows: Rows, most: int, timeout_s: float) -> int:
        """Up to ``most`` steps of ``rows``, which all decode, in one call; how many. Every row got so many tokens, with
        their log-probabilities, behind those known. It ends with the step in which a row does, or when time is up.
        """
        n, config = len(rows.running), self.model.config
        phases = self._phases(int(rows.known[:n].max()) + most)
        return native.multi_step(
            self.packed.model,
            native.MultiStep(
                rows=n, most=most, draw_stride=DRAWS, vocabulary=config.vocab_size, hidden=config.hidden_size,
                table_stride=rows.table.shape[1], token_stride=rows.tokens.shape[1],
                logprob_stride=rows.logprobs.shape[1], stop_stride=rows.stops.shape[1],
                nanoseconds=int(timeout_s * 1e9), phases=phases.data_ptr(),
                **{name: getattr(rows, name).ctypes.data for name in (
                    "known", "prompt", "limit", "stops", "table", "inverse", "draws", "tokens", "logprobs",
                )},
            ),
            self._threads(n),
        )  # fmt: skip

    def _threads(self, tokens: int) -> int:
        threads = torch.get_num_threads()
        return max(1, threads - self.spare) if tokens <= FEW else threads

    def _run(
        self, model: native.Model, step: Step, every: Tensor | None, states: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        longest = int((step.start + step.count).max())
        phases = self._phases(longest)
        output = np.concatenate([step.output, step.scored]) if len(step.scored) else step.output
        outputs, config = len(output), self.model.config
        hidden, logits = torch.empty(outputs, config.hidden_size), torch.empty(outputs, config.vocab_size)
        native.run(
            model,
            native.Step(
                tokens=len(step.ids), rows=len(step.count), outputs=outputs, table_stride=step.table.shape[1],
                ids=step.ids.ctypes.data, first=step.first.ctypes.data, count=step.count.ctypes.data,
                start=step.start.ctypes.data, table=step.table.ctypes.data, phases=phases.data_ptr(),
                output=output.ctypes.data, hidden=hidden.data_ptr(), logits=logits.data_ptr(),
                all_hidden=None if every is None else every.data_ptr(),
                states=None if states is None else states.data_ptr(),
            ),
            self._threads(len(step.ids)),
        )  # fmt: skip
        return logits, hidden

    def _phases(self, longest: int) -> Tensor:
        rope = self.model.rope
        if longest > rope.table.shape[0]:
            rope(torch.zeros(1, dtype=torch.int64), longest)
        return rope.table
