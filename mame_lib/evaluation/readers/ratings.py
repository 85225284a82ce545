"""What readers said, and what was true: the two tables of a reader study as CSV files.

    anna.csv   study,reader,case,rating,seconds,position     a row a rating
    key.csv    case,truth,source                             a row a case, kept from the readers

The scale is the paper's (section 3.1.4). The positive class is "synthetic", so the score of a case is `4 - rating`.
"""

from __future__ import annotations

import csv
import io
import math
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from mame_lib.errors import InputError

SCALE = ("definitely synthetic", "probably synthetic", "not sure", "probably real", "definitely real")  # 0 to 4
TRUTHS = ("real", "synthetic")
MOST_BYTES = 5_000_000  # of a file of ratings; a rating is some 60
NAME = re.compile(r"[A-Za-z0-9_-]{1,40}")  # studies, readers and cases: nothing that a spreadsheet takes for a formula
NAME_RULE = "1 to 40 letters, digits, - or _"
_NUMBERS = (r"[0-9]{1,9}", r"[0-9]{1,9}(\.[0-9]{1,9})?", r"[0-9]{1,9}")  # rating, seconds, position


@dataclass(frozen=True)
class Rating:
    """One case as one reader saw it.

    rating: 0 to 4, an index into `SCALE`. seconds: how long the picture was on the screen until the rating, or until
    it was last changed. position: when the reader met the case, from 1.

    Raises
    ------
    InputError
        If a name has a sign that is not allowed, the rating is not 0 to 4, the seconds are not finite or negative,
        or the position is below 1.
    """

    study: str
    reader: str
    case: str
    rating: int
    seconds: float
    position: int

    def __post_init__(self) -> None:
        for kind in ("study", "reader", "case"):
            check_name(getattr(self, kind), kind)
        if not 0 <= self.rating < len(SCALE):
            raise InputError(f"the rating {self.rating} is not 0, 1, 2, 3 or 4.")
        if not (math.isfinite(self.seconds) and self.seconds >= 0):
            raise InputError(f"the time {self.seconds} s is not a number of seconds, 0 or more.")
        if self.position < 1:
            raise InputError(f"the position {self.position} is below 1.")

    @property
    def score(self) -> int:
        """How synthetic the case looked, 0 to 4: the higher, the surer."""
        return len(SCALE) - 1 - self.rating


COLUMNS = tuple(field.name for field in fields(Rating))
KEY_COLUMNS = ("case", "truth", "source")


def check_name(name: str, kind: str = "name") -> str:
    """The name itself, if it may stand in a table; raises `InputError` otherwise."""
    if not NAME.fullmatch(name):
        raise InputError(f"the {kind} {name[:60]!r} will not do; use {NAME_RULE}.")
    return name


def read_ratings(paths: str | Path | Iterable[str | Path]) -> list[Rating]:
    """The ratings of one or more files, merged, by study, reader and position.

    The same rating may come twice, in an early and in a late export. Two different ratings of one case by one
    reader are refused, for nobody but the reader knows which one was meant.

    Raises
    ------
    InputError
        For a file that cannot be read, a row that is damaged (with file and line), a contradiction, or no rating.
    """
    files = [Path(paths)] if isinstance(paths, str | Path) else [Path(path) for path in paths]
    found: dict[tuple[str, str, str], tuple[Rating, str]] = {}
    for path in files:
        for number, rating in parse(_text(path), str(path)):
            name = (rating.study, rating.reader, rating.case)
            before, where = found.setdefault(name, (rating, f"{path}, line {number}"))
            if before.rating != rating.rating:
                raise InputError(
                    f"{path}, line {number}: {rating.reader} rated {rating.case} with {rating.rating}, but with "
                    f"{before.rating} in {where}; keep the newer file alone."
                )
    if not found:
        raise InputError(f"there is no rating in {', '.join(map(str, files)) or 'no file'}; give files of ratings.")
    return sorted((rating for rating, _ in found.values()), key=lambda r: (r.study, r.reader, r.position, r.case))


