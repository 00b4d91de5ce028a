"""Runs our side and the peer in turns, each in a process of its own, and compares their medians.

With one thread a process's CPU seconds are its wall seconds on a quiet machine. Where they differ by more than 5 % on
either side something else had the core, and the ratio is of CPU seconds; the JSON line says which. With more threads,
and with a peer that works in processes of its own, there is only the wall's clock: keep the machine quiet.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.generation import CLOCKS

BENCHMARKS = Path(__file__).resolve().parents[1]
ROOT = BENCHMARKS.parent
MODELS = ROOT / ".peers" / "models"  # random weights; made once, ignored by git
DISTURBED = 1.05
KEYS = dict(zip(("wall", "cpu"), CLOCKS, strict=True))


@dataclass
class Side:
    """One of the two: its command, and what its runs printed."""

    name: str
    command: list[str]
    threads: int = 1
    runs: list[dict[str, Any]] = field(default_factory=list)

    def run(self) -> None:
        threads = {"OMP_NUM_THREADS": str(self.threads), "MKL_NUM_THREADS": str(self.threads)}
        environment = os.environ | {"PYTHONPATH": str(ROOT / "src")} | threads
        done = subprocess.run(self.command, env=environment, capture_output=True, text=True)
        if done.returncode:
            sys.stderr.write(done.stderr[-4000:])
            raise SystemExit(f"{self.name}: ended with {done.returncode}: {' '.join(self.command)}")
        self.runs.append(json.loads(done.stdout.strip().splitlines()[-1]))
        show(f"  {self.name}: {self.runs[-1]['seconds_per_step']} s a step")

    def median(self, key: str) -> float:
        return statistics.median(value for run in self.runs for value in run[key])

    @property
    def has_cpu_clock(self) -> bool:
        return self.threads == 1 and KEYS["cpu"] in self.runs[0]

    @property
    def disturbed(self) -> bool:
        return self.median(KEYS["wall"]) > DISTURBED * self.median(KEYS["cpu"])


def compare(ours: Side, peer: Side, rounds: int) -> tuple[float, float, str]:
    """Run both in turns. Median seconds a step of ours and of the peer, and the clock that they are read from."""
    for number in range(rounds):
        for side in (ours, peer) if number % 2 == 0 else (peer, ours):
            side.run()
    both = ours.has_cpu_clock and peer.has_cpu_clock
    clock = "cpu" if both and (ours.disturbed or peer.disturbed) else "wall"
    return ours.median(KEYS[clock]), peer.median(KEYS[clock]), clock


def make_models() -> Path:
    """The folder that holds `dense` and `tiny_v3`."""
    if not (MODELS / "tiny_v3" / "model.safetensors").is_file():
        show("making the two random-weight models")
        script = BENCHMARKS / "peers" / "make_models.py"
        subprocess.run([sys.executable, str(script), str(MODELS)], check=True, stdout=subprocess.DEVNULL)
    return MODELS


def parse_args(description: str | None, rounds: int, steps: int) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=rounds, help="processes of each side, in turns")
    parser.add_argument("--steps", type=int, default=steps, help="measured steps of one process")
    parser.add_argument("--models", nargs="+", default=["dense", "tiny_v3"], choices=["dense", "tiny_v3"])
    return parser.parse_args()


def machine() -> str:
    """Model and vector extensions of the CPU, as far as Linux tells them."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    wanted = ("avx2", "avx512f", "avx512_bf", "amx")
    flags = [flag for flag in facts.get("flags", "").split() if flag.startswith(wanted)]
    return f"{facts.get('model name', platform.machine())} ({' '.join(flags)})"


def show(text: str) -> None:
    print(text, flush=True)


def verdict(benchmark: str, ours: float, peer: float, peer_name: str, ratio: float, goal: float, **more: Any) -> str:
    """The JSON line that every benchmark ends with."""
    line = {"benchmark": benchmark, "ours": round(ours, 3), "peer": round(peer, 3), "peer_name": peer_name}
    return json.dumps(line | {"ratio": round(ratio, 3), "goal": goal, "ok": ratio >= goal} | more)
