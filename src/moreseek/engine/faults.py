"""Where the first number that is not finite comes from, for the message."""

from __future__ import annotations

from collections.abc import Sequence as Items

import torch
from torch import Tensor, nn

from moreseek.model.transformer import Block, Transformer

MOST_TOKENS = 512  # of the text that is looked at again: an answer within a second matters more than the very place


@torch.no_grad()
def first_not_finite(model: Transformer, tokens: Items[int]) -> str:
    """The first part of the model whose result is not finite on this text, as ``layers.3.mlp``."""
    found: list[str] = []

    def watch(name: str, module: nn.Module) -> torch.utils.hooks.RemovableHandle:
        def look(_module: nn.Module, _inputs: object, output: object) -> None:
            tensors = [output] if isinstance(output, Tensor) else [t for t in output or () if isinstance(t, Tensor)]  # pyright: ignore[reportGeneralTypeIssues]
            if not found and not all(bool(t.isfinite().all()) for t in tensors):
                found.append(name)

        return module.register_forward_hook(look)

    ids = torch.tensor([list(tokens[:MOST_TOKENS])], device=model.device)
    if not bool(model.embed(ids).isfinite().all()):
        return "embed_tokens"
    handles: list[torch.utils.hooks.RemovableHandle] = []
    for index, block in enumerate(model.layers):
        assert isinstance(block, Block)
        handles += [watch(f"layers.{index}.{part}", child) for part, child in block.named_children()]
    try:
        logits = model(ids)
    finally:
        for handle in handles:
            handle.remove()
    if not found and bool(logits.isfinite().all()):
        return "the cache"  # only what was cached, or what lies beyond MOST_TOKENS
    return found[0] if found else "the output head"
