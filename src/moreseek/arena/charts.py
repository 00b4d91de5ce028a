"""The board as a picture: ratings with their intervals, best on top."""

import warnings
from pathlib import Path
from typing import Any

from moreseek.errors import InputError
from moreseek.evals.wording import visible

_FORMATS = (".png", ".svg", ".pdf")
_MOST = 80  # contestants that one picture can name legibly


def plot_intervals(board: dict[str, Any], path: Path) -> None:
    """Write the board's ratings with intervals as .png, .svg or .pdf. Raises InputError for another ending."""
    if path.suffix.lower() not in _FORMATS:
        raise InputError(f"{path}: a picture ends with {', '.join(_FORMATS)}.")
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError("pictures need matplotlib: pip install 'moreseek[arena]'.") from error
    rows = board["rows"][:_MOST][::-1]
    # Names are drawn as they are: a $ in one is no formula.
    plain: dict[Any, Any] = {"text.parse_math": False, "svg.fonttype": "none", "svg.hashsalt": "moreseek"}
    with rc_context(plain), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a name in a script that the font lacks shows as boxes
        figure = Figure(figsize=(7, 1.2 + 0.22 * max(len(rows), 2)), layout="constrained")
        axes = figure.subplots()
        for place, row in enumerate(rows):
            faint = 0.4 if row["provisional"] else 1.0
            axes.plot([row["ci_low"], row["ci_high"]], [place, place], color="#888888", linewidth=2, alpha=faint)
            axes.plot(row["rating"], place, "o", color="#1f5fbf", markersize=4, alpha=faint)
        labels = [f"{visible(row['name'])[:40]}  {row['rank'] or '–'}" for row in rows]
        axes.set_yticks(range(len(rows)), labels, fontsize=8)
        axes.set_ylim(-0.7, max(len(rows), 1) - 0.3)
        axes.set_xlabel(f"rating with {board['level']:.0%} interval ({board['gauge']}); the number is the rank")
        axes.grid(axis="x", alpha=0.2)
        axes.set_title(f"{board['board']}: {board['votes']:,} votes", loc="left", fontsize=10)
        for edge in ("top", "right", "left"):
            axes.spines[edge].set_visible(False)
        figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix.lower() == ".svg" else None)
