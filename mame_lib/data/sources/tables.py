"""Tables of other people: CSV files read strictly, and the words and numbers in their cells.

Whatever makes the whole table useless is an `InputError` that names the file; whatever spoils one row is a
`RowError`, from which the sources make a `Quarantined`. Neither repeats a cell: it may be a name.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from mame_lib.data.case import DENSITIES, LATERALITIES, VENDORS, VIEWS
from mame_lib.data.sources.base import FloatBox
from mame_lib.errors import InputError

LARGEST = 1e6  # coordinate or side, pixels
BLANK = frozenset({"", "nan", "none", "null", "na", "n/a", "<na>"})
LONGEST_BLANK = max(map(len, BLANK))
DELIMITERS = ",;\t"  # of the header, the one that occurs most counts
SPLITS = {
    "train": "train", "training": "train", "test": "test", "testing": "test",
    "validation": "validation", "valid": "validation", "val": "validation",
}  # fmt: skip

_SIDES = {"l": "L", "left": "L", "r": "R", "right": "R"}
_VIEW = re.compile(r"(?:(?:l|r|left|right)[\s_-]?)?(cc|mlo)")
_DENSITY = re.compile(r"(?:(?:acr|density|bi-?rads)[\s:_-]*)*([a-d]|[1-4](?:\.0+)?)")
_BETWEEN = re.compile(r'[,;\t"\r\n/\\]+')
_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,3})?", re.ASCII)

K = TypeVar("K")
V = TypeVar("V")


class RowError(ValueError):
    """What is wrong with one row, or with all rows of an image, as a clause that repeats no cell."""


@dataclass(frozen=True)
class Row:
    """A row of a table: its number as a spreadsheet shows it (the header is 1), and its cells by column."""

    number: int
    cells: Mapping[str, str]

    def __getitem__(self, column: str) -> str:
        """The cell without spaces around it; "" where the column is missing or says nothing ("nan", "N/A", …)."""
        text = self.cells.get(column, "").strip()
        return "" if len(text) <= LONGEST_BLANK and text.lower() in BLANK else text


@dataclass(frozen=True)
class BadRow:
    """A row whose cells cannot be told apart, why, and the words in it: what it names must not be half known."""

    number: int
    reason: str
    words: frozenset[str]


@dataclass(frozen=True)
class Table:
    """A CSV file: its columns, its good rows and its bad ones."""

    path: Path
    columns: tuple[str, ...]
    rows: list[Row]
    bad: list[BadRow]

    def key(self, row: Row | BadRow) -> str:
        """Name of a row that belongs to no file."""
        return f"{self.path.name}, row {row.number}"

    def spoiled(self) -> dict[str, str]:
        """Word of a bad row -> what is wrong with that row, as a clause."""
        return {word: f"row {bad.number} of {self.path.name}: {bad.reason}" for bad in self.bad for word in bad.words}


def read_table(path: Path, required: Iterable[str] = ()) -> Table:
    """Read a CSV file: UTF-8 with or without a byte order mark, UTF-16 or Latin-1; commas, semicolons or tabs.

    Column names are taken without spaces around them; of two columns with one name the first counts. A row with
    more or fewer cells than the header, or with a line break inside a cell, is bad.

    Raises
    ------
    InputError
        If the file cannot be read as a table, or lacks one of the `required` columns.
    """
    lines = _records(path, _text(path))
    header = tuple(name.strip() for name in lines[0]) if lines else ()
    if not any(header):
        raise InputError(f"the table {path} is empty; it needs a header row and a row for each image.")
    missing = [name for name in required if name not in header]
    if missing:
        raise InputError(f"the table {path} has no column {', '.join(missing)}; check that it is the right file.")
    names = header[::-1]  # reversed, so that the first of two columns of one name is the last to be stored
    rows: list[Row] = []
    bad: list[BadRow] = []
    for number, cells in enumerate(lines[1:], start=2):
        if reason := _broken(cells, len(header)):
            words = frozenset(word.strip() for cell in cells for word in _BETWEEN.split(cell))
            bad.append(BadRow(number, reason, words - {""}))
        elif any(cells):
            rows.append(Row(number, dict(zip(names, cells[::-1], strict=True))))
    return Table(path, header, rows, bad)


def _broken(cells: list[str], expected: int) -> str:
    """What is wrong with the cells of a row, as a clause; empty for a good row and for an empty line."""
    if cells and len(cells) != expected:
        return f"it has {len(cells)} cells where the header has {expected}"
    if any("\n" in cell and "\n" in cell.strip() for cell in cells):
        return "a line break is inside one of its cells: a quotation mark is missing or too many"
    return ""


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"the table {path} does not exist; check the path.") from error
    except OSError as error:
        raise InputError(f"the table {path} cannot be opened: {error.strerror}.") from error
    encodings = ("utf-16",) if data[:2] in (b"\xff\xfe", b"\xfe\xff") else ("utf-8-sig", "latin-1")
    for encoding in encodings:
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise InputError(f"the table {path} is not text; export it again as CSV.")


def _records(path: Path, text: str) -> list[list[str]]:
    head = text.split("\n", 1)[0]
    delimiter = max(DELIMITERS, key=head.count)
    try:
        return list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
    except csv.Error as error:
        raise InputError(f"the table {path} is no CSV ({error}); export it again.") from error


# ── Words and numbers ──


def view_of(text: str) -> str | None:
    """CC or MLO, also as "L-CC"; None for a blank."""
    if not text:
        return None
    match = _VIEW.fullmatch(text.lower())
    if not match:
        raise RowError(f"its view is none of {', '.join(VIEWS)}")
    return match[1].upper()


def side_of(text: str) -> str | None:
    """L or R, also as "left"; None for a blank."""
    if text and text.lower() not in _SIDES:
        raise RowError(f"its laterality is none of {', '.join(LATERALITIES)}")
    return _SIDES[text.lower()] if text else None


def density_of(text: str) -> str | None:
    """The word for "low", "B", "2", "DENSITY B" or "BI-RADS 2" (paper, Table 2); None for a blank.

    What is none of these raises `RowError`: an unknown density must not become a class.
    """
    plain = text.lower()
    if not plain or plain in DENSITIES:
        return plain or None
    match = _DENSITY.fullmatch(plain)
    if not match:
        raise RowError("its density is none of A, B, C, D or 1 to 4")
    return DENSITIES["abcd".find(match[1]) if match[1].isalpha() else int(float(match[1])) - 1]


def vendor_of(text: str) -> str | None:
    """hologic or siemens if the maker's name holds that; None for every other maker, as for a DICOM header."""
    return next((name for name in VENDORS if name in text.lower()), None)


