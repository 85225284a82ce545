"""Read a mammogram's attributes back from its pixels, each with its uncertainty: `measure`, `measure_all`.

Area and laterality are read off the breast's mask; view, muscle, density and vendor look by the small network of
`mame_lib.evaluation.reader`, which was trained on phantoms alone. On images from elsewhere the view is worth asking
for; the muscle is mostly missed there, the density index and its uncertainty assume the phantom's stylized gray
scale, and the vendor look *is* that stylization. benchmarks/results/attributes.json holds what each measure is worth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.special import expit, ndtr

from mame_lib.data.case import AREAS, DENSITIES, VENDORS, VIEWS, Attributes, area_class
from mame_lib.data.masks import Mask, breast_mask, chest_wall_side
from mame_lib.errors import InputError
from mame_lib.evaluation.reader import Frame, load_reader, network_input, read

AREA_CUTS = (0.4, 0.6)  # paper, Table 2
# Class borders on the glandular fraction: midway (in sqrt) between the phantom's neighboring ranges.
DENSITY_CUTS = (0.089, 0.191, 0.359)
SMALLEST = 32  # pixels of the side

_THUMBNAIL = 128  # how the outline depends on the threshold is judged at this side
_SENSITIVITIES = (0.75, 1.33)
# Found on phantoms as drawn, reconstructed and damaged: sd of the area ratio = hypot(first, second x half its range
# over the sensitivities), too wide on clean images; sd of the muscle's share = hypot(first, second x half its range
# over log-odds of -1 to 1).
_AREA_SD = (0.0005, 2.6)
_MUSCLE_SD = (0.003, 0.8)
SMALLEST_BREAST = 0.005  # a smaller share of the image is no breast
_NOTHING = {"view": 0.0, "vendor": 0.0, "root": 0.0, "root_sd": 1.0}  # the row of an image without a breast


@dataclass(frozen=True)
class Measured:
    """What the pixels say. Standard deviations hold for phantoms and for what the tiny autoencoder makes of them.

    mask: bool [n, n], the breast. area_ratio: breast pixels / all pixels, with its sd and the chances of each word
    of `AREAS`. view_score, vendor_score: probability of MLO, of Siemens, 0..1. laterality: side of the chest wall,
    L = left side of the image; laterality_score: that side's share of the mask in both border columns, 0.5..1.
    pectoral: bool [n, n], the muscle, empty in CC views; pectoral_share: its pixels / all pixels, with its sd.
    density_index: estimate of the volumetric glandular fraction, 0..1, with its sd and the chances of each word of
    `DENSITIES`. vendor: which of the phantom's two looks the gray scale resembles.
    """

    mask: Mask
    area_ratio: float
    area_ratio_sd: float
    area: str
    area_chances: tuple[float, ...]
    view: str
    view_score: float
    laterality: str
    laterality_score: float
    pectoral: Mask
    pectoral_share: float
    pectoral_share_sd: float
    density_index: float
    density_index_sd: float
    density: str
    density_chances: tuple[float, ...]
    vendor: str
    vendor_score: float

    def chances(self, asked: Attributes) -> dict[str, float]:
        """For each attribute that `asked` names and pixels can show, the chance 0..1 that it is as asked."""
        tables = {
            "vendor": {"siemens": self.vendor_score, "hologic": 1 - self.vendor_score},
            "view": {"MLO": self.view_score, "CC": 1 - self.view_score},
            "area": dict(zip(AREAS, self.area_chances, strict=True)),
            "density": dict(zip(DENSITIES, self.density_chances, strict=True)),
        }
        return {name: table[word] for name, table in tables.items() if (word := getattr(asked, name)) is not None}


def measure(image: NDArray[np.uint8]) -> Measured:
    """Read the attributes of a uint8 [n, n] mammogram, n >= 32, either facing; about 9 ms at 128 px, 17 at 512.

    An image without a breast gives an empty mask, area small, CC, L, density very low with index 0, and chances
    that say nothing.

    Raises
    ------
    InputError
        If `image` is not a square uint8 array of 32 pixels or more.
    """
    return measure_all([image])[0]


def measure_all(images: Sequence[NDArray[np.uint8]] | NDArray[np.uint8]) -> list[Measured]:
    """`measure` of many images, uint8 [n, n] each, of one size or several; the network sees them in batches.

    Raises
    ------
    InputError
        As `measure`.
    """
    for image in images:
        _check(image)
    masks = [breast_mask(image) for image in images]
    sides = [chest_wall_side(mask) for mask in masks]
    frames: dict[int, Frame] = {}
    inputs = []
    for k, (image, mask, side) in enumerate(zip(images, masks, sides, strict=True)):
        if mask.mean() >= SMALLEST_BREAST:
            faced = _facing_left(mask, side)
            frames[k] = Frame.around(faced)
            inputs.append(network_input(_facing_left(image, side), faced, frames[k]))
    said = read(np.stack(inputs)) if inputs else {}
    rows = {k: {name: values[row] for name, values in said.items()} for row, k in enumerate(frames)}
    return [
        _measured(image, masks[k], sides[k], rows.get(k, _NOTHING), frames.get(k)) for k, image in enumerate(images)
    ]


def _check(image: NDArray[np.uint8]) -> None:
    if image.ndim != 2 or image.shape[0] != image.shape[1] or image.dtype != np.uint8 or len(image) < SMALLEST:
        raise InputError(
            f"measure needs a square uint8 image of {SMALLEST} pixels or more, not {image.dtype} {image.shape}; "
            "use mame_lib.data.geometry.to_square."
        )


def _facing_left(values: NDArray[Any], side: str) -> NDArray[Any]:
    return values if side == "L" else values[:, ::-1]


def _measured(image: NDArray[np.uint8], mask: Mask, side: str, said: dict[str, Any], frame: Frame | None) -> Measured:
    """Words, shares and uncertainties from the mask [n, n] and the network's row for this image."""
    ratio, ratio_sd = float(mask.mean()), _area_sd(image)
    view_score, vendor_score = float(expit(said["view"])), float(expit(said["vendor"]))
    view, vendor = VIEWS[int(view_score > 0.5)], VENDORS[int(vendor_score > 0.5)]
    muscle, share, share_sd = np.zeros_like(mask), 0.0, 0.0
    if frame is not None and view == "MLO":
        muscle, share, share_sd = _muscle(said["muscle"], mask, side, frame)
    root, root_sd = float(np.clip(said["root"], 0, 1)), float(said["root_sd"])
    chances = _chances(root, root_sd * float(load_reader().scale[3]), np.sqrt(DENSITY_CUTS))
    return Measured(
        mask=mask,
        area_ratio=ratio,
        area_ratio_sd=ratio_sd,
        area=area_class(ratio),
        area_chances=_chances(ratio, ratio_sd, AREA_CUTS),
        view=view,
        view_score=view_score,
        laterality=side,
        laterality_score=_side_share(mask, side),
        pectoral=muscle,
        pectoral_share=share,
        pectoral_share_sd=share_sd,
        density_index=root**2,
        density_index_sd=float(np.hypot(2 * root * root_sd, root_sd**2)),  # of a square, to second order
        density=DENSITIES[int(np.searchsorted(DENSITY_CUTS, root**2))],
        density_chances=chances,
        vendor=vendor,
        vendor_score=vendor_score,
    )


