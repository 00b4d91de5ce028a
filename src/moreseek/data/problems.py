"""Problem sources: a JSONL file, a reasoning-gym task, or any function that is named in the recipe."""

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from moreseek.config import Settings, parse
from moreseek.data.gym import PREFIX, gym_problems
from moreseek.data.sources import call_source
from moreseek.data.split import Split, check_disjoint, split_of
from moreseek.errors import InputError
from moreseek.records import Problem, read_jsonl

__all__ = ["ProblemSource", "Split", "check_disjoint", "load_problems", "split_of"]


class ProblemSource(Settings):
    """Where problems come from.

    ``source`` is "file", "reasoning-gym:TASK" or "package.module:function"; ``settings`` are that source's own.
    """

    source: str = "file"
    path: str | None = None
    settings: dict[str, Any] = {}


class FileSettings(Settings):
    """Settings of the source "file". By default one file is split by the hash of each prompt."""

    heldout_path: str | None = Field(None, description="a second file; then the first is trained on whole")
    all: bool = Field(False, description="the whole file belongs to whichever side asks")


def load_problems(source: ProblemSource, count: int | None, split: Split, seed: int) -> list[Problem]:
    """``count`` problems of one side (None: all that a file has), the same ones for the same seed.

    Raises InputError where the source is unknown, malformed, or has fewer problems than asked.
    """
    if source.source == "file":
        return _take(_from_file(source, split), count, seed, f"{source.path} ({split})")
    if count is None:
        raise InputError(f"{source.source}: say how many problems: only a file has an end.")
    if source.source.startswith(PREFIX):
        return gym_problems(source.source.removeprefix(PREFIX), count, split, seed, source.settings)
    return _from_function(source, count, split, seed)


def _from_file(source: ProblemSource, split: Split) -> list[Problem]:
    if source.path is None:
        raise InputError("source = 'file' needs a path: the problem file (one JSON object a line).")
    settings = parse(FileSettings, dict(source.settings), f"{source.path}: settings")
    problems = list(read_jsonl(Path(source.path), Problem))
    if settings.heldout_path is not None:
        heldout = list(read_jsonl(Path(settings.heldout_path), Problem))
        check_disjoint(problems, heldout)
        return problems if split == "train" else heldout
    if settings.all:
        return problems
    mine = [problem for problem in problems if split_of(problem.prompt) == split]
    if problems and not mine:
        side = "held out" if split == "heldout" else "trained on"
        raise InputError(
            f"{source.path}: of its {len(problems)} problems none is {side}: the hash of each prompt decides, and "
            "holds out about an eighth. Add some, or name a second file: settings = { heldout_path = … }."
        )
    return mine


def _from_function(source: ProblemSource, count: int, split: Split, seed: int) -> list[Problem]:
    where: Mapping[str, Any] = {} if source.path is None else {"path": source.path}
    found = call_source(source.source, source.settings, count=count, split=split, seed=seed, **where)
    if not isinstance(found, list) or not all(isinstance(problem, Problem) for problem in found):
        raise InputError(f"{source.source}: must return a list of moreseek.records.Problem.")
    return _take(found, count, seed, f"{source.source} ({split})")


def _take(problems: list[Problem], count: int | None, seed: int, where: str) -> list[Problem]:
    """``count`` of the problems, chosen by the seed. All, in their order, where ``count`` is None or all there are."""
    if not problems:
        raise InputError(f"{where}: no problems.")
    if count is None or count == len(problems):
        return problems
    if count > len(problems):
        raise InputError(f"{where}: {count} problems wanted, {len(problems)} found. Ask for fewer or add some.")
    return random.Random(seed).sample(problems, count)
