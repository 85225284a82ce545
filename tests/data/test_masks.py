"""The breast's outline on phantoms: exact when they are clean, near when they are damaged, never the marker."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest

from mame_lib.data.case import Attributes
from mame_lib.data.masks import breast_mask, chest_wall_side, foreground
from mame_lib.data.phantom import Phantom, draw, population
from mame_lib.evaluation import degradations
from mame_lib.generation import Mame


@lru_cache(maxsize=4)
def phantoms(size: int = 128, count: int = 24) -> tuple[Phantom, ...]:
    return tuple(population(count, size=size, seed=35))


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


def compare(images: list[np.ndarray], drawn: tuple[Phantom, ...]) -> tuple[float, float]:
    """Mean error of the area ratio and least overlap."""
    found = [breast_mask(image) for image in images]
    errors = [abs(mask.mean() - p.area_ratio) for mask, p in zip(found, drawn, strict=True)]
    return float(np.mean(errors)), min(overlap(mask, p.mask) for mask, p in zip(found, drawn, strict=True))


@pytest.mark.parametrize(("size", "count"), [(64, 24), (128, 24), (320, 4), (512, 4)])
def test_clean_phantoms(size: int, count: int) -> None:
    drawn = phantoms(size, count)
    error, least = compare([p.image for p in drawn], drawn)
    assert error < 0.005 and least > 0.95


@pytest.mark.parametrize("quality", [40, 75])
def test_jpeg(quality: int) -> None:
    error, least = compare([degradations.jpeg(p.image, quality) for p in phantoms()], phantoms())
    assert error < 0.008 and least > 0.93


@pytest.mark.parametrize("sd", [2, 5, 9])
def test_noise(sd: float) -> None:
    rng = np.random.default_rng(0)
    error, least = compare([degradations.noisy(p.image, sd, rng) for p in phantoms()], phantoms())
    assert error < 0.008 and least > 0.93


@pytest.mark.parametrize(("level", "sd"), [(10, 0), (10, 3), (20, 0), (20, 3), (30, 0), (45, 3), (60, 0), (60, 3)])
def test_gray_background(level: int, sd: float) -> None:
    """The background is gray, the breast as it was: partly darker than its surroundings."""
    rng = np.random.default_rng(level)
    images = [degradations.noisy(np.where(p.mask, p.image, np.uint8(level)), sd, rng) for p in phantoms()]
    error, least = compare(images, phantoms())
    assert error < 0.02 and least > 0.85


def test_autoencoder() -> None:
    drawn = phantoms()[:8]
    back = degradations.round_trip(np.stack([p.image for p in drawn]), Mame.load("tiny").components.vae)
    error, least = compare(list(back), drawn)
    assert error < 0.015 and least > 0.93


def test_marker_is_not_breast() -> None:
    rng = np.random.default_rng(3)
    for phantom in phantoms():
        marked = degradations.with_marker(phantom.image, rng)
        assert overlap(breast_mask(marked), phantom.mask) > 0.95
        label = (marked != phantom.image) & ~phantom.mask
        assert not (breast_mask(marked) & label).sum() > 0.1 * label.sum()


def test_either_side_and_padded_on_both() -> None:
    for phantom in phantoms()[:6]:
        mask = breast_mask(phantom.image)
        assert chest_wall_side(mask) == "L"
        mirrored = breast_mask(phantom.image[:, ::-1])
        assert np.array_equal(mirrored[:, ::-1], mask) and chest_wall_side(mirrored) == "R"
    phantom = draw(Attributes(area="small", view="CC"), size=128, seed=36)
    for image, side in ((phantom.image, "L"), (phantom.image[:, ::-1], "R")):
        shifted = np.roll(image, 24 if side == "L" else -24, axis=1)
        mask = breast_mask(shifted)
        assert chest_wall_side(mask) == side and abs(mask.mean() - phantom.area_ratio) < 0.015


def test_dark_gaps_and_notches_are_breast() -> None:
    phantom = draw(Attributes(area="big", view="CC", density="low"), size=128, seed=37)
    image = phantom.image.copy()
    image[60:66, :80] = 0  # a fold from the chest wall inward
    image[40:52, 30:40] = 0
    assert overlap(breast_mask(image), phantom.mask) > 0.97


def test_higher_thresholds_find_less() -> None:
    for phantom in phantoms()[:4]:
        blurry = degradations.blurred(phantom.image, 2.0)
        sizes = [int(breast_mask(blurry, sensitivity=s).sum()) for s in (0.5, 1.0, 2.0)]
        assert sizes[0] >= sizes[1] >= sizes[2] and sizes[0] > sizes[2]


def test_foreground_keeps_what_is_not_breast() -> None:
    image = np.zeros((128, 128), np.uint8)
    image[30:100, :50] = 90
    image[5:15, 110:122] = 200
    found, height = foreground(image)
    assert found[10, 115] and found[60, 20] and not found[120, 100]
    assert np.array_equal(found, height > 0) and np.abs(height).max() <= 1
    assert not breast_mask(image)[10, 115]


@pytest.mark.parametrize("size", [32, 33, 128, 300, 513])
@pytest.mark.parametrize("value", [0, 3, 90, 255])
def test_nothing_in_an_even_image(size: int, value: int) -> None:
    mask = breast_mask(np.full((size, size), value, np.uint8))
    assert mask.shape == (size, size) and mask.dtype == bool and not mask.any()


def test_noise_alone_gives_a_mask_of_the_right_kind() -> None:
    for seed in range(4):
        mask = breast_mask(np.random.default_rng(seed).integers(0, 256, (96, 96), dtype=np.uint8))
        assert mask.shape == (96, 96) and mask.dtype == bool