def _area_sd(image: NDArray[np.uint8]) -> float:
    """Standard deviation of the area ratio, from how far the outline moves with the threshold."""
    factor = -(-len(image) // _THUMBNAIL)
    small = image if factor == 1 else np.asarray(Image.fromarray(np.ascontiguousarray(image)).reduce(factor))
    low, high = (float(breast_mask(small, sensitivity=s).mean()) for s in _SENSITIVITIES)
    return float(np.hypot(_AREA_SD[0], _AREA_SD[1] * 0.5 * abs(low - high)))


def _side_share(mask: Mask, side: str) -> float:
    """Share of the mask in both border columns (1/32 of the width) that lies on `side`; 0.5 where there is none."""
    strip = max(1, mask.shape[1] // 32)
    left, right = int(mask[:, :strip].sum()), int(mask[:, -strip:].sum())
    return (left if side == "L" else right) / (left + right) if left + right else 0.5


def _muscle(logits: NDArray[np.float64], mask: Mask, side: str, frame: Frame) -> tuple[Mask, float, float]:
    """Pectoral muscle [n, n] from log-odds on the frame [MAP, MAP], its share of the image and the share's sd."""
    spread = _facing_left(frame.spread(logits.astype(np.float32)), side)  # [n, n]
    muscle = (spread > 0) & mask
    least, most = (float(((spread > level) & mask).mean()) for level in (1, -1))
    return muscle, float(muscle.mean()), float(np.hypot(_MUSCLE_SD[0], _MUSCLE_SD[1] * 0.5 * (most - least)))


def _chances(value: float, sd: float, cuts: Sequence[float] | NDArray[np.float64]) -> tuple[float, ...]:
    """Chances of the classes between `cuts` of a quantity that is normal about `value`; they sum to 1."""
    below = ndtr((np.array([-np.inf, *cuts, np.inf]) - value) / sd)
    return tuple(float(chance) for chance in np.diff(below))
