"""`sweep`: every combination of models, sentences and settings, generated, measured and kept in a folder.

    sweep.json   the grid, hashes of the weights, command, versions, date and seconds
    sweep.csv    one row an image (`sweep_rows.Row`), in the order of the grid
    sheet.png    a contact sheet: a row a sentence, a column a guidance scale and a number of steps
    images/…     the images, with their recipe inside

Each finished image is one line of a journal. A sweep that was killed finds it and makes only what is missing; a
folder is complete once sweep.json says so. Image and row depend on model, sentence, settings, seed and index alone:
`verify` makes some of them again and compares.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mame_lib import __version__
from mame_lib.errors import InputError
from mame_lib.evaluation.attributes import measure, measure_all
from mame_lib.evaluation.sweep_folder import Folder, read_header
from mame_lib.evaluation.sweep_grid import Cell, Grid, make_grid
from mame_lib.evaluation.sweep_models import Model, Shelf, weights_hash
from mame_lib.evaluation.sweep_rows import KEY, Row, read_csv, row_of
from mame_lib.generation import Generated, Mame
from mame_lib.models.components import NOTICE
from mame_lib.training.run import versions

Progress = Callable[[Iterator[Any], int], Iterable[Any]]

GRAY_LEVELS = 1  # what rounding changes when the batch or the processor is another
DRIFT = 1e-3  # of a measured share or score; rounding changes it by 1e-5 at most
_DRIFTING = ("area_ratio", "vendor_score", "view_score", "density_index", "pectoral_share")


def sweep(
    models: Model | Sequence[Model],
    prompts: str | Sequence[str],
    *,
    guidance_scale: float | Sequence[float] = 4.0,
    steps: int | Sequence[int] = 24,
    seeds: int | Sequence[int] = 0,
    count: int = 1,
    sampler: str | Sequence[str] = "dpm_solver_pp",
    negative_prompt: str | Sequence[str] = "",
    batch_size: int = 8,
    out: str | Path | None = None,
    keep_images: bool = True,
    progress: Progress | None = None,
) -> list[Row]:
    """Generate and measure every combination of what is given; one value or several of each.

    Parameters
    ----------
    models : as for `Mame.load`, or loaded ones. They are held in memory one at a time.
    seeds, count : each seed gives `count` images, of indices 0 to count - 1: image `index` of
        `Mame.generate(..., seed=seed)`. Images of one seed are made `batch_size` at once, so 40 indices of one seed
        take less time than 40 seeds. All cells of the grid start from the same noise.
    out : folder to write or to go on with; without one the rows hold their images.
    keep_images : False keeps the rows alone, for large grids: the images are measured in memory.
    progress : wraps the iterator of new rows, given their number, such as a progress bar.

    Returns the rows in the order of the grid.

    Raises
    ------
    InputError
        If a setting or a model is of no use, or if `out` holds something else than this very sweep.
    """
    shelf = Shelf([models] if isinstance(models, str | Path | Mame) else models)
    grid = make_grid(
        shelf.names, prompts, guidance_scale=guidance_scale, steps=steps, seeds=seeds, count=count, sampler=sampler,
        negative_prompt=negative_prompt,
    )  # fmt: skip
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise InputError(f"batch_size is {batch_size!r}, but must be a whole number of 1 or more.")
    settings = {**grid.settings(), "images_kept": keep_images}
    if out is None:
        weights = shelf.weigh(grid)
        made = _rows(grid, shelf, weights, batch_size, done=set())
        return [replace(row, image=image.pixels) for row, image, _ in _watched(made, grid.size, progress)]
    folder = Folder(Path(out), settings)  # refuses a folder of something else before any model is loaded
    weights = shelf.weigh(grid)
    with folder.opened({"weights": weights, "folders": shelf.folders, "provenance": _provenance(grid, folder, shelf)}):
        made = _rows(grid, shelf, weights, batch_size, done=set(folder.done), keep_images=keep_images)
        for row, image, seconds in _watched(made, grid.size - len(folder.done), progress):
            folder.add(row, image if keep_images else None, seconds)
        return folder.finish(_keys(grid))


def read(folder: str | Path) -> list[Row]:
    """The rows of a complete sweep, in the order of its grid, without their images.

    Raises
    ------
    InputError
        If there is no sweep in the folder, if it is not complete, or if it is damaged.
    """
    root = Path(folder)
    header = read_header(root)
    if not header.get("complete"):
        raise InputError(f"the sweep in {root} is not complete; the command that began it goes on.")
    rows = read_csv(root / "sweep.csv")
    if len(rows) != header.get("rows"):
        raise InputError(f"{root / 'sweep.csv'} has {len(rows)} rows, not {header.get('rows')}; run the sweep again.")
    return rows


@dataclass(frozen=True)
class Check:
    """A stored row made again. largest: greatest difference of gray levels, None where the image was not kept;
    drift: greatest difference of a measured share or score; same: both are as small as rounding makes them."""

    row: Row
    largest: int | None
    drift: float

    @property
    def same(self) -> bool:
        """Whether it is the same image but for rounding."""
        return self.drift <= DRIFT and (self.largest or 0) <= GRAY_LEVELS


def verify(folder: str | Path, rows: int = 5, seed: int = 0, models: Sequence[Model] = ()) -> list[Check]:
    """Make `rows` rows of a complete sweep again, drawn at random by `seed`, and compare pixels and measurements.

    models : where the models are now, known by the hash of their weights; by default under the names of the sweep.

    Raises
    ------
    InputError
        As `read`; if an image is missing; or if no model has the weights that the sweep was made with.
    """
    root, stored = Path(folder), read(folder)
    if not models:
        gone = [name for name in read_header(root).get("folders", ()) if not Path(name).is_dir()]
        if away := [row.model for row in _drawn(stored, rows, seed) if row.model in gone]:
            raise InputError(f"the model {away[0]} of this sweep was a folder; say where it lies with --model.")
    return verify_rows(stored, rows, seed, models, root=root)


def verify_rows(
    stored: Sequence[Row], rows: int = 5, seed: int = 0, models: Sequence[Model] = (), *, root: Path | None = None
) -> list[Check]:
    """As `verify`, for rows that were read from anywhere. root: the folder of their images; None compares no pixels.

    Raises
    ------
    InputError
        If an image is missing, or if no model has the weights that the rows were made with.
    """
    left = _drawn(stored, rows, seed)
    shelf = Shelf(models or list(dict.fromkeys(row.model for row in left)))
    checks = []
    for name in shelf.names:
        weights = weights_hash(shelf.take(name).components)
        for row in [row for row in left if row.weights == weights]:
            checks.append(_check(root, row, shelf.take(name)))
        left = [row for row in left if row.weights != weights]
    if left:
        raise InputError(
            f"no model with the weights {left[0].weights} of {left[0].model} was found, so its images can't be made "
            "again; give the model of then with --model."
        )
    return sorted(checks, key=lambda check: stored.index(check.row))


def _drawn(stored: Sequence[Row], rows: int, seed: int) -> list[Row]:
    if rows < 1:
        raise InputError(f"rows is {rows}, but must be at least 1.")
    return [stored[k] for k in sorted(np.random.default_rng(seed).permutation(len(stored))[:rows])]


def _check(root: Path | None, row: Row, mame: Mame) -> Check:
    (image,) = _generate(mame, Cell(*(getattr(row, name) for name in Cell._fields)), row.seed, row.index, 1)
    again = row_of(image, measure(image.pixels), weights=row.weights)
    drift = max(abs(getattr(again, name) - getattr(row, name)) for name in _DRIFTING)
    if not row.file or root is None:
        return Check(row, None, drift)
    before = pixels(root, row)
    if before.shape != image.pixels.shape:
        return Check(row, 255, drift)
    return Check(row, int(np.abs(before.astype(int) - image.pixels.astype(int)).max()), drift)


def pixels(folder: str | Path, row: Row) -> NDArray[np.uint8]:
    """The image of a row, uint8 [n, n]. Raises `InputError` if it was not kept or can't be read."""
    if not row.file:
        raise InputError(f"the sweep in {folder} kept no images; run it without --no-images.")
    try:
        with Image.open(Path(folder) / row.file) as picture:
            return np.asarray(picture.convert("L"))
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(f"cannot read {Path(folder) / row.file}; run the sweep again in a new folder.") from error


