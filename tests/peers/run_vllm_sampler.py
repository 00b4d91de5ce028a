"""Our VLLMSampler in vLLM's environment: the model in a folder, perhaps with its head scaled, samples by vLLM."""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
from answering import answer

from moreseek.engine.sampling import SamplingParams
from moreseek.model.transformer import Transformer
from moreseek.model.weights import load_model
from moreseek.text.tokenizer import Tokenizer
from moreseek.training.settings import SamplerSettings
from moreseek.training.vllm import VLLMSampler

_opened: dict[str, tuple[VLLMSampler, Transformer]] = {}


def open_sampler(path: str, folder: str) -> None:
    options = {"dtype": "bfloat16", "enforce_eager": True, "max_model_len": 128}
    settings = SamplerSettings.model_validate({"engine": "vllm", "options": options})
    _opened["it"] = VLLMSampler(settings, Tokenizer.load(path), Path(folder)), load_model(path)


def renew(step: int, scale: float) -> None:
    sampler, model = _opened["it"]
    with torch.no_grad():
        model.head.mul_(scale)
    sampler.renew(model, step)


def generate(prompts: list[list[int]], tokens: int, temperature: float) -> list[dict[str, object]]:
    sampler, _ = _opened["it"]
    params = SamplingParams(temperature=temperature, max_tokens=tokens)
    found = sampler.generate(prompts, params, range(len(prompts)))
    return [{"ids": c.token_ids, "logprobs": c.logprobs, "finish_reason": c.finish_reason} for c in found]


if __name__ == "__main__":
    answer(open_sampler, renew, generate)
