"""How the checkpoints of a run's stage do over its steps: ratings, changes, and one slope through them."""

from typing import Any

import numpy as np

from moreseek.arena.ratings import POINTS, Ratings, bradley_terry
from moreseek.arena.replay import Replay
from moreseek.arena.standings import on_board
from moreseek.errors import InputError

PER_STEPS = 100


def trends(replay: Replay, board: str = "overall", category: str = "", judge: str = "") -> list[dict[str, Any]]:
    """One trend for each stage with checkpoints on the board: ``run``, ``stage``, ``points``, ``slope``.

    ``points``: ``step``, ``name``, ``rating`` with its interval, ``battles``, and ``change`` since the checkpoint
    before. ``slope``: rating points for 100 steps more, by least squares, its interval from the ratings' covariance;
    None for one checkpoint alone. Raises InputError where no checkpoint has a vote.
    """
    ratings = bradley_terry(on_board(replay, board, category, judge), min_votes=1)
    stages: dict[tuple[str, str], list[tuple[int, str]]] = {}
    for name in ratings.names:
        step = replay.settings[name].get("step")
        if step is not None:
            key = (replay.families[name], str(replay.settings[name].get("stage", "")))
            stages.setdefault(key, []).append((int(step), name))
    if not stages:
        raise InputError("no checkpoint of a run has a vote here: enter some with `checkpoints = true` in arena.toml.")
    return [
        {"run": run, "stage": stage, "points": _points(ratings, sorted(found)), "slope": _slope(ratings, sorted(found))}
        for (run, stage), found in sorted(stages.items())
    ]


def _points(ratings: Ratings, found: list[tuple[int, str]]) -> list[dict[str, Any]]:
    rows = {row["name"]: row for row in ratings.rows()}
    out = []
    for i, (step, name) in enumerate(found):
        row = {key: rows[name][key] for key in ("name", "rating", "ci_low", "ci_high", "battles")}
        change = ratings.difference(name, found[i - 1][1]) if i else None
        out.append({"step": step, **row, "change": change})
    return out


def _slope(ratings: Ratings, found: list[tuple[int, str]]) -> dict[str, float] | None:
    if len(found) < 2:
        return None
    places = np.array([ratings.place(name) for _, name in found])
    steps = np.array([step for step, _ in found]) / PER_STEPS
    weights = (steps - steps.mean()) / ((steps - steps.mean()) ** 2).sum()  # (K,) sum to nothing: the gauge drops out
    several = ratings.covariance if ratings.covariance.ndim == 3 else ratings.covariance[None]
    chosen = several[:, places[:, None], places]  # (W, K, K)
    value = POINTS * float(weights @ ratings.theta[places])
    se = POINTS * float(np.sqrt(max(0.0, max(weights @ V @ weights for V in chosen))))
    reach = ratings.critical * se
    return {"value": value, "ci_low": value - reach, "ci_high": value + reach}
