"""A stepper holds every picture without loss, says its sentence, and shows its first picture without a script."""

from __future__ import annotations

import base64
import io
import json
import re
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mame_lib.teaching.figures import axes, image_grid
from mame_lib.teaching.stepper import stepper

FRAMES = np.random.default_rng(0).integers(0, 256, (2, 3, 16, 16), dtype=np.uint8)


def data_of(text: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json">(.*?)</script>', text, flags=re.S)
    assert found
    return dict(json.loads(found[1]))


def pixels(address: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.split(",")[1]))))


def test_every_picture_is_in_the_page_without_loss_in_the_order_of_the_sliders() -> None:
    shown = stepper(
        lambda i, j: FRAMES[i, j], lambda i, j: f"row {i} <{j}>", noise_level=["low", "high"], t=["0", "5", "9"]
    )
    data = data_of(shown._repr_html_())
    assert data["labels"] == [["low", "high"], ["0", "5", "9"]]
    assert data["words"][4] == "row 1 <1>"  # "<" can't end the script element early
    for n, address in enumerate(data["pictures"]):
        gray = pixels(address)
        assert (gray[..., 0] if gray.ndim == 3 else gray).tolist() == FRAMES[n // 3, n % 3].tolist()


def test_without_a_script_the_first_picture_and_its_sentence_are_shown() -> None:
    text = stepper(lambda i: FRAMES[0, i], lambda i: f'picture "{i}"', noise_level=["0", "5", "9"])._repr_html_()
    assert f'<img src="{data_of(text)["pictures"][0]}" alt="picture &quot;0&quot;"' in text
    assert 'aria-live="polite">picture &quot;0&quot;<' in text
    assert 'aria-label="noise level"' in text and 'max="2"' in text


def test_figures_and_colors_are_taken_too() -> None:
    figure, axis = axes()
    axis.plot([0, 1])
    color = np.zeros((8, 8, 3), np.uint8)
    color[..., 0] = 200
    pictures = [figure, image_grid([FRAMES[0, 0]]), color]
    found = data_of(stepper(lambda i: pictures[i], str, n=["a", "b", "c"])._repr_html_())["pictures"]
    assert found[0].startswith("data:image/svg+xml") and found[1].startswith("data:image/webp")
    assert pixels(found[2])[0, 0].tolist() == [200, 0, 0]


@pytest.mark.parametrize(
    ("controls", "words", "message"),
    [({}, "x", "at least one control"), ({"t": []}, "x", "at least one label"), ({"t": ["0"]}, " ", "blind reader")],
)
def test_what_cannot_be_shown_is_told(controls: dict[str, list[str]], words: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        stepper(lambda *i: FRAMES[0, 0], lambda *i: words, **controls)
