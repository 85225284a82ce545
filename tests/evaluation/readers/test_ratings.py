"""Files of ratings and keys: what is written is read again, and what is damaged has one sentence with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from mame_lib.errors import InputError
from mame_lib.evaluation.readers import ratings
from mame_lib.evaluation.readers.ratings import Rating, read_key, read_ratings, read_repeats, write_key, write_ratings

HEADING = "study,reader,case,rating,seconds,position\n"
ROW = "s,anna,c1,3,2.5,1\n"


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    anna = [Rating("s", "anna", "c2", 0, 1.5, 1), Rating("s", "anna", "c1", 4, 12.0, 2)]
    bob = [Rating("s", "bob", "c1", 2, 0.0, 1)]
    files = [write_ratings(tmp_path / "bob.csv", bob), write_ratings(tmp_path / "anna.csv", anna)]
    assert read_ratings(files) == anna + bob
    assert read_ratings(files[0]) == bob
    assert [path.name for path in tmp_path.iterdir() if path.name not in ("bob.csv", "anna.csv")] == []
    assert [one.score for one in anna] == [4, 0]


def test_an_early_and_a_late_export_are_merged(tmp_path: Path) -> None:
    early, late = tmp_path / "early.csv", tmp_path / "late.csv"
    early.write_text(HEADING + ROW)
    late.write_text(HEADING + ROW + "s,anna,c2,1,4.0,2\n")
    assert len(read_ratings([early, late])) == 2
    late.write_text(HEADING + ROW.replace(",3,", ",1,"))
    words = r"late\.csv, line 2: anna rated c1 with 1, but with 3 in .*early\.csv, line 2"
    with pytest.raises(InputError, match=words):
        read_ratings([early, late])


def test_a_spreadsheet_may_have_had_it(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbf" + (HEADING + ROW + ",,,,,\n\n").replace("\n", "\r\n").encode())
    assert read_ratings(tmp_path / "a.csv") == [Rating("s", "anna", "c1", 3, 2.5, 1)]


@pytest.mark.parametrize(
    "text, words",
    [
        ("", "line 1: the heading must be"),
        ("study;reader;case;rating;seconds;position\n", "line 1: the heading must be"),
        (HEADING, "there is no rating"),
        (HEADING + "s,anna,c1,3,2.5\n", "line 2: 5 fields, not 6"),
        (HEADING + ROW + "s,anna,c2,5,2.5,2\n", "line 3: the rating 5 is not 0, 1, 2, 3 or 4"),
        (HEADING + "s,anna,c1,-1,2.5,1\n", "line 2: '-1,2.5,1'"),
        (HEADING + "s,anna,c1,3.0,2.5,1\n", "whole numbers"),
        (HEADING + "s,anna,c1,3,nan,1\n", "seconds a number"),
        (HEADING + "s,anna,c1,3,inf,1\n", "seconds a number"),
        (HEADING + "s,anna,c1,٣,2.5,1\n", "whole numbers"),
        (HEADING + "s,anna,c1,3,2.5,0\n", "the position 0 is below 1"),
        (HEADING + "s,=HYPERLINK(1),c1,3,2.5,1\n", "the reader '=HYPERLINK"),
        (HEADING + 's,"anna\n",c1,3,2.5,1\n', "the reader"),
        (HEADING + "s,anna,../key,3,2.5,1\n", "the case '../key' will not do"),
        (HEADING + 's,anna,"c1,3,2.5,1\n', "line 2"),
    ],
)
def test_a_damaged_file_has_one_sentence(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as error:
        read_ratings(path)
    assert words in str(error.value) and str(path) in str(error.value) and "\n" not in str(error.value)


def test_files_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    monkeypatch.setattr(ratings, "MOST_BYTES", 100)
    (tmp_path / "large.csv").write_text(HEADING + ROW * 10)
    for name, words in (("none.csv", "cannot read"), ("binary.csv", "not UTF-8"), ("large.csv", "more than 100 bytes")):
        with pytest.raises(InputError, match=words):
            read_ratings(tmp_path / name)
    with pytest.raises(InputError, match="no rating in no file"):
        read_ratings([])


def test_the_key_and_what_is_shown_twice(tmp_path: Path) -> None:
    rows = [("a", "real", "phantom, 1"), ("b", "synthetic", "fused 1"), ("c", "real", "phantom, 1")]
    path = write_key(tmp_path / "key.csv", rows)
    assert read_key(path) == {"a": "real", "b": "synthetic", "c": "real"}
    assert read_repeats(path) == {"c": "a"}


@pytest.mark.parametrize(
    "rows, words",
    [
        ("", "has no case"),
        ("a,fake,x\n", "line 2: the truth 'fake' is neither real nor synthetic"),
        ("a,real,x\na,real,x\n", "line 3: the case a stands in line 2 already"),
        ("a b,real,x\n", "line 2: the case 'a b'"),
        ("a,real\n", "line 2: 2 fields, not 3"),
    ],
)
def test_a_damaged_key(rows: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "key.csv").write_text("case,truth,source\n" + rows)
    with pytest.raises(InputError, match=words):
        read_key(tmp_path / "key.csv")
