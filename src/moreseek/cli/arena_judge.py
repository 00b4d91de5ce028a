"""What `moreseek arena judge` does: battles on problems, a judge's verdicts on them, and a board of its own."""

import asyncio
import json
from pathlib import Path

import typer
from rich.console import Console

from moreseek.arena.judged import agreements
from moreseek.arena.live.judging import Judge, Tally, VerifierJudge, judge_battles
from moreseek.arena.live.llm_judge import AskedJudge
from moreseek.arena.live.posing import Outcome, Progress, pose
from moreseek.arena.live.settings import VERIFIER, ArenaSettings, load_arena
from moreseek.arena.standings import board_of
from moreseek.arena.store import ledger
from moreseek.arena.web.arena import Arena, open_arena
from moreseek.cli.boards import print_board, say_more
from moreseek.cli.local_models import local_models
from moreseek.cli.run_arena import arena_of
from moreseek.config import did_you_mean
from moreseek.data.problems import ProblemSource, load_problems
from moreseek.errors import InputError
from moreseek.records import Problem
from moreseek.training.progress import counter


def judge_arena(
    where: Path, judge: str, problems: str | None, count: int, seed: int, voted: bool, as_json: bool
) -> None:
    """Fight, judge, and show the judge's board; ``where`` is an arena.toml or a run."""
    config = where if where.is_file() else arena_of(where)
    settings = load_arena(config)
    known = [VERIFIER, *(one.name for one in settings.judge)]
    if judge not in known:
        raise InputError(f"{config}: no judge '{judge}'{did_you_mean(judge, known)}")
    posed = _problems(settings, problems, count, seed, str(config))
    with local_models(settings) as there:
        arena = open_arena(there)
        try:
            outcome, tally = asyncio.run(_work(arena, judge, posed, voted, config.parent))
            with arena.database.read() as connection:
                replay = ledger.replay(connection)
        finally:
            arena.database.close()
    board = board_of(replay, min_votes=settings.arena.min_votes, judge=judge)
    _tell(outcome, tally, judge)
    if as_json:
        typer.echo(json.dumps({"board": board, "agreement": agreements(replay, judge)}, indent=1, ensure_ascii=False))
        return
    print_board(board)
    say_more(replay, judge)
    typer.echo(f"Vote blindly yourself: moreseek arena serve --config {config}")


def _problems(settings: ArenaSettings, named: str | None, count: int, seed: int, config: str) -> list[Problem]:
    """The held-out problems: of --problems, else of arena.toml. A file that --problems names is taken whole."""
    if named is None:
        if settings.problems is None:
            raise InputError(f"{config}: say which problems: --problems, or a [problems] table.")
        source, most = settings.problems, count
    elif ":" in named:
        source, most = ProblemSource(source=named), count
    else:
        source, most = ProblemSource(source="file", path=named, settings={"all": True}), count
    if source.source == "file":
        return load_problems(source, None, "heldout", seed)[:most]
    return load_problems(source, most, "heldout", seed)


async def _work(arena: Arena, name: str, problems: list[Problem], voted: bool, folder: Path) -> tuple[Outcome, Tally]:
    console, database, settings = Console(stderr=True), arena.database, arena.settings
    try:
        outcome = await pose(database, arena.clients, settings, problems, _progress(console, "questions"))
        judge: Judge
        if name == VERIFIER:
            judge = VerifierJudge(name, database, problems)
        else:
            table = next(one for one in settings.judge if one.name == name)
            judge = AskedJudge(table, settings.arena, arena.clients, folder / "judge-cache")
        return outcome, await judge_battles(database, judge, voted, _progress(console, f"judged by {name}"))
    finally:
        await arena.clients.aclose()


def _progress(console: Console, what: str) -> Progress:
    show = counter(console, "arena")
    return lambda done, total: show(what, done, total)


def _tell(outcome: Outcome, tally: Tally, judge: str) -> None:
    """What was done, and what was not, on stderr."""
    typer.echo(f"{outcome.battles:,} battles fought, {tally.judged:,} judged by {judge}.", err=True)
    for name, (count, reason) in outcome.failures.items():
        typer.echo(f"{name} failed on {count:,} questions ({reason}); those battles are not fought.", err=True)
    if tally.undecided:
        typer.echo(f"{tally.undecided:,} battles could not be judged ({tally.last_reason}).", err=True)
    if tally.spent:
        typer.echo("The judge's budget ended before the battles did. The same command goes on.", err=True)