def _watched(made: Iterator[Any], total: int, progress: Progress | None) -> Iterable[Any]:
    return progress(made, total) if progress and total else made


def _keys(grid: Grid) -> list[tuple[Any, ...]]:
    """The keys of all rows, in their order."""
    return [
        _key(cell, seed, index) for cell in grid.cells() for seed in grid.seeds for index in range(grid.count)
    ]


def _key(cell: Cell, seed: int, index: int) -> tuple[Any, ...]:
    values = {**cell._asdict(), "seed": seed, "index": index}
    return tuple(values[name] for name in KEY)


def _rows(
    grid: Grid, shelf: Shelf, weights: dict[str, str], batch_size: int, *, done: set[Any], keep_images: bool = False
) -> Iterator[tuple[Row, Generated, float]]:
    """The rows that are not done yet, with image and seconds. Batches begin where they do in an unbroken sweep."""
    for number, cell in enumerate(grid.cells()):
        for seed in grid.seeds:
            for first in range(0, grid.count, batch_size):
                indices = range(first, min(first + batch_size, grid.count))
                if all(_key(cell, seed, index) in done for index in indices):
                    continue
                began = time.perf_counter()
                images = _generate(shelf.take(cell.model), cell, seed, first, len(indices))
                said = measure_all([image.pixels for image in images])
                seconds = (time.perf_counter() - began) / len(images)
                for image, measured in zip(images, said, strict=True):
                    file = f"images/{number:04d}/seed-{seed}-{image.index}.png" if keep_images else ""
                    if _key(cell, seed, image.index) not in done:
                        yield row_of(image, measured, weights=weights[cell.model], file=file), image, seconds


def _generate(mame: Mame, cell: Cell, seed: int, first: int, count: int) -> list[Generated]:
    """The images `first` to `first + count - 1` of a cell, which go by the model's name in the sweep."""
    made = mame.generate(
        cell.prompt, negative_prompt=cell.negative_prompt, guidance_scale=cell.guidance_scale, steps=cell.steps,
        sampler=cell.sampler, seed=seed, start_index=first, count=count, batch_size=count,
    )  # fmt: skip
    return [replace(image, model=cell.model) for image in made]


def _provenance(grid: Grid, folder: Folder, shelf: Shelf) -> dict[str, Any]:
    return {
        "command": grid.command(folder.root.name, folder.settings["images_kept"]),
        "date": time.strftime("%Y-%m-%d"),
        "library": __version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "device": str(shelf.take(grid.models[0]).components.device),
        "versions": versions(),
        "notice": NOTICE,
    }
