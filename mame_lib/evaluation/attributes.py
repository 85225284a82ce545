"""Read a mammogram's attributes back from its pixels: `measure`.

The readers are small linear models on features with a name, fitted on phantoms (`python -m
mame_lib.evaluation.attributes` prints the tables below). View and laterality read anatomy; density and
vendor also read the phantom's stylized gray scale, and mean little on images from elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from mame_lib.data.case import DENSITIES, area_class
from mame_lib.data.masks import Mask, breast_mask, chest_wall_side
from mame_lib.errors import InputError

F64 = NDArray[np.float64]

# Class borders on the glandular fraction: midway (in sqrt) between the phantom's neighboring ranges.
DENSITY_CUTS = (0.089, 0.191, 0.359)
WORK = 64  # features are read at this size, so that they mean the same at every image size
SHAPE_FEATURES = (
    "nipple row", "symmetry", "top width", "bottom width", "triangle difference", "centroid row",
)  # fmt: skip
TONE_FEATURES = (
    "log p05", "log p20", "log p50", "log p80", "log p95", "local sd", "skin line", "grain", "above fat",
)  # fmt: skip


@dataclass(frozen=True)
class Linear:
    """score = bias + sum_k weight_k (feature_k - center_k)."""

    center: tuple[float, ...]
    weight: tuple[float, ...]
    bias: float

    def __call__(self, features: F64) -> float:
        return float(self.bias + (features - np.array(self.center)) @ np.array(self.weight))


@dataclass(frozen=True)
class Readers:
    """The fitted models: log-odds of MLO and of Siemens, sqrt(glandular fraction) for each vendor look."""

    view: Linear
    vendor: Linear
    density: dict[str, Linear]


@dataclass(frozen=True)
class Measured:
    """What the pixels say.

    mask: bool [n, n], the breast. area_ratio: breast pixels / all pixels. laterality: side of the chest wall,
    L = left side of the image. view_score, vendor_score: probability of MLO, of Siemens, 0..1.
    density_index: estimate of the volumetric glandular fraction, 0..1.
    """

    mask: Mask
    area_ratio: float
    area: str
    view: str
    view_score: float
    laterality: str
    density_index: float
    density: str
    vendor: str
    vendor_score: float


@lru_cache(maxsize=16)
def _area_weights(side: int, size: int) -> NDArray[np.float32]:
    """[size, side]: share of each old pixel in each new one, rows summing to 1."""
    edges = np.arange(size + 1) * side / size
    old = np.arange(side)
    overlap = np.minimum(edges[1:, None], old + 1) - np.maximum(edges[:-1, None], old)
    return np.asarray(np.clip(overlap, 0, None) * size / side, np.float32)


def _resized(values: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Square image resampled to `size` pixels by exact area averages (no aliasing, any ratio)."""
    weights = _area_weights(values.shape[0], size)
    return np.asarray(weights @ values @ weights.T, np.float32)  # [size, size]


def shape_features(image: NDArray[np.float32], mask: Mask) -> F64:
    """`SHAPE_FEATURES` of a left-facing image [n, n] with a non-empty mask, on the breast's bounding box."""
    rows = np.flatnonzero(mask.any(1))
    columns = np.flatnonzero(mask.any(0))
    box = mask[rows[0] : rows[-1] + 1, : columns[-1] + 1]
    gray = image[rows[0] : rows[-1] + 1, : columns[-1] + 1]
    height, width = box.shape
    reach = np.where(box.any(1), width - np.argmax(box[:, ::-1], axis=1), 0) / width  # [height] 0..1
    nipple = float(np.argmax(ndimage.gaussian_filter1d(reach, 0.04 * height, mode="nearest"))) / height
    symmetry = float((box & box[::-1]).sum() / max((box | box[::-1]).sum(), 1))
    strip = max(1, int(0.15 * height))
    y, x = np.mgrid[0:height, 0:width]
    upper = (x / (0.30 * width) + y / (0.45 * height) < 1) & box
    lower = upper[::-1] & box
    typical = float(gray[box].mean()) + 1e-6
    difference = 0.0
    if upper.any() and lower.any():
        difference = float(gray[upper].mean() - gray[lower].mean()) / typical
    centroid = float(y[box].mean()) / height
    return np.array([nipple, symmetry, reach[:strip].mean(), reach[-strip:].mean(), difference, centroid])


