"""Any folder of mammograms, alone or with a table: `list_folder`.

Without a table, a picture's patient, view and side are read off its name, and a lesion mask is what lies under
the same name in a parallel folder. With a table, the table is the list.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mame_lib.data.case import Attributes
from mame_lib.data.raster import EXTENSIONS
from mame_lib.data.sources.base import Quarantined, SourceCase
from mame_lib.errors import InputError

DICOM_EXTENSIONS = frozenset({".dcm", ".dicom"})
MASK_FOLDERS = frozenset({"mask", "masks"})
IMAGE_FOLDERS = ("images", "image")

_VIEW_TOKEN = re.compile(r"(l|r|left|right)?(cc|mlo)")
_SIDES = {"l": "L", "left": "L", "r": "R", "right": "R"}


def list_folder(
    root: str | Path, *, table: Path | None = None, columns: Mapping[str, str] | None = None
) -> Iterator[SourceCase | Quarantined]:
    """Every mammogram below `root`, in the order of the file names.

    Looked at: .dcm, .dicom, files without an extension that are DICOM, .png, .jpg, .jpeg, .tif, .tiff. Hidden
    files are passed over. A DICOM file's header tells its patient, view and side; else the file name does, see
    `from_name`.

    Masks: `masks/x.*` beside `images/x.*`, or below the folder of `x.*`, outlines the lesions of `x`. Such files
    are not listed; a folder of masks of which none belongs to an image is reported once.

    table, columns: CSV with one row for a file, or for a box of a file; see `folder_table.list_table`. It is the
    list then: a file that it does not name is refused.

    Raises
    ------
    InputError
        If `root` is no folder, or the table cannot be used (at once, not at the first image).
    """
    root = Path(root)
    if not root.is_dir():
        problem = "is a file, not a folder" if root.exists() else "does not exist"
        raise InputError(f"the source folder {root} {problem}; give a folder of DICOM, PNG, JPEG or TIFF images.")
    if table is None:
        if columns:
            raise InputError("column names are given without a table; give the CSV file too.")
        return _walk(root)
    from mame_lib.data.sources.folder_table import list_table

    return list_table(root, Path(table), columns or {})


def from_name(name: Path) -> tuple[str, Attributes]:
    """Patient, view and side as a file name tells them; `name` is relative to the source folder.

    "P102_R_DM_MLO.jpg" -> ("p102", MLO, R): the patient is what stands before the first token for side or
    view. Where that holds no digit ("p7/L_CC.png"), the folder counts too; without such a token the whole
    name is the patient.

    Raises
    ------
    InputError
        If the name says that the file is a mask.
    """
    tokens = [token for token in re.split(r"[^0-9a-z]+", name.stem.lower()) if token]
    if "mask" in tokens:
        raise InputError("it is named a mask, so it is no mammogram")
    views = [(i, match) for i, token in enumerate(tokens) if (match := _VIEW_TOKEN.fullmatch(token))]
    sides = [(i, _SIDES[token]) for i, token in enumerate(tokens) if token in _SIDES]
    sides += [(i, _SIDES[match[1]]) for i, match in views if match[1]]
    view = {match[2].upper() for _, match in views}
    side = {letter for _, letter in sides}
    first = min((i for i, _ in [*views, *sides]), default=len(tokens))
    identity = "_".join(tokens[:first])
    if not any(character.isdigit() for character in identity):
        identity = "/".join(filter(None, (name.parent.as_posix().lower(), identity)))
    # Two different words for one thing ("L_vs_R") tell nothing.
    known: dict[str, Any] = {"view": view.pop() if len(view) == 1 else None}
    return identity, Attributes(laterality=side.pop() if len(side) == 1 else None, **known)


# ── The tree ──


@dataclass
class Tree:
    """What a walk meets: image files in order, and the files of each folder of masks by the image they fit.

    masks: image path without extension -> mask files. folders: mask folder -> its files. unreadable: folders.
    """

    images: list[Path] = field(default_factory=list)
    masks: dict[Path, list[Path]] = field(default_factory=dict)
    folders: dict[Path, list[Path]] = field(default_factory=dict)
    unreadable: list[Path] = field(default_factory=list)

    def note(self, error: OSError) -> None:
        """A folder that cannot be opened."""
        self.unreadable.append(Path(error.filename))


def walk(root: Path, tree: Tree) -> Iterator[Path]:
    """Yield the image files below `root`, sorted within each folder, and fill `tree` on the way."""
    for folder, below, files in os.walk(root, onerror=tree.note):
        here = Path(folder)
        for name in sorted(below):
            if name.lower() in MASK_FOLDERS:
                _add_masks(here, name, below, tree)
        below[:] = sorted(n for n in below if not n.startswith(".") and n.lower() not in MASK_FOLDERS)
        for name in sorted(files):
            if not name.startswith(".") and is_candidate(here / name):
                tree.images.append(here / name)
                yield here / name


def _add_masks(parent: Path, name: str, siblings: list[str], tree: Tree) -> None:
    """Index the folder of masks parent/name under the image paths that its files would fit."""
    partners = [parent / sibling for sibling in siblings if sibling.lower() in IMAGE_FOLDERS] or [parent]
    found = tree.folders.setdefault(parent / name, [])
    for folder, below, files in os.walk(parent / name, onerror=tree.note):
        below[:] = sorted(n for n in below if not n.startswith("."))
        for file in sorted(files):
            path = Path(folder) / file
            if not file.startswith(".") and is_candidate(path):
                found.append(path)
                for partner in partners:
                    tree.masks.setdefault(stem_of(partner / path.relative_to(parent / name)), []).append(path)


def is_candidate(file: Path) -> bool:
    """By extension; without one, by the four letters that every DICOM file has after its preamble."""
    if _has_extension(file):
        return file.suffix.lower() in DICOM_EXTENSIONS | EXTENSIONS
    try:
        with open(file, "rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError:
        return False


def stem_of(file: Path) -> Path:
    """The path without the extension; "1.2.840.10008" has none."""
    return file.with_suffix("") if _has_extension(file) else file


def _has_extension(file: Path) -> bool:
    return bool(file.suffix) and not file.suffix[1:].isdigit()


def relative(file: Path, root: Path) -> str:
    """Path inside the source folder with forward slashes: the key of a case."""
    return file.relative_to(root).as_posix()


def _walk(root: Path) -> Iterator[SourceCase | Quarantined]:
    tree = Tree()
    used: set[Path] = set()
    for file in walk(root, tree):
        masks = tree.masks.get(stem_of(file), [])
        used.update(masks)
        yield case_of(file, root, tuple(masks))
    yield from leftovers(root, tree, used)


def case_of(file: Path, root: Path, masks: tuple[Path, ...] = ()) -> SourceCase | Quarantined:
    """The case of a file of which nothing but its name and its masks are known."""
    finding = "lesion" if masks else None
    try:
        patient, attributes = from_name(file.relative_to(root))
    except InputError as error:
        return Quarantined(relative(file, root), str(error))
    if file.suffix.lower() not in EXTENSIONS:  # the header knows better
        return SourceCase(relative(file, root), file, attributes=Attributes(finding=finding), masks=masks)
    known = Attributes(**attributes.to_dict(), finding=finding)
    return SourceCase(relative(file, root), file, patient, known, masks=masks)


def leftovers(root: Path, tree: Tree, used: set[Path]) -> Iterator[Quarantined]:
    """Folders of masks of which none or not all belong to an image, and folders that cannot be opened."""
    for folder, files in sorted(tree.folders.items()):
        unused = [file for file in files if file not in used]
        if len(unused) == len(files) and folder not in tree.unreadable:
            yield Quarantined(relative(folder, root), "a folder of masks, not of mammograms")
        elif unused:
            yield Quarantined(relative(folder, root), f"{len(unused)} of its {len(files)} masks belong to no image")
    for folder in tree.unreadable:
        yield Quarantined(relative(folder, root), "the folder cannot be opened")
