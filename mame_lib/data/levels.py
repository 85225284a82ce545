"""Pictures as they are stored, for work that must give back every pixel it did not touch: no window, no rescaling."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mame_lib.data.raster import EXTENSIONS, open_picture
from mame_lib.errors import InputError

Levels = NDArray[np.uint8] | NDArray[np.uint16]
Mask = NDArray[np.bool_]
Source = str | Path | Image.Image | NDArray[Any]

_SMALLEST = 32  # pixels of the shorter side: below this no breast is found
_MOST = 0.5  # share of an image that a mask may cover: no lesion does, an inverted mask does
_LEAST_ON_BREAST = 0.5  # share of a mask that must lie on the breast


def read_levels(source: Source) -> Levels:
    """Gray values [h, w] as stored, uint8 or uint16, of a file (PNG, JPEG, TIFF, DICOM), a Pillow image or an array.

    A gray picture stored in color is taken as gray. A DICOM file gives its picture as displayed (`dicom.read`) in 16
    bits, for what is stored there is not what is seen.

    Raises `InputError` in one sentence when it cannot be read, has real colors, transparency or other types of pixels.
    """
    if isinstance(source, str | Path):
        path = Path(source)
        if path.suffix.lower() not in EXTENSIONS:
            return _dicom(path)
        with open_picture(path, "the image") as picture:
            return _checked(_gray(picture, "the image"), "the image")
    values = _gray(source, "the image") if isinstance(source, Image.Image) else np.asarray(source)
    return _checked(values, "the image")


def _dicom(path: Path) -> NDArray[np.uint16]:
    from mame_lib.data.dicom import read

    return np.rint(read(path).pixels * np.float32(65535)).astype(np.uint16)


def _gray(picture: Image.Image, what: str) -> NDArray[Any]:
    """Pixels [h, w] of a Pillow image that is gray, however it is stored."""
    if picture.mode in ("1", "L", "F") or picture.mode.startswith("I"):
        values = np.asarray(picture)
        small = values.dtype.kind in "iu" and values.dtype.itemsize > 2 and 0 <= values.min() <= values.max() < 65536
        return values.astype(np.uint16) if small else values
    channels = np.asarray(picture.convert("RGBA"))
    if (channels[..., 3] != 255).any():
        raise InputError(f"{what} is transparent in places; save it in gray, without an alpha channel.")
    if (channels[..., :1] != channels[..., 1:3]).any():
        raise InputError(f"{what} has colors; save it in gray.")
    return channels[..., 0]


def _checked(values: NDArray[Any], what: str) -> Levels:
    if values.ndim != 2:
        raise InputError(f"{what} has shape {values.shape}; a gray image [height, width] is needed.")
    if values.dtype not in (np.uint8, np.uint16):
        raise InputError(f"{what} has pixels of type {values.dtype}; 8 or 16 bits (uint8, uint16) are needed.")
    if min(values.shape) < _SMALLEST:
        raise InputError(f"{what} is {values.shape[1]} x {values.shape[0]} pixels; {_SMALLEST} a side are needed.")
    return values


def white_of(levels: Levels) -> int:
    """The value that is white: 255, or for uint16 the end of the range of 8 to 16 bits that the image needs."""
    if levels.dtype == np.uint8:
        return 255
    return int(2 ** max(8, int(levels.max()).bit_length()) - 1)


def read_bytes(source: Source) -> NDArray[np.uint8]:
    """Gray values [h, w] in 8 bits, white at 255, of what `read_levels` reads; its errors."""
    levels = read_levels(source)
    return np.rint(levels * np.float32(255 / white_of(levels))).astype(np.uint8)


def read_mask(source: Source, shape: tuple[int, int]) -> Mask:
    """A mask, bool `shape`, of a gray file, Pillow image or array: True where a value is above half of white.

    White is 1 where no value is larger, else 255 or, with 16 bits, the largest value of `white_of`. True is what will
    be filled.

    Raises `InputError` for colors or transparency, another size than the image's, and a mask that is empty or covers
    more than half of the image, as an inverted one does.
    """
    if isinstance(source, str | Path):
        with open_picture(Path(source), "the mask") as picture:
            values = _gray(picture, "the mask")
    else:
        values = _gray(source, "the mask") if isinstance(source, Image.Image) else np.asarray(source)
    if values.ndim != 2:
        raise InputError(f"the mask has shape {values.shape}; a gray mask [height, width] is needed.")
    if values.shape != shape:
        raise InputError(
            f"the mask is {values.shape[1]} x {values.shape[0]} pixels, but the image {shape[1]} x {shape[0]}; "
            "give a mask of the image's size."
        )
    top = float(values.max())
    white = 1.0 if top <= 1 else 255.0 if top <= 255 else float(2 ** int(np.ceil(np.log2(top + 1))) - 1)
    mask = np.asarray(values > white / 2)
    if not mask.any():
        raise InputError("the mask is empty; make white (255) what is to be filled.")
    if mask.mean() > _MOST:
        raise InputError(
            f"the mask covers {100 * mask.mean():.0f} % of the image; white is what is filled, so invert it or mark a "
            "smaller region."
        )
    return mask


def mask_of_box(box: Sequence[float], shape: tuple[int, int]) -> Mask:
    """A filled rectangle, bool `shape`, of a half-open box (x0, y0, x1, y1) in whole pixels.

    Raises `InputError` for a box that is no box, or reaches beyond the image.
    """
    if len(box) != 4 or not all(float(edge).is_integer() for edge in box):
        raise InputError(f"the box {tuple(box)} must be four whole numbers of pixels: x0, y0, x1, y1.")
    x0, y0, x1, y1 = (int(edge) for edge in box)
    if not (0 <= x0 < x1 <= shape[1] and 0 <= y0 < y1 <= shape[0]):
        raise InputError(
            f"the box {(x0, y0, x1, y1)} does not lie in the image of {shape[1]} x {shape[0]} pixels; give x0 < x1 and "
            "y0 < y1 within it."
        )
    mask = np.zeros(shape, bool)
    mask[y0:y1, x0:x1] = True
    return read_mask(mask, shape)


def check_on_breast(mask: Mask, breast: Mask) -> None:
    """Raise `InputError` unless at least half of a mask lies on the breast, both bool [n, n]."""
    if not breast.any():
        raise InputError("no breast is found in the image; give a mammogram, bright on a dark background.")
    share = float(breast[mask].mean())
    if share < _LEAST_ON_BREAST:
        raise InputError(f"only {100 * share:.0f} % of the mask lies on the breast; move it there.")
