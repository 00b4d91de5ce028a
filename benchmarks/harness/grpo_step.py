"""Our side of benchmarks/grpo.py: seconds of one GRPO step. Prints the JSON line of peers/trl_grpo.py.

    python benchmarks/harness/grpo_step.py --model FOLDER --steps 5

The project's own loop runs it: sampling, scoring, packing, loss, backward, clip, AdamW, metrics. The end token is
taken away from the model, so that every completion has its full length.
"""

import argparse
import itertools
import json
import random
import sys
import tempfile
import time
from pathlib import Path

import torch

from moreseek.model.weights import load_model
from moreseek.records import Problem
from moreseek.text.prompts import encode_problem
from moreseek.text.tokenizer import Tokenizer
from moreseek.training.device import keep_freed_memory
from moreseek.training.grpo import GRPO
from moreseek.training.loop import Loop
from moreseek.training.settings import GRPOSettings

sys.path.insert(0, str(Path(__file__).parent))
PARTS = ("sample_s", "score_s", "train_s")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="a Hugging Face folder with a tokenizer")
    parser.add_argument("--prompts", type=int, default=8, help="prompts per step")
    parser.add_argument("--group", type=int, default=8, help="completions per prompt")
    parser.add_argument("--prompt-tokens", type=int, default=32)
    parser.add_argument("--completion-tokens", type=int, default=128)
    parser.add_argument("--steps", type=int, default=5, help="measured steps, after one warm-up step")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


def settings(args: argparse.Namespace) -> GRPOSettings:
    rubric = [{"name": "even", "verifier": "verifiers:share_of_even_tokens"}]
    optimizer = {"lr": 1e-6, "weight_decay": 0.0, "clip_norm": 1.0}
    return GRPOSettings.model_validate(
        {
            "method": "grpo", "name": "benchmark", "start_from": "nothing", "steps": args.steps + 1,
            "rubric": rubric, "optimizer": optimizer, "prompts_per_step": args.prompts, "group_size": args.group,
            "max_completion_tokens": args.completion_tokens, "checkpoint_every_steps": args.steps + 1,
        }
    )  # fmt: skip


def make_problems(tokenizer: Tokenizer, args: argparse.Namespace) -> list[Problem]:
    """Random prompts that the tokenizer reads as exactly ``prompt_tokens`` tokens."""
    rng = random.Random(args.seed)
    ordinary = sorted(set(range(tokenizer.vocab_size)) - set(tokenizer.special_tokens.values()))
    texts = [
        tokenizer.decode(rng.choices(ordinary, k=args.prompt_tokens)) for _ in range(args.prompts * (args.steps + 1))
    ]
    problems = [Problem(prompt=text, answer="") for text in texts]
    lengths = {len(encode_problem(tokenizer, problem)) for problem in problems}
    if lengths != {args.prompt_tokens}:
        raise SystemExit(f"prompts of {sorted(lengths)} tokens, expected {args.prompt_tokens} for all")
    return problems


def main() -> None:
    args = parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    tokenizer = Tokenizer.load(args.model)
    tokenizer.chat_template = "{{ messages[0].content }}"
    model = load_model(args.model)
    model.config = model.config.model_copy(update={"eos_token_id": None})
    chosen = settings(args)
    method = GRPO(model, tokenizer, make_problems(tokenizer, args), chosen, args.seed)
    cpu: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        loop = Loop(model, tokenizer, method, chosen, Path(folder))
        loop.run(on_step=lambda step: cpu.append(time.process_time()))
        lines = [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text("utf-8").splitlines()]
    if any(line["completion_tokens"] != args.completion_tokens for line in lines):
        raise SystemExit(f"a completion is shorter than {args.completion_tokens} tokens")
    wall = [line["elapsed_s"] for line in lines]  # the loop's own clock: without the checkpoint after the last step
    result = {
        "seconds_per_step": [round(b - a, 4) for a, b in itertools.pairwise(wall)],
        "cpu_seconds_per_step": [round(b - a, 4) for a, b in itertools.pairwise(cpu)],
        "parts": {part: [round(line[part], 4) for line in lines[1:]] for part in PARTS},
        "logprob_gap": max(line["logprob_gap"] for line in lines),
        "reward": [line["reward"] for line in lines],
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
