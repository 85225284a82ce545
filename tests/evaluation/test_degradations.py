"""Each mishap does what its name says, keeps shape and type, and leaves its input alone."""

from __future__ import annotations

import numpy as np
import pytest

from mame_lib.data.case import Attributes
from mame_lib.data.phantom import Phantom, draw
from mame_lib.evaluation import degradations
from mame_lib.generation import Mame


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return draw(Attributes(view="CC", area="small"), size=128, seed=41)


def test_jpeg_and_blur_lose_detail(phantom: Phantom) -> None:
    image = phantom.image.astype(float)
    coarse, fine = (np.abs(degradations.jpeg(phantom.image, q) - image).mean() for q in (20, 90))
    assert coarse > 2 * fine > 0
    blurred = degradations.blurred(phantom.image, 2.0)
    assert blurred.std() < image.std() and abs(blurred.mean() - image.mean()) < 1


def test_noise_has_its_standard_deviation(phantom: Phantom) -> None:
    level = np.full((128, 128), 100, np.uint8)
    spoiled = degradations.noisy(level, 6, np.random.default_rng(0))
    assert spoiled.std() == pytest.approx(6, rel=0.05) and spoiled.mean() == pytest.approx(100, abs=0.3)
    again = degradations.noisy(level, 6, np.random.default_rng(0))
    assert np.array_equal(spoiled, again)


def test_gray_background_leaves_the_breast(phantom: Phantom) -> None:
    spoiled = degradations.gray_background(phantom.image, phantom.mask, 25)
    assert np.array_equal(spoiled[phantom.mask], phantom.image[phantom.mask])
    assert spoiled[~phantom.mask].min() == 25


@pytest.mark.parametrize("mirrored", [False, True])
def test_marker_lies_in_air_far_from_the_chest_wall(phantom: Phantom, mirrored: bool) -> None:
    image = phantom.image[:, ::-1] if mirrored else phantom.image
    before = image.copy()
    changed = degradations.with_marker(image, np.random.default_rng(1)) != image
    columns = np.flatnonzero(changed.any(0))
    assert changed.sum() > 40 and image[changed].max() < 5 and np.array_equal(image, before)
    assert columns.max() < 64 if mirrored else columns.min() > 64


def test_round_trip_is_near_and_seeded(phantom: Phantom) -> None:
    vae = Mame.load("tiny").components.vae
    images = np.stack([phantom.image, phantom.image[::-1]])
    back = degradations.round_trip(images, vae)
    assert back.shape == images.shape and back.dtype == np.uint8
    assert 0 < np.abs(back.astype(float) - images).mean() < 12
    once, twice = (degradations.round_trip(images, vae, latent_noise=0.3, seed=5) for _ in range(2))
    assert np.array_equal(once, twice)
    off = [np.abs(x.astype(float) - images).mean() for x in (back, once)]
    assert off[1] > off[0]
