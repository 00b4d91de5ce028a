"""The SwiGLU feed-forward, y = (silu(x·Gᵀ) · x·Uᵀ)·Dᵀ, as one op with a hand-written gradient.

Rows go through all of it a chunk at a time, so that on a CPU what lies between the matrices never leaves the
cache. The experts of moe.py use the same two functions on their own rows. tests/twins compares with plain autograd.
"""

from typing import Any

import torch
from torch import Tensor, nn

from moreseek.model.linear import Linear
from moreseek.native import ops
from moreseek.native.bindings import usable

CHUNK_VALUES = 1 << 18  # values of one intermediate in a chunk: 1 MB of fp32


class Weights:
    """The three matrices of one SwiGLU, or their gradients: gate and up (I, hidden), down (hidden, I), all views."""

    def __init__(self, gate_up: Tensor, down: Tensor) -> None:
        self.gate, self.up = gate_up.chunk(2)
        self.down = down


class Scratch:
    """Buffers for the intermediates of one chunk, used again by the next."""

    def __init__(self, like: Tensor, rows: int, inner: int, count: int) -> None:
        self.rows = chunk_rows(like, rows, inner)
        self.buffers = [like.new_empty(self.rows, inner) for _ in range(count)]

    def take(self, rows: int) -> list[Tensor]:
        return [buffer[:rows] for buffer in self.buffers]


def chunk_rows(like: Tensor, rows: int, inner: int) -> int:
    """Rows at a time: what fits a core's cache on a CPU, everything on an accelerator."""
    return min(rows, max(64, CHUNK_VALUES // inner)) if like.device.type == "cpu" else rows


def forward_rows(x: Tensor, w: Weights, hidden: Tensor, out: Tensor, scratch: Scratch) -> None:
    """Fill ``out`` (n, hidden), and ``hidden`` (2, n, I) with x·Gᵀ and x·Uᵀ, which the backward needs."""
    for low in range(0, x.shape[0], scratch.rows):
        part = slice(low, low + scratch.rows)
        rows, gate, up = x[part], hidden[0, part], hidden[1, part]
        (activated,) = scratch.take(rows.shape[0])
        torch.mm(rows, w.gate.t(), out=gate)
        torch.mm(rows, w.up.t(), out=up)
        torch.ops.aten.silu.out(gate, out=activated)
        torch.mm(activated.mul_(up), w.down.t(), out=out[part])


def backward_rows(
    grad: Tensor, x: Tensor, w: Weights, hidden: Tensor, grad_x: Tensor, grad_w: Weights, scratch: Scratch
) -> None:
    """Fill ``grad_x`` and set ``grad_w``. The activation is computed again: cheaper than to write and read it."""
    for low in range(0, x.shape[0], scratch.rows):
        part = slice(low, low + scratch.rows)
        rows, out, gate, up = x[part], grad[part], hidden[0, part], hidden[1, part]
        grad_up, activated, grad_gate = scratch.take(rows.shape[0])
        keep = 0.0 if low == 0 else 1.0
        torch.mm(out, w.down, out=grad_gate)  # of the activation, for now
        torch.ops.aten.silu.out(gate, out=activated)
        torch.mul(grad_gate, activated, out=grad_up)
        torch.addmm(grad_w.down, out.t(), activated.mul_(up), beta=keep, out=grad_w.down)
        torch.ops.aten.silu_backward.grad_input(grad_gate.mul_(up), gate, grad_input=grad_gate)
        torch.addmm(grad_w.gate, grad_gate.t(), rows, beta=keep, out=grad_w.gate)
        torch.addmm(grad_w.up, grad_up.t(), rows, beta=keep, out=grad_w.up)
        torch.mm(grad_gate, w.gate, out=grad_x[part])
        grad_x[part].addmm_(grad_up, w.up)


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gate_up: Tensor, down: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        hidden = x.new_empty(2, rows.shape[0], down.shape[1])
        out = torch.empty_like(rows)
        forward_rows(rows, Weights(gate_up, down), hidden, out, Scratch(rows, *hidden.shape[1:], count=1))
        ctx.save_for_backward(rows, gate_up, down, hidden)
        return out.view(x.shape)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        x, gate_up, down, hidden = ctx.saved_tensors
        grad = grads[0].reshape(x.shape)
        grad_x, grad_gate_up, grad_down = torch.empty_like(x), torch.empty_like(gate_up), torch.empty_like(down)
        scratch = Scratch(x, *hidden.shape[1:], count=3)
        backward_rows(grad, x, Weights(gate_up, down), hidden, grad_x, Weights(grad_gate_up, grad_down), scratch)
        return grad_x.view(grads[0].shape), grad_gate_up, grad_down


class MLP(nn.Module):
    """SwiGLU feed-forward with gate and up as one matrix (gate rows first)."""

    def __init__(self, hidden_size: int, intermediate_size: int) -> None:
        super().__init__()
        self.gate_up_proj = Linear(hidden_size, 2 * intermediate_size, bias=False)
        self.down_proj = Linear(intermediate_size, hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate_up, down = self.gate_up_proj.weight, self.down_proj.weight
        if usable(x, gate_up, down):
            return ops.swiglu(x, gate_up, down)
        if torch.is_autocast_enabled(x.device.type):
            dtype = torch.get_autocast_dtype(x.device.type)
            x, gate_up, down = x.to(dtype), gate_up.to(dtype), down.to(dtype)
        return _SwiGLU.apply(x, gate_up, down)  # pyright: ignore[reportReturnType]
