"""What `moreseek arena leaderboard` and `compare` read, compute and print."""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from moreseek.arena.agreement import agreement
from moreseek.arena.judged import agreements
from moreseek.arena.leaderboard import board_json
from moreseek.arena.ratings import bradley_terry
from moreseek.arena.replay import Replay
from moreseek.arena.robustness import cap_voters, fewest_votes_to_flip
from moreseek.arena.style import FEATURES, style_controlled
from moreseek.arena.style_columns import with_answers
from moreseek.arena.ties import rated
from moreseek.arena.vote_formats import read_votes
from moreseek.arena.votes import Votes
from moreseek.config import did_you_mean
from moreseek.errors import InputError
from moreseek.evals.wording import visible

_CLUSTERS = ("voter", "prompt", "none")
_TIES = ("half", "davidson", "rao-kupper", "both-bad")


@dataclass(frozen=True)
class Selection:
    """Which votes of a file count."""

    format: str = "auto"
    category: str | None = None
    language: str | None = None
    since: str | None = None
    until: str | None = None
    cap: int | None = None

    def read(self, path: Path, style: bool = False) -> Votes:
        """The chosen votes of a file; contestants without any of them are left out."""
        return self.of(read_votes(path, self.format, style), str(path))

    def of(self, votes: Votes, where: str) -> Votes:
        """The chosen ones of some votes."""
        if len(votes) == 0:
            raise InputError(f"{where}: nobody has voted there.")
        for column, value in (("category", self.category), ("language", self.language)):
            if value is not None:
                votes = votes.labelled(column, value)
        if self.since is not None or self.until is not None:
            votes = votes.between(_moment(self.since, "--since", -math.inf), _moment(self.until, "--until", math.inf))
        if self.cap is not None:
            votes = cap_voters(votes, self.cap)
        if len(votes) == 0:
            raise InputError(f"{where}: no vote is left by the options --category, --language, --since and --until.")
        return votes.present()

    @property
    def board(self) -> str:
        """The board's name: overall, or what was chosen."""
        parts = [f"{key} {value}" for key, value in vars(self).items() if value is not None and key != "format"]
        return ", ".join(parts) or "overall"


def _moment(text: str | None, option: str, otherwise: float) -> float:
    if text is None:
        return otherwise
    try:
        when = datetime.fromisoformat(text)
    except ValueError as error:
        raise InputError(f"{option} {text}: a date such as 2026-05-01 or 2026-05-01T12:00 is needed.") from error
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()


def clusters_named(text: str) -> list[str]:
    """``voter,prompt`` as a list; ``none`` is the empty one."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in _CLUSTERS:
            raise InputError(f"--cluster {text}: no such cluster '{name}'{did_you_mean(name, _CLUSTERS)}")
    if "none" in names and len(names) > 1:
        raise InputError(f"--cluster {text}: 'none' stands alone.")
    return [] if names == ["none"] else list(dict.fromkeys(names))


def make_board(
    path: Path,
    selection: Selection,
    *,
    cluster: str,
    style: bool,
    features: str | None,
    answers: Path | None,
    ties: str,
    min_votes: int,
) -> dict[str, Any]:
    """The leaderboard's JSON for a file of votes."""
    if style and ties != "half":
        raise InputError("--style counts a tie as half a win; it does not go with --ties.")
    if (answers is not None or features is not None) and not style:
        raise InputError("--answers and --features are for style control: add --style.")
    votes = selection.read(path, style)
    if answers is not None:
        votes = with_answers(votes, answers)
    if not style:
        return rate(votes, selection.board, cluster=cluster, ties=ties, min_votes=min_votes)
    clusters = clusters_named(cluster)
    ratings = style_controlled(votes, features_named(features), cluster=clusters, min_votes=min_votes)
    return board_json(ratings, selection.board)


def rate(votes: Votes, name: str, *, cluster: str, ties: str, min_votes: int) -> dict[str, Any]:
    """The leaderboard's JSON for some votes."""
    clusters = clusters_named(cluster)
    if ties not in _TIES:
        raise InputError(f"--ties {ties}: no such model of ties{did_you_mean(ties, _TIES)}")
    if ties == "half":
        ratings = bradley_terry(votes, cluster=clusters, min_votes=min_votes)
    else:
        model: Literal["davidson", "rao-kupper", "both-bad"] = ties  # pyright: ignore[reportAssignmentType]
        ratings = rated(votes, model, min_votes)
    return board_json(ratings, name, fewest_votes_to_flip(ratings) if ties == "half" else None)


def features_named(text: str | None) -> list[str] | None:
    """``tokens,latency`` as a list; None for the usual ones."""
    if text is None:
        return None
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in FEATURES:
            raise InputError(f"--features {text}: no such feature '{name}'{did_you_mean(name, FEATURES)}")
    return list(dict.fromkeys(names))


def write_rows(board: dict[str, Any], path: Path) -> None:
    """The board's rows as CSV."""
    with path.open("w", encoding="utf-8", newline="") as file:
        columns = ["name", "rating", "ci_low", "ci_high", "se", "rank", "rank_low", "rank_high", "battles", "wins",
                   "ties", "provisional", "component"]  # fmt: skip
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(board["rows"])


