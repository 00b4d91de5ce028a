"""vLLM in this process as the sampler of rollouts. It must be installed in the same environment."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from moreseek.engine.sampling import Completion, SamplingParams
from moreseek.errors import InputError
from moreseek.model.transformer import Transformer
from moreseek.text.tokenizer import Tokenizer
from moreseek.training.sampler import WeightsFolder
from moreseek.training.settings import SamplerSettings


class VLLMSampler:
    """``vllm.LLM`` on a folder that is written anew every ``renew_every_steps`` steps and read again by vLLM.

    ``settings.options`` go to vllm.LLM as they are (dtype, gpu_memory_utilization, …). Log-probabilities are those of
    the distribution that vLLM samples from, in its own precision.
    """

    def __init__(self, settings: SamplerSettings, tokenizer: Tokenizer, folder: Path) -> None:
        try:
            import vllm  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise InputError(
                f"sampler.engine = 'vllm': vLLM is not installed in this environment ({error}). Install it here, or "
                "start `vllm serve` elsewhere and name it with engine = 'endpoint'."
            ) from error
        self._vllm: Any = vllm
        self._options, self.ratio_cap = settings.options, settings.ratio_cap
        self._weights = WeightsFolder(folder, tokenizer, settings.renew_every_steps)
        self._stops = list(tokenizer.eos_ids)
        self._llm: Any = None

    def renew(self, model: Transformer, step: int) -> None:
        """Save the weights where it is time, and have vLLM load them; its cached prefixes are forgotten."""
        if not self._weights.write_if_due(model, step):
            return
        path = str(self._weights.path)
        if self._llm is None:
            options = {"logprobs_mode": "processed_logprobs", "disable_log_stats": True} | self._options
            self._llm = self._vllm.LLM(model=path, **options)
        else:
            self._llm.collective_rpc("reload_weights", kwargs={"weights_path": path})
            self._llm.reset_prefix_cache()

    def generate(
        self, prompts: Sequence[Sequence[int]], params: SamplingParams, seeds: Sequence[int], /
    ) -> list[Completion]:
        """All at once; the end token is the last of a completion that ended by itself."""
        asked = [
            self._vllm.SamplingParams(
                temperature=params.temperature, max_tokens=params.max_tokens, seed=seed % 2**31, logprobs=0,
                stop_token_ids=self._stops, detokenize=False,
            )
            for seed in seeds
        ]  # fmt: skip
        found = self._llm.generate([{"prompt_token_ids": list(prompt)} for prompt in prompts], asked, use_tqdm=False)
        return [_completion(answer.outputs[0]) for answer in found]


def _completion(output: Any) -> Completion:
    ids = list(output.token_ids)
    logprobs = [float(shown[id].logprob) for id, shown in zip(ids, output.logprobs, strict=True)]
    return Completion(ids, logprobs, "stop" if output.finish_reason == "stop" else "length")
