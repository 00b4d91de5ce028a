"""Steps by the model's own torch code, on any device."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from moreseek.engine.caches import copy_blocks, make_cache
from moreseek.engine.scheduler import Step
from moreseek.model.cache import CacheView
from moreseek.model.transformer import Transformer


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
