"""A drawing as PNG, by resvg."""

from functools import cache
from pathlib import Path

import matplotlib
import resvg_py

from moreseek.arena.web.figures.drawing import Drawing

_ZOOM = 2.0


def png_of(drawing: Drawing) -> bytes:
    """The picture in light colours, two pixels of it for one of CSS."""
    found = resvg_py.svg_to_bytes(
        svg_string=drawing.alone(), zoom=_ZOOM, font_dirs=[_fonts()], sans_serif_family="DejaVu Sans"
    )
    return bytes(found)


@cache
def _fonts() -> str:
    """Matplotlib brings DejaVu Sans: a server need not have any font of its own. (Chinese names need one.)"""
    return str(Path(matplotlib.get_data_path()) / "fonts" / "ttf")
