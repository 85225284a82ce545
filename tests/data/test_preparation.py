"""One case of a source becomes one stored image: geometry, lesions, words, and no patient."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from mame_lib.data.case import Attributes
from mame_lib.data.manifest import Item
from mame_lib.data.preparation import Options, case_id, prepare_case
from mame_lib.data.prompts import LESION_PROMPT
from mame_lib.data.sources.base import Quarantined, SourceCase
from mame_lib.errors import InputError

OPTIONS = Options(salt=b"test", size=128)


def breast(height=320, width=240, right=False):
    y, x = np.mgrid[0:height, 0:width]
    radius = np.hypot((y - height / 2) / (height / 2.05), x / (width / 1.4))
    picture = np.where(radius < 1, (1.2 - radius) / 1.2 * 220, 0).astype(np.uint8)
    return np.ascontiguousarray(picture[:, ::-1]) if right else picture


def case_of(folder, pixels=None, name="case.png", **fields):
    path = folder / name
    Image.fromarray(breast() if pixels is None else pixels).save(path)
    return SourceCase(name, path, **fields)


def prepared(case, options=OPTIONS):
    item = prepare_case(case, options, "folder")
    assert isinstance(item, Item), item
    return item


def reason(case, options=OPTIONS):
    refused = prepare_case(case, options, "folder")
    assert isinstance(refused, Quarantined) and refused.key == case.key
    return refused.reason


def test_a_healthy_case(tmp_path):
    said = Attributes("siemens", "CC", density="high", laterality="R")
    item = prepared(case_of(tmp_path, breast(right=True), patient="Doe", attributes=said, split="test"))
    assert item.image.shape == (128, 128) and item.image.dtype == np.uint8 and item.image[64, 1] > 150
    assert item.attributes == dataclasses.replace(said, area=item.attributes.area) and item.split == "test"
    assert item.prompt == "a siemens mammogram in CC view with high density"
    assert item.truth["flipped"] == 1 and item.truth["gap"] == 0 and item.lesion is None and item.boxes == ()
    assert item.truth["area_ratio"] == pytest.approx(item.mask.mean())
    assert 0.85 < item.truth["tissue_kept"] < 1


def test_pseudonyms(tmp_path):
    case = case_of(tmp_path, patient="Doe^Jane")
    item, other = prepared(case), prepared(case, Options(salt=b"other", size=128))
    assert len(item.patient) == len(item.id) == 16 and item.id == case_id(case.key, b"test")
    assert item.patient != other.patient and item.id != other.id and item.patient != item.id
    assert "Doe" not in repr(dataclasses.replace(item, image=None, mask=None))


@pytest.mark.parametrize("right", [False, True])
@pytest.mark.parametrize("fit", ["crop", "pad"])
def test_all_boxes_and_masks_of_an_image_are_merged(tmp_path, right, fit):
    mask = np.zeros((320, 240), np.uint8)
    mask[140:180, 60:90], mask[200:202, 30:32] = 255, 255  # a lesion, and a speck of compression
    Image.fromarray(mask[:, ::-1] if right else mask).save(tmp_path / "mask.png")
    box = (100.0, 100.0, 120.0, 130.0)
    boxes = ((240 - box[2], box[1], 240 - box[0], box[3]),) if right else (box,)
    case = case_of(tmp_path, breast(right=right), boxes=boxes, masks=(tmp_path / "mask.png",))
    item = prepared(case, dataclasses.replace(OPTIONS, fit=fit))
    assert len(item.boxes) == 2 and item.kept == (1.0, 1.0) and item.attributes.finding == "lesion"
    assert item.prompt == LESION_PROMPT
    frame = np.zeros((128, 128), bool)
    for x0, y0, x1, y1 in item.boxes:
        frame[y0:y1, x0:x1] = True
    assert (item.lesion ^ frame).mean() < 0.005
    scale = 128 / (240 if fit == "crop" else 320)
    assert item.lesion.sum() == pytest.approx((20 * 30 + 30 * 40) * scale**2, rel=0.15)
    assert item.image[item.lesion].min() > 0


def test_a_box_that_the_crop_cuts_and_one_that_it_loses(tmp_path):
    boxes = ((20.0, 30.0, 60.0, 50.0), (20.0, 2.0, 60.0, 22.0), (50.0, 100.0, 90.0, 150.0))
    item = prepared(case_of(tmp_path, boxes=boxes))  # rows 40 to 280 remain
    assert item.kept == pytest.approx((0.5, 1.0), abs=0.03) and item.boxes[0][1] == 0
    assert item.dropped == ("lesion 2 of 3: the frame keeps 0% of its box",)
    lost = case_of(tmp_path, boxes=boxes[1:2])
    assert "lost in the frame" in reason(lost) and "--fit pad" in reason(lost)
    padded = prepared(lost, dataclasses.replace(OPTIONS, fit="pad"))
    assert padded.kept == (1.0,) and padded.lesion.any() and not padded.dropped


def test_a_lesion_smaller_than_a_pixel_still_has_a_mask(tmp_path):
    mask = np.zeros((2400, 1800), np.uint8)
    mask[1000:1004, 501:505] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    item = prepared(case_of(tmp_path, breast(2400, 1800), masks=(tmp_path / "mask.png",)))
    assert item.lesion.sum() == 1


def test_a_mask_of_another_size_and_one_of_another_shape(tmp_path):
    mask = np.zeros((160, 120), np.uint8)
    mask[70:90, 30:45] = 255
    Image.fromarray(mask).save(tmp_path / "half.png")
    item = prepared(case_of(tmp_path, masks=(tmp_path / "half.png",)))
    assert item.lesion.sum() == pytest.approx(40 * 30 * (128 / 240) ** 2, rel=0.15)
    Image.fromarray(mask.T.copy()).save(tmp_path / "turned.png")
    assert "of another shape" in reason(case_of(tmp_path, masks=(tmp_path / "turned.png",)))


def test_boxes_of_another_image_are_refused(tmp_path):
    case = case_of(tmp_path, boxes=((1.0, 1.0, 9.0, 9.0),), shape=(3518, 2800))
    assert reason(case) == "it is 240 x 320 pixels, but its annotations belong to 2800 x 3518"
    assert prepared(case_of(tmp_path, boxes=((50.0, 100.0, 90.0, 150.0),), shape=(320, 240))).lesion is not None


@pytest.mark.parametrize(
    "pixels, words",
    [
        (breast(60, 40), "the shorter side must have 64"),
        (np.full((200, 200), 7, np.uint8), "the same gray"),
    ],
)
def test_reasons(tmp_path, pixels, words):
    assert words in reason(case_of(tmp_path, pixels))


def test_reasons_name_no_file(tmp_path):
    broken = tmp_path / "Doe^Jane.png"
    broken.write_bytes(b"no picture")
    missing = SourceCase("x", tmp_path / "Doe.dcm")
    masked = case_of(tmp_path, masks=(tmp_path / "Doe_mask.png",))
    for case in (SourceCase("Doe^Jane.png", broken), missing, masked):
        assert "Doe" not in reason(case) and str(tmp_path) not in reason(case)


@pytest.mark.parametrize(
    "fields, words",
    [({"size": 100}, "multiple of 8"), ({"size": 2048}, "1024"), ({"fit": "x"}, "fit"), ({"keep": 2}, "keep")],
)
def test_options_are_checked(fields, words):
    with pytest.raises(InputError, match=words):
        Options(salt=b"", **fields)


def test_the_salt_is_not_recorded():
    options = Options(salt=b"a secret word")
    assert "secret" not in repr(options) and "salt" not in options.settings()
    assert options.settings()["salt_fingerprint"] != Options(salt=b"another").settings()["salt_fingerprint"]
