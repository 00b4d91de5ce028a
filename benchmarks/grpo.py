"""Seconds of one GRPO step (sample, score, one update) over TRL's GRPOTrainer, one thread each.

    python benchmarks/grpo.py [--rounds 2] [--steps 3] [--models dense tiny_v3]        (needs `make peers`)

8 prompts × 8 completions, prompts of 32 tokens, completions of exactly 128, fp32, no KL, the same reward. Ours is not
compiled; TRL compiles its update where that is faster, and its compile time is in the warm-up step, not in the ratio.
"""

import statistics
import sys

from harness.compare import BENCHMARKS, ROOT, Side, compare, machine, make_models, parse_args, show, verdict

GOALS = {"dense": 2.8, "tiny_v3": 3.5}
TRL = ROOT / ".peers" / "trl" / "bin" / "python"


def measure(model: str, rounds: int, steps: int) -> str:
    options = ["--model", str(make_models() / model), "--steps", str(steps)]
    ours = Side("moreseek", [sys.executable, str(BENCHMARKS / "harness" / "grpo_step.py"), *options])
    peer = Side("TRL", [str(TRL), str(BENCHMARKS / "peers" / "trl_grpo.py"), *options])
    ours_s, peer_s, clock = compare(ours, peer, rounds)
    parts = {
        name: round(statistics.median(value for run in ours.runs for value in run["parts"][name]), 3)
        for name in ours.runs[0]["parts"]
    }
    sampling = statistics.median(value for run in peer.runs for value in run["seconds_sampling"])
    gap = max(run["logprob_gap"] for run in ours.runs)
    show(f"{model}: ours {parts}, sampler and trainer differ by {gap:.1e} in log-probability (mean)")
    show(f"  TRL: sampling {sampling:.2f} s of {peer_s:.2f} s; {peer.runs[0]['settings']}")
    return verdict(
        f"grpo_{model}", ours_s, peer_s, f"TRL {peer.runs[0]['versions']['trl']}", peer_s / ours_s, GOALS[model],
        unit="s/step", clock=clock, **parts, peer_sample_s=round(sampling, 3), logprob_gap=gap,
    )  # fmt: skip


def main() -> None:
    args = parse_args(__doc__, rounds=2, steps=3)
    if not TRL.is_file():
        raise SystemExit("TRL is not installed: run `make peers` first.")
    show(machine())
    lines = [measure(model, args.rounds, args.steps) for model in args.models]
    show("\n".join(lines))


if __name__ == "__main__":
    main()
