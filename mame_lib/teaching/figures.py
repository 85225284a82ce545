"""Figures of the book: one style for curves, one way to show images.

Curves are drawn as SVG on a transparent ground. Images are drawn as PNG at exactly one screen pixel (or a
whole number of them) per image pixel, black = 0 and white = 255, never interpolated and never stretched: a
grey level on the page is the grey level that the code computed.
"""

from __future__ import annotations

import io
import logging
import math
import os
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

DPI = 100
GROUND = "#24272b"  # neutral, dark, and visibly not the black of an image background
INK = "#e8eaed"
# Blue, orange, green, purple, red, grey: distinct for colour-blind readers, dark enough for white paper.
COLORS = ("#0b62a4", "#c2570c", "#1b7f5c", "#7b4ea3", "#b3262e", "#5f6368")

_QUIET = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "DIFFUSERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
}


class ImageFigure(Figure):
    """A figure that holds images: shown as PNG, pixel for pixel, on its own dark ground."""

    def png(self) -> bytes:
        """The figure as it is shown."""
        stream = io.BytesIO()
        self.savefig(stream, format="png", dpi=DPI, facecolor=GROUND)
        return stream.getvalue()


def _svg(figure: Figure) -> str | None:
    """Formatter for curves; images return None and fall back to PNG."""
    if isinstance(figure, ImageFigure):
        return None
    stream = io.StringIO()
    figure.savefig(stream, format="svg", bbox_inches="tight", transparent=True, metadata={"Date": None})
    return stream.getvalue()


