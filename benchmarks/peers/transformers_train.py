"""Measures the seconds of one training step of transformers' own model. The peer of our training step.

    .venv/bin/python benchmarks/peers/transformers_train.py --model FOLDER --threads 1 --steps 5

A step: forward with labels, backward, clip_grad_norm_ to 1.0, AdamW (fused), zero_grad(set_to_none), in fp32 and
eager mode, without a KV cache (`use_cache=False`: transformers fills one in training otherwise).

`--attention auto` and `--experts auto` time one step of every combination on the CPU and take the fastest: sdpa has
no fast CPU kernel where the heads of values and keys differ in size (MLA), and eager is faster there. `batched_mm`
is not a candidate: it copies the weights of an expert for every token, 32 GB at this batch.

Prints one JSON line on stdout; the first step is a warm-up, not in `seconds_per_step` but first in `loss`.
The tokens are `torch.randint(0, vocab_size, (steps + 1, batch, sequence))` from a generator with `--seed`, so that
another implementation can be held to the same losses.
"""

import argparse
import itertools
import json
import os
import platform
import resource
import sys
import time
from importlib.metadata import version

# glibc gives every big tensor back to the kernel and takes the page faults again in the next layer; keeping the
# memory saves 5 to 15 % of a step. Read when a process starts, hence the second start.
MALLOC = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(16 << 30), "MALLOC_TOP_PAD_": str(64 << 20)}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="a Hugging Face folder")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--sequence", type=int, default=256)
    parser.add_argument("--steps", type=int, default=5, help="measured steps, after one warm-up step")
    parser.add_argument("--fused", action=argparse.BooleanOptionalAction, default=True, help="AdamW in one kernel")
    parser.add_argument("--attention", choices=["auto", "sdpa", "eager"], default="auto")
    parser.add_argument("--experts", choices=["auto", "grouped_mm", "eager", "batched_mm"], default="auto")
    parser.add_argument("--learning-rate", type=float, default=3e-4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--keep-memory", action=argparse.BooleanOptionalAction, default=True, help="tune glibc's malloc"
    )
    return parser.parse_args()


ARGS = parse_args()
if ARGS.keep_memory and not MALLOC.items() <= os.environ.items():
    os.execve(sys.executable, sys.orig_argv, os.environ | MALLOC)
os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(ARGS.threads)
os.environ["HF_HUB_OFFLINE"] = "1"

import torch  # noqa: E402
import transformers  # noqa: E402
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel  # noqa: E402


class Trainee:
    def __init__(self, attention: str, experts: str | None) -> None:
        kwargs = {"experts_implementation": experts} if experts else {}
        self.model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            ARGS.model, dtype=torch.float32, attn_implementation=attention, **kwargs
        )
        self.model.train()
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=ARGS.learning_rate, betas=(0.9, 0.95), weight_decay=0.1, fused=ARGS.fused
        )

    def step(self, ids: torch.Tensor) -> float:
        loss = self.model(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.item()


def timed_steps(trainee: Trainee, batches: torch.Tensor) -> tuple[list[float], list[float], list[float]]:
    """Wall seconds and CPU seconds of each step, and its loss."""
    wall, cpu, losses = [], [], []
    for ids in batches:
        wall_start, cpu_start = time.perf_counter(), time.process_time()
        losses.append(trainee.step(ids))
        wall.append(time.perf_counter() - wall_start)
        cpu.append(time.process_time() - cpu_start)
    return wall, cpu, losses


def candidates() -> list[tuple[str, str | None]]:
    is_mixture = getattr(AutoConfig.from_pretrained(ARGS.model), "n_routed_experts", None) is not None
    attentions = ["sdpa", "eager"] if ARGS.attention == "auto" else [ARGS.attention]
    experts = ["grouped_mm", "eager"] if ARGS.experts == "auto" else [ARGS.experts]
    return list(itertools.product(attentions, experts if is_mixture else [None]))


def main() -> None:
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(ARGS.threads)
    torch.set_num_interop_threads(1)

    vocab_size = AutoConfig.from_pretrained(ARGS.model).vocab_size
    generator = torch.Generator().manual_seed(ARGS.seed)
    batches = torch.randint(0, vocab_size, (ARGS.steps + 1, ARGS.batch, ARGS.sequence), generator=generator)

    tried = {}
    choices = candidates()
    for choice in choices if len(choices) > 1 else []:
        # CPU seconds where there is one thread: they do not grow while another process has the core.
        wall, cpu, _ = timed_steps(Trainee(*choice), batches[:1].expand(3, -1, -1))
        tried[choice] = min((cpu if ARGS.threads == 1 else wall)[1:])
    attention, experts = min(tried, key=tried.__getitem__) if tried else choices[0]

    trainee = Trainee(attention, experts)  # the weights of the folder again, so that the losses can be compared
    wall, cpu, losses = timed_steps(trainee, batches)
    print(
        json.dumps(
            {
                "seconds_per_step": [round(seconds, 4) for seconds in wall[1:]],
                "cpu_seconds_per_step": [round(seconds, 4) for seconds in cpu[1:]],
                "tokens_per_step": ARGS.batch * ARGS.sequence,
                "loss": losses,
                "versions": {name: version(name) for name in ("transformers", "torch")}
                | {"python": platform.python_version()},
                "settings": {
                    "model": ARGS.model,
                    "parameters": sum(parameter.numel() for parameter in trainee.model.parameters()),
                    "threads": torch.get_num_threads(),
                    "batch": ARGS.batch,
                    "sequence": ARGS.sequence,
                    "attention": attention,
                    "experts": experts,
                    "tried": {"+".join(filter(None, choice)): round(seconds, 3) for choice, seconds in tried.items()},
                    "optimizer": "AdamW fused" if ARGS.fused else "AdamW",
                    "learning_rate": ARGS.learning_rate,
                    "betas": [0.9, 0.95],
                    "weight_decay": 0.1,
                    "max_grad_norm": 1.0,
                    "dtype": str(trainee.model.dtype),
                    "seed": ARGS.seed,
                    "malloc": MALLOC if ARGS.keep_memory else "default",
                    "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
                },
            }
        )
    )


if __name__ == "__main__":
    main()
