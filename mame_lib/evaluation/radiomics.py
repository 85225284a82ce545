"""Some forty numbers of a mammogram that anyone can name, without a network: `radiomics`.

Outline, gray levels, texture, co-occurrence, sharpness, background. Compared by a Fréchet distance they make one like
the Fréchet radiomic distance (Konz et al., arXiv 2412.01496): each feature is brought to mean 0 and standard deviation
1 by the REFERENCE set alone. Scaled by both sets together, a set that is far off would shrink its own distance. A
distance says that two sets differ; z-scores of features with names say in what (`strangest`).

Lengths are in pixels, so that sets are compared at one size. What cannot be measured (no breast, no room for a window)
is 0. Values are measured on the breast as `breast_mask` finds it; a bad background spoils the mask, and with it more
features than its own.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from mame_lib.data.masks import Mask, breast_mask, chest_wall_side
from mame_lib.errors import InputError
from mame_lib.evaluation import texture

Gray = NDArray[np.uint8]
F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

SMALLEST = 64  # pixels of the side
LEVELS = 16  # of gray in the co-occurrence matrices
_PERCENTILES = (5, 25, 50, 75, 95)
_RINGS = (2.0, 6.0, 15.0)  # distance to the skin, % of the breast's width

# Each feature with the smallest standard deviation that the reference is taken to have: what is constant in the
# reference (the black background of phantoms) must not be divided by 0, and a tenth of a gray level is no difference.
FLOORS: dict[str, float] = {
    # the outline, on the breast turned to the left
    "area_ratio": 0.01, "side": 0.02, "height": 0.01, "width": 0.01, "centroid_row": 0.01, "nipple_row": 0.01,
    "symmetry": 0.01, "top_width": 0.01, "bottom_width": 0.01,
    # gray levels inside
    "mean": 1.0, "sd": 0.5, "skewness": 0.05, "kurtosis": 0.1, "entropy": 0.02,
    **{f"p{q:02d}": 1.0 for q in _PERCENTILES}, **{f"skin_{ring:g}": 1.0 for ring in _RINGS}, "corner_difference": 1.0,
    # texture inside
    "beta": 0.05, "coherence": 0.005, "haar_noise": 0.05, "local_sd": 0.25, "band_1": 0.05, "band_2": 0.1,
    "band_4": 0.2, "sharpness": 0.25, "skin_edge": 0.5,
    **{f"glcm_{name}_{step}": floor for step in (1, 3) for name, floor in
       (("contrast", 0.02), ("homogeneity", 0.005), ("energy", 0.002), ("correlation", 0.005))},
    # outside, and everywhere
    "background": 0.5, "background_p99": 0.5, "background_sd": 0.25, "blocks": 0.02,
}  # fmt: skip
NAMES: tuple[str, ...] = tuple(FLOORS)


class Radiomics:
    """The function from uint8 images [N, n, n], n >= 64, to float32 [N, 44]: raw values, in the order of `NAMES`.

    `standardized` brings them to the reference's scale, which `fidelity.compare` does by itself.
    """

    name = "radiomics"

    def __call__(self, images: Any) -> F32:
        """uint8 [N, n, n] -> float32 [N, d]; some 25 ms an image at 128 px.

        Raises
        ------
        InputError
            If an image is not a square of 64 pixels or more in uint8.
        """
        rows = [list(self.of(image).values()) for image in images]
        if not rows:
            raise InputError("there is no image to measure; give at least one.")
        return np.nan_to_num(np.array(rows, np.float32), nan=0.0, posinf=0.0, neginf=0.0)

    def of(self, image: Gray) -> dict[str, float]:
        """The features of one image by name; nan where nothing can be measured. InputError as above."""
        if image.ndim != 2 or image.shape[0] != image.shape[1] or image.dtype != np.uint8 or len(image) < SMALLEST:
            raise InputError(
                f"radiomics needs square uint8 images of {SMALLEST} pixels or more, not {image.dtype} {image.shape}; "
                "use mame_lib.data.geometry.to_square."
            )
        mask = breast_mask(image)
        side = chest_wall_side(mask)
        values = dict.fromkeys(NAMES, float("nan"))
        values.update(_outside(image, mask))
        values["side"] = 0.0
        if mask.any():
            turned, breast = (image, mask) if side == "L" else (image[:, ::-1], mask[:, ::-1])
            values.update(_outline(breast), side=1.0 if side == "L" else -1.0)
            values.update(_tone(turned, breast))
            values.update(_texture(turned, breast))
        return values

    def standardized(self, real: NDArray[Any], fake: NDArray[Any]) -> tuple[F64, F64]:
        """Both sets as z-scores by mean and standard deviation of `real` [N, d], the latter no less than `FLOORS`."""
        center, spread = real.astype(np.float64).mean(0), real.astype(np.float64).std(0)
        spread = np.maximum(spread, np.array([FLOORS[name] for name in NAMES]))
        return (real - center) / spread, (fake - center) / spread

    def strangest(self, real: NDArray[Any], fake: NDArray[Any], most: int = 5) -> list[tuple[str, float]]:
        """The features whose means differ most, [N, d] and [M, d] as measured: name, difference in sd of reals."""
        first, second = self.standardized(real, fake)
        away = second.mean(0) - first.mean(0)
        return [(NAMES[k], float(away[k])) for k in np.argsort(-np.abs(away), kind="stable")[:most]]


radiomics = Radiomics()


def _outline(mask: Mask) -> dict[str, float]:
    """Shape of a left-facing breast [n, n], lengths as shares of the side."""
    n = len(mask)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    widths = mask[top:bottom].sum(1)  # [h]
    third = max(1, len(widths) // 3)
    upside_down = mask[top:bottom][::-1]
    union = (mask[top:bottom] | upside_down).sum()
    return {
        "area_ratio": float(mask.mean()),
        "height": (bottom - top) / n,
        "width": (int(columns[-1]) + 1 - int(columns[0])) / n,
        "centroid_row": float(np.average(np.arange(len(widths)), weights=widths)) / len(widths),
        "nipple_row": float(np.flatnonzero(widths == widths.max()).mean()) / len(widths),
        "symmetry": float((mask[top:bottom] & upside_down).sum() / union),
        "top_width": float(widths[:third].mean()) / n,
        "bottom_width": float(widths[-third:].mean()) / n,
    }


def _tone(image: Gray, mask: Mask) -> dict[str, float]:
    """Gray levels of a left-facing breast."""
    n, values = len(image), image[mask].astype(np.float64)
    mean, sd = float(values.mean()), float(values.std())
    z = (values - mean) / max(sd, 1e-6)
    shares = np.bincount(image[mask] // 16, minlength=16) / len(values)
    shares = shares[shares > 0]
    row, column = np.mgrid[:n, :n] / n
    upper, lower = (mask & (column / 0.3 + part / 0.45 < 1) for part in (row, 1 - row))  # of the chest wall
    both = upper.any() and lower.any()
    at_skin = texture.edge_profile(image, mask, _RINGS)
    return {
        "mean": mean, "sd": sd, "skewness": float((z**3).mean()), "kurtosis": float((z**4).mean()),
        "entropy": float(-(shares * np.log2(shares)).sum()),
        **{f"p{q:02d}": float(v) for q, v in zip(_PERCENTILES, np.percentile(values, _PERCENTILES), strict=True)},
        **{f"skin_{ring:g}": float(v) for ring, v in zip(_RINGS, at_skin, strict=True)},
        "corner_difference": float(image[upper].mean() - image[lower].mean()) if both else float("nan"),
    }  # fmt: skip


def _texture(image: Gray, mask: Mask) -> dict[str, float]:
    """Detail of a left-facing breast, of fine to coarse bands, and how sharp its edges are."""
    smooth = [image.astype(np.float32), *(ndimage.gaussian_filter(image.astype(np.float32), s) for s in (1, 2, 4))]
    inner = ndimage.binary_erosion(mask, iterations=4, border_value=1)
    inner = inner if inner.any() else mask
    bands = {f"band_{s}": float((smooth[k] - smooth[k + 1])[inner].std()) for k, s in enumerate((1, 2, 4))}
    slope = np.hypot(*np.gradient(smooth[0]))
    rim = mask & ~ndimage.binary_erosion(mask, iterations=2, border_value=1)
    return {
        "beta": texture.power_law_exponent(image, mask), "coherence": texture.coherence(image, mask),
        "haar_noise": texture.haar_noise(image, mask), "local_sd": texture.local_sd(image, mask), **bands,
        "sharpness": float(np.percentile(slope[inner], 95)),
        "skin_edge": float(np.percentile(slope[rim], 90)) if rim.any() else float("nan"),
        **_occurrence(image, inner, 1), **_occurrence(image, inner, 3),
    }  # fmt: skip


def _occurrence(image: Gray, mask: Mask, step: int) -> dict[str, float]:
    """Haralick's features of pairs `step` pixels apart in four directions, both in the mask, mean of all pairs."""
    levels = (image // (256 // LEVELS)).astype(np.int64)
    counts = np.zeros(LEVELS**2)
    n = len(image)
    for down, across in ((0, 1), (1, 0), (1, 1), (1, -1)):
        here = slice(0, n - step * down), slice(step * (across < 0), n - step * (across > 0))
        there = slice(step * down, n), slice(step * (across > 0), n - step * (across < 0))
        both = mask[here] & mask[there]
        counts += np.bincount(LEVELS * levels[here][both] + levels[there][both], minlength=LEVELS**2)
    table = counts.reshape(LEVELS, LEVELS)
    table = table + table.T
    names = ("contrast", "homogeneity", "energy", "correlation")
    if not table.sum():
        return {f"glcm_{name}_{step}": float("nan") for name in names}
    table /= table.sum()
    i, j = np.mgrid[:LEVELS, :LEVELS]
    mean = (i * table).sum()
    variance = ((i - mean) ** 2 * table).sum()
    values = (
        ((i - j) ** 2 * table).sum(), (table / (1 + (i - j) ** 2)).sum(), (table**2).sum(),
        ((i - mean) * (j - mean) * table).sum() / variance if variance > 0 else 1.0,
    )  # fmt: skip
    return {f"glcm_{name}_{step}": float(value) for name, value in zip(names, values, strict=True)}


def _outside(image: Gray, mask: Mask) -> dict[str, float]:
    """The background, away from the breast, and the 8 x 8 blocks that JPEG leaves everywhere."""
    free = ~ndimage.binary_dilation(mask, iterations=max(1, len(image) // 32)) if mask.any() else ~mask
    values = image[free].astype(np.float64) if free.any() else np.zeros(1)
    across = np.abs(np.diff(image.astype(np.float64), axis=1)).mean(0)  # [n - 1]
    down = np.abs(np.diff(image.astype(np.float64), axis=0)).mean(1)
    at_border = np.arange(1, len(image)) % 8 == 0
    steps = [float(one[at_border].mean() / max(one[~at_border].mean(), 1e-3)) for one in (across, down)]
    return {
        "background": float(np.median(values)), "background_p99": float(np.percentile(values, 99)),
        "background_sd": float(values.std()), "blocks": float(np.mean(steps)),
    }  # fmt: skip
