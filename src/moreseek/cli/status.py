"""`moreseek status`: read what runs wrote. No torch in here."""

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from moreseek.errors import InputError
from moreseek.run_folder import RunFolder, StageFolder, read_json


def describe_runs(path: Path | None) -> list[dict[str, Any]]:
    """One entry a run: its stages with status, step and results. Raises InputError when there is no such run."""
    if path is not None:
        if not RunFolder(path).is_run:
            raise InputError(f"{path}: not a run folder (no run.json).")
        return [_describe(RunFolder(path))]
    root = Path("runs")
    folders = sorted(root.iterdir()) if root.is_dir() else []
    return [_describe(RunFolder(folder)) for folder in folders if RunFolder(folder).is_run]


def _describe(run: RunFolder) -> dict[str, Any]:
    record = read_json(run.path / "run.json", ("recipe", "seed", "started_at"))
    begun = {stage.name: stage for stage in run.stages()}
    alive = run.lock().is_held()
    stages = []
    for settings in record["recipe"]["stage"]:
        name = settings["name"]
        stages.append(_stage(begun[name], settings, alive) if name in begun else {"name": name, "status": "waiting"})
    return {"run": str(run.path), "seed": record["seed"], "started_at": record["started_at"], "stages": stages}


def _stage(folder: StageFolder, settings: dict[str, Any], alive: bool) -> dict[str, Any]:
    """A stage that was begun. One that says it is running in a run that no process holds was interrupted."""
    record = folder.record()
    last = _last_metrics(folder.path / "metrics.jsonl")
    out: dict[str, Any] = {
        "name": folder.name,
        "method": record["method"],
        "status": "interrupted" if record["status"] == "running" and not alive else record["status"],
        "step": record.get("steps", last.get("step", 0)),
        "steps": settings.get("steps") or record.get("steps", 0),
        "wall_s": record.get("wall_s"),
        "last": {key: last[key] for key in ("loss", "reward", "completion_tokens", "reward_accuracy") if key in last},
    }
    if (folder.path / "eval.json").is_file():
        result = read_json(folder.path / "eval.json")
        out["greedy"] = result["greedy"]
        out["mean_completion_tokens"] = result["mean_completion_tokens"]
    return out


def _last_metrics(path: Path) -> dict[str, Any]:
    """The last whole line of metrics.jsonl."""
    if not path.is_file():
        return {}
    for line in reversed(path.read_text(encoding="utf-8").splitlines()):
        try:
            return json.loads(line)
        except json.JSONDecodeError:
            continue
    return {}


def print_runs(runs: list[dict[str, Any]]) -> None:
    """A table a run."""
    console = Console()
    if not runs:
        console.print("No runs yet. Begin with: moreseek run recipes/tiny-r1.toml", highlight=False)
    for run in runs:
        table = Table(title=f"{run['run']} (seed {run['seed']})", title_justify="left")
        for column in ("stage", "method", "status", "step", "last", "right", "tokens/answer"):
            table.add_column(column)
        for stage in run["stages"]:
            last = ", ".join(f"{_LABELS[key]} {value:.3g}" for key, value in _told(stage.get("last", {})))
            greedy = stage.get("greedy")
            table.add_row(
                stage["name"], stage.get("method", ""), stage["status"],
                f"{stage['step']}/{stage['steps']}" if stage.get("steps") else "",
                last, f"{greedy['value']:.1%}" if greedy else "",
                f"{stage['mean_completion_tokens']:.1f}" if "mean_completion_tokens" in stage else "",
            )  # fmt: skip
        console.print(table)


_LABELS = {"loss": "loss", "reward": "reward", "completion_tokens": "tokens", "reward_accuracy": "pairs right"}


def _told(last: dict[str, float]) -> list[tuple[str, float]]:
    """The last metrics that say something: of reinforcement learning the loss, about 0 by construction, does not."""
    return [(key, value) for key, value in last.items() if key != "loss" or "reward" not in last]
