"""Rates the votes of benchmarks/arena.py with arena-rank, evalica or FastChat's fit, in the environment .peers/arena.

    .peers/arena/bin/python benchmarks/peers/arena_ratings.py --peer arena-rank|evalica|fastchat --votes N --steps 3

All get integer codes for contestants, which are faster for them than names. The first run, with its compilation, is
not counted. evalica gives no intervals; nor does one fit of FastChat's (it draws the votes anew a hundred times for
them). Prints one JSON line.
"""

import argparse
import json
import math
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "harness"))
from arena_votes import CONTESTANTS, drawn

POINTS = 400 / math.log(10)


def arena_rank(a, b, outcome):
    import pandas
    from arena_rank.models.bradley_terry import BradleyTerry
    from arena_rank.utils.data_utils import PairDataset

    frame = pandas.DataFrame({"a": a, "b": b, "outcome": outcome})
    score = {0: 1.0, 1: 0.0, 2: 0.5, 3: 0.5}

    def act():
        data = PairDataset.from_pandas(frame, ["a", "b"], "outcome", score.__getitem__)
        found = BradleyTerry(CONTESTANTS).compute_ratings_and_cis(data)
        ratings = np.asarray(found["ratings"])
        return ratings - ratings.mean(), np.sqrt(np.asarray(found["variances"]))

    return act


def evalica_(a, b, outcome):
    import evalica

    kinds = (evalica.Winner.X, evalica.Winner.Y, evalica.Winner.Draw, evalica.Winner.Draw)
    xs, ys, winners = a.tolist(), b.tolist(), [kinds[code] for code in outcome.tolist()]

    def act():
        scores = evalica.bradley_terry(xs, ys, winners, tolerance=1e-12, limit=10_000).scores
        ratings = POINTS * np.log([scores[place] for place in range(CONTESTANTS)])
        return ratings - ratings.mean(), None

    return act


def fastchat(a, b, outcome):
    """compute_mle_elo of fastchat/serve/monitor: pivot tables, then scikit-learn's logistic regression with weights."""
    import pandas
    from sklearn.linear_model import LogisticRegression

    frame = pandas.DataFrame({"model_a": a, "model_b": b, "winner": outcome})
    places, base = np.arange(CONTESTANTS), math.log(10)

    def pivot(chosen):
        table = pandas.pivot_table(chosen, index="model_a", columns="model_b", aggfunc="size", fill_value=0)
        return table.reindex(index=places, columns=places, fill_value=0)

    def act():
        ties = pivot(frame[frame["winner"] >= 2])
        wins = 2 * pivot(frame[frame["winner"] == 0]) + 2 * pivot(frame[frame["winner"] == 1]).T + ties + ties.T
        weight = wins.to_numpy()
        i, j = np.nonzero(~np.eye(CONTESTANTS, dtype=bool))
        X = np.zeros((2 * len(i), CONTESTANTS))
        rows = np.arange(len(i))
        for start in (0, len(i)):
            X[start + rows, i], X[start + rows, j] = base, -base
        y = np.repeat([1, 0], len(i))
        model = LogisticRegression(fit_intercept=False, C=math.inf, tol=1e-6)
        model.fit(X, y, sample_weight=np.concatenate([weight[i, j], weight[j, i]]))
        ratings = 400 * model.coef_[0]
        return ratings - ratings.mean(), None

    return act


PEERS = {
    "arena-rank": (arena_rank, "arena-rank"), "evalica": (evalica_, "evalica"), "fastchat": (fastchat, "scikit-learn")
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--peer", choices=list(PEERS), required=True)
    parser.add_argument("--votes", type=int, default=1_000_000)
    parser.add_argument("--steps", type=int, default=3)
    args = parser.parse_args()
    make, package = PEERS[args.peer]
    act = make(*drawn(args.votes))
    ratings, se = act()
    wall, cpu = [], []
    for _ in range(args.steps):
        before = time.perf_counter(), time.process_time()
        act()
        wall.append(time.perf_counter() - before[0])
        cpu.append(time.process_time() - before[1])
    line = {"seconds_per_step": wall, "cpu_seconds_per_step": cpu, "ratings": ratings.tolist()}
    line |= {"se": None if se is None else se.tolist(), "version": f"{package} {version(package)}"}
    print(json.dumps(line))


if __name__ == "__main__":
    main()