def tone_features(image: NDArray[np.float32], mask: Mask, view: str) -> F64:
    """`TONE_FEATURES` of a left-facing image [n, n] inside the breast, the muscle's corner left out."""
    side = image.shape[0]
    depth = ndimage.distance_transform_edt(np.pad(mask, ((1, 1), (1, 0)), mode="edge"))[1:-1, 1:]
    y, x = np.mgrid[0:side, 0:side] / side
    core = mask & (depth > 0.04 * side)
    if view == "MLO":
        core &= x / 0.42 + y / 0.58 > 1
    if core.sum() < 30:
        core = mask
    values = image[core]
    percentiles = np.log(np.percentile(values, [5, 20, 50, 80, 95]) + 8.0)
    mean = ndimage.uniform_filter(image, 5)
    local = np.sqrt(np.clip(ndimage.uniform_filter(image**2, 5) - mean**2, 0, None))
    haar = (image[:-1, :-1] - image[1:, :-1] - image[:-1, 1:] + image[1:, 1:]) / 2
    grain = float(np.median(np.abs(haar[core[1:, 1:]])))
    near, under = mask & (depth <= 0.02 * side), mask & (depth > 0.03 * side) & (depth <= 0.06 * side)
    skin = float(image[near].mean() - image[under].mean()) if near.any() and under.any() else 0.0
    fat = float(np.percentile(values, 15))
    above = float((values > 1.5 * fat).mean())
    return np.array([*percentiles, np.log(local[core].mean() + 1.0), skin / 20, np.log(grain + 0.5), above])


def _prepare(image: NDArray[np.uint8]) -> tuple[Mask, str, NDArray[np.float32], Mask]:
    """Mask, laterality, and the left-facing image and mask at `WORK` pixels."""
    mask = breast_mask(image)
    laterality = chest_wall_side(mask)
    faced, faced_mask = (image, mask) if laterality == "L" else (image[:, ::-1], mask[:, ::-1])
    small = _resized(faced.astype(np.float32), WORK)
    return mask, laterality, small, _resized(faced_mask.astype(np.float32), WORK) > 0.5


def measure(image: NDArray[np.uint8], readers: Readers | None = None) -> Measured:
    """Read the attributes of a uint8 [n, n] mammogram, n >= 32, either facing; about 5 ms at 128 px.

    An image without a breast gives an empty mask, area small, CC, L and density very low with index 0.

    Raises
    ------
    InputError
        If `image` is not a square uint8 array.
    """
    if image.ndim != 2 or image.shape[0] != image.shape[1] or image.dtype != np.uint8 or len(image) < 32:
        raise InputError(
            f"measure needs a square uint8 image of 32 pixels or more, not {image.dtype} {image.shape}; "
            "use mame_lib.data.geometry.to_square."
        )
    models = readers or READERS
    mask, laterality, small, small_mask = _prepare(image)
    ratio = float(mask.mean())
    if small_mask.sum() < 20:
        return Measured(mask, ratio, area_class(ratio), "CC", 0.5, "L", 0.0, DENSITIES[0], "hologic", 0.5)
    view_score = _sigmoid(models.view(shape_features(small, small_mask)))
    view = "MLO" if view_score > 0.5 else "CC"
    tone = tone_features(small, small_mask, view)
    vendor_score = _sigmoid(models.vendor(tone))
    vendor = "siemens" if vendor_score > 0.5 else "hologic"
    root = float(np.clip(models.density[vendor](tone), 0, 1))
    return Measured(
        mask=mask,
        area_ratio=ratio,
        area=area_class(ratio),
        view=view,
        view_score=view_score,
        laterality=laterality,
        density_index=root**2,
        density=DENSITIES[int(np.searchsorted(DENSITY_CUTS, root**2))],
        vendor=vendor,
        vendor_score=vendor_score,
    )


def _sigmoid(score: float) -> float:
    return float(0.5 + 0.5 * np.tanh(0.5 * score))


