"""Contestants on this machine: a run's stages and checkpoints, model folders, .gguf files, behind the same HTTP as all.

The arena knows endpoints alone. So they are served here, on a port that only this machine reaches, under a key of
this process; contestants that are the same weights share one engine.
"""

import hashlib
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import typer

from moreseek.arena.live.contestants import Contestant
from moreseek.arena.live.settings import ArenaSettings
from moreseek.cli.site import background, listen
from moreseek.config import did_you_mean
from moreseek.errors import InputError
from moreseek.run_folder import RunFolder, StageFolder, resolve_model

_KEY = "MORESEEK_ARENA_LOCAL_KEY"


@contextmanager
def local_models(settings: ArenaSettings) -> Iterator[ArenaSettings]:
    """The same settings with a URL for everybody, which works as long as the block lasts.

    Raises InputError where a model is not there, or what loads models is not installed.
    """
    contestants, models = _found(settings.contestant)
    settings = settings.model_copy(update={"contestant": contestants})
    if not models:
        yield settings
        return
    try:
        from moreseek.cli.serve import served_model
        from moreseek.server.app import build_app
        from moreseek.server.models import Models
        from moreseek.server.service import Served
    except ImportError as error:
        raise InputError(
            f"{', '.join(models)}: models on this machine need {error.name}: pip install 'moreseek[model]'. "
            "Contestants with a url do not."
        ) from error
    loaded = Models({name: served_model(name, path) for name, path in models.items()})
    for model in loaded.all:
        typer.echo(f"loading {model.name}", err=True)
        loaded.load_now(model)
    os.environ[_KEY] = secrets.token_hex(32)
    listening = listen("127.0.0.1", 0)
    url = f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
    here = {"url": url, "internal": True, "api_key_env": _KEY}
    served = tuple(one.model_copy(update=here) if one.model in models else one for one in contestants)
    with background(build_app(Served(loaded, (os.environ[_KEY],))), listening):
        yield settings.model_copy(update={"contestant": served})


def _found(given: Sequence[Contestant]) -> tuple[tuple[Contestant, ...], dict[str, Path]]:
    """Every contestant with the name of its model, checkpoints unfolded; and the models to load, by that name."""
    contestants: list[Contestant] = []
    models: dict[str, Path] = {}
    for one in (unfolded for contestant in given for unfolded in _unfolded(contestant)):
        update = {"family": one.family or Path(one.run).resolve().name} if one.run else {}
        if not one.url and not one.withdrawn:  # who is withdrawn answers nobody, and its files may be gone
            path, label = _model_of(one)
            update["model"] = f"{label} sha256:{_hash(path)[:12]}"
            models[update["model"]] = path
        contestants.append(one.model_copy(update=update))
    names = [one.name for one in contestants]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"two contestants are called '{twice[0]}'.")
    return tuple(contestants), models


def _unfolded(one: Contestant) -> list[Contestant]:
    """One contestant for each kept checkpoint, where that is asked for."""
    if not one.checkpoints or one.withdrawn:
        return [one]
    steps = _steps(_stage(one))
    if not steps:
        raise InputError(f"contestant '{one.name}': stage '{one.stage}' of {one.run} keeps no checkpoint.")
    return [
        one.model_copy(update={"name": f"{one.name} @{step}", "step": step, "checkpoints": False}) for step in steps
    ]


def _steps(stage: StageFolder) -> list[int]:
    return sorted(int(found.parent.name.removeprefix("step-")) for found in stage.path.glob("checkpoints/step-*/model"))


def _stage(one: Contestant) -> StageFolder:
    run = RunFolder(Path(one.run))
    stages = {stage.name: stage for stage in run.stages()}
    if not run.is_run:
        raise InputError(f"contestant '{one.name}': {one.run} is not a run.")
    if one.stage not in stages:
        raise InputError(f"contestant '{one.name}': {one.run} has no stage '{one.stage}'"
                         f"{did_you_mean(one.stage, list(stages))}")  # fmt: skip
    return stages[one.stage]


def _model_of(one: Contestant) -> tuple[Path, str]:
    """Where its weights are, and what they are called."""
    if one.path:
        path = _resolve(one, one.path)
        return path, path.stem if path.is_file() else path.resolve().name
    name = Path(one.run).resolve().name
    if one.step is not None:
        stage = _stage(one)
        path = stage.path / "checkpoints" / f"step-{one.step:06d}" / "model"
        if not path.is_dir():
            kept = ", ".join(map(str, _steps(stage))) or "none"
            raise InputError(f"contestant '{one.name}': no checkpoint of step {one.step} in {stage.path} "
                             f"(kept: {kept}).")  # fmt: skip
        return path, f"{name}/{one.stage} @{one.step}"
    path = _resolve(one, f"{one.run}/{one.stage}" if one.stage else one.run)
    return path, f"{name}/{path.parent.name.split('-', 1)[-1]}"


def _resolve(one: Contestant, model: str) -> Path:
    try:
        return resolve_model(model)
    except InputError as error:
        raise InputError(f"contestant '{one.name}': {error}") from error


def _hash(path: Path) -> str:
    """Of the weights and all that goes with them; a finished stage's manifest holds the hashes already."""
    manifest = path / "manifest.json"
    files = [path] if path.is_file() else [manifest] if manifest.is_file() else sorted(path.iterdir())
    total = hashlib.sha256()
    for file in files:
        if file.is_file():
            with file.open("rb") as content:
                total.update(f"{file.name}\0{hashlib.file_digest(content, 'sha256').hexdigest()}\n".encode())
    return total.hexdigest()
