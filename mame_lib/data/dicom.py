"""One DICOM mammogram, ready for display: `read` applies the grayscale chain and forgets the patient.

Order of the chain (DICOM PS3.4, N.2): stored values -> modality LUT -> VOI LUT or window -> inverted if
MONOCHROME1 -> 0..1 by the range that the transform can put out, never by the brightest pixel of the image
-> padding 0 (`grayscale.display`). What is not one plain mammogram is refused with the reason (`dicom_header`).
"""

from __future__ import annotations

import hashlib
import math
import secrets
import warnings
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mame_lib.data import dicom_header, dicom_pixels, dicom_raw, grayscale
from mame_lib.data.case import Attributes
from mame_lib.errors import InputError

INSTALL = 'pip install "pydicom>=3"'
FOR_PROCESSING = ("refuse", "log")

_BESIDES = 64 * 2**20  # bytes that a header may have beside its pixels
_DEFLATED = "1.2.840.10008.1.2.1.99"


@dataclass(frozen=True)
class DicomImage:
    """A mammogram without its patient.

    pixels: float32 [h, w], 0..1, breast bright on dark. attributes: vendor, view and laterality where the
    header knows them. patient: 16 hex digits of a salted hash. spacing: (row, column) pitch in mm, if stated.
    facts: bits_stored, white_point and more of the grayscale transform. maker: see `dicom_header.maker`.
    """

    pixels: NDArray[np.float32]
    attributes: Attributes
    patient: str
    spacing: tuple[float, float] | None
    facts: dict[str, float] = field(default_factory=dict)
    maker: str = ""


def pseudonym(identity: str, salt: bytes) -> str:
    """16 hex digits of SHA-256 of salt and identity. Without the salt, nobody can test a guessed identity."""
    return hashlib.sha256(salt + b"\0" + identity.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def read(
    path: str | Path,
    *,
    salt: bytes | None = None,
    intensity: str = "vendor",
    for_processing: str = "refuse",
    patient: str = "",
) -> DicomImage:
    """Read the mammogram at `path`; no other field of the header leaves this function.

    salt: secret of the data set, the same for all of its files. Without one, a fresh random salt is
    used and forgotten, so that two calls give the same patient two names. intensity: what becomes 1, see
    `grayscale.display`. for_processing: "refuse" raw detector data, or show them by "log" (`dicom_raw`).
    patient: the source's own name of the patient; without it the header's id, else its study, else the file
    name is hashed.

    Raises
    ------
    InputError
        "<path>: <reason>" if the file is no DICOM, is not one plain mammogram (`dicom_header.refuse`), its pixels
        cannot be decoded (`dicom_pixels.stored_values`), its transform is broken, or pydicom is not installed.
        Without a path, if a setting is unknown.
    """
    if for_processing not in FOR_PROCESSING:
        raise InputError(f"for_processing {for_processing!r} is unknown; use {' or '.join(FOR_PROCESSING)}.")
    if intensity not in grayscale.INTENSITIES:
        raise InputError(f"intensity {intensity!r} is unknown; use one of {', '.join(grayscale.INTENSITIES)}.")
    path, salt = Path(path), secrets.token_bytes(16) if salt is None else salt
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")  # de-identified files break rules of form that do not matter here
            return _read(path, salt, intensity, for_processing, patient)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _read(path: Path, salt: bytes, intensity: str, for_processing: str, patient: str) -> DicomImage:
    try:
        dataset = _open(path, pixels=False)
        dicom_header.refuse(dataset, for_processing=for_processing == "log")
        _bounded(path, dataset)
        dataset = _open(path, pixels=True)
        attributes = dicom_header.attributes(dataset)
        stored = dicom_pixels.stored_values(dataset)
        if dicom_header.is_raw(dataset):
            pixels, facts = dicom_raw.attenuation(stored, dataset)
        else:
            pixels, facts = grayscale.display(stored, dataset, intensity=intensity, vendor=attributes.vendor)
        name = patient or str(dataset.get("PatientID") or dataset.get("StudyInstanceUID") or path.stem)
        return DicomImage(
            pixels, attributes, pseudonym(name, salt), _spacing(dataset), facts, dicom_header.maker(dataset)
        )
    except InputError:
        raise
    except MemoryError as error:
        raise InputError("it is too large for this computer's memory.") from error
    except Exception as error:  # pydicom converts a field when it is asked for, and fails in many ways
        # The type alone: the text of the error may quote the header.
        raise InputError(f"its DICOM header is damaged ({type(error).__name__}).") from error


def _open(path: Path, *, pixels: bool) -> Any:
    try:
        import pydicom
        from pydicom.errors import InvalidDicomError
    except ImportError as error:
        raise InputError(f"reading DICOM files needs pydicom; install it with: {INSTALL}") from error
    try:
        if not pixels and pydicom.filereader.read_file_meta_info(path).get("TransferSyntaxUID") == _DEFLATED:
            _check_deflated(path)
        return pydicom.dcmread(path, stop_before_pixels=not pixels)
    except InvalidDicomError as error:
        raise InputError("it is not a DICOM file, whatever its name says.") from error
    except FileNotFoundError as error:
        raise InputError("there is no such file.") from error
    except OSError as error:
        raise InputError(f"it cannot be opened: {error.strerror or 'input/output error'}.") from error


def _check_deflated(path: Path) -> None:
    """Refuse a deflated file that unfolds to more than any mammogram: pydicom would unfold it all."""
    from pydicom.filereader import read_file_meta_info

    most = 2 * dicom_pixels.LARGEST + _BESIDES
    start = 144 + int(read_file_meta_info(path).get("FileMetaInformationGroupLength") or 0)  # preamble to length
    with path.open("rb") as file:
        file.seek(start)
        data = file.read(most)
    unfold, size = zlib.decompressobj(-zlib.MAX_WBITS), 0
    while part := len(unfold.decompress(data, 2**24)):
        data, size = unfold.unconsumed_tail, size + part
        if size > most:
            raise InputError("it unfolds to more bytes than any mammogram has.")


def _bounded(path: Path, dataset: Any) -> None:
    """Refuse, before its pixels are read, a file whose size does not go with the image that its header states."""
    rows, columns = dicom_pixels.shape(dataset)
    layout = grayscale.Layout.of(dataset)
    if path.stat().st_size > 2 * rows * columns * layout.allocated // 8 + _BESIDES:
        raise InputError("it is far larger than the image that its header states.")


def _spacing(dataset: Any) -> tuple[float, float] | None:
    pitch = dataset.get("PixelSpacing") or dataset.get("ImagerPixelSpacing")
    try:
        row, column = (float(value) for value in pitch)
    except (TypeError, ValueError):
        return None
    return (row, column) if math.isfinite(row * column) and row > 0 and column > 0 else None
