"""Which charts a report shows, and from which numbers: training curves a stage, then before against after."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from moreseek.evals.findings import Comparison
from moreseek.evals.ledger import StageRecord
from moreseek.evals.plots import Series, curve, lengths, shares

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart with the sentence that says how to read it."""

    title: str
    svg: str
    caption: str


@dataclass(frozen=True, slots=True)
class _Curve:
    """A chart of metrics.jsonl: ``lines`` are (metric, label), the first in the colour of "after"."""

    title: str
    lines: tuple[tuple[str, str], ...]
    y_label: str
    caption: str


_CURVES = {
    "pretrain": (
        _Curve(
            "Loss",
            (("loss", "next token"), ("mtp_loss", "token after next (MTP)")),
            "cross-entropy (nats/token)",
            "Lower is better.",
        ),
        _Curve(
            "Expert load",
            (("expert_load_max", "busiest expert"),),
            "busiest ÷ mean load",
            "1 is perfect balance between the experts.",
        ),
    ),
    "grpo": (
        _Curve(
            "Reward", (("reward", "reward"),), "mean reward (0–1)", "What the verifier gave to the step's completions."
        ),
        _Curve(
            "Answer length",
            (("completion_tokens", "completion"),),
            "tokens/completion",
            "Nothing in the reward asks for length.",
        ),
        _Curve("Entropy", (("entropy", "entropy"),), "nats/token", "How undecided the model is about its next token."),
        _Curve(
            "Groups without signal",
            (("groups_without_signal", "share"),),
            "share of groups (0–1)",
            "All completions equally right or wrong: nothing to learn from.",
        ),
    ),
    "preference": (
        _Curve("Loss", (("loss", "loss"),), "loss", "Lower is better; DPO's is 0.693 before it learned anything."),
        _Curve(
            "Chosen over rejected",
            (("reward_accuracy", "trained on"), ("heldout_reward_accuracy", "held out")),
            "share of pairs (0–1)",
            "Pairs that training moved towards the preferred answer; 0.5 is chance.",
        ),
        _Curve(
            "Reward",
            (("chosen_reward", "chosen"), ("rejected_reward", "rejected")),
            "β · change of log-probability",
            "How much likelier the answers became than they were to the starting model.",
        ),
    ),
}
_ANY = (_Curve("Loss", (("loss", "loss"),), "loss", "Lower is better."),)


def training_charts(stage: StageRecord) -> list[Chart]:
    """The curves of one stage, from its metrics; none while it has fewer than two steps."""
    return [chart for spec in _CURVES.get(stage.method, _ANY) if (chart := _training_chart(stage, spec))]


def result_charts(comparison: Comparison) -> list[Chart]:
    """Accuracy by difficulty, answer length by difficulty, pass@k: before against after."""
    return [
        chart
        for chart in (_by_difficulty(comparison), _lengths(comparison), *_pass_curves(comparison))
        if chart is not None
    ]


def sides(comparison: Comparison) -> Iterator[tuple[Json, bool]]:
    """(stage, is_after) for what there is to compare."""
    if comparison.before is not None:
        yield comparison.before, False
    yield comparison.after, True


def difficulties(result: Json) -> dict[str, Json]:
    """Results by difficulty, those of the longer problems after the seen ones."""
    longer = result.get("longer_than_seen") or {}
    return {**(result.get("by_difficulty") or {}), **(longer.get("by_difficulty") or {})}


def _training_chart(stage: StageRecord, spec: _Curve) -> Chart | None:
    series = []
    for metric, label in spec.lines:
        points = [(row["step"], row[metric]) for row in stage.metrics if _finite(row.get(metric)) and "step" in row]
        if len(points) > 1:
            steps, values = zip(*points, strict=True)
            series.append(Series(label, steps, values, after=not series))
    if not series:
        return None
    first, last = series[0].y[0], series[0].y[-1]
    alt = f"{spec.title} of {stage.name}: {first:.3g} at the first step, {last:.3g} at the last."
    name = f"{stage.name}-{spec.lines[0][0]}"
    return Chart(spec.title, curve(name, series, "step", spec.y_label, alt), spec.caption)