def _collect(count: int, sizes: tuple[int, ...], seed: int) -> tuple[F64, F64, F64, F64, F64]:
    """Features of phantoms, sizes taken in turn: shape [N, 6], tone [N, 9]; and their truth: is MLO [N],
    is Siemens [N], glandular fraction [N].
    """
    from mame_lib.data.phantom import draw  # only the fit needs phantoms; `measure` does not

    shapes, tones, truth = [], [], []
    for index in range(count):
        phantom = draw(size=sizes[index % len(sizes)], seed=seed, index=index)
        said = phantom.attributes
        _, _, small, small_mask = _prepare(phantom.image)
        shapes.append(shape_features(small, small_mask))
        tones.append(tone_features(small, small_mask, str(said.view)))
        truth.append((said.view == "MLO", said.vendor == "siemens", phantom.glandular_fraction))
    view, vendor, gland = np.array(truth, float).T
    return np.array(shapes), np.array(tones), view, vendor, gland


def _logistic(features: F64, label: F64, ridge: float = 1e-3) -> Linear:
    """L2-regularized logistic regression on standardized features by Newton's method; label 0 or 1, [N]."""
    center, scale = features.mean(0), features.std(0) + 1e-9
    x = np.column_stack([(features - center) / scale, np.ones(len(label))])  # [N, k + 1]
    weight = np.zeros(x.shape[1])
    for _ in range(30):
        chance = 0.5 + 0.5 * np.tanh(0.5 * (x @ weight))
        slope = x.T @ (chance - label) / len(label) + ridge * weight
        curve = (x.T * (chance * (1 - chance))) @ x / len(label) + ridge * np.eye(len(weight))
        weight -= np.linalg.solve(curve, slope)
    return _linear(center, weight[:-1] / scale, weight[-1])


def _regression(features: F64, value: F64, ridge: float = 1e-3) -> Linear:
    """Ridge regression of value [N] on standardized features."""
    center, scale = features.mean(0), features.std(0) + 1e-9
    x = (features - center) / scale
    gram = x.T @ x / len(x) + ridge * np.eye(x.shape[1])
    weight = np.linalg.solve(gram, x.T @ (value - value.mean()) / len(x))
    return _linear(center, weight / scale, value.mean())


def _linear(center: F64, weight: F64, bias: float) -> Linear:
    """Rounded to five digits: the printed table is the model."""
    rounded = [tuple(float(f"{x:.5g}") for x in row) for row in (center, weight, [bias])]
    return Linear(rounded[0], rounded[1], rounded[2][0])


def fit(count: int = 1200, *, sizes: tuple[int, ...] = (64, 96, 128, 256), seed: int = 1_000_000) -> Readers:
    """Fit all readers on `count` phantoms; the stored `READERS` are `fit()`, about a minute on one core.

    Several sizes, so that no reader leans on detail that only one of them has.
    """
    shape, tone, view, vendor, gland = _collect(count, sizes, seed)
    looks = {"hologic": vendor == 0, "siemens": vendor == 1}
    density = {name: _regression(tone[rows], np.sqrt(gland[rows])) for name, rows in looks.items()}
    return Readers(_logistic(shape, view, 1e-2), _logistic(tone, vendor), density)


# Printed by `python -m mame_lib.evaluation.attributes`.
READERS = Readers(
    view=Linear(
        (0.54992, 0.88815, 0.65507, 0.57969, 0.3012, 0.49068),
        (25.001, -19.89, 0.3985, -3.7568, 2.1978, -5.6982),
        0.2018,
    ),
    vendor=Linear(
        (3.6406, 4.0416, 4.4394, 4.7603, 4.966, 2.9159, -0.60489, 1.6292, 0.5709),
        (8.5729, -5.3932, -3.0518, 5.7154, -13.548, -10.488, -2.4489, -4.7145, 8.6212),
        -1.2105,
    ),
    density={
        "hologic": Linear(
            (3.4627, 3.9674, 4.4485, 4.8253, 5.0592, 3.115, -0.134, 1.8375, 0.65009),
            (-0.01599, 0.12821, 0.055662, 0.22423, 0.22886, -0.20944, 0.0047639, 0.040413, 0.055685),
            0.44908,
        ),
        "siemens": Linear(
            (3.8405, 4.1251, 4.4291, 4.6872, 4.8612, 2.6922, -1.1341, 1.395, 0.4819),
            (-0.0058897, 0.19088, 0.088106, 0.20657, 0.3597, -0.2049, 0.0039891, 0.045818, 0.086106),
            0.45361,
        ),
    },
)


if __name__ == "__main__":
    print(fit())
