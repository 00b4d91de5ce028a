"""The cache of a runner: how many layers it has, and copies of its blocks."""

from __future__ import annotations

import torch

from moreseek.engine.scheduler import Step
from moreseek.model.cache import Cache
from moreseek.model.transformer import Transformer


def cached_layers(model: Transformer, drafting: bool) -> int:
    """Layers of the cache: the model's, and that of its MTP module where it drafts."""
    return model.config.num_hidden_layers + int(drafting)


def make_cache(model: Transformer, blocks: int, drafting: bool) -> Cache:
    """A cache for a runner."""
    return Cache(model.config, blocks, model.embed_tokens.weight.detach(), cached_layers(model, drafting))


def copy_blocks(cache: Cache, step: Step) -> None:
    """Give the rows that follow a leader their own copy of its last block."""
    if step.copies:
        source, target = torch.tensor(step.copies, device=cache.tensors[0].device).t()
        cache.copy_blocks(source, target)
