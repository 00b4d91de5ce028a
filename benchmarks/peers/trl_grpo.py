"""Measures the seconds of one GRPO step of TRL: sample, score, one update. The peer of our own step.

    .peers/trl/bin/python benchmarks/peers/trl_grpo.py --model FOLDER --threads 1 --steps 5

TRL runs as a knowledgeable user would set it up for speed on a CPU in fp32: no gradient checkpointing and no
bf16 (both are on by default), the fused AdamW, all prompts sampled in one `generate`, no reference model
(beta 0), no second forward for the old log-probabilities (one update per generation), no logging or saving,
memory that the process keeps. The defaults are the fastest of what was tried on one core of a Sapphire Rapids Xeon:

- completions per forward of the update: 16 (of 2 to 64; all 64 at once cost 5 % more);
- attention: sdpa, but eager for MLA, whose keys and values differ in head size and have no fast CPU kernel in
  sdpa (14 s a step instead of 16.5 s);
- experts: grouped_mm (2 to 5 % faster than eager; batched_mm copies weights for every token and samples 4 x slower);
- cache: dynamic (static is as fast for a dense model and 30 % slower for MLA), and not continuous batching,
  which takes five times as long to sample;
- torch.compile for the update (3 to 6 % of a step) where there is a C++ compiler. TRL never compiles sampling.

Every completion has its full length: no token ends one. TRL and `generate` are told so by taking their list of
eos ids away, which costs nothing, while `min_new_tokens` and `suppress_tokens` add work to every token.

Prints one JSON line on stdout; the first step is a warm-up (and compiles) and is not in `seconds_per_step`.
"""

import argparse
import itertools
import json
import os
import platform
import random
import resource
import shutil
import sys
import tempfile
import time
from importlib.metadata import version

# glibc gives every big tensor back to the kernel and takes the page faults again in the next layer; keeping the
# memory saves 3 % of a step, and a quarter with big batches. Read when a process starts, hence the second start.
MALLOC = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(16 << 30), "MALLOC_TOP_PAD_": str(64 << 20)}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="a Hugging Face folder with a tokenizer")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--prompts", type=int, default=8, help="prompts per step")
    parser.add_argument("--group", type=int, default=8, help="completions per prompt")
    parser.add_argument("--prompt-tokens", type=int, default=32)
    parser.add_argument("--completion-tokens", type=int, default=128)
    parser.add_argument("--steps", type=int, default=5, help="measured steps, after one warm-up step")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--micro-batch", type=int, default=16, help="completions per forward of the update")
    parser.add_argument("--attention", choices=["auto", "sdpa", "eager"], default="auto")
    parser.add_argument("--experts", choices=["grouped_mm", "eager", "batched_mm"], default="grouped_mm")
    parser.add_argument("--cache", choices=["dynamic", "static"], default="dynamic")
    parser.add_argument(
        "--compile",
        action=argparse.BooleanOptionalAction,
        default=shutil.which("g++") is not None,
        help="torch.compile the update",
    )
    parser.add_argument(
        "--keep-memory", action=argparse.BooleanOptionalAction, default=True, help="tune glibc's malloc"
    )
    return parser.parse_args()


ARGS = parse_args()
if ARGS.keep_memory and not MALLOC.items() <= os.environ.items():
    os.execve(sys.executable, sys.orig_argv, os.environ | MALLOC)
# These are read when torch and datasets are imported, so they are set before.
os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(ARGS.threads)
os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = str(ARGS.threads)
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import datasets  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PrinterCallback, TrainerCallback  # noqa: E402
from trl import GRPOConfig, GRPOTrainer  # noqa: E402


class Stopwatch(TrainerCallback):
    """The time from the end of one step to the end of the next: nothing that TRL does is left out."""

    def __init__(self) -> None:
        self.wall: list[float] = []
        self.cpu: list[float] = []

    def on_step_end(self, args, state, control, **kwargs):
        self.wall.append(time.perf_counter())
        self.cpu.append(time.process_time())


def differences(times: list[float]) -> list[float]:
    return [round(end - start, 4) for start, end in itertools.pairwise(times)]


def share_of_even_tokens(completion_ids: list[list[int]], **kwargs) -> list[float]:
    """The reward, and the proof that every completion has its full length."""
    lengths = {len(ids) for ids in completion_ids}
    if lengths != {ARGS.completion_tokens}:
        raise RuntimeError(f"completions of {sorted(lengths)} tokens, expected {ARGS.completion_tokens} for all")
    return [sum(token % 2 == 0 for token in ids) / len(ids) for ids in completion_ids]


def make_prompts(tokenizer, count: int) -> list[str]:
    """Random prompts that the tokenizer reads as exactly `prompt_tokens` tokens."""
    rng = random.Random(ARGS.seed)
    ordinary = sorted(set(range(len(tokenizer))) - set(tokenizer.all_special_ids))
    prompts = [tokenizer.decode(rng.choices(ordinary, k=ARGS.prompt_tokens)) for _ in range(count)]
    lengths = {len(ids) for ids in tokenizer(prompts)["input_ids"]}
    if lengths != {ARGS.prompt_tokens}:
        raise SystemExit(f"prompts of {sorted(lengths)} tokens, expected {ARGS.prompt_tokens} for all")
    return prompts


