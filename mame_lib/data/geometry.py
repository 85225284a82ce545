"""From a mammogram of any shape to a square: face left, scale, and crop (the paper) or pad (nothing lost).

One `SquareTransform` moves the image, its masks and its boxes, and back, so they cannot drift apart. Coordinates
follow the edge convention: pixel k covers [k, k + 1), boxes are half-open (x0, y0, x1, y1), and a flip is
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
FloatBox = tuple[float, float, float, float]
FITS = ("crop", "pad")
KEEP = 0.25  # a box of which the crop leaves less than this share is not kept
SIZES = (64, 1024)  # smallest and largest side of a stored image, pixels
THUMBNAIL = 256  # sides are judged on about this many pixels: finer detail does not move a chest wall


def check_size(size: int) -> None:
    """Raise InputError unless an image of `size` x `size` pixels can be stored: a multiple of 8 within `SIZES`."""
    if not SIZES[0] <= size <= SIZES[1] or size % 8:
        raise InputError(
            f"size {size} is not possible; use a multiple of 8 from {SIZES[0]} to {SIZES[1]} pixels."
        )


@dataclass(frozen=True)
class SquareTransform:
    """Flip, move to the left edge, scale and fit an image of `height` x `width` pixels to `size` x `size`.

    gap: empty columns to remove on the left after the flip; as many are added on the right (paper: 0).
    fit: "crop" scales the shorter side to `size` and cuts the longer one about its center (paper, Fig. 2);
    "pad" scales the longer side to `size` and adds black: at the right of a tall image, whose chest wall stays
    at x = 0, above and below a wide one.

    Raises
    ------
    InputError
        If a length is not positive, the gap is as wide as the image, or the fit is unknown.
    """

    height: int
    width: int
    size: int
    flip: bool = False
    gap: int = 0
    fit: str = "crop"

    def __post_init__(self) -> None:
        if min(self.height, self.width, self.size) < 1:
            raise InputError(
                f"an image of {self.height} x {self.width} cannot become {self.size} x {self.size}."
            )
        if not 0 <= self.gap < self.width:
            raise InputError(f"gap {self.gap} is not between 0 and the width {self.width}.")
        if self.fit not in FITS:
            raise InputError(f"fit {self.fit!r} is unknown; use {' or '.join(FITS)}.")

    @property
    def resized(self) -> tuple[int, int]:
        """(height, width) in pixels after scaling; the side that is not `size` is rounded down."""
        sides = (self.height, self.width)
        base = min(sides) if self.fit == "crop" else max(sides)
        return max(1, self.size * self.height // base), max(1, self.size * self.width // base)

    @property
    def corner(self) -> tuple[int, int]:
        """(top, left) of the square in the resized image, negative where it is padded.

        Halves are rounded to even, as torchvision does; the padding of a tall image is all on the right.
        """
        tall, wide = self.resized
        left = 0 if self.fit == "pad" else round((wide - self.size) / 2)
        return round((tall - self.size) / 2), left

    @property
    def scale(self) -> tuple[float, float]:
        """(vertical, horizontal) stored pixels per source pixel; nearly the same (rounding)."""
        return self.resized[0] / self.height, self.resized[1] / self.width

    def image(self, image: NDArray[Any]) -> NDArray[np.float32]:
        """[height, width] of any range -> float32 [size, size] of that range; bilinear with antialiasing."""
        return self._apply(np.asarray(image, np.float32), Image.Resampling.BILINEAR)

    def mask(self, mask: NDArray[Any]) -> NDArray[np.bool_]:
        """[height, width] of zero and nonzero -> bool [size, size]; nearest pixel, frame as `image`."""
        return self.labels((np.asarray(mask) != 0).astype(np.uint8)) != 0

    def labels(self, labels: NDArray[Any]) -> NDArray[np.int32]:
        """[height, width] of whole numbers (one for each lesion) -> int32 [size, size]; nearest pixel."""
        return self._apply(np.asarray(labels, np.int32), Image.Resampling.NEAREST).astype(np.int32)

    def edges(self, box: FloatBox) -> FloatBox:
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

    def source(self, box: FloatBox) -> FloatBox:
        """The inverse of `edges`: a box in stored pixels -> where it lies in the source image."""
        x0, y0, x1, y1 = box
        (down, across), (top, left) = self.scale, self.corner
        x0, x1 = (x0 + left) / across + self.gap, (x1 + left) / across + self.gap
        if self.flip:
            x0, x1 = self.width - x1, self.width - x0
        return x0, (y0 + top) / down, x1, (y1 + top) / down

    def share(self, box: FloatBox) -> float:
        """Share of a source box that the frame keeps, 0 to 1; what lay outside the source does not count.

        Raises
        ------
        InputError
            If the box is empty or turned around.
        """
        x0, y0, x1, y1 = box
        if not (x0 < x1 and y0 < y1):
            raise InputError(f"box {tuple(box)} is empty or turned around; give x0 < x1 and y0 < y1.")
        real = _area(_clipped(box, self.width, self.height))
        if real <= 0:
            return 0.0
        down, across = self.scale
        inside = _clipped(self.edges(_clipped(box, self.width, self.height)), self.size, self.size)
        return min(1.0, _area(inside) / (real * down * across))

    def box(self, box: FloatBox, *, keep: float = KEEP) -> Box | None:
        """The stored box, clipped to the frame and rounded to whole pixels, or None if it did not survive.

        keep: smallest `share` of the box that must remain (0 to 1). A box that survives is at least one
        pixel wide and high.
        """
        share = self.share(box)
        if share <= 0 or share < keep:
            return None
        x0, y0, x1, y1 = _clipped(self.edges(box), self.size, self.size)
        left, right = _pixels(x0, x1, self.size)
        top, bottom = _pixels(y0, y1, self.size)
        return left, top, right, bottom

    def _apply(self, image: NDArray[Any], resampling: Image.Resampling) -> NDArray[np.float32]:
        """Scaled first and mirrored last, which is the same and moves fewer pixels."""
        if image.shape != (self.height, self.width):
            raise InputError(
                f"image shape {image.shape} does not match the transform's {self.height, self.width}."
            )
        if self.gap:  # empty columns go to the side away from the chest wall
            image = np.roll(image, self.gap if self.flip else -self.gap, axis=1)  # [H, W]
        tall, wide = self.resized
        picture = Image.fromarray(np.ascontiguousarray(image)).resize((wide, tall), resampling)
        scaled = np.asarray(picture, np.float32)  # [tall, wide]
        if self.flip:
            scaled = scaled[:, ::-1]
        top, left = self.corner
        below, right = self.size - tall + top, self.size - wide + left
        if self.fit == "pad":
            return np.pad(scaled, ((-top, below), (-left, right)))  # [size, size]
        return np.ascontiguousarray(scaled[top : top + self.size, left : left + self.size])


def _clipped(box: FloatBox, width: float, height: float) -> FloatBox:
    x0, y0, x1, y1 = box
    return max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height))


def _area(box: FloatBox) -> float:
    x0, y0, x1, y1 = box
    return max(x1 - x0, 0.0) * max(y1 - y0, 0.0)


def _pixels(low: float, high: float, size: int) -> tuple[int, int]:
    """Edges rounded to the nearest whole pixel, at least one pixel apart."""
    first, last = round(low), round(high)
    if first == last:
        first = min(int(low), size - 1)
        last = first + 1
    return first, last


def to_square(image: NDArray[Any], size: int, *, fit: str = "crop") -> NDArray[np.float32]:
    """The paper's resize and center crop, or padding: [H, W] -> float32 [size, size], same range.

    Of a tall detector image the crop cuts 19 to 23 % of the height (paper, Fig. 2).
    """
    height, width = _shape(image)
    return SquareTransform(height, width, size, fit=fit).image(image)


def face_left(image: NDArray[Any]) -> tuple[NDArray[Any], bool]:
    """Mirror an image [H, W] so that the chest wall is on the left; returns (image, flipped).

    Decided by the pixels, never by a header: of the columns that hold tissue, the half with more
    tissue is the chest-wall half, since a breast tapers toward the nipple.
    """
    flipped = faces_right(image)
    return (np.ascontiguousarray(np.asarray(image)[:, ::-1]), True) if flipped else (np.asarray(image), False)


def faces_right(image: NDArray[Any]) -> bool:
    """Whether the chest wall of an image [H, W] is on the right."""
    columns = _tissue(_thumbnail(image)[0]).sum(axis=0)  # [w] tissue pixels
    occupied = np.flatnonzero(columns)
    if not len(occupied):
        return False
    held = columns[occupied[0] : occupied[-1] + 1]
    half = len(held) // 2
    return bool(held[len(held) - half :].sum() > held[:half].sum())


def left_gap(image: NDArray[Any]) -> int:
    """Empty columns left of the tissue; some collections pad their images on the chest-wall side."""
    small, step = _thumbnail(image)
    columns = _tissue(small).mean(axis=0)  # [w] share of tissue
    occupied = np.flatnonzero(columns > 0.02)  # a thin marker or a speck is not the chest wall
    return int(occupied[0]) * step if len(occupied) else 0


def tissue_kept(image: NDArray[Any], transform: SquareTransform) -> float:
    """Share of the tissue of an image [H, W] that lies inside the transform's frame, 0 to 1."""
    small, step = _thumbnail(image)
    rows, columns = np.nonzero(_tissue(small))
    if not len(rows):
        return 1.0
    x0, y0, x1, y1 = transform.source((0.0, 0.0, float(transform.size), float(transform.size)))
    x, y = (columns + 0.5) * step, (rows + 0.5) * step
    return float(((x >= x0) & (x < x1) & (y >= y0) & (y < y1)).mean())


def _thumbnail(image: NDArray[Any]) -> tuple[NDArray[Any], int]:
    """Every k-th pixel of an image [H, W], so that its shorter side has about `THUMBNAIL`; and k."""
    step = max(1, min(_shape(image)) // THUMBNAIL)
    return np.asarray(image)[::step, ::step], step


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
