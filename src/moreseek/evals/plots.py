"""Charts as SVG text that sits inside a page: they take the page's colours, so they read in light and in dark."""

import html
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from moreseek.errors import InputError
from moreseek.evals.wording import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Matplotlib wants fixed colours. These stand for CSS colours, and are swapped for them in the text of the SVG.
INK, BEFORE, AFTER = "#010203", "#010204", "#010205"
_CSS = {INK: "currentColor", BEFORE: "var(--before)", AFTER: "var(--after)"}
_MAX_POINTS = 600
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: it can be read aloud, searched and scaled
    "text.parse_math": False,  # a stage may be called $x$
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": INK,
    "grid.alpha": 0.15,
    "grid.linewidth": 0.6,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.fontsize": 9,
}


@dataclass(frozen=True, slots=True)
class Series:
    """One line: values over x, with 95 % bounds where they are known. ``after`` picks its colour."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    after: bool = True
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None

    @property
    def legend(self) -> str:
        """The label as matplotlib can draw it: whole characters, not long, and not hidden by a leading underscore."""
        return visible(self.label.lstrip("_"))[:40]

    @property
    def colour(self) -> str:
        """The stand-in that becomes the page's colour for before or after."""
        return AFTER if self.after else BEFORE


def curve(name: str, series: Sequence[Series], x_label: str, y_label: str, alt: str) -> str:
    """A training curve: every step faint, a running mean over it. Returns SVG text."""
    with _canvas() as (figure, axes):
        for one in series:
            x, y = thin(one.x, one.y)
            colour, dash = (AFTER, "-") if one.after else (INK, "--")  # a second metric, not the model before
            axes.plot(x, y, color=colour, alpha=0.3, linewidth=0.8)
            axes.plot(x, running_mean(y), color=colour, linestyle=dash, linewidth=1.8, label=one.legend)
        _dress(axes, x_label, y_label, legend=len(series) > 1)
        _limits(axes, series)
        return _svg(figure, name, alt)


def shares(
    name: str,
    series: Sequence[Series],
    x_label: str,
    y_label: str,
    alt: str,
    *,
    beyond: float | None = None,
    log2: bool = False,
) -> str:
    """Shares in 0..1 as per cent, with their intervals, over difficulty or over k.

    ``beyond`` shades everything right of it: what pretraining never showed. Returns SVG text.
    """
    with _canvas() as (figure, axes):
        for one in series:
            _share_line(axes, one)
        _shade(axes, series, beyond)
        axes.set_ylim(-3, 105)
        axes.set_yticks([0, 25, 50, 75, 100])
        _ticks(axes, sorted({x for one in series for x in one.x}), log2)
        _dress(axes, x_label, y_label, legend=True)
        return _svg(figure, name, alt)


def lengths(
    name: str, series: Sequence[Series], x_label: str, y_label: str, alt: str, *, beyond: float | None = None
) -> str:
    """Mean lengths in tokens over difficulty, from zero up. Returns SVG text."""
    with _canvas() as (figure, axes):
        for one in series:
            marker = "o" if one.after else "s"
            axes.plot(one.x, one.y, color=one.colour, marker=marker, markersize=4.5, linewidth=1.6, label=one.legend)
        axes.set_ylim(0, 1.12 * max(1.0, *(max(one.y) for one in series)))
        _ticks(axes, sorted({x for one in series for x in one.x}), log2=False)
        _shade(axes, series, beyond)
        _dress(axes, x_label, y_label, legend=True)
        return _svg(figure, name, alt)


def running_mean(values: np.ndarray) -> np.ndarray:
    """Centred mean over about a twentieth of the curve, shorter at the ends."""
    half = max(1, len(values) // 40)
    total = np.concatenate([[0.0], np.cumsum(values)])
    places = np.arange(len(values))
    start, stop = np.maximum(places - half, 0), np.minimum(places + half + 1, len(values))
    return (total[stop] - total[start]) / (stop - start)


def thin(x: Sequence[float], y: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """At most 600 points, each the mean of its stretch, so that a long run's page stays small."""
    xs, ys = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if len(xs) <= _MAX_POINTS:
        return xs, ys
    edges = np.linspace(0, len(xs), _MAX_POINTS + 1).astype(int)
    sizes = np.diff(edges)
    return np.add.reduceat(xs, edges[:-1]) / sizes, np.add.reduceat(ys, edges[:-1]) / sizes


@contextmanager
def _canvas() -> Iterator[tuple["Figure", "Axes"]]:
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError("The report's charts need matplotlib: pip install 'moreseek[model]'.") from error
    with rc_context({**_STYLE, "svg.hashsalt": "moreseek"}):  # the same figure gives the same text
        figure = Figure(figsize=(4.2, 2.7), layout="constrained")
        axes = figure.subplots()
        figure.patch.set_visible(False)
        axes.patch.set_visible(False)
        yield figure, axes


def _share_line(axes: "Axes", one: Series) -> None:
    y = 100 * np.asarray(one.y)
    bars: Any = None
    if one.low is not None and one.high is not None:
        # A mean may lie outside a percentile interval by rounding; an error bar must not be negative.
        bars = np.maximum(0, [y - 100 * np.asarray(one.low), 100 * np.asarray(one.high) - y])
    marker = "o" if one.after else "s"  # told apart without colour too
    style: dict[str, Any] = {"markersize": 4.5, "linewidth": 1.6, "elinewidth": 1}
    axes.errorbar(one.x, y, yerr=bars, color=one.colour, marker=marker, label=one.legend, **style)


def _shade(axes: "Axes", series: Sequence[Series], beyond: float | None) -> None:
    """Mark what lies past ``beyond`` as longer than pretraining ever showed."""
    if beyond is None:
        return
    right = max(max(one.x) for one in series) + 0.5
    axes.axvspan(beyond, right, color=INK, alpha=0.06, linewidth=0)
    place = {"ha": "center", "va": "bottom", "fontsize": 9, "alpha": 0.75}
    axes.text((beyond + right) / 2, 1.01, "longer than seen", transform=axes.get_xaxis_transform(), **place)


def _ticks(axes: "Axes", places: list[float], log2: bool) -> None:
    if log2:
        axes.set_xscale("log", base=2)
    axes.set_xticks(places, [f"{place:g}" for place in places])
    axes.minorticks_off()


def _limits(axes: "Axes", series: Sequence[Series]) -> None:
    """Start at zero where that costs little; never let one spike hide the rest."""
    values = np.concatenate([np.asarray(one.y, dtype=float) for one in series])
    top = float(np.quantile(values, 0.99)) if len(values) > 20 else float(values.max())
    if values.min() >= 0 and top > 0:
        axes.set_ylim(0, max(top, float(np.median(values))) * 1.15)


def _dress(axes: "Axes", x_label: str, y_label: str, *, legend: bool) -> None:
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.tick_params(length=3)
    if legend:
        axes.legend(loc="best")


def _svg(figure: "Figure", name: str, alt: str) -> str:
    """The figure as an inline element: page colours, ids of its own, text for screen readers."""
    name = re.sub(r"[^A-Za-z0-9]+", "-", name)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    for stand_in, colour in _CSS.items():
        text = text.replace(stand_in, colour)
    # Several charts share one page, so an id that two of them use would be ambiguous.
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", text)
    text = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1; font-family: inherit", text)
    label = html.escape(visible(alt), quote=True)
    box = re.match(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', text)
    assert box is not None  # matplotlib always writes one
    return f'<svg viewBox="{box[1]}" role="img" aria-label="{label}">{text[box.end() :]}'
