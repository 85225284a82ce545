"""One image of a source, made ready: read, turned to the left, squared, 8 bits, with its lesions.

`prepare_case` is a pure function of a `SourceCase` and `Options`, so any number of processes may call it
(`store.prepare` does). One bad file never stops the rest: it becomes a `Quarantined`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from mame_lib.data import dicom, raster
from mame_lib.data.case import Attributes, area_class
from mame_lib.data.geometry import (
    FITS,
    KEEP,
    Box,
    FloatBox,
    SquareTransform,
    check_size,
    faces_right,
    left_gap,
    tissue_kept,
)  # fmt: skip
from mame_lib.data.manifest import Item
from mame_lib.data.masks import breast_mask
from mame_lib.data.prompts import LESION_PROMPT, training_prompt
from mame_lib.data.sources.base import Quarantined, SourceCase
from mame_lib.errors import InputError

SMALLEST_SIDE = 64  # a source image with a shorter side is a thumbnail, pixels
SPECK = 9  # a lesion mask's component of fewer pixels is an artifact of its compression

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Options:
    """How a source image becomes a stored one; recorded in dataset.json, all but the salt.

    size: side in pixels, a multiple of 8. fit: "crop" (paper) or "pad". intensity: see
    `grayscale.INTENSITIES`. for_processing: what to do with raw detector data, "refuse" or "log". keep: share of
    a lesion box that must remain, 0 to 1. salt: secret that the pseudonyms depend on.

    Raises
    ------
    InputError
        If the size or the fit is not possible, or `keep` is not between 0 and 1.
    """

    salt: bytes = field(repr=False)
    size: int = 128
    fit: str = "crop"
    intensity: str = "vendor"
    for_processing: str = "refuse"
    keep: float = KEEP

    def __post_init__(self) -> None:
        check_size(self.size)
        if self.fit not in FITS:
            raise InputError(f"fit {self.fit!r} is unknown; use {' or '.join(FITS)}.")
        if not 0 <= self.keep <= 1:
            raise InputError(f"keep {self.keep} is not between 0 and 1.")

    def settings(self) -> dict[str, Any]:
        """What dataset.json may say: everything, with a fingerprint in place of the salt."""
        values = asdict(self)
        del values["salt"]
        return values | {"salt_fingerprint": dicom.pseudonym("fingerprint", self.salt)[:8]}


@dataclass(frozen=True)
class _Picture:
    """A mammogram as it came: gray [h, w] in 0..1, what and whose it is, and facts worth keeping."""

    gray: NDArray[np.float32]
    attributes: Attributes
    patient: str  # pseudonym
    facts: dict[str, float]
    spacing: tuple[float, float] | None = None


def prepare_case(case: SourceCase, options: Options, source: str) -> Item | Quarantined:
    """The stored form of one case, or the reason why there is none."""
    try:
        return _prepared(case, options, source)
    except InputError as error:
        reason = str(error)
        for path in (case.path, *case.masks):
            reason = reason.removeprefix(f"{path}: ")
    except MemoryError:
        reason = "it is too large for this computer's memory"
    except Exception as error:  # decoders raise almost anything on damaged files
        reason = f"it cannot be read ({type(error).__name__})"
    return Quarantined(case.key, reason)


def case_id(key: str, salt: bytes) -> str:
    """File name of a case in a data set: 16 hex digits, a salted hash of its key, the path in the source."""
    return dicom.pseudonym(f"case {key}", salt)


def _prepared(case: SourceCase, options: Options, source: str) -> Item:
    picture = _read(case, options)
    transform = _transform(picture.gray, options, case.shape)
    lesions = _lesions(case, transform, options.keep)
    image = np.rint(np.clip(transform.image(picture.gray), 0, 1) * 255).astype(np.uint8)  # [n, n]
    mask = breast_mask(image)
    if not mask.any():
        raise InputError("no breast can be found in it")
    truth = {
        **picture.facts,
        "flipped": float(transform.flip),
        "gap": float(transform.gap),
        "tissue_kept": round(tissue_kept(picture.gray, transform), 4),
        "area_ratio": float(mask.mean()),
    }
    if picture.spacing:
        truth["pixel_mm"] = picture.spacing[0] / transform.scale[0]
    finding = "lesion" if lesions.boxes else case.attributes.finding
    attributes = replace(picture.attributes, area=area_class(truth["area_ratio"]), finding=finding)
    return Item(
        image=image,
        patient=picture.patient,
        prompt=LESION_PROMPT if finding else training_prompt(attributes),
        attributes=attributes,
        source=source,
        mask=mask,
        lesion=lesions.mask,
        boxes=lesions.boxes,
        kept=lesions.kept,
        split=case.split,
        id=case_id(case.key, options.salt),
        truth=truth,
        dropped=lesions.dropped,
    )


def _read(case: SourceCase, options: Options) -> _Picture:
    """Pixels and header; what the source's tables say goes before what the header says."""
    if case.path.suffix.lower() in raster.EXTENSIONS:
        gray, facts = raster.read_raster(case.path)
        patient = dicom.pseudonym(case.patient or case.key, options.salt)
        return _Picture(gray, case.attributes, patient, facts)
    image = dicom.read(
        case.path,
        salt=options.salt,
        intensity=options.intensity,
        for_processing=options.for_processing,
        patient=case.patient,
    )
    attributes = Attributes(**{**image.attributes.to_dict(), **case.attributes.to_dict()})
    return _Picture(image.pixels, attributes, image.patient, dict(image.facts), image.spacing)


