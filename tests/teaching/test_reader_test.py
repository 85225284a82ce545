"""The test on a page of the book, before its script runs: a first image, the scale, and no truth in plain sight."""

from __future__ import annotations

import base64
import io
import json
import re
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mame_lib.evaluation.froc import Interval
from mame_lib.evaluation.readers.ratings import SCALE
from mame_lib.teaching.reader_test import reader_test

REAL, SYNTHETIC = (np.random.default_rng(k).integers(0, 256, (6, 16, 16)).astype(np.uint8) for k in range(2))


def parts(text: str) -> tuple[dict[str, Any], list[np.ndarray], list[int]]:
    """What lies in the page: its data, the images, and the truth, decoded as the script does."""
    found = re.search(r'<script type="application/json">(.*?)</script>', text, flags=re.S)
    assert found
    data = json.loads(found[1])
    images = []
    for source in data["images"]:
        with Image.open(io.BytesIO(base64.b64decode(source.split(",")[1]))) as picture:
            images.append(np.asarray(picture.convert("L")))
    return data, images, [byte & 1 for byte in base64.b64decode(data["key"])]


def test_images_without_loss_each_with_its_truth() -> None:
    _, images, truth = parts(reader_test(REAL, SYNTHETIC, seed=1).text)
    assert sum(truth) == 6 and truth != sorted(truth)
    for image, kind in zip(images, truth, strict=True):
        assert any(np.array_equal(image, one) for one in (SYNTHETIC if kind else REAL))
    assert len({image.tobytes() for image in images}) == 12


def test_the_seed_decides_the_order() -> None:
    texts = [reader_test(REAL, SYNTHETIC, seed=seed).text for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_the_first_frame_needs_no_script_and_tells_nothing() -> None:
    shown = reader_test(REAL, SYNTHETIC, seed=1, compare=("The reader of the paper", Interval(0.49, 0.34, 0.64)))
    data, _, _ = parts(shown.text)
    visible = re.sub(r"<(script|style).*?</\1>", "", shown.text, flags=re.S)
    assert data["images"][0] in visible and all(words in visible for words in SCALE)
    assert "not for diagnosis" in visible and "12 images to rate" in visible
    assert visible.count("disabled") == 7  # until the script is there, no button promises anything
    assert data["compare"] == "The reader of the paper: 0.49, 0.34 to 0.64."
    assert not re.search(r"https?://|url\(", shown.text) and "12 images" in repr(shown)


@pytest.mark.parametrize(
    "real, synthetic", [(REAL[:1], SYNTHETIC), (REAL[:, :8], SYNTHETIC), (REAL / 255, SYNTHETIC), ([], [])]
)
def test_what_will_not_do(real: Any, synthetic: Any) -> None:
    with pytest.raises(ValueError, match="reader test"):
        reader_test(real, synthetic, seed=1)
