"""VinDr-Mammo 1.0.0 (Nguyen et al., Scientific Data 2023; PhysioNet, credentialed access): `list_vindr`.

    breast-level_annotations.csv   one row an image: study, view, side, size, density, split
    finding_annotations.csv        one row a finding, or "No Finding"
    metadata.csv                   header fields, of which the maker is used; may be missing
    images/STUDY/IMAGE.dicom

The patients' ids were removed from the files, so the study is the unit of splitting.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from mame_lib.data.case import Attributes
from mame_lib.data.sources.base import FloatBox, Quarantined, SourceCase
from mame_lib.data.sources.tables import (
    Row,
    RowError,
    Table,
    box_of,
    density_of,
    one_of,
    pixels_of,
    read_table,
    side_of,
    split_of,
    splits_of_patients,
    vendor_of,
    view_of,
)  # fmt: skip
from mame_lib.errors import InputError

BREASTS, FINDINGS, METADATA = "breast-level_annotations.csv", "finding_annotations.csv", "metadata.csv"
CATEGORIES = (
    "Mass", "Suspicious Calcification", "Architectural Distortion", "Asymmetry", "Focal Asymmetry",
    "Global Asymmetry", "Skin Thickening", "Skin Retraction", "Nipple Retraction", "Suspicious Lymph Node",
)  # fmt: skip
NO_FINDING = "no finding"

_BREAST_COLUMNS = (
    "study_id", "image_id", "laterality", "view_position", "height", "width", "breast_density", "split",
)  # fmt: skip
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_REPEATED: dict[str, Callable[[str], object]] = {  # said in both tables, and how to read it
    "study_id": str,
    "laterality": side_of,
    "view_position": view_of,
    "height": lambda text: pixels_of(text, "height"),
    "width": lambda text: pixels_of(text, "width"),
    "breast_density": density_of,
    "split": split_of,
}
_QUOTED = re.compile(r"'([^']*)'|\"([^\"]*)\"")
_PLAIN_NAME = re.compile(r"[0-9A-Za-z_-][0-9A-Za-z._-]*")


def list_vindr(
    root: str | Path, *, findings: Collection[str] | None = None
) -> Iterator[SourceCase | Quarantined]:
    """The images of VinDr-Mammo below `root`, the folder "1.0.0", in the order of breast-level_annotations.csv.

    An image whose findings are all "No Finding" is healthy: a convention of the collection, which marks nothing
    that was judged BI-RADS 1 or 2. Every finding of the other images becomes a box.

    findings: the categories that make a lesion, such as ("Mass",), as in the paper's second experiment; images
    that show only others are then refused, since they are neither. None takes every finding with a box.

    Raises
    ------
    InputError
        If a table is missing or lacks a column, or a category is unknown (at once, not at the first image).
    """
    root = Path(root)
    chosen = _chosen(findings)
    breasts = read_table(root / BREASTS, _BREAST_COLUMNS)
    marks = read_table(root / FINDINGS, ("image_id", "finding_categories", *_CORNERS))
    return _list(root, breasts, marks, _makers(root / METADATA), chosen)


def _chosen(findings: Collection[str] | None) -> frozenset[str]:
    """Categories in small letters, empty for all."""
    words = {category.lower() for category in CATEGORIES}
    if findings is not None and not findings:
        raise InputError(f"no finding is chosen; give some of {', '.join(CATEGORIES)}, or leave the choice out.")
    for name in findings or ():
        if name.lower() not in words:
            raise InputError(f"the finding {name!r} is unknown; use {', '.join(CATEGORIES)}.")
    return frozenset(name.lower() for name in findings or ())


def _makers(path: Path) -> dict[str, str]:
    """Image id -> name of the maker, as far as metadata.csv tells; the files' headers know it too."""
    if not path.exists():
        return {}
    table = read_table(path, ("SOP Instance UID", "Manufacturer"))
    return {row["SOP Instance UID"]: row["Manufacturer"] for row in table.rows}


