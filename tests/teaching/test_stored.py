"""Stored results: found from anywhere, traceable, and honest when they are missing."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mame_lib.errors import InputError
from mame_lib.teaching import stored as module
from mame_lib.teaching.stored import RESULTS, origin, stored, stored_images

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("path", sorted((ROOT / RESULTS).glob("*.json")), ids=lambda path: path.stem)
def test_every_stored_result_says_where_it_comes_from(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # the kernel of a chapter runs elsewhere
    line = origin(stored(path.stem))
    script = re.match(r"python benchmarks/(\w+)\.py\b", line)
    assert script and "202" in line and "\n" not in line
    source = (ROOT / "benchmarks" / f"{script[1]}.py").read_text(encoding="utf-8")
    assert path.stem == script[1] or path.stem in source, "the script does not name this file"


def test_outside_a_source_tree_the_current_folder_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "__file__", str(tmp_path / "site" / "mame_lib" / "teaching" / "stored.py"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="inside a copy of the repository"):
        stored("dreambooth")
    (tmp_path / RESULTS).mkdir(parents=True)
    (tmp_path / RESULTS / "dreambooth.json").write_text('{"a": 1}')
    (tmp_path / "book").mkdir()
    monkeypatch.chdir(tmp_path / "book")
    assert stored("dreambooth") == {"a": 1}
    (tmp_path / RESULTS / "dreambooth.json").write_text('{"a": ')
    with pytest.raises(InputError, match="damaged"):
        stored("dreambooth")


def test_images_of_a_sheet_come_row_by_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / RESULTS).mkdir(parents=True)
    levels = np.arange(6, dtype=np.uint8).reshape(2, 3)
    Image.fromarray(levels.repeat(8, 0).repeat(8, 1)).save(tmp_path / RESULTS / "a_sheet.png")
    monkeypatch.chdir(tmp_path)
    images = stored_images("a_sheet", side=8)
    assert [int(image[0, 0]) for image in images] == [0, 1, 2, 3, 4, 5] and images[0].shape == (8, 8)


@pytest.mark.parametrize("path", sorted((ROOT / RESULTS).glob("*.png")), ids=lambda path: path.stem)
def test_every_stored_picture_says_that_it_is_synthetic(path: Path) -> None:
    with Image.open(path) as picture:
        assert "not for diagnosis" in str(picture.info.get("Disclaimer", ""))
