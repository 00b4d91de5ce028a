"""The kernel that chooses a token a row; its twin in torch is engine/choice.py."""

import torch
from torch import Tensor

from moreseek.native.bindings import kernels


def choose_tokens(logits: Tensor, inverse: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor]:
    """logits: (n, V), inverse: (n,) fp32, one over the temperature, 0 for greedy; uniforms: (n,) fp64 → ids and
    log-probabilities (n,)."""
    logits = logits.contiguous()
    n = logits.shape[0]
    tokens, logprobs = torch.empty(n, dtype=torch.int64), logits.new_empty(n)
    kernels().native_choose(
        logits.data_ptr(), inverse.data_ptr(), uniforms.data_ptr(), tokens.data_ptr(), logprobs.data_ptr(),
        *logits.shape, torch.get_num_threads(),
    )  # fmt: skip
    return tokens, logprobs
