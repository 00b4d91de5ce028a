"""Causal attention on a CPU, block by block with plain matrix products: about twice as fast as torch's fused kernel.

Queries go in blocks of rows and each block meets only the keys it may see, so a quarter of the square (or more) is
never computed; a block's scores stay in the cache. The probabilities are kept for the backward pass, hence
``fits``. tests/twins compares it with scaled_dot_product_attention.
"""

from typing import Any

import torch
from torch import Tensor

BLOCK = 128  # queries at a time
MOST_SCORES = 1 << 26  # probabilities kept by one call: 256 MB


def fits(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Whether this path is for these tensors: fp32 on a CPU, and short enough to keep the probabilities."""
    plain = q.device.type == "cpu" and q.dtype == k.dtype == v.dtype == torch.float32
    return plain and q.shape[0] * q.shape[2] * q.shape[1] * k.shape[1] <= MOST_SCORES


def block_attention(q: Tensor, k: Tensor, v: Tensor, scale: float, mask: Tensor | None) -> Tensor:
    """q: (B, Tq, H, D), k: (B, Tk, Hkv, D), v: (B, Tk, Hkv, Dv), Tk ≥ Tq → (B, Tq, H, Dv).

    Query i sees the keys up to i + Tk − Tq, of which ``mask`` (additive, (B or 1, 1, Tq, Tk)) may hide more.
    """
    return _BlockAttention.apply(q, k, v, scale, mask)  # pyright: ignore[reportReturnType]


class _BlockAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, scale: float, mask: Tensor | None) -> Tensor:
        batch, queries, heads, _ = q.shape
        kv_heads, groups = k.shape[2], heads // k.shape[2]
        out = q.new_empty(batch, queries, heads, v.shape[-1])
        blocks = _blocks(queries, k.shape[1])
        saved = [q.new_empty(batch, kv_heads, groups * (high - low), span) for low, high, span in blocks]
        scores = [torch.empty_like(probabilities[0]) for probabilities in saved]
        future = _future(min(queries, BLOCK), q)
        for row in range(batch):
            keys, values = k[row].transpose(0, 1), v[row].transpose(0, 1)  # (Hkv, Tk, D)
            for (low, high, span), score, probabilities in zip(blocks, scores, saved, strict=True):
                query = _stack_groups(q[row, low:high], kv_heads)
                torch.baddbmm(score, query, keys[:, :span].mT, beta=0, alpha=scale, out=score)
                by_head = score.view(kv_heads, groups, high - low, span)
                if mask is None:
                    by_head[..., span - (high - low) :] += future[: high - low, : high - low]
                else:
                    by_head += mask[row if mask.shape[0] > 1 else 0, :, low:high, :span]
                torch.softmax(score, -1, out=probabilities[row])
                out[row, low:high] = _split_groups(torch.bmm(probabilities[row], values[:, :span]), groups)
        ctx.save_for_backward(q, k, v, *saved)
        ctx.scale = scale
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        q, k, v, *saved = ctx.saved_tensors
        kv_heads, groups = k.shape[2], q.shape[2] // k.shape[2]
        grad_q, grad_k, grad_v = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        # the last block sees every key: it goes first and sets the gradients of keys and values
        blocks = list(zip(_blocks(q.shape[1], k.shape[1]), saved, strict=True))[::-1]
        scratch = [torch.empty_like(probabilities[0]) for _, probabilities in blocks]
        grad_keys, grad_values = (t.new_empty(kv_heads, t.shape[1], t.shape[3]) for t in (k, v))
        for row in range(q.shape[0]):
            keys, values = k[row].transpose(0, 1), v[row].transpose(0, 1)
            for index, ((low, high, span), probabilities) in enumerate(blocks):
                p, s, add = probabilities[row], scratch[index], float(index > 0)
                query, grad = (_stack_groups(t[row, low:high], kv_heads) for t in (q, grads[0]))
                target = grad_values[:, :span]
                torch.baddbmm(target, p.mT, grad, beta=add, out=target)
                torch.bmm(grad, values[:, :span].mT, out=s)
                torch.ops.aten._softmax_backward_data.out(s, p, -1, p.dtype, grad_input=s)
                target = grad_keys[:, :span]
                torch.baddbmm(target, s.mT, query, beta=add, alpha=ctx.scale, out=target)
                grad_q[row, low:high] = _split_groups(torch.bmm(s, keys[:, :span]), groups)
            grad_k[row], grad_v[row] = grad_keys.transpose(0, 1), grad_values.transpose(0, 1)
        return grad_q.mul_(ctx.scale), grad_k, grad_v, None, None


def _blocks(queries: int, keys: int) -> list[tuple[int, int, int]]:
    """(first query, last + 1, keys in sight) of each block."""
    ends = [min(low + BLOCK, queries) for low in range(0, queries, BLOCK)]
    return [(low, high, high + keys - queries) for low, high in zip(range(0, queries, BLOCK), ends, strict=True)]


def _future(size: int, like: Tensor) -> Tensor:
    return torch.full((size, size), float("-inf"), dtype=like.dtype, device=like.device).triu_(1)


def _stack_groups(rows: Tensor, kv_heads: int) -> Tensor:
    """(T, H, D) → (Hkv, G·T, D): the query heads that read one key head, one under the other."""
    tokens, heads, width = rows.shape
    by_head = rows.transpose(0, 1)  # a view that products read as it is; only G > 1 needs a copy
    return by_head if heads == kv_heads else by_head.reshape(kv_heads, heads // kv_heads * tokens, width)


def _split_groups(stacked: Tensor, groups: int) -> Tensor:
    """The way back: (Hkv, G·T, D) → (T, H, D)."""
    return stacked.unflatten(1, (groups, -1)).flatten(0, 1).transpose(0, 1)
