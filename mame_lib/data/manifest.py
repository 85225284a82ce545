"""The manifest folder: what every source writes and everything else reads.

    images/000000.png    8-bit gray, square, breast facing left
    masks/000000.png     the breast, 0 or 255, where known
    metadata.jsonl       one line a case; Hugging Face's `imagefolder` reads it (`file_name`, `prompt`)
    dataset.json         how it was made, counts, and the files that were refused (`quarantined`)

A manifest is written in a hidden sibling folder and renamed when it is complete, so it is there whole or not
at all. Images carry running numbers, never the names of their files; `quarantined` does name the files that
were refused, by their path inside the source folder, because it is their owner's log: look at it before you
share a manifest.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mame_lib.data.case import VOCABULARY, Attributes, Case
from mame_lib.data.folders import complete_or_nothing
from mame_lib.data.prompts import GRAMMAR_VERSION
from mame_lib.errors import InputError

FORMAT = "mame-manifest/1"
METADATA, INFO = "metadata.jsonl", "dataset.json"
SPLITS = ("train", "validation")
VALIDATION_PERCENT = 10


@dataclass(frozen=True)
class Item:
    """One image on its way into a manifest: uint8 [n, n], with a mask bool [n, n] if there is one."""

    image: NDArray[np.uint8]
    patient: str
    prompt: str
    attributes: Attributes
    source: str
    mask: NDArray[np.bool_] | None = None
    boxes: tuple[tuple[int, int, int, int], ...] = ()
    truth: dict[str, float] | None = None


@dataclass(frozen=True)
class Quarantined:
    """A file that was refused, by its path inside the source folder, and why."""

    file: str
    reason: str


@dataclass(frozen=True)
class Manifest:
    """A manifest folder in memory: cases in order, `dataset.json` as it stands, and where the folder is."""

    cases: list[Case]
    info: dict[str, Any] = field(repr=False)
    root: Path

    def split(self, name: str) -> list[Case]:
        """The cases of "train" or "validation"."""
        if name not in SPLITS:
            raise InputError(f"split {name!r} is unknown; use {' or '.join(SPLITS)}.")
        return [case for case in self.cases if case.split == name]

    def image(self, case: Case) -> NDArray[np.uint8]:
        """The image of a case, uint8 [n, n]."""
        with Image.open(self.root / case.image) as picture:
            return np.asarray(picture.convert("L"))


def split_of(patient: str) -> str:
    """Split of a patient: about 10 % go to validation. It depends on the pseudonym alone."""
    return (
        "validation"
        if int(hashlib.sha256(patient.encode()).hexdigest(), 16) % 100 < VALIDATION_PERCENT
        else "train"
    )


def write(
    folder: str | Path,
    items: Iterable[Item | Quarantined],
    *,
    source: str,
    settings: Mapping[str, Any],
    overwrite: bool = False,
) -> Manifest:
    """Write a manifest as the items come; nothing is left behind unless it is complete.

    If chance puts every patient into validation, all are moved to train. `overwrite` replaces an existing
    manifest, and nothing else.

    Raises
    ------
    InputError
        If the folder exists and holds something, or if no item is an image.
    """
    root = Path(folder)
    refuse_existing(root, overwrite=overwrite)
    with complete_or_nothing(root) as partial:
        cases, quarantined = _write_items(partial, items)
        if not cases:
            raise InputError(_nothing_usable(quarantined))
        if not any(case.split == "train" for case in cases):
            cases = [replace(case, split="train") for case in cases]
        with open(partial / METADATA, "w", encoding="utf-8") as stream:
            stream.writelines(_line(case) + "\n" for case in cases)
        info = _info(cases, quarantined, source, settings)
        (partial / INFO).write_text(json.dumps(info, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return Manifest(cases, info, root)


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
    if not (root / INFO).is_file() or not (root / METADATA).is_file():
        raise InputError(f"{root} is not a data set of mame, so it is not overwritten; give another folder.")


def _write_items(partial: Path, items: Iterable[Item | Quarantined]) -> tuple[list[Case], list[Quarantined]]:
    """Store images and masks one by one; only their descriptions stay in memory."""
    cases: list[Case] = []
    quarantined: list[Quarantined] = []
    (partial / "images").mkdir()
    (partial / "masks").mkdir()
    for item in items:
        if isinstance(item, Quarantined):
            quarantined.append(item)
            continue
        number = f"{len(cases):06d}"
        Image.fromarray(np.asarray(item.image, np.uint8)).save(partial / "images" / f"{number}.png")
        if item.mask is not None:
            Image.fromarray(np.asarray(item.mask, np.uint8) * np.uint8(255)).save(
                partial / "masks" / f"{number}.png"
            )
        cases.append(
            Case(
                id=number,
                patient=item.patient,
                image=f"images/{number}.png",
                prompt=item.prompt,
                attributes=item.attributes,
                split=split_of(item.patient),
                source=item.source,
                mask=f"masks/{number}.png" if item.mask is not None else None,
                boxes=item.boxes,
                truth=item.truth,
            )
        )
    return cases, quarantined


def _nothing_usable(quarantined: list[Quarantined]) -> str:
    if not quarantined:
        return "the source has no image, so no data set was written."
    first = quarantined[0]
    return (
        f"no data set was written: all files were refused ({len(quarantined)}); {first.file}: {first.reason}"
    )


def _line(case: Case) -> str:
    """A case as one line of JSON; `file_name` and `mask_file_name` are keys that imagefolder looks for."""
    values: dict[str, Any] = {
        "file_name": case.image,
        "prompt": case.prompt,
        "id": case.id,
        "patient": case.patient,
    }
    values |= {"attributes": case.attributes.to_dict(), "boxes": [list(box) for box in case.boxes]}
    values |= {"split": case.split, "source": case.source, "mask_file_name": case.mask, "truth": case.truth}
    return json.dumps(values, ensure_ascii=False)


def _info(
    cases: list[Case], quarantined: list[Quarantined], source: str, settings: Mapping[str, Any]
) -> dict[str, Any]:
    from mame_lib import __version__

    counts: dict[str, dict[str, int]] = {"split": dict(Counter(case.split for case in cases))}
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
        "quarantined": [{"file": item.file, "reason": item.reason} for item in quarantined],
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
    cases = [_case(root, path, number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not cases:
        raise InputError(f"{path} is empty: the data set holds no case; make it again.")
    return Manifest(cases, _load_info(root / INFO), root)


def _load_info(path: Path) -> dict[str, Any]:
    """`dataset.json`, or {} for a folder that somebody made by hand for imagefolder."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}
    except (ValueError, TypeError) as error:
        raise InputError(f"{path} is damaged: it is not a JSON object; make the data set again.") from error


