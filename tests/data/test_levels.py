"""Pictures and masks as they are stored, and one sentence for each that can't be used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mame_lib.data.case import Attributes
from mame_lib.data.dicom_export import save_dicom
from mame_lib.data.levels import mask_of_box, read_bytes, read_levels, read_mask, white_of
from mame_lib.data.phantom import draw
from mame_lib.data.places import PAPER_AREA, PAPER_ASPECT, place_box, sample_box
from mame_lib.errors import InputError

GRAY = draw(size=64, seed=1).image
SHAPE = (64, 64)


def box_mask(x0: int = 10, y0: int = 20, x1: int = 20, y1: int = 28) -> np.ndarray:
    mask = np.zeros(SHAPE, np.uint8)
    mask[y0:y1, x0:x1] = 255
    return mask


def test_bytes_are_the_same_whether_8_or_16_bits_are_stored(tmp_path: Path) -> None:
    for name, values in {"a.png": GRAY, "b.png": GRAY.astype(np.uint16) * 257, "c.tif": GRAY}.items():
        Image.fromarray(values).save(tmp_path / name)
        found = read_bytes(tmp_path / name)
        assert found.dtype == np.uint8
        assert np.abs(found.astype(int) - GRAY).max() <= 1


def test_levels_come_back_as_they_are_stored(tmp_path: Path) -> None:
    deep = GRAY.astype(np.uint16) * 257
    for name, values in {"a.png": GRAY, "b.png": deep, "c.tif": deep}.items():
        Image.fromarray(values).save(tmp_path / name)
        read = read_levels(tmp_path / name)
        assert read.dtype == values.dtype and np.array_equal(read, values)
    Image.fromarray(np.repeat(GRAY[..., None], 3, axis=2)).save(tmp_path / "d.png")  # gray in color
    assert np.array_equal(read_levels(str(tmp_path / "d.png")), GRAY)
    assert np.array_equal(read_levels(Image.fromarray(GRAY)), GRAY)
    assert read_levels(GRAY) is GRAY


def test_dicom_gives_its_picture_in_16_bits(tmp_path: Path) -> None:
    pytest.importorskip("pydicom")
    path = save_dicom(tmp_path / "a.dcm", GRAY / 255.0, attributes=Attributes("hologic", "CC", laterality="L"),
                      spacing_mm=0.5, bits=12)  # fmt: skip
    levels = read_levels(path)
    assert levels.dtype == np.uint16 and np.abs(levels / 65535 - GRAY / 255).max() < 1 / 2000


def test_white_is_the_end_of_the_range_in_use() -> None:
    assert white_of(GRAY) == 255
    tops = {200: 255, 1000: 1023, 4000: 4095, 16000: 16383, 60000: 65535}
    assert {top: white_of(np.array([[top]], np.uint16)) for top in tops} == tops


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (GRAY / 255.0, "type float64"),
        (GRAY.astype(np.int16), "type int16"),
        (np.stack([GRAY] * 3), "shape"),
        (GRAY[:20], "64 x 20 pixels"),
        (Image.merge("RGB", [Image.fromarray(np.roll(GRAY, k, 0)) for k in range(3)]), "colors"),
        (Image.fromarray(GRAY).convert("RGBA").rotate(45), "transparent"),
    ],
)
def test_images_that_cannot_be_used(image: object, reason: str) -> None:
    with pytest.raises(InputError, match=reason) as caught:
        read_levels(image)  # type: ignore[arg-type]
    assert str(caught.value).count(".") <= 2 and "\n" not in str(caught.value)


def test_masks_of_every_kind_mean_the_same(tmp_path: Path) -> None:
    white, wanted = box_mask(), box_mask() > 0
    Image.fromarray(white).save(tmp_path / "mask.png")
    Image.fromarray(white).save(tmp_path / "mask.jpg", quality=95)
    Image.fromarray(wanted).save(tmp_path / "one-bit.png")
    forms = [white, wanted, white // 255, white.astype(np.uint16) * 257, wanted.astype(float), Image.fromarray(white),
             Image.fromarray(white).convert("RGB"), Image.fromarray(white).convert("P")]  # fmt: skip
    for form in [*forms, tmp_path / "mask.png", tmp_path / "mask.jpg", tmp_path / "one-bit.png"]:
        assert np.array_equal(read_mask(form, SHAPE), wanted)
    assert np.array_equal(mask_of_box((10, 20, 20, 28), SHAPE), wanted)


@pytest.mark.parametrize(
    ("mask", "reason"),
    [
        (np.zeros(SHAPE, np.uint8), "empty"),
        (np.full(SHAPE, 255, np.uint8), "covers 100 % of the image"),
        (255 - box_mask(), "invert it"),
        (np.zeros((32, 64), np.uint8), "64 x 32 pixels, but the image 64 x 64"),
        (Image.fromarray(box_mask()).convert("RGBA").rotate(45), "transparent"),
        (np.stack([box_mask()] * 4, axis=2), "shape"),
        (Image.merge("RGB", [Image.fromarray(np.roll(box_mask(), k, 0)) for k in range(3)]), "colors"),
    ],
)
def test_masks_that_cannot_be_used(mask: object, reason: str) -> None:
    with pytest.raises(InputError, match=reason) as caught:
        read_mask(mask, SHAPE)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        ((10, 20, 10, 28), "does not lie in the image"),
        ((20, 20, 10, 28), "does not lie in the image"),
        ((-1, 20, 10, 28), "does not lie in the image"),
        ((10, 20, 65, 28), "does not lie in the image"),
        ((1.5, 2, 3, 4), "four whole numbers"),
        ((1, 2, 3), "four whole numbers"),
        ((0, 0, 64, 64), "covers 100 %"),
    ],
)
def test_boxes_that_cannot_be_used(box: tuple[float, ...], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        mask_of_box(box, SHAPE)


def test_a_damaged_mask_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "mask.png").write_bytes(b"not a picture")
    with pytest.raises(InputError, match=r"mask\.png: the mask cannot be read"):
        read_mask(tmp_path / "mask.png", SHAPE)


def test_sampled_boxes_have_the_papers_sizes_and_are_equally_likely_anywhere() -> None:
    free = np.zeros((128, 128), bool)
    free[20:100, 5:60] = True
    rng = np.random.default_rng(4)
    boxes = np.array([sample_box(free, rng) for _ in range(600)])
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    assert boxes[:, 0].min() >= 5 and boxes[:, 1].min() >= 20 and boxes[:, 2].max() <= 60 and boxes[:, 3].max() <= 100
    share = width * height / free.size
    assert PAPER_AREA[0] * 0.8 < share.min() and share.max() < PAPER_AREA[1] * 1.2
    assert PAPER_ASPECT[0] * 0.8 < (height / width).min() and (height / width).max() < PAPER_ASPECT[1] * 1.3
    small = np.array([place_box(free, 5, 5, rng)[:2] for _ in range(4000)])  # type: ignore[index]
    assert abs(small[:, 0].mean() - (5 + 55) / 2) < 1 and abs(small[:, 1].mean() - (20 + 95) / 2) < 1.5


def test_a_box_that_fits_nowhere_ends_in_a_sentence() -> None:
    free = np.zeros((128, 128), bool)
    free[60:62, :] = True
    with pytest.raises(InputError, match="none of 100 boxes"):
        sample_box(free, np.random.default_rng(0))
    assert place_box(free, 4, 3, np.random.default_rng(0)) is None
