"""Cross-entropy and token log-probabilities straight from hidden states, chunk by chunk.

The (tokens, vocab) logits never exist as a whole: a chunk's logits fit the processor's cache, and for
cross-entropy its gradient is made while they are still there. The plain twins are F.cross_entropy and log_softmax.
"""

from typing import Any

import torch
from torch import Tensor

from moreseek.native import ops
from moreseek.native.bindings import usable

CHUNK_VALUES = 1 << 20  # logits in one chunk: 4 MB of fp32
SAVED_VALUES = 1 << 26  # keep probabilities for the backward pass up to 256 MB, recompute them beyond


def chunk_rows(vocab: int) -> int:
    """Rows whose logits make one chunk."""
    return max(16, CHUNK_VALUES // vocab)


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: Tensor, targets: Tensor, scale: Tensor) -> Tensor:
        head_t = head.t()
        grad_hidden = torch.empty_like(hidden)
        grad_head = torch.zeros(head.shape, dtype=torch.float32, device=head.device)
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        for low in range(0, hidden.shape[0], chunk_rows(head.shape[0])):
            rows = hidden[low : low + chunk_rows(head.shape[0])]
            wanted = targets[low : low + rows.shape[0]].unsqueeze(1)
            logprobs = torch.log_softmax((rows @ head_t).float(), dim=-1)
            total -= logprobs.gather(1, wanted).sum()
            grad = logprobs.exp_()
            grad.scatter_add_(1, wanted, torch.full_like(wanted, -1, dtype=grad.dtype))
            grad = grad.to(hidden.dtype)  # of the sum: the scale comes in the backward, on fewer values
            torch.mm(grad, head, out=grad_hidden[low : low + rows.shape[0]])
            _add_product(grad_head, grad, rows)
        ctx.save_for_backward(grad_hidden, grad_head.to(head.dtype), scale)
        return total * scale

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        grad_hidden, grad_head, scale = ctx.saved_tensors
        factor = grads[0] * scale
        return grad_hidden.mul_(factor.to(grad_hidden.dtype)), grad_head.mul_(factor.to(grad_head.dtype)), None, None


def cross_entropy(hidden: Tensor, head: Tensor, targets: Tensor, denominator: float | None = None) -> Tensor:
    """Sum of −log p(target) over the targets ≥ 0, divided by their number or by ``denominator``.

    hidden: (…, D), head: (V, D), targets: (…) int64 with −100 where nothing is predicted.
    """
    flat = targets.reshape(-1)
    keep = (flat >= 0).nonzero().squeeze(1)
    rows = hidden.reshape(-1, hidden.shape[-1])
    if keep.numel() < flat.numel():
        rows, flat = rows.index_select(0, keep), flat.index_select(0, keep)
    factor = 1.0 / (denominator if denominator is not None else max(1, keep.numel()))
    if usable(rows, head):
        return ops.cross_entropy_sum(rows, head, flat, factor)
    rows, head = _common_dtype(rows, head)
    scale = torch.tensor(factor, device=hidden.device)
    return _CrossEntropy.apply(rows, head, flat, scale)  # pyright: ignore[reportReturnType]


class _TokenLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: Tensor, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        rows_a_chunk = chunk_rows(head.shape[0])
        keep = ctx.needs_input_grad[0] and hidden.shape[0] * head.shape[0] <= SAVED_VALUES
        chosen, entropy, saved = [], [], []
        for low in range(0, hidden.shape[0], rows_a_chunk):
            logprobs = _chunk_logprobs(hidden[low : low + rows_a_chunk], head, temperature)
            chosen.append(logprobs.gather(1, targets[low : low + rows_a_chunk].unsqueeze(1)).squeeze(1))
            probabilities = logprobs.exp()
            entropy.append(-torch.linalg.vecdot(probabilities, logprobs.clamp_(min=-1e4)))
            if keep:
                saved.append(probabilities)
        ctx.save_for_backward(hidden, head, targets, *saved)
        ctx.temperature = temperature
        out = torch.cat(chosen) if chosen else hidden.new_zeros(0)
        entropies = torch.cat(entropy) if entropy else hidden.new_zeros(0)
        ctx.mark_non_differentiable(entropies)
        return out, entropies

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        hidden, head, targets, *saved = ctx.saved_tensors
        grad_chosen = grads[0] / ctx.temperature
        rows_a_chunk = chunk_rows(head.shape[0])
        grad_hidden = torch.empty_like(hidden)
        grad_head = torch.zeros(head.shape, dtype=torch.float32, device=head.device)
        for index, low in enumerate(range(0, hidden.shape[0], rows_a_chunk)):
            rows = hidden[low : low + rows_a_chunk]
            probabilities = saved[index] if saved else _chunk_logprobs(rows, head, ctx.temperature).exp_()
            weight = grad_chosen[low : low + rows_a_chunk].unsqueeze(1)
            grad = probabilities.mul_(-weight)
            grad.scatter_add_(1, targets[low : low + rows_a_chunk].unsqueeze(1), weight.to(grad.dtype))
            grad = grad.to(hidden.dtype)
            torch.mm(grad, head, out=grad_hidden[low : low + rows.shape[0]])
            _add_product(grad_head, grad, rows)
        return grad_hidden, grad_head.to(head.dtype), None, None


def _add_product(total: Tensor, grad: Tensor, rows: Tensor) -> None:
    """total += gradᵀ·rows. The total of all chunks is fp32, whatever they are in: in bf16 it would soon stand still."""
    if rows.dtype == torch.float32:
        total.addmm_(grad.t(), rows)
    else:
        total += grad.t() @ rows


def _chunk_logprobs(rows: Tensor, head: Tensor, temperature: float) -> Tensor:
    logits = (rows @ head.t()).float()
    if temperature != 1.0:
        logits.div_(temperature)
    return torch.log_softmax(logits, dim=-1)


def token_logprobs(hidden: Tensor, head: Tensor, targets: Tensor, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """log p(target) at ``temperature``, with gradient, and the entropy in nats, without.

    hidden: (N, D), head: (V, D), targets: (N,) int64 → two (N,) fp32 tensors. Call backward at most once.
    """
    if usable(hidden, head) and hidden.shape[0] * head.shape[0] <= SAVED_VALUES:
        return ops.token_logprobs(hidden, head, targets, temperature)
    hidden, head = _common_dtype(hidden, head)
    return _TokenLogprobs.apply(hidden, head, targets, temperature)  # pyright: ignore[reportReturnType]


def _common_dtype(hidden: Tensor, head: Tensor) -> tuple[Tensor, Tensor]:
    if torch.is_autocast_enabled(hidden.device.type):
        dtype = torch.get_autocast_dtype(hidden.device.type)
        return hidden.to(dtype), head.to(dtype)
    return hidden, head
