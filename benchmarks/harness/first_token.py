"""Prints the first token after a fixed prompt, as soon as this process knows it. One side of benchmarks/startup.py.

python benchmarks/harness/first_token.py moreseek|llama|vllm MODEL THREADS
"""

import sys

PROMPT = [1, 4093, 198, 19556, 2, 198, 1, 520, 9531, 198]
"""<|im_start|>user⏎Hello<|im_end|>⏎<|im_start|>assistant⏎"""


def moreseek(model: str, threads: int) -> int:
    from moreseek import LLM, SamplingParams  # torch takes OMP_NUM_THREADS, which the benchmark sets

    return LLM(model).generate([PROMPT], SamplingParams(temperature=0, max_tokens=1))[0].token_ids[0]


def llama(model: str, threads: int) -> int:
    from llama_cpp import Llama

    peer = Llama(model, n_ctx=512, n_threads=threads, n_threads_batch=threads, verbose=False)
    return next(peer.generate(PROMPT, temp=0.0, top_k=1, repeat_penalty=1.0))


def vllm(model: str, threads: int) -> int:
    import os

    os.environ |= {"VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "HF_HUB_OFFLINE": "1"}
    from vllm import LLM, SamplingParams

    llm = LLM(model, dtype="bfloat16", max_model_len=512, seed=0)
    asked = SamplingParams(temperature=0, max_tokens=1)
    return llm.generate([{"prompt_token_ids": PROMPT}], asked, use_tqdm=False)[0].outputs[0].token_ids[0]


if __name__ == "__main__":
    side, model, threads = sys.argv[1:]
    print("first", {"moreseek": moreseek, "llama": llama, "vllm": vllm}[side](model, int(threads)), flush=True)
