"""A recipe: run settings, problems, evaluation, and a graph of stages with fingerprints. No torch in here."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field

import moreseek
from moreseek.config import Settings, apply_override, did_you_mean, parse, read_toml
from moreseek.data.problems import ProblemSource
from moreseek.errors import InputError
from moreseek.evals.tasks import EvalSettings
from moreseek.run_folder import resolve_model
from moreseek.training.settings import (
    ExamineSettings,
    GRPOSettings,
    PreferenceSettings,
    PretrainSettings,
    TrainingSettings,
)

Stage = TrainingSettings | ExamineSettings
METHODS: dict[str, type[Stage]] = {
    "pretrain": PretrainSettings,
    "grpo": GRPOSettings,
    "preference": PreferenceSettings,
    "eval": ExamineSettings,
}
TABLES = ("run", "problems", "eval", "stage")


class RunSettings(Settings):
    """The ``[run]`` table."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    seed: int = Field(default=1, ge=0)
    threads: int | None = Field(None, ge=1)
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    price_usd_per_hour: float = Field(default=0.10, ge=0)
    tensorboard: bool = False
    compare: tuple[str, str] | None = None  # the stages that the report calls before and after (default: first, last)


@dataclass(frozen=True)
class Recipe:
    """A checked recipe. ``stages`` are in the order they run, each after the one it starts from."""

    path: Path
    run: RunSettings
    problems: ProblemSource | None
    eval: EvalSettings | None
    stages: tuple[Stage, ...]

    def stage(self, name: str) -> Stage:
        found = next((stage for stage in self.stages if stage.name == name), None)
        if found is None:
            raise InputError(f"{self.path}: no stage '{name}'{did_you_mean(name, [s.name for s in self.stages])}")
        return found

    def problems_of(self, stage: GRPOSettings) -> ProblemSource:
        source = stage.problems or self.problems
        if source is None:
            raise InputError(f"{self.path}: stage '{stage.name}' needs problems: add a [problems] table.")
        return source

    def resolved(self) -> dict[str, Any]:
        """The whole recipe with every default filled in, as run.json keeps it."""
        return {
            "run": _plain(self.run),
            "problems": _plain(self.problems),
            "eval": _plain(self.eval),
            "stage": [_plain(stage) for stage in self.stages],
        }

    def fingerprints(self) -> dict[str, str]:
        """A hash a stage: its settings, the seed, what it reads and the code's version."""
        found: dict[str, str] = {}
        for stage in self.stages:
            identity = self.identity(stage)
            inputs: dict[str, Any] = {
                "settings": identity,
                "version": moreseek.__version__,
                "files": {path: hashed for path in _paths_in(identity) if (hashed := _hash_files(Path(path)))},
            }
            if stage.start_from is not None:
                inputs["start_from"] = found.get(stage.start_from) or _hash_model(resolve_model(stage.start_from))
            text = json.dumps(inputs, sort_keys=True, default=str)
            found[stage.name] = hashlib.sha256(text.encode()).hexdigest()[:16]
        return found

    def identity(self, stage: Stage) -> dict[str, Any]:
        """The settings that decide what a stage's weights become."""
        settings = _plain(stage)
        for key in ("evaluate", "keep_checkpoints"):
            settings.pop(key, None)
        settings["run.seed"] = self.run.seed
        settings["run.precision"] = self.run.precision
        if isinstance(stage, GRPOSettings):
            settings["problems"] = _plain(self.problems_of(stage))
        return settings


def load_recipe(path: Path, overrides: Sequence[str] = (), seed: int | None = None) -> Recipe:
    """Read and check a recipe. Raises InputError for every mistake a person can make in one, with its key."""
    table = read_toml(path, "recipe; `ls recipes/` shows the ones that ship")
    _check_tables(path, table)
    for assignment in overrides:
        apply_override(table, assignment)
    _check_tables(path, table)
    if seed is not None:
        table.setdefault("run", {})["seed"] = seed
    table.setdefault("run", {}).setdefault("name", path.stem)
    stages = tuple(_stage(item, f"{path}: stage {index + 1}") for index, item in enumerate(table.get("stage", [])))
    if not stages:
        raise InputError(f"{path}: no [[stage]] table, so there is nothing to do.")
    recipe = Recipe(
        path=path,
        run=parse(RunSettings, table["run"], f"{path}: [run]"),
        problems=_optional(ProblemSource, table.get("problems"), f"{path}: [problems]"),
        eval=_optional(EvalSettings, table.get("eval"), f"{path}: [eval]"),
        stages=stages,
    )
    _check_graph(recipe)
    return recipe


