"""Sequence-steps a second of the scheduler alone, with a model that takes no time: the tax of Python on every token.

    python benchmarks/scheduler.py [--rows 256] [--requests 2048] [--rounds 5]

Half of the requests share their prompt with others, lengths differ, finished ones leave and waiting ones enter.
"""

import argparse
import statistics
import time

import numpy as np
from harness.compare import machine, show, verdict

from moreseek.engine.block_manager import BlockManager
from moreseek.engine.sampling import SamplingParams
from moreseek.engine.scheduler import Scheduler
from moreseek.engine.sequence import Sequence

GOAL = 200_000


def run(rows: int, requests: int, seed: int) -> tuple[float, int]:
    """(seconds, sequence-steps) until all requests are done."""
    random = np.random.default_rng(seed)
    scheduler = Scheduler(BlockManager(rows * 20, 16), rows, 512)
    prompts = [random.integers(0, 1000, random.integers(10, 100)).tolist() for _ in range(requests // 2)]
    sequences = [
        Sequence(tuple(prompts[i % len(prompts)]), SamplingParams(max_tokens=int(random.integers(16, 192))), i)
        for i in range(requests)
    ]
    done = 0
    started = time.perf_counter()
    for sequence in sequences:
        scheduler.add(sequence)
    while (step := scheduler.schedule()) is not None:
        chosen = len(step.output)
        scheduler.uniforms(step)
        scheduler.commit(step, np.ones(chosen, np.int64), np.zeros(chosen, np.float32))
        done += chosen
    return time.perf_counter() - started, done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--requests", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    show(machine())
    rates = []
    for seed in range(options.rounds):
        seconds, steps = run(options.rows, options.requests, seed)
        rates.append(steps / seconds)
    rate = statistics.median(rates)
    print(verdict("scheduler_null_model", rate, GOAL, "the goal", rate / GOAL, 1.0, unit="sequence-steps/s"))


if __name__ == "__main__":
    main()
