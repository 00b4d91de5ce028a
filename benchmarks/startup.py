"""Seconds from the start of a process to the first token of SmolLM2-135M, over llama.cpp and vLLM. Two threads.

    python benchmarks/startup.py [--rounds 3] [--peers llama vllm]               (needs `make peers` and `make smollm2`)

Everything counts: the interpreter, imports, reading the weights, compiling, reading the prompt. A first process of each
is not counted, so that the disk is warm and what can be kept from one start to the next has been kept.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from generate import folder_of, gguf_of
from harness.compare import BENCHMARKS, ROOT, machine, show, verdict

GOALS = {"llama": 1.0, "vllm": 10.0}
THREADS = "2"


def seconds(command: list[str]) -> tuple[float, list[int]]:
    """Until the process printed its token; and that token."""
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": THREADS}
    started = time.perf_counter()
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as made:
        assert made.stdout is not None
        line = next((line for line in made.stdout if line.startswith("first ")), None)
        spent = time.perf_counter() - started
        made.stdout.read()
    if line is None:
        raise SystemExit(f"no token came from {' '.join(command)}")
    return spent, [int(word) for word in line.split()[1:]]


def command_of(side: str) -> list[str]:
    script = BENCHMARKS / "harness" / "first_token.py"
    python = Path(sys.executable) if side == "moreseek" else ROOT / ".peers" / side / "bin" / "python"
    if not python.is_file():
        raise SystemExit(f".peers/{side} is missing: run `make peers` first.")
    model = gguf_of("smollm2", "q8_0") if side == "llama" else folder_of("smollm2")
    return [str(python), str(script), side, str(model), THREADS]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="counted processes of each side, in turns")
    parser.add_argument("--peers", nargs="+", default=["llama", "vllm"], choices=["llama", "vllm"])
    args = parser.parse_args()
    show(machine())
    spent: dict[str, list[float]] = {side: [] for side in ("moreseek", *args.peers)}
    tokens: dict[str, list[int]] = {}
    for counted in range(args.rounds + 1):
        for side in spent:
            found, tokens[side] = seconds(command_of(side))
            show(f"  {side}: {found:.2f} s{'' if counted else ' (not counted)'}, token {tokens[side]}")
            spent[side] += [found] if counted else []
    if len({tuple(first) for first in tokens.values()}) > 1:
        raise SystemExit(f"the first tokens differ: {tokens}")
    ours = statistics.median(spent["moreseek"])
    for side in args.peers:
        theirs = statistics.median(spent[side])
        show(verdict(f"startup_smollm2_{side}", ours, theirs, side, theirs / ours, GOALS[side], unit="s", threads=2))


if __name__ == "__main__":
    main()
