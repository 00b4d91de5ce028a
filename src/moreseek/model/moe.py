"""DeepSeekMoE: sigmoid router with groups and a routing bias, shared experts, and experts without token dropping."""

from itertools import accumulate, pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from moreseek.model.attention import Pass
from moreseek.model.config import ModelConfig
from moreseek.model.swiglu import MLP, Scratch, Weights, backward_rows, forward_rows
from moreseek.native import ops
from moreseek.native.bindings import usable

COPYING = 3  # times that a copied weight passes through memory, over one that is multiplied where it lies


class Router(nn.Module):
    """Chooses experts by s + b and weighs them by s (V3 eq. 12 to 16); everything in fp32.

    ``bias`` (e_score_correction_bias on disk) is moved by ``update_bias``, never by the optimizer. ``load`` counts
    the tokens each expert got since the last update.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.experts, self.top_k = config.n_routed_experts, config.num_experts_per_tok
        self.groups, self.top_groups = config.n_group, config.topk_group
        self.normalise, self.scaling = config.norm_topk_prob, config.routed_scaling_factor
        self.weight = nn.Parameter(torch.empty(self.experts, config.hidden_size))
        self.register_buffer("bias", torch.zeros(self.experts))
        self.register_buffer("load", torch.zeros(self.experts), persistent=False)
        self.bias: Tensor
        self.load: Tensor

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x: (N, hidden) → weights (N, K), experts (N, K) int64, all scores (N, E)."""
        with torch.autocast(x.device.type, enabled=False):
            scores = torch.sigmoid(x.float() @ self.weight.float().t())
            chosen = self._choose(scores.detach() + self.bias)
            weights = scores.gather(1, chosen)
            if self.normalise:
                weights = weights / (weights.sum(-1, keepdim=True) + 1e-20)
        return weights * self.scaling, chosen, scores

    def _choose(self, biased: Tensor) -> Tensor:
        if self.groups > 1:
            grouped = biased.view(-1, self.groups, self.experts // self.groups)
            best = grouped.topk(2, dim=-1).values.sum(-1).topk(self.top_groups, dim=-1, sorted=False).indices
            shut = torch.ones_like(grouped[..., 0], dtype=torch.bool).scatter_(1, best, False)
            biased = grouped.masked_fill(shut.unsqueeze(-1), float("-inf")).flatten(1)
        return biased.topk(self.top_k, dim=-1, sorted=False).indices

    @torch.no_grad()
    def update_bias(self, step: float) -> float:
        """b += step · sign(mean load − load); returns max load / mean load and restarts the count."""
        mean = self.load.mean()
        imbalance = float(self.load.max() / mean.clamp(min=1e-9)) if float(mean) > 0 else 1.0
        if step:
            self.bias += step * torch.sign(mean - self.load)
        self.load.zero_()
        return imbalance


def balance_loss(scores: Tensor, top_k: int, batch: int, real: Tensor | None = None) -> Tensor:
    """Sequence-wise balance loss without its alpha: mean over sequences of Σ f_i·P_i (V3 eq. 17 to 20).

    scores: (B·T, E), unbiased. f_i = E / (K·T) · tokens whose unbiased top-k holds i; P_i = mean of s_i / Σ s.
    real: (B, T) bool, the tokens of which T are counted; None: all.
    """
    experts = scores.shape[1]
    per_sequence = scores.view(batch, -1, experts)
    shares = per_sequence / per_sequence.sum(-1, keepdim=True)  # (B, T, E)
    hits = torch.zeros_like(per_sequence).scatter_(2, per_sequence.topk(top_k, dim=-1, sorted=False).indices, 1.0)
    if real is None:
        shares, hits = shares.mean(1), hits.mean(1)  # (B, E)
    else:
        each = (real / real.sum(1, keepdim=True).clamp(min=1)).unsqueeze(2)  # (B, T, 1)
        shares, hits = (each * shares).sum(1), (each * hits).sum(1)
    return (hits * (experts / top_k) * shares).sum(-1).mean()


class _Dispatch(torch.autograd.Function):
    """Copy each token once per chosen expert, sorted by expert. Both directions gather, so they are deterministic."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor, inverse: Tensor, top_k: int) -> Tensor:
        ctx.save_for_backward(inverse)
        ctx.top_k = top_k
        return x.index_select(0, order.div(top_k, rounding_mode="floor"))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (inverse,) = ctx.saved_tensors
        return grads[0].index_select(0, inverse).unflatten(0, (-1, ctx.top_k)).sum(1), None, None, None


class _Combine(torch.autograd.Function):
    """Weighted sum of each token's expert outputs. y: (N·K, D) sorted by expert, weights: (N, K) → (N, D)."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, weights: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        by_token = y.index_select(0, inverse).unflatten(0, weights.shape)  # (N, K, D)
        ctx.save_for_backward(by_token, weights, order)
        return torch.bmm(weights.to(y.dtype).unsqueeze(1), by_token).squeeze(1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (grad,) = grads
        by_token, weights, order = ctx.saved_tensors
        grad_weights = torch.bmm(by_token, grad.unsqueeze(2)).squeeze(2).to(weights.dtype)
        grad_tokens = (weights.to(grad.dtype).unsqueeze(2) * grad.unsqueeze(1)).flatten(0, 1)
        return grad_tokens.index_select(0, order), grad_weights, None, None


class _GroupedSwiGLU(torch.autograd.Function):
    """Each expert's SwiGLU on its own slice of rows; weight gradients are written in place, expert by expert."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gate_up: Tensor, down: Tensor, bounds: list[int]) -> Tensor:
        hidden = x.new_empty(2, x.shape[0], down.shape[2])
        out = torch.empty_like(x)
        scratch = Scratch(x, *hidden.shape[1:], count=1)
        for expert, (low, high) in enumerate(pairwise(bounds)):
            weights = Weights(gate_up[expert], down[expert])
            forward_rows(x[low:high], weights, hidden[:, low:high], out[low:high], scratch)
        ctx.save_for_backward(x, gate_up, down, hidden)
        ctx.bounds = bounds
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (grad,) = grads
        x, gate_up, down, hidden = ctx.saved_tensors
        grad_x, grad_gate_up, grad_down = torch.empty_like(x), torch.empty_like(gate_up), torch.empty_like(down)
        scratch = Scratch(x, *hidden.shape[1:], count=3)
        for expert, (low, high) in enumerate(pairwise(ctx.bounds)):
            if low == high:
                grad_gate_up[expert].zero_()
                grad_down[expert].zero_()
                continue
            weights = Weights(gate_up[expert], down[expert])
            grad_weights = Weights(grad_gate_up[expert], grad_down[expert])
            part = slice(low, high)
            backward_rows(grad[part], x[part], weights, hidden[:, part], grad_x[part], grad_weights, scratch)
        return grad_x, grad_gate_up, grad_down, None


class Experts(nn.Module):
    """All routed experts as two stacked tensors: gate_up (E, 2I, hidden), gate rows first, and down (E, hidden, I)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        experts, hidden, inner = config.n_routed_experts, config.hidden_size, config.moe_intermediate_size
        self.gate_up_proj = nn.Parameter(torch.empty(experts, 2 * inner, hidden))
        self.down_proj = nn.Parameter(torch.empty(experts, hidden, inner))

    def forward(self, x: Tensor, weights: Tensor, chosen: Tensor) -> Tensor:
        """x: (N, hidden), weights and chosen: (N, K) → (N, hidden)."""
        if usable(x, self.gate_up_proj):
            return ops.experts(x, weights, chosen, self.gate_up_proj, self.down_proj)
        flat = chosen.flatten()
        counts = torch.bincount(flat, minlength=self.down_proj.shape[0]).tolist()
        order = flat.argsort(stable=True)
        inverse = torch.empty_like(order).scatter_(0, order, torch.arange(order.numel(), device=order.device))
        bounds = list(accumulate(counts, initial=0))
        rows: Any = _Dispatch.apply(x, order, inverse, chosen.shape[1])
        gate_up, down = self.gate_up_proj, self.down_proj
        if torch.is_autocast_enabled(x.device.type):
            dtype = torch.get_autocast_dtype(x.device.type)
            rows, gate_up, down = rows.to(dtype), gate_up.to(dtype), down.to(dtype)
        out: Any = _GroupedSwiGLU.apply(rows, gate_up, down, bounds)
        return _Combine.apply(out, weights, order, inverse)  # pyright: ignore[reportReturnType]

    def at_once(self, x: Tensor, weights: Tensor, chosen: Tensor) -> Tensor:
        """The same for a few tokens, without asking the device how many of them each expert got: by a copy of the
        experts that are chosen, or where those are many by all of them.
        """
        (tokens, top_k), experts = chosen.shape, self.down_proj.shape[0]
        flat = chosen.flatten()
        few = COPYING * len(flat) < experts
        if few:
            gate_up, down, rows = self.gate_up_proj[flat], self.down_proj[flat], x.repeat_interleave(top_k, 0)[:, None]
        else:
            gate_up, down, rows = self.gate_up_proj, self.down_proj, x.expand(experts, -1, -1)
        gate, up = torch.bmm(rows, gate_up.transpose(1, 2)).chunk(2, dim=-1)
        out = torch.bmm(F.silu(gate) * up, down.transpose(1, 2))  # (N·K, 1, hidden) or (E, N, hidden)
        places = torch.arange(tokens, device=x.device).unsqueeze(1)
        by_token = out.view(tokens, top_k, -1) if few else out[chosen, places]
        return torch.bmm(weights.to(out.dtype).unsqueeze(1), by_token).squeeze(1)


class MoE(nn.Module):
    """Routed experts plus shared experts that see every token."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate = Router(config)
        self.experts = Experts(config)
        self.shared_experts = (
            MLP(config.hidden_size, config.moe_intermediate_size * config.n_shared_experts)
            if config.n_shared_experts
            else None
        )

    def forward(self, x: Tensor, shared: Pass) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        weights, chosen, scores = self.gate(rows)
        if self.training and torch.is_grad_enabled():
            counted = chosen if shared.real is None else chosen[shared.real.flatten()]
            self.gate.load += torch.bincount(counted.flatten(), minlength=self.gate.experts)
            if shared.balance_weight:
                loss = balance_loss(scores, self.gate.top_k, x.shape[0], shared.real)
                shared.balance_losses.append(shared.balance_weight * loss)
        recorded = shared.cache is not None and shared.cache.fixed
        out = (self.experts.at_once if recorded else self.experts)(rows, weights, chosen)
        if self.shared_experts is not None:
            out = out + self.shared_experts(rows)
        return out.view_as(x)
