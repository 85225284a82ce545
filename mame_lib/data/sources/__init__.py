"""Where images come from: the procedural phantom, or a folder of the reader's own mammograms.

Each source is an iterable of `Item` and `Quarantined` for `manifest.write`. Stored images are 8-bit gray,
square by the paper's rule, and face left; `attributes.laterality` keeps the side of the breast, and
`truth["flipped"]` is 1 where the image was mirrored.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mame_lib.data.case import Attributes, area_class
from mame_lib.data.dicom import pseudonym
from mame_lib.data.geometry import SquareTransform, faces_right, left_gap
from mame_lib.data.manifest import Item, Quarantined
from mame_lib.data.masks import breast_mask
from mame_lib.data.prompts import training_prompt
from mame_lib.errors import InputError

DICOM_EXTENSIONS = frozenset({".dcm", ".dicom"})
PICTURE_EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff"})
SIZES = (64, 1024)  # smallest and largest side of a stored image, pixels
SMALLEST_SIDE = 64  # a source image with a shorter side is a thumbnail, pixels
WINDOW_PERCENTILE = 99.9  # top of the window of an image with more than 8 bits

_VIEW_TOKEN = re.compile(r"(l|r|left|right)?(cc|mlo)")
_SIDES = {"l": "L", "left": "L", "r": "R", "right": "R"}


def phantom_source(count: int, size: int = 128, seed: int = 0, vendor: str | None = None) -> Iterator[Item]:
    """`count` phantoms of the population `seed`, captioned by the paper's trick; each is its own patient.

    With `vendor` all images have that look and, as in the paper's two separate models, no caption says it.

    Raises
    ------
    InputError
        If count, size or seed is out of range (at once, not at the first image).
    """
    from mame_lib.data.phantom import population

    _check_size(size)
    if count < 1:
        raise InputError(f"count {count} is too small; ask for 1 or more phantoms.")
    if seed < 0:
        raise InputError(f"seed {seed} is negative; use 0 or more.")
    drawn = population(count, size=size, seed=seed, attributes=Attributes(vendor=vendor))
    return (
        Item(
            image=phantom.image,
            mask=phantom.mask,
            patient=f"phantom-{seed}-{index:06d}",
            prompt=training_prompt(phantom.attributes, say_vendor=vendor is None),
            attributes=phantom.attributes,
            source="phantom",
            truth={"area_ratio": phantom.area_ratio, "glandular_fraction": phantom.glandular_fraction},
        )
        for index, phantom in enumerate(drawn)
    )


def folder_source(
    path: str | Path, size: int = 128, *, salt: bytes | None = None
) -> Iterator[Item | Quarantined]:
    """Every mammogram below `path`, in the order of the file names; each bad file becomes a `Quarantined`.

    Looked at: .dcm, .dicom, files without an extension that are DICOM, .png, .jpg, .jpeg, .tif, .tiff. Hidden
    files are passed over; folders and files named "mask" are refused, since their pictures are no mammograms.

    Gray scale: DICOM as `dicom.read` says; 8-bit pictures as they are; deeper ones from 0 to the 99.9th
    percentile of the image (`truth["window_high"]`), because 12 and 14 bits are often stored in 16.
    Patient, view and side: the DICOM header, else the file name ("P102_R_DM_MLO.jpg"); see `from_name`.

    salt: secret that the patients' pseudonyms depend on. None draws one and forgets it, so that nobody can
    trace a pseudonym back; give the same salt to get the same pseudonyms, and the same split, again.

    Raises
    ------
    InputError
        If `path` is no folder or `size` is out of range (at once, not at the first image).
    """
    root = Path(path)
    _check_size(size)
    if not root.is_dir():
        problem = "is a file, not a folder" if root.exists() else "does not exist"
        raise InputError(
            f"the source folder {root} {problem}; give a folder of DICOM, PNG, JPEG or TIFF images."
        )
    return _walk(root, size, secrets.token_bytes(16) if salt is None else salt)


def _check_size(size: int) -> None:
    if not SIZES[0] <= size <= SIZES[1] or size % 8:
        raise InputError(
            f"size {size} is not possible; use a multiple of 8 from {SIZES[0]} to {SIZES[1]} pixels."
        )


def _walk(root: Path, size: int, salt: bytes) -> Iterator[Item | Quarantined]:
    unreadable: list[OSError] = []
    for folder, below, files in os.walk(root, onerror=unreadable.append):
        here = Path(folder)
        for name in sorted(below):
            if name.lower() in ("mask", "masks"):
                yield Quarantined(_relative(here / name, root), "a folder of masks, not of mammograms")
        below[:] = sorted(n for n in below if not n.startswith(".") and n.lower() not in ("mask", "masks"))
        for name in sorted(files):
            file = here / name
            if not name.startswith(".") and _is_candidate(file):
                yield _item(file, root, size, salt)
    for error in unreadable:
        yield Quarantined(_relative(Path(error.filename), root), "the folder cannot be opened")


def _relative(file: Path, root: Path) -> str:
    return file.relative_to(root).as_posix()


def _is_candidate(file: Path) -> bool:
    """By extension; without one, by the four letters that every DICOM file has after its preamble."""
    extension = file.suffix.lower()
    if extension and not extension[1:].isdigit():  # "1.2.840.10008" is a name without extension
        return extension in DICOM_EXTENSIONS | PICTURE_EXTENSIONS
    try:
        with open(file, "rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _item(file: Path, root: Path, size: int, salt: bytes) -> Item | Quarantined:
    """The stored form of one file, or why there is none. One bad file never stops the rest."""
    try:
        read = _read_picture if file.suffix.lower() in PICTURE_EXTENSIONS else _read_dicom
        return _stored(read(file, root, salt), size)
    except InputError as error:
        reason = str(error).removeprefix(f"{file}: ")
    except MemoryError:
        reason = "it is too large for this computer's memory"
    except Exception as error:  # decoders raise almost anything on damaged files
        reason = f"it cannot be read ({type(error).__name__})"
    return Quarantined(_relative(file, root), reason)


@dataclass(frozen=True)
class _Source:
    """A mammogram as it came: gray [h, w] in 0..1, who and what it is, and the window that was used."""

    gray: NDArray[np.float32]
    attributes: Attributes
    patient: str
    facts: dict[str, float]
    spacing: tuple[float, float] | None = None


def _read_dicom(file: Path, root: Path, salt: bytes) -> _Source:
    from mame_lib.data import dicom

    image = dicom.read(file, salt=salt)
    return _Source(image.pixels, image.attributes, image.patient, {}, image.spacing)


def _read_picture(file: Path, root: Path, salt: bytes) -> _Source:
    identity, attributes = from_name(file.relative_to(root))
    try:
        with Image.open(file) as picture:
            gray, facts = _gray(picture)
    except Image.DecompressionBombError as error:
        raise InputError("it has too many pixels to be a mammogram") from error
    except (OSError, SyntaxError) as error:
        if (
            isinstance(error, OSError) and error.errno
        ):  # the system's fault; Pillow's own errors have no number
            raise InputError(f"it cannot be opened: {error.strerror}") from error
        raise InputError("it cannot be read as an image: damaged, or not what its extension says") from error
    return _Source(gray, attributes, pseudonym(identity, salt), facts)


def _gray(picture: Image.Image) -> tuple[NDArray[np.float32], dict[str, float]]:
    """Gray values [h, w] in 0..1, and the window of a picture with more than 8 bits."""
    if getattr(picture, "n_frames", 1) > 1:
        raise InputError("it holds several frames; one image a file is expected")
    if picture.mode == "1":
        raise InputError("it has two gray levels only: a mask, not a mammogram")
    if picture.mode in ("L", "LA"):
        return np.asarray(picture.getchannel(0), np.float32) / np.float32(255), {}
    if picture.mode.startswith(("I", "F")):
        values = np.asarray(picture, np.float32)
        top = float(np.percentile(values, WINDOW_PERCENTILE))
        top = top if top > 0 else float(values.max())
        if not np.isfinite(values).all() or top <= 0:
            raise InputError("its pixels are all 0, negative or not finite")
        return np.clip(values / top, 0, 1), {"window_high": top}
    color = np.asarray(picture.convert("RGB"), np.float32)  # [h, w, 3]
    if float(np.ptp(color, axis=2).mean()) > 4:  # JPEG makes gray pictures deviate by less
        raise InputError("it is a color picture, not a mammogram")
    return (color.mean(axis=2) / 255).astype(np.float32), {}


def from_name(name: Path) -> tuple[str, Attributes]:
    """Patient, view and side as a file name tells them; `name` is relative to the source folder.

    "P102_R_DM_MLO.jpg" -> ("p102", MLO, R): the patient is what stands before the first token for side or
    view. Where that holds no digit ("p7/L_CC.png"), the folder counts too; without such a token the whole
    name is the patient.
    """
    tokens = [token for token in re.split(r"[^0-9a-z]+", name.stem.lower()) if token]
    if "mask" in tokens:
        raise InputError("it is named a mask, so it is no mammogram")
    views = [(i, match) for i, token in enumerate(tokens) if (match := _VIEW_TOKEN.fullmatch(token))]
    sides = [(i, _SIDES[token]) for i, token in enumerate(tokens) if token in _SIDES]
    sides += [(i, _SIDES[match[1]]) for i, match in views if match[1]]
    view = {match[2].upper() for _, match in views}
    side = {letter for _, letter in sides}
    first = min((i for i, _ in [*views, *sides]), default=len(tokens))
    identity = "_".join(tokens[:first])
    if not any(character.isdigit() for character in identity):
        identity = "/".join(filter(None, (name.parent.as_posix().lower(), identity)))
    # Two different words for one thing ("L_vs_R") tell nothing.
    known: dict[str, Any] = {"view": view.pop() if len(view) == 1 else None}
    return identity, Attributes(laterality=side.pop() if len(side) == 1 else None, **known)


def _stored(source: _Source, size: int) -> Item:
    """8 bits, facing left, chest wall at the left edge, square."""
    height, width = source.gray.shape
    if min(height, width) < SMALLEST_SIDE:
        raise InputError(
            f"it is {width} x {height} pixels; the shorter side must have {SMALLEST_SIDE} or more"
        )
    if not float(np.ptp(source.gray)) > 0:
        raise InputError("all of its pixels have the same gray")
    flip = faces_right(source.gray)
    gap = left_gap(source.gray[:, ::-1] if flip else source.gray)
    transform = SquareTransform(height, width, size, flip=flip, gap=gap)
    image = np.rint(np.clip(transform.image(source.gray), 0, 1) * 255).astype(np.uint8)  # [size, size]
    truth = {**source.facts, "flipped": float(flip), "gap": float(gap)}
    if source.spacing:
        truth["pixel_mm"] = source.spacing[0] / transform.scale[0]
    mask, truth["area_ratio"] = _area(image)
    attributes = replace(source.attributes, area=area_class(truth["area_ratio"]))
    return Item(
        image, source.patient, training_prompt(attributes), attributes, "folder", mask=mask, truth=truth
    )


def _area(image: NDArray[np.uint8]) -> tuple[NDArray[np.bool_], float]:
    """Breast mask [n, n] and its share of the image, measured on the stored image, as on generated ones."""
    mask = breast_mask(image)
    if not mask.any():
        raise InputError("no breast can be found in it")
    return mask, float(mask.mean())
