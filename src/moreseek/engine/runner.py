"""Carries out the scheduler's steps on a model: by the native step on a CPU, by the model's own torch code elsewhere.

Both give the same tokens up to rounding, and the native one gives the same bits whatever shares the step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from moreseek.engine.packed import PackedModel
from moreseek.engine.rows import Rows
from moreseek.engine.scheduler import Step
from moreseek.engine.sequence import DRAWS
from moreseek.errors import InputError
from moreseek.model.cache import Cache, CacheView
from moreseek.model.transformer import Transformer
from moreseek.native import step as native
from moreseek.native.bindings import usable
from moreseek.native.step import Precision


class Runner(Protocol):
    """A model with a cache. ``spare``: threads that steps of a few tokens leave to whoever else has work, as a server
    has, where the runner has a say in that.
    """

    cache: Cache
    spare: int

    def refresh(self) -> None:
        """See the weights as they are now."""
        ...

    def logits(self, step: Step) -> tuple[Tensor, Tensor | None]:
        """Compute the step's tokens into the cache → logits (o + s, V) fp32 of its outputs and of what is scored,
        and where it drafts the final norm's output (t, hidden) of every token.
        """
        ...

    def look_ahead(self, step: Step, states: Tensor) -> tuple[Tensor, Tensor]:
        """The MTP module: ``states`` (t, hidden) that the model had at the step's positions, whose ``ids`` are the
        tokens after those → logits (o, V) of the tokens after these, and the module's own states (o, hidden).
        """
        ...


def make_runner(model: Transformer, blocks: int, drafting: bool = False, precision: Precision = "fp32") -> Runner:
    """The fastest runner that this machine has for the model. ``drafting``: with the MTP module and its cache.

    Raises InputError for another precision than the model's own without the native kernels.
    """
    weight = model.embed_tokens.weight
    if usable(weight):
        return NativeRunner(model, blocks, drafting, precision)
    if precision == "int8" or (precision == "bf16" and weight.dtype != torch.bfloat16):
        raise InputError(
            f"{precision} needs the native kernels, an fp32 model and a CPU; `moreseek doctor` says what is missing."
        )
    return TorchRunner(model, blocks, drafting)


def cached_layers(model: Transformer, drafting: bool) -> int:
    """Layers of the cache: the model's, and that of its MTP module where it drafts."""
    return model.config.num_hidden_layers + int(drafting)


def make_cache(model: Transformer, blocks: int, drafting: bool) -> Cache:
    """A cache for a runner."""
    return Cache(model.config, blocks, model.embed_tokens.weight.detach(), cached_layers(model, drafting))


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
                    "computed", "known", "prompt", "limit", "single", "table", "tokens", "drafted",
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
                    "known", "prompt", "limit", "least", "stops", "table", "inverse", "draws", "tokens", "logprobs",
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


class TorchRunner:
    """The model's own forward pass: rows that decode, then those that go on reading, then those that are new."""

    spare = 0

    def __init__(self, model: Transformer, blocks: int, drafting: bool = False) -> None:
        self.model, self.drafting = model, drafting
        self.cache = make_cache(model, blocks, drafting)

    def refresh(self) -> None:
        pass

    @torch.no_grad()
    def logits(self, step: Step) -> tuple[Tensor, Tensor | None]:
        flat = self._through(step, lambda ids, view, _: self.model.cached_hidden_states(ids, view))
        copy_blocks(self.cache, step)
        return self._head(step, flat)[0], flat if self.drafting else None

    @torch.no_grad()
    def look_ahead(self, step: Step, states: Tensor) -> tuple[Tensor, Tensor]:
        def forward(ids: Tensor, view: CacheView, places: Tensor) -> Tensor:
            assert self.model.mtp is not None
            return self.model.mtp(states[places], self.model.embed_tokens(ids), self.model.cached_pass(view))

        return self._head(step, self._through(step, forward))

    def _head(self, step: Step, flat: Tensor) -> tuple[Tensor, Tensor]:
        output = np.concatenate([step.output, step.scored])
        hidden = flat[torch.from_numpy(output).to(flat.device)]
        return self.model.logits(hidden).float(), hidden

    def _through(self, step: Step, forward: Callable[[Tensor, CacheView, Tensor], Tensor]) -> Tensor:
        """(t, hidden): the states of all of the step's tokens. ``forward(ids, view, places)``: of a batch (n, T)."""
        weight = self.model.embed_tokens.weight
        flat = weight.new_empty(len(step.ids), self.model.config.hidden_size)
        settled = np.arange(len(step.count)) < step.settled
        decoding, reading = settled & (step.count == 1), settled & (step.count > 1)
        for rows in map(np.flatnonzero, (decoding, reading, ~settled & (step.count > 0))):
            if len(rows):
                ids, view, places, real = self._batch(step, rows)
                flat[places[real]] = forward(ids, view, places)[real]
        return flat

    def _batch(self, step: Step, rows: np.ndarray) -> tuple[Tensor, CacheView, Tensor, Tensor]:
        """These rows as a batch (n, T): ids, view, the tokens' places in the step, and which are not padding."""
        device = self.model.device
        count, first = step.count[rows], step.first[rows]
        tokens = int(count.max())
        places = first[:, None] + np.minimum(np.arange(tokens), count[:, None] - 1)  # padding repeats the last token
        real = np.arange(tokens) < count[:, None]
        ids, start, counts, table, places, real = (
            torch.from_numpy(np.ascontiguousarray(array)).to(device)
            for array in (step.ids[places], step.start[rows], count, step.table[rows].astype(np.int64), places, real)
        )
        return ids, CacheView(self.cache, start, counts, table, tokens), places, real


def copy_blocks(cache: Cache, step: Step) -> None:
    """Give the rows that follow a leader their own copy of its last block."""
    if step.copies:
        source, target = torch.tensor(step.copies, device=cache.tensors[0].device).t()
        cache.copy_blocks(source, target)
