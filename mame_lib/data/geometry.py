"""From a mammogram of any shape to the paper's square: face left, shorter side to `size`, centre crop.

One `SquareTransform` moves the image, its masks and its boxes, so they cannot drift apart. Coordinates follow
the edge convention: pixel k covers [k, k + 1), boxes are half-open (x0, y0, x1, y1), and a flip is
x -> width - x.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mame_lib.errors import InputError

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class SquareTransform:
    """Flip, move to the left edge, scale and crop an image of `height` x `width` pixels to `size` x `size`.

    gap: empty columns to remove on the left after the flip; as many are added on the right (paper: 0).
    """

    height: int
    width: int
    size: int
    flip: bool = False
    gap: int = 0

    def __post_init__(self) -> None:
        if min(self.height, self.width, self.size) < 1:
            raise InputError(
                f"an image of {self.height} x {self.width} cannot become {self.size} x {self.size}."
            )
        if not 0 <= self.gap < self.width:
            raise InputError(f"gap {self.gap} is not between 0 and the width {self.width}.")

    @property
    def resized(self) -> tuple[int, int]:
        """(height, width) in pixels before the crop: shorter side `size`, longer side rounded down."""
        short = min(self.height, self.width)
        return self.size * self.height // short, self.size * self.width // short

    @property
    def corner(self) -> tuple[int, int]:
        """(top, left) of the crop in the resized image; halves are rounded to even, as torchvision does."""
        tall, wide = self.resized
        return round((tall - self.size) / 2), round((wide - self.size) / 2)

    @property
    def scale(self) -> tuple[float, float]:
        """(vertical, horizontal) stored pixels per source pixel; nearly the same (rounding)."""
        return self.resized[0] / self.height, self.resized[1] / self.width

    def image(self, image: NDArray[Any]) -> NDArray[np.float32]:
        """[height, width] of any range -> float32 [size, size] of that range; bilinear with antialiasing."""
        return self._apply(np.asarray(image, np.float32), Image.Resampling.BILINEAR)

    def mask(self, mask: NDArray[Any]) -> NDArray[np.bool_]:
        """[height, width] of zero and nonzero -> bool [size, size]; nearest pixel, crop as `image`."""
        return self._apply((np.asarray(mask) != 0).astype(np.float32), Image.Resampling.NEAREST) > 0.5

    def edges(self, box: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
        """Where the edges of a source box come to lie, in stored pixels, before clipping and rounding."""
        x0, y0, x1, y1 = box
        if self.flip:
            x0, x1 = self.width - x1, self.width - x0
        (down, across), (top, left) = self.scale, self.corner
        return (
            (x0 - self.gap) * across - left,
            y0 * down - top,
            (x1 - self.gap) * across - left,
            y1 * down - top,
        )

    def box(self, box: tuple[float, float, float, float], *, keep: float = 0.25) -> Box | None:
        """The stored box, clipped to the frame and rounded to whole pixels, or None if it did not survive.

        keep: smallest share of the box's area that must remain in the frame (0 to 1). A box that
        survives is at least one pixel wide and high.
        """
        x0, y0, x1, y1 = edges = self.edges(box)
        if not (x0 < x1 and y0 < y1):
            raise InputError(f"box {tuple(box)} is empty or turned around; give x0 < x1 and y0 < y1.")
        cx0, cy0, cx1, cy1 = (min(max(edge, 0.0), float(self.size)) for edge in edges)
        inside = max(cx1 - cx0, 0.0) * max(cy1 - cy0, 0.0)
        if inside <= 0 or inside < keep * (x1 - x0) * (y1 - y0):
            return None
        left, right = _pixels(cx0, cx1, self.size)
        top, bottom = _pixels(cy0, cy1, self.size)
        return left, top, right, bottom

    def _apply(self, image: NDArray[np.float32], resampling: Image.Resampling) -> NDArray[np.float32]:
        if image.shape != (self.height, self.width):
            raise InputError(
                f"image shape {image.shape} does not match the transform's {self.height, self.width}."
            )
        if self.flip:
            image = image[:, ::-1]
        if self.gap:
            image = np.concatenate(
                [image[:, self.gap :], image[:, : self.gap]], axis=1
            )  # [H, W], gap to the right
        tall, wide = self.resized
        top, left = self.corner
        picture = Image.fromarray(np.ascontiguousarray(image)).resize((wide, tall), resampling)
        return np.asarray(picture.crop((left, top, left + self.size, top + self.size)), np.float32)


def _pixels(low: float, high: float, size: int) -> tuple[int, int]:
    """Edges rounded to the nearest whole pixel, at least one pixel apart."""
    first, last = round(low), round(high)
    if first == last:
        first = min(int(low), size - 1)
        last = first + 1
    return first, last


def to_square(image: NDArray[Any], size: int) -> NDArray[np.float32]:
    """The paper's resize and centre crop: [H, W] -> float32 [size, size], same range.

    Of a tall detector image this cuts 19 to 23 % of the height (paper, Fig. 2).
    """
    height, width = _shape(image)
    return SquareTransform(height, width, size).image(image)


def face_left(image: NDArray[Any]) -> tuple[NDArray[Any], bool]:
    """Mirror an image [H, W] so that the chest wall is on the left; returns (image, flipped).

    Decided by the pixels, never by a header: of the columns that hold tissue, the half with more
    tissue is the chest-wall half, since a breast tapers toward the nipple.
    """
    flipped = faces_right(image)
    return (np.ascontiguousarray(np.asarray(image)[:, ::-1]), True) if flipped else (np.asarray(image), False)


def faces_right(image: NDArray[Any]) -> bool:
    """Whether the chest wall of an image [H, W] is on the right."""
    columns = _tissue(image).sum(axis=0)  # [W] tissue pixels
    occupied = np.flatnonzero(columns)
    if not len(occupied):
        return False
    held = columns[occupied[0] : occupied[-1] + 1]
    half = len(held) // 2
    return bool(held[len(held) - half :].sum() > held[:half].sum())


def left_gap(image: NDArray[Any]) -> int:
    """Empty columns left of the tissue; some collections pad their images on the chest-wall side."""
    columns = _tissue(image).mean(axis=0)  # [W] share of tissue
    occupied = np.flatnonzero(columns > 0.02)  # a thin marker or a speck is not the chest wall
    return int(occupied[0]) if len(occupied) else 0


def _shape(image: NDArray[Any]) -> tuple[int, int]:
    array = np.asarray(image)
    if array.ndim != 2:
        raise InputError(f"an image must be gray, [height, width]; this one has shape {array.shape}.")
    return int(array.shape[0]), int(array.shape[1])


def _tissue(image: NDArray[Any]) -> NDArray[np.bool_]:
    """Pixels brighter than the background, [H, W].

    The background may not be 0 (generated images): it is the darkest gray that fills 5 % of the image.
    """
    _shape(image)
    values = np.asarray(image, np.float32)
    low, high = float(values.min()), float(np.percentile(values, 99))
    if not high > low:
        return np.zeros(values.shape, bool)
    counts, bins = np.histogram(values, bins=128, range=(low, high))
    common = np.flatnonzero(counts >= 0.05 * values.size)
    background = float(bins[(common[0] if len(common) else 0) + 1])
    return values > background + 0.05 * (high - background)
