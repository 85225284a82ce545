"""Features without a network: what they are on images with known answers, and what they notice."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
from numpy.typing import NDArray

from mame_lib.data.phantom import draw
from mame_lib.errors import InputError
from mame_lib.evaluation import degradations, fidelity
from mame_lib.evaluation.radiomics import FLOORS, NAMES, _occurrence, radiomics

Gray = NDArray[np.uint8]


@lru_cache(maxsize=1)
def phantoms() -> Gray:
    return np.stack([draw(seed=42_950_000, index=k).image for k in range(8)])


@lru_cache(maxsize=1)
def clean() -> NDArray[np.float32]:
    return radiomics(phantoms())


def column(name: str, values: NDArray[np.float32]) -> NDArray[np.float32]:
    return values[:, NAMES.index(name)]


def test_there_are_about_forty_with_a_smallest_spread_each() -> None:
    assert 40 <= len(NAMES) == len(set(NAMES)) <= 50 and all(floor > 0 for floor in FLOORS.values())
    assert clean().shape == (8, len(NAMES)) and clean().dtype == np.float32 and np.isfinite(clean()).all()


def test_they_are_the_same_from_either_side_but_for_the_side() -> None:
    mirrored = radiomics(phantoms()[:2, :, ::-1])
    away = np.abs(mirrored - clean()[:2]).max(0)
    assert away[NAMES.index("side")] == 2 and np.delete(away, NAMES.index("side")).max() < 1e-6


def test_a_half_disk_has_the_shape_of_one() -> None:
    row, column_ = np.mgrid[:128, :128]
    disk = np.where(np.hypot(row - 63.5, column_) < 50, 120, 0).astype(np.uint8)
    found = dict(zip(NAMES, radiomics(disk[None])[0], strict=True))
    assert found["area_ratio"] == pytest.approx(np.pi * 50**2 / 2 / 128**2, rel=0.05)
    assert found["nipple_row"] == pytest.approx(0.5, abs=0.05) and found["symmetry"] > 0.95
    assert found["height"] == pytest.approx(100 / 128, abs=0.04) and found["width"] == pytest.approx(50 / 128, abs=0.04)
    assert found["side"] == 1 and found["background"] == 0 and found["p50"] == 120


def test_cooccurrence_by_hand() -> None:
    """A checkerboard of two levels: neighbors across differ always, diagonal ones never."""
    board = (np.indices((64, 64)).sum(0) % 2 * 16).astype(np.uint8)
    found = _occurrence(board, np.ones((64, 64), bool), 1)
    edges, corners = 2 * 64 * 63, 2 * 63**2
    differ = edges / (edges + corners)
    assert found["glcm_contrast_1"] == pytest.approx(differ)
    assert found["glcm_homogeneity_1"] == pytest.approx(1 - differ / 2)
    assert found["glcm_correlation_1"] == pytest.approx(1 - 2 * differ, abs=1e-3)
    steps = np.repeat(np.arange(0, 64, 8, dtype=np.uint8) ** 2 // 16, 8)[None].repeat(64, 0)  # brighter to the right
    all_, turned = np.ones((64, 64), bool), np.ascontiguousarray(steps[::-1, ::-1])
    assert _occurrence(steps, all_, 3) == pytest.approx(_occurrence(turned, all_, 3)), "pairs count both ways"
    assert np.isnan(_occurrence(board, np.zeros((64, 64), bool), 1)["glcm_contrast_1"])


def test_each_damage_is_seen_by_the_feature_that_is_named_after_it() -> None:
    rng, images = np.random.default_rng(0), phantoms()[:4]
    spoiled = {
        "haar_noise": (1, [degradations.noisy(one, 6, rng) for one in images]),
        "band_1": (-1, [degradations.blurred(one, 1.5) for one in images]),
        "background": (1, [np.maximum(one, 20) for one in images]),
        "blocks": (1, [degradations.jpeg(one, 8) for one in images]),
        "mean": (-1, [(0.7 * one).astype(np.uint8) for one in images]),
    }
    for name, (sign, some) in spoiled.items():
        away = column(name, radiomics(np.stack(some))) - column(name, clean()[:4])
        assert (sign * away > 3 * FLOORS[name]).all(), (name, away)


def test_z_scores_are_those_of_the_reference_alone() -> None:
    real, fake = clean(), clean()[:4] + 10
    first, second = radiomics.standardized(real, fake)
    constant = real.std(0) < [FLOORS[name] for name in NAMES]
    assert np.abs(first.mean(0)).max() < 1e-6 and first.std(0)[~constant] == pytest.approx(1, abs=1e-4)
    assert np.isfinite(second).all() and first.shape == real.shape and second.shape == fake.shape
    again, _ = radiomics.standardized(real, 100 * fake)
    assert np.array_equal(first, again), "the fakes have no say in the scale"
    dull = radiomics.standardized(real, real + [FLOORS[name] for name in NAMES])[1] - first
    assert dull[:, constant] == pytest.approx(1, rel=1e-4)


def test_the_strangest_features_are_named() -> None:
    gray = radiomics(np.maximum(phantoms(), 12))
    named = dict(radiomics.strangest(clean(), gray))
    assert "background" in named and named["background"] == pytest.approx(24) and len(named) == 5


@pytest.mark.slow
def test_compare_standardizes_by_itself() -> None:
    rng = np.random.default_rng(1)
    several = np.stack([degradations.noisy(one, 2, rng) for one in np.tile(phantoms()[:3], (8, 1, 1))])
    found = fidelity.compare(several, several, radiomics)
    raw = radiomics(several)
    first, second = radiomics.standardized(raw, raw)
    assert found.features == "radiomics" and found.kernel == fidelity.kernel_distance(first, second)


def test_an_empty_image_has_features_too() -> None:
    assert np.array_equal(radiomics(np.zeros((1, 64, 64), np.uint8)), np.zeros((1, len(NAMES)), np.float32))


@pytest.mark.parametrize(
    "wrong", [np.zeros((1, 32, 32), np.uint8), np.zeros((1, 64, 65), np.uint8), np.zeros((1, 64, 64)), []]
)
def test_images_that_have_no_radiomics(wrong: object) -> None:
    with pytest.raises(InputError):
        radiomics(wrong)