def _case(root: Path, path: Path, number: int, line: str) -> Case:
    """The case of one line of metadata.jsonl."""
    try:
        values = json.loads(line)
        name = str(values["file_name"])
        mask = values.get("mask_file_name")
        boxes = cast(
            "tuple[tuple[int, int, int, int], ...]",
            tuple(tuple(map(int, b)) for b in values.get("boxes", ())),
        )
        if any(len(box) != 4 for box in boxes):
            raise ValueError("a box needs four numbers")
        stem = Path(name).stem
        case = Case(
            id=str(values.get("id", stem)),
            patient=str(values.get("patient", stem)),
            image=name,
            prompt=str(values["prompt"]),
            attributes=Attributes.from_dict(values.get("attributes") or {}),
            split=str(values.get("split", "train")),
            source=str(values.get("source", "unknown")),
            mask=None if mask is None else str(mask),
            boxes=boxes,
            truth=values.get("truth"),
        )
    except KeyError as error:
        raise InputError(f"{path}, line {number}: the key {error.args[0]!r} is missing.") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{path}, line {number} is damaged: {error}") from error
    if case.split not in SPLITS:
        raise InputError(f"{path}, line {number}: split {case.split!r} is not one of {', '.join(SPLITS)}.")
    for file in filter(None, (case.image, case.mask)):
        if Path(file).is_absolute() or ".." in Path(file).parts:
            raise InputError(f"{path}, line {number}: {file!r} points outside the data set.")
        if not (root / file).is_file():
            raise InputError(f"{root / file} is missing, but {METADATA}, line {number}, names it.")
    return case
