"""What all sides of benchmarks/generate.py share. Imports nothing of moreseek: peers have their own environments."""

import argparse
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

CLOCKS = ("seconds_per_step", "cpu_seconds_per_step")


def parse_args(description: str | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--batch", type=int, required=True, help="requests at once")
    parser.add_argument("--requests", type=int, help="requests in all (default: one batch)")
    parser.add_argument("--prompt-tokens", type=int, default=64)
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--shortest", type=int, help="mixed lengths: from so many new tokens to --new-tokens")
    parser.add_argument("--steps", type=int, default=3, help="measured repetitions, after one to warm up")
    parser.add_argument("--prompts", choices=["equal", "apart"], help="one text for all, but for its first token")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dtype", help="of a peer that has several")
    parser.add_argument("--eager", action="store_true", help="a peer that compiles shall not")
    return parser.parse_args()


def prompts_of(args: argparse.Namespace, vocabulary: int) -> list[list[int]]:
    rng = random.Random(1)
    count = args.requests or args.batch
    if args.prompts is not None:
        first, *rest = (rng.randrange(20, vocabulary) for _ in range(args.prompt_tokens))
        return [[first if args.prompts == "equal" else (first + number) % vocabulary, *rest] for number in range(count)]
    return [[rng.randrange(20, vocabulary) for _ in range(args.prompt_tokens)] for _ in range(count)]


def lengths_of(args: argparse.Namespace) -> list[int]:
    rng = random.Random(2)
    shortest = args.new_tokens if args.shortest is None else args.shortest
    return [rng.randint(shortest, args.new_tokens) for _ in range(args.requests or args.batch)]


def timed(generate: Callable[[list[int]], list[list[int]]], args: argparse.Namespace) -> dict[str, Any]:
    """What ``generate`` (a length a prompt → the new tokens) wrote, with the wall and processor seconds of each
    repetition but the first; and where all lengths are one, those of a call for a single token each: of reading.
    """
    lengths = lengths_of(args)
    decoding = args.shortest is None and args.new_tokens > 1
    calls = {"": lengths} | ({"reading_": [1] * len(lengths)} if decoding else {})
    spent: dict[str, list[float]] = {f"{call}{clock}": [] for call in calls for clock in CLOCKS}
    output: list[list[int]] = []
    for _ in range(args.steps + 1):
        for call, asked in calls.items():
            started, busy = time.perf_counter(), time.process_time()
            found = generate(asked)
            times = (time.perf_counter() - started, time.process_time() - busy)
            for clock, seconds in zip(CLOCKS, times, strict=True):
                spent[f"{call}{clock}"].append(round(seconds, 4))
            output = output if call else found
    return {name: found[1:] for name, found in spent.items()} | {"tokens": sum(lengths), "output": output}
