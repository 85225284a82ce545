"""CBIS-DDSM (Lee et al., Scientific Data 2017; TCIA, doi 10.7937/K9/TCIA.2016.7O02S9CY): `list_cbis`.

    {mass,calc}_case_description_{train,test}_set.csv    one row an abnormality
    .../Mass-Training_P_00001_LEFT_CC/.../1-1.dcm        the scanned film
    .../Mass-Training_P_00001_LEFT_CC_1/.../1-1.dcm      crop and mask of abnormality 1, in either order

Of a path in the tables only the first folder is that of the download: the folders inside it are named by date
and series, and the files by number. Every image of the collection shows at least one abnormality.
"""

from __future__ import annotations

import math
import os
import re
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mame_lib.data.case import Attributes
from mame_lib.data.raster import EXTENSIONS
from mame_lib.data.sources.base import Quarantined, SourceCase
from mame_lib.data.sources.tables import (
    Row,
    RowError,
    Table,
    density_of,
    one_of,
    read_table,
    side_of,
    splits_of_patients,
    view_of,
)  # fmt: skip
from mame_lib.errors import InputError

PATIENT, SIDE, VIEW = "patient_id", "left or right breast", "image view"
IMAGE, MASK = "image file path", "ROI mask file path"
DENSITY = ("breast_density", "breast density")  # of the mass tables, of the calcification tables
NOT_THE_SIZE = math.log(1.5)  # a mask may differ from its image by this factor; a crop differs by more

_TABLE = re.compile(r"(mass|calc)[_-]case[_-]description[_-](train|test)[_-]set\.csv", re.IGNORECASE)
_CASE = re.compile(r"(Mass|Calc)-(Training|Test)_P_[0-9]+_(LEFT|RIGHT)_(CC|MLO)(_[0-9]+)?")
_TAGS = ("Rows", "Columns", "BitsAllocated")


@dataclass(frozen=True)
class _Header:
    path: Path
    rows: int
    columns: int
    bits: int


def list_cbis(root: str | Path) -> Iterator[SourceCase | Quarantined]:
    """The films of CBIS-DDSM below `root`, in the order of the tables, mass before calcification.

    The tables and the download may lie anywhere below `root`; at least one table is needed. All abnormalities of
    a film are merged, also those that one film shows in both collections. A patient of whom any image is in a
    test table is wholly in test. Masks of another size than their film come as they are: the geometry scales
    them. A density of 0 is unsaid. The film has no vendor.

    Reads the headers of the files of each film, to tell masks from crops, and no pixels.

    Raises
    ------
    InputError
        If `root` is no folder, no table is found, one lacks a column, or pydicom is missing (at once).
    """
    root = Path(root)
    try:
        import pydicom  # noqa: F401
    except ImportError as error:
        raise InputError('reading CBIS-DDSM needs pydicom; install it with: pip install "pydicom>=3"') from error
    if not root.is_dir():
        raise InputError(f"the source folder {root} does not exist; give the folder of the tables and images.")
    paths, folders = _survey(root)
    if not paths:
        raise InputError(
            f"{root} holds no table such as mass_case_description_train_set.csv; "
            "download the four of CBIS-DDSM and put them beside the images."
        )
    tables = [(split, read_table(path, (PATIENT, SIDE, VIEW, IMAGE, MASK))) for split, path in paths]
    return _list(root, tables, folders)


def _survey(root: Path) -> tuple[list[tuple[str, Path]], dict[str, list[Path]]]:
    """(split, path) of each table, training first, and the folders by the names of the cases."""
    tables: dict[tuple[str, str], Path] = {}
    folders: dict[str, list[Path]] = {}
    for here, below, files in os.walk(root):
        cases = sorted(name for name in below if _CASE.fullmatch(name))
        for name in cases:
            folders.setdefault(name, []).append(Path(here) / name)
        below[:] = sorted(set(below).difference(cases))
        for name in sorted(files):
            if match := _TABLE.fullmatch(name):
                tables.setdefault((match[1].lower(), match[2].lower()), Path(here) / name)
    order = sorted(tables, key=lambda kind: (kind[0] == "calc", kind[1] == "test"))
    return [(kind[1], tables[kind]) for kind in order], folders


Film = tuple[str, str, str]  # patient, side, view
_Rows = list[tuple[str, Row]]  # the row, and the split of its table