def load_model():
    config = AutoConfig.from_pretrained(ARGS.model)
    has_experts = getattr(config, "n_routed_experts", None) is not None
    has_latent_attention = getattr(config, "kv_lora_rank", None) is not None
    attention = ("eager" if has_latent_attention else "sdpa") if ARGS.attention == "auto" else ARGS.attention
    kwargs = {"experts_implementation": ARGS.experts} if has_experts else {}
    model = AutoModelForCausalLM.from_pretrained(
        ARGS.model, dtype=torch.float32, attn_implementation=attention, **kwargs
    )
    model.generation_config.eos_token_id = None
    return model, kwargs.get("experts_implementation")


def main() -> None:
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    torch.set_num_threads(ARGS.threads)
    torch.set_num_interop_threads(1)

    tokenizer = AutoTokenizer.from_pretrained(ARGS.model, padding_side="left")
    model, experts = load_model()
    batch = ARGS.prompts * ARGS.group
    micro_batch = min(ARGS.micro_batch, batch)
    if batch % micro_batch:
        raise SystemExit(f"--micro-batch {micro_batch}: does not divide {batch} completions")
    steps = ARGS.steps + 1

    with tempfile.TemporaryDirectory() as output_dir:
        config = GRPOConfig(
            output_dir=output_dir,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            per_device_train_batch_size=micro_batch,
            gradient_accumulation_steps=batch // micro_batch,
            num_generations=ARGS.group,
            num_iterations=1,
            beta=0.0,
            max_completion_length=ARGS.completion_tokens,
            temperature=1.0,
            top_p=1.0,
            top_k=0,
            cache_implementation=None if ARGS.cache == "dynamic" else ARGS.cache,
            generation_kwargs={"eos_token_id": None},
            max_steps=steps,
            learning_rate=1e-6,
            lr_scheduler_type="constant",
            optim="adamw_torch_fused",
            max_grad_norm=1.0,
            weight_decay=0.0,
            torch_compile=ARGS.compile,
            shuffle_dataset=False,
            dataloader_pin_memory=False,
            logging_strategy="no",
            eval_strategy="no",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            seed=ARGS.seed,
        )
        stopwatch = Stopwatch()
        trainer = GRPOTrainer(
            model=model,
            reward_funcs=share_of_even_tokens,
            args=config,
            train_dataset=datasets.Dataset.from_dict({"prompt": make_prompts(tokenizer, ARGS.prompts * steps)}),
            processing_class=tokenizer,
            callbacks=[stopwatch],
        )
        trainer.remove_callback(PrinterCallback)  # it prints to stdout, where only our line belongs
        trainer.eos_token_ids = [-1]  # an id that no model samples: TRL cuts completions at these
        sampling_s = time_sampling(trainer)
        trainer.train()

    print(
        json.dumps(
            {
                "seconds_per_step": differences(stopwatch.wall),
                "cpu_seconds_per_step": differences(stopwatch.cpu),
                "seconds_sampling": [round(seconds, 4) for seconds in sampling_s[1:]],
                "completion_tokens_per_step": batch * ARGS.completion_tokens,
                "versions": {name: version(name) for name in ("trl", "transformers", "torch", "accelerate")}
                | {"python": platform.python_version()},
                "settings": {
                    "model": ARGS.model,
                    "parameters": sum(parameter.numel() for parameter in model.parameters()),
                    "threads": torch.get_num_threads(),
                    "prompts": ARGS.prompts,
                    "group": ARGS.group,
                    "prompt_tokens": ARGS.prompt_tokens,
                    "completion_tokens": ARGS.completion_tokens,
                    "per_device_train_batch_size": config.per_device_train_batch_size,
                    "gradient_accumulation_steps": config.gradient_accumulation_steps,
                    "generation_batch_size": config.generation_batch_size,
                    "gradient_checkpointing": model.is_gradient_checkpointing,
                    "attention": model.config._attn_implementation,
                    "experts": experts,
                    "cache": ARGS.cache,
                    "torch_compile": ARGS.compile,
                    "optimizer": str(getattr(config.optim, "value", config.optim)),
                    "loss_type": config.loss_type,
                    "dtype": str(model.dtype),
                    "malloc": MALLOC if ARGS.keep_memory else "default",
                    "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
                },
            }
        )
    )


def time_sampling(trainer) -> list[float]:
    """How much of a step is sampling; two clock readings a step, so the measured step does not change."""
    seconds: list[float] = []
    generate = trainer._generate_single_turn

    def timed(*args, **kwargs):
        start = time.perf_counter()
        result = generate(*args, **kwargs)
        seconds.append(time.perf_counter() - start)
        return result

    trainer._generate_single_turn = timed
    return seconds


if __name__ == "__main__":
    main()
