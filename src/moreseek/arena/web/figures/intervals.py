"""Ratings with their intervals, best on top."""

from collections.abc import Mapping, Sequence
from typing import Any

from moreseek.arena.web.figures.drawing import Drawing, Scale, fitted, ticks, width_of
from moreseek.arena.web.figures.figure import Figure, Subject, flat
from moreseek.evals.wording import visible

COLUMNS = ("name", "rating", "ci_low", "ci_high", "rank", "rank_low", "rank_high", "battles", "provisional",
           "selected_of", "selected_low")  # fmt: skip
_ROW, _TOP, _RIGHT, _MOST_NAME = 26, 34, 132, 220
_MOST = 80


def intervals(rows: Sequence[Mapping[str, Any]], subject: Subject) -> Figure:
    """A row each: the interval, the rating, the rank. The best of several variants has its wider interval beside."""
    w, shown = subject.words, rows[:_MOST]
    out = [flat(row) for row in rows]
    names = [fitted(visible(row["name"]), _MOST_NAME) for row in shown]
    left = 52 + max((width_of(name) for name in names), default=60)
    drawing = Drawing(left + 420 + _RIGHT, _TOP + _ROW * len(shown) + 34, f"{w['intervals']}: {subject.title}")
    low = min((row["selected_low"] or row["ci_low"] for row in out[:_MOST]), default=900)
    high = max((row["ci_high"] for row in shown), default=1100)
    x = Scale(low, high, left + 14, left + 410)
    bottom = _TOP + _ROW * len(shown)
    drawing.text(8, 18, w["rank"], "quiet")
    for value in ticks(low, high):
        drawing.line(x(value), _TOP - 8, x(value), bottom, "grid")
        drawing.text(x(value), bottom + 18, f"{value:g}", "quiet", "middle")
    for i, (row, name) in enumerate(zip(out, names, strict=False)):
        _row(drawing, row, name, _TOP + _ROW * i + _ROW / 2, x, left, subject)
    return Figure(drawing, COLUMNS, out)


def _row(
    drawing: Drawing, row: Mapping[str, Any], name: str, y: float, x: Scale, left: float, subject: Subject
) -> None:
    provisional = row["provisional"]
    said = f"{row['rating']:.0f} ({row['ci_low']:.0f} – {row['ci_high']:.0f})"
    drawing.open_link(
        subject.votes(row["name"]), f"{visible(row['name'])}: {said}, {row['battles']} {subject.words['votes']}"
    )
    drawing.add(
        "rect", x=0, y=y - _ROW / 2, width=drawing.width, height=_ROW, class_="hit"
    )  # the whole row leads there
    drawing.text(30, y + 4, str(row["rank"] or "–"), "strong" if row["rank"] else "quiet", "end")
    drawing.text(42, y + 4, name, "quiet" if provisional else "")
    if row["selected_low"] is not None:
        drawing.line(x(row["selected_low"]), y, x(row["ci_low"]), y, "whisker thin dashed")
        drawing.line(x(row["selected_low"]), y - 5, x(row["selected_low"]), y + 5, "whisker thin")
    drawing.line(x(row["ci_low"]), y, x(row["ci_high"]), y, "whisker faint" if provisional else "whisker")
    drawing.dot(x(row["rating"]), y, "hollow" if provisional else "c0")
    drawing.text(left + 424, y + 4, said, "quiet")
    drawing.close_link()
