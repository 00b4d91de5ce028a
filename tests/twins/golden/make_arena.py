"""Makes arena.json: simulated votes, and what evalica and arena-rank make of them.

    python tests/twins/golden/make_arena.py        (in an environment that has evalica and arena-rank)

The peers are no requirement of this project, so the tests compare with this file, and with the peers themselves only
where they are installed.
"""

import importlib.metadata
import json
from pathlib import Path

import evalica
import numpy as np
import pandas as pd
from arena_rank.models.bradley_terry import BradleyTerry
from arena_rank.models.contextual_bradley_terry import ContextualBradleyTerry
from arena_rank.utils.data_utils import ContextualPairDataset, PairDataset

OUTCOMES = ["model_a", "model_b", "tie", "both_bad"]
NAMES = ["alpha", "beta", "γάμμα", "delta 4", "式", "zeta", "eta", "theta"]
VOTES = 600


def simulated() -> list[list[int]]:
    rng = np.random.default_rng(7)
    strength = np.linspace(-0.9, 0.9, len(NAMES))
    votes = []
    for _ in range(VOTES):
        a, b = rng.choice(len(NAMES), 2, replace=False)
        tokens, headers = rng.gamma(2, 100, size=2).round(), rng.integers(0, 6, size=2)
        edge = 0.4 * (tokens[0] - tokens[1]) / (tokens.sum() + 1)
        chance = 1 / (1 + np.exp(strength[b] - strength[a] - edge))
        kind = rng.choice([2, 3, -1], p=[0.15, 0.1, 0.75])
        outcome = kind if kind > 0 else int(rng.random() > chance)
        votes.append([int(x) for x in (a, b, outcome, *tokens, *headers)])
    return votes


def evalica_scores(votes: list[list[int]]) -> dict[str, object]:
    winners = [(evalica.Winner.X, evalica.Winner.Y, evalica.Winner.Draw, evalica.Winner.Draw)[v[2]] for v in votes]
    sides = [NAMES[v[0]] for v in votes], [NAMES[v[1]] for v in votes]
    exact = {"tolerance": 1e-15, "limit": 100_000}
    half = evalica.bradley_terry(*sides, winners, **exact)
    newman = evalica.newman(*sides, winners, **exact)
    return {
        "bradley_terry": [float(half.scores[name]) for name in NAMES],
        "newman": [float(newman.scores[name]) for name in NAMES],
        "newman_v": float(newman.v),
    }


def arena_rank_ratings(votes: list[list[int]]) -> dict[str, object]:
    table = pd.DataFrame(votes, columns=["a", "b", "outcome", "tokens_a", "tokens_b", "headers_a", "headers_b"])
    table["model_a"], table["model_b"] = table.a.map(NAMES.__getitem__), table.b.map(NAMES.__getitem__)
    table["winner"] = table.outcome.map(OUTCOMES.__getitem__)
    features = ["tokens", "headers"]
    for name in features:
        left, right = table[f"{name}_a"], table[f"{name}_b"]
        table[name] = (left - right) / (left + right + 1)
    half = PairDataset.from_pandas(table)
    rated = BradleyTerry(len(half.competitors)).compute_ratings_and_cis(half)
    styled = ContextualPairDataset.from_pandas(table, features, reweighted=False)
    # Its ridge is on the mean of the likelihood, ours on the sum: 1 / votes there is 1 here.
    model = ContextualBradleyTerry(len(styled.competitors), len(features), reg=1 / len(votes), ftol=1e-14, gtol=1e-10)
    controlled = model.compute_ratings_and_cis(styled)
    keys = ("ratings", "rating_lower", "rating_upper")

    def in_order(result: dict, competitors: list[str]) -> dict[str, list[float]]:
        return {key: [float(result[key][competitors.index(name)]) for name in NAMES] for key in keys}

    return {
        "half": in_order(rated, half.competitors),
        "style": in_order(controlled, styled.competitors),
        "coefficients": dict(zip(features, [float(x) for x in controlled["coeffs"]], strict=True)),
    }


def main() -> None:
    votes = simulated()
    golden = {
        "made_with": {name: importlib.metadata.version(name) for name in ("evalica", "arena-rank", "numpy")},
        "columns": ["a", "b", "outcome", "tokens_a", "tokens_b", "headers_a", "headers_b"],
        "names": NAMES,
        "evalica": evalica_scores(votes),
        "arena_rank": arena_rank_ratings(votes),
        "votes": votes,
    }
    text = json.dumps(golden, ensure_ascii=False, indent=1)
    text = text[: text.index('"votes"')] + '"votes": [\n' + ",\n".join(json.dumps(v) for v in votes) + "\n]}\n"
    Path(__file__).with_name("arena.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
