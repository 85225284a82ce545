"""From attenuation to gray: the vendors' looks, the muscle, acquisition noise and the burned-in view marker.

The looks are teaching stylizations that differ as real ones do: width of the field, tone curve, edge
enhancement, and how the thin rim of the breast is equalized. No vendor's processing is copied.
Attenuation is a *contrast*: 0 is a breast of pure fat, 1 one of pure gland, both of full thickness.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from mame_lib.data.anatomy import Shape
from mame_lib.data.texture import F32, Stream, power_law_field

# Linear attenuation at 20 keV per cm (the public VICTRE tables; Badano et al., JAMA Netw. Open 2018).
FAT_PER_CM = 0.5126
GLAND_OVER_FAT_PER_CM = 0.2732


@dataclass(frozen=True)
class Look:
    """How a vendor turns attenuation into gray: width of the image in mm, then the tone curve."""

    side_mm: float
    floor: float  # gray of pure fat, 0..1
    span: float
    gain: float
    gamma: float
    sharpen: float
    sharpen_sigma: float  # fraction of the side
    skin: float
    rim: float  # share of the lost thickness that is given back in excess; 0: exactly equalized
    noise: float


LOOKS = {
    "hologic": Look(179.0, 0.200, 0.59, 1.0, 1.30, 0.40, 0.016, 0.22, 0.060, 0.005),
    "siemens": Look(238.0, 0.190, 0.52, 0.80, 1.10, 0.25, 0.010, 0.13, 0.045, 0.004),
}


def _muscle(stream: Stream, shape: Shape, strength: float) -> F32:
    """Attenuation contrast of the pectoral muscle: thicker toward the corner, streaked along its edge."""
    size = shape.mask.shape[0]
    streaks = power_law_field(stream, 70, size, 2.6, low=3.0, high=48.0)
    wedge = 1.15 - 0.55 * (shape.x + shape.y)
    return np.asarray(shape.pectoral * strength * (wedge + 0.12 * streaks), np.float32)


def _quantum(stream: Stream, contrast: F32, thick: F32, full_mm: float, noise: float) -> F32:
    """Noise on the contrast [n, n]: fewer quanta where more is absorbed, more where a pixel is larger.

    The log of a Poisson count of mean N exp(-A) has standard deviation exp(A / 2) / sqrt(N). `noise` = 1 is
    0.8 % at A = 2 and 512 px, a usual dose.
    """
    full_cm = full_mm / 10
    absorbed = full_cm * (FAT_PER_CM * thick + GLAND_OVER_FAT_PER_CM * np.clip(contrast, 0, 1.5))
    spread = 0.008 * noise * contrast.shape[0] / 512 * np.exp((absorbed - 2) / 2) / (GLAND_OVER_FAT_PER_CM * full_cm)
    return np.asarray(spread * stream.generator(4).standard_normal(contrast.shape, dtype=np.float32), np.float32)


def present(
    stream: Stream,
    shape: Shape,
    thick: F32,
    gland: F32,
    septa: F32,
    look: Look,
    *,
    full_mm: float,
    added: F32 | None = None,
    noise: float = 0.0,
) -> NDArray[np.uint8]:
    """FOR PRESENTATION gray values [n, n], left-facing: contrast, equalized rim, tone curve, noise.

    gland: share of the thickness, 0..1. septa: contrast of strands in fat. added: contrast of a lesion; where
    it is 0 every pixel keeps the gray that it has without a lesion. noise: see `_quantum`.
    """
    size = shape.mask.shape[0]
    rng = stream.generator(3)
    mask = shape.mask
    pixel_mm = look.side_mm / size
    contrast = gland * thick + _muscle(stream, shape, rng.uniform(0.27, 0.40))
    contrast += septa * thick * (1 - 0.4 * shape.pectoral) * (1 - 0.6 * gland)
    # 1.88 = fat / (gland - fat): the rim is thinner, and the vendor gives back a little more than it lost
    contrast += 1.88 * look.rim * (1 - thick)
    # the skin is 1.5 mm thick: where a pixel is larger, its contrast is diluted
    line_mm = max(1.4, 0.8 * pixel_mm)
    contrast += look.skin * (1.8 / line_mm) ** 0.5 * np.exp(-(((shape.skin_mm - 1.2) / line_mm) ** 2))
    away = np.hypot(shape.x - shape.nipple[0], (shape.y - shape.nipple[1]) * 0.8)
    contrast += rng.uniform(0.1, 0.35) * np.exp(-((away / 0.02) ** 2))
    sigma = max(look.sharpen_sigma * size, 0.7)
    contrast = contrast * mask
    cover = ndimage.gaussian_filter(mask.astype(np.float32), sigma) + 1e-3
    contrast += look.sharpen * (contrast - ndimage.gaussian_filter(contrast, sigma) / cover) * mask
    if added is not None:
        contrast += added
    if noise:
        contrast += _quantum(stream, contrast, thick, full_mm, noise)
    contrast = np.clip(contrast, -0.25, 1.6)
    tone = look.floor + look.span * (1 - np.exp(-1.2 * look.gain * contrast)) / (1 - np.exp(-1.2))
    gray = np.clip(tone, 0.02, 1) ** look.gamma
    gray *= _fall(shape.skin_mm, pixel_mm)
    gray += look.noise * rng.standard_normal(gray.shape, dtype=np.float32)
    return np.asarray(np.clip(np.rint(255 * gray * shape.coverage), 1, 255) * mask, np.uint8)


def _fall(skin_mm: F32, pixel_mm: float, depth_mm: float = 0.5) -> F32:
    """Gray left at the very edge, 0..1, which no vendor equalizes: 1 - exp(-d / depth), averaged over a pixel."""
    ratio = np.float32(pixel_mm / depth_mm)
    start = np.clip(skin_mm / np.float32(depth_mm) - ratio / 2, 0, None)
    return np.asarray(1 - np.exp(-start) * (1 - np.exp(-ratio)) / ratio, np.float32)


# Strokes of the marker's letters on a cell 0..1 wide and 0..1 high, y down.
_STROKES: dict[str, tuple[tuple[tuple[float, float], ...], ...]] = {
    "L": (((0.1, 0.0), (0.1, 1.0), (0.75, 1.0)),),
    "R": (((0.1, 1.0), (0.1, 0.0), (0.55, 0.0), (0.75, 0.14), (0.75, 0.36), (0.55, 0.5), (0.1, 0.5)),
          ((0.4, 0.5), (0.78, 1.0))),
    "M": (((0.05, 1.0), (0.05, 0.0), (0.45, 0.65), (0.85, 0.0), (0.85, 1.0)),),
    "O": (((0.3, 0.0), (0.6, 0.0), (0.8, 0.25), (0.8, 0.75), (0.6, 1.0), (0.3, 1.0), (0.1, 0.75), (0.1, 0.25),
           (0.3, 0.0)),),
    "C": (((0.8, 0.2), (0.6, 0.0), (0.3, 0.0), (0.1, 0.25), (0.1, 0.75), (0.3, 1.0), (0.6, 1.0), (0.8, 0.8)),),
    " ": (),
}  # fmt: skip


def burn_marker(image: NDArray[np.uint8], mask: NDArray[np.bool_], text: str) -> NDArray[np.bool_] | None:
    """Write `text` ("R MLO") in strokes into the air of `image`, in place; its pixels [n, n], or None without room.

    The corner is one that the chest wall does not touch, the upper one first; at least 2 % of the side stays
    between marker and breast.
    """
    size = image.shape[0]
    height = max(7.0, 0.045 * size)
    width = 0.8 * height
    wide = round(width * len(text))
    gap = max(2, round(0.02 * size))
    chest_left = mask[:, 0].sum() >= mask[:, -1].sum()
    left = size - gap - wide if chest_left else gap
    for top in (gap, size - gap - round(height)):
        around = mask[max(0, top - gap) : top + round(height) + gap, max(0, left - gap) : left + wide + gap]
        if left >= 0 and not around.any():
            break
    else:
        return None
    y, x = np.mgrid[0:size, 0:size] + 0.5
    near = np.full((size, size), np.inf)
    for place, letter in enumerate(text):
        for stroke in _STROKES[letter]:
            points = np.array(stroke) * (0.85 * width, height) + (left + place * width, top)
            for (x0, y0), (x1, y1) in pairwise(points):
                along = np.clip(((x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)) / np.hypot(x1 - x0, y1 - y0) ** 2, 0, 1)
                near = np.minimum(near, np.hypot(x - x0 - along * (x1 - x0), y - y0 - along * (y1 - y0)))
    ink = np.clip(max(0.5, 0.06 * height) + 0.5 - near, 0, 1) * ~mask
    image[ink > 0] = np.rint(235 * ink[ink > 0]).astype(np.uint8)
    return np.asarray(image * (ink > 0) > 0, bool)
