"""A board: ratings in the form that people, pages and programs read."""

from dataclasses import asdict
from typing import Any

from moreseek.arena.ratings import Ratings, plain
from moreseek.arena.robustness import Flip


def board_json(ratings: Ratings, board: str = "overall", flip: Flip | None = None) -> dict[str, Any]:
    """The leaderboard's JSON: docs/arena.md lists its keys."""
    tie_model = ratings.tie_model
    return {
        "board": board,
        "votes": plain(ratings.cells.votes),
        "gauge": ratings.gauge,
        "level": ratings.level,
        "clusters": ratings.clusters,
        "rows": ratings.rows(),
        "side_effect": ratings.side_effect(),
        "style": ratings.style,
        "tie_model": tie_model,
        "robustness": None if flip is None else {**asdict(flip), "sentence": flip.sentence()},
        "warnings": list(ratings.warnings),
    }