def _list(
    root: Path, tables: list[tuple[str, Table]], folders: dict[str, list[Path]]
) -> Iterator[SourceCase | Quarantined]:
    films: dict[Film, dict[str, list[Row]]] = {}
    said: list[tuple[str, str]] = []
    spoiled: dict[str, str] = {}
    lost: list[Quarantined] = []
    for split, table in tables:
        spoiled |= {film: reason for word, reason in table.spoiled().items() for film in _named([word])}
        lost += [Quarantined(table.key(bad), bad.reason) for bad in table.bad]
        for row in table.rows:
            try:
                film, image = _film(row)
            except RowError as error:
                lost.append(Quarantined(table.key(row), str(error)))
                reason = f"row {row.number} of {table.path.name}: {error}"
                spoiled |= dict.fromkeys(_named(row[column].split("/")[0] for column in (IMAGE, MASK)), reason)
                continue
            films.setdefault(film, {}).setdefault(image, []).append(row)
            said.append((film[0], split))
    splits = splits_of_patients(said)
    for film, images in films.items():
        yield from _cases(root, film, images, folders, splits[film[0]], spoiled)
    yield from lost


def _named(words: Iterable[str]) -> set[str]:
    """The folders of the films that are named, or whose abnormalities are: without the number at the end."""
    return {match[0].removesuffix(match[5] or "") for word in words if (match := _CASE.fullmatch(word))}


def _film(row: Row) -> tuple[Film, str]:
    """Which film a row speaks of, and the name of its folder."""
    image = row[IMAGE].split("/")[0]
    if not _CASE.fullmatch(image):
        raise RowError("its image path does not begin with the name of a case")
    side, view = side_of(row[SIDE]), view_of(row[VIEW])
    if not (row[PATIENT] and side and view):
        raise RowError("its patient, side or view is not said")
    if f"_{row[PATIENT]}_{'LEFT' if side == 'L' else 'RIGHT'}_{view}" not in image:
        raise RowError("its image path names another patient, side or view")
    return (row[PATIENT], side, view), image


def _cases(
    root: Path, film: Film, images: dict[str, list[Row]], folders: dict[str, list[Path]], split: str | None,
    spoiled: dict[str, str],
) -> Iterator[SourceCase | Quarantined]:  # fmt: skip
    """One case for the copies of a film that have one size, else one for each."""
    by_size: dict[tuple[int, int], list[tuple[_Header, list[Row]]]] = {}
    for image, rows in images.items():
        try:
            if image in spoiled:
                raise RowError(spoiled[image])
            header = _image(root, rows[0][IMAGE], folders)
        except RowError as error:
            yield Quarantined(image, str(error))
            continue
        by_size.setdefault((header.rows, header.columns), []).append((header, rows))
    for copies in by_size.values():
        header, _ = copies[0]
        key = header.path.relative_to(root).as_posix()
        rows = [row for _, some in copies for row in some]
        try:
            density = one_of((_density(row) for row in rows), "density")
            found = dict.fromkeys(_mask(row[MASK], header, folders) for row in rows)
        except RowError as error:
            yield Quarantined(key, str(error))
            continue
        patient, side, view = film
        attributes = Attributes(view=view, laterality=side, density=density, finding="lesion")
        yield SourceCase(key, header.path, patient, attributes, masks=tuple(found), split=split)


def _density(row: Row) -> str | None:
    text = next((row[name] for name in DENSITY if row[name]), "")
    return None if text in ("0", "0.0") else density_of(text)


def _image(root: Path, path: str, folders: dict[str, list[Path]]) -> _Header:
    """The one readable file in the folder of a film, or the one that lies where the table says."""
    name = path.split("/")[0]
    headers = _headers(folders.get(name, []))
    if len(headers) > 1:
        headers = [header for header in headers if header.path.as_posix().endswith("/" + path)]
    if not headers:
        raise RowError("its folder is missing, or does not hold exactly one readable image")
    return headers[0]


def _mask(path: str, image: _Header, folders: dict[str, list[Path]]) -> Path:
    """The mask of an abnormality: of the files in its folder the one of the film's size; of two, the 8-bit one."""
    there = _headers(folders.get(path.split("/")[0], []))
    found = [header for header in there if _unlike(header, image) < NOT_THE_SIZE]
    if not found:
        raise RowError("the mask of one of its abnormalities is missing")
    return min(found, key=lambda header: (header.bits != 8, _unlike(header, image), header.path)).path


def _unlike(one: _Header, other: _Header) -> float:
    """How far apart two sizes are: the larger |logarithm| of the ratios of their sides."""
    return max(abs(math.log(one.rows / other.rows)), abs(math.log(one.columns / other.columns)))


def _headers(folders: list[Path]) -> list[_Header]:
    """Size and depth of every readable DICOM file below the folders, sorted by path."""
    import pydicom

    found = []
    for path in sorted(path for folder in folders for path in folder.rglob("*")):
        if path.suffix.lower() in EXTENSIONS or path.name.startswith(".") or not path.is_file():
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what it warns of may repeat a field of the header
                header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(_TAGS))
            rows, columns, bits = (int(header[tag].value) for tag in _TAGS)
        except Exception:  # a damaged file, or none: it is as good as missing
            continue
        if rows > 0 and columns > 0:
            found.append(_Header(path, rows, columns, bits))
    return found