def parse(text: str, where: str = "the ratings") -> Iterator[tuple[int, Rating]]:
    """Yield the number of each line and its rating; `where` is what a message calls the text.

    Raises
    ------
    InputError
        For another heading, or a row that is damaged (with its line).
    """
    for number, row in _rows(text, COLUMNS, where):
        study, reader, case, *numbers = row
        if not all(map(re.fullmatch, _NUMBERS, numbers)):
            what = "rating and position are whole numbers, seconds a number"
            raise InputError(f"{where}, line {number}: {','.join(numbers)[:60]!r}: {what}.")
        try:
            yield number, Rating(study, reader, case, int(numbers[0]), float(numbers[1]), int(numbers[2]))
        except InputError as error:
            raise InputError(f"{where}, line {number}: {error}") from error


def to_csv(ratings: Iterable[Rating]) -> str:
    """The ratings as the text of a file, with the heading; seconds to a tenth."""
    rows = [(*astuple(one)[:4], f"{one.seconds:.1f}", one.position) for one in ratings]
    return _to_text(COLUMNS, rows)


def write_ratings(path: str | Path, ratings: Iterable[Rating]) -> Path:
    """Write a file of ratings, whole or not at all."""
    return write_whole(Path(path), to_csv(ratings))


def read_key(path: str | Path) -> dict[str, str]:
    """The truth of each case, "real" or "synthetic".

    Raises
    ------
    InputError
        For a file that cannot be read, a row that is damaged (with its line), a case that comes twice, or no case.
    """
    return {case: truth for case, truth, _ in _key(Path(path))}


def read_repeats(path: str | Path) -> dict[str, str]:
    """Cases that show an image again, and the case that showed it first: {second: first}, often empty.

    Two cases of `key.csv` with one source are the same image, and the upper row is the first showing. Raises
    `InputError` as `read_key` does.
    """
    first: dict[str, str] = {}
    return {case: first[source] for case, _, source in _key(Path(path)) if first.setdefault(source, case) != case}


def write_key(path: str | Path, rows: Iterable[Sequence[str]]) -> Path:
    """Write a key, rows of (case, truth, source), whole or not at all."""
    return write_whole(Path(path), _to_text(KEY_COLUMNS, rows))


def write_whole(path: Path, text: str) -> Path:
    """Write a text file under a temporary name, then rename it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        partial.write_text(text, encoding="utf-8", newline="")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def _key(path: Path) -> list[tuple[str, str, str]]:
    rows: list[tuple[str, str, str]] = []
    seen: dict[str, int] = {}
    for number, (case, truth, source) in _rows(_text(path), KEY_COLUMNS, str(path)):
        if not NAME.fullmatch(case):
            raise InputError(f"{path}, line {number}: the case {case[:60]!r} will not do; use {NAME_RULE}.")
        if truth not in TRUTHS:
            raise InputError(f"{path}, line {number}: the truth {truth[:60]!r} is neither real nor synthetic.")
        if case in seen:
            raise InputError(f"{path}, line {number}: the case {case} stands in line {seen[case]} already.")
        seen[case] = number
        rows.append((case, truth, source))
    if not rows:
        raise InputError(f"{path} has no case; make the study again.")
    return rows


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > MOST_BYTES:
            raise InputError(f"{path} has more than {MOST_BYTES:,} bytes; that is no table of a reader study.")
        return path.read_text(encoding="utf-8-sig")  # spreadsheets put a mark in front
    except OSError as error:
        raise InputError(f"cannot read {path} ({error.strerror}); give a CSV file of a reader study.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text; give a CSV file of a reader study.") from error


def _rows(text: str, columns: tuple[str, ...], where: str) -> Iterator[tuple[int, list[str]]]:
    """Yield line number and fields of each row below the heading; empty lines are passed over."""
    reader = csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""), strict=True)
    try:
        heading = next(reader, [])
        if tuple(heading) != columns:
            said = ",".join(heading)[:80]
            raise InputError(f"{where}, line 1: the heading must be {','.join(columns)}, not {said!r}.")
        for row in reader:
            if not any(row):
                continue
            if len(row) != len(columns):
                raise InputError(f"{where}, line {reader.line_num}: {len(row)} fields, not {len(columns)}.")
            yield reader.line_num, row
    except csv.Error as error:
        raise InputError(f"{where}, line {reader.line_num}: {error}.") from error


def _to_text(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return stream.getvalue()
