"""The kernels of decoding: one new token a row. No gradient; each has its twin in plain torch beside its caller."""

import torch
from torch import Tensor

from moreseek.native.attention import Heads
from moreseek.native.bindings import kernels, lanes


def decode_grouped(
    q: Tensor, k: Tensor, v: Tensor, keys: Tensor, values: Tensor, start: Tensor, phases: Tensor, heads: Heads,
    same: tuple[Tensor, Tensor] | None = None,
) -> Tensor:  # fmt: skip
    """Rotate, write to the cache, attend. q: (n, H, D), k and v: (n, Hkv, D), any row stride; keys and values:
    (n, Hkv, length, D), this layer's cache of these rows; start: (n,) int64; phases: complex (n, …, D / 2) → (n, H·D).
    ``same``: see CacheView.
    """
    leader, shared = (None, None) if same is None else (same[0].data_ptr(), same[1].data_ptr())
    n, width, length = q.shape[0], q.shape[-1], keys.shape[2]
    out = q.new_empty(n, heads.heads * width)
    kernels().native_decode_grouped(
        q.data_ptr(), q.stride(0), k.data_ptr(), k.stride(0), v.data_ptr(), v.stride(0), keys.data_ptr(),
        values.data_ptr(), start.data_ptr(), phases.data_ptr(), leader, shared, out.data_ptr(), n, heads.heads,
        heads.kv_heads, width, length, heads.scale, torch.get_num_threads(),
    )  # fmt: skip
    return out


def fits_latent(rank: int, value: int) -> bool:
    """Whether decode_latent takes these sizes: whole vectors."""
    return rank % lanes() == 0 and value % lanes() == 0


def decode_latent(
    q: Tensor, latent: Tensor, k_rope: Tensor, cache: Tensor, start: Tensor, phases: Tensor, up: Tensor, up_v: Tensor,
    heads: Heads,
) -> Tensor:  # fmt: skip
    """Absorbed MLA. q: (n, H·(plain + rope)) and k_rope: (n, rope), any row stride; latent: (n, rank), normalised;
    cache: (n, length, rank + rope); up: kv_b_proj's weight; up_v: (H, rank, value) → (n, H·value).
    """
    n, rank = latent.shape
    out = latent.new_empty(n, heads.heads * heads.value)
    kernels().native_decode_latent(
        q.data_ptr(), q.stride(0), latent.data_ptr(), k_rope.data_ptr(), k_rope.stride(0), cache.data_ptr(),
        start.data_ptr(), phases.data_ptr(), up.data_ptr(), up_v.data_ptr(), out.data_ptr(), n, heads.heads,
        heads.plain, heads.rope, heads.value, rank, cache.shape[1], heads.scale, torch.get_num_threads(),
    )  # fmt: skip
    return out


def decode_swiglu(x: Tensor, gate_up_t: Tensor, down_t: Tensor) -> Tensor:
    """x: (…, size), gate_up_t: (size, 2I), down_t: (I, size) → (…, size)."""
    x = x.contiguous()
    out = torch.empty_like(x)
    inner, size = down_t.shape
    kernels().native_decode_swiglu(
        x.data_ptr(), gate_up_t.data_ptr(), down_t.data_ptr(), out.data_ptr(), x.numel() // size, size, inner,
        torch.get_num_threads(),
    )  # fmt: skip
    return out


def decode_experts(x: Tensor, weights: Tensor, chosen: Tensor, gate_up_t: Tensor, down_t: Tensor) -> Tensor:
    """x: (n, size), weights and chosen: (n, K), gate_up_t: (E, size, 2I), down_t: (E, I, size) → (n, size)."""
    x = x.contiguous()
    out = torch.empty_like(x)
    experts, inner, size = down_t.shape
    kernels().native_decode_experts(
        x.data_ptr(), weights.data_ptr(), chosen.data_ptr(), gate_up_t.data_ptr(), down_t.data_ptr(), out.data_ptr(),
        *chosen.shape, experts, size, inner, torch.get_num_threads(),
    )  # fmt: skip
    return out


def decode_router(
    x: Tensor, weight: Tensor, bias: Tensor, top_k: int, normalise: bool, scaling: float
) -> tuple[Tensor, Tensor]:
    """x: (n, size), weight: (E, size), bias: (E,) → weights (n, K), experts (n, K) int64."""
    x = x.contiguous()
    weights = x.new_empty(x.shape[0], top_k)
    chosen = torch.empty(x.shape[0], top_k, dtype=torch.int64)
    kernels().native_decode_router(
        x.data_ptr(), weight.data_ptr(), bias.data_ptr(), weights.data_ptr(), chosen.data_ptr(), *x.shape,
        weight.shape[0], top_k, int(normalise), scaling,
    )  # fmt: skip
    return weights, chosen


def choose_tokens(logits: Tensor, uniforms: Tensor | None, temperature: float) -> tuple[Tensor, Tensor]:
    """logits: (n, V), uniforms: (n,) fp64 or None for greedy → ids (n,), log-probabilities (n,)."""
    logits = logits.contiguous()
    n = logits.shape[0]
    tokens, logprobs = torch.empty(n, dtype=torch.int64), logits.new_empty(n)
    kernels().native_choose(
        logits.data_ptr(), None if uniforms is None else uniforms.data_ptr(), tokens.data_ptr(), logprobs.data_ptr(),
        *logits.shape, 1.0 / temperature if uniforms is not None else 1.0, torch.get_num_threads(),
    )  # fmt: skip
    return tokens, logprobs
