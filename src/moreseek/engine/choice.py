"""Choosing one token a row from logits."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from moreseek.native.bindings import usable
from moreseek.native.choose import choose_tokens

BLOCK = 64  # tokens whose probabilities are summed before one of them is looked for
MOST_UNIFORM = 1 - 2.0**-50  # times any sum stays below that sum, so that no token of probability 0 is chosen


def choose(logits: Tensor, inverse: np.ndarray, uniforms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """logits: (n, V) fp32; inverse: (n,) fp32, one over the temperature, 0 for greedy; uniforms: (n,) fp64 in [0, 1)
    → ids and log-probabilities (n,): of the distribution that was sampled from, at temperature 1 for a greedy row; NaN
    where the logits are NaN, or hold +∞.

    Sampling inverts the cumulative distribution with the row's own uniform, which is faster than multinomial and
    ties a request's text to its seed alone: first among blocks of tokens, then inside one.
    """
    if usable(logits):
        return choose_tokens(logits, inverse, uniforms)
    tokens, logprobs = _choose(logits, torch.from_numpy(inverse), torch.from_numpy(uniforms))
    return tokens.cpu().numpy(), logprobs.cpu().numpy()


@torch.no_grad()
def _choose(logits: Tensor, inverse: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor]:
    inverse, uniforms = inverse.to(logits.device), uniforms.to(logits.device)
    greedy = inverse == 0
    highest = logits.amax(-1, keepdim=True)
    shifted = (logits - highest) * torch.where(greedy, 1.0, inverse).unsqueeze(1)
    blocks = F.pad(shifted.exp(), (0, -shifted.shape[1] % BLOCK)).unflatten(1, (-1, BLOCK))  # (n, V / BLOCK, BLOCK)
    sums = blocks.sum(-1).double()
    block, within = _invert(sums, uniforms)
    chosen = blocks.gather(1, block.view(-1, 1, 1).expand(-1, 1, BLOCK)).squeeze(1)
    tokens = block * BLOCK + _invert(chosen.double(), within)[0]
    tokens = torch.where(greedy, logits.argmax(-1), tokens.clamp_(max=logits.shape[1] - 1))
    logprobs = shifted.gather(1, tokens.unsqueeze(1)).squeeze(1) - sums.sum(-1).log().float()
    return tokens, logprobs


def _invert(weights: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor]:
    """Where each row's uniform falls in the cumulative sum of weights: (n, K) → index (n,), the rest in [0, 1)."""
    cumulative = weights.cumsum(-1)
    threshold = uniforms.clamp(max=MOST_UNIFORM).unsqueeze(1) * cumulative[:, -1:]
    index = torch.searchsorted(cumulative, threshold, right=True).clamp_(max=weights.shape[1] - 1)  # NaN is beyond
    weight = weights.gather(1, index)
    rest = (threshold - cumulative.gather(1, index) + weight) / weight
    return index.squeeze(1), rest.clamp_(min=0.0).squeeze(1)