def _check_tables(path: Path, table: dict[str, Any]) -> None:
    """Only known tables, and each in TOML's right form."""
    stages = table.get("stage", [])
    if not isinstance(stages, list) or not all(isinstance(stage, dict) for stage in stages):
        raise InputError(f"{path}: 'stage' is a list of tables: begin each stage with [[stage]].")
    for key, value in table.items():
        if key not in TABLES:
            names = [stage["name"] for stage in stages if isinstance(stage.get("name"), str)]
            raise InputError(f"{path}: unknown table '{key}'{did_you_mean(key, [*TABLES, *names])}")
        if key != "stage" and not isinstance(value, dict):
            raise InputError(f"{path}: '{key}' is a table: begin it with [{key}].")


def _stage(table: dict[str, Any], where: str) -> Stage:
    if isinstance(table.get("name"), str):
        where = f"{where} '{table['name']}'"
    method = table.get("method")
    if method is None:
        raise InputError(f"{where}: key 'method' is missing. Known: {', '.join(METHODS)}.")
    if not isinstance(method, str) or method not in METHODS:
        raise InputError(f"{where}: unknown method '{method}'{did_you_mean(str(method), list(METHODS))}")
    return parse(METHODS[method], table, where)


def _optional(settings: type[Any], table: dict[str, Any] | None, where: str) -> Any:
    return None if table is None else parse(settings, table, where)


def _check_graph(recipe: Recipe) -> None:
    if recipe.eval is not None and recipe.problems is None and any(stage.evaluate for stage in recipe.stages):
        raise InputError(f"{recipe.path}: [eval] needs a [problems] table to draw held-out problems from.")
    seen: list[str] = []
    for stage in recipe.stages:
        if stage.name in seen:
            raise InputError(f"{recipe.path}: two stages are called '{stage.name}'.")
        if stage.name in ("model", "data", "checkpoints"):
            raise InputError(f"{recipe.path}: a stage cannot be called '{stage.name}'.")
        source = stage.start_from
        if source is not None and source not in seen:
            _check_external(recipe, stage, source, seen)
        if isinstance(stage, PretrainSettings) and stage.start_from is None and stage.model is None:
            raise InputError(f"{recipe.path}: stage '{stage.name}' needs a [stage.model] table or start_from.")
        if isinstance(stage, GRPOSettings):
            recipe.problems_of(stage)
        if isinstance(stage, ExamineSettings) and recipe.eval is None:
            raise InputError(f"{recipe.path}: stage '{stage.name}' needs an [eval] table.")
        seen.append(stage.name)


def _check_external(recipe: Recipe, stage: Stage, source: str, seen: Sequence[str]) -> None:
    """``start_from`` may name a model outside the recipe; it must be there before anything runs."""
    where = f"{recipe.path}: stage '{stage.name}' starts from '{source}'"
    if source in [other.name for other in recipe.stages]:
        raise InputError(f"{where}, which comes later: move it up.")
    if "/" not in source and ":" not in source and not Path(source).exists():
        raise InputError(f"{where}, which is neither an earlier stage nor a model{did_you_mean(source, seen)}")
    try:
        resolve_model(source)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def _plain(settings: BaseModel | None) -> Any:
    return None if settings is None else settings.model_dump(mode="json")


def _paths_in(value: Any) -> list[str]:
    """Every string under a key called data, path or …_path."""
    if isinstance(value, dict):
        names = [k for k in value if k in ("data", "path") or k.endswith("_path")]
        here = [value[k] for k in names if isinstance(value[k], str)]
        return here + [path for item in value.values() for path in _paths_in(item)]
    if isinstance(value, list):
        return [path for item in value for path in _paths_in(item)]
    return []


def _hash_model(path: Path) -> str:
    """Changes when a model's weights do: the hash of its manifest, else of its smaller files and its weights' sizes."""
    if (path / "manifest.json").is_file():
        return _hash_file(path / "manifest.json")
    files = [path] if path.is_file() else sorted(file for file in path.iterdir() if file.is_file())
    facts = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _hash_files(path: Path) -> str | dict[str, str] | None:
    """The hash of a file, or of each file of a folder of documents; None where there is neither."""
    if path.is_dir():
        return {str(file.relative_to(path)): _hash_file(file) for file in sorted(path.rglob("*")) if file.is_file()}
    return _hash_file(path) if path.is_file() else None


def _hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