def split_of(text: str) -> str | None:
    """train, validation or test; None for a blank."""
    if text and text.lower() not in SPLITS:
        raise RowError("its split is none of train, validation, test")
    return SPLITS[text.lower()] if text else None


def number_of(text: str, what: str) -> float:
    """A decimal number, not larger than any image."""
    value = float(text) if _NUMBER.fullmatch(text) else math.nan
    if not abs(value) <= LARGEST:
        raise RowError(f"its {what} is no number, or not finite")
    return value


def pixels_of(text: str, what: str) -> int:
    """A whole number of pixels, 1 or more, also as "3518.0"."""
    value = number_of(text, what)
    if value != int(value) or value < 1:
        raise RowError(f"its {what} is no number of pixels")
    return int(value)


def box_of(corners: Sequence[str], shape: tuple[int, int] | None = None) -> FloatBox:
    """Box (x0, y0, x1, y1) of two opposite corners (x, y, x, y), put in order.

    shape: (height, width) of the image if known. A box may reach beyond it, but not lie wholly outside.
    """
    x0, y0, x1, y1 = (number_of(corner, "box") for corner in corners)
    box = (min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))
    if not (box[0] < box[2] and box[1] < box[3]):
        raise RowError("its box is empty")
    if box[2] <= 0 or box[3] <= 0 or (shape and (box[0] >= shape[1] or box[1] >= shape[0])):
        raise RowError("its box lies wholly outside the image")
    return box


def one_of(values: Iterable[V | None], what: str) -> V | None:
    """The one value that is said, None if none is; rows that say two different things are refused."""
    said = {value for value in values if value is not None}
    if len(said) > 1:
        raise RowError(f"its rows disagree about its {what}")
    return said.pop() if said else None


def splits_of_patients(said: Iterable[tuple[K, str | None]]) -> dict[K, str | None]:
    """The split of each patient. One in several splits goes to test as a whole, else to validation: no leak."""
    order = ("test", "validation", "train")
    found: dict[K, set[str]] = {}
    for patient, split in said:
        found.setdefault(patient, set()).update({split} if split else ())
    return {patient: next((s for s in order if s in splits), None) for patient, splits in found.items()}
