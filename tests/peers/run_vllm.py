"""vLLM on a CPU for tests: one Hugging Face folder, eager."""

import sys
from pathlib import Path
from typing import Any

sys.path.remove(str(Path(__file__).parent))  # this file is not the package
from vllm import LLM, SamplingParams

sys.path.append(str(Path(__file__).parent))
from answering import answer

_opened: list[LLM] = []


def open_folder(path: str, **options: Any) -> None:
    """``options``: of vllm.LLM."""
    _opened.append(LLM(path, **({"enforce_eager": True, "max_model_len": 128, "seed": 0} | options)))


def greedy(prompts: list[list[int]], count: int) -> list[dict[str, Any]]:
    """The tokens after each prompt, and vLLM's log-probabilities of the five likeliest at each place."""
    asked = SamplingParams(temperature=0, max_tokens=count, logprobs=5, ignore_eos=True, detokenize=False)
    answers = _opened[0].generate([{"prompt_token_ids": prompt} for prompt in prompts], asked, use_tqdm=False)
    return [
        {
            "ids": list(found.outputs[0].token_ids),
            "logprobs": [{id: shown.logprob for id, shown in at.items()} for at in found.outputs[0].logprobs],
        }
        for found in answers
    ]


if __name__ == "__main__":
    answer(open_folder, greedy)
