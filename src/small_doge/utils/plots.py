"""Figures as PNG files or as SVG in a page, without a display."""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .files import write_bytes


if TYPE_CHECKING:
    from matplotlib.figure import Figure


@contextmanager
def saved_figure(path: str | Path, width: float, height: float) -> "Iterator[Figure]":
    """Give an empty figure of a size in inches, and write it to a file when the block ends."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    yield figure
    picture = io.BytesIO()
    figure.savefig(picture, dpi=120)
    write_bytes(path, picture.getvalue())


# A colour that no figure has, in place of the page's own.
INK = "#010203"


def draw_svg(draw: "Callable[[Figure], None]", width: float, height: float, name: str) -> str:
    """Return a figure as SVG that stands in a page and takes the colour of the text around it.

    Args:
        draw: draws into an empty figure.
        width: in inches, as for `height`.
        height: of it.
        name: tells its parts from those of other figures in the page.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    names = ("text.color", "axes.edgecolor", "axes.labelcolor", "axes.titlecolor", "xtick.color", "ytick.color")
    style: Any = {**dict.fromkeys(names, INK), "svg.fonttype": "none", "svg.hashsalt": name, "legend.framealpha": 0.0}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure)
        content = io.StringIO()
        figure.savefig(content, format="svg", transparent=True, metadata={"Date": None})
    svg = content.getvalue()
    return svg[svg.index("<svg") :].replace(INK, "currentColor")
