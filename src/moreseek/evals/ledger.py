"""Read a run folder, and put a price on every stage: the ledger that DeepSeek-V3's table 1 taught us to print."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moreseek.errors import InputError

PRICE_USD_PER_HOUR = 0.10
"""What a two-core cloud machine costs; a recipe says its own with ``run.price_usd_per_hour``."""


@dataclass(frozen=True, slots=True)
class StageRecord:
    """One stage's folder. A stage that still runs has no evaluation yet, and maybe no metrics."""

    name: str
    method: str
    status: str
    info: dict[str, Any]
    metrics: list[dict[str, Any]] = field(default_factory=list)
    samples: list[dict[str, Any]] = field(default_factory=list)
    eval: dict[str, Any] | None = None

    @property
    def wall_s(self) -> float:
        """Training time; of an unfinished stage, as far as its metrics go."""
        recorded = self.info.get("wall_s")
        if recorded is not None:
            return float(recorded)
        return float(self.metrics[-1].get("elapsed_s") or 0.0) if self.metrics else 0.0


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run folder as read: ``info`` is run.json, stages are in their order."""

    info: dict[str, Any]
    stages: list[StageRecord]

    @property
    def settings(self) -> dict[str, Any]:
        """The recipe's ``[run]`` table."""
        return self.info.get("recipe", {}).get("run") or {}

    @property
    def price_usd_per_hour(self) -> float:
        """Price of the machine, from the recipe or the stated default."""
        price = self.settings.get("price_usd_per_hour")
        return PRICE_USD_PER_HOUR if price is None else float(price)


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """One line of the cost table. Tokens and FLOPs are None where they were not counted."""

    name: str
    hours: float
    tokens: float | None
    flops: float | None
    usd: float


def read_run(folder: Path) -> RunRecord:
    """Read ``run.json`` and every ``NN-name/stage.json`` with what lies beside it.

    Raises InputError when the folder is not a run or one of its files is malformed.
    """
    if not (folder / "run.json").is_file():
        raise InputError(f"{folder}: not a run folder (it has no run.json). Give the folder that `moreseek run` wrote.")
    stages = [_read_stage(path.parent) for path in sorted(folder.glob("[0-9]*-*/stage.json"), key=_stage_number)]
    return RunRecord(_read_object(folder / "run.json"), stages)


def ledger(run: RunRecord) -> list[LedgerRow]:
    """A row a stage, then one for all evaluations together, then the total."""
    price = run.price_usd_per_hour
    rows = [
        LedgerRow(
            stage.name,
            stage.wall_s / 3600,
            stage.info.get("tokens"),
            stage.info.get("flops"),
            stage.wall_s / 3600 * price,
        )
        for stage in run.stages
    ]
    examined = sum(float(stage.eval.get("wall_s") or 0.0) for stage in run.stages if stage.eval) / 3600
    if examined:
        rows.append(LedgerRow("evaluation", examined, None, None, examined * price))
    rows.append(
        LedgerRow(
            "total",
            sum(row.hours for row in rows),
            sum(row.tokens or 0 for row in rows),
            sum(row.flops or 0 for row in rows),
            sum(row.usd for row in rows),
        )
    )
    return rows


def _stage_number(stage_file: Path) -> tuple[int, str]:
    name = stage_file.parent.name
    return int(name.split("-")[0]), name


def _read_stage(folder: Path) -> StageRecord:
    info = _read_object(folder / "stage.json")
    name = folder.name.partition("-")[2]
    return StageRecord(
        name=str(info.get("name", name)),
        method=str(info.get("method", "")),
        status=str(info.get("status", "running")),
        info=info,
        metrics=_read_log(folder / "metrics.jsonl"),
        samples=_read_log(folder / "samples.jsonl"),
        eval=_read_object(folder / "eval.json") if (folder / "eval.json").is_file() else None,
    )


def _read_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path}: not valid JSON ({error}). Run the stage again, or restore the file.") from error
    if not isinstance(value, dict):
        raise InputError(f"{path}: a JSON object is needed, found {type(value).__name__}.")
    return value


def _read_log(path: Path) -> list[dict[str, Any]]:
    """Objects of a log that may still be growing: the writer may be in the middle of the last line."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            if number == len(lines):
                break
            raise InputError(f"{path}:{number}: not a JSON object on one line ({error}).") from error
        if isinstance(row, dict):
            rows.append(row)
    return rows
