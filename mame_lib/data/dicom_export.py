"""Synthetic images as DICOM: `save_dicom` writes a FOR PRESENTATION mammogram that says that it is synthetic.

For the chapters, the benchmark and the tests: what a scanner would have sent, without a patient. Follows the
Digital Mammography X-Ray Image IOD (PS3.3, A.27) as far as a drawn image can: there was no exposure.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mame_lib.data import jpeg_lossless
from mame_lib.data.case import Attributes
from mame_lib.data.dicom import INSTALL
from mame_lib.data.dicom_pixels import INSTALL_DECODERS
from mame_lib.errors import InputError

SYNTAXES = {
    "implicit": "1.2.840.10008.1.2",
    "explicit": "1.2.840.10008.1.2.1",
    "deflated": "1.2.840.10008.1.2.1.99",
    "big-endian": "1.2.840.10008.1.2.2",
    "rle": "1.2.840.10008.1.2.5",
    "jpeg-lossless": "1.2.840.10008.1.2.4.57",
    "jpeg-lossless-sv1": "1.2.840.10008.1.2.4.70",
    "jpeg-ls": "1.2.840.10008.1.2.4.80",
    "jpeg-2000": "1.2.840.10008.1.2.4.90",
}
NOTICE = "Synthetic image, no patient, not for diagnosis."

_PREDICTORS = {"jpeg-lossless": 4, "jpeg-lossless-sv1": 1}
# Named, since pydicom would take GDCM for RLE where it is installed, and that ends the process on odd sizes.
_ENCODERS = {"rle": "pydicom", "jpeg-ls": "pyjpegls", "jpeg-2000": "pylibjpeg"}
_STORAGE = "1.2.840.10008.5.1.4.1.1.1.2"
_MAKERS = {"hologic": "HOLOGIC, Inc.", "siemens": "SIEMENS", None: "mame_lib"}
_VIEWS = {"CC": ("399162004", "cranio-caudal"), "MLO": ("399368009", "medio-lateral oblique")}
_ORIENTATION = {"L": ["A", "R"], "R": ["P", "L"]}  # hung with the chest walls together, lateral side up


def save_dicom(
    path: str | Path,
    pixels: NDArray[Any],
    *,
    attributes: Attributes,
    spacing_mm: float,
    patient: str = "SYNTHETIC",
    bits: int = 12,
    photometric: str = "MONOCHROME2",
    transfer_syntax: str = "explicit",
    window: tuple[float, float] | None = None,
    voi_lut: Sequence[int] | NDArray[Any] | None = None,
    fields: Mapping[str, Any] | None = None,
) -> Path:
    """Write pixels, floats [h, w] in 0..1 with the breast bright, and return the path.

    spacing_mm: pixel pitch at the detector. bits: stored for a pixel, 8 to 16. photometric: MONOCHROME1 is stored
    inverted, so that it looks the same. transfer_syntax: one of `SYNTAXES`. window: (center, width) in stored
    values; without one, that of the whole range, under which `dicom.read` gives the pixels back. voi_lut: outputs
    of at most `bits` bits for the stored values 0, 1, …, in place of a window. fields: DICOM keywords that are
    set in the end, whatever they break; None removes one. The same arguments write the same bytes.

    Raises
    ------
    InputError
        If an argument is out of range, or pydicom or the encoder of the transfer syntax is not installed.
    """
    try:
        import pydicom
    except ImportError as error:
        raise InputError(f"writing DICOM files needs pydicom; install it with: {INSTALL}") from error
    stored = _stored(pixels, bits, photometric)
    if transfer_syntax not in SYNTAXES:
        raise InputError(f"transfer syntax {transfer_syntax!r} is unknown; use one of {', '.join(SYNTAXES)}.")
    if not spacing_mm > 0:
        raise InputError(f"pixel spacing {spacing_mm} mm is not positive.")
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID(SYNTAXES[transfer_syntax])
    uids = _Uids(stored.tobytes(), repr((attributes, patient, bits, photometric)).encode())
    for keyword, value in {
        **_identity(patient, attributes, uids),
        **_geometry(attributes, spacing_mm),
        **_grayscale(bits, photometric, window, voi_lut),
    }.items():
        setattr(dataset, keyword, value)
    _set_pixels(dataset, stored, bits, transfer_syntax)
    dataset.PhotometricInterpretation = photometric
    for keyword, value in (fields or {}).items():
        if value is not None:
            setattr(dataset, keyword, value)
        elif keyword in dataset:
            delattr(dataset, keyword)
    dataset.file_meta.MediaStorageSOPClassUID = _STORAGE
    dataset.file_meta.MediaStorageSOPInstanceUID = uids.of("instance")
    big = transfer_syntax == "big-endian"
    dataset.save_as(path, enforce_file_format=True, **({"little_endian": False, "implicit_vr": False} if big else {}))
    return Path(path)


class _Uids:
    """UIDs that depend on the content alone: 2.25 and a 128-bit number (PS3.5, B.2)."""

    def __init__(self, *content: bytes) -> None:
        self.content = hashlib.sha256(b"\0".join(content)).digest()

    def of(self, what: str) -> str:
        digest = hashlib.sha256(self.content + what.encode()).digest()
        return f"2.25.{int.from_bytes(digest[:16], 'big')}"


def _stored(pixels: NDArray[Any], bits: int, photometric: str) -> NDArray[Any]:
    """Floats [h, w] -> unsigned integers [h, w] of `bits` bits."""
    values = np.asarray(pixels, np.float64)
    if values.ndim != 2 or not values.size or max(values.shape) > 65535:
        raise InputError(f"pixels of shape {values.shape} are no image; give [h, w], at most 65535 a side.")
    if not (values.min() >= 0 and values.max() <= 1):
        raise InputError("pixels are not all between 0 and 1.")
    if not 8 <= bits <= 16:
        raise InputError(f"{bits} bits a pixel are not possible; use 8 to 16.")
    if photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise InputError(f"photometric {photometric!r} is unknown; use MONOCHROME1 or MONOCHROME2.")
    if photometric == "MONOCHROME1":
        values = 1 - values
    return np.rint(values * ((1 << bits) - 1)).astype(np.uint8 if bits == 8 else np.uint16)


def _identity(patient: str, attributes: Attributes, uids: _Uids) -> dict[str, Any]:
    return {
        "SpecificCharacterSet": "ISO_IR 192",
        "ImageType": ["DERIVED", "PRIMARY"],
        "SOPClassUID": _STORAGE,
        "SOPInstanceUID": uids.of("instance"),
        "StudyDate": "",
        "StudyTime": "",
        "AccessionNumber": "",
        "Modality": "MG",
        "PresentationIntentType": "FOR PRESENTATION",
        "Manufacturer": _MAKERS[attributes.vendor],
        "ReferringPhysicianName": "",
        "SeriesDescription": "Synthetic mammogram",
        "PatientName": "Synthetic",
        "PatientID": patient,
        "PatientBirthDate": "",
        "PatientSex": "",
        "StudyInstanceUID": uids.of("study"),
        "SeriesInstanceUID": uids.of("series"),
        "StudyID": "",
        "SeriesNumber": 1,
        "InstanceNumber": 1,
        "ImageComments": NOTICE,
    }


def _geometry(attributes: Attributes, spacing_mm: float) -> dict[str, Any]:
    """Where on the body and on the detector."""
    values: dict[str, Any] = {
        "BodyPartExamined": "BREAST",
        "ImagerPixelSpacing": [f"{spacing_mm:.6g}"] * 2,
        "PositionerType": "MAMMOGRAPHIC",
        "PatientOrientation": _ORIENTATION.get(attributes.laterality or "", ""),
        "OrganExposed": "BREAST",
        "BreastImplantPresent": "NO",
        "PartialView": "NO",
        "AnatomicRegionSequence": [_code("76752008", "Breast")],
        "AcquisitionContextSequence": [],
    }
    if attributes.laterality:
        values["ImageLaterality"] = attributes.laterality
    if attributes.view:
        item = _code(*_VIEWS[attributes.view])
        item.ViewModifierCodeSequence = []
        values |= {"ViewPosition": attributes.view, "ViewCodeSequence": [item]}
    return values


def _grayscale(bits: int, photometric: str, window: Any, voi_lut: Any) -> dict[str, Any]:
    """How stored values are shown."""
    values: dict[str, Any] = {
        "PixelIntensityRelationship": "LOG",
        "PixelIntensityRelationshipSign": -1 if photometric == "MONOCHROME2" else 1,
        "RescaleIntercept": 0,
        "RescaleSlope": 1,
        "RescaleType": "US",
        "PresentationLUTShape": "IDENTITY" if photometric == "MONOCHROME2" else "INVERSE",
        "LossyImageCompression": "00",
        "BurnedInAnnotation": "NO",
        "QualityControlImage": "NO",
    }
    if voi_lut is None:
        center, width = window or (1 << (bits - 1), 1 << bits)
        return values | {"WindowCenter": center, "WindowWidth": width, "VOILUTFunction": "LINEAR"}
    from pydicom import Dataset

    entries = np.asarray(voi_lut)
    if window is not None or entries.ndim != 1 or not 0 < len(entries) <= 65536:
        raise InputError("give a window or a VOI LUT of 1 to 65536 entries, not both.")
    if entries.min() < 0 or entries.max() >= 1 << bits:
        raise InputError(f"the VOI LUT has entries that are no {bits}-bit numbers.")
    item = Dataset()
    item.LUTDescriptor = [len(entries) % 65536, 0, bits]
    item.LUTExplanation = "NORMAL"
    item.LUTData = [int(entry) for entry in entries]
    item["LUTData"].VR = "US"
    return values | {"VOILUTSequence": [item]}


def _code(value: str, meaning: str) -> Any:
    from pydicom import Dataset

    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "SCT", meaning
    return item


def _set_pixels(dataset: Any, stored: NDArray[Any], bits: int, name: str) -> None:
    """Pixel description and data, encoded for the transfer syntax."""
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = stored.shape
    dataset.BitsAllocated = 8 * stored.dtype.itemsize
    dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = bits, bits - 1, 0
    if name in _PREDICTORS:
        from pydicom.encaps import encapsulate

        dataset.PixelData = encapsulate([jpeg_lossless.encode(stored, bits, predictor=_PREDICTORS[name])])
        dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
    elif name in _ENCODERS:
        from pydicom.pixels import get_encoder

        plugin = _ENCODERS[name]
        if plugin not in get_encoder(SYNTAXES[name]).available_plugins:
            raise InputError(f"no encoder for {name} is installed; get one with: {INSTALL_DECODERS}.")
        try:
            dataset.compress(SYNTAXES[name], stored, encoding_plugin=plugin, generate_instance_uid=False)
        except RuntimeError as error:  # JPEG 2000: fewer than 32 pixels a side
            raise InputError(f"{name} cannot encode {stored.shape[1]} x {stored.shape[0]} pixels.") from error
    else:
        data = stored.astype(stored.dtype.newbyteorder(">" if name == "big-endian" else "<")).tobytes()
        dataset.PixelData = data + b"\0" * (len(data) % 2)
        dataset["PixelData"].VR = "OB" if stored.dtype.itemsize == 1 and name != "implicit" else "OW"
