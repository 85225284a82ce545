"""The manifest folder: what every source writes and everything else reads.

    images/ID.png        8-bit gray, square, breast facing left
    masks/ID.png         the breast, 0 or 255, where known
    lesions/ID.png       all findings merged, 0 or 255, where there are any
    metadata.jsonl       one line a case; Hugging Face's `imagefolder` reads it (`file_name`, `prompt`)
    dataset.json         how it was made, counts, what was refused (`quarantined`) and why

A manifest is written in a hidden sibling folder and renamed when it is complete, so it is there whole or not
at all. ID is a running number (phantoms) or a salted hash (real images): neither a path nor any field of a
patient is stored.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mame_lib.data.case import VOCABULARY, Attributes, Case
from mame_lib.data.folders import complete_or_nothing
from mame_lib.data.prompts import GRAMMAR_VERSION
from mame_lib.errors import InputError

FORMAT = "mame-manifest/2"
METADATA, INFO = "metadata.jsonl", "dataset.json"
FOLDERS = ("images", "masks", "lesions")
SPLITS = ("train", "validation", "test")
VALIDATION_PERCENT = 10


@dataclass(frozen=True)
class Item:
    """One image on its way into a manifest: uint8 [n, n], with the breast and the lesions bool [n, n] if known.

    boxes and kept: as in `Case`. split: given by the source, or None (by hash of the patient). id: file name
    without its extension, or None for a running number. dropped: why boxes of this image were left out.
    """

    image: NDArray[np.uint8]
    patient: str
    prompt: str
    attributes: Attributes
    source: str
    mask: NDArray[np.bool_] | None = None
    lesion: NDArray[np.bool_] | None = None
    boxes: tuple[tuple[int, int, int, int], ...] = ()
    kept: tuple[float, ...] = ()
    split: str | None = None
    id: str | None = None
    truth: dict[str, float] | None = None
    dropped: tuple[str, ...] = ()


@dataclass(frozen=True)
class Refused:
    """What the data set says of an image that is not in it: the salted hash of its path, and why."""

    id: str
    reason: str


@dataclass(frozen=True)
class Manifest:
    """A manifest folder in memory: cases in order, `dataset.json` as it stands, and where the folder is."""

    cases: list[Case]
    info: dict[str, Any] = field(repr=False)
    root: Path

    def split(self, name: str) -> list[Case]:
        """The cases of "train", "validation" or "test"."""
        if name not in SPLITS:
            raise InputError(f"split {name!r} is unknown; use {', '.join(SPLITS)}.")
        return [case for case in self.cases if case.split == name]

    def image(self, case: Case) -> NDArray[np.uint8]:
        """The image of a case, uint8 [n, n]."""
        with Image.open(self.root / case.image) as picture:
            return np.asarray(picture.convert("L"))

    def lesion(self, case: Case) -> NDArray[np.bool_]:
        """The merged lesion mask of a case, bool [n, n]; all False where no lesion is known."""
        if case.lesion is None:
            return np.zeros(self.image(case).shape, bool)
        with Image.open(self.root / case.lesion) as picture:
            return np.asarray(picture.convert("L")) > 127


def split_of(patient: str) -> str:
    """Split of a patient: about 10 % go to validation. It depends on the pseudonym alone."""
    number = int(hashlib.sha256(patient.encode()).hexdigest(), 16)
    return "validation" if number % 100 < VALIDATION_PERCENT else "train"


def write(
    folder: str | Path,
    items: Iterable[Item],
    *,
    source: str,
    settings: Mapping[str, Any],
    overwrite: bool = False,
) -> Manifest:
    """Write a manifest as the items come; nothing is left behind unless it is complete.

    `overwrite` replaces an existing manifest, and nothing else. For many real files see `store.prepare`, which
    works in parallel and goes on where it was interrupted.

    Raises
    ------
    InputError
        If the folder exists and holds something, or if there is no item.
    """
    root = Path(folder)
    refuse_existing(root, overwrite=overwrite)
    with complete_or_nothing(root) as partial:
        make_folders(partial)
        cases = [save(partial, item, f"{number:06d}") for number, item in enumerate(items)]
        if not cases:
            raise InputError("the source has no image, so no data set was written.")
        return replace(write_tables(partial, cases, source=source, settings=settings), root=root)


def refuse_existing(root: Path, *, overwrite: bool = False) -> None:
    """Raise InputError unless a manifest may be written at `root`."""
    if not root.exists() and not root.is_symlink():
        return
    if not root.is_dir():
        raise InputError(f"{root} exists and is not a folder; give another output folder.")
    if not any(root.iterdir()):
        return
    if not overwrite:
        raise InputError(f"{root} is not empty; give a new folder, or --overwrite to replace a data set.")
    if not is_manifest(root):
        raise InputError(f"{root} is not a data set of mame, so it is not overwritten; give another folder.")


def is_manifest(root: Path) -> bool:
    """Whether `root` holds a complete manifest."""
    return (root / INFO).is_file() and (root / METADATA).is_file()


def make_folders(root: Path) -> None:
    """The folders of the pictures, where they are not there yet."""
    for name in FOLDERS:
        (root / name).mkdir(exist_ok=True)


def save(root: Path, item: Item, number: str) -> Case:
    """Store the pictures of an item under its id, or else `number`, each whole or not at all; its case."""
    name = item.id or number
    pictures = {"images": np.asarray(item.image, np.uint8)}
    for folder, mask in (("masks", item.mask), ("lesions", item.lesion)):
        if mask is not None:
            pictures[folder] = np.asarray(mask, np.uint8) * np.uint8(255)
    for folder, pixels in pictures.items():
        partial = root / folder / f"{name}.png.{os.getpid()}.tmp"
        Image.fromarray(pixels).save(partial, format="PNG")
        os.replace(partial, root / folder / f"{name}.png")
    return Case(
        id=name,
        patient=item.patient,
        image=f"images/{name}.png",
        prompt=item.prompt,
        attributes=item.attributes,
        split=item.split or split_of(item.patient),
        source=item.source,
        mask=f"masks/{name}.png" if item.mask is not None else None,
        lesion=f"lesions/{name}.png" if item.lesion is not None else None,
        boxes=item.boxes,
        kept=item.kept,
        truth=item.truth,
    )


def write_tables(
    root: Path,
    cases: Sequence[Case],
    *,
    source: str,
    settings: Mapping[str, Any],
    refused: Sequence[Refused] = (),
    dropped: Sequence[Refused] = (),
) -> Manifest:
    """Write metadata.jsonl, then dataset.json, whose presence says that the manifest is complete.

    If no case is in "train", those of "validation" move there.
    """
    if not any(case.split == "train" for case in cases):
        cases = [replace(case, split="train") if case.split == "validation" else case for case in cases]
    info = _info(cases, source, settings)
    for name, entries in (("quarantined", refused), ("dropped_boxes", dropped)):
        info[name] = [{"id": entry.id, "reason": entry.reason} for entry in entries]
    _replace_text(root / METADATA, "".join(case.to_line() + "\n" for case in cases))
    _replace_text(root / INFO, json.dumps(info, indent=2, ensure_ascii=False) + "\n")
    return Manifest(list(cases), info, root)


def _replace_text(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".tmp")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def _info(cases: Sequence[Case], source: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    from mame_lib import __version__

    counts: dict[str, dict[str, int]] = {"split": dict(sorted(Counter(case.split for case in cases).items()))}
    for name in VOCABULARY:
        counts[name] = dict(Counter(getattr(case.attributes, name) or "not said" for case in cases))
    return {
        "format": FORMAT,
        "library_version": __version__,
        "grammar_version": GRAMMAR_VERSION,
        "source": source,
        "settings": dict(settings),
        "cases": len(cases),
        "patients": len({case.patient for case in cases}),
        "counts": counts,
    }


def load(folder: str | Path) -> Manifest:
    """Read a manifest and check that every file it names is there.

    Raises
    ------
    InputError
        If the folder, its metadata.jsonl or an image is missing, or a line is damaged (with its number).
    """
    root = Path(folder)
    if not root.is_dir():
        raise InputError(
            f"the data folder {root} does not exist; make one with `mame phantom` or `mame prepare`."
        )
    path = root / METADATA
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise InputError(f"{root} is not a data set of mame: it has no {METADATA}.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is damaged: it is not UTF-8 text; make the data set again.") from error
    cases = [_checked(root, path, number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not cases:
        raise InputError(f"{path} is empty: the data set holds no case; make it again.")
    return Manifest(cases, _load_info(root / INFO), root)


def _load_info(path: Path) -> dict[str, Any]:
    """`dataset.json`, or {} for a folder that somebody made by hand for imagefolder."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}
    except (ValueError, TypeError) as error:
        raise InputError(f"{path} is damaged: it is not a JSON object; make the data set again.") from error


def _checked(root: Path, path: Path, number: int, line: str) -> Case:
    """The case of line `number` of metadata.jsonl, whose files must be there."""
    try:
        case = Case.from_line(line)
    except KeyError as error:
        raise InputError(f"{path}, line {number}: the key {error.args[0]!r} is missing.") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{path}, line {number} is damaged: {error}") from error
    if case.split not in SPLITS:
        raise InputError(f"{path}, line {number}: split {case.split!r} is not one of {', '.join(SPLITS)}.")
    for file in filter(None, (case.image, case.mask, case.lesion)):
        if Path(file).is_absolute() or ".." in Path(file).parts:
            raise InputError(f"{path}, line {number}: {file!r} points outside the data set.")
        if not (root / file).is_file():
            raise InputError(f"{root / file} is missing, but {METADATA}, line {number}, names it.")
    return case
