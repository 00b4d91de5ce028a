"""`moreseek arena`: boards and comparisons from files of votes."""

import json
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="Rate contestants from blind votes; compare two of them.", no_args_is_help=True, rich_markup_mode=None
)

VotesFile = Annotated[Path, typer.Argument(help="a .csv, .tsv, .jsonl or .json file of votes", metavar="VOTES")]
Format = Annotated[str, typer.Option(help="auto, llmfao, lmarena or fastchat")]
Cluster = Annotated[str, typer.Option(help="votes that share one depend on one another: voter,prompt or none")]
Cap = Annotated[int | None, typer.Option(min=1, help="most votes that one voter counts for")]
Category = Annotated[str | None, typer.Option(help="only votes of this category")]
Language = Annotated[str | None, typer.Option(help="only votes in this language")]
Since = Annotated[str | None, typer.Option(help="only votes from this date on: 2026-05-01, or with a time")]
Until = Annotated[str | None, typer.Option(help="only votes before this date")]
Json = Annotated[bool, typer.Option("--json", help="print one JSON document on stdout")]


@app.command()
def leaderboard(
    votes: VotesFile,
    format: Format = "auto",
    cluster: Cluster = "voter,prompt",
    style: Annotated[bool, typer.Option("--style", help="hold the answers' length and decoration equal")] = False,
    answers: Annotated[Path | None, typer.Option(help="for --style: a file with the answers")] = None,
    features: Annotated[str | None, typer.Option(help="for --style: tokens,headers,bold,lists,latency,cost")] = None,
    ties: Annotated[str, typer.Option(help="half (a win), davidson, rao-kupper or both-bad")] = "half",
    category: Category = None,
    language: Language = None,
    since: Since = None,
    until: Until = None,
    cap: Cap = None,
    min_votes: Annotated[int, typer.Option(min=1, help="battles before a contestant gets a rank")] = 30,
    csv: Annotated[Path | None, typer.Option(help="also write the rows to this file")] = None,
    plot: Annotated[Path | None, typer.Option(help="also draw the intervals: .png, .svg or .pdf")] = None,
    as_json: Json = False,
) -> None:
    """Rate everybody in a file of votes: ratings with 95 % intervals, and ranks that can be shared."""
    from moreseek.cli.boards import Selection, make_board, print_board, write_rows

    selection = Selection(format, category, language, since, until, cap)
    board = make_board(
        votes, selection, cluster=cluster, style=style, features=features, answers=answers, ties=ties,
        min_votes=min_votes,
    )  # fmt: skip
    if csv is not None:
        write_rows(board, csv)
    if plot is not None:
        from moreseek.arena.charts import plot_intervals

        plot_intervals(board, plot)
    if as_json:
        typer.echo(json.dumps(board, indent=1, ensure_ascii=False))
    else:
        print_board(board)


@app.command()
def compare(
    a: Annotated[str, typer.Argument(help="the contestant that is there already", metavar="A")],
    b: Annotated[str, typer.Argument(help="the one that is to be better", metavar="B")],
    votes: Annotated[Path, typer.Option(help="a file of votes", metavar="VOTES")],
    format: Format = "auto",
    cluster: Cluster = "voter,prompt",
    direct: Annotated[bool, typer.Option("--direct", help="only battles between the two")] = False,
    category: Category = None,
    language: Language = None,
    since: Since = None,
    until: Until = None,
    cap: Cap = None,
    as_json: Json = False,
) -> None:
    """Is B better than A, how sure is that, how many more votes? Exit code 1 when B is significantly worse."""
    from moreseek.arena.compare import compare as compare_two
    from moreseek.cli.boards import Selection, clusters_named, print_comparison

    chosen = Selection(format, category, language, since, until, cap).read(votes)
    result = compare_two(chosen, a, b, cluster=clusters_named(cluster), direct=direct)
    if as_json:
        typer.echo(json.dumps(result, indent=1, ensure_ascii=False))
    else:
        print_comparison(result)
    if result["verdict"] == "worse":
        raise typer.Exit(1)
