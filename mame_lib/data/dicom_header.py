"""What the header of a mammogram says: maker, view, side, and why an image is not one that a model should see.

Pure functions of a pydicom Dataset. Codes are those of PS3.16: CID 4014 (views) and 4015 (view modifiers), in
SNOMED RT (designators SRT, SNM3) and SNOMED CT (SCT). No reason quotes a free text of the header.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from mame_lib.data.case import VENDORS, VIEWS, Attributes
from mame_lib.errors import InputError

# First word that is found wins; Lorad is Hologic's earlier name, MicroDose was Sectra's before it was Philips's.
_MAKERS = {
    "hologic": r"hologic|lorad",
    "siemens": r"siemens",
    "ge": r"\bge\b|\bgems\b|gehc|general electric",
    "fujifilm": r"fuji",
    "philips": r"philips",
    "sectra": r"sectra",
    "planmed": r"planmed",
    "giotto": r"giotto|\bims\b|\bi\.m\.s\b|internazionale medico",
    "agfa": r"agfa",
    "carestream": r"carestream|kodak",
    "konica": r"konica",
    "metaltronica": r"metaltronica",
}

_VIEW_CODES = {
    "CC": ("R-10242", "399162004"),
    "MLO": ("R-10226", "399368009"),
    "ML": ("R-10224", "399260004"),
    "LM": ("R-10228", "399352003"),
    "LMO": ("R-10230", "399099002"),
    "FB": ("R-10244", "399196006"),
    "SIO": ("R-102D0", "399188001"),
    "ISO": ("R-40AAA", "441555000"),
    "XCCL": ("R-1024A", "399192008", "Y-X1770"),  # Y-…: codes of an early edition, never SNOMED's
    "XCCM": ("R-1024B", "399101009", "Y-X1771"),
    "SPECIMEN": ("G-8310", "127457009"),
}
# Names of modified views, as ACR's quality manual has them; some makers write them as the view.
_OTHER_VIEWS = ("XCC", "AT", "CV", "RL", "RM", "RI", "RS", "TAN", "CCM", "MLOM", "CCID", "MLOID", "FLATFIELD")
_KNOWN_VIEWS = frozenset((*_VIEW_CODES, *_OTHER_VIEWS))

_MODIFIER_CODES = {
    "an implant-displaced view": ("R-102D5", "399209000"),
    "a magnification view": ("R-102D6", "399163009"),
    "a spot compression view": ("R-102D7", "399055006"),
    "a cleavage view": ("R-102D2", "399161006"),
    "a view of the axillary tail": ("R-102D1", "399011000"),
    "a view of axillary tissue": ("R-40AB2", "442580003"),
    "a rolled view": (
        "R-102D3", "399197002", "R-102D4", "399226006", "R-102CA", "414493004", "R-102C9", "415670009",
    ),
    "a tangential view": ("R-102C2", "399110001"),
    "a view with anterior compression": ("P2-00161", "441752004"),
    "a view of the infra-mammary fold": ("R-40ABE", "442593008"),
}  # fmt: skip
_SIDE_CODES = {"R": ("T-04020", "73056007", "G-A100", "24028007"), "L": ("T-04030", "80248007", "G-A101", "7771000")}

_PRESENTATION = {"1.2.840.10008.5.1.4.1.1.1.2", "1.2.840.10008.5.1.4.1.1.13.1.4"}
_PROCESSING = {"1.2.840.10008.5.1.4.1.1.1.2.1", "1.2.840.10008.5.1.4.1.1.13.1.5"}
_TOMOSYNTHESIS = "1.2.840.10008.5.1.4.1.1.13.1.3"
_PROJECTIONS = frozenset({"CR", "DX", "RG", "OT"})  # digitized film may come under these modalities

# What else a picture archive holds; only these words are repeated in a reason.
_MODALITIES = frozenset(("CR", "CT", "DX", "ES", "IO", "KO", "MR", "NM", "OT", "PR", "PT", "PX", "RF", "RG", "SC",
                         "SEG", "SM", "SR", "US", "XA", "XC"))  # fmt: skip
_COLORS = ("RGB", "PALETTE COLOR", "YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_420", "YBR_ICT", "YBR_RCT")

_MAGNIFIED = 1.25  # contact views state 1.0 to 1.1, magnification stands 1.4 to 2


def maker(dataset: Any) -> str:
    """Maker of the machine, one of a dozen known words; "other" if the header names another, "" if none."""
    text = _text(dataset, "Manufacturer").lower()
    known = (word for word, pattern in _MAKERS.items() if re.search(pattern, text))
    return next(known, "other" if text else "")


def attributes(dataset: Any) -> Attributes:
    """Vendor, view and laterality, as far as the header states them in words of the vocabulary."""
    name, shown = maker(dataset), view(dataset)
    return Attributes(
        vendor=name if name in VENDORS else None,
        view=shown if shown in VIEWS else None,
        laterality=laterality(dataset),
    )


def view(dataset: Any) -> str | None:
    """Name of the view, of CID 4014 or a known other one; "unknown" for one that is stated and strange; else None.

    View Position and View Code Sequence are both read.

    Raises
    ------
    InputError
        If one says CC and the other MLO.
    """
    stated, coded = _view_position(dataset), _view_code(dataset)
    if stated in VIEWS and coded in VIEWS and stated != coded:
        raise InputError(f"its header contradicts itself: view {stated} in words, {coded} in code.")
    # A modified view may be named in one place and its plain base in the other: the unusual one tells more.
    unusual = (name for name in (stated, coded) if name and name not in (*VIEWS, "unknown"))
    return next(unusual, coded or stated)


def laterality(dataset: Any) -> str | None:
    """L or R, None if not stated or both: the first of these that says it.

    Image Laterality, Frame Laterality, Laterality, anatomic region codes and their modifiers, and Patient
    Orientation (PS3.3, C.7.6.1.1.1): mammograms are hung with the lateral side or the axilla up, so that the
    columns of an upright image run to the patient's right in a left breast.
    """
    frame: Any = next(_items(dataset, "SharedFunctionalGroupsSequence", "FrameAnatomySequence"), {})
    for side in (_text(dataset, "ImageLaterality"), _text(frame, "FrameLaterality"), _text(dataset, "Laterality")):
        if side:
            return side if side in ("L", "R") else None
    codes = {
        _text(item, "CodeValue")
        for holder in (dataset, frame)
        for path in (("AnatomicRegionSequence",), ("AnatomicRegionSequence", "AnatomicRegionModifierSequence"))
        for item in _items(holder, *path)
    }
    sides = [side for side, known in _SIDE_CODES.items() if codes & set(known)]
    if len(sides) == 1:
        return sides[0]
    row, _, column = _text(dataset, "PatientOrientation").partition("\\")
    if row in ("A", "P"):
        return {(True, False): "L", (False, True): "R"}.get(("R" in column, "L" in column))
    return None


def refuse(dataset: Any, *, for_processing: bool = False) -> None:
    """Return if the header is that of one plain mammogram, a view CC, MLO or unstated; pixels are not looked at.
    With `for_processing`, raw detector data pass.

    Raises
    ------
    InputError
        With the first reason that applies.
    """
    for reason in (
        _not_a_mammogram(dataset),
        _test_object(dataset),
        None if for_processing else _raw(dataset),
        _other_examination(dataset),
        _other_technique(dataset),
        _other_view(dataset),
        _other_pixels(dataset),
    ):
        if reason:
            raise InputError(reason)


def _not_a_mammogram(dataset: Any) -> str | None:
    modality, kind = _text(dataset, "Modality"), _text(dataset, "SOPClassUID")
    if modality == "MG" or kind in _PRESENTATION | _PROCESSING | {_TOMOSYNTHESIS}:
        return None
    breast = _text(dataset, "BodyPartExamined") == "BREAST" or view(dataset) not in (None, "unknown")
    if breast and (not modality or modality in _PROJECTIONS):
        return None
    shown = modality if modality in _MODALITIES else "unknown" if modality else "not stated"
    return f"it is not a mammogram (modality {shown}); modality MG is expected."


def _test_object(dataset: Any) -> str | None:
    phantom = any(_text(item, "CodeValue") == "706342009" for item in _items(dataset, "AnatomicRegionSequence"))
    marked = any(_text(dataset, name) in ("YES", "BOTH") for name in ("QualityControlImage", "CalibrationImage"))
    flat = "FLATFIELD" in _text(dataset, "ViewPosition").replace(" ", "")
    if phantom or marked or flat or re.search(r"\bPHANTOM\b|\bFLAT[- ]?FIELD\b", _descriptions(dataset)):
        return "it shows a test object (quality control), not a breast."
    return None


def is_raw(dataset: Any) -> bool:
    """Whether the image is FOR PROCESSING, by its SOP class or its presentation intent."""
    intent = _text(dataset, "PresentationIntentType")
    return _text(dataset, "SOPClassUID") in _PROCESSING or intent == "FOR PROCESSING"


def _raw(dataset: Any) -> str | None:
    if is_raw(dataset):
        return (
            "it is FOR PROCESSING (raw detector data); export the FOR PRESENTATION image instead, "
            "or have it converted (--for-processing log)."
        )
    return None


def _other_examination(dataset: Any) -> str | None:
    """Specimens and interventions."""
    kinds, words = _image_type(dataset), _descriptions(dataset)
    named = {_view_position(dataset), _view_code(dataset)}
    if "SPECIMEN" in named or dataset.get("SpecimenDescriptionSequence") or re.search(r"\bSPECIMEN\b", words):
        return "it shows a specimen, not a breast."
    if any("STEREO" in kind for kind in kinds) or re.search(r"\bSTEREO|(?<!POST )(?<!POST-)\bBIOPSY\b", words):
        return "it is a stereotactic or biopsy image."
    return None


def _other_technique(dataset: Any) -> str | None:
    """Tomosynthesis, what is computed from it, and contrast-enhanced images."""
    kinds, words = _image_type(dataset), _descriptions(dataset)
    if _text(dataset, "SOPClassUID") == _TOMOSYNTHESIS or int(dataset.get("NumberOfFrames") or 1) > 1:
        return "it holds several frames (tomosynthesis); one two-dimensional image is expected."
    if "GENERATED_2D" in kinds or re.search(r"\bC-?VIEW\b|\bINSIGHT 2D\b|\bV-?PREVIEW\b|\bSYNTHETIC 2D\b", words):
        return "it is a two-dimensional image computed from tomosynthesis (C-View, Insight 2D, V-Preview)."
    if any(kind.startswith("TOMO") for kind in kinds):
        return "it is a projection or slice of tomosynthesis."
    if any(word in kind for kind in kinds for word in ("RECOMBINED", "SUBTRACT", "HIGH_ENERGY")):
        return "it is a contrast-enhanced image (high energy or recombined); only the low-energy one is a mammogram."
    return None


def _other_view(dataset: Any) -> str | None:
    """Implants, parts of a breast, magnifications, and every view but CC and MLO, the two that prompts know."""
    modifiers = list(_modifiers(dataset))
    if modifiers:
        return f"it is {modifiers[0]}."
    if _text(dataset, "BreastImplantPresent") == "YES":
        return "it shows a breast with an implant."
    if float(dataset.get("EstimatedRadiographicMagnificationFactor") or 1) >= _MAGNIFIED:
        return "it is a magnification view."
    if re.search(r"\bSPOT\b|\bMAG\b|MAGNIF", _text(dataset, "PaddleDescription")):
        return "it is a spot compression or magnification view."
    if _text(dataset, "PartialView") == "YES" or dataset.get("PartialViewCodeSequence"):
        return "it shows a part of a breast that is larger than the detector (partial view)."
    shown = view(dataset)
    if shown == "unknown":
        return "its view is none that mammography knows; CC or MLO is expected."
    return f"its view is {shown}; CC or MLO is expected." if shown and shown not in VIEWS else None


def _other_pixels(dataset: Any) -> str | None:
    samples, kind = int(dataset.get("SamplesPerPixel") or 1), _text(dataset, "PhotometricInterpretation")
    if samples == 1 and kind in ("MONOCHROME1", "MONOCHROME2"):
        return None
    if not kind and "Rows" not in dataset:
        return "its pixels are not described: a header alone, or a file that was cut off."
    shown = "color" if samples != 1 or kind in _COLORS else "unknown" if kind else "not stated"
    return f"its photometric interpretation is {shown}; MONOCHROME1 or 2 is expected."


def _view_position(dataset: Any) -> str | None:
    """View Position, with a side before it dropped (RCC, LMLO); "unknown" if it is no word of ours."""
    word = re.sub("[^A-Z]", "", _text(dataset, "ViewPosition"))
    if not word:
        return None
    for name in (word, word[1:] if word[0] in "LR" else ""):
        if name in _KNOWN_VIEWS:
            return name
    return "unknown"


def _view_code(dataset: Any) -> str | None:
    codes = {_text(item, "CodeValue") for item in _items(dataset, "ViewCodeSequence")}
    return next((name for name, known in _VIEW_CODES.items() if codes & set(known)), None)


def _modifiers(dataset: Any) -> Iterator[str]:
    """The view modifiers that make an image unlike its plain view; nipple in profile does not."""
    paths = (("ViewCodeSequence", "ViewModifierCodeSequence"), ("ViewModifierCodeSequence",))
    codes = {_text(item, "CodeValue") for path in paths for item in _items(dataset, *path)}
    return (name for name, known in _MODIFIER_CODES.items() if codes & set(known))


def _image_type(dataset: Any) -> list[str]:
    return _text(dataset, "ImageType").split("\\")


def _descriptions(dataset: Any) -> str:
    """Free texts that name the protocol; searched for words, never shown."""
    return " | ".join(_text(dataset, name) for name in ("ProtocolName", "SeriesDescription"))


def _items(dataset: Any, name: str, *deeper: str) -> Iterator[Any]:
    """Items of a sequence, or of sequences inside its items; none where a field is missing or no sequence."""
    value = dataset.get(name) if hasattr(dataset, "get") else None
    for item in value if value and not isinstance(value, str | bytes) else ():
        if deeper:
            yield from _items(item, *deeper)
        elif hasattr(item, "get"):
            yield item


def _text(dataset: Any, name: str) -> str:
    """A field as upper-case text without spaces around it, several values joined by a backslash; "" if absent."""
    value = dataset.get(name)
    if value is None:
        return ""
    if isinstance(value, bytes):
        value = value.decode("ascii", "replace")
    several = not isinstance(value, str) and hasattr(value, "__iter__")
    return "\\".join(str(part).strip().upper() for part in (value if several else [value])).strip("\0 ")
