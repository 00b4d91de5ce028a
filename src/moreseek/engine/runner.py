"""Carries out the scheduler's steps on a model: by the native step on a CPU, by the model's own torch code elsewhere.

Both give the same tokens up to rounding, and the native one gives the same bits whatever shares the step.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from moreseek.engine.packed import PackedModel
from moreseek.engine.scheduler import Step
from moreseek.model.cache import Cache, CacheView
from moreseek.model.transformer import Transformer
from moreseek.native import step as native
from moreseek.native.bindings import usable


class Runner(Protocol):
    """A model with a cache."""

    cache: Cache

    def refresh(self) -> None:
        """See the weights as they are now."""
        ...

    def logits(self, step: Step) -> Tensor:
        """Compute the step's tokens into the cache → logits (o, V) fp32."""
        ...


def make_runner(model: Transformer, blocks: int) -> Runner:
    """The fastest runner that this machine has for the model."""
    weight = model.embed_tokens.weight
    return NativeRunner(model, blocks) if usable(weight) else TorchRunner(model, blocks)


class NativeRunner:
    """One call a step into csrc/step.cpp, with packed copies of the weights."""

    def __init__(self, model: Transformer, blocks: int) -> None:
        self.model = model
        self.cache = Cache(model.config, blocks, model.embed_tokens.weight.detach())
        self.packed = PackedModel(model, self.cache)

    def refresh(self) -> None:
        self.packed.refresh()

    def logits(self, step: Step) -> Tensor:
        longest = int((step.start + step.count).max())
        phases = self._phases(longest)
        outputs, config = len(step.output), self.model.config
        hidden, logits = torch.empty(outputs, config.hidden_size), torch.empty(outputs, config.vocab_size)
        native.run(
            self.packed.model,
            native.Step(
                tokens=len(step.ids), rows=len(step.count), outputs=outputs, table_stride=step.table.shape[1],
                ids=step.ids.ctypes.data, first=step.first.ctypes.data, count=step.count.ctypes.data,
                start=step.start.ctypes.data, table=step.table.ctypes.data, phases=phases.data_ptr(),
                output=step.output.ctypes.data, hidden=hidden.data_ptr(), logits=logits.data_ptr(), states=None,
            ),
        )  # fmt: skip
        copy_blocks(self.cache, step)
        return logits

    def _phases(self, longest: int) -> Tensor:
        rope = self.model.rope
        if longest > rope.table.shape[0]:
            rope(torch.zeros(1, dtype=torch.int64), longest)
        return rope.table


class TorchRunner:
    """The model's own forward pass: rows that decode, then those that go on reading, then those that are new."""

    def __init__(self, model: Transformer, blocks: int) -> None:
        self.model = model
        self.cache = Cache(model.config, blocks, model.embed_tokens.weight.detach())

    def refresh(self) -> None:
        pass

    @torch.no_grad()
    def logits(self, step: Step) -> Tensor:
        weight = self.model.embed_tokens.weight
        flat = weight.new_empty(len(step.ids), self.model.config.hidden_size)
        settled = np.arange(len(step.count)) < step.settled
        decoding, reading = settled & (step.count == 1), settled & (step.count > 1)
        for rows in map(np.flatnonzero, (decoding, reading, ~settled & (step.count > 0))):
            if len(rows):
                places, hidden = self._forward(step, rows)
                flat[places] = hidden
        copy_blocks(self.cache, step)
        return self.model.logits(flat[torch.from_numpy(step.output).to(flat.device)]).float()

    def _forward(self, step: Step, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        """The places of these rows' tokens among the step's, and their hidden states."""
        device = self.model.device
        count, first = step.count[rows], step.first[rows]
        tokens = int(count.max())
        places = first[:, None] + np.minimum(np.arange(tokens), count[:, None] - 1)  # padding repeats the last token
        real = np.arange(tokens) < count[:, None]
        ids, start, counts, table = (
            torch.from_numpy(np.ascontiguousarray(array)).to(device)
            for array in (step.ids[places], step.start[rows], count, step.table[rows].astype(np.int64))
        )
        view = CacheView(self.cache, start, counts, table, tokens)
        hidden = self.model.cached_hidden_states(ids, view)
        return torch.from_numpy(places[real]).to(device), hidden[torch.from_numpy(real).to(device)]


def copy_blocks(cache: Cache, step: Step) -> None:
    """Give the rows that follow a leader their own copy of its last block."""
    if step.copies:
        source, target = torch.tensor(step.copies, device=cache.tensors[0].device).t()
        cache.copy_blocks(source, target)
