"""The contact sheet of a sweep: a row a sentence, a column a guidance scale and a number of steps."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from mame_lib.evaluation.sweep_rows import Row
from mame_lib.models.components import NOTICE

TILE = 128  # side of an image, pixels
MOST_ROWS, MOST_COLUMNS = 48, 16
_LABEL, _GAP, _TOP, _LINE = 190, 4, 22, 13  # width of the labels; space between; height of the head; of a line
_INK, _PAPER = 232, 36

# What makes a row of the sheet, and a column; of the seeds the first is shown.
_DOWN = ("prompt", "model", "sampler", "negative_prompt")
_ACROSS = {"guidance_scale": "guidance {:g}", "steps": "{} steps"}


def contact_sheet(rows: Sequence[Row], folder: str | Path | None = None) -> Image.Image:
    """A gray picture of the sweep, with the first image of each cell.

    Beyond 48 rows and 16 columns it shows so many, evenly chosen, and says of how many. folder: where the images of
    the rows lie; without it the rows must hold them.
    """
    first: dict[tuple[Any, Any], Row] = {}
    for row in rows:
        first.setdefault((_values(row, _DOWN), _values(row, _ACROSS)), row)
    downs = list(dict.fromkeys(down for down, _ in first))
    acrosses = list(dict.fromkeys(across for _, across in first))
    shown, columns = _spread(downs, MOST_ROWS), _spread(acrosses, MOST_COLUMNS)
    width = _LABEL + len(columns) * (TILE + _GAP)
    sheet = Image.new("L", (width, _TOP + len(shown) * (TILE + _GAP) + _TOP), _PAPER)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for column, across in enumerate(columns):
        said = [form.format(value) for form, value in zip(_ACROSS.values(), across, strict=True)]
        pen.text((_LABEL + column * (TILE + _GAP), 5), ", ".join(said), fill=_INK, font=font)
    varying = [k for k in range(len(_DOWN)) if k == 0 or len({down[k] for down in downs}) > 1]
    for number, down in enumerate(shown):
        y = _TOP + number * (TILE + _GAP)
        pen.multiline_text((6, y + 4), _label(down, varying), fill=_INK, font=font, spacing=2)
        for column, across in enumerate(columns):
            sheet.paste(_tile(first[down, across], folder), (_LABEL + column * (TILE + _GAP), y))
    foot = NOTICE
    if (len(shown), len(columns)) != (len(downs), len(acrosses)):
        foot += f"; {len(shown)} of {len(downs)} rows, {len(columns)} of {len(acrosses)} columns"
    pen.text((6, sheet.height - _TOP + 5), foot, fill=_INK, font=font)
    return sheet


def notice() -> PngInfo:
    """What the sheet says of itself to programs."""
    info = PngInfo()
    info.add_text("Disclaimer", NOTICE)
    return info


def _values(row: Row, names: Any) -> tuple[Any, ...]:
    return tuple(getattr(row, name) for name in names)


def _spread(items: list[Any], most: int) -> list[Any]:
    places = np.unique(np.linspace(0, len(items) - 1, min(most, len(items))).round().astype(int))
    return [items[place] for place in places]


def _label(down: Sequence[str], varying: Sequence[int]) -> str:
    """What is said beside a row: the sentence, and whatever else tells the rows apart."""
    texts = [f"not: {down[k]}" if _DOWN[k] == "negative_prompt" else down[k] for k in varying]
    lines = [line for text in texts for line in textwrap.wrap(text, 30)]
    most = TILE // _LINE
    return "\n".join(lines if len(lines) <= most else [*lines[: most - 1], "…"])


def _tile(row: Row, folder: str | Path | None) -> Image.Image:
    if folder is None:
        assert row.image is not None, "rows of a folder need it"
        picture = Image.fromarray(row.image)
    else:
        with Image.open(Path(folder) / row.file) as opened:
            picture = opened.convert("L")
    return picture if picture.size == (TILE, TILE) else picture.resize((TILE, TILE), Image.Resampling.BILINEAR)
