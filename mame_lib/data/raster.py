"""Pictures (PNG, JPEG, TIFF) as gray values: `read_raster` for mammograms, `read_mask` for masks of lesions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mame_lib.errors import InputError

EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff"})
WINDOW_PERCENTILE = 99.9  # top of the window of an image with more than 8 bits
LARGEST = 80_000_000  # pixels; the largest digitized films have half as many
COLORFUL = 4.0  # mean spread of the three channels, 8-bit levels; JPEG makes gray pictures deviate by less

_DEEP = 65536  # gray levels of 16 bits
_WHITE_IS_ZERO = 0  # TIFF 6.0, tag 262 PhotometricInterpretation
_BLOCK = 1 << 20  # pixels counted at once: the counter makes a copy eight times as large as they


def read_raster(path: str | Path) -> tuple[NDArray[np.float32], dict[str, float]]:
    """Gray values float32 [h, w] in 0..1 of the picture at `path`, and facts about how they were made.

    8-bit pictures as they are. Deeper ones from 0 to the 99.9th percentile of the image, because 12 and 14 bits
    are often stored in 16: facts["window_high"], in stored values. TIFF files in which white is 0 are inverted.

    Raises
    ------
    InputError
        "<path>: <reason>" if it cannot be read, has several frames, too many pixels, color, or two gray levels.
    """
    with open_picture(Path(path), "it") as picture:
        if picture.mode == "1":
            raise InputError("it has two gray levels only: a mask, not a mammogram")
        if picture.mode in ("L", "LA"):
            return _eight_bits(np.asarray(picture.getchannel(0))), {}
        if picture.mode.startswith(("I", "F")):
            return _windowed(_deep(picture))
        return _gray_of_color(picture), {}


def read_mask(path: str | Path) -> NDArray[np.bool_]:
    """Inside (True) and outside of the lesions drawn at `path`, bool [h, w]; a DICOM file or a picture.

    Inside is what is not 0; in JPEG files, whose edges swing, what is above 127. Transparent pixels are outside.

    Raises
    ------
    InputError
        "<path>: <reason>" if it cannot be read, has several frames, or is all outside or all inside.
    """
    path = Path(path)
    if path.suffix.lower() in EXTENSIONS:
        with open_picture(path, "its lesion mask") as picture:
            mask = _levels(picture) > (127 if picture.format == "JPEG" else 0)
    else:
        mask = _dicom_mask(path)
    if not mask.any():
        raise InputError(f"{path}: its lesion mask is empty")
    if mask.all():
        raise InputError(f"{path}: its lesion mask covers everything; it is inverted, or no mask")
    return mask


@contextmanager
def open_picture(path: Path, what: str) -> Iterator[Image.Image]:
    """The open picture; every failure, also of the code that uses it, is an InputError about `what`."""
    try:
        with Image.open(path) as picture:
            if picture.width * picture.height > LARGEST:
                raise InputError(f"{what} has too many pixels to be a mammogram")
            if getattr(picture, "n_frames", 1) > 1:
                raise InputError(f"{what} holds several frames; one image a file is expected")
            yield picture
    except MemoryError:
        raise
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(f"{path}: {what} has too many pixels to be a mammogram") from error
    except Exception as error:  # decoders raise almost anything on damaged files
        if isinstance(error, OSError) and error.errno:  # the system's fault; Pillow's own errors have no number
            raise InputError(f"{path}: {what} cannot be opened: {error.strerror}") from error
        raise InputError(
            f"{path}: {what} cannot be read as an image: damaged, or not what its extension says"
        ) from error


def _eight_bits(values: NDArray[Any]) -> NDArray[np.float32]:
    """uint8 [h, w] -> float32 [h, w] in 0..1."""
    if np.count_nonzero(_histogram(values, 256)) == 2:
        raise InputError("it has two gray levels only: a mask, not a mammogram")
    return (np.arange(256, dtype=np.float32) / np.float32(255))[values]


def _deep(picture: Image.Image) -> NDArray[Any]:
    """Values [h, w] of a picture with more than 8 bits: uint16 wherever they fit, else as they are."""
    values = np.asarray(picture)
    if values.dtype.kind == "f":
        if not np.isfinite(values).all():
            raise InputError("its pixels are all 0, negative or not finite")
    elif values.dtype.itemsize > 2 and values.max() < _DEEP:
        values = np.clip(values, 0, None).astype(np.uint16)
    tags = getattr(picture, "tag_v2", {})
    return values.max() - values if tags.get(262) == _WHITE_IS_ZERO else values


def _windowed(values: NDArray[Any]) -> tuple[NDArray[np.float32], dict[str, float]]:
    """From 0 to the 99.9th percentile, values [h, w] -> 0..1. 16 bits take one count and one look-up."""
    if values.dtype.kind == "u" and values.dtype.itemsize == 2:
        counts = _histogram(values, _DEEP)
        if np.count_nonzero(counts) == 2:
            raise InputError("it has two gray levels only: a mask, not a mammogram")
        top = _percentile(counts, WINDOW_PERCENTILE) or float(np.flatnonzero(counts)[-1])
    else:
        top = float(np.percentile(values, WINDOW_PERCENTILE))
        top = top if top > 0 else float(values.max())
        counts = None
    if top <= 0:
        raise InputError("its pixels are all 0, negative or not finite")
    if counts is None:
        return np.clip(values / top, 0, 1).astype(np.float32), {"window_high": top}
    levels = np.minimum(np.arange(_DEEP) / top, 1).astype(np.float32)  # [65536]
    return levels[values], {"window_high": top}


def _histogram(values: NDArray[Any], levels: int) -> NDArray[np.int64]:
    """How many pixels have each value, int64 [levels]."""
    flat = values.ravel()
    counts = np.zeros(levels, np.int64)
    for start in range(0, flat.size, _BLOCK):
        counts += np.bincount(flat[start : start + _BLOCK], minlength=levels)
    return counts


def _percentile(counts: NDArray[np.int64], percent: float) -> float:
    """Percentile of the values that `counts` [levels] describes, between two of them in proportion."""
    below = np.cumsum(counts)
    place = (int(below[-1]) - 1) * percent / 100
    low, high = np.searchsorted(below, [int(place), int(np.ceil(place))], side="right")
    return float(low + (high - low) * (place - int(place)))


def _gray_of_color(picture: Image.Image) -> NDArray[np.float32]:
    """[h, w] in 0..1 of a picture with color channels that are equal but for their compression."""
    color = np.asarray(picture.convert("RGB"))  # [h, w, 3]
    if float((color.max(axis=2) - color.min(axis=2)).mean()) > COLORFUL:
        raise InputError("it is a color picture, not a mammogram")
    if np.count_nonzero(_histogram(color[..., 1], 256)) == 2:
        raise InputError("it has two gray levels only: a mask, not a mammogram")
    return color.mean(axis=2, dtype=np.float32) / np.float32(255)


def _levels(picture: Image.Image) -> NDArray[Any]:
    """Brightest channel [h, w] of a mask, 0 where it is transparent."""
    if picture.mode in ("1", "L") or picture.mode.startswith(("I", "F")):
        return np.asarray(picture)
    channels = np.asarray(picture.convert("RGBA"))  # [h, w, 4]
    return np.where(channels[..., 3] > 0, channels[..., :3].max(axis=2), 0)


def _dicom_mask(path: Path) -> NDArray[np.bool_]:
    """What is not 0 in the single frame of a DICOM file, bool [h, w]."""
    try:
        import pydicom
    except ImportError as error:
        raise InputError(f'{path}: its lesion mask needs pydicom; install it with: pip install "pydicom>=3"') from error
    try:
        pixels = pydicom.dcmread(path).pixel_array
    except MemoryError:
        raise
    except Exception as error:  # a damaged file can fail in many ways, and each is the file's fault
        raise InputError(f"{path}: its lesion mask cannot be read ({type(error).__name__})") from error
    if pixels.ndim != 2:
        raise InputError(f"{path}: its lesion mask holds several frames or colors; one gray image is expected")
    return pixels != 0
