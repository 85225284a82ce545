"""The folder of a population: begun, killed, gone on with, grown, and worked on by one run at a time.

    synthesis.json       the population, the hashes of the weights, versions: what a later run must agree with
    blocks/000123.jsonl  a block of images that is wholly there, a row an image, until the folder is complete
    recipes.jsonl        afterwards: the rows of all images

The pictures of a block are written in a folder of their own and renamed, its rows last. So a file under its final name
is whole, a block with rows has all its pictures, and what a killed run leaves beyond that is made again or removed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mame_lib.data.folders import locked
from mame_lib.data.manifest import INFO, METADATA
from mame_lib.errors import InputError
from mame_lib.synthesize.plan import BLOCK

FORMAT = "mame-synthesis/1"
HEADER, RECIPES, CARD, CHECKSUMS, TRAINING = (
    "synthesis.json", "recipes.jsonl", "README.md", "checksums.sha256", "training_check.json",
)  # fmt: skip
BLOCKS = "blocks"
FOLDERS = ("images", "masks", "lesions", "twins", "dicom")
COMMAND = "mame synthesize"

_NAME = re.compile(r"\d{6}\.(png|dcm)")

Row = dict[str, Any]  # what is known of one image, as JSON


class Folder:
    """One population on the disk."""

    def __init__(self, root: str | Path, spec: Mapping[str, Any]) -> None:
        """Raises `InputError` if `root` holds anything else than this population, or nothing. Makes nothing."""
        self.root, self.spec = Path(root), json.loads(json.dumps(spec))
        if os.path.lexists(self.root) and not self.root.is_dir():
            raise InputError(f"{self.root} exists and is not a folder; give another folder.")
        if (self.root / HEADER).exists():
            self._refuse_other({"spec": self.spec})
        elif self.root.is_dir() and any(not _is_scrap(path) for path in self.root.iterdir()):
            raise InputError(f"{self.root} is not empty and holds no population of `{COMMAND}`; give a new folder.")

    def header(self) -> dict[str, Any]:
        """What synthesis.json says."""
        try:
            return dict(json.loads((self.root / HEADER).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise InputError(f"{self.root / HEADER} is damaged; remove {self.root} and make it again.") from error

    def _refuse_other(self, groups: Mapping[str, Mapping[str, Any]]) -> None:
        known = self.header()
        for group, values in groups.items():
            before = known.get(group) or {}
            for name in [*values, *before]:
                if before.get(name) != values.get(name):
                    what = f"another {name}" if group == "spec" else f"other weights of the {name}"
                    raise InputError(
                        f"{self.root} holds a population with {what} ({_short(before.get(name))}); "
                        "give that again to go on, or a new folder."
                    )

    @contextmanager
    def claimed(self, rank: int) -> Iterator[None]:
        """This process's own lock. The first also makes sure that no process of an earlier run is still at work.

        Raises
        ------
        InputError
            If one is.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot make the folder {self.root} ({error.strerror}); give another.") from error
        mine = self.root / f".lock-{rank}"
        with locked(mine, COMMAND):
            if rank == 0 and self.others_at_work(unknown=False):
                raise InputError(f"another `{COMMAND}` is at work in {self.root}; wait for it to end.")
            try:
                yield
            finally:
                for scrap in (self.root / BLOCKS).glob(f"*.{os.getpid()}.tmp"):  # stopped while it was tidying up
                    shutil.rmtree(scrap, ignore_errors=True)
                with suppress(OSError):  # Windows removes no open file
                    mine.unlink()

    def others_at_work(self, unknown: bool = True) -> bool:
        """Whether a process other than the first holds its lock; `unknown` on systems without such locks."""
        if find_spec("fcntl") is None:
            return unknown
        for path in self.root.glob(".lock-*"):
            if path.name != ".lock-0":
                try:
                    with locked(path, COMMAND):
                        pass
                except InputError:
                    return True
        return False

    def begin(self, count: int, weights: Mapping[str, str], versions: Mapping[str, str]) -> None:
        """Write synthesis.json, or check it against an earlier run's, and clear away what a killed run left.

        Raises
        ------
        InputError
            If the folder was begun with models of other weights, or already holds more than `count` images.
        """
        if (self.root / HEADER).exists():
            self._refuse_other({"spec": self.spec, "weights": weights})
            header = self.header()
            if header["versions"][-1] != versions:
                header["versions"].append(dict(versions))
                write_text(self.root / HEADER, json.dumps(header, indent=1) + "\n")
        else:
            header = {"format": FORMAT, "spec": self.spec, "weights": dict(weights), "versions": [dict(versions)]}
            write_text(self.root / HEADER, json.dumps(header, indent=1) + "\n")
        for name in (BLOCKS, *FOLDERS[:3]):
            (self.root / name).mkdir(exist_ok=True)
        for scrap in [*self.root.glob("*.tmp"), *(self.root / BLOCKS).glob("*.tmp")]:
            shutil.rmtree(scrap) if scrap.is_dir() else scrap.unlink(missing_ok=True)
        last = max(self.rows(), default=-1)
        if last >= count:
            raise InputError(f"{self.root} holds {last + 1:,} images already; use --count {last + 1} or more.")
        for number in self.missing(count):  # rows of a part of a block, or of pictures that are gone
            self._rows_of(number).unlink(missing_ok=True)

    def rows(self) -> dict[int, Row]:
        """What is known of each image that is wholly there, by its number."""
        found: dict[int, Row] = {}
        for path in [self.root / RECIPES, *sorted((self.root / BLOCKS).glob("*.jsonl"))]:
            if path.exists():
                try:
                    for line in path.read_text(encoding="utf-8").splitlines():
                        row = json.loads(line)
                        found[int(row["index"])] = row
                except (ValueError, KeyError, TypeError) as error:
                    raise InputError(f"{path} is damaged; remove it, and its images are made again.") from error
        return {
            index: row for index, row in found.items() if all((self.root / name).is_file() for name in row["files"])
        }

    def missing(self, count: int) -> list[int]:
        """Numbers of the blocks that hold an image below `count` that is not there yet."""
        done = self.rows()
        return sorted({index // BLOCK for index in range(count) if index not in done})

    def recorded(self, blocks: Iterable[int]) -> int:
        """How many of these blocks have their rows."""
        there = set((self.root / BLOCKS).glob("*.jsonl"))
        return sum(self._rows_of(number) in there for number in blocks)

    @contextmanager
    def staging(self, number: int) -> Iterator[Path]:
        """A folder for the pictures of a block until they are whole; it goes away whatever happens."""
        place = self.root / BLOCKS / f"{number:06d}.{os.getpid()}.tmp"
        try:
            for name in FOLDERS:
                (place / name).mkdir(parents=True)
            yield place
        finally:
            shutil.rmtree(place, ignore_errors=True)

    def keep(self, number: int, place: Path, rows: Sequence[Row]) -> None:
        """Bring the pictures of a block to their places, then write its rows."""
        for row in rows:
            for name in row["files"]:
                (self.root / name).parent.mkdir(exist_ok=True)
                os.replace(place / name, self.root / name)
        write_text(self._rows_of(number), to_lines(rows))

    def _rows_of(self, number: int) -> Path:
        return self.root / BLOCKS / f"{number:06d}.jsonl"

    def remove_strays(self, rows: Iterable[Row]) -> None:
        """Delete pictures of ours that belong to no row: a killed block beyond the images that are now asked for."""
        wanted = {name for row in rows for name in row["files"]}
        for folder in FOLDERS:
            for path in (self.root / folder).glob("*"):
                if _NAME.fullmatch(path.name) and f"{folder}/{path.name}" not in wanted:
                    path.unlink()

    def write_checksums(self, rows: Iterable[Row]) -> None:
        """Write checksums.sha256, for `sha256sum -c`.

        Raises
        ------
        InputError
            If a picture is no longer the one that was made.
        """
        sums = {}
        for name, made in (item for row in rows for item in row["files"].items()):
            sums[name] = sha256(self.root / name)
            if sums[name] != made:
                raise InputError(f"{self.root / name} was changed since it was made; remove it and run this again.")
        for name in (HEADER, RECIPES, METADATA, INFO, CARD, TRAINING):
            if (self.root / name).exists():
                sums[name] = sha256(self.root / name)
        write_text(self.root / CHECKSUMS, "".join(f"{sums[name]}  {name}\n" for name in sorted(sums)))

    def tidy(self) -> None:
        """The end: the blocks have become recipes.jsonl."""
        shutil.rmtree(self.root / BLOCKS, ignore_errors=True)
        for folder in FOLDERS[1:]:
            if (self.root / folder).is_dir() and not any((self.root / folder).iterdir()):
                (self.root / folder).rmdir()
        for path in self.root.glob(".lock-*"):
            if path.name != ".lock-0":  # of processes that were killed
                path.unlink(missing_ok=True)


def to_lines(rows: Iterable[Row]) -> str:
    """Rows as JSON Lines."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def sha256(path: Path) -> str:
    """64 hexadecimal digits."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _is_scrap(path: Path) -> bool:
    """What a run leaves that was killed before it had written synthesis.json."""
    return path.name.startswith(".lock-") or path.name.endswith(".tmp")


def _short(value: Any) -> str:
    text = json.dumps(value) if isinstance(value, dict) else str(value)
    return text if len(text) <= 80 else text[:79] + "…"