def _transform(
    gray: NDArray[np.float32], options: Options, expected: tuple[int, int] | None
) -> SquareTransform:
    """The square of an image that is large enough, not flat, and the one that its boxes were drawn on."""
    height, width = gray.shape
    if expected is not None and (height, width) != tuple(expected):
        raise InputError(
            f"it is {width} x {height} pixels, but its annotations belong to {expected[1]} x {expected[0]}"
        )
    if min(height, width) < SMALLEST_SIDE:
        raise InputError(
            f"it is {width} x {height} pixels; the shorter side must have {SMALLEST_SIDE} or more"
        )
    if not float(gray.max()) > float(gray.min()):
        raise InputError("all of its pixels have the same gray")
    flip = faces_right(gray)
    gap = left_gap(gray[:, ::-1] if flip else gray)
    return SquareTransform(height, width, options.size, flip=flip, gap=gap, fit=options.fit)


@dataclass(frozen=True)
class _Lesions:
    """Findings in the stored image: boxes, the share of each that the frame kept, all merged [n, n]."""

    boxes: tuple[Box, ...] = ()
    kept: tuple[float, ...] = ()
    mask: Mask | None = None
    dropped: tuple[str, ...] = ()


def _lesions(case: SourceCase, transform: SquareTransform, keep: float) -> _Lesions:
    """Every box and every component of every mask, moved; each that the frame lost is told, not hidden."""
    parts: list[tuple[FloatBox, Mask | None]] = [(box, None) for box in case.boxes]
    for path in case.masks:
        parts += _components(_fitted(raster.read_mask(path), transform), transform)
    boxes: list[Box] = []
    kept: list[float] = []
    dropped: list[str] = []
    merged = np.zeros((transform.size, transform.size), bool)
    for number, (found, drawn) in enumerate(parts, start=1):
        stored, share = transform.box(found, keep=keep), transform.share(found)
        if stored is None:
            dropped.append(f"lesion {number} of {len(parts)}: the frame keeps {share:.0%} of its box")
            continue
        boxes.append(stored)
        kept.append(round(share, 4))
        x0, y0, x1, y1 = stored
        if drawn is not None and drawn.any():
            merged |= drawn
        else:  # a box, or a lesion smaller than a stored pixel
            merged[y0:y1, x0:x1] = True
    if parts and not boxes:
        raise InputError(f"its lesion is lost in the frame ({dropped[0]}); --fit pad keeps the whole image")
    return _Lesions(tuple(boxes), tuple(kept), merged if boxes else None, tuple(dropped))


def _fitted(mask: Mask, transform: SquareTransform) -> Mask:
    """A lesion mask [H, W] at the size of its image; collections store some at another scale."""
    shape = (transform.height, transform.width)
    if mask.shape == shape:
        return mask
    ratio = (mask.shape[0] / mask.shape[1]) / (shape[0] / shape[1])
    if not 0.98 < ratio < 1.02:
        raise InputError(f"its lesion mask is {mask.shape[1]} x {mask.shape[0]} pixels, of another shape than it")
    scaled = Image.fromarray(mask.astype(np.uint8)).resize(shape[::-1], Image.Resampling.NEAREST)
    return np.asarray(scaled) != 0


def _components(mask: Mask, transform: SquareTransform) -> list[tuple[FloatBox, Mask | None]]:
    """Connected parts of a lesion mask [H, W]: the box of each in the source, its pixels in the square [n, n]."""
    labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    stored = transform.labels(labels)  # [n, n]
    found: list[tuple[FloatBox, Mask | None]] = []
    for label, slices in enumerate(ndimage.find_objects(labels), start=1):
        if sizes[label] >= SPECK:
            rows, columns = slices
            box = (float(columns.start), float(rows.start), float(columns.stop), float(rows.stop))
            found.append((box, stored == label))
    if not found:
        raise InputError("its lesion mask is empty")
    return found
