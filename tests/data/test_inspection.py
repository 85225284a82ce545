"""What `mame inspect` says and draws."""

import numpy as np
import pytest
from PIL import Image

from mame_lib.data.case import Attributes
from mame_lib.data.inspection import LESION, contact_sheet, summary, table_1
from mame_lib.data.manifest import Item, write
from mame_lib.errors import InputError


@pytest.fixture
def data(tmp_path):
    y, x = np.mgrid[0:64, 0:64]
    breast = np.hypot(x, y - 32) < 28
    lesion = np.hypot(x - 10, y - 32) < 5
    items = [
        Item(
            np.where(breast, 120, 0).astype(np.uint8),
            f"p{k // 2}",
            "a mammogram",
            Attributes(vendor, view, "small", finding="lesion" if ill else None),
            "folder",
            mask=breast,
            lesion=lesion if ill else None,
            split=split,
        )
        for k, (vendor, view, ill, split) in enumerate(
            [
                ("hologic", "CC", False, "train"),
                ("hologic", "MLO", True, "train"),
                ("siemens", "CC", False, "test"),
                (None, None, False, "train"),
            ]
        )
    ]
    return write(tmp_path / "data", items, source="folder", settings={})


def test_table_1_of_the_paper(data):
    rows = [line.split() for line in table_1(data).splitlines()]
    assert rows[0] == ["images", "hologic", "siemens", "other", "total"]
    assert rows[1:] == [["no", "lesion", "1", "1", "1", "3"], ["lesion", "1", "0", "0", "1"],
                        ["total", "2", "1", "1", "4"]]  # fmt: skip


def test_summary_counts_attributes_by_split(data):
    data.info["quarantined"] = [{"id": "a", "reason": "it is broken"}] * 2
    text = summary(data)
    assert "4 images of 2 patients (4 folder)" in text
    assert [line.split() for line in text.splitlines() if line.startswith("CC")] == [["CC", "1", "1", "2"]]
    assert "2 files refused" in text and "2  it is broken" in text


def test_contact_sheet(data, tmp_path):
    sheet = np.asarray(Image.open(contact_sheet(data, tmp_path / "sheet.png", count=3)))
    assert sheet.shape[2] == 3 and sheet.shape[1] < 3 * 140 + 10
    assert (sheet == LESION).all(axis=2).sum() > 20 or contact_sheet(data, tmp_path / "all.png")
    everything = np.asarray(Image.open(contact_sheet(data, tmp_path / "all.png")))
    assert (everything == LESION).all(axis=2).sum() > 20
    with pytest.raises(InputError, match=r"\.png"):
        contact_sheet(data, tmp_path / "sheet.jpg")
