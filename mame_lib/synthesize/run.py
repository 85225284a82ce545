"""`synthesize`: a data set from a population, by one process or many, begun, killed and gone on with."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from platform import python_version

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from mame_lib import __version__
from mame_lib.data.manifest import write_tables
from mame_lib.errors import InputError
from mame_lib.synthesize.card import card, case_of
from mame_lib.synthesize.checks import Training, TrainingCheck, equal_images
from mame_lib.synthesize.folder import CARD, RECIPES, TRAINING, Folder, Row, to_lines, write_text
from mame_lib.synthesize.pictures import SOURCE, store
from mame_lib.synthesize.plan import BLOCK
from mame_lib.synthesize.spec import Spec
from mame_lib.synthesize.studio import Studio
from mame_lib.training.run import versions
from mame_lib.training.world import World

Progress = Callable[[int, int], None]  # images of this run that are there, and all of them

MOST = 1_000_000  # images: six digits
_PAUSE = 1.0  # seconds between two looks at what the others have made


@dataclass(frozen=True)
class Summary:
    """What was made. new: images of this run, and the seconds they took; equal: groups of images with equal pixels."""

    count: int
    new: int
    seconds: float
    redrawn: int
    bad: int
    lesions: int
    equal: list[list[int]]
    training: TrainingCheck | None


def synthesize(
    spec: Spec,
    count: int,
    out: str | Path,
    *,
    training_data: Sequence[str | Path] = (),
    progress: Progress | None = None,
) -> Summary | None:
    """Write images 0 to count - 1 of a population as a manifest folder, or go on with one that was begun.

    Under `accelerate launch` or `torchrun` the processes share the work; any number of them may go on with what any
    other number began. A complete folder grows with a larger count. Image, masks and metadata do not depend on any of
    that, to the bit.

    training_data : manifest folders of the models' training images, to look for copies of them.
    progress : called by the first process as the images of all come in.

    Returns what was made, in the first process; None in the others.

    Raises
    ------
    InputError
        If `out` holds something else, or other work goes on in it; if a model can't be loaded or its weights have
        changed; if count is out of range; if a picture was changed or another process ended early.
    """
    if not 1 <= count <= MOST:
        raise InputError(f"count is {count}, but must be between 1 and {MOST:,}.")
    folder = Folder(out, spec.to_dict())
    world = World.join()
    training = Training(training_data) if training_data and world.main else None
    device = torch.device(world.device())
    studio = Studio(spec, str(device))
    with ExitStack() as held:
        trouble: InputError | None = None
        if world.main:
            try:
                held.enter_context(folder.claimed(0))
                folder.begin(count, studio.weights, {"mame-lib": __version__, "python": python_version(), **versions()})
            except InputError as error:
                trouble = error
        if world.any(trouble is not None, device):
            raise trouble or SystemExit(2)  # the first process says why
        if not world.main:
            held.enter_context(folder.claimed(world.rank))
        todo = folder.missing(count)
        world.any(False, device)  # nobody begins before all have looked at what is there
        started = told = time.perf_counter()
        for number in todo[world.rank :: world.size]:
            _make(folder, studio, number, count)
            if world.main and progress is not None and time.perf_counter() - told > _PAUSE:
                progress(folder.recorded(todo) * BLOCK, len(todo) * BLOCK)
                told = time.perf_counter()
        world.leave()
        if not world.main:
            return None
        _await_others(folder, todo, progress)
        seconds = time.perf_counter() - started
        rows, equal, check = _finish(folder, spec, count, training)
    return Summary(
        count=count,
        new=sum(row["index"] // BLOCK in set(todo) for row in rows),
        seconds=seconds,
        redrawn=sum(row["redrawn"] > 0 for row in rows),
        bad=sum((row["badness"] or 0) > 1 for row in rows),
        lesions=sum(bool(row.get("lesion")) for row in rows),
        equal=equal,
        training=check,
    )


def _make(folder: Folder, studio: Studio, number: int, count: int) -> None:
    """One block, of which only the images below `count` are kept."""
    made = [one for one in studio.make(number) if one.plan.index < count]
    with folder.staging(number) as place:
        folder.keep(number, place, store(made, place, studio.spec, studio.weights))


def _await_others(folder: Folder, todo: Sequence[int], progress: Progress | None) -> None:
    """Until the other processes have made their blocks; `InputError` when they are gone without."""
    while True:
        working = folder.others_at_work()  # asked before the count: the last rows come before the end
        there = folder.recorded(todo)
        if progress is not None:
            progress(there * BLOCK, len(todo) * BLOCK)
        if there == len(todo):
            return
        if not working:
            raise InputError("another process ended before its images were made; the same command goes on from here.")
        time.sleep(_PAUSE)


def _finish(
    folder: Folder, spec: Spec, count: int, training: Training | None
) -> tuple[list[Row], list[list[int]], TrainingCheck | None]:
    """Write the tables, the checks, the card and the checksums; the rows in order."""
    known = folder.rows()
    rows = [known[index] for index in range(count)]
    folder.remove_strays(rows)
    write_text(folder.root / RECIPES, to_lines(rows))
    header = folder.header()
    settings = {**spec.to_dict(), "weights": header["weights"]}
    write_tables(folder.root, [case_of(row) for row in rows], source=SOURCE, settings=settings)
    equal, check = equal_images(rows), None
    (folder.root / TRAINING).unlink(missing_ok=True)
    if training is not None:
        names = [row["case"]["file_name"] for row in rows]
        check = training.check(names, (_gray(folder.root / name) for name in names))
        write_text(folder.root / TRAINING, json.dumps(check.to_dict(), indent=1) + "\n")
    write_text(folder.root / CARD, card(spec, rows, header, equal, check))
    folder.write_checksums(rows)
    folder.tidy()
    return rows, equal, check


def _gray(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("L"))
