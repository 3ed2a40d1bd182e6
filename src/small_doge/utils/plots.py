"""Figures as PNG files, without a display."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

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
