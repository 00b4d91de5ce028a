"""A drawing as PNG, by resvg."""

from functools import cache, lru_cache
from pathlib import Path

import matplotlib
import resvg_py

from moreseek.arena.web.figures.drawing import Drawing

_ZOOM = 2.0


def png_of(drawing: Drawing) -> bytes:
    """The picture in light colours, two pixels of it for one of CSS."""
    return _drawn(drawing.alone())


@lru_cache(64)
def _drawn(svg: str) -> bytes:
    """Kept for who asks again: shaping and drawing takes far longer than writing the SVG."""
    found = resvg_py.svg_to_bytes(svg_string=svg, zoom=_ZOOM, font_dirs=[_fonts()], sans_serif_family="DejaVu Sans")
    return bytes(found)


@cache
def _fonts() -> str:
    """Matplotlib brings DejaVu Sans: a server need not have any font of its own. (Chinese names need one.)"""
    return str(Path(matplotlib.get_data_path()) / "fonts" / "ttf")
