"""One row of a sweep: how an image was made, what its sentence asked, what its pixels say, whether it obeyed.

Rows are tidy: one an image, one value a column, so that any program can group them.
"""

from __future__ import annotations

import csv
import gzip
import io
import os
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mame_lib.data.case import Attributes
from mame_lib.data.prompts import understood
from mame_lib.errors import InputError
from mame_lib.evaluation.attributes import SMALLEST_BREAST, Measured
from mame_lib.generation import Generated

ASKABLE = ("vendor", "view", "area", "density")  # what a sentence can ask and the pixels can answer
YES, NO, UNKNOWN = "yes", "no", "unknown"
SURE = 0.75  # a chance of this or more is a yes, of 1 - this or less a no

_DIGITS = 6  # after the point, of what was measured


@dataclass(frozen=True)
class Row:
    """One synthetic image of a sweep.

    file: its PNG, relative to the sweep's folder; empty if it was not kept. weights: hash of all that the model's
    pixels depend on. asked_*: what the sentence asks, empty where it asks nothing. The measured values, their
    standard deviations and scores are those of `evaluation.attributes.Measured`. chance_*: probability 0..1 that the
    image has what was asked; None where nothing was. obeyed_*: `yes`, `no`, or `unknown` where the chance lies between
    1 - `SURE` and `SURE`, where there is no breast, or where the sentence is outside the grammar; empty where nothing
    was asked. image: uint8 [n, n] for a sweep that was not written to a folder, otherwise None.
    """

    file: str
    model: str
    weights: str
    prompt: str
    negative_prompt: str
    guidance_scale: float
    steps: int
    sampler: str
    seed: int
    index: int
    asked_vendor: str
    asked_view: str
    asked_area: str
    asked_density: str
    vendor: str
    vendor_score: float
    view: str
    view_score: float
    area: str
    area_ratio: float
    area_ratio_sd: float
    density: str
    density_index: float
    density_index_sd: float
    laterality: str
    laterality_score: float
    pectoral_share: float
    pectoral_share_sd: float
    chance_vendor: float | None
    chance_view: float | None
    chance_area: float | None
    chance_density: float | None
    obeyed_vendor: str
    obeyed_view: str
    obeyed_area: str
    obeyed_density: str
    image: NDArray[np.uint8] | None = field(default=None, compare=False, repr=False)

    @property
    def key(self) -> tuple[Any, ...]:
        """What tells this row from every other of its sweep."""
        return tuple(getattr(self, name) for name in KEY)

    def values(self) -> dict[str, Any]:
        """The columns and their values, without the image."""
        return {name: getattr(self, name) for name in COLUMNS}


KEY = ("model", "prompt", "negative_prompt", "guidance_scale", "steps", "sampler", "seed", "index")
COLUMNS = tuple(one.name for one in fields(Row) if one.name != "image")
_KINDS = {one.name: str(one.type) for one in fields(Row)}


def row_of(
    made: Generated, said: Measured, *, weights: str, file: str = "", image: NDArray[np.uint8] | None = None
) -> Row:
    """The row of a generated image and what was measured on it."""
    asked = understood(made.prompt)
    sure = said.chances(asked or Attributes())
    chances = {name: sure.get(name) for name in ASKABLE}
    judged = {name: UNKNOWN if asked is None else _judge(said, chances[name]) for name in ASKABLE}
    recipe = {name: getattr(made, name) for name in KEY}
    names = set(COLUMNS) - set(recipe)
    values: dict[str, Any] = {
        **recipe,
        **{name: _rounded(value) for name, value in vars(said).items() if name in names},
        **{f"asked_{name}": getattr(asked, name, None) or "" for name in ASKABLE},
        **{f"chance_{name}": _rounded(value) for name, value in chances.items()},
        **{f"obeyed_{name}": value for name, value in judged.items()},
    }
    return Row(file=file, weights=weights, image=image, **values)


def _judge(said: Measured, chance: float | None) -> str:
    if chance is None:  # nothing was asked
        return ""
    if said.area_ratio < SMALLEST_BREAST or 1 - SURE < chance < SURE:
        return UNKNOWN
    return YES if chance >= SURE else NO


def _rounded(value: Any) -> Any:
    return round(float(value), _DIGITS) if isinstance(value, float) else value


def from_values(values: Mapping[str, Any]) -> Row:
    """The inverse of `Row.values`; text, as in a CSV file, is read as the column's kind.

    Raises
    ------
    KeyError, ValueError, TypeError
        If a column is missing or a value is not of its kind.
    """
    read: dict[str, Callable[[Any], Any]] = {"str": _text, "int": int, "float": float, "float | None": _maybe}
    return Row(**{name: read[_KINDS[name]](values[name]) for name in COLUMNS})


def _text(value: Any) -> str:
    if not isinstance(value, str):  # a line that was cut off
        raise TypeError(f"{value!r} is no text")
    return value


def _maybe(value: Any) -> float | None:
    return None if value in ("", None) else float(value)


def write_csv(rows: Iterable[Row], path: Path) -> None:
    """Write the rows with a header line, the file whole or not at all; compressed if its name ends in .gz."""
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    table.writeheader()
    table.writerows(row.values() for row in rows)
    data = text.getvalue().encode()
    partial = path.with_name(f"{path.name}.tmp")
    partial.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)  # no date: same rows, same file
    os.replace(partial, path)


def read_csv(path: Path) -> list[Row]:
    """The inverse of `write_csv`. Raises `InputError` if the file is missing or damaged."""
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8")
        return [from_values(line) for line in csv.DictReader(io.StringIO(text, newline=""))]
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
        raise InputError(f"cannot read the sweep's rows in {path} ({reason}); run the sweep again.") from error


def obeyed(rows: Sequence[Row], name: str) -> tuple[int, int, int]:
    """How many rows obeyed what they were asked of `name` (of `ASKABLE`), how many did not, how many nobody knows."""
    said = [getattr(row, f"obeyed_{name}") for row in rows]
    return said.count(YES), said.count(NO), said.count(UNKNOWN)
