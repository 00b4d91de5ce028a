"""A run's report: report.json for programs, one self-contained report.html and a terminal table for people."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moreseek.evals.findings import compare, headline, preferred, sentences
from moreseek.evals.ledger import RunRecord, StageRecord, ledger, read_run
from moreseek.evals.page import render_page
from moreseek.evals.wording import duration, percent, times, usd

if TYPE_CHECKING:
    from rich.table import Table


def write_report(run_folder: Path) -> dict[str, Any]:
    """Write ``report.json`` and ``report.html`` into the run folder; returns the content of the first.

    Works while a run goes on: what is not there yet is left out. Raises InputError when the folder is not a
    run or one of its files is malformed.
    """
    run = read_run(run_folder)
    report = build_report(run)
    _replace(run_folder / "report.json", json.dumps(report, ensure_ascii=False, indent=1) + "\n")
    _replace(run_folder / "report.html", render_page(run, report))
    return report


def build_report(run: RunRecord) -> dict[str, Any]:
    """The object of report.json. Times are seconds, costs US dollars, shares lie in 0..1."""
    stages = [_stage(stage, run.price_usd_per_hour) for stage in run.stages]
    comparison = compare(stages, run.settings.get("compare"))
    name = str(run.info.get("name", "run"))
    rows = ledger(run)
    return {
        "run": name,
        "seed": run.info.get("seed"),
        # run.json learns the whole time only when the run ends; until then the stages' own times are the best sum.
        "wall_s": run.info.get("wall_s") or rows[-1].hours * 3600,
        "machine": run.info.get("machine") or {},
        "headline": headline(name, comparison),
        "findings": [*sentences(comparison), *filter(None, (preferred(one.name, one.info) for one in run.stages))],
        "compared": [stage["name"] for stage in (comparison.before, comparison.after) if stage] if comparison else [],
        "price_usd_per_hour": run.price_usd_per_hour,
        "cost_usd": rows[-1].usd,
        "stages": stages,
    }


def terminal_table(report: dict[str, Any], width: int = 120) -> "Table":
    """What a terminal of so many columns shows when a run ends: accuracy, length and cost a stage, and what changed.

    A narrow one gets fewer columns rather than figures cut short.
    """
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(report["headline"]), caption=escape(_change(report)), title_justify="left")
    table.add_column("stage")
    headings = ("right (95 %)", "pass@k", "tokens/answer", "time", "cost", "trained on")
    shown = len(headings) if width >= _WIDE else len(headings) - 2
    for heading in headings[:shown]:
        table.add_column(heading, justify="right")
    for stage in report["stages"]:
        table.add_row(*(escape(cell) for cell in _cells(stage)[: shown + 1]))
    table.add_section()
    wall_s, cost_usd = (sum(stage[key] for stage in report["stages"]) for key in ("wall_s", "cost_usd"))
    table.add_row(*["training", "", "", "", duration(wall_s), usd(cost_usd), ""][: shown + 1], style="bold")
    return table


_WIDE = 110
"""Columns that all of the table takes; without cost and tokens it fits into 80."""


def _cells(stage: dict[str, Any]) -> list[str]:
    result = stage.get("eval") or {}
    right = "–" if stage["status"] == "finished" else stage["status"]
    if greedy := result.get("greedy"):
        right = f"{percent(greedy)} ({100 * greedy['ci_low']:.1f}–{100 * greedy['ci_high']:.1f})"
    length = result.get("mean_completion_tokens")
    passed = result.get("pass_at_k")
    return [
        stage["name"],
        right,
        f"{percent(passed)} (k={result['k']})" if passed else "–",
        "–" if length is None else f"{length:.1f}",
        duration(stage["wall_s"]),
        usd(stage["cost_usd"]),
        f"{stage['tokens']:,} tokens" if stage.get("tokens") else "–",
    ]


def _change(report: dict[str, Any]) -> str:
    comparison = compare(report["stages"], report["compared"])
    if comparison is None or comparison.before is None:
        return report["findings"][0]
    before, after = comparison.before["eval"], comparison.after["eval"]
    length0, length1 = before["mean_completion_tokens"], after["mean_completion_tokens"]
    return (
        f"before → after: {percent(before['greedy'])} → {percent(after['greedy'])} right, "
        f"{length0:.1f} → {length1:.1f} tokens an answer ({times(length0, length1)})"
    )


def _stage(stage: StageRecord, price_usd_per_hour: float) -> dict[str, Any]:
    info = stage.info
    return {
        "name": stage.name,
        "method": stage.method,
        "status": stage.status,
        "model": info.get("model"),
        "model_parameters": info.get("model_parameters"),
        "active_parameters": info.get("active_parameters"),
        "steps": info.get("steps"),
        "wall_s": stage.wall_s,
        "tokens": info.get("tokens"),
        "flops": info.get("flops"),
        "cost_usd": stage.wall_s / 3600 * price_usd_per_hour,
        "eval": stage.eval,
    } | {key: info[key] for key in ("preference",) if key in info}


def _replace(path: Path, text: str) -> None:
    """Write whole or not at all. Half of a character in a model's output becomes '?', and is never a crash."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w", encoding="utf-8", errors="replace", newline="\n") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    temporary.replace(path)
