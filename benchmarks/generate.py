"""Tokens a second of greedy generation over transformers.generate: prompts of 64 tokens, 128 new ones, one thread.

    python benchmarks/generate.py [--rounds 2] [--steps 2] [--models dense tiny_v3] [--mixed]      (needs `make peers`)

All in fp32. ``--mixed`` adds 256 requests of 16 to 512 new tokens: ours lets a waiting request in where one has ended,
the peer runs batches of 64 until their longest is done. The time is that of the whole call, reading the prompts
included. Both must write the same tokens, but for texts that a near-tie of the two likeliest tokens parts.
"""

import argparse
import sys

from harness.compare import BENCHMARKS, ROOT, Side, compare, machine, make_models, show, verdict

GOALS = {
    "dense": {64: 2.5, 8: 2.2, 1: 2.7},
    "tiny_v3": {64: 8.0, 8: 5.0, 1: 4.0},
    "mixed": {"dense": 2.0, "tiny_v3": 8.0},
}
PEER = ROOT / ".peers" / "trl" / "bin" / "python"  # it has transformers
SAME = 0.9  # share of equal tokens: random weights have near-ties, after which two texts differ


def measure(name: str, model: str, options: list[str], goal: float, rounds: int) -> str:
    options = ["--model", str(make_models() / model), *options]
    ours = Side("moreseek", [sys.executable, str(BENCHMARKS / "harness" / "generate_step.py"), *options])
    peer = Side("transformers", [str(PEER), str(BENCHMARKS / "peers" / "transformers_generate.py"), *options])
    ours_s, peer_s, clock = compare(ours, peer, rounds)
    mine, theirs = ours.runs[0]["output"], peer.runs[0]["output"]
    equal = sum(a == b for one, other in zip(mine, theirs, strict=True) for a, b in zip(one, other, strict=True))
    tokens = ours.runs[0]["tokens"]
    if equal < SAME * tokens:
        raise SystemExit(f"{name}: only {equal} of {tokens} tokens are equal: this compares two different things.")
    return verdict(
        name, tokens / ours_s, tokens / peer_s, f"transformers {peer.runs[0]['version']}", peer_s / ours_s, goal,
        unit="tokens/s", clock=clock, equal_tokens=round(equal / tokens, 4),
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=2, help="processes of each side, in turns")
    parser.add_argument("--steps", type=int, default=2, help="measured repetitions of one process")
    parser.add_argument("--models", nargs="+", default=["dense", "tiny_v3"], choices=["dense", "tiny_v3"])
    parser.add_argument("--batches", nargs="*", type=int, default=[64, 8, 1])
    parser.add_argument("--mixed", action="store_true", help="the mixed lengths too (minutes)")
    args = parser.parse_args()
    if not PEER.is_file():
        raise SystemExit("transformers' environment is missing: run `make peers` first.")
    show(machine())
    lines = []
    for model in args.models:
        for batch in args.batches:
            options = ["--batch", str(batch), "--steps", str(args.steps)]
            lines.append(measure(f"generate_{model}_b{batch}", model, options, GOALS[model][batch], args.rounds))
            show(lines[-1])
        if args.mixed:
            options = ["--batch", "64", "--requests", "256", "--shortest", "16", "--new-tokens", "512", "--steps", "1"]
            lines.append(measure(f"generate_{model}_mixed", model, options, GOALS["mixed"][model], 1))
            show(lines[-1])
    show("\n".join(lines))


if __name__ == "__main__":
    main()
