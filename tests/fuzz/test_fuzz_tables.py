"""Tables and records that were damaged: no crash, no hang, no word of a patient, nothing lost without a reason.

MAME_FUZZ_TABLES=2000 python -m pytest tests/fuzz/test_fuzz_tables.py    # 2,000 mutations of each source
"""

from __future__ import annotations

import csv
import io
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from mame_lib.data.sources import SOURCES, Quarantined, SourceCase
from mame_lib.errors import InputError
from tests.data.miniatures import breast, write_cbis, write_omidb, write_vindr

pytest.importorskip("pydicom")

EXAMPLES = int(os.environ.get("MAME_FUZZ_TABLES", "200"))
SECONDS = 5.0  # for one listing
SECRET = "Grete Geheim"
ODD = (
    '"', "'", ",", ";", "\n", "\r", "\x00", "\ufeff", "", "nan", "inf", "-1", "0", "1e999", "9" * 30, "٣", "../..",
    "/etc/passwd", "[", "[" * 3000, "{", "['Mass'", "['No Finding']", "None", "true", "L", "MLO", "DENSITY E",
    "DENSITY A", "test", "\\ud800", "é", "x" * 140_000, "Mass-Training_P_00001_LEFT_CC", SECRET,
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 1e308, "", "X", [], [[]], {}, {"Value": [None]}, {"1": {"X1": "2"}}, SECRET,
)  # fmt: skip


@dataclass(frozen=True)
class Place:
    """A miniature on disk: its tables with their bytes, what it lists, and how many entries it has at least."""

    name: str
    root: Path
    files: dict[Path, bytes]
    whole: dict[str, SourceCase]
    fewest: int

    def list(self) -> list[SourceCase | Quarantined]:
        options = {"table": self.root / "table.csv"} if self.name == "folder" else {}
        return list(SOURCES[self.name](self.root, **options))


def write_folder(root: Path) -> None:
    rows = ["file,patient,view,laterality,density,finding,split,xmin,ymin,xmax,ymax,mask"]
    for number, split in enumerate(("train", "train", "test", "")):
        Image.fromarray(breast()).save(root / f"{number}.png")
        rows.append(f"{number}.png,{SECRET} {number},CC,L,{'ABCD'[number]},healthy,{split},,,,,")
    Image.fromarray(breast()).save(root / "lesion.png")
    rows += [f"lesion.png,{SECRET},MLO,R,2,lesion,train,{x},40,{x + 10},60," for x in (10, 30)]
    (root / "table.csv").write_text("\n".join(rows) + "\n")


WRITERS = {"folder": write_folder, "vindr": write_vindr, "omidb": write_omidb, "cbis": write_cbis}


@pytest.fixture(scope="module", params=sorted(SOURCES))
def place(request, tmp_path_factory):
    root = tmp_path_factory.mktemp(request.param)
    WRITERS[request.param](root)
    files = {path: path.read_bytes() for suffix in ("csv", "json") for path in sorted(root.rglob(f"*.{suffix}"))}
    whole = Place(request.param, root, files, {}, 0).list()
    cases = {entry.key: entry for entry in whole if isinstance(entry, SourceCase)}
    return Place(request.param, root, files, cases, len(whole))


# ── Mutations ──


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """A few bytes flipped, cut out, doubled or put in; or the end cut off."""
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, max(len(data) - 1, 0)))
        end = min(len(data), start + draw(st.sampled_from((1, 1, 2, 20, 400))))
        kind = draw(st.sampled_from(("flip", "flip", "byte", "cut", "double", "insert", "insert", "end")))
        if kind == "flip" and data:
            data = data[:start] + bytes([data[start] ^ 1 << draw(st.integers(0, 7))]) + data[start + 1 :]
        elif kind == "byte":
            data = data[:start] + draw(st.binary(min_size=1, max_size=3)) + data[start + 1 :]
        elif kind == "cut":
            data = data[:start] + data[end:]
        elif kind == "double":
            data = data[:end] + data[start:end] + data[end:]
        elif kind == "insert":
            data = data[:start] + draw(st.sampled_from(ODD)).encode() + data[start:]
        else:
            data = data[:start]
    return data


@st.composite
def another_cell(draw: st.DrawFn, data: bytes) -> bytes:
    """A table that is sound but for the contents of one or two cells."""
    rows = list(csv.reader(io.StringIO(data.decode(), newline="")))
    for _ in range(draw(st.integers(1, 2))):
        row = draw(st.sampled_from(rows[1:]))
        row[draw(st.integers(0, len(row) - 1))] = draw(st.sampled_from(ODD) | st.text(max_size=20))
    stream = io.StringIO(newline="")
    csv.writer(stream).writerows(rows)
    return stream.getvalue().encode("utf-8", "replace")


@st.composite
def another_value(draw: st.DrawFn, data: bytes) -> bytes:
    """A JSON file that is sound but for one value, however deep."""
    values = json.loads(data)
    at = values
    while True:
        key = draw(st.sampled_from(sorted(at)))
        if isinstance(at[key], dict) and at[key] and draw(st.integers(0, 3)):
            at = at[key]
            continue
        at[key] = draw(st.sampled_from(VALUES))
        return json.dumps(values).encode()


# ── What must hold ──


def check(place: Place, fewest: int) -> None:
    start = time.process_time()
    try:
        entries = place.list()
    except InputError as error:  # the whole table is useless: one sentence that names it
        assert str(place.root) in str(error) and SECRET not in str(error) and str(error).endswith(".")
        return
    finally:
        assert time.process_time() - start < SECONDS
    assert len(entries) >= fewest
    cases = [entry for entry in entries if isinstance(entry, SourceCase)]
    assert len({case.key for case in cases}) == len(cases)
    splits: dict[str, set[str | None]] = {}
    for case in cases:
        for path in (case.path, *case.masks):
            assert path.is_file() and path.resolve().is_relative_to(place.root.resolve())
        splits.setdefault(case.patient, set()).add(case.split)
        assert bool(case.boxes or case.masks) <= (case.attributes.finding == "lesion")
        before = place.whole.get(case.key)
        if before and (before.boxes or before.masks):
            assert case.boxes or case.masks or place.name == "folder", "a lesion became healthy"
    assert all(len(said) == 1 for patient, said in splits.items() if patient)
    for entry in set(entries) - set(cases):
        assert isinstance(entry, Quarantined) and entry.reason
        assert SECRET not in entry.reason and str(place.root) not in entry.reason
        assert len(entry.reason) < 300 and "\n" not in entry.reason


def settled(share: int) -> settings:
    return settings(
        max_examples=max(1, EXAMPLES // share),
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
    )


def with_file(place: Path, path: Path, data: bytes, fewest: int) -> None:
    path.write_bytes(data)
    try:
        check(place, fewest)
    finally:
        path.write_bytes(place.files[path])


@settled(2)
@given(data=st.data())
def test_damaged_bytes(place, data):
    path = data.draw(st.sampled_from(sorted(place.files)))
    with_file(place, path, data.draw(damaged(place.files[path])), 0)


@settled(2)
@given(data=st.data())
def test_other_contents(place, data):
    path = data.draw(st.sampled_from(sorted(place.files)))
    change = another_value if path.suffix == ".json" else another_cell
    fewest = place.fewest if path.suffix == ".csv" and path.name != "metadata.csv" else 1
    with_file(place, path, data.draw(change(place.files[path])), fewest)