def _list(
    root: Path, breasts: Table, marks: Table, makers: dict[str, str], chosen: frozenset[str]
) -> Iterator[SourceCase | Quarantined]:
    by_image: dict[str, list[Row]] = {}
    for row in breasts.rows:
        by_image.setdefault(row["image_id"], []).append(row)
    found: dict[str, list[Row]] = {}
    for row in marks.rows:
        found.setdefault(row["image_id"], []).append(row)
    splits = splits_of_patients((row["study_id"], _split(row)) for row in breasts.rows)
    spoiled = breasts.spoiled() | marks.spoiled()
    for image, rows in by_image.items():
        key = breasts.key(rows[0])
        try:
            key = _key(rows)
            if image in spoiled:
                raise RowError(spoiled[image])
            yield _case(key, root / key, rows, found.get(image, []), makers.get(image, ""), chosen, splits)
        except RowError as error:
            yield Quarantined(key, str(error))
    for table in (breasts, marks):
        yield from (Quarantined(table.key(bad), bad.reason) for bad in table.bad)
    for image, rows in found.items():
        if image not in by_image:
            reason = f"its image is not in {BREASTS}"
            yield from (Quarantined(marks.key(row), reason) for row in rows)


def _split(row: Row) -> str | None:
    try:
        return split_of(row["split"])
    except RowError:
        return None  # the image is refused for it; it must not decide where the rest of the study goes


def _key(rows: list[Row]) -> str:
    """The file of an image below the root, by ids that are plain names: a table must not lead out of the folder."""
    study = one_of((row["study_id"] or None for row in rows), "study")
    image = rows[0]["image_id"]
    if study is None or not (_PLAIN_NAME.fullmatch(study) and _PLAIN_NAME.fullmatch(image)):
        raise RowError("its study or image id is missing or no plain name")
    return f"images/{study}/{image}.dicom"


def _case(
    key: str, path: Path, rows: list[Row], marks: list[Row], maker: str, chosen: frozenset[str],
    splits: dict[str, str | None],
) -> SourceCase:  # fmt: skip
    row = rows[0]
    for name, read in _REPEATED.items():
        if len({read(text) for other in (*rows, *marks) if (text := other[name])}) > 1:
            raise RowError(f"its rows disagree about its {name}")
    height, width = pixels_of(row["height"], "height"), pixels_of(row["width"], "width")
    boxes = _boxes(marks, (height, width), chosen)
    attributes = Attributes(
        vendor=vendor_of(maker),
        view=view_of(row["view_position"]),
        laterality=side_of(row["laterality"]),
        density=density_of(row["breast_density"]),
        finding="lesion" if boxes else None,
    )
    if split_of(row["split"]) is None:
        raise RowError("its split is not said")
    if not path.is_file():
        raise RowError("the file is missing")
    patient = row["study_id"]
    return SourceCase(key, path, patient, attributes, boxes, split=splits[patient], shape=(height, width))


def _boxes(marks: list[Row], shape: tuple[int, int], chosen: frozenset[str]) -> tuple[FloatBox, ...]:
    """Boxes of the chosen findings of one image; none for a healthy one."""
    if not marks:
        raise RowError(f"{FINDINGS} says nothing of it")
    categories = [_categories(row["finding_categories"]) for row in marks]
    healthy = [NO_FINDING in names for names in categories]
    if any(healthy):
        if not all(names == {NO_FINDING} for names in categories):
            raise RowError("its rows say both a finding and no finding")
        if any(row[corner] for row in marks for corner in _CORNERS):
            raise RowError("it has no finding, but a box")
        return ()
    boxes = []
    for row, names in zip(marks, categories, strict=True):
        corners = [row[corner] for corner in _CORNERS]
        if not all(corners):
            raise RowError("one of its findings has no box")
        box = box_of(corners, shape)
        if not chosen or names & chosen:
            boxes.append(box)
    if not boxes:
        raise RowError(f"findings other than {', '.join(sorted(chosen))}")
    return tuple(dict.fromkeys(boxes))


def _categories(text: str) -> set[str]:
    """Names in small letters out of a list as Python or NumPy prints it: "['Mass', 'Asymmetry']" or "Mass"."""
    names = {(single or double).strip().lower() for single, double in _QUOTED.findall(text)}
    rest = _QUOTED.sub("", text).strip(" []")
    if not names:
        names, rest = {rest.lower()}, ""
    if rest.strip(" ,") or not names <= {NO_FINDING, *(category.lower() for category in CATEGORIES)}:
        raise RowError("its finding categories cannot be read")
    return names
