"""Results of long experiments, measured once and kept in the repository under benchmarks/results.

A chapter shows them beside what it measures live. Every file says by which command, when and with what it was made.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mame_lib.errors import InputError
from mame_lib.evaluation.sweep_rows import Row, read_csv

RESULTS = Path("benchmarks") / "results"


def stored(name: str) -> dict[str, Any]:
    """The result `name`, such as "dreambooth", as a script of benchmarks/ stored it; `origin` says which.

    Raises
    ------
    InputError
        If the file is not in the repository, or is damaged.
    """
    path = _find(f"{name}.json")
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}); make it again with its script in benchmarks/.") from error


def stored_rows(name: str) -> list[Row]:
    """The rows of a stored sweep, such as "extrapolation"; where they come from is in `stored(name)`."""
    return read_csv(_find(f"{name}.csv.gz"))


def stored_images(name: str, side: int = 128) -> list[NDArray[np.uint8]]:
    """The gray images `[side, side]` of a stored sheet, row by row from the left."""
    with Image.open(_find(f"{name}.png")) as picture:
        sheet = np.asarray(picture.convert("L"))
    rows, columns = sheet.shape[0] // side, sheet.shape[1] // side
    tiles = sheet.reshape(rows, side, columns, side).swapaxes(1, 2)  # [rows, columns, side, side]
    return list(tiles.reshape(-1, side, side))


def origin(result: dict[str, Any]) -> str:
    """Where a stored result comes from, in one line."""
    made = result["provenance"]
    seconds = f", {made['seconds'] / 60:.0f} min of one core" if "seconds" in made else ""
    return f"{made['command']}  ({made['date']}, torch {made['versions'].get('torch', '-')}{seconds})"


def _find(file: str) -> Path:
    """A stored file in the source tree that the library runs from, or in one around the current folder."""
    here = Path.cwd()
    roots = [Path(__file__).resolve().parents[2], here, *here.parents]
    for root in roots:
        if (root / RESULTS / file).is_file():
            return root / RESULTS / file
    raise InputError(
        f"{RESULTS / file} was not found; run this inside a copy of the repository, which holds the stored results."
    )
