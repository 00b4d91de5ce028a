"""The kernels as differentiable operations. Each has its twin in plain torch beside the module that calls it."""

from typing import Any

import torch
from torch import Tensor

from moreseek.native.bindings import kernels

# --- RMSNorm ------------------------------------------------------------------------------------------------------


def _norm(x: Tensor, delta: Tensor | None, weight: Tensor, eps: float, rstd: Tensor | None) -> tuple[Tensor, Tensor]:
    """x: (…, size) with rows of any stride → (x + delta, its norm); x itself where there is no delta."""
    size = x.shape[-1]
    rows, row_stride = _rows(x)
    out = x.new_empty(x.shape)
    total = x if delta is None else torch.empty_like(out)
    kernels().native_rms_norm(
        x.data_ptr(), row_stride, None if delta is None else delta.data_ptr(),
        None if delta is None else total.data_ptr(), weight.data_ptr(), out.data_ptr(),
        None if rstd is None else rstd.data_ptr(), rows, size, eps, torch.get_num_threads(),
    )  # fmt: skip
    return total, out


def _norm_backward(
    grad: Tensor, extra: Tensor | None, x: Tensor, weight: Tensor, rstd: Tensor
) -> tuple[Tensor, Tensor]:
    grad = grad.contiguous()
    extra = None if extra is None else extra.contiguous()
    rows, row_stride = _rows(x)
    dx, dw = x.new_empty(x.shape), torch.empty_like(weight)
    kernels().native_rms_norm_backward(
        grad.data_ptr(), None if extra is None else extra.data_ptr(), x.data_ptr(), row_stride, weight.data_ptr(),
        rstd.data_ptr(), dx.data_ptr(), dw.data_ptr(), rows, x.shape[-1], torch.get_num_threads(),
    )  # fmt: skip
    return dx, dw


def _rows(x: Tensor) -> tuple[int, int]:
    """(rows, stride between them); the caller made sure that rows_ok(x)."""
    return x.numel() // x.shape[-1], x.stride(-2) if x.dim() > 1 else x.shape[-1]


