"""Tokens a second of tiny-r1's final model at one request, with guesses by its MTP module and without, on one thread.

    python benchmarks/speculation.py [--model runs/tiny-r1] [--rounds 5] [--problems 40]          (needs `make demo`)

The text must be the same. Beside the ratio: how many of the first, and of all guesses were right.
"""

import argparse
import statistics
import time
from pathlib import Path

import torch
from harness.compare import ROOT, machine, show, verdict

from moreseek.data.arithmetic import problems
from moreseek.engine.engine import Drafting, Engine
from moreseek.engine.sampling import SamplingParams
from moreseek.model.weights import load_model
from moreseek.run_folder import resolve_model
from moreseek.text.prompts import encode_problem
from moreseek.text.tokenizer import Tokenizer

GOAL, RIGHT = 1.4, 0.8
ASKED = SamplingParams(temperature=0, max_tokens=96)
WAYS = {"off": Drafting(), "mtp, one guess": Drafting("mtp", 1), "mtp, two guesses": Drafting("mtp", 2)}


def run(engine: Engine, prompts: list[list[int]]) -> tuple[float, list[list[int]]]:
    """Tokens a second of processor time, and the tokens."""
    started = time.process_time()
    texts = [engine.generate([prompt], ASKED)[0].token_ids for prompt in prompts]
    return sum(map(len, texts)) / (time.process_time() - started), texts


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default=str(ROOT / "runs" / "tiny-r1"), help="a run whose model has an MTP module")
    parser.add_argument("--rounds", type=int, default=5, help="of each way, in turns")
    parser.add_argument("--problems", type=int, default=40)
    args = parser.parse_args()
    if not Path(args.model).exists():
        raise SystemExit(f"{args.model} is missing: run `make demo` first, or name a run by --model.")
    torch.set_num_threads(1)
    show(machine())
    folder = resolve_model(args.model)
    model, tokenizer = load_model(folder), Tokenizer.load(folder)
    asked = problems(args.problems, "heldout", 1, max_operand=50)
    prompts = [encode_problem(tokenizer, problem) for problem in asked]
    engines = {way: Engine(model, 1, frozen=True, drafting=drafting) for way, drafting in WAYS.items()}
    rates: dict[str, list[float]] = {way: [] for way in WAYS}
    texts: dict[str, list[list[int]]] = {}
    for _ in range(args.rounds + 1):  # the first one warms up
        for way, engine in engines.items():
            rate, texts[way] = run(engine, prompts)
            rates[way].append(rate)
    if any(texts[way] != texts["off"] for way in WAYS):
        raise SystemExit("guesses have changed the text.")
    median = {way: statistics.median(found[1:]) for way, found in rates.items()}
    for way in list(WAYS)[1:]:
        scheduler = engines[way].scheduler
        right = scheduler.guessed_right / scheduler.guesses
        line = verdict(
            f"speculation_{way.replace(', ', '_').replace(' ', '_')}", median[way], median["off"], "off",
            median[way] / median["off"], GOAL, unit="tokens/s", guessed_right=round(right, 3), right_goal=RIGHT,
        )  # fmt: skip
        show(line)


if __name__ == "__main__":
    main()