def _by_difficulty(comparison: Comparison) -> Chart | None:
    series = []
    for stage, after in sides(comparison):
        points = _numeric({key: cell.get("greedy") for key, cell in difficulties(stage["eval"]).items()})
        if len(points) > 1:
            series.append(_series(stage["name"], points, after))
    if not series:
        return None
    alt = "Greedy accuracy by difficulty. " + "; ".join(_spoken(one, 100, " %") for one in series) + "."
    beyond = _longest_seen(comparison)
    svg = shares("by-difficulty", series, "difficulty", "right, greedy (%)", alt, beyond=beyond)
    return Chart("Accuracy by difficulty", svg, "Held-out problems, greedy; bars are 95 % intervals.")


def _lengths(comparison: Comparison) -> Chart | None:
    series = []
    for stage, after in sides(comparison):
        cells = difficulties(stage["eval"])
        points = _numeric({key: cell.get("mean_completion_tokens") for key, cell in cells.items()})
        if len(points) > 1:
            xs, ys = zip(*points, strict=True)
            series.append(Series(stage["name"], xs, ys, after))
    if not series:
        return None
    alt = (
        "Mean tokens of a greedy answer by difficulty. " + "; ".join(_spoken(one, 1, " tokens") for one in series) + "."
    )
    svg = lengths("lengths", series, "difficulty", "tokens/answer", alt, beyond=_longest_seen(comparison))
    return Chart("Answer length by difficulty", svg, "Does the model think longer where there is more to think about?")


def _longest_seen(comparison: Comparison) -> float | None:
    """Where the shading of "longer than seen" begins: half a step after the hardest problem of the main set."""
    after = comparison.after["eval"]
    seen = _numeric(after.get("by_difficulty") or {})
    longer = _numeric((after.get("longer_than_seen") or {}).get("by_difficulty") or {})
    return seen[-1][0] + 0.5 if seen and longer and longer[0][0] > seen[-1][0] else None


def _pass_curves(comparison: Comparison) -> Iterator[Chart | None]:
    yield _pass_curve(
        comparison, None, "pass@k", "At least one of k samples is right. Where the lines meet, RL elicited."
    )
    yield _pass_curve(
        comparison, "longer_than_seen", "pass@k, longer than seen", "Where the line itself rises, something was gained."
    )


def _pass_curve(comparison: Comparison, part: str | None, title: str, caption: str) -> Chart | None:
    series = []
    for stage, after in sides(comparison):
        result = stage["eval"].get(part) if part else stage["eval"]
        points = _numeric((result or {}).get("pass_curve") or {})
        if len(points) > 1:
            series.append(_series(stage["name"], points, after))
    if not series:
        return None
    alt = f"{title}. " + "; ".join(_spoken(one, 100, " %") for one in series) + "."
    svg = shares(f"pass-{part or 'main'}", series, "k (samples)", "solved (%)", alt, log2=True)
    return Chart(title, svg, caption)


def _numeric(cells: Json) -> list[tuple[float, Json]]:
    """(x, cell) for the keys that are numbers and the cells that are there, in order of x."""
    points = []
    for key, cell in cells.items():
        try:
            x = float(key)
        except ValueError:
            continue
        if cell is not None:
            points.append((x, cell))
    return sorted(points, key=lambda point: point[0])


def _series(label: str, points: Sequence[tuple[float, Json]], after: bool) -> Series:
    xs = [x for x, _ in points]
    values, low, high = ([cell[key] for _, cell in points] for key in ("value", "ci_low", "ci_high"))
    return Series(label, xs, values, after, low, high)


def _spoken(one: Series, scale: float, unit: str) -> str:
    values = ", ".join(f"{scale * y:.0f}{unit} at {x:g}" for x, y in zip(one.x, one.y, strict=True))
    return f"{one.label}: {values}"


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
