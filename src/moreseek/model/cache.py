"""Preallocated caches: keys and values (GQA), or one latent per token (MLA)."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from moreseek.model.config import ModelConfig


class Cache:
    """Room for ``rows`` sequences of up to ``length`` tokens, for every layer.

    Dense families keep keys and values: (layers, rows, kv_heads, length, head_dim) each. DeepSeek-V3 keeps the
    normalised latent and the rotated shared key side by side: (layers, rows, length, kv_lora_rank + rope).
    """

    def __init__(self, config: ModelConfig, rows: int, length: int, like: Tensor) -> None:
        self.rows, self.length = rows, length
        layers = config.num_hidden_layers
        if config.is_deepseek:
            width = config.kv_lora_rank + config.qk_rope_head_dim
            self.tensors = [like.new_zeros(layers, rows, length, width)]
        else:
            shape = (layers, rows, config.kv_heads, length, config.attention_head_dim)
            self.tensors = [like.new_zeros(shape), like.new_zeros(shape)]

    def copy_rows(self, source: Cache, source_rows: Tensor, rows: Tensor, length: int) -> None:
        """Copy the first ``length`` tokens of ``source``'s rows into ours, every layer at once."""
        for mine, theirs in zip(self.tensors, source.tensors, strict=True):
            mine[..., :length, :].index_copy_(1, rows, theirs[..., :length, :].index_select(1, source_rows))

    def move_row(self, source: int, target: int, length: int) -> None:
        for tensor in self.tensors:
            tensor[:, target, ..., :length, :] = tensor[:, source, ..., :length, :]

    @property
    def bytes_per_token(self) -> int:
        return sum(t[:, 0, ..., 0, :].numel() * t.element_size() for t in self.tensors)


class CacheView:
    """What one forward pass needs: which rows, where each row stands, and the mask over what is cached.

    ``rows`` is a contiguous range, so that every read is a view. ``start``: (n,) tokens already cached a row.
    ``same``: (n,) rows of this view and (n,) numbers: so many first tokens of a row equal those of the other row, which
    may be read in its place. Nothing depends on it but speed.
    """

    def __init__(
        self, cache: Cache, first_row: int, start: Tensor, tokens: int, longest_start: int,
        same: tuple[Tensor, Tensor] | None = None,
    ) -> None:  # fmt: skip
        self.cache, self.first_row, self.tokens = cache, first_row, tokens
        self.count = start.shape[0]
        self.span = longest_start + tokens
        self.fresh = longest_start == 0
        steps = torch.arange(tokens, device=start.device)
        self.positions = start.unsqueeze(1) + steps  # (n, T)
        self.start, self.same = start, same

    @cached_property
    def mask(self) -> Tensor:
        """Additive (n, T, span): what each new token may not see."""
        keys = torch.arange(self.span, device=self.start.device)
        hidden = keys > self.positions.unsqueeze(-1)
        mask = torch.zeros(hidden.shape, dtype=self.cache.tensors[0].dtype, device=self.start.device)
        return mask.masked_fill_(hidden, float("-inf"))

    @cached_property
    def row_index(self) -> Tensor:
        """(n, 1): the rows of the cache."""
        return torch.arange(self.first_row, self.first_row + self.count, device=self.start.device).unsqueeze(1)

    @property
    def one_each(self) -> bool:
        """Whether every row adds one token to what it has: plain decoding."""
        return self.tokens == 1 and not self.fresh

    def rows(self, which: int, layer: int) -> Tensor:
        """This view's rows of one layer's cache, whole: a view (n, …)."""
        return self.cache.tensors[which][layer, self.first_row : self.first_row + self.count]

    def write(self, which: int, layer: int, values: Tensor) -> None:
        """values: (n, T, width) for the latent, (n, T, heads, width) for keys and values."""
        target = self.cache.tensors[which][layer]
        if self.fresh:
            rows = target[self.first_row : self.first_row + self.count]
            if values.dim() == 4:
                rows[:, :, : self.tokens] = values.transpose(1, 2)
            else:
                rows[:, : self.tokens] = values
        elif values.dim() == 4:
            target[self.row_index, :, self.positions] = values
        else:
            target[self.row_index, self.positions] = values

    def read(self, which: int, layer: int) -> Tensor:
        """A view: latent (n, span, width), or keys / values (n·heads, span, width)."""
        rows = self.cache.tensors[which][layer, self.first_row : self.first_row + self.count]
        if rows.dim() == 4:
            rows = rows.flatten(0, 1)
        return rows[:, : self.span]
