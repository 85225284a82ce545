"""Figures show the gray levels that were computed: nothing is stretched, smoothed or framed in."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from mame_lib.teaching.figures import GROUND, as_gray, axes, curve, image_grid, strip


def test_every_pixel_of_a_grid_keeps_its_gray_level() -> None:
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (64, 64), dtype=np.uint8) for _ in range(3)]
    figure = image_grid(pictures, ["a", "b", "c"], columns=3, scale=2)
    drawn = np.asarray(Image.open(io.BytesIO(figure.png())).convert("L"))
    for index, picture in enumerate(pictures):
        x = 6 + index * (128 + 6)
        y = 6 + 18
        assert np.array_equal(drawn[y : y + 128 : 2, x : x + 128 : 2], picture)
        assert np.array_equal(drawn[y + 1 : y + 128 : 2, x + 1 : x + 128 : 2], picture)


def test_a_flat_image_is_not_stretched() -> None:
    drawn = np.asarray(Image.open(io.BytesIO(image_grid([np.full((32, 32), 100, np.uint8)]).png())).convert("L"))
    assert {100, int(GROUND[3:5], 16)} <= {int(v) for v in np.unique(drawn)} | {int(GROUND[3:5], 16)}
    assert (drawn == 100).sum() == (32 * 4) ** 2


def test_a_long_strip_wraps_into_equal_rows() -> None:
    figure = strip([np.zeros((128, 128), np.uint8)] * 8)
    width, height = (round(v * 100) for v in figure.get_size_inches())
    assert width <= 680
    assert height == 6 + 2 * (128 + 6)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (np.array([[True, False]]), [[255, 0]]),
        (np.array([[0.0, 1.0]]), [[0, 255]]),
        (np.array([[-1.0, 1.0]]), [[0, 255]]),
        (np.array([[-3.0, 9.0]]), [[0, 255]]),
        (np.array([[[7, 8]]], dtype=np.uint8), [[7, 8]]),
    ],
)
def test_as_gray(image: np.ndarray, expected: list[list[int]]) -> None:
    assert as_gray(image).tolist() == expected


def test_images_must_be_of_one_size() -> None:
    with pytest.raises(ValueError, match="one size"):
        image_grid([np.zeros((2, 2), np.uint8), np.zeros((3, 3), np.uint8)])


def test_curves_name_their_axes() -> None:
    _, ax = axes()
    curve(ax, [0, 1], [1, 2], "line", xlabel="t", ylabel="SNR")
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("t", "SNR")
