"""Miniatures of the layouts of real collections, drawn and written by the tests: no pixel of a real patient."""

from __future__ import annotations

import csv
import hashlib
import json
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

HEIGHT, WIDTH = 120, 96
PRESENTATION = "1.2.840.10008.5.1.4.1.1.1.2"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


def breast(height=HEIGHT, width=WIDTH, top=4000, right=False, dtype=np.uint16):
    """A half ellipse on the chest wall, brighter inside, on a black background: [height, width]."""
    y, x = np.mgrid[0:height, 0:width]
    radius = np.hypot((y - height / 2) / (height / 2.4), x / (width / 1.6))
    picture = np.where(radius < 1, (1.2 - radius) / 1.2 * top, 0).astype(dtype)
    return np.ascontiguousarray(picture[:, ::-1]) if right else picture


def rectangle(box, height=HEIGHT, width=WIDTH, value=255):
    """uint8 [height, width], `value` inside the box (x0, y0, x1, y1)."""
    mask = np.zeros((height, width), np.uint8)
    x0, y0, x1, y1 = box
    mask[y0:y1, x0:x1] = value
    return mask


def write_dicom(path: Path, pixels: np.ndarray, **fields: Any) -> Path:
    """A FOR PRESENTATION mammogram without compression; a field given as None is left out."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    bits = pixels.dtype.itemsize * 8
    values = _HEADER | {
        "Rows": pixels.shape[0], "Columns": pixels.shape[1], "BitsAllocated": bits,
        "BitsStored": min(bits, 12), "HighBit": min(bits, 12) - 1, "PixelData": pixels.tobytes(),
    } | fields  # fmt: skip
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = values["SOPClassUID"] or "1.2.3.4"
    dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ids that are no UIDs are part of the miniature
        for name, value in values.items():
            if value is not None:
                setattr(dataset, name, value)
        dataset.save_as(path, enforce_file_format=True)
    return path


_HEADER = {
    "SOPClassUID": PRESENTATION,
    "SOPInstanceUID": "1.2.3.9.8.7",
    "StudyInstanceUID": "1.2.3.4.5.6.7",
    "Modality": "MG",
    "PresentationIntentType": "FOR PRESENTATION",
    "PatientName": "Doe^Secret",
    "PatientID": "ID-4711",
    "PhotometricInterpretation": "MONOCHROME2",
    "SamplesPerPixel": 1,
    "PixelRepresentation": 0,
}


def write_csv(path: Path, header: list[str], rows: list[dict[str, Any]], newline="\n", bom=False) -> None:
    """A CSV table; a column name that occurs twice gets the same cell twice."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8-sig" if bom else "utf-8") as stream:
        writer = csv.writer(stream, lineterminator=newline)
        writer.writerow(header)
        writer.writerows([row.get(name, "") for name in header] for row in rows)


# ── VinDr-Mammo 1.0.0 ──

_IDS = ["study_id", "series_id", "image_id", "laterality", "view_position", "height", "width"]
BREAST_HEADER = [*_IDS, "breast_birads", "breast_density", "split"]
FINDING_HEADER = [
    *_IDS, "breast_birads", "breast_density", "finding_categories", "finding_birads",
    "xmin", "ymin", "xmax", "ymax", "split",
]  # fmt: skip
METADATA_HEADER = [
    "SOP Instance UID", "Series Instance UID", "SOP Instance UID", "Patient's Age", "View Position",
    "Image Laterality", "Photometric Interpretation", "Rows", "Columns", "Window Center", "Window Width",
    "Manufacturer", "Manufacturer's Model Name",
]  # fmt: skip


