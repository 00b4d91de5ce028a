"""Boards of an arena: the overall one, one for each class, language and category, from a ledger or from counts."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from moreseek.arena.cautions import Caution
from moreseek.arena.cells import Cells, count_cells, from_counts
from moreseek.arena.leaderboard import board_json
from moreseek.arena.ratings import MIN_VOTES, Ratings, bradley_terry, from_cells
from moreseek.arena.replay import Replay
from moreseek.arena.robustness import Flip, fewest_votes_to_flip
from moreseek.arena.selection import best_of_families
from moreseek.arena.style import style_controlled
from moreseek.arena.vote_lines import STYLE
from moreseek.arena.votes import Votes
from moreseek.config import did_you_mean
from moreseek.errors import InputError

BOARDS = ("overall", "base", "reasoning", "zh", "en")
CLUSTERED_VOTES = 20_000
"""Up to so many votes a board's intervals allow for voters and prompts; above, they come from counts alone."""


def board_of(
    replay: Replay, board: str = "overall", category: str = "", min_votes: int = MIN_VOTES,
    most: int = CLUSTERED_VOTES, judge: str = "",
) -> dict[str, Any]:  # fmt: skip
    """A board as the leaderboard's JSON, from people's votes in a ledger, or from what one judge said."""
    votes, name = on_board(replay, board, category, judge), board_name(board, category, judge)
    return board_of_votes(votes, replay.families, name, min_votes, most, bool(judge))


def board_of_votes(
    votes: Votes, families: Mapping[str, str], name: str, min_votes: int, most: int = CLUSTERED_VOTES,
    judged: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """The board of some votes, people's or a judge's."""
    if len(votes) > most:
        return _from_cells(count_cells(votes), families, name, min_votes, most)
    ratings = bradley_terry(votes, min_votes=min_votes)
    found = _shown(ratings, families, name, fewest_votes_to_flip(ratings))
    # A verifier sees no sides, and a language model both orders: what the fit took for a side would be chance.
    return found | {"side_effect": None} if judged else found


def style_board_of(
    votes: Votes, families: Mapping[str, str], name: str, min_votes: int = MIN_VOTES,
    features: Sequence[str] = STYLE, judged: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """A board with these features of the answers held equal, from the latest votes of it that tell them."""
    if len(votes) == 0:
        ratings = bradley_terry(votes, min_votes=min_votes)
    else:
        ratings = style_controlled(votes, features, min_votes=min_votes)
    found = _shown(ratings, families, name)
    return found | {"side_effect": None} if judged else found


def style_board_from(
    replay: Replay, board: str, category: str, min_votes: int = MIN_VOTES, features: Sequence[str] | None = None
) -> dict[str, Any]:
    """The same from a ledger. Raises InputError where no vote tells the features."""
    chosen = tuple(features or STYLE)
    styled = replay.styled(chosen)
    votes = on_board(replay, board, category, votes=styled)
    if len(votes) == 0:
        raise InputError(f"no vote on this board tells {', '.join(chosen)} of both answers.")
    latest = votes.where(np.s_[-CLUSTERED_VOTES:]).present()
    return style_board_of(latest, replay.families, board_name(board, category), min_votes, chosen)


def _shown(ratings: Ratings, families: Mapping[str, str], name: str, flip: Flip | None = None) -> dict[str, Any]:
    """The leaderboard's JSON; each row with its family, the best of several variants with an interval of its own."""
    found = board_json(ratings, name, flip)
    best = best_of_families(ratings, families)
    for row in found["rows"]:
        chosen = best.get(row["name"])
        row["family"] = families.get(row["name"], row["name"])
        row["selected"] = None if chosen is None else vars(chosen)
    return found


def board_from_counts(
    families: Mapping[str, str], counts: np.ndarray, board: str, category: str, min_votes: int,
    most: int = CLUSTERED_VOTES,
) -> dict[str, Any]:  # fmt: skip
    """The same from counts (M, M, 4), whose cost does not grow with the votes. ``families``: of all M, in order."""
    cells = cells_that_met(list(families), counts)
    return _from_cells(cells, families, board_name(board, category), min_votes, most)


def cells_that_met(names: Sequence[str], counts: np.ndarray) -> Cells:
    """Cells of a table (M, M, 4), without contestants that met nobody."""
    battles = counts @ np.ones(counts.shape[2])  # (M, M)
    met = np.flatnonzero(battles.any(axis=0) | battles.any(axis=1))
    among = counts if len(met) == len(names) else counts[np.ix_(met, met)]
    return from_counts([names[i] for i in met.tolist()], among)


def _from_cells(cells: Cells, families: Mapping[str, str], name: str, min_votes: int, most: int) -> dict[str, Any]:
    ratings = from_cells(cells, min_votes=min_votes)
    # The votes that would flip the top take many refits to find: too slow for a board after every one of so many votes.
    found = _shown(ratings, families, name)
    found["warnings"].append(Caution("from_counts", most=most))
    return found


def on_board(replay: Replay, board: str, category: str, judge: str = "", votes: Votes | None = None) -> Votes:
    """The votes of a board, people's (all of them, or these) or a judge's; contestants without any are left out.

    Raises InputError for a board, or a judge, that there is not.
    """
    if board not in BOARDS:
        raise InputError(f"no board '{board}'{did_you_mean(board, BOARDS)}")
    votes = replay.votes(judge) if votes is None else votes
    chosen = np.ones(len(votes), bool)
    if board in ("base", "reasoning"):
        inside = np.array([kind == board for kind in replay.classes.values()], bool)
        chosen &= inside[votes.a] & inside[votes.b]
    elif board != "overall":
        chosen &= _labelled(votes, "language", board)
    if category:
        chosen &= _labelled(votes, "category", category)
    return votes.where(chosen).present()


def _labelled(votes: Votes, column: str, value: str) -> np.ndarray:
    names = votes.labels[column].names
    return votes.labels[column].codes == (names.index(value) if value in names else -2)


def board_name(board: str, category: str, judge: str = "") -> str:
    """How a board is called in its JSON."""
    return board + (f", category {category}" if category else "") + (f", judge {judge}" if judge else "")
