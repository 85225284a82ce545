"""Other people's tables: every encoding, and cells read strictly."""

import csv
import io

import pytest

from mame_lib.data.sources.tables import (
    RowError,
    box_of,
    density_of,
    number_of,
    one_of,
    pixels_of,
    read_table,
    side_of,
    split_of,
    splits_of_patients,
    vendor_of,
    view_of,
)
from mame_lib.errors import InputError

ROWS = [["file", "patient name", "note"], ["a.png", "Müller", "x, y"], ["b.png", "", " NaN "]]


def text(delimiter=",", newline="\n"):
    stream = io.StringIO()
    csv.writer(stream, delimiter=delimiter, lineterminator=newline).writerows(ROWS)
    return stream.getvalue()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1", "cp1252"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_tables_as_spreadsheets_write_them(tmp_path, encoding, delimiter, newline):
    path = tmp_path / "t.csv"
    path.write_bytes(text(delimiter, newline).encode(encoding))
    table = read_table(path, ["file"])
    assert table.columns == ("file", "patient name", "note") and not table.bad
    first, second = table.rows
    assert (first["file"], first["patient name"], first["note"]) == ("a.png", "Müller", "x, y")
    assert second["patient name"] == second["note"] == second["no column"] == ""
    assert table.key(second) == "t.csv, row 3"


def test_rows_that_cannot_be_told_apart_are_set_aside_with_what_they_name(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text('file,x\n\na.png,1\nb.png\nc.png,1,2\n"d.png,1\ne.png,2\nf.png",3\ng.png,"4\n"\n,\n')
    table = read_table(path)
    assert [(row.number, row["file"], row["x"]) for row in table.rows] == [(3, "a.png", "1"), (7, "g.png", "4")]
    assert [bad.number for bad in table.bad] == [4, 5, 6]
    assert "1 cells where the header has 2" in table.bad[0].reason and "line break" in table.bad[2].reason
    assert table.bad[2].words == {"d.png", "e.png", "f.png", "1", "2", "3"}
    spoiled = table.spoiled()
    assert "e.png" in spoiled and "a.png" not in spoiled and spoiled["b.png"].startswith("row 4 of t.csv: ")


def test_of_two_columns_of_one_name_the_first_counts(tmp_path):
    (tmp_path / "t.csv").write_text("uid,maker,uid\n1,x,2\n")
    assert read_table(tmp_path / "t.csv").rows[0]["uid"] == "1"


@pytest.mark.parametrize(
    "content, words",
    [
        (b"", "is empty"),
        (b" , \n", "is empty"),
        (b"a,b\n1,2\n", "has no column file; check"),
        (b'file\n"' + b"x" * 200_000, "is no CSV"),
        (b"\xff\xfe\x00", "is not text"),
    ],
)
def test_tables_that_are_none(tmp_path, content, words):
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        read_table(path, ["file"])
    assert str(path) in str(caught.value)


def test_a_table_that_is_missing_or_a_folder(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_table(tmp_path / "no.csv")
    with pytest.raises(InputError, match="cannot be opened"):
        read_table(tmp_path)


GOOD = [
    (view_of, {"CC": "CC", "mlo": "MLO", "L-CC": "CC", "RMLO": "MLO", "left mlo": "MLO", "": None}),
    (side_of, {"L": "L", "right": "R", "RIGHT": "R", "": None}),
    (split_of, {"training": "train", "Test": "test", "val": "validation", "": None}),
    (vendor_of, {"SIEMENS": "siemens", "HOLOGIC, Inc.": "hologic", "Planmed": None, "": None}),
    (
        density_of,
        {"A": "very low", "b": "low", "3": "high", "4.0": "very high", "DENSITY C": "high", "BI-RADS 1": "very low",
         "birads: d": "very high", "ACR B": "low", "very high": "very high", "": None},
    ),
]  # fmt: skip
BAD = [
    (view_of, ["ML", "XCCL", "CC MLO", "B-CC"]),
    (side_of, ["B", "both", "LR"]),
    (split_of, ["dev", "1", "train,test"]),
    (density_of, ["E", "0", "5", "-1", "1.5", "AB", "unknown", "density", "C2", "high density", "٣"]),
]


@pytest.mark.parametrize("read, words", GOOD)
def test_words(read, words):
    assert {word: read(word) for word in words} == words


@pytest.mark.parametrize("read, words", BAD)
def test_words_that_mean_nothing_become_no_class(read, words):
    reasons = set()
    for word in words:
        with pytest.raises(RowError) as caught:
            read(word)
        reasons.add(str(caught.value))
    assert len(reasons) == 1  # it repeats no cell


def test_numbers():
    assert number_of("-1.5e2", "box") == -150 and pixels_of("3518.0", "height") == 3518
    for word in ("", "nan", "inf", "1e99", "1,5", "0x10", "1_000", "٣", " 1", "1e7"):
        with pytest.raises(RowError, match="its box is no number"):
            number_of(word, "box")
    for word in ("0", "-5", "1.5"):
        with pytest.raises(RowError, match="its height is no number of pixels"):
            pixels_of(word, "height")


def test_boxes():
    assert box_of(["30", "60.5", "10", "40"]) == (10, 40, 30, 60.5)
    assert box_of(["-5", "40", "200", "60"], (120, 96)) == (-5, 40, 200, 60)  # the geometry clips
    for corners, words in {
        ("10", "40", "10", "60"): "empty",
        ("96", "40", "99", "60"): "outside",
        ("10", "120", "20", "130"): "outside",
        ("-9", "40", "0", "60"): "outside",
    }.items():
        with pytest.raises(RowError, match=words):
            box_of(corners, (120, 96))


def test_one_of():
    assert one_of([None, "a", "a"], "view") == "a" and one_of([None], "view") is None
    with pytest.raises(RowError, match="rows disagree about its view"):
        one_of(["a", "b"], "view")


def test_a_patient_is_in_one_split_only():
    said = {"p": ["train", "test"], "q": ["train", None], "r": ["validation", "train"], "s": [None]}
    pairs = [(patient, split) for patient, splits in said.items() for split in splits]
    assert splits_of_patients(pairs) == {"p": "test", "q": "train", "r": "validation", "s": None}