def md5(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest()


@dataclass
class Vindr:
    """The tables of a miniature as rows that a test may change before it calls `write`."""

    root: Path
    breasts: list[dict[str, Any]] = field(default_factory=list)
    findings: list[dict[str, Any]] = field(default_factory=list)
    metadata: list[dict[str, Any]] = field(default_factory=list)

    def write(self, **options: Any) -> Path:
        write_csv(self.root / "breast-level_annotations.csv", BREAST_HEADER, self.breasts, **options)
        write_csv(self.root / "finding_annotations.csv", FINDING_HEADER, self.findings, **options)
        write_csv(self.root / "metadata.csv", METADATA_HEADER, self.metadata, **options)
        return self.root

    def of(self, name: str) -> list[dict[str, Any]]:
        """The findings of an image such as "1 L CC"."""
        return [row for row in self.findings if row["image_id"] == md5(name)]


VINDR_BOXES = {  # image -> (categories, box) of each finding
    "1 L CC": [(["Mass"], (10, 40, 30.5, 60))],
    "1 L MLO": [(["Suspicious Calcification", "Mass"], (12, 42, 32, 62)), (["Asymmetry"], (20, 70, 40, 84))],
    "2 R CC": [(["Mass"], (70, 50, WIDTH + 17, 70))],  # beyond the image
    "2 R MLO": [(["Suspicious Calcification"], (60, 30, 80, 44))],
}


def write_vindr(root: Path, studies: int = 3, pixels: bool = True) -> Vindr:
    """`studies` of four images each; the findings of `VINDR_BOXES`; every third study is in test."""
    made = Vindr(root)
    for study in range(studies):
        for side in "LR":
            for view in ("CC", "MLO"):
                _add_vindr(made, study, side, view, pixels)
    made.write()
    return made


def _add_vindr(made: Vindr, study: int, side: str, view: str, pixels: bool) -> None:
    name = f"{study} {side} {view}"
    row = {
        "study_id": md5(f"study {study}"),
        "series_id": md5(f"series {study}"),
        "image_id": md5(name),
        "laterality": side,
        "view_position": view,
        "height": HEIGHT,
        "width": WIDTH,
        "breast_birads": "BI-RADS 2",
        "breast_density": f"DENSITY {'CBDA'[study % 4]}",
        "split": "test" if study % 3 == 2 else "training",
    }
    made.breasts.append(row)
    maker = ("SIEMENS", "SIEMENS", "Planmed", "IMS s.r.l.")[study % 4]
    inverted = maker == "Planmed"
    for categories, box in VINDR_BOXES.get(name, [(["No Finding"], None)]):
        corners = dict(zip(("xmin", "ymin", "xmax", "ymax"), box or (), strict=False))
        said = {"finding_categories": str(categories), "finding_birads": "BI-RADS 4" if box else ""}
        made.findings.append(row | said | corners)
    made.metadata.append({
        "SOP Instance UID": row["image_id"], "Series Instance UID": row["series_id"], "Patient's Age": "053Y",
        "View Position": view, "Image Laterality": side, "Rows": HEIGHT, "Columns": WIDTH,
        "Photometric Interpretation": "MONOCHROME1" if inverted else "MONOCHROME2",
        "Window Center": "[2000, 2100]", "Window Width": "[4000, 3900]", "Manufacturer": maker,
        "Manufacturer's Model Name": "Mammomat Inspiration" if maker == "SIEMENS" else "Nuance",
    })  # fmt: skip
    if pixels:
        drawn = breast(right=side == "R")
        fields = {  # what the removal of identity left: no SOP class, no patient, ids that are no UIDs
            "SOPClassUID": None, "PatientName": None, "PatientID": None,
            "SOPInstanceUID": row["image_id"], "StudyInstanceUID": row["study_id"],
            "ViewPosition": view, "ImageLaterality": side, "Manufacturer": maker,
            "WindowCenter": [2000, 2100], "WindowWidth": [4000, 3900],
            "PhotometricInterpretation": "MONOCHROME1" if inverted else "MONOCHROME2",
        }  # fmt: skip
        path = made.root / "images" / row["study_id"] / f"{row['image_id']}.dicom"
        write_dicom(path, 4095 - drawn if inverted else drawn, **fields)


# ── OPTIMAM OMI-DB ──


def opinion(left: str | None = None, right: str | None = None) -> dict[str, Any]:
    return {"left_opinion": left, "right_opinion": right}


def mark(x1: int, y1: int, x2: int, y2: int, number: int = 1) -> dict[str, Any]:
    """A mark with its corners as text, as the records have them."""
    return {"MarkID": number, "Mass": 1, "X1": str(x1), "Y1": str(y1), "X2": str(x2), "Y2": str(y2)}


def write_omidb(root: Path) -> Path:
    """Five clients: healthy; malignant, with two marks on an image; interval; benign, other spellings; suspicious."""
    healthy = {"ClientID": "demd1", "1": {"EpisodeType": "R", "SCREENING": opinion("Normal", "Normal")}}
    _add_client(root, "demd1", healthy, {"1.2.1.1": None, "1.2.1.2": {}})
    malignant = {"1": {"EpisodeType": "F", "SURGERY": opinion("Malignant"), "BIOPSYWIDE": opinion(None, "OB")}}
    marks = {"11": mark(10, 40, 30, 60), "12": mark(40, 80, 20, 70, 2)}  # the second from right to left
    _add_client(root, "demd2", malignant, {"1.2.2.1": marks, "1.2.2.2": None})
    _add_client(root, "demd3", {"1": {"EpisodeType": "CI"}}, {"1.2.3.1": None})
    _add_client(root, "optm4", {"1": {"BIOPSYFINE": opinion("OB")}}, {"1.2.4.1": None}, capitals=True)
    _add_client(root, "optm5", {"1": {"BIOPSYFINE": opinion("Suspicious")}}, {"1.2.5.1": None})
    return root


def _add_client(
    root: Path, client: str, nbss: dict[str, Any], images: dict[str, Any], capitals: bool = False
) -> None:
    study = f"1.2.{client[-1]}"
    name = str.upper if capitals else str
    folder = root / "data" / client
    (folder / study).mkdir(parents=True)
    (folder / f"{name('nbss')}_{client}.json").write_text(json.dumps(nbss))
    records = {"Site": "stge", "STUDIES": {study: {"StudyDate": "20140101", "EpisodeID": "1", f"{study}.9": images}}}
    (folder / f"{name('imagedb')}_{client}.json").write_text(json.dumps(records))
    for number, image in enumerate(images):
        side, view = "LR"[number % 2], ("CC", "MLO")[number % 2]
        fields = {
            "SOPInstanceUID": image, "StudyInstanceUID": study, "PatientID": client, "ImageLaterality": side,
            "ViewPosition": view, "Manufacturer": "HOLOGIC, Inc.",
        }  # fmt: skip
        path = root / "images" / client / study / f"{image}.dcm"
        write_dicom(path, breast(right=side == "R"), **fields)
        write_header(folder / study / f"{image}{'.dcm' if capitals else ''}.json", path)


def write_header(path: Path, image: Path) -> None:
    """The header of a DICOM file in the DICOM JSON model."""
    import pydicom

    header = pydicom.dcmread(image, stop_before_pixels=True).to_json_dict()
    path.write_text(json.dumps(header))


# ── CBIS-DDSM ──

CBIS_HEADER = [
    "patient_id", "breast_density", "left or right breast", "image view", "abnormality id", "abnormality type",
    "pathology", "subtlety", "image file path", "cropped image file path", "ROI mask file path",
]  # fmt: skip
CBIS_SERIES = "07-20-2016-DDSM-NA-74994/1.000000-ROI mask images-18984"
CBIS_MASKS = {  # abnormality -> box in the film
    "Mass-Training_P_00001_LEFT_CC_1": (10, 40, 30, 60),
    "Mass-Training_P_00001_LEFT_CC_2": (20, 70, 36, 86),
    "Mass-Training_P_00002_RIGHT_MLO_1": (60, 50, 80, 70),
    "Mass-Training_P_00003_LEFT_CC_1": (8, 30, 20, 44),
    "Calc-Test_P_00003_LEFT_CC_1": (14, 64, 30, 80),
    "Calc-Training_P_00004_LEFT_MLO_1": (10, 40, 30, 60),
}


def write_cbis(root: Path) -> Path:
    """Four patients, of whom one is in training for a mass and in test for a calcification of the same film."""
    tables: dict[tuple[str, str], list[dict[str, Any]]] = {}
    drawn: set[str] = set()
    for name, box in CBIS_MASKS.items():
        film, abnormality = name.rsplit("_", 1)
        kind, split = film.split("_")[0].split("-")
        _, _, patient, side, view = film.split("_")
        density = {"00002": 0, "00004": 3}.get(patient, 2)
        inner = "1.3.6.1.4.1.9590.100.1.2.1/1.3.6.1.4.1.9590.100.1.2.2"  # not the folders of the download
        tables.setdefault((kind.lower(), split.lower().removesuffix("ing")), []).append({
            "patient_id": f"P_{patient}", "breast_density": density, "left or right breast": side,
            "image view": view, "abnormality id": abnormality, "abnormality type": kind.lower(),
            "pathology": "BENIGN_WITHOUT_CALLBACK", "subtlety": 4, "image file path": f"{film}/{inner}/000000.dcm",
            "cropped image file path": f"{name}/{inner}/000001.dcm\n",
            "ROI mask file path": f"{name}/{inner}/000000.dcm\n",
        })  # fmt: skip
        folder = root / "manifest-ZkhPvrLo5216730872708713142" / "CBIS-DDSM"
        if film not in drawn:
            path = folder / film / "07-20-2016-DDSM-NA-74994" / "1.000000-full mammogram images-24515" / "1-1.dcm"
            write_film(path, breast(right=side == "RIGHT"))
            drawn.add(film)
        _write_crop_and_mask(folder / name / CBIS_SERIES, box, scale=1.15 if patient == "00002" else 1.0)
    for (kind, split), rows in tables.items():
        density = "breast density" if kind == "calc" else "breast_density"
        header = [density if name == "breast_density" else name for name in CBIS_HEADER]
        named = [row | {density: row["breast_density"]} for row in rows]
        file = f"{kind}_case_description_{split}_set.csv"
        write_csv(root / (file.replace("_", "-") if kind == "calc" else file), header, named)
    return root


def write_film(path: Path, pixels: np.ndarray) -> Path:
    fields = {
        "SOPClassUID": SECONDARY_CAPTURE, "PresentationIntentType": None, "BodyPartExamined": "BREAST",
        "BitsStored": pixels.dtype.itemsize * 8, "HighBit": pixels.dtype.itemsize * 8 - 1,
    }  # fmt: skip
    return write_dicom(path, pixels, **fields)


def _write_crop_and_mask(folder: Path, box: tuple[int, int, int, int], scale: float) -> None:
    """1-1.dcm and 1-2.dcm: the crop first where the lesion is low in the film, else the mask."""
    x0, y0, x1, y1 = box
    crop, mask = breast()[y0:y1, x0:x1], rectangle(box)
    if scale != 1:
        rows = (np.arange(int(HEIGHT * scale)) / scale).astype(int)
        columns = (np.arange(int(WIDTH * scale)) / scale).astype(int)
        mask = mask[rows][:, columns]
    names = ("1-2.dcm", "1-1.dcm") if y0 > 50 else ("1-1.dcm", "1-2.dcm")
    write_film(folder / names[0], np.ascontiguousarray(mask))
    write_film(folder / names[1], np.ascontiguousarray(crop))
