"""`moreseek run`: go through a recipe's stages, skipping what is done, resuming what is not, refusing what changed."""

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from moreseek.engine.engine import Engine
from moreseek.errors import InputError
from moreseek.evals.findings import preferred
from moreseek.evals.report import terminal_table, write_report
from moreseek.evals.run import evaluate
from moreseek.machine import describe_machine, versions
from moreseek.model.transformer import flops_per_token, parameter_counts
from moreseek.native.bindings import why_not
from moreseek.recipes.preflight import check_inputs
from moreseek.recipes.recipe import Recipe, Stage
from moreseek.recipes.stages import load_pair, train_stage
from moreseek.run_folder import RunFolder, StageFolder, read_json, resolve_model, write_json
from moreseek.training.device import choose_device, choose_precision, keep_freed_memory, set_threads
from moreseek.training.loop import Loop
from moreseek.training.progress import counter
from moreseek.training.settings import ExamineSettings, GRPOSettings, PreferenceSettings, TrainingSettings


@dataclass
class Runner:
    """One run of a recipe in its folder."""

    recipe: Recipe
    folder: RunFolder
    accept_changes: bool = False
    only: str | None = None  # run the graph up to and with this stage
    console: Console = field(default_factory=lambda: Console(stderr=True))

    def run(self) -> dict[str, Any]:
        """Run the stages and write the report. Returns report.json's content."""
        stages = self._wanted()
        with self.folder.lock():
            keep_freed_memory()
            threads = set_threads(self.recipe.run.threads)
            self.device = choose_device()
            self.precision = choose_precision(self.recipe.run.precision, self.device)
            self.fingerprints = self.recipe.fingerprints()
            self._refuse_changes()
            check_inputs(self.recipe, [stage for stage, folder in stages if not self._is_done(stage, folder)])
            self._write_run_record(threads)
            for stage, folder in stages:
                self._run_stage(stage, folder)
            return self._finish()

    # --- before anything is touched ------------------------------------------------------------------------------

    def _wanted(self) -> list[tuple[Stage, StageFolder]]:
        """The stages to run and their folders: all, or up to and with ``only``."""
        stages = list(self.recipe.stages)
        if self.only is not None:
            stages = stages[: stages.index(self.recipe.stage(self.only)) + 1]
        return [(stage, self.folder.stage(index, stage.name)) for index, stage in enumerate(stages)]

    def _is_done(self, stage: Stage, folder: StageFolder) -> bool:
        return folder.record().get("status") == "finished" and not self._wants_evaluation(stage, folder)

    def _wants_evaluation(self, stage: Stage, folder: StageFolder) -> bool:
        return stage.evaluate and self.recipe.eval is not None and not self._is_evaluated(folder)

    def _refuse_changes(self) -> None:
        """Stop before the first step when a begun stage's settings are not the ones it was begun with."""
        for index, stage in enumerate(self.recipe.stages):
            folder = self.folder.stage(index, stage.name)
            record = folder.record()
            if not record or record["fingerprint"] == self.fingerprints[stage.name]:
                continue
            if self.accept_changes and record["status"] != "finished":
                continue
            changes = difference(record["identity"], self.recipe.identity(stage))
            shown = "\n".join(f"  {line}" for line in changes) or "  (a stage before it, a data file, or the version)"
            state = "finished" if record["status"] == "finished" else "half done"
            accept = "" if state == "finished" else "\n- go on from its last checkpoint all the same: --accept-changes"
            raise InputError(
                f"{folder.path} is {state} with other settings:\n{shown}\nTo go on:\n"
                f"- keep it and run elsewhere: --dir runs/NEW{accept}\n"
                f"- start that stage again: remove {folder.path} (and the stages after it)"
            )

    def _write_run_record(self, threads: int) -> None:
        path = self.folder.path / "run.json"
        before = read_json(path) if path.is_file() else {}
        record = {
            "name": self.folder.path.name,
            "seed": self.recipe.run.seed,
            "recipe": self.recipe.resolved(),
            "versions": versions(),
            "machine": describe_machine()
            | {"threads": threads, "device": str(self.device), "native_kernels": why_not() or "on"},
            "precision": str(self.precision).removeprefix("torch."),
            "started_at": before.get("started_at") or now(),
            "wall_s": before.get("wall_s", 0.0),
        }
        self.folder.path.mkdir(parents=True, exist_ok=True)
        write_json(path, record)

    # --- stages --------------------------------------------------------------------------------------------------

    def _run_stage(self, stage: Stage, folder: StageFolder) -> None:
        record = folder.record()
        if isinstance(stage, ExamineSettings):
            folder.write_record(self._begin(stage, record) | {"status": "finished", "wall_s": 0.0})
        elif record.get("status") == "finished":
            self.console.print(f"[{stage.name}] done before, skipped", markup=False, style="dim")
        else:
            self._train(stage, folder, record)
        if self._wants_evaluation(stage, folder):
            model = self._start(stage.start_from) if isinstance(stage, ExamineSettings) else folder.model
            self._evaluate(folder, model)

    def _begin(self, stage: Stage, before: dict[str, Any]) -> dict[str, Any]:
        """The record of a stage that is under way."""
        return {
            "name": stage.name,
            "method": stage.method,
            "status": "running",
            "fingerprint": self.fingerprints[stage.name],
            "identity": self.recipe.identity(stage),
            "settings": stage.model_dump(mode="json"),
            "started_at": before.get("started_at") or now(),
            "wall_s": before.get("wall_s", 0.0),
        }

    def _train(self, stage: TrainingSettings, folder: StageFolder, before: dict[str, Any]) -> None:
        started = time.monotonic()
        record = self._begin(stage, before)
        folder.write_record(record)
        start = None if stage.start_from is None else self._start(stage.start_from)
        loop = train_stage(self.recipe, stage, folder, start, self.device, self.precision)
        counts = parameter_counts(loop.model)
        record |= {
            "status": "finished",
            "finished_at": now(),
            "steps": loop.step,
            "wall_s": round(loop.resumed_s + time.monotonic() - started, 3),
            "train_s": round(loop.elapsed_s, 3),
            "tokens": loop.tokens,
            "flops": _flops(loop, stage),
            "model": str(folder.model.relative_to(self.folder.path)),
            "model_parameters": counts["total"],
            "active_parameters": counts["active"],
        } | loop.method.facts()
        folder.write_record(record)
        if "preference" in record:
            self.console.print(f"[{stage.name}] {preferred(stage.name, record)}", markup=False, highlight=False)

    def _start(self, source: str) -> Path:
        for index, stage in enumerate(self.recipe.stages):
            if stage.name == source:
                return self.folder.stage(index, source).model
        return resolve_model(source)

    def _is_evaluated(self, folder: StageFolder) -> bool:
        path = folder.path / "eval.json"
        return path.is_file() and read_json(path).get("settings") == self._eval_settings()

    def _eval_settings(self) -> dict[str, Any]:
        assert self.recipe.eval is not None
        problems = self.recipe.problems
        return {
            "eval": self.recipe.eval.model_dump(mode="json"),
            "problems": None if problems is None else problems.model_dump(mode="json"),
        }

    def _evaluate(self, folder: StageFolder, path: Path) -> None:
        assert self.recipe.eval is not None
        assert self.recipe.problems is not None
        started = time.monotonic()
        model, tokenizer = load_pair(path, self.device)
        progress = counter(self.console, f"[{folder.name}] evaluating")
        result = evaluate(Engine(model, frozen=True), tokenizer, self.recipe.problems, self.recipe.eval, progress)
        wall_s = round(time.monotonic() - started, 3)
        write_json(folder.path / "eval.json", result | {"wall_s": wall_s, "settings": self._eval_settings()})
        self.console.print(f"[{folder.name}] {examined(result, wall_s)}", markup=False, highlight=False)

    def _finish(self) -> dict[str, Any]:
        path = self.folder.path / "run.json"
        record = read_json(path)
        walls = [stage.record().get("wall_s", 0.0) for stage in self.folder.stages()]
        write_json(path, record | {"wall_s": round(sum(walls), 3), "finished_at": now()})
        report = write_report(self.folder.path)
        self.console.print(terminal_table(report, self.console.width))
        return report


