"""Rates votes in one process and says how long it took. One side of benchmarks/arena.py.

    python benchmarks/harness/arena_step.py --side ours|limit|counts|csv|csv-reading --votes 1000000 --steps 5

Sides: `ours` (ratings and intervals), `limit` (one np.bincount, Newton and the sandwich written out, without a check
of anything), `counts` (a vote into the counts of these votes, then the whole board: ratings, intervals, ranks, Holm
over all pairs), `csv` (a file of names to a board), `csv-reading` (the same file by Python's csv reader, rows thrown
away). Prints one JSON line; `peak_mb` is what ours allocates at most beside the votes, measured in a run of its own.
"""

import argparse
import csv
import json
import math
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
from arena_votes import CONTESTANTS, OUTCOMES, drawn

from moreseek.arena.boards import LiveBoard
from moreseek.arena.ratings import bradley_terry
from moreseek.arena.vote_formats import read_votes

POINTS = 400 / math.log(10)
Result = tuple[np.ndarray, np.ndarray]


def limit(a: np.ndarray, b: np.ndarray, outcome: np.ndarray) -> Result:
    """Ratings and standard errors in points, by as little work as the formulas allow in numpy."""
    M = CONTESTANTS
    counts = np.bincount((a.astype(np.int64) * M + b) * 4 + outcome, minlength=4 * M * M).reshape(M, M, 4)
    wins, ties = counts[:, :, 0] + counts[:, :, 1].T, counts[:, :, 2:].sum(axis=2)
    ties = ties + ties.T
    score, battles = wins + ties / 2, wins + wins.T + ties
    theta, tie = np.zeros(M), np.full((M, M), 1000 / M)
    while True:
        chance = 1 / (1 + np.exp(theta[None, :] - theta[:, None]))
        spread = battles * chance * (1 - chance)
        hessian = np.diag(spread.sum(axis=1)) - spread
        step = np.linalg.solve(hessian + tie, (score - battles * chance).sum(axis=1))
        theta += step
        if np.abs(step).max() < 1e-7:
            break
    met = wins * (1 - chance) ** 2 + wins.T * chance**2 + ties * (0.5 - chance) ** 2
    inverse = np.linalg.inv(hessian + tie) - tie / 1000**2
    V = inverse @ (np.diag(met.sum(axis=1)) - met) @ inverse
    return POINTS * (theta - theta.mean()), POINTS * np.sqrt(np.diag(V))


def ours(a: np.ndarray, b: np.ndarray, outcome: np.ndarray) -> Result:
    found = bradley_terry({"a": a, "b": b, "outcome": outcome})
    return found.rating - 1000, found.ci_high - found.rating  # intervals too, though only their width is compared


def live(a: np.ndarray, b: np.ndarray, outcome: np.ndarray) -> Callable[[], object]:
    names = [f"m{place}" for place in range(CONTESTANTS)]
    board = LiveBoard(names)
    for key, count in zip(*np.unique((a * 100 + b) * 4 + outcome, return_counts=True), strict=True):
        left, rest = divmod(int(key), 400)
        board.add(names[left], names[rest // 4], OUTCOMES[rest % 4], int(count))

    def vote() -> object:
        board.add("m3", "m7", "model_a")
        return board.ratings().rows()

    return vote


def table(a: np.ndarray, b: np.ndarray, outcome: np.ndarray, path: Path) -> None:
    names = [f"contestant-{place:03d}-instruct" for place in range(CONTESTANTS)]
    with path.open("w", encoding="utf-8") as file:
        file.write("model_a,model_b,winner\n")
        for i, j, k in zip(a.tolist(), b.tolist(), outcome.tolist(), strict=True):
            file.write(f"{names[i]},{names[j]},{OUTCOMES[k]}\n")


def reading(path: Path) -> None:
    with path.open(encoding="utf-8", newline="") as file:
        for _ in csv.reader(file):
            pass


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--side", choices=["ours", "limit", "counts", "csv", "csv-reading"], required=True)
    parser.add_argument("--votes", type=int, default=1_000_000)
    parser.add_argument("--steps", type=int, default=5)
    args = parser.parse_args()
    columns = drawn(args.votes)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "votes.csv"
        if args.side.startswith("csv"):
            table(*columns, path)
        vote = live(*columns) if args.side == "counts" else None
        work: dict[str, Callable[[], object]] = {
            "ours": lambda: ours(*columns),
            "limit": lambda: limit(*columns),
            "counts": lambda: vote() if vote else None,
            "csv": lambda: bradley_terry(read_votes(path)).rows(),
            "csv-reading": lambda: reading(path),
        }
        act = work[args.side]
        result = act()  # a warm-up
        wall, cpu = [], []
        for _ in range(args.steps):
            before = time.perf_counter(), time.process_time()
            act()
            wall.append(time.perf_counter() - before[0])
            cpu.append(time.process_time() - before[1])
        line: dict[str, object] = {"seconds_per_step": wall, "cpu_seconds_per_step": cpu}
        if isinstance(result, tuple):
            line |= {"ratings": result[0].tolist(), "se": result[1].tolist()}
        if args.side == "ours":
            line["se"] = (result[1] / 1.959963984540054).tolist()  # pyright: ignore[reportIndexIssue]
            tracemalloc.start()
            act()
            line["peak_mb"] = tracemalloc.get_traced_memory()[1] / 1e6
    print(json.dumps(line))


if __name__ == "__main__":
    main()
