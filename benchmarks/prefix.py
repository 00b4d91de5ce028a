"""Seconds until 16 rollouts of one prompt of 512 tokens have their first token, with and without a shared prefix.

    python benchmarks/prefix.py [--rounds 3] [--models dense tiny_v3]

Without: prompts that differ in their first token, so that the engine finds nothing to use again. One thread.
"""

import sys

from harness.compare import BENCHMARKS, Side, compare, machine, make_models, parse_args, show, verdict

GOAL = 3.0


def measure(model: str, rounds: int, steps: int) -> str:
    options = ["--model", str(make_models() / model), "--batch", "16", "--prompt-tokens", "512", "--new-tokens", "1"]
    command = [sys.executable, str(BENCHMARKS / "harness" / "generate_step.py"), *options, "--steps", str(steps)]
    shared, apart = Side("shared", [*command, "--prompts", "equal"]), Side("apart", [*command, "--prompts", "apart"])
    shared_s, apart_s, clock = compare(shared, apart, rounds)
    if {tuple(text) for text in shared.runs[0]["output"]} != {tuple(apart.runs[0]["output"][0])}:
        raise SystemExit(f"{model}: the rollouts of one prompt do not begin alike.")
    return verdict(
        f"prefix_{model}", shared_s, apart_s, "without sharing", apart_s / shared_s, GOAL, unit="s", clock=clock,
    )  # fmt: skip


def main() -> None:
    args = parse_args(__doc__, rounds=3, steps=3)
    show(machine())
    show("\n".join(measure(model, args.rounds, args.steps) for model in args.models))


if __name__ == "__main__":
    main()
