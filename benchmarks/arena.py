"""Seconds from votes to ratings with intervals, over the least work that numpy allows and over three peers.

    python benchmarks/arena.py [--votes 1000000 5000000] [--rounds 3] [--steps 5]

100 contestants, one thread. The limit is one np.bincount, Newton's method and the sandwich written out. arena-rank,
evalica and FastChat's fit (pivot tables, then scikit-learn) are measured where their environment is there
(`scripts/peers.sh`). All must agree on the ratings. Then a board after every vote from counts, and a file of names to a
board over reading that file.
"""

import argparse
import sys

import numpy as np
from harness.compare import BENCHMARKS, ROOT, Side, compare, machine, show, verdict

PEERS = ROOT / ".peers" / "arena" / "bin" / "python"
CLOSEST = {"limit": 1e-6, "arena-rank": 1e-3, "evalica": 1e-3, "fastchat": 0.1}  # points
GOALS = {"limit": 0.5, "arena-rank": 90.0, "evalica": 10.0, "fastchat": 10.0}
MOST_MB, MOST_MS = 50.0, 10.0


def side(name: str, votes: int, steps: int) -> Side:
    step = str(BENCHMARKS / "harness" / "arena_step.py")
    return Side(name, [sys.executable, step, "--side", name, "--votes", str(votes), "--steps", str(steps)])


def peer(name: str, votes: int, steps: int) -> Side:
    script = str(BENCHMARKS / "peers" / "arena_ratings.py")
    return Side(name, [str(PEERS), script, "--peer", name, "--votes", str(votes), "--steps", str(steps)])


def rate(votes: int, rounds: int, steps: int) -> list[str]:
    lines = []
    others = [side("limit", votes, steps)]
    if PEERS.is_file():
        others += [peer("arena-rank", votes, 2), peer("evalica", votes, 1), peer("fastchat", votes, 1)]
    else:
        show(f"no peers: {PEERS} is not there (scripts/peers.sh builds it)")
    for other in others:
        ours = side("ours", votes, steps)
        ours_s, other_s, clock = compare(ours, other, rounds if other.name == "limit" else 1)
        mine, theirs = ours.runs[0], other.runs[0]
        gap = float(np.abs(np.subtract(mine["ratings"], theirs["ratings"])).max())
        if gap > CLOSEST[other.name]:
            raise SystemExit(
                f"{other.name}: the ratings differ by {gap:.1e} points: this compares two different things."
            )
        se_gap = float(np.abs(np.divide(mine["se"], theirs["se"]) - 1).max()) if theirs["se"] else None
        name = theirs.get("version", "np.bincount + Newton + sandwich")
        line = verdict(
            f"arena_{votes // 1_000_000}m_{other.name}", 1e3 * ours_s, 1e3 * other_s, name, other_s / ours_s,
            GOALS[other.name], unit="ms", clock=clock, rating_gap=gap, se_gap=se_gap,
        )  # fmt: skip
        lines.append(line)
        if other.name == "limit":
            peak = mine["peak_mb"]
            lines.append(
                verdict(
                    f"arena_{votes // 1_000_000}m_memory", peak, MOST_MB, "the goal", MOST_MB / peak, 1.0, unit="MB"
                )
            )
    return lines


def boards(rounds: int, steps: int) -> list[str]:
    counts = side("counts", 1_000_000, 20)
    counts.run()
    after_vote = 1e3 * counts.median("cpu_seconds_per_step")
    file, reading = side("csv", 1_000_000, steps), side("csv-reading", 1_000_000, steps)
    file_s, reading_s, clock = compare(file, reading, rounds)
    return [
        verdict("arena_after_vote", after_vote, MOST_MS, "the goal", MOST_MS / after_vote, 1.0, unit="ms", clock="cpu"),
        verdict("arena_csv", file_s, reading_s, "csv.reader alone", reading_s / file_s, 1 / 3, unit="s", clock=clock),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--votes", type=int, nargs="+", default=[1_000_000, 5_000_000])
    parser.add_argument("--rounds", type=int, default=3, help="processes of each side, in turns")
    parser.add_argument("--steps", type=int, default=5, help="measured ratings of one process")
    args = parser.parse_args()
    show(machine())
    lines = [line for votes in args.votes for line in rate(votes, args.rounds, args.steps)]
    lines += boards(args.rounds, min(args.steps, 3))
    show("\n".join(lines))


if __name__ == "__main__":
    main()