def print_board(board: dict[str, Any]) -> None:
    """A table for people, and what is to be known beside it."""
    console = Console()
    # Names come first: a narrow terminal goes without the column that the warning below says in words.
    several = len({row["component"] for row in board["rows"]}) > 1 and console.width >= _WIDE
    table = Table(title=f"{escape(visible(board['board']))}: {board['votes']:,} votes", title_justify="left")
    for column in ("rank", "range"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("contestant", overflow="fold", min_width=12)
    for column in ("rating", "95 % interval", "battles", "wins", "ties", *(["component"] if several else [])):
        table.add_column(column, justify="right", no_wrap=True)
    for row in board["rows"]:
        table.add_row(
            str(row["rank"] or "–"), f"{row['rank_low']}–{row['rank_high']}" if row["rank"] else "–",
            escape(visible(row["name"])), f"{row['rating']:.0f}", f"{row['ci_low']:.0f} to {row['ci_high']:.0f}",
            *(f"{row[key]:,.6g}" for key in ("battles", "wins", "ties")), *([str(row["component"])] if several else []),
        )  # fmt: skip
    console.print(table)
    for line in _below(board):
        console.print(escape(line), highlight=False)
    for warning in board["warnings"]:
        console.print(escape(visible(warning)), style="yellow", highlight=False)


_WIDE = 100
"""Columns of a terminal from which on components have a column."""


def _below(board: dict[str, Any]) -> list[str]:
    lines = []
    if any(row["provisional"] for row in board["rows"]):
        lines.append("– is provisional: too few battles for a rank.")
    if board["clusters"]:
        counted = " and ".join(f"{count:,} {name}s" for name, count in board["clusters"].items())
        lines.append(f"Intervals allow for votes that depend on one another, by {counted}.")
    if board["side_effect"]:
        lines.append(f"Being shown on the left is worth {_points(board['side_effect'])}.")
    for name, effect in (board["style"] or {}).items():
        lines.append(f"Style, {name}: {_points(effect)} for one standard deviation more.")
    if board["tie_model"]:
        lines.append(f"Ties: {board['tie_model']['model']}, tau {board['tie_model']['tau']:.3f}.")
    if board["robustness"]:
        lines.append(visible(board["robustness"]["sentence"]))
    return lines


def _points(effect: dict[str, float]) -> str:
    return f"{effect['value']:+.1f} points ({effect['ci_low']:+.1f} to {effect['ci_high']:+.1f})"


def print_comparison(result: dict[str, Any]) -> None:
    """The comparison in sentences."""
    a, b = visible(result["a"]), visible(result["b"])
    said = {"better": f"{b} is better than {a}", "worse": f"{b} is worse than {a}", "undecided": "Undecided so far"}
    lines = [
        f"{said[result['verdict']]} (error at most {1 - result['level']:.0%}, however often one looks).",
        f"Difference, for one look: {_points(result['difference'])}, p = {result['difference']['p']:.2g}, from "
        f"{result['votes']:,} votes; {b} would score {result['expected_score']:.1%} against {a}, ties counted half.",
        _direct(result["direct"], b, a),
    ]
    if result["anytime"]["ci_low"] is not None:
        interval = f"{result['anytime']['ci_low']:+.1f} to {result['anytime']['ci_high']:+.1f} points"
        lines.insert(1, f"Interval that holds at every look: {interval}.")
    if result["more_votes"]:
        lines.append(
            f"About {result['more_votes']:,} more votes between the two would show a difference of this size "
            f"(power {result['power']:.0%})."
        )
    console = Console()
    for line in lines:
        console.print(escape(line), highlight=False)
    for warning in result["warnings"]:
        console.print(escape(visible(warning)), style="yellow", highlight=False)


def say_more(replay: Replay, judge: str | None) -> None:
    """Below a judge's board, how far others agree with it; below people's, how far they do, and who else judged."""
    if judge is not None:
        lines = [_agreement(found) for found in agreements(replay, judge)]
    else:
        said = ", ".join(f"{name} ({len(replay.judged(name)):,} judgements)" for name in replay.judges)
        lines = [f"Judges have boards of their own, --judge NAME: {said}."] if said else []
        raters = agreement(replay.votes())
        if raters.alpha is not None:
            lines.append(
                f"Raters: alpha {raters.alpha:.2f} over {raters.units:,} questions that several people judged."
            )
    for line in lines:
        Console().print(escape(visible(line)), highlight=False)


def _agreement(found: dict[str, Any]) -> str:
    alpha = "" if found["alpha"] is None else f", alpha {found['alpha']:.2f}"
    decided = found["decided"]
    more = "" if decided["same"] is None else f"; of {decided['battles']:,} decided by both {_share(decided['same'])}"
    return (
        f"{found['judge']} and {found['with']} said the same of {_share(found['same'])} of {found['battles']:,} "
        f"battles{alpha}{more}."
    )


def _share(same: dict[str, float]) -> str:
    return f"{same['value']:.0%} ({same['ci_low']:.0%}–{same['ci_high']:.0%})"


def print_trends(trends: list[dict[str, Any]]) -> None:
    """A table for each stage, and its slope in a sentence."""
    console = Console()
    for trend in trends:
        table = Table(title=escape(visible(f"{trend['run']}, stage {trend['stage']}")), title_justify="left")
        for column in ("step", "rating", "95 % interval", "battles", "since the one before"):
            table.add_column(column, justify="right")
        for point in trend["points"]:
            table.add_row(
                f"{point['step']:,}", f"{point['rating']:.0f}", f"{point['ci_low']:.0f} to {point['ci_high']:.0f}",
                f"{point['battles']:,.6g}", _points(point["change"]) if point["change"] else "",
            )  # fmt: skip
        console.print(table)
        if trend["slope"]:
            console.print(f"100 steps more: {_points(trend['slope'])}.", highlight=False)


def _direct(direct: dict[str, Any], b: str, a: str) -> str:
    if not direct["battles"]:
        return f"{b} and {a} never met; the difference comes from battles with others."
    record: Sequence[str] = [f"{direct[key]:,} {key}" for key in ("wins", "losses", "ties")]
    return f"{b} against {a} directly: {', '.join(record)}."
