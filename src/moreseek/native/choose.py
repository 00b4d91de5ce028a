"""The kernel that chooses a token a row; its twin in torch is engine/choice.py."""

import numpy as np
import torch
from torch import Tensor

from moreseek.native.bindings import kernels


def choose_tokens(logits: Tensor, inverse: np.ndarray, uniforms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """logits: (n, V), inverse: (n,) fp32, one over the temperature, 0 for greedy; uniforms: (n,) fp64 → ids and
    log-probabilities (n,)."""
    logits, n = logits.contiguous(), logits.shape[0]
    tokens, logprobs = np.empty(n, np.int64), np.empty(n, np.float32)
    kernels().native_choose(
        logits.data_ptr(), inverse.ctypes.data, uniforms.ctypes.data, tokens.ctypes.data, logprobs.ctypes.data,
        *logits.shape, torch.get_num_threads(),
    )  # fmt: skip
    return tokens, logprobs
