"""RMSNorm and rotary embedding (plain, YaRN, linear, llama3), with hand-written gradients.

On a CPU small models are bound by memory passes and by the price of each op, so the pointwise layers
carry their own backward: fewer passes, less saved. tests/twins compares each with its plain autograd twin.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from moreseek.model.config import ModelConfig, rope_type
from moreseek.native import ops
from moreseek.native.bindings import usable


class _RMSNorm(torch.autograd.Function):
    """y = x / sqrt(mean(x²) + eps) · w.

    The backward borrows layer norm's fused kernel with mean 0: that kernel subtracts mean(g·w), which RMSNorm
    does not, so the term is added back.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        y, rstd = _rms_norm(x, weight, eps)
        ctx.save_for_backward(x, weight, rstd)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (grad,) = grads
        x, weight, rstd = ctx.saved_tensors
        size = x.shape[-1]
        rows, grad_rows = x.reshape(-1, size).float(), grad.reshape(-1, size).float()
        rstd = rstd.reshape(-1, 1)
        weight_f = weight.float()
        dx, dw, _ = torch.ops.aten.native_layer_norm_backward(
            grad_rows, rows, [size], torch.zeros_like(rstd), rstd, weight_f, None, [True, True, False]
        )
        dx.add_((grad_rows @ weight_f).div_(size).unsqueeze_(1).mul_(rstd))
        return dx.view(x.shape).to(x.dtype), dw.to(weight.dtype), None


def _rms_norm(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    rstd = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
    rstd = rstd.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
    return (x * rstd.to(x.dtype)).mul_(weight.to(x.dtype)), rstd


class RMSNorm(nn.Module):
    """Root-mean-square norm over the last dimension; statistics in fp32."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        if usable(x, self.weight):
            return ops.rms_norm(x, self.weight, self.eps)
        if not torch.is_grad_enabled():  # decoding: an autograd function alone would cost as much as the norm
            return _rms_norm(x, self.weight, self.eps)[0]
        return _RMSNorm.apply(x, self.weight, self.eps)  # pyright: ignore[reportReturnType]

    def add(self, x: Tensor, delta: Tensor | None) -> tuple[Tensor, Tensor]:
        """(x + delta, its norm): what a block added to the residual stream, and the next block's input."""
        if delta is None:
            return x, self(x)
        if usable(x, delta, self.weight):
            return ops.add_rms_norm(x, delta, self.weight, self.eps)
        x = x + delta
        return x, self(x)


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, phases: Tensor) -> Tensor:
        ctx.save_for_backward(phases)
        return _rotate(x, phases)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (phases,) = ctx.saved_tensors
        return _rotate(grads[0], phases.conj()), None


def _rotate(x: Tensor, phases: Tensor) -> Tensor:
    width = 2 * phases.shape[-1]
    if width < x.shape[-1]:
        out = x.clone(memory_format=torch.contiguous_format)
        out[..., -width:] = _rotate(x[..., -width:], phases)
        return out
    pairs = x.float().unflatten(-1, (-1, 2))
    if pairs.storage_offset() % 2 or any(step % 2 for step in pairs.stride()[:-1]):  # no place for complex numbers
        pairs = pairs.clone(memory_format=torch.contiguous_format)
    return torch.view_as_real(torch.view_as_complex(pairs) * phases).flatten(-2).to(x.dtype)


def rotate(x: Tensor, phases: Tensor) -> Tensor:
    """Rotary embedding: the pairs (2i, 2i+1), read as complex numbers, times unit phases.

    x: (B, T, H, D), phases: complex (B or 1, T, 1, R/2), R ≤ D. Only the last R numbers of a head are turned.
    """
    if not torch.is_grad_enabled():
        return _rotate(x, phases)
    return _Rotate.apply(x, phases)  # pyright: ignore[reportReturnType]


class Rope(nn.Module):
    """Phases e^{i·position·frequency} for every position, made once and grown when a longer text comes."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        # Never on the meta device: to sketch an arange there torch imports its compiler, which takes two seconds.
        with torch.device("cpu"):
            frequencies, self.magnitude = rope_frequencies(config)
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.register_buffer("table", torch.empty(0, frequencies.numel(), dtype=torch.complex64), persistent=False)
        self.frequencies: Tensor
        self.table: Tensor

    def forward(self, positions: Tensor, longest: int) -> Tensor:
        """positions: (B, T) or (T,) int64, all below ``longest`` → complex (…, T, 1, D/2)."""
        if longest > self.table.shape[0]:
            size = max(256, 1 << (longest - 1).bit_length())
            angles = torch.outer(torch.arange(size, device=self.frequencies.device).float(), self.frequencies.float())
            self.table = torch.polar(torch.full_like(angles, self.magnitude), angles)
        return self.table[positions].unsqueeze(-2)


def rope_frequencies(config: ModelConfig) -> tuple[Tensor, float]:
    """Frequencies (rope_dim / 2,) and the factor on cos and sin (YaRN's attention factor; 1 elsewhere)."""
    dim, theta, scaling = config.rope_dim, config.rope_theta, config.rope_scaling or {}
    base = 1.0 / theta ** (torch.arange(0, dim, 2, dtype=torch.float32) / dim)
    kind = rope_type(scaling)
    if kind == "linear":
        return base / scaling["factor"], 1.0
    if kind == "llama3":
        return _llama3(base, scaling), 1.0
    if kind == "yarn":
        return _yarn(base, config, scaling)
    return base, 1.0


def _yarn(base: Tensor, config: ModelConfig, scaling: dict[str, Any]) -> tuple[Tensor, float]:
    """YaRN (arXiv 2309.00071): long wavelengths are interpolated, short ones kept, a ramp between."""
    dim, theta, factor = config.rope_dim, config.rope_theta, scaling["factor"]
    original = scaling.get("original_max_position_embeddings") or config.max_position_embeddings

    def turns_to_dim(turns: float) -> float:
        return dim * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low, high = turns_to_dim(scaling.get("beta_fast") or 32), turns_to_dim(scaling.get("beta_slow") or 1)
    if scaling.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    ramp = ((torch.arange(dim // 2, dtype=torch.float32) - low) / max(high - low, 0.001)).clamp(0, 1)
    frequencies = base / factor * ramp + base * (1 - ramp)
    attention_factor = scaling.get("attention_factor")
    if attention_factor is None:
        mscale, mscale_all = scaling.get("mscale"), scaling.get("mscale_all_dim")
        if mscale and mscale_all:
            attention_factor = yarn_mscale(factor, mscale) / yarn_mscale(factor, mscale_all)
        else:
            attention_factor = yarn_mscale(factor, 1.0)
    return frequencies, float(attention_factor)


def yarn_mscale(factor: float, mscale: float) -> float:
    """0.1·mscale·ln(factor) + 1 (1 when nothing is stretched)."""
    return 1.0 if factor <= 1 else 0.1 * mscale * math.log(factor) + 1.0


def _llama3(base: Tensor, scaling: dict[str, Any]) -> Tensor:
    factor, original = scaling["factor"], scaling["original_max_position_embeddings"]
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    turns = original * base / (2 * math.pi)  # how often a frequency turns within the original context
    smooth = ((turns - low) / (high - low)).clamp(0, 1)
    return base / factor * (1 - smooth) + base * smooth
