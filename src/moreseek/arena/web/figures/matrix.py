"""Who beat whom: the observed score of each row against each column, and what the ratings expect."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from moreseek.arena.ratings import POINTS
from moreseek.arena.votes import A_WINS, B_WINS, BOTH_BAD, TIE
from moreseek.arena.web.figures.drawing import Drawing, fitted, width_of
from moreseek.arena.web.figures.figure import Figure, Subject
from moreseek.evals.wording import visible

COLUMNS = ("a", "b", "battles", "wins", "losses", "ties", "score", "expected")
_CELL_W, _CELL_H, _TOP, _MOST_NAME, _MOST = 46, 30, 34, 200, 20


def matrix(rows: Sequence[Mapping[str, Any]], names: Sequence[str], counts: np.ndarray, subject: Subject) -> Figure:
    """``counts`` (M, M, 4) in the order of ``names``; rows of the board give the order and the expectation."""
    pairs = _pairs(rows, names, counts)
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
    return Figure(drawing, COLUMNS, pairs)


def _pairs(rows: Sequence[Mapping[str, Any]], names: Sequence[str], counts: np.ndarray) -> list[dict[str, Any]]:
    """Every ordered pair that met, row by row in the board's order."""
    places = {name: i for i, name in enumerate(names)}
    ranked = np.array([places[row["name"]] for row in rows], np.intp)
    met = (counts + counts.transpose(1, 0, 2)[:, :, [B_WINS, A_WINS, TIE, BOTH_BAD]])[np.ix_(ranked, ranked)]
    battles = met.sum(axis=2)
    a, b = np.nonzero(battles * (1 - np.eye(len(rows))))
    n, wins, losses = battles[a, b], met[a, b, A_WINS], met[a, b, B_WINS]
    rating = np.array([row["rating"] for row in rows])
    expected = 1 / (1 + np.exp((rating[b] - rating[a]) / POINTS))
    whole = [column.astype(np.int64).tolist() for column in (n, wins, losses, n - wins - losses)]
    score = (wins + (n - wins - losses) / 2) / n
    called = [row["name"] for row in rows]
    found = zip(a.tolist(), b.tolist(), *whole, score.tolist(), expected.tolist(), strict=True)
    return [dict(zip(COLUMNS, (called[i], called[j], *rest), strict=True)) for i, j, *rest in found]


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
