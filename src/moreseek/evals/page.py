"""report.html: one self-contained page that a browser can be trusted with, whatever the model wrote."""

import json
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from moreseek import __version__
from moreseek.evals.charts import difficulties, result_charts, training_charts
from moreseek.evals.findings import Comparison, compare
from moreseek.evals.ledger import RunRecord, StageRecord, ledger
from moreseek.evals.wording import count, duration, flops, interval, percent, times, usd, visible

Json = dict[str, Any]
_ON_THE_WAY = 6


def render_page(run: RunRecord, report: Json) -> str:
    """The whole page as HTML. Everything that is not a chart of ours is escaped by Jinja."""
    comparison = compare(report["stages"], run.settings.get("compare"))
    environment = Environment(
        loader=PackageLoader("moreseek.evals", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        percent=percent, interval=interval, duration=duration, count=count, flops=flops, usd=usd, visible=visible
    )
    return environment.get_template("report.html.jinja").render(
        report=report,
        version=__version__,
        figures=figures(report, comparison),
        comparison=comparison,
        results=result_charts(comparison) if comparison else [],
        difficulty_rows=_difficulty_rows(comparison),
        unseen_rows=_unseen_rows(comparison),
        training=[(stage, training_charts(stage)) for stage in run.stages if stage.metrics],
        ledger=ledger(run),
        samples=side_by_side(comparison),
        on_the_way=on_the_way(run.stages),
        settings=[(stage.name, pretty(stage.info.get("settings"))) for stage in run.stages],
        recipe=pretty(run.info.get("recipe")),
        versions=run.info.get("versions") or {},
        started_at=run.info.get("started_at"),
    )


def figures(report: Json, comparison: Comparison | None) -> list[Json]:
    """The big numbers at the top: label, before, after, note."""
    trained = sum(stage["wall_s"] for stage in report["stages"])
    cost = {
        "label": "Training time",
        "before": None,
        "after": duration(trained),
        "note": f"{usd(trained / 3600 * report['price_usd_per_hour'])} at {usd(report['price_usd_per_hour'])}/h",
    }
    if comparison is None:
        return [cost]
    before = comparison.before["eval"] if comparison.before else None
    after = comparison.after["eval"]
    shown = [_share("Right, greedy", before, after, "greedy")]
    length = after["mean_completion_tokens"]
    shown.append(
        {
            "label": "Tokens per answer",
            "before": f"{before['mean_completion_tokens']:.1f}" if before else None,
            "after": f"{length:.1f}",
            "note": times(before["mean_completion_tokens"], length) if before else "mean, greedy",
        }
    )
    if after.get("pass_at_k"):
        shown.append(_share(f"Solved in {after['k']} samples", before, after, "pass_at_k"))
    return [*shown, cost]


def side_by_side(comparison: Comparison | None) -> list[Json]:
    """Greedy completions of the same problem before and after: ``before`` is None where there is none."""
    if comparison is None:
        return []
    earlier = (comparison.before["eval"].get("samples") or []) if comparison.before else []
    before = {sample["prompt"]: sample for sample in earlier}
    return [
        {
            "prompt": sample["prompt"],
            "answer": sample["answer"],
            "before": before.get(sample["prompt"]),
            "after": sample,
        }
        for sample in comparison.after["eval"].get("samples") or []
    ]


def on_the_way(stages: list[StageRecord]) -> list[Json]:
    """Up to six samples of the last stage that logged some, evenly over its steps."""
    logged = next((stage.samples for stage in reversed(stages) if stage.samples), [])
    rows = [row for row in logged if {"step", "prompt", "completion"} <= row.keys()]
    count = min(_ON_THE_WAY, len(rows))
    places = {round(i * (len(rows) - 1) / max(1, count - 1)) for i in range(count)}
    return [{"reward": None, **rows[place]} for place in sorted(places)]


def pretty(value: Any) -> str:
    """JSON for a fold-out."""
    return json.dumps(value, ensure_ascii=False, indent=2) if value else ""


def _share(label: str, before: Json | None, after: Json, key: str) -> Json:
    known = (before or {}).get(key)
    return {
        "label": label,
        "before": percent(known) if known else None,
        "after": percent(after.get(key)),
        "note": f"95 % interval {interval(after.get(key))} %" if after.get(key) else "",
    }


def _difficulty_rows(comparison: Comparison | None) -> list[Json]:
    if comparison is None:
        return []
    before = difficulties(comparison.before["eval"]) if comparison.before else {}
    seen = comparison.after["eval"].get("by_difficulty") or {}
    return [
        {"difficulty": label, "seen": label in seen, "before": before.get(label), "after": cell}
        for label, cell in difficulties(comparison.after["eval"]).items()
    ]


def _unseen_rows(comparison: Comparison | None) -> list[Json]:
    if comparison is None:
        return []
    before = (comparison.before["eval"].get("unseen_tasks") or {}) if comparison.before else {}
    return [
        {"task": task, "before": before.get(task), "after": cell}
        for task, cell in (comparison.after["eval"].get("unseen_tasks") or {}).items()
    ]
