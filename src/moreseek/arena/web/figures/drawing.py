"""Drawing SVG by hand: text, lines, marks and links, coloured by class so that one picture serves light and dark."""

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from html import escape
from typing import Any

COLOURS = 8
"""How many series have a colour of their own."""
_LIGHT = ("#1f5fbf", "#b3541e", "#1b7f5c", "#8b3fa8", "#8a6d00", "#c0266b", "#3d6f8e", "#5b5f66")
_DARK = ("#7fb0ff", "#f0a070", "#5fd0a5", "#d39bea", "#e3c34f", "#ff8fc0", "#8fc7e6", "#b6bac2")
_RULES = (
    "text{{font:12px system-ui,'Noto Sans','Noto Sans CJK SC',sans-serif;fill:{ink}}}"
    ".quiet{{fill:{quiet}}}"
    ".ground{{fill:{ground}}}.grid{{stroke:{line}}}"
    ".strong{{font-weight:600}}.faint{{opacity:.55}}"
    ".whisker{{stroke:{bar};stroke-width:6;stroke-linecap:round}}.thin{{stroke-width:2}}"
    ".hollow{{fill:{ground};stroke:{c0};stroke-width:2}}"
    ".dashed{{stroke-dasharray:3 3}}.path{{fill:none;stroke-width:2}}"
    ".high{{fill:{c0}}}.low{{fill:{c1}}}.hit{{fill:transparent}}"
)


def _rules(ground: str, ink: str, quiet: str, line: str, bar: str, series: Sequence[str]) -> str:
    marks = "".join(f".c{i}{{fill:{colour}}}.s{i}{{stroke:{colour}}}" for i, colour in enumerate(series))
    fixed = _RULES.format(ground=ground, ink=ink, quiet=quiet, line=line, bar=bar, c0=series[0], c1=series[1])
    return fixed + marks


STYLE = (
    _rules("#fff", "#1c1d1f", "#55585e", "#d9dadd", "#9db8de", _LIGHT)
    + "@media(prefers-color-scheme:dark){"
    + _rules("#1f2226", "#e8e9eb", "#a9adb4", "#3a3e44", "#3f5f8f", _DARK)
    + "}"
)
"""What a picture that stands alone brings with it; on a page arena.css says the same."""


@dataclass
class Drawing:
    """An SVG that grows from top to bottom. Lengths are CSS pixels."""

    width: float
    height: float
    label: str
    _parts: list[str] = field(default_factory=list)

    def add(self, tag: str, content: str = "", **attributes: Any) -> None:
        """An element; ``class_`` is its class, and other underscores stand for hyphens."""
        written = "".join([f' {_attribute(key)}="{_short(value)}"' for key, value in attributes.items()])
        self._parts.append(f"<{tag}{written}>{content}</{tag}>")

    def text(self, x: float, y: float, words: str, class_: str = "", anchor: str = "start") -> None:
        """A line of text on the baseline y."""
        self.add("text", escape(words), x=x, y=y, class_=class_, text_anchor=anchor)

    def line(self, x1: float, y1: float, x2: float, y2: float, class_: str) -> None:
        """A straight line."""
        self.add("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)

    def dot(self, x: float, y: float, class_: str, r: float = 4.5) -> None:
        """A round mark."""
        self.add("circle", cx=x, cy=y, r=r, class_=class_)

    def open_link(self, href: str, title: str) -> None:
        """What follows, up to close_link(), says its numbers when pointed at, and where the votes behind it are.

        Only the board's page makes links of these (figures.js): from a file or another site's frame they lead nowhere.
        """
        self._parts.append(f'<g data-votes="{escape(href)}"><title>{escape(title)}</title>')

    def close_link(self) -> None:
        """The end of a link."""
        self._parts.append("</g>")

    def inside(self) -> str:
        """For a page, which brings the colours."""
        return self._written("")

    def alone(self) -> str:
        """A whole file, with its colours."""
        ground = '<rect class="ground" width="100%" height="100%"/>'
        return f'<?xml version="1.0" encoding="UTF-8"?>\n{self._written(f"<style>{STYLE}</style>{ground}")}\n'

    def _written(self, head: str) -> str:
        size = f'viewBox="0 0 {_short(self.width)} {_short(self.height)}" width="{_short(self.width)}"'
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="figure" {size} height="{_short(self.height)}" '
            f'role="img" aria-label="{escape(self.label)}">{head}{"".join(self._parts)}</svg>'
        )


@cache
def _attribute(key: str) -> str:
    return key.rstrip("_").replace("_", "-")


def _short(value: Any) -> str:
    """A number, or a text, as an attribute has it."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else escape(str(value))


def width_of(words: str) -> float:
    """About how wide a text is at 12 px, in the wide fonts too."""
    return sum(12.5 if unicodedata.east_asian_width(one) in "WF" else 7.4 for one in words)


def fitted(words: str, most: float) -> str:
    """The text, cut so that it takes at most so many pixels."""
    if width_of(words) <= most:
        return words
    while words and width_of(words + "…") > most:
        words = words[:-1]
    return words.rstrip() + "…"


def ticks(low: float, high: float, about: int = 6) -> list[float]:
    """Round numbers from low to high."""
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low:
        return [low]
    raw = (high - low) / about
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= raw)
    first = math.ceil(low / step)
    return [round((first + i) * step, 10) for i in range(math.floor(high / step) - first + 1)]


def apart(places: Sequence[float], least: float, top: float, bottom: float) -> list[float]:
    """The same places (rising), moved as little as it takes to stand ``least`` apart between top and bottom."""
    out: list[float] = []
    for place in places:
        out.append(max(place, out[-1] + least if out else top))
    for i in reversed(range(len(out))):
        out[i] = min(out[i], bottom - (len(out) - 1 - i) * least)
    return out


@dataclass(frozen=True)
class Scale:
    """From values to pixels, linear or logarithmic."""

    low: float
    high: float
    start: float
    stop: float
    log: bool = False

    def __call__(self, value: float) -> float:
        a, b, x = (math.log(v) for v in (self.low, self.high, value)) if self.log else (self.low, self.high, value)
        return self.start + (self.stop - self.start) * ((x - a) / (b - a) if b > a else 0.5)
