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
        out = q.new_empty(batch, queries, heads, v.shape[-1])
        blocks = _blocks(queries, k.shape[1])
        saved = [q.new_empty(batch, heads, high - low, span) for low, high, span in blocks]
        scores = [q.new_empty(heads, high - low, span) for low, high, span in blocks]
        hidden = _future(min(queries, BLOCK), q)
        for row in range(batch):
            query, keys, values = q[row].transpose(0, 1), _by_head(k[row], heads), _by_head(v[row], heads)
            for (low, high, span), score, probabilities in zip(blocks, scores, saved, strict=True):
                torch.baddbmm(score, query[:, low:high], keys[:, :span].mT, beta=0, alpha=scale, out=score)
                if mask is None:
                    score[..., span - (high - low) :] += hidden[: high - low, : high - low]
                else:
                    score += mask[row if mask.shape[0] > 1 else 0, :, low:high, :span]
                torch.softmax(score, -1, out=probabilities[row])
                out[row, low:high] = torch.bmm(probabilities[row], values[:, :span]).transpose(0, 1)
        ctx.save_for_backward(q, k, v, *saved)
        ctx.scale = scale
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        q, k, v, *saved = ctx.saved_tensors
        heads = q.shape[2]
        grad_q, grad_k, grad_v = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        blocks = _blocks(q.shape[1], k.shape[1])
        # the last block sees every key: it goes first and sets the gradients of keys and values
        order = [(*block, probabilities) for block, probabilities in zip(blocks, saved, strict=True)][::-1]
        scratch = [torch.empty_like(probabilities[0]) for *_, probabilities in order]
        grad_keys, grad_values = (t.new_empty(heads, t.shape[1], t.shape[-1]) for t in (k, v))
        for row in range(q.shape[0]):
            query, keys, values = q[row].transpose(0, 1), _by_head(k[row], heads), _by_head(v[row], heads)
            for index, (low, high, span, probabilities) in enumerate(order):
                out, p, s, beta = grads[0][row, low:high].transpose(0, 1), probabilities[row], scratch[index], index > 0
                _add_bmm(grad_values[:, :span], p.mT, out, 1.0, beta)
                torch.bmm(out, values[:, :span].mT, out=s)
                torch.ops.aten._softmax_backward_data.out(s, p, -1, p.dtype, grad_input=s)
                _add_bmm(grad_keys[:, :span], s.mT, query[:, low:high], ctx.scale, beta)
                grad_q[row, low:high] = torch.bmm(s, keys[:, :span]).mul_(ctx.scale).transpose(0, 1)
            grad_k[row], grad_v[row] = _join_heads(grad_keys, k.shape[2]), _join_heads(grad_values, v.shape[2])
        return grad_q, grad_k, grad_v, None, None


def _blocks(queries: int, keys: int) -> list[tuple[int, int, int]]:
    """(first query, last + 1, keys in sight) of each block."""
    ends = [min(low + BLOCK, queries) for low in range(0, queries, BLOCK)]
    return [(low, high, high + keys - queries) for low, high in zip(range(0, queries, BLOCK), ends, strict=True)]


def _future(size: int, like: Tensor) -> Tensor:
    return torch.full((size, size), float("-inf"), dtype=like.dtype, device=like.device).triu_(1)


def _by_head(rows: Tensor, heads: int) -> Tensor:
    """(T, Hkv, D) → (H, T, D), each key head once a query head that reads it."""
    groups = heads // rows.shape[1]
    by_head = rows.transpose(0, 1)
    return by_head if groups == 1 else by_head.repeat_interleave(groups, dim=0)


def _join_heads(grad: Tensor, kv_heads: int) -> Tensor:
    """The way back: (H, T, D) → (T, Hkv, D), summed over the query heads of a key head."""
    heads = grad.shape[0]
    joined = grad if heads == kv_heads else grad.unflatten(0, (kv_heads, heads // kv_heads)).sum(1)
    return joined.transpose(0, 1)


def _add_bmm(target: Tensor, a: Tensor, b: Tensor, scale: float, add: bool) -> None:
    """target = (target if add else 0) + scale · a @ b."""
    torch.baddbmm(target, a, b, beta=float(add), alpha=scale, out=target)
