"""Causal attention of flat rows with rotary embedding inside: plain batches, packed documents, branching rollouts."""

from ctypes import byref
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from moreseek.native.bindings import AttentionArgs, kernels


@dataclass(frozen=True)
class Layout:
    """Which flat rows belong together: stems, and branches that continue them. All tensors int64.

    stem_start, stem_length: (G,) rows of each stem; branch_offset: (G + 1,) where each stem's branches begin in
    branch_start and branch_length (C,). ``first``: (N,) first key inside its stem that a stem's row sees, or None.
    ``position``: (N,) row of ``phases`` (·, rope) that turns each flat row. ``whole``: every row is in a run.
    """

    stem_start: Tensor
    stem_length: Tensor
    branch_offset: Tensor
    branch_start: Tensor
    branch_length: Tensor
    position: Tensor
    phases: Tensor
    first: Tensor | None = None
    whole: bool = True


@dataclass(frozen=True)
class Heads:
    """Sizes of one attention layer. A key head is ``plain`` numbers as they are, then ``rope`` turned ones."""

    heads: int
    kv_heads: int
    plain: int
    rope: int
    value: int
    scale: float


def attention_qkv(qkv: Tensor, heads: Heads, layout: Layout) -> Tensor:
    """qkv: (N, (H + 2·Hkv)·D), queries, keys, values → (N, H·D)."""
    return _Attention.apply(heads, layout, qkv)  # pyright: ignore[reportReturnType]


def attention_q_k_v(q: Tensor, k: Tensor, v: Tensor, heads: Heads, layout: Layout) -> Tensor:
    """q: (N, H·D), k: (N, Hkv·D), v: (N, Hkv·D), rows of any stride → (N, H·D)."""
    return _Attention.apply(heads, layout, q, k, v)  # pyright: ignore[reportReturnType]


def attention_latent(q: Tensor, kv: Tensor, k_rope: Tensor, heads: Heads, layout: Layout) -> Tensor:
    """q: (N, H·(plain + rope)), kv: (N, H·(plain + value)) per-head keys and values, k_rope: (N, rope) shared."""
    return _Attention.apply(heads, layout, q, kv, k_rope)  # pyright: ignore[reportReturnType]


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, heads: Heads, layout: Layout, *tensors: Tensor) -> Tensor:
        rows = tensors[0].shape[0]
        make = tensors[0].new_empty if layout.whole else tensors[0].new_zeros
        out, lse = make((rows, heads.heads * heads.value)), make((rows, heads.heads))
        args = _arguments(heads, layout, tensors, out, lse)
        kernels().native_attention(byref(args), torch.get_num_threads())
        ctx.save_for_backward(*tensors, lse)
        ctx.heads, ctx.layout = heads, layout
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        *tensors, lse = ctx.saved_tensors
        heads: Heads = ctx.heads
        grad = grads[0].contiguous()
        args = _arguments(heads, ctx.layout, tensors, None, lse)
        make = grad.new_empty if ctx.layout.whole else grad.new_zeros
        targets = [make(tensor.shape) for tensor in tensors]
        args.grad = grad.data_ptr()
        for name, (target, offset, _) in _parts(heads, targets).items():
            setattr(args, f"d{name}", target.data_ptr() + 4 * offset)
            setattr(args, f"d{name}_row", target.stride(0))
        rows, room = grad.shape[0], None
        if args.k_rope_head == 0 and heads.rope:
            room = make((rows, heads.kv_heads * heads.rope))
        address = None if room is None else room.data_ptr()
        kernels().native_attention_backward(byref(args), address, rows, torch.get_num_threads())
        return None, None, *targets


def _parts(heads: Heads, tensors: list[Tensor] | tuple[Tensor, ...]) -> dict[str, tuple[Tensor, int, int]]:
    """q, k, k_rope and v: the tensor that holds each, where it begins in a row, and the step from head to head."""
    width = heads.plain + heads.rope
    if len(tensors) == 1:
        (qkv,) = tensors
        k_at, v_at = heads.heads * width, (heads.heads + heads.kv_heads) * width
        return {"q": (qkv, 0, width), "k": (qkv, k_at, width), "k_rope": (qkv, k_at, width), "v": (qkv, v_at, width)}
    if heads.plain == 0:
        q, k, v = tensors
        return {"q": (q, 0, width), "k": (k, 0, width), "k_rope": (k, 0, width), "v": (v, 0, heads.value)}
    q, kv, k_rope = tensors
    step = heads.plain + heads.value
    return {"q": (q, 0, width), "k": (kv, 0, step), "k_rope": (k_rope, 0, 0), "v": (kv, heads.plain, step)}


def _arguments(
    heads: Heads, layout: Layout, tensors: list[Tensor] | tuple[Tensor, ...], out: Tensor | None, lse: Tensor
) -> AttentionArgs:
    args = AttentionArgs(
        phases=layout.phases.data_ptr(), position=layout.position.data_ptr(),
        first=None if layout.first is None else layout.first.data_ptr(),
        heads=heads.heads, kv_heads=heads.kv_heads, plain=heads.plain, rope=heads.rope, value=heads.value,
        scale=heads.scale, stem_start=layout.stem_start.data_ptr(), stem_length=layout.stem_length.data_ptr(),
        branch_offset=layout.branch_offset.data_ptr(), branch_start=layout.branch_start.data_ptr(),
        branch_length=layout.branch_length.data_ptr(), groups=layout.stem_start.numel(),
        out=None if out is None else out.data_ptr(), lse=lse.data_ptr(),
    )  # fmt: skip
    for name, (tensor, offset, step) in _parts(heads, tensors).items():
        setattr(args, name, tensor.data_ptr() + 4 * offset)
        setattr(args, f"{name}_row", tensor.stride(0))
        setattr(args, f"{name}_head", step)
    return args