def examined(result: dict[str, Any], wall_s: float) -> str:
    """An evaluation in one line. There is no accuracy where the verifier failed on every completion."""
    greedy, found = result["greedy"], "unknown"
    if greedy is not None:
        found = f"{greedy['value']:.1%} (95 %: {greedy['ci_low']:.1%} to {greedy['ci_high']:.1%})"
    return f"held-out accuracy {found}, {result['mean_completion_tokens']:.1f} tokens, evaluated in {wall_s:.0f} s"


def _flops(loop: Loop, stage: TrainingSettings) -> float:
    """Training FLOPs, and the forward passes of sampling (grpo) or of the starting model (preference)."""
    length = getattr(stage, "sequence_length", None) or getattr(stage, "max_completion_tokens", 128)
    also_read = loop.tokens if isinstance(stage, GRPOSettings) else 0
    if isinstance(stage, PreferenceSettings):
        facts = loop.method.facts()["preference"]
        length, also_read = facts["mean_tokens"], facts["tokens"]
    flops = loop.tokens * flops_per_token(loop.model, length, training=True)
    return flops + also_read * flops_per_token(loop.model, length, training=False)


def difference(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """'key: old → new' for every setting that differs."""
    before, after = dict(_flatten(old)), dict(_flatten(new))
    keys = sorted(before.keys() | after.keys())
    return [f"{key}: {before.get(key)} → {after.get(key)}" for key in keys if before.get(key) != after.get(key)]


def _flatten(value: Any, prefix: str = "") -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return [pair for key, item in value.items() for pair in _flatten(item, f"{prefix}.{key}" if prefix else key)]
    if isinstance(value, list):
        return [pair for index, item in enumerate(value) for pair in _flatten(item, f"{prefix}[{index}]")]
    return [(prefix, value)]


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
