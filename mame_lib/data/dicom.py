"""One DICOM mammogram, ready for display: `read` applies the grayscale chain and forgets the patient.

Order of the chain (DICOM PS3.4, N.2): stored values -> modality LUT -> VOI LUT or window -> 0..1 by the range
that the transform can put out, never by the brightest pixel of the image -> inverted if MONOCHROME1
-> padding 0.
"""

from __future__ import annotations

import hashlib
import math
import secrets
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mame_lib.data.case import VENDORS, VIEWS, Attributes
from mame_lib.errors import InputError

INSTALL = 'pip install "pydicom>=3"'
INSTALL_DECODERS = "pip install pylibjpeg pylibjpeg-openjpeg pylibjpeg-libjpeg"

_FOR_PROCESSING = "1.2.840.10008.5.1.4.1.1.1.2.1"
_FOR_PRESENTATION = "1.2.840.10008.5.1.4.1.1.1.2"
_PROJECTIONS = frozenset({"CR", "DX", "RG", "OT"})  # digitized film may come under these modalities
_VIEW_CODES = {"R-10242": "CC", "399162004": "CC", "R-10226": "MLO", "399368009": "MLO"}


@dataclass(frozen=True)
class DicomImage:
    """A mammogram without its patient.

    pixels: float32 [h, w], 0..1, breast bright on dark. attributes: vendor, view and laterality where the
    header knows them. patient: 16 hex digits of a salted hash. spacing: (row, column) pitch in mm, if stated.
    """

    pixels: NDArray[np.float32]
    attributes: Attributes
    patient: str
    spacing: tuple[float, float] | None


