"""`moreseek arena`: boards and comparisons from files of votes."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

app = typer.Typer(help="Rate contestants from blind votes.", no_args_is_help=True, rich_markup_mode=None)

VotesFile = Annotated[Path, typer.Argument(help="a .csv, .tsv, .jsonl or .json file of votes", metavar="VOTES")]
Format = Annotated[str, typer.Option(help="auto, llmfao, lmarena or fastchat")]
Cluster = Annotated[str, typer.Option(help="votes that share these depend on one another: voter,prompt, or none")]
Json = Annotated[bool, typer.Option("--json", help="print one JSON document on stdout")]


@app.command()
def leaderboard(
    votes: VotesFile,
    format: Format = "auto",
    cluster: Cluster = "voter,prompt",
    as_json: Json = False,
) -> None:
    """Rate everybody in a file of votes: ratings with 95 % intervals, and ranks that can be shared."""
    from moreseek.arena.leaderboard import board_json
    from moreseek.arena.ratings import bradley_terry
    from moreseek.arena.vote_formats import read_votes

    ratings = bradley_terry(read_votes(votes, format), cluster=[] if cluster == "none" else cluster.split(","))
    board = board_json(ratings)
    if as_json:
        typer.echo(json.dumps(board, indent=1, ensure_ascii=False))
    else:
        print_board(board)


def print_board(board: dict[str, Any]) -> None:
    """A table for people."""
    from moreseek.evals.wording import visible

    table = Table(title=f"{board['board']}: {board['votes']:,} votes", title_justify="left")
    for column, justify in (
        ("rank", "right"), ("range", "right"), ("contestant", "left"), ("rating", "right"), ("95 % interval", "right"),
        ("battles", "right"), ("wins", "right"), ("ties", "right"),
    ):  # fmt: skip
        table.add_column(column, justify=justify)
    for row in board["rows"]:
        table.add_row(
            str(row["rank"] or "–"), f"{row['rank_low']}–{row['rank_high']}" if row["rank"] else "provisional",
            escape(visible(row["name"])), f"{row['rating']:.0f}", f"{row['ci_low']:.0f} to {row['ci_high']:.0f}",
            f"{row['battles']:,}", f"{row['wins']:,}", f"{row['ties']:,}",
        )  # fmt: skip
    console = Console()
    console.print(table)
    if board["side_effect"]:
        side = board["side_effect"]
        console.print(
            f"Being shown on the left is worth {side['value']:+.1f} points ({side['ci_low']:+.1f} to "
            f"{side['ci_high']:+.1f}).", highlight=False,
        )  # fmt: skip
    for warning in board["warnings"]:
        console.print(escape(warning), style="yellow", highlight=False)
