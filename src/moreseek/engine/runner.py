"""Carries out the scheduler's steps on a model: by the native step on a CPU, by the model's own torch code elsewhere.

Both give the same tokens up to rounding, and the native one gives the same bits whatever shares the step.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from moreseek.engine.graphs import GraphRunner
from moreseek.engine.native_runner import NativeRunner
from moreseek.engine.scheduler import Step
from moreseek.engine.torch_runner import TorchRunner
from moreseek.errors import InputError
from moreseek.model.cache import Cache
from moreseek.model.transformer import Transformer
from moreseek.native.bindings import usable
from moreseek.native.step import Precision


class Runner(Protocol):
    """A model with a cache. ``spare``: threads that steps of a few tokens leave to whoever else has work, as a server
    has, where the runner has a say in that.
    """

    cache: Cache
    spare: int

    def refresh(self) -> None:
        """See the weights as they are now."""
        ...

    def logits(self, step: Step) -> tuple[Tensor, Tensor | None]:
        """Compute the step's tokens into the cache → logits (o + s, V) fp32 of its outputs and of what is scored,
        and where it drafts the final norm's output (t, hidden) of every token.
        """
        ...

    def look_ahead(self, step: Step, states: Tensor) -> tuple[Tensor, Tensor]:
        """The MTP module: ``states`` (t, hidden) that the model had at the step's positions, whose ``ids`` are the
        tokens after those → logits (o, V) of the tokens after these, and the module's own states (o, hidden).
        """
        ...


def make_runner(model: Transformer, blocks: int, drafting: bool = False, precision: Precision = "fp32") -> Runner:
    """The fastest runner that this machine has for the model. ``drafting``: with the MTP module and its cache.

    Raises InputError for another precision than the model's own without the native kernels.
    """
    weight = model.embed_tokens.weight
    if usable(weight):
        return NativeRunner(model, blocks, drafting, precision)
    if precision == "int8" or (precision == "bf16" and weight.dtype != torch.bfloat16):
        raise InputError(
            f"{precision} needs the native kernels, an fp32 model and a CPU; `moreseek doctor` says what is missing."
        )
    return (TorchRunner if weight.device.type == "cpu" else GraphRunner)(model, blocks, drafting)