def pseudonym(identity: str, salt: bytes) -> str:
    """16 hex digits of SHA-256 of salt and identity. Without the salt, nobody can test a guessed identity."""
    return hashlib.sha256(salt + b"\0" + identity.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def read(path: str | Path, *, salt: bytes | None = None) -> DicomImage:
    """Read the mammogram at `path`; no other field of the header leaves this function.

    salt: secret of the data set, the same for all of its files. Without one, a fresh random salt is
    used and forgotten, so that two calls give the same patient two names.

    Raises
    ------
    InputError
        "<path>: <reason>" if the file is no DICOM, no mammogram, has no pixels or several frames, is FOR
        PROCESSING (raw), cannot be decoded, or if pydicom is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # de-identified files break rules of form that do not matter here
            return _read(Path(path), secrets.token_bytes(16) if salt is None else salt)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _read(path: Path, salt: bytes) -> DicomImage:
    dataset = _open(path)
    _refuse(dataset)
    stored = _decode(dataset)
    try:
        pixels = _display(stored, dataset)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, NotImplementedError) as error:
        raise InputError(
            f"its grayscale transform (modality LUT, VOI LUT or window) is broken: {error}."
        ) from error
    identity = str(dataset.get("PatientID") or dataset.get("StudyInstanceUID") or path.stem)
    return DicomImage(pixels, _attributes(dataset), pseudonym(identity, salt), _spacing(dataset))


def _open(path: Path) -> Any:
    try:
        import pydicom
        from pydicom.errors import InvalidDicomError
    except ImportError as error:
        raise InputError(f"reading DICOM files needs pydicom; install it with: {INSTALL}") from error
    try:
        return pydicom.dcmread(path)
    except InvalidDicomError as error:
        raise InputError("it is not a DICOM file, whatever its name says.") from error
    except FileNotFoundError as error:
        raise InputError("there is no such file.") from error
    except OSError as error:
        raise InputError(f"it cannot be opened: {error.strerror or 'input/output error'}.") from error
    except Exception as error:  # a damaged header can fail in many ways, and each is the file's fault
        raise InputError(f"its DICOM header is damaged ({type(error).__name__}).") from error


def _refuse(dataset: Any) -> None:
    """Raise InputError for what is not one displayable mammogram."""
    modality = str(dataset.get("Modality", "")).upper()
    uid = str(dataset.get("SOPClassUID", ""))
    intent = str(dataset.get("PresentationIntentType", "")).upper()
    breast = str(dataset.get("BodyPartExamined", "")).upper() == "BREAST" or _view(dataset) is not None
    if uid == _FOR_PROCESSING or intent == "FOR PROCESSING":
        raise InputError(
            "it is FOR PROCESSING (raw detector data); export the FOR PRESENTATION image instead."
        )
    known = modality == "MG" or uid == _FOR_PRESENTATION
    if not known and not (breast and (not modality or modality in _PROJECTIONS)):
        raise InputError(
            f"it is not a mammogram (modality {modality or 'not stated'}); modality MG is expected."
        )
    if "PixelData" not in dataset or not dataset.PixelData:
        raise InputError("it holds a header but no pixel data.")
    if int(dataset.get("NumberOfFrames") or 1) > 1:
        raise InputError("it holds several frames (tomosynthesis); one two-dimensional image is expected.")
    kind = str(dataset.get("PhotometricInterpretation", ""))
    if int(dataset.get("SamplesPerPixel") or 1) != 1 or kind not in ("MONOCHROME1", "MONOCHROME2"):
        raise InputError(
            f"its photometric interpretation is {kind or 'not stated'}; MONOCHROME1 or 2 is expected."
        )


def _decode(dataset: Any) -> NDArray[Any]:
    """Stored values, integers [h, w]."""
    try:
        stored = np.asarray(dataset.pixel_array)
    except Exception as error:
        syntax = getattr(getattr(dataset, "file_meta", None), "TransferSyntaxUID", None)
        if syntax is not None and getattr(syntax, "is_compressed", False):
            reason = (
                f"its pixels ({syntax.name}) cannot be decoded; if a decoder is missing: {INSTALL_DECODERS}"
            )
        else:
            reason = "its pixel data do not fit its header (truncated file?)."
        raise InputError(reason) from error
    if stored.ndim != 2 or min(stored.shape) < 1:
        raise InputError(f"its pixels have shape {stored.shape}; one gray image [h, w] is expected.")
    return stored


def _display(stored: NDArray[Any], dataset: Any) -> NDArray[np.float32]:
    """Stored values [h, w] -> 0..1 as a workstation would show them."""
    padding = _padding(stored, dataset)
    values, low, high = _modality(stored, dataset)
    values, low, high = _voi(values, low, high, dataset)
    if not high > low:
        raise ValueError(f"output range {low} to {high} is empty")
    pixels = np.clip((values.astype(np.float32) - low) / (high - low), 0.0, 1.0)  # [h, w]
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        pixels = 1.0 - pixels  # low values are bright; about the range, not about the image's own maximum
    pixels[padding] = 0.0
    if not np.isfinite(pixels).all():
        raise ValueError("it makes values that are not finite")
    return pixels.astype(np.float32)


def _padding(stored: NDArray[Any], dataset: Any) -> NDArray[np.bool_]:
    """Pixels that were never exposed, [h, w]: the padding value, or its range (PS3.3, C.7.5.1.1.2)."""
    value = dataset.get("PixelPaddingValue")
    if value is None:
        return np.zeros(stored.shape, bool)
    limit = dataset.get("PixelPaddingRangeLimit", value)
    first, last = sorted((int(value), int(value if limit is None else limit)))
    return (stored >= first) & (stored <= last)


def _modality(stored: NDArray[Any], dataset: Any) -> tuple[NDArray[Any], float, float]:
    """After the modality LUT or rescale: values and the range that they can take."""
    from pydicom.pixels import apply_modality_lut

    values = apply_modality_lut(stored, dataset)
    if dataset.get("ModalityLUTSequence"):
        return values, 0.0, 2.0 ** int(dataset.ModalityLUTSequence[0].LUTDescriptor[2]) - 1
    bits = int(dataset.BitsStored)
    signed = int(dataset.get("PixelRepresentation") or 0) == 1
    ends = (-(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1) if signed else (0.0, 2.0**bits - 1)
    if dataset.get("RescaleSlope") is None:
        return values, *ends
    slope, intercept = float(dataset.RescaleSlope), float(dataset.get("RescaleIntercept") or 0)
    low, high = sorted(end * slope + intercept for end in ends)
    return values, low, high


def _voi(values: NDArray[Any], low: float, high: float, dataset: Any) -> tuple[NDArray[Any], float, float]:
    """After the first VOI LUT, else the first window, else unchanged: values and their range."""
    from pydicom.pixels import apply_voi_lut

    if dataset.get("VOILUTSequence"):
        entries, first, bits = (int(number) for number in dataset.VOILUTSequence[0].LUTDescriptor)
        # Clipped first: pydicom casts to the LUT's own integer type, where larger values would wrap.
        index = np.clip(np.rint(values), first, first + (entries or 2**16) - 1).astype(np.int32)
        return apply_voi_lut(index, dataset, index=0, prefer_lut=True), 0.0, 2.0**bits - 1
    if dataset.get("WindowCenter") is None or dataset.get("WindowWidth") is None:
        return values, low, high
    # The window says itself what range it puts out: ask it for the ends of the number line.
    ends = apply_voi_lut(np.array([-1e15, 1e15]), dataset, index=0)
    return apply_voi_lut(values, dataset, index=0), float(ends.min()), float(ends.max())


def _view(dataset: Any) -> str | None:
    """CC or MLO; None for every other view (magnification, LM, XCCL, …)."""
    position = str(dataset.get("ViewPosition") or "").strip().upper()
    if position:
        return position if position in VIEWS else None
    for item in dataset.get("ViewCodeSequence") or []:
        if view := _VIEW_CODES.get(str(item.get("CodeValue", ""))):
            return view
    return None


def _attributes(dataset: Any) -> Attributes:
    """Vendor by the Manufacturer field, view and laterality, as far as the header states them."""
    maker = str(dataset.get("Manufacturer") or "").lower()
    vendor = next((name for name in VENDORS if name in maker), None)
    side = str(dataset.get("ImageLaterality") or dataset.get("Laterality") or "").strip().upper()
    return Attributes(vendor=vendor, view=_view(dataset), laterality=side if side in ("L", "R") else None)


def _spacing(dataset: Any) -> tuple[float, float] | None:
    pitch = dataset.get("PixelSpacing") or dataset.get("ImagerPixelSpacing")
    try:
        row, column = (float(value) for value in pitch)
    except (TypeError, ValueError):
        return None
    return (row, column) if math.isfinite(row * column) and row > 0 and column > 0 else None
