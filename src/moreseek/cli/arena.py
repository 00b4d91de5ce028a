"""`moreseek arena`: an arena of one's own; boards and comparisons from its database or from files of votes."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from moreseek.errors import InputError

if TYPE_CHECKING:
    from moreseek.arena.replay import Replay

app = typer.Typer(
    help="Let people judge models blindly, and rate them from votes.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Votes = Annotated[
    str | None,
    typer.Argument(help="a .csv, .tsv, .jsonl or .json file of votes, or an arena's database", metavar="VOTES"),
]
Database = Annotated[
    str, typer.Argument(help="an arena's database: a file, or a postgresql:// URL", metavar="DATABASE")
]
Format = Annotated[str, typer.Option(help="auto, llmfao, lmarena or fastchat")]
Cluster = Annotated[str, typer.Option(help="votes that share one depend on one another: voter,prompt or none")]
Cap = Annotated[int | None, typer.Option(min=1, help="most votes that one voter counts for")]
Category = Annotated[str | None, typer.Option(help="only votes of this category")]
Language = Annotated[str | None, typer.Option(help="only votes in this language")]
Since = Annotated[str | None, typer.Option(help="only votes from this date on: 2026-05-01, or with a time")]
Until = Annotated[str | None, typer.Option(help="only votes before this date")]
JudgedBy = Annotated[
    str | None, typer.Option("--judge", help="of a database or an export: what this judge said, not people's votes")
]
Json = Annotated[bool, typer.Option("--json", help="print one JSON document on stdout")]


@app.command()
def leaderboard(
    votes: Votes = None,
    from_export: Annotated[Path | None, typer.Option(help="an exported ledger, checked seal by seal")] = None,
    board_: Annotated[str, typer.Option("--board", help="of a database: overall, base, reasoning, zh, en")] = "overall",
    judge: JudgedBy = None,
    trend: Annotated[bool, typer.Option("--trend", help="only checkpoints of runs, by their steps")] = False,
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
    latex: Annotated[Path | None, typer.Option(help="also write a table for LaTeX (booktabs)")] = None,
    plot: Annotated[Path | None, typer.Option(help="also draw the intervals: .png, .svg or .pdf")] = None,
    as_json: Json = False,
) -> None:
    """Rate everybody from votes. Ratings with 95 % intervals, and ranks that can be shared."""
    from moreseek.arena.latex import latex_of
    from moreseek.cli.boards import Selection, features_named, make_board, print_board, rate, say_more, write_rows

    if (votes is None) == (from_export is None):
        raise InputError("name a file of votes, an arena's database, or an export with --from-export.")
    arena = _replay(votes, from_export)
    if arena is not None:
        from moreseek.arena.standings import board_name, board_of, on_board, style_board_from

        if wrong := [option for option, value in {"--format": format != "auto", "--answers": answers}.items() if value]:
            raise InputError(f"{', '.join(wrong)}: only for files of votes.")
        chosen = {"--cluster": cluster != "voter,prompt", "--ties": ties != "half", "--language": language,
                  "--since": since, "--until": until, "--cap": cap}  # fmt: skip
        narrowed = [option for option, value in chosen.items() if value]
        if narrowed and (style or trend):
            raise InputError(f"{', '.join(narrowed)}: not with --style or --trend of an arena's votes.")
        if trend:
            _show_trends(arena, board_, category or "", judge or "", as_json)
            return
        if features is not None and not style:
            raise InputError("--features is for style control: add --style.")
        if style and judge is not None:
            raise InputError("--style is for people's votes: the ledger does not tell the style of what judges judged.")
        if style:
            board = style_board_from(arena, board_, category or "", min_votes, features_named(features))
        elif narrowed:
            selection = Selection(language=language, since=since, until=until, cap=cap)
            some = selection.of(on_board(arena, board_, category or "", judge or ""), "the arena's votes")
            name = f"{board_name(board_, category or '', judge or '')}, {selection.board}".removesuffix(", overall")
            board = rate(some, name, cluster=cluster, ties=ties, min_votes=min_votes)
        else:
            board = board_of(arena, board_, category or "", min_votes, judge=judge or "")
    else:
        assert votes is not None
        if board_ != "overall" or judge or trend:
            raise InputError(
                "--board, --judge and --trend are for an arena's database or export; a file of votes has --category "
                "and --language."
            )
        selection = Selection(format, category, language, since, until, cap)
        board = make_board(
            Path(votes), selection, cluster=cluster, style=style, features=features, answers=answers, ties=ties,
            min_votes=min_votes,
        )  # fmt: skip
    if csv is not None:
        write_rows(board, csv)
    if latex is not None:
        latex.write_text(latex_of(board), encoding="utf-8")
    if plot is not None:
        from moreseek.arena.charts import plot_intervals

        plot_intervals(board, plot)
    if as_json:
        typer.echo(json.dumps(board, indent=1, ensure_ascii=False))
    else:
        print_board(board)
        if arena is not None:
            say_more(arena, judge)


def _show_trends(arena: "Replay", board: str, category: str, judge: str, as_json: bool) -> None:
    from moreseek.arena.trend import trends
    from moreseek.cli.boards import print_trends

    found = trends(arena, board, category, judge)
    if as_json:
        typer.echo(json.dumps(found, indent=1, ensure_ascii=False))
    else:
        print_trends(found)


def _replay(votes: str | None, from_export: Path | None) -> "Replay | None":
    """The ledger behind a database or an export; None for a file of votes."""
    from moreseek.cli.arena_site import exported, is_database, replay_of

    if from_export is not None:
        return exported(from_export)
    return replay_of(votes) if votes is not None and is_database(votes) else None


@app.command()
def compare(
    a: Annotated[str, typer.Argument(help="the contestant that is there already", metavar="A")],
    b: Annotated[str, typer.Argument(help="the one that is to be better", metavar="B")],
    votes: Annotated[str, typer.Option(help="a file of votes, or an arena's database", metavar="VOTES")],
    judge: JudgedBy = None,
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
    """Say whether B is better than A, and how sure.

    Exit code 1 when B is worse by the verdict that holds however often one looks.
    """
    from moreseek.arena.compare import compare as compare_two
    from moreseek.cli.boards import Selection, clusters_named, print_comparison

    arena = _replay(votes, None)
    selection = Selection(format, category, language, since, until, cap)
    if arena is not None:
        if format != "auto":
            raise InputError("--format is for files of votes, and this is an arena's database.")
        if judge is None and arena.judges and not len(arena.votes()):
            said = " or ".join(arena.judges)
            raise InputError(f"{votes}: nobody has voted there; with --judge it is what {said} said.")
        chosen = selection.of(arena.votes(judge or ""), votes)
    elif judge is not None:
        raise InputError("--judge is for an arena's database: a file of votes has no judges.")
    else:
        chosen = selection.read(Path(votes))
    result = compare_two(chosen, a, b, cluster=clusters_named(cluster), direct=direct)
    if as_json:
        typer.echo(json.dumps(result, indent=1, ensure_ascii=False))
    else:
        print_comparison(result)
    if result["verdict"] == "worse":
        raise typer.Exit(1)


@app.command()
def serve(
    config: Annotated[Path, typer.Option("--config", "--contestants", help="the arena's TOML: examples/arena.toml")],
    host: Annotated[str, typer.Option(help="0.0.0.0 lets others in")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one")] = 8100,
) -> None:
    """Serve an arena: battles, blind votes, boards. Names are shown after the vote; an audit page is there too."""
    from moreseek.cli.arena_site import serve as serve_site

    serve_site(config, host, port)


@app.command()
def judge(
    where: Annotated[Path, typer.Argument(help="an arena.toml, or a run: its stages then", metavar="ARENA")],
    by: Annotated[str, typer.Option("--judge", help="verifier, or a [[judge]] of the arena.toml")] = "verifier",
    problems: Annotated[
        str | None, typer.Option(help="a .jsonl file, reasoning-gym:TASK, or package.module:function")
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="most problems")] = 100,
    seed: Annotated[int, typer.Option(help="of the problems")] = 0,
    voted: Annotated[bool, typer.Option("--voted", help="judge the battles that people voted on as well")] = False,
    as_json: Json = False,
) -> None:
    """Let a verifier or a language model judge battles on problems. Judges have boards of their own."""
    from moreseek.cli.arena_judge import judge_arena

    judge_arena(where, by, problems, count, seed, voted, as_json)


@app.command()
def export(
    database: Database,
    out: Annotated[Path, typer.Argument(help="the file to write", metavar="FILE.jsonl")],
    preferences: Annotated[
        bool, typer.Option("--preferences", help="pairs of prompt, chosen, rejected for training, with their texts")
    ] = False,
    battles: Annotated[
        bool, typer.Option("--battles", help="rated battles with their texts, in the columns of LMArena's files")
    ] = False,
    judge: JudgedBy = None,
) -> None:
    """Write an arena's ledger, battles or preference pairs. The ledger is hash-chained and holds no texts."""
    from moreseek.cli.arena_site import export as export_to

    export_to(database, out, preferences, battles, judge)


@app.command(name="import")
def import_(
    source: Annotated[Path, typer.Argument(help="an exported ledger, or a file of votes", metavar="FILE")],
    database: Database,
    format: Format = "auto",
) -> None:
    """Read an exported ledger or another arena's votes. All of the file goes into the database, or nothing."""
    from moreseek.cli.arena_site import import_ as import_from

    import_from(source, database, format)


@app.command()
def forget(
    database: Database,
    voter: Annotated[str | None, typer.Option(help="a voter's pseudonym, v-…")] = None,
    battle: Annotated[str | None, typer.Option(help="one battle")] = None,
    votes: Annotated[
        bool, typer.Option("--votes", help="take the voter's votes off every board too, for good")
    ] = False,
) -> None:
    """Erase a voter's or a battle's texts. What could lead to the person goes too; votes stay, unless --votes."""
    from moreseek.cli.arena_site import forget as forget_texts

    forget_texts(database, voter, battle, votes)
