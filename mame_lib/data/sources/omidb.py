"""OPTIMAM OMI-DB (Halling-Brown et al., Radiology: AI 2021; on application to its owners): `list_omidb`.

    data/CLIENT/nbss_CLIENT.json           screening records: episodes, opinions
    data/CLIENT/imagedb_CLIENT.json        studies, series, images and the marks on them
    data/CLIENT/STUDY/IMAGE.json           header of an image in the DICOM JSON model (PS3.18, annex F)
    images/CLIENT/STUDY/IMAGE.dcm

The prefixes also occur in capitals, and headers also as IMAGE.dcm.json. A client is a patient.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mame_lib.data.case import Attributes
from mame_lib.data.sources.base import FloatBox, Quarantined, SourceCase
from mame_lib.data.sources.tables import RowError, box_of, side_of, vendor_of, view_of
from mame_lib.errors import InputError

STATUSES = ("Interval Cancer", "Malignant", "Benign", "Suspicious", "Uncertain", "Normal")  # the first that applies

_UID = re.compile(r"[0-9]+(\.[0-9]+)+")
_CORNERS = ("X1", "Y1", "X2", "Y2")
_HEALTHY = "normal client"
_PROCEDURES = ("SURGERY", "BIOPSYWIDE", "BIOPSYFINE")  # what settles a diagnosis
_INTERVAL = ("CI", "Interval case")
_OPINIONS = {"OM": "Malignant", "OB": "Benign", "OS": "Suspicious", "OU": "Uncertain"}
_INTENT, _MAKER, _VIEW, _SIDE = "00080068", "00080070", "00185101", "00200062"
_ROWS, _COLUMNS = "00280010", "00280011"


def list_omidb(root: str | Path) -> Iterator[SourceCase | Quarantined]:
    """The images of OMI-DB below `root`, the folder of "data" and "images": clients, studies, images by name.

    Healthy is an image without a mark of a healthy client: no interval cancer, and no opinion of a biopsy or an
    operation but a normal one, in any episode. An unmarked image of another client is refused, because nobody
    said that it is healthy. All marks of an image count, malignant or benign.

    Corners of a mark are taken as pixel coordinates of the stored image with the origin at its top left, in any
    order. Only images FOR PRESENTATION are listed as cases; view, side and maker are those of the JSON header.

    Raises
    ------
    InputError
        If `root` has no folder "data" or "images", or "data" has no client (at once, not at the first image).
    """
    root = Path(root)
    for name in ("data", "images"):
        if not (root / name).is_dir():
            raise InputError(f"{root} has no folder {name!r}; give the folder of OMI-DB that holds data and images.")
    clients = sorted(path for path in (root / "data").iterdir() if path.is_dir() and not path.name.startswith("."))
    if not clients:
        raise InputError(f"{root / 'data'} holds no client; give the folder of OMI-DB that holds data and images.")
    return (entry for client in clients for entry in _client(root, client))


def _client(root: Path, client: Path) -> Iterator[SourceCase | Quarantined]:
    key = client.relative_to(root).as_posix()
    try:
        status = f"{status_of(_object(_named(client, 'nbss'))).lower()} client"
    except RowError as error:
        status = f"{error}, so its client's status is unknown"
    try:
        images = _images(_object(_named(client, "imagedb")))
    except RowError as error:
        yield Quarantined(key, str(error))
        return
    if not images:
        yield Quarantined(key, "its image records list no image")
    for study, image, marks in images:
        path = root / "images" / client.name / study / f"{image}.dcm"
        try:
            yield _case(path, root, client, marks, status)
        except RowError as error:
            yield Quarantined(path.relative_to(root).as_posix(), str(error))


def _named(client: Path, kind: str) -> Path:
    """CLIENT/kind_CLIENT.json, the prefix in small letters or capitals."""
    for prefix in (kind, kind.upper()):
        path = client / f"{prefix}_{client.name}.json"
        if path.is_file():
            return path
    raise RowError(f"the {kind} file is missing")


def _object(path: Path) -> dict[str, Any]:
    """The JSON object in a file."""
    what = "its header file" if _UID.match(path.name) else f"the {path.name.split('_')[0].lower()} file"
    try:
        values = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise RowError(f"{what} cannot be opened") from error
    except (ValueError, RecursionError) as error:  # not UTF-8, not JSON, or brackets without end
        raise RowError(f"{what} is damaged") from error
    if not isinstance(values, dict):
        raise RowError(f"{what} is damaged: it holds no object")
    return values


def status_of(nbss: dict[str, Any]) -> str:
    """One of `STATUSES` for the screening record of a client.

    An interval case counts before a malignant opinion of a biopsy or an operation, that before a benign one.
    """
    episodes = [episode for episode in nbss.values() if isinstance(episode, dict)]
    if not episodes:
        raise RowError("the nbss file has no episode")
    said: set[str] = set()
    for episode in episodes:
        if episode.get("EpisodeType") in _INTERVAL:
            said.add("Interval Cancer")
        for procedure in _PROCEDURES:
            event = episode.get(procedure)
            if isinstance(event, dict):
                said.update(_opinion(event.get(f"{side}_opinion")) for side in ("left", "right"))
    return next((status for status in STATUSES if status in said), "Normal")


def _opinion(value: Any) -> str:
    """The opinion of a procedure: its word, or the word of its code."""
    return _OPINIONS.get(str(value), str(value))


def _images(imagedb: dict[str, Any]) -> list[tuple[str, str, list[Any]]]:
    """(study, image, groups of marks) of every image in the image records, sorted."""
    found: dict[tuple[str, str], list[Any]] = {}
    studies = imagedb.get("STUDIES")
    for study, series in studies.items() if isinstance(studies, dict) else ():
        if not (_UID.fullmatch(study) and isinstance(series, dict)):
            continue
        for number, images in series.items():
            for name, marks in images.items() if _UID.fullmatch(number) and isinstance(images, dict) else ():
                if _UID.fullmatch(name):
                    found.setdefault((study, name), []).append(marks)
    return [(study, image, marks) for (study, image), marks in sorted(found.items())]


def _case(path: Path, root: Path, client: Path, marks: list[Any], status: str) -> SourceCase:
    header = _header(client / path.parent.name, path.stem)
    if _value(header, _INTENT).upper() != "FOR PRESENTATION":
        raise RowError("it is not FOR PRESENTATION")
    shape = _shape(header)
    boxes = _boxes(marks, shape)
    if not boxes and status != _HEALTHY:
        raise RowError(f"neither healthy nor marked: {status}")
    if not path.is_file():
        raise RowError("the file is missing")
    attributes = Attributes(
        vendor=vendor_of(_value(header, _MAKER)),
        view=view_of(_value(header, _VIEW)),
        laterality=side_of(_value(header, _SIDE)),
        finding="lesion" if boxes else None,
    )
    return SourceCase(path.relative_to(root).as_posix(), path, client.name, attributes, boxes, shape=shape)


def _header(study: Path, image: str) -> dict[str, Any]:
    for name in (f"{image}.json", f"{image}.dcm.json"):
        if (study / name).is_file():
            return _object(study / name)
    raise RowError("its header file is missing")


def _value(header: dict[str, Any], tag: str) -> str:
    """The first value of an element of the DICOM JSON model as text; "" where there is none."""
    element = header.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    return str(values[0]).strip() if isinstance(values, list) and values and values[0] is not None else ""


def _shape(header: dict[str, Any]) -> tuple[int, int] | None:
    """(rows, columns), or None if the header does not say them."""
    sides = [_value(header, tag) for tag in (_ROWS, _COLUMNS)]
    if not all(side.isascii() and side.isdigit() and 0 < int(side[:9]) <= 100_000 for side in sides):
        return None
    return int(sides[0]), int(sides[1])


def _boxes(groups: list[Any], shape: tuple[int, int] | None) -> tuple[FloatBox, ...]:
    """Boxes of all marks of an image. An image with one that cannot be read is refused, not half marked."""
    boxes = []
    for marks in filter(None, groups):
        if not isinstance(marks, dict) or not all(isinstance(mark, dict) for mark in marks.values()):
            raise RowError("its marks cannot be read")
        for mark in marks.values():
            boxes.append(box_of([str(mark.get(corner, "")).strip() for corner in _CORNERS], shape))
    return tuple(dict.fromkeys(boxes))
