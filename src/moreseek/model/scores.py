"""Attention of whole sequences: torch's fused kernel, or the block-wise path where that is faster."""

import torch
import torch.nn.functional as F
from torch import Tensor

from moreseek.model.blockwise import block_attention, fits


def attend(q: Tensor, k: Tensor, v: Tensor, scale: float, mask: Tensor | None) -> Tensor:
    """q: (B, Tq, H, D), k: (B, Tk, Hkv, D), v: (B, Tk, Hkv, Dv), Tk ≥ Tq → (B, Tq, H, Dv).

    Without a mask, query i sees the keys up to i + Tk − Tq. A mask is additive, (B or 1, 1, Tq, Tk), and may only
    hide more than that.
    """
    if fits(q, k, v):
        return block_attention(q, k, v, scale, mask)
    queries, keys, width = q.shape[1], k.shape[1], v.shape[-1]
    groups = q.shape[2] // k.shape[2]
    if groups > 1:
        k, v = k.repeat_interleave(groups, dim=2), v.repeat_interleave(groups, dim=2)
    if width < q.shape[-1]:  # the fused kernel wants one width; zero columns change nothing and are cut off below
        v = F.pad(v, (0, q.shape[-1] - width))
    if mask is None and keys > queries:  # is_causal would align the first query with the first key
        mask = torch.full((queries, keys), float("-inf"), dtype=q.dtype, device=q.device).triu_(1 + keys - queries)
    out = F.scaled_dot_product_attention(
        q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), attn_mask=mask, is_causal=mask is None, scale=scale
    )
    return out.transpose(1, 2)[..., :width]
