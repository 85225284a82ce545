"""The table of a folder: a CSV file that says what its mammograms show (`list_table`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from mame_lib.data.case import Attributes
from mame_lib.data.sources.base import FloatBox, Quarantined, SourceCase
from mame_lib.data.sources.folder import Tree, case_of, leftovers, relative, stem_of, walk
from mame_lib.data.sources.tables import (
    Row,
    RowError,
    Table,
    box_of,
    density_of,
    one_of,
    read_table,
    side_of,
    split_of,
    splits_of_patients,
    vendor_of,
    view_of,
)  # fmt: skip
from mame_lib.errors import InputError

CORNERS = ("xmin", "ymin", "xmax", "ymax")
COLUMNS = ("file", "patient", "view", "laterality", "density", "vendor", "finding", "split", *CORNERS, "mask")
LESION = frozenset({"lesion", "mass", "calcification", "calcifications", "yes", "true", "1"})
HEALTHY = frozenset({"healthy", "normal", "no finding", "no", "false", "0"})


def list_table(root: Path, table: Path, columns: Mapping[str, str]) -> Iterator[SourceCase | Quarantined]:
    """The mammograms below `root` that a table names, in the order of the file names.

    Columns, of which only `file` is needed: file, patient, view, laterality, density (words of the prompts, or
    BI-RADS A to D or 1 to 4), vendor, finding ("lesion" or "healthy"), split (train, validation, test), xmin, ymin,
    xmax, ymax (edges in pixels of the stored image), mask (a file below `root`). Several rows of a file give
    several boxes or masks and must agree about the rest. `columns` maps these names to those of the table.

    A file is named by its path in `root`, or by its name, with or without extension, where only one has it.
    What a table leaves blank is taken from the name or the header; lesions from a parallel folder of masks.
    A box or a mask makes a lesion image. A row that cannot be understood refuses its file, not only itself. A
    patient in several splits goes to test as a whole.

    Raises
    ------
    InputError
        If the table cannot be read, or lacks `file` or a column of `columns` (at once).
    """
    read = read_table(table)
    return _list(root, read, _columns(read, columns))


def _columns(table: Table, asked: Mapping[str, str]) -> dict[str, str]:
    """Our name of each column -> its name in the table."""
    if strange := sorted(set(asked) - set(COLUMNS)):
        raise InputError(f"the column {strange[0]!r} is unknown; use {', '.join(COLUMNS)}.")
    there = {name.lower(): name for name in reversed(table.columns)}
    names = {name: there[name] for name in COLUMNS if name in there} | dict(asked)
    missing = sorted(set(names.values()) - set(table.columns))
    if missing:
        raise InputError(f"the table {table.path} has no column {', '.join(missing)}; check the names.")
    if "file" not in names:
        raise InputError(f"the table {table.path} has no column file; name the one that holds the files: file=NAME.")
    corners = [corner for corner in CORNERS if corner in names]
    if corners and len(corners) < len(CORNERS):
        lacking = ", ".join(corner for corner in CORNERS if corner not in names)
        raise InputError(f"the table {table.path} has boxes, but no column {lacking}; name all four.")
    if twice := sorted(name for name in names.values() if table.columns.count(name) > 1):
        raise InputError(f"the table {table.path} has two columns {twice[0]!r}; rename one.")
    return names


class _Index:
    """Files by their path, name and name without extension, as tables write them."""

    def __init__(self, root: Path, files: list[Path]) -> None:
        self.paths = {relative(file, root): file for file in files}
        self.names: dict[str, list[Path]] = {}
        for file in files:
            for name in {file.name, stem_of(file).name}:
                self.names.setdefault(name, []).append(file)

    def find(self, cell: str, what: str) -> Path:
        """The one file that a cell names."""
        name = cell.replace("\\", "/").removeprefix("./")
        if name in self.paths:
            return self.paths[name]
        parts = PurePosixPath(name).parts or ("",)
        found = [file for file in self.names.get(parts[-1], []) if _ends_alike(file, parts)]
        if len(found) != 1:
            raise RowError(f"its {what} is not in the folder" if not found else f"its {what} fits {len(found)} files")
        return found[0]


def _ends_alike(file: Path, parts: tuple[str, ...]) -> bool:
    """Whether the folders before the name agree, as far as both say them."""
    return all(one == other for one, other in zip(file.parts[-2::-1], parts[-2::-1], strict=False))


@dataclass(frozen=True)
class _Said:
    """What a row says of its file."""

    patient: str
    attributes: Attributes
    healthy: bool
    split: str | None
    box: FloatBox | None
    mask: Path | None


def _list(root: Path, table: Table, names: dict[str, str]) -> Iterator[SourceCase | Quarantined]:
    tree = Tree()
    images = list(walk(root, tree))
    of_images = _Index(root, images)
    of_masks = _Index(root, [*images, *(mask for masks in tree.folders.values() for mask in masks)])
    said: dict[Path, list[_Said]] = {}
    wrong: dict[Path, str] = {}
    lost = [Quarantined(table.key(bad), bad.reason) for bad in table.bad]
    for row in table.rows:
        try:
            file = of_images.find(row[names["file"]], "file")
        except RowError as error:
            lost.append(Quarantined(table.key(row), str(error)))
            continue
        try:
            said.setdefault(file, []).append(_said(row, names, of_masks))
        except RowError as error:
            wrong.setdefault(file, f"row {row.number} of the table: {error}")
    wrong |= _half_named(table, of_images, said)
    drawn = {entry.mask for entries in said.values() for entry in entries} - {None}
    cases: list[SourceCase | Quarantined] = []
    used: set[Path] = {mask for mask in drawn if mask is not None}
    for file in images:
        if file in drawn:
            continue
        if file in wrong:
            cases.append(Quarantined(relative(file, root), wrong[file]))
        elif file in said:
            beside = tuple(tree.masks.get(stem_of(file), ()))
            used.update(beside)
            cases.append(_case(file, root, said[file], beside))
        else:
            cases.append(Quarantined(relative(file, root), "the table does not name it"))
    yield from _whole_patients(cases)
    yield from lost
    yield from leftovers(root, tree, used)


def _half_named(table: Table, index: _Index, said: dict[Path, list[_Said]]) -> dict[Path, str]:
    """Files that a row with broken cells may have spoken of, beside good rows."""
    spoiled = table.spoiled()
    return {file: spoiled[name] for file in said for name in (file.name, stem_of(file).name) if name in spoiled}


def _said(row: Row, names: dict[str, str], masks: _Index) -> _Said:
    def cell(name: str) -> str:
        return row[names[name]] if name in names else ""

    finding = cell("finding").lower()
    if finding and finding not in LESION | HEALTHY:
        raise RowError("its finding is neither lesion nor healthy")
    corners = [cell(corner) for corner in CORNERS]
    attributes = Attributes(
        vendor=vendor_of(cell("vendor")),
        view=view_of(cell("view")),
        laterality=side_of(cell("laterality")),
        density=density_of(cell("density")),
        finding="lesion" if finding in LESION else None,
    )
    return _Said(
        patient=cell("patient"),
        attributes=attributes,
        healthy=finding in HEALTHY,
        split=split_of(cell("split")),
        box=box_of(corners) if any(corners) else None,
        mask=masks.find(cell("mask"), "mask") if cell("mask") else None,
    )


def _case(file: Path, root: Path, rows: list[_Said], beside: tuple[Path, ...]) -> SourceCase | Quarantined:
    """All rows of a file in one case, over what its name says."""
    plain = case_of(file, root)
    if isinstance(plain, Quarantined):
        return plain
    boxes = tuple(dict.fromkeys(row.box for row in rows if row.box))
    masks = tuple(dict.fromkeys(row.mask for row in rows if row.mask)) or (() if boxes else beside)
    try:
        said = {
            name: one_of((getattr(row.attributes, name) for row in rows), name)
            for name in ("vendor", "view", "laterality", "density", "finding")
        }
        if any(row.healthy for row in rows) and (said["finding"] or boxes or masks):
            raise RowError("the table says that it is healthy, but a lesion is marked")
        if boxes or masks:
            said["finding"] = "lesion"
        known = plain.attributes.to_dict() | {name: value for name, value in said.items() if value is not None}
        return replace(
            plain,
            patient=one_of((row.patient or None for row in rows), "patient") or plain.patient,
            attributes=Attributes(**known),
            boxes=boxes,
            masks=masks,
            split=one_of((row.split for row in rows), "split"),
        )
    except RowError as error:
        return Quarantined(plain.key, str(error))


def _whole_patients(cases: list[SourceCase | Quarantined]) -> Iterator[SourceCase | Quarantined]:
    """The same, with each patient in one split only. Files of unknown patients are left alone."""
    splits = splits_of_patients(
        (case.patient, case.split) for case in cases if isinstance(case, SourceCase) and case.patient
    )
    for case in cases:
        if isinstance(case, SourceCase) and case.patient:
            case = replace(case, split=splits[case.patient])
        yield case
