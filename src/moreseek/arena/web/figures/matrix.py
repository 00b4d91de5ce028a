"""Who beat whom: the observed score of each row against each column, and what the ratings expect."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from moreseek.arena.ratings import POINTS
from moreseek.arena.votes import A_WINS, B_WINS
from moreseek.arena.web.figures.drawing import Drawing, fitted, width_of
from moreseek.arena.web.figures.figure import Figure, Subject
from moreseek.evals.wording import visible

COLUMNS = ("a", "b", "battles", "wins", "losses", "ties", "score", "expected")
_CELL_W, _CELL_H, _TOP, _MOST_NAME, _MOST = 46, 30, 34, 200, 20


def matrix(rows: Sequence[Mapping[str, Any]], names: Sequence[str], counts: np.ndarray, subject: Subject) -> Figure:
    """``counts`` (M, M, 4) in the order of ``names``; rows of the board give the order and the expectation."""
    places = {name: i for i, name in enumerate(names)}
    pairs = [
        _pair(a, b, counts, places)
        for a in rows for b in rows
        if a is not b and (counts[places[a["name"]], places[b["name"]]].sum()
                           + counts[places[b["name"]], places[a["name"]]].sum()) > 0
    ]  # fmt: skip
    shown = [row["name"] for row in rows[:_MOST]]
    labels = [fitted(visible(name), _MOST_NAME) for name in shown]
    left = 54 + max((width_of(label) for label in labels), default=60)
    drawing = Drawing(
        left + _CELL_W * len(shown) + 8, _TOP + _CELL_H * len(shown) + 10, f"{subject.words['matrix']}: {subject.title}"
    )
    by_pair = {(pair["a"], pair["b"]): pair for pair in pairs}
    for i, (name, label) in enumerate(zip(shown, labels, strict=True)):
        y = _TOP + _CELL_H * i
        drawing.text(left + _CELL_W * i + _CELL_W / 2, 22, str(i + 1), "quiet", "middle")
        drawing.text(24, y + 19, str(i + 1), "quiet", "end")
        drawing.text(34, y + 19, label)
        for j, other in enumerate(shown):
            if (name, other) in by_pair:
                _cell(drawing, by_pair[name, other], left + _CELL_W * j, y, subject)
    return Figure(drawing, COLUMNS, pairs, subject.words["matrix_note"])


def _pair(a: Mapping[str, Any], b: Mapping[str, Any], counts: np.ndarray, places: Mapping[str, int]) -> dict[str, Any]:
    there, back = counts[places[a["name"]], places[b["name"]]], counts[places[b["name"]], places[a["name"]]]
    n = int(there.sum() + back.sum())
    wins, losses = int(there[A_WINS] + back[B_WINS]), int(there[B_WINS] + back[A_WINS])
    expected = 1 / (1 + float(np.exp((b["rating"] - a["rating"]) / POINTS)))
    return {
        "a": a["name"], "b": b["name"], "battles": n, "wins": wins, "losses": losses, "ties": n - wins - losses,
        "score": (wins + (n - wins - losses) / 2) / n, "expected": expected,
    }  # fmt: skip


def _cell(drawing: Drawing, pair: Mapping[str, Any], x: float, y: float, subject: Subject) -> None:
    said = (
        f"{visible(pair['a'])} – {visible(pair['b'])}: {pair['score']:.0%} "
        f"({pair['battles']} {subject.words['votes']}, {subject.words['expected']} {pair['expected']:.0%})"
    )
    drawing.open_link(subject.votes(pair["a"], pair["b"]), said)
    strength = abs(pair["score"] - 0.5) * 2
    drawing.add(
        "rect", x=x + 1, y=y + 1, width=_CELL_W - 2, height=_CELL_H - 2, rx=3,
        class_="high" if pair["score"] >= 0.5 else "low", fill_opacity=round(0.06 + 0.34 * strength, 2),
    )  # fmt: skip
    drawing.text(x + _CELL_W / 2, y + 19, f"{100 * pair['score']:.0f}", "", "middle")
    drawing.close_link()