def one_stride(x: Tensor) -> Tensor:
    """x itself when its rows lie one stride apart, whatever its leading dimensions, else a contiguous copy."""
    if x.stride(-1) == 1:
        step = x.stride(-2) if x.dim() > 1 else 0
        for size, stride in zip(reversed(x.shape[:-1]), reversed(x.stride()[:-1]), strict=True):
            if size != 1 and stride != step:
                return x.contiguous()
            step *= size
        return x
    return x.contiguous()


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        x = one_stride(x)
        rstd = x.new_empty(x.numel() // x.shape[-1])
        _, out = _norm(x, None, weight, eps, rstd)
        ctx.save_for_backward(x, weight, rstd)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return *_norm_backward(grads[0], None, *ctx.saved_tensors), None


class _AddRMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, delta: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        rstd = x.new_empty(x.numel() // x.shape[-1])
        total, out = _norm(one_stride(x), delta.contiguous(), weight, eps, rstd)
        ctx.save_for_backward(total, weight, rstd)
        return total, out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        dx, dw = _norm_backward(grads[1], grads[0], *ctx.saved_tensors)
        return dx, dx, dw, None


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x: (…, size) → x / sqrt(mean(x²) + eps) · weight."""
    if not torch.is_grad_enabled():
        return _norm(one_stride(x), None, weight, eps, None)[1]
    return _RMSNorm.apply(x, weight, eps)  # pyright: ignore[reportReturnType]


def add_rms_norm(x: Tensor, delta: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """(x + delta, its RMSNorm) in one pass."""
    if not torch.is_grad_enabled():
        return _norm(one_stride(x), delta.contiguous(), weight, eps, None)
    return _AddRMSNorm.apply(x, delta, weight, eps)  # pyright: ignore[reportReturnType]


# --- linear -------------------------------------------------------------------------------------------------------


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        x = x.contiguous()
        out, size = weight.shape
        y = x.new_empty(*x.shape[:-1], out)
        kernels().native_linear(
            x.data_ptr(), weight.data_ptr(), y.data_ptr(), x.numel() // size, size, out, torch.get_num_threads()
        )
        ctx.save_for_backward(x, weight)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        out, size = weight.shape
        grad = grads[0].contiguous()
        dx = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        dweight = torch.empty_like(weight)
        kernels().native_linear_backward(
            grad.data_ptr(), x.data_ptr(), weight.data_ptr(), None if dx is None else dx.data_ptr(),
            dweight.data_ptr(), x.numel() // size, size, out, torch.get_num_threads(),
        )  # fmt: skip
        return dx, dweight


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """x: (…, size), weight: (out, size) → (…, out)."""
    return _Linear.apply(x, weight)  # pyright: ignore[reportReturnType]


# --- feed-forward -------------------------------------------------------------------------------------------------


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gate_up: Tensor, down: Tensor) -> Tensor:
        x = x.contiguous()
        size, inner = down.shape
        rows = x.numel() // size
        hidden, out = x.new_empty(rows, 2 * inner), torch.empty_like(x)
        kernels().native_swiglu(
            x.data_ptr(), gate_up.data_ptr(), down.data_ptr(), hidden.data_ptr(), out.data_ptr(), rows, size, inner,
            torch.get_num_threads(),
        )  # fmt: skip
        ctx.save_for_backward(x, gate_up, down, hidden)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        x, gate_up, down, hidden = ctx.saved_tensors
        grad = grads[0].contiguous()
        dx, dgate_up, ddown = torch.empty_like(x), torch.empty_like(gate_up), torch.empty_like(down)
        kernels().native_swiglu_backward(
            grad.data_ptr(), x.data_ptr(), gate_up.data_ptr(), down.data_ptr(), hidden.data_ptr(), dx.data_ptr(),
            dgate_up.data_ptr(), ddown.data_ptr(), hidden.shape[0], *down.shape, torch.get_num_threads(),
        )  # fmt: skip
        return dx, dgate_up, ddown


def swiglu(x: Tensor, gate_up: Tensor, down: Tensor) -> Tensor:
    """x: (…, size), gate_up: (2I, size) gate rows first, down: (size, I) → (…, size)."""
    return _SwiGLU.apply(x, gate_up, down)  # pyright: ignore[reportReturnType]


class _Experts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weights: Tensor, chosen: Tensor, gate_up: Tensor, down: Tensor) -> Tensor:
        x, weights, chosen = x.contiguous(), weights.contiguous(), chosen.contiguous()
        experts, size, inner = down.shape
        slots = chosen.numel()
        order, place = torch.empty(2, slots, dtype=torch.int64).unbind()
        bounds = torch.empty(experts + 1, dtype=torch.int64)
        kernels().native_sort_slots(
            chosen.data_ptr(), slots, experts, order.data_ptr(), place.data_ptr(), bounds.data_ptr()
        )
        hidden, by_slot, out = x.new_empty(slots, 2 * inner), x.new_empty(slots, size), torch.empty_like(x)
        kernels().native_experts(
            x.data_ptr(), weights.data_ptr(), order.data_ptr(), place.data_ptr(), bounds.data_ptr(),
            gate_up.data_ptr(), down.data_ptr(), hidden.data_ptr(), by_slot.data_ptr(), out.data_ptr(), *chosen.shape,
            experts, size, inner, torch.get_num_threads(),
        )  # fmt: skip
        ctx.save_for_backward(x, weights, order, place, bounds, gate_up, down, hidden, by_slot)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        x, weights, order, place, bounds, gate_up, down, hidden, by_slot = ctx.saved_tensors
        grad = grads[0].contiguous()
        outs = [torch.empty_like(t) for t in (x, weights, gate_up, down, by_slot)]
        kernels().native_experts_backward(
            grad.data_ptr(), x.data_ptr(), weights.data_ptr(), order.data_ptr(), place.data_ptr(), bounds.data_ptr(),
            gate_up.data_ptr(), down.data_ptr(), hidden.data_ptr(), by_slot.data_ptr(),
            *(out.data_ptr() for out in outs), *weights.shape, *down.shape, torch.get_num_threads(),
        )  # fmt: skip
        dx, dweights, dgate_up, ddown, _ = outs
        return dx, dweights, None, dgate_up, ddown


def experts(x: Tensor, weights: Tensor, chosen: Tensor, gate_up: Tensor, down: Tensor) -> Tensor:
    """Σ_k weights_k · SwiGLU of expert chosen_k. x: (N, size), weights and chosen: (N, K), gate_up: (E, 2I, size)."""
    return _Experts.apply(x, weights, chosen, gate_up, down)  # pyright: ignore[reportReturnType]


# --- losses -------------------------------------------------------------------------------------------------------


def _check_targets(targets: Tensor, vocab: int) -> Tensor:
    """Contiguous targets, all of them rows of the head: the kernels look nothing up twice."""
    if targets.numel() and (int(targets.min()) < 0 or int(targets.max()) >= vocab):
        raise IndexError(f"a target is outside the vocabulary of {vocab} tokens")
    return targets.contiguous()


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: Tensor, targets: Tensor, scale: float) -> Tensor:
        hidden, targets = hidden.contiguous(), _check_targets(targets, head.shape[0])
        dhidden, dhead = torch.empty_like(hidden), torch.empty_like(head)
        total = kernels().native_cross_entropy(
            hidden.data_ptr(), head.data_ptr(), targets.data_ptr(), dhidden.data_ptr(), dhead.data_ptr(),
            hidden.shape[0], *head.shape, torch.get_num_threads(),
        )  # fmt: skip
        ctx.save_for_backward(dhidden, dhead)
        ctx.scale = scale
        return hidden.new_tensor(total * scale)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        dhidden, dhead = ctx.saved_tensors
        factor = grads[0] * ctx.scale
        return dhidden.mul_(factor), dhead.mul_(factor), None, None


def cross_entropy_sum(hidden: Tensor, head: Tensor, targets: Tensor, scale: float) -> Tensor:
    """scale · Σ −log p(target). hidden: (N, D), head: (V, D), targets: (N,) int64, all ≥ 0. Backward at most once."""
    return _CrossEntropy.apply(hidden, head, targets, scale)  # pyright: ignore[reportReturnType]


class _TokenLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: Tensor, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        hidden, targets = hidden.contiguous(), _check_targets(targets, head.shape[0])
        needed = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        probabilities = hidden.new_empty(hidden.shape[0], head.shape[0]) if needed else None
        logprobs, entropy = hidden.new_empty(2, hidden.shape[0]).unbind()
        kernels().native_token_logprobs(
            hidden.data_ptr(), head.data_ptr(), targets.data_ptr(),
            None if probabilities is None else probabilities.data_ptr(), logprobs.data_ptr(), entropy.data_ptr(),
            hidden.shape[0], *head.shape, temperature, torch.get_num_threads(),
        )  # fmt: skip
        if probabilities is not None:
            ctx.save_for_backward(hidden, head, targets, probabilities)
        ctx.temperature = temperature
        ctx.mark_non_differentiable(entropy)
        return logprobs, entropy

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        hidden, head, targets, probabilities = ctx.saved_tensors
        grad = grads[0].contiguous()
        dhidden, dhead = torch.empty_like(hidden), torch.empty_like(head)
        kernels().native_token_logprobs_backward(
            grad.data_ptr(), probabilities.data_ptr(), hidden.data_ptr(), head.data_ptr(), targets.data_ptr(),
            dhidden.data_ptr(), dhead.data_ptr(), hidden.shape[0], *head.shape, ctx.temperature,
            torch.get_num_threads(),
        )  # fmt: skip
        return dhidden, dhead, None, None


def token_logprobs(hidden: Tensor, head: Tensor, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """See model.losses.token_logprobs; all probabilities are kept for the backward pass."""
    return _TokenLogprobs.apply(hidden, head, targets, temperature)  # pyright: ignore[reportReturnType]
