"""Damaged DICOM files, each from one number: `damaged(seed)`. Run as a program, it reads a range of them.

    python tests/fuzz/mutate.py FIRST STOP REPORT

writes one JSON line a seed to REPORT. A native decoder that crashes ends this process, and so does a file that
takes longer than LIMIT: the caller sees after which line, and goes on behind it (`test_fuzz_dicom.py`).
"""

import io
import json
import re
import resource
import signal
import sys
import tempfile
import time
from functools import cache
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from mame_lib.data import dicom
from mame_lib.data.case import Attributes
from mame_lib.data.dicom_export import SYNTAXES, save_dicom
from mame_lib.errors import InputError

LIMIT = 5  # seconds for one file
MEMORY = 6 * 2**30  # bytes of address space: a bomb becomes a MemoryError
SHAPE = (80, 66)
SECRET = "Doe^Planted"

GRAYSCALE = [
    "WindowCenter", "WindowWidth", "RescaleSlope", "RescaleIntercept", "PixelPaddingValue", "PixelPaddingRangeLimit",
    "VOILUTFunction", "PixelIntensityRelationshipSign", "EstimatedRadiographicMagnificationFactor",
    "ImagerPixelSpacing", "NumberOfFrames",
]  # fmt: skip
PIXELS = ["Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "SamplesPerPixel"]
TEXTS = [
    "Modality", "PresentationIntentType", "PhotometricInterpretation", "ImageLaterality", "ViewPosition",
    "Manufacturer", "PatientOrientation", "BreastImplantPresent", "PartialView", "ImageType", "SOPClassUID",
    "PatientID", "VOILUTFunction",
]  # fmt: skip
SEQUENCES = [
    "VOILUTSequence", "ModalityLUTSequence", "ViewCodeSequence", "AnatomicRegionSequence",
    "SharedFunctionalGroupsSequence", "ViewModifierCodeSequence", "SpecimenDescriptionSequence",
]  # fmt: skip
NUMBERS = ["0", "-1", "1", "nan", "inf", "-inf", "1e308", "-1e-320", "65536", "4294967296", "", "x", "1\\2\\3", "1,5"]
WORDS = ["", "MG", "CC", "MLO", "L", "R", "B", "YES", "FOR PROCESSING", "MONOCHROME1", "RGB", "SIGMOID", "A\\R",
         "LINEAR_EXACT", "\udcff", "\0", "XCCL", "é" * 70, "1.2.840.10008.5.1.4.1.1.13.1.3"]  # fmt: skip


def image(bits: int) -> np.ndarray:
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    soft = np.clip(1 - (x / 50) ** 2 - ((y - 40) / 38) ** 2, 0, 1)
    return np.rint(soft * ((1 << bits) - 1)) / ((1 << bits) - 1)


@cache
def corpus() -> tuple[bytes, ...]:
    """Small valid files: every transfer syntax, 8 to 16 bits, with window, windows, LUTs, padding, raw data."""
    curve = np.minimum(np.arange(4096) * 2, 4095)
    table = Dataset()
    table.LUTDescriptor, table.LUTData = [4096, 0, 16], [int(v) for v in curve]
    table["LUTData"].VR = "US"
    variants = [{"transfer_syntax": name, "bits": bits} for name in SYNTAXES for bits in (8, 12, 16)]
    variants += [
        {"voi_lut": curve},
        {"voi_lut": curve, "photometric": "MONOCHROME1", "transfer_syntax": "implicit"},
        {"fields": {"ModalityLUTSequence": [table], "RescaleSlope": None, "RescaleIntercept": None}},
        {"fields": {"WindowCenter": [2000, 100], "WindowWidth": [900, 50], "VOILUTFunction": "SIGMOID"}},
        {"fields": {"WindowCenter": 1, "WindowWidth": 1, "VOILUTFunction": "LINEAR_EXACT", "PixelPaddingValue": 0}},
        {"fields": {"PresentationIntentType": "FOR PROCESSING", "PixelPaddingValue": 9, "PixelPaddingRangeLimit": 0}},
        {"fields": {"PixelRepresentation": 1, "RescaleIntercept": -1024, "RescaleSlope": 2}, "bits": 14},
    ]
    files = []
    with tempfile.TemporaryDirectory() as folder:
        for number, extra in enumerate(variants):
            extra = {"bits": 12, "fields": {}} | extra
            extra["fields"] = {"PatientName": SECRET, "PatientID": SECRET} | extra["fields"]
            path = Path(folder) / f"{number}.dcm"
            side = "LR"[number % 2]
            save_dicom(path, image(extra["bits"]), attributes=Attributes("siemens", "CC", laterality=side),
                       spacing_mm=0.085, **extra)  # fmt: skip
            files.append(path.read_bytes())
    return tuple(files)


def damaged(seed: int) -> bytes:
    """The file of this seed: one of the corpus after one to four mutations."""
    rng = np.random.default_rng(seed)
    data = corpus()[rng.integers(len(corpus()))]
    for _ in range(rng.integers(1, 5)):
        kinds = HEADER if rng.random() < 0.5 else BYTES
        data = kinds[rng.integers(len(kinds))](data, rng)
    return data


def flip(data, rng):
    """A few bits anywhere."""
    changed = bytearray(data)
    for at in rng.integers(0, len(data), rng.integers(1, 9)) if data else ():
        changed[at] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def scribble(data, rng):
    """Random bytes, or the worst ones, over a short run."""
    if len(data) < 2:
        return data
    at, n = int(rng.integers(len(data))), int(rng.integers(1, 17))
    fill = [rng.bytes(n), b"\xff" * n, b"\0" * n, b"\xff\xfe\xff\xff" * n][rng.integers(4)][:n]
    return data[:at] + fill + data[at + n :]


def flip_stream(data, rng):
    """Bits of the pixel data: what decoders see."""
    start = data.rfind(b"\xe0\x7f\x10\x00")
    if start < 0:
        return flip(data, rng)
    return data[:start] + flip(data[start:], rng)


def cut(data, rng):
    return data[: int(rng.integers(len(data) + 1))]


def cut_middle(data, rng):
    start, stop = sorted(int(v) for v in rng.integers(0, len(data) + 1, 2))
    return data[:start] + data[min(stop, start + 64) :]


def repeat(data, rng):
    """A run of bytes twice."""
    at = int(rng.integers(len(data) + 1))
    return data[:at] + data[max(0, at - int(rng.integers(1, 200))) :]


def false_length(data, rng):
    """A wrong length in an element of group 0008 to 0028 or 7fe0."""
    group = [b"\x08\0", b"\x10\0", b"\x18\0", b"\x28\0", b"\xe0\x7f"][rng.integers(5)]
    places = [m.start() for m in re.finditer(re.escape(group), data) if m.start() > 132]
    if not places:
        return flip(data, rng)
    at = places[rng.integers(len(places))] + 4 + 2 * int(rng.integers(3))
    value = [0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 0xFFFF, int(rng.integers(1 << 32))][rng.integers(6)]
    return data[:at] + value.to_bytes(4, "little")[: int(rng.choice([2, 4]))] + data[at + 4 :]


def false_vr(data, rng):
    """Another value representation for an explicit element."""
    places = [m.start() for m in re.finditer(rb"(?:CS|DS|IS|US|SQ|OW|OB|LO|UI|PN)", data) if m.start() > 132]
    if not places:
        return flip(data, rng)
    at = places[rng.integers(len(places))]
    vr = [b"SQ", b"UN", b"OB", b"DS", b"FD", b"US", b"AT", b"??", b"PN", b"UT"][rng.integers(10)]
    return data[:at] + vr + data[at + 2 :]


def _edit(data, change):
    """The file after `change(dataset)`, or unchanged where it cannot be parsed or written any more."""
    try:
        dataset = pydicom.dcmread(io.BytesIO(data), force=True)
        change(dataset)
        out = io.BytesIO()
        dataset.save_as(out, enforce_file_format=False)
        return out.getvalue()
    except Exception:
        return data


def _set(dataset, keyword, text):
    """Set a text value past pydicom's checks."""
    tag = pydicom.datadict.tag_for_keyword(keyword)
    vr = pydicom.datadict.dictionary_VR(tag).split(" ")[0]
    value = text.encode("utf-8", "surrogateescape")
    dataset[tag] = pydicom.dataelem.RawDataElement(
        pydicom.tag.Tag(tag), vr, len(value), value, 0, dataset.is_implicit_VR, dataset.is_little_endian
    )


def drop(data, rng):
    def change(dataset):
        tags = [element.tag for element in dataset]
        for _ in range(rng.integers(1, 4)):
            tag = tags[rng.integers(len(tags))]
            if tag in dataset:
                del dataset[tag]

    return _edit(data, change)


def odd_number(data, rng):
    keyword, value = GRAYSCALE[rng.integers(len(GRAYSCALE))], NUMBERS[rng.integers(len(NUMBERS))]
    return _edit(data, lambda dataset: _set(dataset, keyword, value))


def odd_text(data, rng):
    keyword, value = TEXTS[rng.integers(len(TEXTS))], WORDS[rng.integers(len(WORDS))]
    return _edit(data, lambda dataset: _set(dataset, keyword, value))


def odd_pixels(data, rng):
    keyword = PIXELS[rng.integers(len(PIXELS))]
    value = [0, 1, 2, 7, 8, 11, 12, 16, 17, 32, 64, 255, 4096, 30000, 65535][rng.integers(15)]
    return _edit(data, lambda dataset: setattr(dataset, keyword, value))


def swap(data, rng):
    """Two elements of the same representation exchange their values."""

    def change(dataset):
        elements = [e for e in dataset if e.tag.group != 0x7FE0]
        one = elements[rng.integers(len(elements))]
        same = [e for e in elements if one.VR == e.VR]
        other = same[rng.integers(len(same))]
        one.value, other.value = other.value, one.value

    return _edit(data, change)


def odd_sequence(data, rng):
    """A sequence that is empty, wrong inside, or deep."""

    def change(dataset):
        item = Dataset()
        for _ in range([0, 1, 3, 60][rng.integers(4)]):
            outer = Dataset()
            outer.ViewCodeSequence = Sequence([item])
            item = outer
        item.CodeValue = ["R-10242", "R-102D6", "", "x" * 400][rng.integers(4)]
        setattr(dataset, SEQUENCES[rng.integers(len(SEQUENCES))], Sequence([item] * int(rng.integers(3))))

    return _edit(data, change)


def odd_lut(data, rng):
    """A look-up table whose descriptor and data disagree."""

    def change(dataset):
        item = Dataset()
        numbers = [0, 1, 2, 8, 12, 16, 17, 100, 4096, 65535]
        item.LUTDescriptor = [numbers[rng.integers(10)] for _ in range(rng.integers(1, 5))]
        if rng.random() < 0.8:
            item.LUTData = [int(v) for v in rng.integers(0, 65536, numbers[rng.integers(10)])]
            item["LUTData"].VR = "US"
        setattr(dataset, ["VOILUTSequence", "ModalityLUTSequence"][rng.integers(2)], Sequence([item]))

    return _edit(data, change)


def other_syntax(data, rng):
    """The label of another transfer syntax on the same bytes."""
    names = sorted(SYNTAXES.values())
    old = next((name for name in sorted(names, key=len, reverse=True) if name.encode() in data), None)
    new = names[rng.integers(len(names))].encode()
    return data if old is None else data.replace(old.encode(), new.ljust(len(old), b"\0")[: len(old)], 1)


def overlay(data, rng):
    return _edit(data, lambda dataset: dataset.add_new(0x60000102, "US", int(rng.integers(20))))


BYTES = (flip, scribble, flip_stream, flip_stream, cut, cut_middle, repeat, false_length, false_vr, other_syntax)
HEADER = (drop, odd_number, odd_number, odd_text, odd_pixels, odd_pixels, swap, odd_sequence, odd_lut, overlay)


def outcome(seed: int, path: Path) -> dict:
    """What `dicom.read` makes of the file of this seed: kind, reason (of a class), seconds."""
    path.write_bytes(damaged(seed))
    start = time.perf_counter()
    kind, reason = "read", ""
    try:
        found = dicom.read(path, salt=b"salt", for_processing=("refuse", "log")[seed % 2])
        pixels = found.pixels
        sound = pixels.ndim == 2 and pixels.dtype == np.float32 and pixels.size and np.isfinite(pixels).all()
        if not (sound and pixels.min() >= 0 and pixels.max() <= 1):
            kind, reason = "wrong", f"shape {pixels.shape}"
        if "Planted" in repr((found.attributes, found.patient, found.spacing, found.facts, found.maker)):
            kind, reason = "leak", "patient in the result"
    except InputError as error:
        text = str(error).removeprefix(f"{path}: ")
        kind, reason = "refused", re.sub(r"\d+", "#", re.split(r"[(;]", text)[0]).strip()
        if "Planted" in text:
            kind = "leak"
    except Exception as error:
        kind, reason = "raised", f"{type(error).__name__}: {error}"
    return {"seed": seed, "kind": kind, "reason": reason, "seconds": round(time.perf_counter() - start, 3)}


def main(first: int, stop: int, report: str) -> None:
    corpus()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    with open(report, "a", encoding="utf-8") as lines, tempfile.TemporaryDirectory() as folder:
        for seed in range(first, stop):
            signal.alarm(LIMIT)  # its default action ends the process, inside native code too
            lines.write(json.dumps(outcome(seed, Path(folder) / "x.dcm")) + "\n")
            lines.flush()
            signal.alarm(0)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
