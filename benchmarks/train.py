"""Tokens a second of our training step over transformers' model with torch's fused AdamW, one thread each.

    python benchmarks/train.py [--rounds 3] [--steps 5] [--models dense tiny_v3]

The same weights, 16 × 256 tokens, fp32, both without compiling (so there is no compile time to tell apart); the peer
takes the fastest of its attention and expert implementations. The losses of every step are compared first. MFU is
of a matrix product measured in the same process.
"""

import sys

from harness.compare import BENCHMARKS, Side, compare, machine, make_models, parse_args, show, verdict

GOALS = {"dense": 1.2, "tiny_v3": 1.4}
CLOSEST_LOSS = 1e-4  # of the first step; later ones follow weights that have moved


def measure(model: str, rounds: int, steps: int) -> str:
    folder = str(make_models() / model)
    options = ["--model", folder, "--steps", str(steps)]
    ours = Side("moreseek", [sys.executable, str(BENCHMARKS / "harness" / "train_step.py"), *options])
    peer = Side("transformers", [sys.executable, str(BENCHMARKS / "peers" / "transformers_train.py"), *options])
    ours_s, peer_s, clock = compare(ours, peer, rounds)
    mine, theirs = ours.runs[0], peer.runs[0]
    gaps = [abs(a - b) for a, b in zip(mine["loss"], theirs["loss"], strict=True)]
    if gaps[0] > CLOSEST_LOSS:
        raise SystemExit(f"{model}: the first losses differ by {gaps[0]:.1e}: this compares two different things.")
    tokens, flops = mine["tokens_per_step"], mine["flops_per_step"]
    peak = max(run["matmul_peak"] for run in ours.runs)
    settings = theirs["settings"]
    show(f"{model}: first loss {mine['loss'][0]:.6f}, differs by {gaps[0]:.1e} (largest of all steps {max(gaps):.1e})")
    show(f"  peer: attention {settings['attention']}, experts {settings['experts']}, tried {settings['tried']}")
    show(f"  MFU of {peak / 1e9:.0f} GFLOP/s: ours {flops / ours_s / peak:.0%}, peer {flops / peer_s / peak:.0%}")
    return verdict(
        f"train_{model}", tokens / ours_s, tokens / peer_s, f"transformers {theirs['versions']['transformers']}",
        peer_s / ours_s, GOALS[model], unit="tokens/s", clock=clock, mfu=round(flops / ours_s / peak, 3),
        peer_mfu=round(flops / peer_s / peak, 3), loss_gap=gaps[0], compile_s=0.0,
    )  # fmt: skip


def main() -> None:
    args = parse_args(__doc__, rounds=3, steps=5)
    show(machine())
    lines = [measure(model, args.rounds, args.steps) for model in args.models]
    show("\n".join(lines))


if __name__ == "__main__":
    main()
