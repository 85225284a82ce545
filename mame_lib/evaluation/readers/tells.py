"""Tells: what gives a synthetic image away before anybody has looked at the breast in it.

A reader study asks whether the anatomy convinces. If one class alone is blurred, or its black is not black, a reader
learns that from the practice cases and the study measures the file, not the breast. `tells` says how well each of some
trivial numbers separates the classes by itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from mame_lib.errors import InputError
from mame_lib.evaluation.froc import auc
from mame_lib.evaluation.readers.files import png

Gray = NDArray[np.uint8]

LEAST = 0.7  # a tell weaker than this is no reason to worry
_TISSUE = 20  # gray levels of a breast lie above


def _sharpness(image: Gray) -> float:
    """Mean absolute Laplacian a few pixels inside the breast, over the mean gray there."""
    inside = ndimage.binary_erosion(image > _TISSUE, iterations=max(1, len(image) // 32))
    values = image.astype(np.float64)
    return float(np.abs(ndimage.laplace(values))[inside].mean() / values[inside].mean()) if inside.any() else 0.0


def _contrast(image: Gray) -> float:
    inside = image[image > _TISSUE]
    return float(inside.std()) if inside.size else 0.0


MEASURES: dict[str, Callable[[Gray], float]] = {
    "mean gray level": lambda image: float(image.mean()),
    "white level (99 %)": lambda image: float(np.percentile(image, 99)),
    "contrast in the breast": _contrast,
    "sharpness in the breast": _sharpness,
    "background (darkest tenth)": lambda image: float(np.sort(image, axis=None)[: image.size // 10].mean()),
    "nearly black (1 to 9)": lambda image: float(((image > 0) & (image < 10)).mean()),
    "share of the breast": lambda image: float((image > _TISSUE).mean()),
    "bytes of the file": lambda image: float(len(png(image))),
}


@dataclass(frozen=True)
class Tell:
    """How well one number separates the classes.

    auc: area under the ROC curve, 0..1, for "the higher, the more synthetic"; 0 separates as well as 1.
    real, synthetic: mean of each class. limit: `strength` beyond which it is a warning, at so few images.
    """

    name: str
    auc: float
    real: float
    synthetic: float
    limit: float

    @property
    def strength(self) -> float:
        """0.5 (tells nothing) to 1 (tells all)."""
        return max(self.auc, 1 - self.auc)

    @property
    def loud(self) -> bool:
        """Whether it separates beyond what chance does."""
        return self.strength > self.limit


def tells(real: Sequence[Gray], synthetic: Sequence[Gray]) -> list[Tell]:
    """Each of `MEASURES` on two sets of images uint8 [n, n], the strongest first.

    The limit is 0.7, or where there are few images three standard errors of an AUC without any effect above 0.5.

    Raises
    ------
    InputError
        If a class has no image.
    """
    n, m = len(real), len(synthetic)
    if not n or not m:
        raise InputError(f"tells need images of both classes, not {n} real and {m} synthetic ones.")
    limit = min(0.99, max(LEAST, 0.5 + 3 * math.sqrt((n + m + 1) / (12 * n * m))))  # Mann and Whitney's variance
    found = []
    for name, measure in MEASURES.items():
        values = np.array([measure(np.asarray(image)) for image in (*real, *synthetic)])
        area = auc(values, np.repeat([0, 1], [n, m]))
        found.append(Tell(name, area, float(values[:n].mean()), float(values[n:].mean()), limit))
    return sorted(found, key=lambda tell: -tell.strength)


def table(found: Sequence[Tell]) -> str:
    """The tells as lines of text, at most 72 columns wide."""
    lines = [f"{'tell':<28}{'AUC':>6}{'real':>12}{'synthetic':>12}"]
    for tell in found:
        mark = "  <- a tell" if tell.loud else ""
        lines.append(f"{tell.name:<28}{tell.auc:>6.2f}{tell.real:>12.4g}{tell.synthetic:>12.4g}{mark}")
    return "\n".join(lines)
