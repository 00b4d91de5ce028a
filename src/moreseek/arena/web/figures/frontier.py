"""Rating against what answers cost: who is not beaten by anything cheaper."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from moreseek.arena.store.tallies import Tally
from moreseek.arena.web.figures.drawing import Drawing, Scale, apart, fitted, ticks
from moreseek.arena.web.figures.figure import Figure, Subject
from moreseek.evals.wording import visible

COLUMNS = ("name", "usd_per_1000_answers", "rating", "ci_low", "ci_high", "on_frontier", "provisional")
_LEFT, _RIGHT, _TOP, _BOTTOM, _HEIGHT = 56, 560, 26, 336, 384


def frontier(rows: Sequence[Mapping[str, Any]], tallies: Mapping[str, Tally], subject: Subject) -> Figure:
    """Each contestant whose cost is known; the line joins those that nothing as cheap or cheaper beats."""
    w = subject.words
    out: list[dict[str, Any]] = []
    for row in rows:
        cost = tallies[row["name"]].cost_usd if row["name"] in tallies else None
        if cost is not None and cost > 0:
            out.append({**row, "usd_per_1000_answers": 1000 * cost})
    out.sort(key=lambda row: (row["usd_per_1000_answers"], -row["rating"]))
    best = float("-inf")
    for row in out:
        row["on_frontier"] = not row["provisional"] and row["rating"] > best
        best = max(best, row["rating"]) if row["on_frontier"] else best
    unknown = [row["name"] for row in rows if not any(row["name"] == one["name"] for one in out)]
    note = f"{w['no_price']} {', '.join(unknown)}." if unknown else ""
    drawing = Drawing(760, _HEIGHT if out else 60, f"{w['frontier']}: {subject.title}")
    if out:
        _draw(drawing, out, subject)
    else:
        drawing.text(8, 34, w["no_prices"], "quiet")
    return Figure(drawing, COLUMNS, out, note)


def _draw(drawing: Drawing, out: Sequence[Mapping[str, Any]], subject: Subject) -> None:
    costs = [row["usd_per_1000_answers"] for row in out]
    x = Scale(min(costs) / 1.6, max(costs) * 1.6, _LEFT, _RIGHT, log=True)
    y = Scale(min(row["ci_low"] for row in out), max(row["ci_high"] for row in out), _BOTTOM, _TOP)
    for value in ticks(y.low, y.high):
        drawing.line(_LEFT, y(value), _RIGHT, y(value), "grid")
        drawing.text(_LEFT - 8, y(value) + 4, f"{value:g}", "quiet", "end")
    for value in _decades(x.low, x.high):
        drawing.line(x(value), _TOP, x(value), _BOTTOM, "grid")
        drawing.text(x(value), _BOTTOM + 18, f"${value:g}", "quiet", "middle")
    drawing.text(_RIGHT, _BOTTOM + 38, subject.words["cost_axis"], "quiet", "end")
    drawing.text(8, 14, subject.words["rating"], "quiet")
    steps = [row for row in out if row["on_frontier"]]
    if steps:
        path = f"M{x(steps[0]['usd_per_1000_answers']):.1f} {y(steps[0]['rating']):.1f}"
        for row in steps[1:]:
            path += f"H{x(row['usd_per_1000_answers']):.1f}V{y(row['rating']):.1f}"
        drawing.add("path", d=path + f"H{_RIGHT}", class_="path s0")
    by_height = sorted(out, key=lambda row: y(row["rating"]))
    labels = apart([y(row["rating"]) for row in by_height], 15, _TOP, _BOTTOM)
    for row, label in zip(by_height, labels, strict=True):
        at, high = x(row["usd_per_1000_answers"]), y(row["rating"])
        said = f"{visible(row['name'])}: {row['rating']:.0f}, ${row['usd_per_1000_answers']:.3g}"
        drawing.open_link(subject.votes(row["name"]), said)
        drawing.line(at, y(row["ci_low"]), at, y(row["ci_high"]), "whisker thin")
        drawing.line(at, high, _RIGHT + 10, label, "grid")
        drawing.dot(at, high, "c0" if row["on_frontier"] else "hollow")
        drawing.text(
            _RIGHT + 14, label + 4, fitted(visible(row["name"]), 180), "strong" if row["on_frontier"] else "quiet"
        )
        drawing.close_link()


def _decades(low: float, high: float) -> list[float]:
    found = [
        f * 10.0**e for e in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1) for f in (1, 2, 5)
    ]
    inside = [value for value in found if low <= value <= high]
    tens = [value for value in inside if f"{value:e}"[0] == "1"]
    return tens if len(tens) >= 3 else inside
