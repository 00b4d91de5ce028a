"""Advantages and policy-gradient objectives (the table is in docs/grpo.md): grpo, dr_grpo, dapo, gspo, cispo, rloo.

All of them are written over one flat list of completion tokens; ``owner[t]`` says which rollout a token is of.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from moreseek.training.settings import Objective

STD_FLOOR = 1e-4  # keeps (R − mean) / std finite; groups whose rewards are all equal have advantage 0 anyway

LARGEST_LOG_RATIO = 20.0  # keeps the mean of ratios finite; a cap cuts long before


def advantages(rewards: NDArray[np.float64], objective: Objective) -> NDArray[np.float64]:
    """Group-relative advantages. rewards: (groups, G), NaN where a verifier failed → the same shape, 0 there.

    grpo, dapo, gspo: (R − mean) / std of the group. dr_grpo: R − mean. rloo: R − mean of the others.
    cispo: (R − group mean) / std of the whole batch.
    """
    known = ~np.isnan(rewards)
    count = known.sum(1, keepdims=True)
    filled = np.where(known, rewards, 0.0)
    mean = filled.sum(1, keepdims=True) / np.maximum(count, 1)
    centred = np.where(known, rewards - mean, 0.0)
    if objective == "dr_grpo":
        return centred
    if objective == "rloo":  # R − mean of the others = (R − mean) · n / (n − 1)
        return centred * count / np.maximum(count - 1, 1)
    if objective == "cispo":
        spread = centred[known]
        return centred / (spread.std() + STD_FLOOR) if spread.size else centred
    std = np.sqrt((centred**2).sum(1, keepdims=True) / np.maximum(count - 1, 1))  # unbiased, as torch.std
    return centred / (std + STD_FLOOR)


def token_weights(lengths: NDArray[np.int64], objective: Objective, max_tokens: int) -> NDArray[np.float64]:
    """How much a token of each rollout counts in the loss. lengths: (N,) tokens that are trained on → (N,).

    grpo, gspo: a mean over each completion's tokens, then over completions. dr_grpo: a sum over tokens divided by
    a constant. dapo, cispo: a mean over all tokens. rloo: a sum over a completion's tokens, a mean over completions.
    """
    rollouts = max(1, int((lengths > 0).sum()))
    if objective in ("grpo", "gspo"):
        return 1.0 / (rollouts * np.maximum(lengths, 1))
    if objective == "dr_grpo":
        return np.full(lengths.shape, 1.0 / (rollouts * max_tokens))
    if objective == "rloo":
        return np.full(lengths.shape, 1.0 / rollouts)
    return np.full(lengths.shape, 1.0 / max(1, int(lengths.sum())))


@dataclass(frozen=True)
class Clip:
    """w is kept within [1 − low, 1 + high]."""

    low: float
    high: float


def policy_loss(
    objective: Objective, policy_logprobs: Tensor, old_logprobs: Tensor, advantage: Tensor, weight: Tensor,
    owner: Tensor, clip: Clip,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The loss (a scalar to minimise) and which tokens were clipped.

    All inputs are (M,): one entry a completion token; ``advantage`` and ``weight`` are repeated over a rollout's
    tokens, ``owner`` counts rollouts from 0. A rollout must be whole within the call (gspo averages over it).
    """
    log_ratio = policy_logprobs - old_logprobs
    if objective == "rloo":
        return -(policy_logprobs * advantage * weight).sum(), torch.zeros_like(log_ratio, dtype=torch.bool)
    if objective == "cispo":  # the clipped weight is a constant: no token loses its gradient
        ratio = log_ratio.detach().exp()
        kept = ratio.clamp(max=1 + clip.high)
        return -(kept * advantage * policy_logprobs * weight).sum(), ratio > kept
    if objective == "gspo":
        log_ratio = _sequence_mean(log_ratio, owner)
    ratio = log_ratio.exp()
    plain, clipped = ratio * advantage, ratio.clamp(1 - clip.low, 1 + clip.high) * advantage
    return -(torch.minimum(plain, clipped) * weight).sum(), clipped < plain


def sampler_ratios(old_logprobs: Tensor, sampler_logprobs: Tensor) -> Tensor:
    """π_old/μ a token, (M,): how much likelier the trainer's policy made what another engine μ sampled.

    Cut at a cap C and multiplied into a token's weight, it turns an expectation over μ into one over π_old (truncated
    importance sampling: Yao et al. 2025, "Your efficient RL framework secretly brings you off-policy RL training").
    1 where the sampler told no log-probability (NaN).
    """
    return (old_logprobs - sampler_logprobs).nan_to_num(nan=0.0).clamp(max=LARGEST_LOG_RATIO).exp()


def _sequence_mean(log_ratio: Tensor, owner: Tensor) -> Tensor:
    """Each token gets its sequence's mean log-ratio: GSPO's ratio is (π/π_old)^(1/L)."""
    rollouts = int(owner.max()) + 1 if owner.numel() else 0
    sums = log_ratio.new_zeros(rollouts).index_add(0, owner, log_ratio)
    lengths = torch.bincount(owner, minlength=rollouts).clamp(min=1)
    return (sums / lengths)[owner]


def kl_penalty(policy_logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """k3: π_ref/π − log(π_ref/π) − 1, non-negative and unbiased, a token (Schulman 2020; GRPO's KL term)."""
    log_ratio = reference_logprobs - policy_logprobs
    return log_ratio.exp() - log_ratio - 1
