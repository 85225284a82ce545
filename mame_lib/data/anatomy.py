"""Shape of the phantom's breast: outline, muscle, compressed thickness, nipple frame, vessels.

Lengths are fractions of the image side unless a name says otherwise. The chest wall is at x = 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.interpolate import PchipInterpolator

from mame_lib.data.texture import F32

# Area ratio drawn for each word; 0.02 away from the borders 0.4 and 0.6 (paper, Table 2).
AREA_RANGES = {"small": (0.20, 0.38), "medium": (0.42, 0.58), "big": (0.62, 0.74)}
F64 = NDArray[np.float64]
_FINE = 256  # the outline is solved on this many rows, so that it does not depend on the image size


@dataclass(frozen=True)
class Shape:
    """Geometry of one breast in an image of n x n pixels, left-facing."""

    mask: NDArray[np.bool_]  # [n, n] breast, muscle and nipple included
    coverage: F32  # [n, n] share of the pixel that the breast covers, 0..1
    pectoral: F32  # [n, n] 0..1, soft edge; all zero in a CC view
    nipple: tuple[float, float]  # (x, y)
    skin_mm: F32  # [n, n] distance to the skin, 0 outside
    x: F32  # [n, n] pixel centers, 0..1
    y: F32  # [n, n]


@dataclass(frozen=True)
class _CranioCaudal:
    """Super-ellipse x_e(y) = a (1 - |y - y_n|^q / b^q)^(1/p) with b = a x ratio, lopsided about row y_n."""

    p: float
    q: float
    ratio: float
    lopsided: float
    row: float

    def edge(self, scale: float) -> F64:
        y = (np.arange(_FINE) + 0.5) / _FINE
        half_height = scale * self.ratio * np.where(y < self.row, self.lopsided, 1 / self.lopsided)
        inside = np.clip(1 - np.abs((y - self.row) / half_height) ** self.q, 0, None)
        return np.asarray(scale * inside ** (1 / self.p))


def _cranio_caudal(rng: np.random.Generator) -> _CranioCaudal:
    return _CranioCaudal(
        p=rng.uniform(1.65, 2.15),
        q=rng.uniform(1.75, 2.4),
        ratio=1.22 * rng.uniform(0.85, 1.2),
        lopsided=rng.uniform(0.93, 1.07),
        row=0.5 + rng.uniform(-0.025, 0.025),
    )


def _oblique(rng: np.random.Generator, area: float) -> tuple[F64, float]:
    """Edge (largest value 1) and nipple row of a mediolateral oblique breast; small ones end higher up."""
    top, waist = rng.uniform(0.50, 0.78), rng.uniform(0.72, 0.86)
    low, row = rng.uniform(0.05, 0.30), rng.uniform(0.56, 0.68)
    height = float(np.clip((area / 0.42) ** 0.25, 0.84, 1.04))
    # outside the range of the words (0.20 to 0.74) the breast also shrinks and grows in height, and fills out
    height = height * min(1.0, (area / 0.20) ** 0.4) + 1.2 * max(0.0, area - 0.74)
    low -= 0.5 * max(0.0, 0.20 - area) / 0.20
    knots_y = [-0.08, 0.16, 0.36, row - 0.07, row + 0.03, row + 0.55 * (1 - row), 1.06, 1.5]
    knots_x = [0.9 * top, 1.02 * top, waist, 0.975, 1.0, 0.70 + 0.3 * low, low, 0.6 * low]
    y = (np.arange(_FINE) + 0.5) / _FINE
    edge = np.clip(PchipInterpolator(knots_y, knots_x)(np.minimum(y / height, 1.5)), 0, 1)
    return np.asarray(edge ** (1 - 2.5 * max(0.0, area - 0.74))), row * height


def outline(rng: np.random.Generator, view: str, area: float) -> tuple[F64, float]:
    """Edge x_e of the breast on `_FINE` rows (fractions of the side) and the nipple's row.

    One scale factor is found by bisection so that mean(x_e) is `area`, the drawn breast/image ratio.
    """
    smooth = 0.012 if view == "CC" else 0.03
    if view == "CC":
        ellipse = _cranio_caudal(rng)
        row = ellipse.row
    else:
        profile, row = _oblique(rng, area)

    def edge_at(scale: float) -> F64:
        edge = ellipse.edge(scale) if view == "CC" else scale * profile
        return np.asarray(ndimage.gaussian_filter1d(np.clip(edge, 0, 0.96), smooth * _FINE, mode="nearest"))

    low, high = 0.05, 3.0
    for _ in range(24):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if edge_at(middle).mean() < area else (low, middle)
    return edge_at(0.5 * (low + high)), row


def _nipple_bump(rng: np.random.Generator, edge: F64, row: float) -> F64:
    """The edge with a nipple of 0.6 to 2.2 % of the image side on it."""
    y = (np.arange(_FINE) + 0.5) / _FINE
    height, width = rng.uniform(0.006, 0.022), rng.uniform(0.012, 0.02)
    return edge + height * np.exp(-(((y - row) / width) ** 4))


def _muscle(rng: np.random.Generator, view: str, edge: F64, x: F32, y: F32) -> F32:
    """Pectoral muscle x < x0 (1 - (y/L)^gamma) with a soft edge, 0..1; drawn in MLO views only."""
    reach, length, bend = rng.uniform(0.46, 0.78), rng.uniform(0.38, 0.60), rng.uniform(1.0, 1.6)
    if view == "CC":
        return np.zeros_like(x)
    width = reach * float(edge[: _FINE // 8].mean())
    border = width * (1 - np.clip(y / length, 0, None) ** np.float32(bend))
    soft = max(0.014, 0.7 / x.shape[0])
    return np.asarray(0.5 + 0.5 * np.tanh((border - x) / soft), np.float32)


def build_shape(rng: np.random.Generator, view: str, area: float, size: int, side_mm: float) -> Shape:
    """Draw outline, nipple and muscle and rasterize them; `side_mm` is the image side in mm."""
    edge, row = outline(rng, view, area)
    with_nipple = _nipple_bump(rng, edge, row)
    centers = (np.arange(size, dtype=np.float32) + 0.5) / size
    y, x = (a.astype(np.float32) for a in np.meshgrid(centers, centers, indexing="ij"))  # [n, n]
    rows = (np.arange(_FINE) + 0.5) / _FINE
    coverage = np.zeros((size, size), np.float32)
    for part in (-0.375, -0.125, 0.125, 0.375):  # four strips a pixel row
        border = np.interp(centers + part / size, rows, with_nipple).astype(np.float32)[:, None]
        coverage += 0.25 * np.clip((border - x) * size + 0.5, 0, 1)
    mask = coverage > 0.3
    # the paddle ends at the image: only skin counts as an edge, so the mask is continued past three sides
    padded = np.pad(mask, ((8, 8), (8, 0)), mode="edge")
    distance = ndimage.distance_transform_edt(padded)[8:-8, 8:] - 0.5
    skin_mm = (np.clip(distance, 0, None) * side_mm / size).astype(np.float32)
    muscle = _muscle(rng, view, edge, x, y) * mask
    nipple = (float(np.interp(row, rows, edge)), row)
    return Shape(mask, coverage, muscle.astype(np.float32), nipple, skin_mm, x, y)


def thickness(skin_mm: F32, full_mm: float) -> F32:
    """Compressed thickness relative to its maximum, 0..1: a half-round rim of radius T0/2 (mm)."""
    rim = full_mm / 2
    return np.sqrt(np.clip(1 - (1 - np.minimum(skin_mm, rim) / rim) ** 2, 0, 1)).astype(np.float32)


def vessels(rng: np.random.Generator, shape: Shape) -> F32:
    """Two to five slowly turning vessels as line density [n, n], about 1 on their axis."""
    size = shape.mask.shape[0]
    field = np.zeros((size, size), np.float32)
    for _ in range(int(rng.integers(2, 6))):
        start = np.array([rng.uniform(0.05, 0.35), rng.uniform(0.15, 0.9)])
        toward = np.arctan2(shape.nipple[1] - start[1], shape.nipple[0] - start[0])
        turns = np.cumsum(rng.normal(0, 0.09, 256)) * 0.35 + rng.normal(0, 0.45)
        strength = rng.uniform(0.5, 1.0)
        heading = np.stack([np.cos(toward + turns), np.sin(toward + turns)], 1)  # [256, 2]
        steps = 0.5 * heading / 256 * rng.uniform(0.5, 1.4)
        path = (start + np.cumsum(steps, 0)) * size  # [256, 2] pixels
        fade = np.linspace(1, 0.3, 256) * strength * (np.hypot(*steps[0]) * size)
        column, row = path[:, 0].astype(int), path[:, 1].astype(int)
        ok = (column >= 0) & (column < size) & (row >= 0) & (row < size)
        np.add.at(field, (row[ok], column[ok]), fade[ok])
    sigma = max(0.0022 * size, 0.55)
    return np.asarray(ndimage.gaussian_filter(field, sigma) * (2.5 * sigma), np.float32)