def quiet() -> None:
    """Silence what libraries print on the way: progress bars, load reports, notices of deprecation."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", category=FutureWarning)
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # which font stands in for which is no reader's concern


def style() -> None:
    """Call once, in the setup cell of a chapter: the look of the figures, and quiet libraries."""
    quiet()
    rcParams.update(
        {
            "figure.dpi": DPI,
            "figure.figsize": (6.4, 3.2),
            "figure.facecolor": "none",
            "axes.facecolor": "none",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.axisbelow": True,
            "axes.titlesize": "medium",
            "axes.prop_cycle": _cycle(),
            "grid.color": "#9aa0a6",
            "grid.alpha": 0.35,
            "grid.linewidth": 0.6,
            "legend.frameon": False,
            "lines.linewidth": 1.8,
            "font.size": 10,
            "svg.fonttype": "path",
            "svg.hashsalt": "mame",  # the same figure gives the same bytes
            "image.interpolation": "none",
            "image.cmap": "gray",
        }
    )
    _register_formatters()


def _cycle() -> Any:
    from cycler import cycler

    return cycler(color=COLORS)


def _register_formatters() -> None:
    """Tell a running notebook: curves as SVG, images as PNG. Outside a notebook nothing happens."""
    try:
        from IPython import get_ipython
    except ImportError:
        return
    shell = get_ipython()
    if shell is None or getattr(shell, "kernel", None) is None:
        return
    shell.run_line_magic("config", "InlineBackend.figure_formats = ['svg']")
    formatters = shell.display_formatter.formatters
    formatters["image/svg+xml"].for_type(Figure, _svg)
    formatters["image/svg+xml"].for_type(ImageFigure, lambda figure: None)
    formatters["image/png"].for_type(ImageFigure, ImageFigure.png)
    formatters["text/plain"].for_type(ImageFigure, lambda f, p, cycle: p.text("<images>"))


def as_gray(image: Any) -> NDArray[np.uint8]:
    """Any picture as uint8 [h, w]: a PIL image, a boolean mask, uint8 0..255, or floats.

    Floats are read as -1..1 if any value is negative, else as 0..1, and clipped.
    A tensor or array [1, h, w] loses its first axis.
    """
    if hasattr(image, "detach"):  # a torch tensor, without importing torch here
        image = image.detach().cpu().numpy()
    array = np.asarray(image)
    if array.ndim == 3 and array.shape[0] == 1:
        array = array[0]
    if array.ndim == 3 and array.shape[-1] in (3, 4):
        array = array[..., :3].mean(axis=-1).round().astype(array.dtype)
    if array.ndim != 2:
        raise ValueError(f"an image is [h, w], not {array.shape}.")
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * 255
    if array.dtype == np.uint8:
        return array
    values = array.astype(np.float64)
    unit = (values + 1) / 2 if values.min() < 0 else values
    return np.clip(np.rint(unit * 255), 0, 255).astype(np.uint8)


def _wrap(title: str, pixels: int) -> str:
    """Break a title into lines that fit `pixels` at the small font."""
    import textwrap

    return "\n".join(textwrap.wrap(title, max(8, pixels // 7), break_long_words=False)) or title


def image_grid(
    images: Sequence[Any],
    titles: Sequence[str] | None = None,
    columns: int | None = None,
    *,
    row_labels: Sequence[str] | None = None,
    scale: int | None = None,
    gap: int = 6,
    width: int = 680,
) -> ImageFigure:
    """Gray images side by side, pixel for pixel, row after row.

    Parameters
    ----------
    images : sequence of anything `as_gray` takes, all of one size
    titles : one line (or several) above each image
    columns : images in a row; as many as fit the page if not given
    row_labels : a word at the left of each row
    scale : screen pixels per image pixel; the largest of 1, 2, 3, 4 that fits `width` if not given
    gap : screen pixels between images
    width : screen pixels that the page offers

    Returns
    -------
    ImageFigure
        To be shown as the last expression of a cell.
    """
    pictures = [as_gray(image) for image in images]
    if not pictures:
        raise ValueError("image_grid needs at least one image.")
    height, wide = pictures[0].shape
    if any(p.shape != (height, wide) for p in pictures):
        raise ValueError("all images of a grid must have one size.")
    left = 90 if row_labels else 0
    columns = columns or min(len(pictures), max(1, (width - left - gap) // (wide + gap)))
    rows = math.ceil(len(pictures) / columns)
    if scale is None:
        scale = max([k for k in (1, 2, 3, 4) if left + gap + columns * (k * wide + gap) <= width], default=1)
    # Enlarge here, by repetition: matplotlib then has nothing to interpolate.
    pictures = [p.repeat(scale, axis=0).repeat(scale, axis=1) for p in pictures]
    wide, height = wide * scale, height * scale
    texts = [_wrap(t, wide) for t in titles] if titles else []
    tops = []  # screen pixels for the titles of each row
    for row in range(rows):
        lines = [t.count("\n") + 1 for t in texts[row * columns : (row + 1) * columns] if t]
        tops.append(4 + 14 * max(lines) if lines else 0)
    total = (left + gap + columns * (wide + gap), gap + sum(tops) + rows * (height + gap))
    figure = ImageFigure(figsize=(total[0] / DPI, total[1] / DPI), dpi=DPI, facecolor=GROUND)
    for index, picture in enumerate(pictures):
        row, column = divmod(index, columns)
        x, y = left + gap + column * (wide + gap), gap + row * (height + gap) + sum(tops[: row + 1])
        # As RGB bytes: through matplotlib's color map some levels come out one darker.
        figure.figimage(picture[..., None].repeat(3, axis=2), x, total[1] - y - height, origin="upper")
        if index < len(texts):
            _label(figure, x + wide / 2, y - 4, texts[index], total, "center", "bottom")
        if row_labels and column == 0:
            words = _wrap(row_labels[row], left - 10)
            _label(figure, left, y + height / 2, words, total, "right", "center")
    return figure


def _label(
    figure: Figure, x: float, y: float, text: str, total: tuple[int, int], ha: str, va: str
) -> None:
    """Small light text; x and y in screen pixels from the upper left corner."""
    figure.text(x / total[0], 1 - y / total[1], text, color=INK, size=7.8, ha=ha, va=va, linespacing=1.15)


def strip(images: Sequence[Any], labels: Sequence[str] | None = None, **options: Any) -> ImageFigure:
    """All images in reading order: in one row if the page is wide enough, else in rows of equal length."""
    wide = as_gray(images[0]).shape[1]
    fits = max(1, (options.get("width", 680) - 6) // (wide + 6))
    rows = math.ceil(len(images) / fits)
    return image_grid(images, labels, columns=math.ceil(len(images) / rows), **options)


def axes(
    columns: int = 1, *, size: tuple[float, float] | None = None, **options: Any
) -> tuple[Figure, Any]:
    """A figure for curves and its axes (one `Axes`, or an array of them).

    The figure is not known to pyplot: show it as the last expression of the cell.
    `options` go to `Figure.subplots`, e.g. `sharey=True`.
    """
    figure = Figure(figsize=size or (6.4 if columns == 1 else 7.4, 3.2), layout="constrained")
    return figure, figure.subplots(1, columns, **options)


def curve(
    ax: Axes, x: Any, y: Any, label: str | None = None, *, xlabel: str = "", ylabel: str = "", **options: Any
) -> Axes:
    """Draw one line and name its axes; tensors and arrays [n]."""
    ax.plot(np.asarray(x), np.asarray(y), label=label, **options)
    if xlabel:
        ax.set_xlabel(xlabel)
    if ylabel:
        ax.set_ylabel(ylabel)
    if label:
        ax.legend()
    return ax
