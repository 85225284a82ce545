"""Two checks of a finished population: are two of its images equal, and is one a copy of a training image?

The second is a first look. Each image is compared with the most similar training image, by the correlation of their
gray levels at 32 x 32 pixels. How similar two *different* mammograms get is seen on the training images themselves:
above the 99.9 % quantile of their own nearest neighbors (of other patients) an image is flagged, to be looked at.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from mame_lib.data.manifest import Manifest, load
from mame_lib.errors import InputError
from mame_lib.synthesize.folder import Row
from mame_lib.synthesize.studio import one_thread

SIDE = 32
QUANTILE = 0.999
FEWEST = 10  # training images, below which there is no telling how similar two of them get

_ROWS = 512  # images compared at once

F32 = NDArray[np.float32]


def equal_images(rows: Iterable[Row]) -> list[list[int]]:
    """Numbers of the images that have the same pixels, in groups of two or more."""
    groups: dict[str, list[int]] = defaultdict(list)
    for row in rows:
        groups[row["pixels"]].append(row["index"])
    return [group for group in groups.values() if len(group) > 1]


@dataclass(frozen=True)
class Nearest:
    """The training image that one image is most similar to: correlation -1..1."""

    image: str
    training: str
    correlation: float


@dataclass(frozen=True)
class TrainingCheck:
    """What a comparison with training images found. threshold: correlation above which an image is flagged."""

    folders: tuple[str, ...]
    training_images: int
    threshold: float
    largest: Nearest
    median: float
    flagged: tuple[Nearest, ...]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


class Training:
    """The training images of one manifest folder or several."""

    def __init__(self, folders: Sequence[str | Path]) -> None:
        """Raises `InputError` if a folder is no data set, or there are less than ten images in all."""
        self.folders = tuple(Path(folder).resolve().name for folder in folders)
        self.names: list[str] = []
        patients: list[str] = []
        looks = []
        for folder, name in zip(folders, self.folders, strict=True):
            data: Manifest = load(folder)
            cases = data.split("train") or data.cases
            self.names += [f"{name}/{case.image}" for case in cases]
            patients += [f"{name}/{case.patient}" for case in cases]
            looks += [data.image(case) for case in cases]
        if len(looks) < FEWEST:
            raise InputError(f"{', '.join(self.folders)} has {len(looks)} training images; the check needs {FEWEST}.")
        self._patients = np.unique(patients, return_inverse=True)[1]
        self._looks = thumbnails(looks)

    def check(self, names: Sequence[str], images: Iterable[NDArray[np.uint8]]) -> TrainingCheck:
        """Compare images uint8 [n, n] with all training images."""
        best, where = _nearest(thumbnails(images), self._looks)
        own, _ = _nearest(self._looks, self._looks, self._patients)
        threshold = float(np.quantile(own[np.isfinite(own)], QUANTILE)) if np.isfinite(own).any() else 1.0
        found = [
            Nearest(name, self.names[k], round(float(value), 5))
            for name, k, value in zip(names, where, best, strict=True)
        ]
        flagged = [one for one, value in zip(found, best, strict=True) if value > threshold]
        return TrainingCheck(
            folders=self.folders,
            training_images=len(self.names),
            threshold=round(threshold, 5),
            largest=max(found, key=lambda one: one.correlation),
            median=round(float(np.median(best)), 5),
            flagged=tuple(sorted(flagged, key=lambda one: -one.correlation)),
        )


def thumbnails(images: Iterable[NDArray[np.uint8]]) -> F32:
    """Images to rows [N, SIDE * SIDE] of mean 0 and length 1, whose products are correlations; 0 for flat ones."""
    floats = (Image.fromarray(image.astype(np.float32)) for image in images)
    small = [np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BOX)) for image in floats]
    rows = np.stack(small).reshape(len(small), -1).astype(np.float64)
    rows -= rows.mean(1, keepdims=True)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, length, out=np.zeros_like(rows), where=length > 0).astype(np.float32)


def _nearest(
    rows: F32, others: F32, groups: NDArray[np.intp] | None = None
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Largest product of each row with one of the others, and with which; with groups, with one of another group."""
    best, where = np.empty(len(rows)), np.empty(len(rows), np.intp)
    columns = torch.from_numpy(others).T
    for start in range(0, len(rows), _ROWS):
        part = slice(start, start + _ROWS)
        with one_thread():  # the last digits must not depend on it
            products = (torch.from_numpy(rows[part]) @ columns).numpy()  # [<= _ROWS, M]
        if groups is not None:
            products[groups[part][:, None] == groups[None, :]] = -np.inf
        where[part] = products.argmax(1)
        best[part] = products.max(1)
    return best, where
