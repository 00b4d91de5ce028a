"""The paged cache: keys and values (GQA), or one latent a token (MLA), in blocks of a few tokens."""

from __future__ import annotations

from functools import cached_property
from math import prod

import torch
from torch import Tensor

from moreseek.model.config import ModelConfig
from moreseek.native.pages import fresh_pages
from moreseek.native.step import BLOCK_SIZE

_ALIGNED = 16  # cached vectors are padded with zeros to a multiple of this, so that kernels read whole vectors


class Cache:
    """``blocks`` blocks of BLOCK_SIZE tokens, for every layer. Which block belongs to whom is the engine's business.

    Dense families keep keys and values: (layers, blocks, kv_heads, BLOCK_SIZE, width) each, width being head_dim
    padded. DeepSeek-V3 keeps the normalised latent and the rotated shared key side by side: (layers, blocks,
    BLOCK_SIZE, width), width being kv_lora_rank + rope padded. In memory a block's layers lie side by side: one large
    page holds blocks for every layer, and a short text takes no page a layer. Block 0 is nobody's: padding is written
    there, as zeros.
    """

    def __init__(self, config: ModelConfig, blocks: int, like: Tensor, layers: int | None = None) -> None:
        self.blocks = blocks
        layers = config.num_hidden_layers if layers is None else layers
        if config.is_deepseek:
            self.width = _padded(config.kv_lora_rank + config.qk_rope_head_dim)
            self.tensors = [_zeros(like, layers, blocks, BLOCK_SIZE, self.width)]
        else:
            self.width = _padded(config.attention_head_dim)
            shape = (layers, blocks, config.kv_heads, BLOCK_SIZE, self.width)
            self.tensors = [_zeros(like, *shape), _zeros(like, *shape)]

    def copy_blocks(self, source: Tensor, target: Tensor) -> None:
        """Copy whole blocks, every layer at once. source and target: (n,) int64."""
        for tensor in self.tensors:
            tensor[:, target] = tensor[:, source]

    def clear(self, blocks: list[int]) -> None:
        """Zeros, for what must not reach the next owner: a NaN counts even where its weight is 0."""
        for tensor in self.tensors:
            tensor[:, blocks] = 0


def bytes_per_token(config: ModelConfig, element_size: int = 4, layers: int | None = None) -> int:
    """What one token takes in a cache of so many layers (default: the model's)."""
    if config.is_deepseek:
        numbers = _padded(config.kv_lora_rank + config.qk_rope_head_dim)
    else:
        numbers = 2 * config.kv_heads * _padded(config.attention_head_dim)
    return numbers * (config.num_hidden_layers if layers is None else layers) * element_size


def _zeros(like: Tensor, layers: int, blocks: int, *of_a_block: int) -> Tensor:
    """(layers, blocks, …) zeros, in memory block by block; on a CPU they take it only as they are written, which
    torch's own do not.
    """
    shape = (blocks, layers, *of_a_block)
    if like.device.type == "cpu":
        zeros = fresh_pages(prod(shape) * like.element_size()).view(like.dtype).view(shape)
    else:
        zeros = like.new_zeros(shape)
    return zeros.transpose(0, 1)


def _padded(width: int) -> int:
    return -(-width // _ALIGNED) * _ALIGNED


class CacheView:
    """What one forward pass of n sequences needs: where each stands, its blocks, and the mask over what is cached.

    start: (n,) tokens that a sequence has in the cache; count: (n,) new tokens of each, of T that the pass computes
    (the rest is padding); table: (n, blocks) int64. span: places of the cache that are looked at, no fewer than any
    sequence has; with it nothing is asked of the device, so that the pass can be recorded (engine/graphs.py).
    """

    def __init__(
        self, cache: Cache, start: Tensor, count: Tensor, table: Tensor, tokens: int, span: int | None = None
    ) -> None:
        self.cache, self.start, self.table = cache, start, table
        self.fixed = span is not None
        steps = torch.arange(tokens, device=start.device)
        self.positions = start.unsqueeze(1) + steps  # (n, T)
        self.span = int((start + count).max()) if span is None else span
        longest = int(start.max()) if span is None else span
        self.fresh = longest == 0
        self.longest = longest + tokens  # no position is as high as that
        real = steps < count.unsqueeze(1)
        self._padding = ~real if tokens > 1 or self.fixed else None
        blocks = (self.positions // BLOCK_SIZE).clamp_(max=table.shape[1] - 1)
        self._block = torch.where(real, table.gather(1, blocks), 0)
        self._place = self.positions % BLOCK_SIZE
        self._read = table[:, : -(-self.span // BLOCK_SIZE)]

    @cached_property
    def mask(self) -> Tensor:
        """Additive (n, T, span): what each new token may not see."""
        keys = torch.arange(self.span, device=self.start.device)
        hidden = keys > self.positions.unsqueeze(-1)
        mask = torch.zeros(hidden.shape, dtype=self.cache.tensors[0].dtype, device=self.start.device)
        return mask.masked_fill_(hidden, float("-inf"))

    def write(self, which: int, layer: int, values: Tensor) -> None:
        """values: (n, T, width) for the latent, (n, T, heads, width) for keys and values."""
        target = self.cache.tensors[which][layer]
        if self._padding is not None:  # others read block 0 behind their mask, which hides no NaN
            values = values.masked_fill(self._padding.view(*values.shape[:2], *[1] * (values.dim() - 2)), 0)
        if values.dim() == 4:
            target[self._block, :, self._place, : values.shape[-1]] = values
        else:
            target[self._block, self._place, : values.shape[-1]] = values

    def read(self, which: int, layer: int, width: int) -> Tensor:
        """A copy: latent (n, span, width), or keys / values (n·heads, span, width)."""
        found = self.cache.tensors[which][layer][self._read]  # (n, blocks, [heads,] BLOCK_SIZE, width)
        if found.dim() == 5:
            found = found.transpose(1, 2).flatten(0, 1)
        return found.flatten(1, 2)[:, : self.span, :width]
