"""A board: ratings in the form that people, pages and programs read."""

from typing import Any

from moreseek.arena.ratings import Ratings, plain


def board_json(ratings: Ratings, board: str = "overall") -> dict[str, Any]:
    """The leaderboard's JSON: see docs/arena.md for its keys."""
    return {
        "board": board,
        "votes": plain(ratings.cells.votes),
        "gauge": "mean 1000",
        "rows": ratings.rows(),
        "side_effect": ratings.side_effect(),
        "clusters": ratings.clusters,
        "level": ratings.level,
        "warnings": list(ratings.warnings),
    }
