"""Lesions put into a phantom's breast, with their boxes and masks: masses and clusters of microcalcifications.

A mass is a thickness profile behind an outline; its contrast is that of a tumor in the place of the tissue it
displaces. A cluster is a handful of specks of 0.1 to 0.5 mm: below the pixel size their contrast falls with
(diameter / pixel)^2, which is why a 512-px image shows so few of them. A lesion's mask is where its profile
exceeds 12 % of its largest value, and its box is the extent of the mask.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from mame_lib.data.anatomy import Shape
from mame_lib.data.looks import FAT_PER_CM, GLAND_OVER_FAT_PER_CM
from mame_lib.data.outlines import mass_profile, reach
from mame_lib.data.texture import F32, Stream
from mame_lib.errors import InputError

KINDS = ("mass", "calcifications")
SHAPES = ("round", "oval", "lobular", "irregular")
MARGINS = ("circumscribed", "obscured", "indistinct", "spiculated")

# Box area at 512 px: the log-normal with the quartiles 720 and 3721 px of the paper's masks, cut at its ends.
# Box height / width: log-normal with the paper's mean 1.15 and standard deviation 0.50, cut.
_LOG_AREA, _AREA_CUT = (np.log(1637.0), 1.217), (160.0, 30_000.0)
_LOG_ASPECT, _ASPECT_CUT = (0.056, 0.415), (0.4, 3.0)
_TUMOR = 1.17  # contrast of a tumor over fat, where gland has 1 (mass density 1.06 g/cm3)
_EXCESS = 1.5  # masses stand out more than their thickness alone would make them: stylized
_DISPLACED = 0.7  # share of the strands that a mass takes the place of
_CALCIUM_PER_CM = 9.75  # calcium oxalate at 20 keV (VICTRE tables)
_EDGE = 0.12
_SMALLEST = 3  # pixels: no box is narrower


@dataclass(frozen=True)
class LesionSpec:
    """What lesion to draw; what is None is drawn from the phantom's own random stream.

    kind, shape, margin: words of `KINDS`, `SHAPES`, `MARGINS` (shape and margin are those of a mass).
    area: box area / image area, 0..0.25. aspect: box height / width, 0.2..5. center: (x, y) of the box as
    fractions of the side of the image as returned. contrast: the largest added attenuation, 1 being the
    difference between a breast of pure fat and one of pure gland, 0..1.5. variant: another lesion, same breast.

    Raises
    ------
    InputError
        If a word is unknown or a number is out of range.
    """

    kind: str | None = None
    shape: str | None = None
    margin: str | None = None
    area: float | None = None
    aspect: float | None = None
    center: tuple[float, float] | None = None
    contrast: float | None = None
    variant: int = 0

    def __post_init__(self) -> None:
        for name, words in (("kind", KINDS), ("shape", SHAPES), ("margin", MARGINS)):
            value = getattr(self, name)
            if value is not None and value not in words:
                raise InputError(f"lesion {name} {value!r} is unknown; use one of {', '.join(words)}.")
        if self.kind == "calcifications" and (self.shape or self.margin):
            raise InputError("calcifications have no shape or margin here; leave both unsaid or ask for a mass.")
        for name, low, high in (("area", 0.0, 0.25), ("aspect", 0.2, 5.0), ("contrast", 0.0, 1.5)):
            number = getattr(self, name)
            if number is not None and not (low < number <= high or number == low > 0):
                raise InputError(f"lesion {name} {number} is out of range; use {low:g} to {high:g}.")
        if self.center is not None and not all(0 < part < 1 for part in self.center):
            raise InputError(f"lesion center {self.center} is outside the image; use fractions of the side, 0 to 1.")
        if not isinstance(self.variant, int) or self.variant < 0:
            raise InputError(f"lesion variant {self.variant} is not possible; use a whole number, 0 or more.")

    def mirrored(self) -> LesionSpec:
        """The same request in the mirrored image."""
        return self if self.center is None else replace(self, center=(1 - self.center[0], self.center[1]))


    @classmethod
    def of_finding(cls, finding: str, chance: float = 0.0, area: float | None = None) -> LesionSpec:
        """What a word of `FINDINGS` asks for; `chance` 0..1 draws the margin of a mass that is not spiculated."""
        if finding == "lesion":
            return cls(area=area)
        if finding == "calcification cluster":
            return cls(kind="calcifications", area=area)
        margin = "spiculated" if finding == "spiculated mass" else MARGINS[int(3 * chance)]
        return cls(kind="mass", margin=margin, area=area)


@dataclass(frozen=True)
class Lesion:
    """One lesion and its truth.

    box: half-open pixels (x0, y0, x1, y1), the extent of mask, bool [n, n]. contrast: largest added attenuation
    (see `LesionSpec`). shape and margin are None for calcifications.
    """

    kind: str
    shape: str | None
    margin: str | None
    box: tuple[int, int, int, int]
    mask: NDArray[np.bool_]
    contrast: float

    def mirrored(self) -> Lesion:
        """The lesion in the mirrored image."""
        size = self.mask.shape[1]
        x0, y0, x1, y1 = self.box
        return replace(self, box=(size - x1, y0, size - x0, y1), mask=self.mask[:, ::-1].copy())


def insert(
    spec: LesionSpec, stream: Stream, shape: Shape, thick: F32, gland: F32, *, full_mm: float, side_mm: float
) -> tuple[Lesion, F32]:
    """Draw the lesion `spec` into a left-facing breast: its truth, and its contrast [n, n], 0 outside it.

    It keeps off skin, nipple, muscle and air, and prefers gland. One whose size was drawn is made smaller until
    it fits; full_mm and side_mm are the compressed thickness and the image side.

    Raises
    ------
    InputError
        If a place or a size was asked for that does not fit.
    """
    size = shape.mask.shape[0]
    rng = stream.generator(5, spec.variant)
    whole = _complete(spec, rng, side_mm)
    assert whole.area and whole.aspect and whole.kind
    width = max(float(np.sqrt(whole.area / whole.aspect)) * size, _SMALLEST)  # pixels
    height = max(float(np.sqrt(whole.area * whole.aspect)) * size, _SMALLEST)
    place = rng.uniform(size=2)
    free = _free(shape)
    center = _locate(spec, free, gland, width, height, place)
    while center is None and spec.area is None and spec.center is None and min(width, height) > _SMALLEST:
        width, height = max(0.85 * width, _SMALLEST), max(0.85 * height, _SMALLEST)
        center = _locate(spec, free, gland, width, height, place)
    if center is None:
        where = "anywhere in" if spec.center is None else f"at {spec.center} of"
        raise InputError(
            f"a lesion of {width:.0f} x {height:.0f} pixels does not fit {where} this breast, off its skin, nipple "
            "and muscle; ask for a smaller area or another center."
        )
    if whole.kind == "mass":
        profile = mass_profile(rng, (size, size), center, (width, height), str(whole.shape), str(whole.margin))
        window = reach((size, size), center, (width, height))
        tissue = gland * thick
        smooth = tissue.copy()  # [n, n], without its strands where the mass lies
        smooth[window] = ndimage.gaussian_filter(tissue[window], 0.25 * min(width, height))
        minor_mm = min(width, height) * side_mm / size
        share = np.clip(_EXCESS * np.minimum(minor_mm, 0.5 * full_mm * thick) / full_mm, 0.18, 0.75)
        raised = profile * share * (_TUMOR - 0.5 * smooth) * rng.uniform(0.85, 1.15)
        displaced = _DISPLACED * profile * (tissue - smooth)
    else:
        raised = _specks(rng, size, center, (width, height), side_mm, full_mm)
        # specks too faint for the mask are left out, lest something of the lesion lie outside its box
        raised *= ndimage.binary_dilation(raised > _EDGE * raised.max())
        profile, displaced = raised, np.zeros_like(raised)
    mask = profile > _EDGE * profile.max()
    peak = float(raised.max())
    scale = 1.0 if spec.contrast is None else spec.contrast / peak
    added = ((np.float32(scale) * raised - displaced) * shape.mask).astype(np.float32)
    lesion = Lesion(whole.kind, whole.shape, whole.margin, _box(mask), mask, scale * peak)
    return lesion, added


def _complete(spec: LesionSpec, rng: np.random.Generator, side_mm: float) -> LesionSpec:
    """All that is unsaid, drawn in a fixed order, so that saying one thing never changes another."""
    kind = "mass" if rng.uniform() < 0.75 else "calcifications"
    logs = rng.normal(size=16)
    area, aspect = (
        np.exp(_within(mean + sd * draws, np.log(cut), mean))
        for (mean, sd), cut, draws in ((_LOG_AREA, _AREA_CUT, logs[:8]), (_LOG_ASPECT, _ASPECT_CUT, logs[8:]))
    )
    cluster_mm = rng.uniform(5, 15)
    guess, border = rng.uniform(size=2)
    kind = spec.kind or ("mass" if spec.shape or spec.margin else kind)
    if kind == "calcifications":
        area = (cluster_mm / side_mm * 512) ** 2
        shape = margin = None
    else:
        margin = spec.margin or MARGINS[int(border * 4)]
        words = ("irregular",) if margin == "spiculated" else SHAPES if margin != "circumscribed" else SHAPES[:3]
        shape = spec.shape or words[int(guess * len(words))]
        if shape == "round":
            aspect = aspect**0.2  # a round mass is nearly as high as wide
    return LesionSpec(
        kind, shape, margin, spec.area or min(area / 512**2, 0.25), spec.aspect or float(aspect),
        spec.center, spec.contrast, spec.variant,
    )  # fmt: skip


def _within(values: NDArray[np.float64], cut: NDArray[np.float64], otherwise: float) -> float:
    """The first of several draws that lies within `cut`."""
    good = values[(values >= cut[0]) & (values <= cut[1])]
    return float(good[0]) if good.size else otherwise


def _free(shape: Shape) -> NDArray[np.bool_]:
    """Pixels a lesion may cover [n, n]: off the skin, the nipple and the muscle."""
    size = shape.mask.shape[0]
    skin = ndimage.distance_transform_edt(np.pad(shape.mask, ((1, 1), (1, 0)), mode="edge"))[1:-1, 1:]
    away = np.hypot(shape.x - shape.nipple[0], shape.y - shape.nipple[1])
    return np.asarray((skin > max(2.0, 0.018 * size)) & (away > 0.05) & (shape.pectoral < 0.02) & shape.mask)


def _locate(
    spec: LesionSpec, free: NDArray[np.bool_], gland: F32, width: float, height: float, place: NDArray[np.float64]
) -> tuple[float, float] | None:
    """Center (x, y) in pixels of a box that lies within `free`, where gland weighs most; None if there is none."""
    size = free.shape[0]
    room = (int(np.ceil(height)) + 2, int(np.ceil(width)) + 2)
    fits = ndimage.minimum_filter(free, room, mode="constant", cval=False)
    if spec.center is not None:
        x, y = spec.center[0] * size, spec.center[1] * size
        return (x, y) if fits[int(y), int(x)] else None
    weight = fits * (0.1 + ndimage.uniform_filter(gland, max(3, size // 32)))  # [n, n]
    rows = np.cumsum(weight.sum(1))
    if rows[-1] <= 0:
        return None
    # row first, then column within it: a small change of the weights moves the place only a little
    row = int(np.searchsorted(rows, place[0] * rows[-1], side="right"))
    columns = np.cumsum(weight[row])
    column = int(np.searchsorted(columns, place[1] * columns[-1], side="right"))
    return column + 0.5, row + 0.5


def _specks(
    rng: np.random.Generator,
    size: int,
    center: tuple[float, float],
    box: tuple[float, float],
    side_mm: float,
    full_mm: float,
) -> F32:
    """Contrast [n, n] of 5 to 30 spheres of 0.1 to 0.5 mm, averaged over each pixel from 0.07 mm samples."""
    pixel_mm = side_mm / size
    count = int(rng.integers(5, 31))
    radius_mm = 0.5 * np.clip(rng.lognormal(np.log(0.36), 0.35, 30), 0.1, 0.5)
    angle, far = rng.uniform(0, 2 * np.pi, 30), rng.uniform(0.0, 1.0, 30) ** 0.65  # denser in the middle
    spots = (far * np.stack([np.cos(angle), np.sin(angle)]))[:, :count]  # [2, count]
    spots = (spots - spots.min(1, keepdims=True)) / np.ptp(spots, axis=1, keepdims=True) - 0.5  # fill the box
    fine = max(1, int(np.ceil(pixel_mm / 0.07)))
    top, left = (int(middle - extent / 2) - 2 for middle, extent in zip(center[::-1], box[::-1], strict=True))
    rows, columns = int(box[1]) + 6, int(box[0]) + 6
    path = np.zeros((rows * fine, columns * fine))  # mm of calcium
    y, x = np.mgrid[0 : rows * fine, 0 : columns * fine]
    for right, below, radius in zip(*spots, radius_mm[:count], strict=True):
        across = center[0] + max(box[0] - 1, 0) * right - left  # pixels of the patch
        down = center[1] + max(box[1] - 1, 0) * below - top
        far_off = int(np.ceil(radius / pixel_mm * fine)) + 1
        row, column = int(down * fine), int(across * fine)
        near = slice(max(0, row - far_off), row + far_off + 1), slice(max(0, column - far_off), column + far_off + 1)
        squared = ((x[near] + 0.5) / fine - across) ** 2 + ((y[near] + 0.5) / fine - down) ** 2
        path[near] += 2 * np.sqrt(np.clip(radius**2 - squared * pixel_mm**2, 0, None))
    mean = path.reshape(rows, fine, columns, fine).mean((1, 3))  # [rows, columns]
    per_mm = (_CALCIUM_PER_CM - FAT_PER_CM) / GLAND_OVER_FAT_PER_CM / full_mm
    field = np.zeros((size, size), np.float32)
    y0, x0, y1, x1 = max(top, 0), max(left, 0), min(top + rows, size), min(left + columns, size)
    field[y0:y1, x0:x1] = mean[y0 - top : y1 - top, x0 - left : x1 - left] * per_mm
    return field


def _box(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Half-open extent (x0, y0, x1, y1) of the true pixels."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
