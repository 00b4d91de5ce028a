"""Where rollouts come from: moreseek's own engine, or another one that reads the weights from a folder.

Our engine samples from the very tensors that are trained. Another engine has weights of its own, in its own precision:
``renew`` saves the policy as a Hugging Face folder and has the engine read it, and what is left of the difference is
corrected in the loss (training/objectives.py: sampler_ratios).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from moreseek.engine.sampling import Completion, SamplingParams
from moreseek.model.transformer import Transformer
from moreseek.text.tokenizer import Tokenizer
from moreseek.training.checkpoint import write_pair
from moreseek.training.settings import SamplerSettings


class Sampler(Protocol):
    """What completes prompts. engine.Engine is one."""

    def generate(
        self, prompts: Sequence[Sequence[int]], params: SamplingParams, seeds: Sequence[int], /
    ) -> list[Completion]:
        """A completion a prompt, in their order, its end token included.

        ``logprobs`` are of the distribution that was sampled from; NaN where the engine does not tell.
        """
        ...


class OutsideSampler(Sampler, Protocol):
    """An engine that is not moreseek's own."""

    ratio_cap: float

    def renew(self, model: Transformer, step: int) -> None:
        """Called before the rollouts of each step, with the weights as they are then."""
        ...


class WeightsFolder:
    """The policy on disk, for an engine to read: written before the first step, then every ``every`` steps."""

    def __init__(self, path: Path, tokenizer: Tokenizer, every: int) -> None:
        self.path, self._tokenizer, self._every = path.absolute(), tokenizer, every
        self._written: int | None = None

    def write_if_due(self, model: Transformer, step: int) -> bool:
        """Whether the folder is new. Where ``every`` is 0, only the first call of a process writes."""
        due = self._written is None or (self._every > 0 and step - self._written >= self._every)
        if due:
            write_pair(model, self._tokenizer, self.path)
            self._written = step
        return due


def open_sampler(settings: SamplerSettings, tokenizer: Tokenizer, folder: Path) -> OutsideSampler:
    """The engine that a stage's ``[stage.sampler]`` names; ``folder`` is for the weights that it is to read."""
    if settings.engine == "endpoint":
        from moreseek.training.endpoint import EndpointSampler

        return EndpointSampler(settings, tokenizer, folder)
    from moreseek.training.vllm import VLLMSampler

    return VLLMSampler(settings, tokenizer, folder)
