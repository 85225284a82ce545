"""The folder of a sweep: begun, killed, gone on with, and complete only when everything is on the disk."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from mame_lib.data.folders import locked
from mame_lib.errors import InputError
from mame_lib.evaluation.sweep_rows import Row, from_values, read_csv, write_csv
from mame_lib.evaluation.sweep_sheet import contact_sheet, notice
from mame_lib.generation import Generated

HEADER, TABLE, SHEET, JOURNAL, LOCK, IMAGES = (
    "sweep.json", "sweep.csv", "sheet.png", "journal.jsonl", ".lock", "images",
)  # fmt: skip


def read_header(root: Path) -> dict[str, Any]:
    """What sweep.json says. Raises `InputError` if there is none or it is damaged."""
    if not root.is_dir():
        raise InputError(f"{root} is not a folder; give the folder of a sweep.")
    if not (root / HEADER).is_file():
        raise InputError(f"there is no sweep in {root}: it has no {HEADER}.")
    try:
        return dict(json.loads((root / HEADER).read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise InputError(f"{root / HEADER} is damaged; remove {root} and run the sweep again.") from error


class Folder:
    """One sweep on the disk; `done` holds the rows that are there, by their keys."""

    def __init__(self, root: Path, settings: dict[str, Any]) -> None:
        """Raises `InputError` if `root` holds anything else than a sweep of these settings, or nothing."""
        self.root, self.settings = root, json.loads(json.dumps(settings))
        self.header: dict[str, Any] = {}
        self.done: dict[tuple[Any, ...], Row] = {}
        self.seconds = 0.0
        self._new = 0
        self._journal: TextIO | None = None
        if os.path.lexists(root) and not root.is_dir():
            raise InputError(f"{root} exists and is not a folder; give another folder.")
        if (root / HEADER).exists():
            known = read_header(root)
            self._refuse_other(known, {"settings": self.settings})
        elif root.is_dir() and {path.name for path in root.iterdir()} - {LOCK, f"{HEADER}.tmp"}:
            raise InputError(f"{root} is not empty and holds no sweep; give a new folder.")

    def _refuse_other(self, one: dict[str, Any], other: dict[str, Any]) -> None:
        for group, values in other.items():
            before = one.get(group) or {}
            for name in values:
                if before.get(name) != values[name]:
                    what = f"another {name}" if group == "settings" else f"other weights of {name}"
                    raise InputError(
                        f"{self.root} holds a sweep with {what} ({_short(before.get(name))}); "
                        "give that again to go on, or a new folder."
                    )

    @contextmanager
    def opened(self, facts: dict[str, Any]) -> Iterator[None]:
        """Take the folder for this process, and read what an earlier one finished. `facts` go into sweep.json.

        Raises
        ------
        InputError
            If the sweep was begun with models of other weights, or if another process is at work on it.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot make the folder {self.root} ({error.strerror}); give another.") from error
        with _alone(self.root):
            if (self.root / HEADER).exists():
                self.header = read_header(self.root)
                self._refuse_other(self.header, {"settings": self.settings, "weights": facts["weights"]})
                if self.header.get("complete"):
                    self.seconds = float(self.header["provenance"]["seconds"])
                elif (now := facts["provenance"]) != self.header["provenance"]:
                    self.header.setdefault("resumed", []).append(now)  # another day, perhaps other versions
                    self._write_header()
            else:
                self.header = {"complete": False, "settings": self.settings, **facts}
                self._write_header()
            self._remove_scraps()
            self._recover()
            with open(self.root / JOURNAL, "a", encoding="utf-8") as self._journal:
                yield

    def add(self, row: Row, image: Generated | None, seconds: float) -> None:
        """Keep a row; its image first, so that no row is without one."""
        assert self._journal is not None
        if image is not None:
            image.save(self.root / row.file)
        self._journal.write(json.dumps({**row.values(), "seconds": round(seconds, 4)}) + "\n")
        self._journal.flush()
        self.done[row.key] = row
        self.seconds += seconds
        self._new += 1

    def finish(self, keys: Sequence[tuple[Any, ...]]) -> list[Row]:
        """Write table, sheet and the word `complete`, in this order; returns the rows in the order of `keys`."""
        rows = [self.done[key] for key in keys]
        if self._new or not self.header.get("complete"):
            write_csv(rows, self.root / TABLE)
            if self.settings["images_kept"]:
                partial = self.root / f"{SHEET}.tmp"
                contact_sheet(rows, self.root).save(partial, format="PNG", pnginfo=notice())
                os.replace(partial, self.root / SHEET)
            self.header["provenance"]["seconds"] = round(self.seconds, 1)
            self.header.update(complete=True, rows=len(rows))
            self._write_header()
        assert self._journal is not None
        self._journal.close()  # Windows removes no open file
        (self.root / JOURNAL).unlink()
        return rows

    def _write_header(self) -> None:
        partial = self.root / f"{HEADER}.tmp"
        partial.write_text(json.dumps(self.header, indent=1) + "\n", encoding="utf-8")
        os.replace(partial, self.root / HEADER)

    def _remove_scraps(self) -> None:
        """Half-written files of a process that was killed."""
        for pattern in ("*.tmp", f"{IMAGES}/*/.*.partial"):
            for path in self.root.glob(pattern):
                path.unlink(missing_ok=True)

    def _recover(self) -> None:
        """Rows of the table and of the journal; a torn last line and a row whose image is gone do not count."""
        found: list[Row] = []
        if self.header.get("complete"):
            with suppress(InputError):  # table lost or damaged: all is made again
                found += read_csv(self.root / TABLE)
        path = self.root / JOURNAL
        if path.exists():
            text = path.read_bytes()
            whole = text[: text.rfind(b"\n") + 1]
            with open(path, "r+b") as stream:
                stream.truncate(len(whole))
            try:
                for line in whole.decode("utf-8").splitlines():
                    values = json.loads(line)
                    found.append(from_values(values))
                    self.seconds += float(values["seconds"])
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(f"{path} is damaged; remove it, and the sweep makes its rows again.") from error
        self.done = {row.key: row for row in found if not row.file or (self.root / row.file).is_file()}


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    with locked(root / LOCK, "mame sweep"):
        try:
            yield
        finally:
            with suppress(OSError):  # Windows removes no open file
                (root / LOCK).unlink()


def _short(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 80 else text[:79] + "…"
