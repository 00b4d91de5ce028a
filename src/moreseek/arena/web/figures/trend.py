"""Ratings over time: the board at the end of each day with votes, and now."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from moreseek.arena.store.history import DAY_S, Point
from moreseek.arena.web.figures.drawing import COLOURS, Drawing, Scale, apart, fitted, ticks
from moreseek.arena.web.figures.figure import Figure, Subject
from moreseek.evals.wording import visible

COLUMNS = ("day", "name", "rating", "ci_low", "ci_high", "battles")
_LEFT, _RIGHT, _TOP, _BOTTOM, _HEIGHT = 56, 560, 26, 320, 356


def trend(rows: Sequence[Mapping[str, Any]], points: Sequence[Point], min_votes: int, subject: Subject) -> Figure:
    """A line for each of the first eight of the board, from its first ``min_votes`` on; the download has everything."""
    out = [{**vars(point), "day": date(point.day)} for point in points]
    shown = [row["name"] for row in rows[:COLOURS]]
    lines: dict[str, list[Point]] = {name: [] for name in shown}
    for point in points:
        if point.name in lines and point.battles >= min_votes:
            lines[point.name].append(point)
    lines = {name: line for name, line in lines.items() if line}
    drawing = Drawing(760, _HEIGHT if lines else 60, f"{subject.words['trend']}: {subject.title}")
    if lines:
        _draw(drawing, lines, subject)
    else:
        drawing.text(8, 34, subject.words["too_early"], "quiet")
    return Figure(drawing, COLUMNS, out)


def _draw(drawing: Drawing, lines: Mapping[str, Sequence[Point]], subject: Subject) -> None:
    every = [point for line in lines.values() for point in line]
    days = sorted({point.day for point in every})
    x = Scale(days[0], days[-1], _LEFT, _RIGHT)
    spread = [point.rating for point in every]
    y = Scale(min(spread) - 10, max(spread) + 10, _BOTTOM, _TOP)
    for value in ticks(y.low, y.high):
        drawing.line(_LEFT, y(value), _RIGHT, y(value), "grid")
        drawing.text(_LEFT - 8, y(value) + 4, f"{value:g}", "quiet", "end")
    drawing.text(8, 14, subject.words["rating"], "quiet")
    for day in _some(days):
        drawing.text(x(day), _BOTTOM + 20, date(day), "quiet", "middle")
    ends = sorted(lines, key=lambda name: y(lines[name][-1].rating))
    labels = dict(zip(ends, apart([y(lines[name][-1].rating) for name in ends], 15, _TOP, _BOTTOM), strict=True))
    for place, (name, line) in enumerate(lines.items()):
        drawing.open_link(subject.votes(name), f"{visible(name)}: {line[-1].rating:.0f}")
        corners = " ".join(f"{x(point.day):.1f},{y(point.rating):.1f}" for point in line)
        drawing.add("polyline", points=corners, class_=f"path s{place}")
        for point in line if len(line) <= 40 else line[-1:]:
            drawing.dot(x(point.day), y(point.rating), f"c{place}", 3)
        drawing.line(x(line[-1].day), y(line[-1].rating), _RIGHT + 10, labels[name], "grid")
        drawing.text(_RIGHT + 14, labels[name] + 4, fitted(visible(name), 180), f"strong c{place}")
        drawing.close_link()


def _some(days: Sequence[int]) -> list[int]:
    """At most five of the days, the first and the last among them."""
    if len(days) <= 5:
        return list(days) if days[-1] - days[0] >= 4 * (len(days) - 1) or len(days) <= 2 else [days[0], days[-1]]
    return [days[round(i * (len(days) - 1) / 4)] for i in range(5)]


def date(day: int) -> str:
    """A day since 1970 as people write it."""
    return datetime.fromtimestamp(day * DAY_S, UTC).strftime("%Y-%m-%d")
