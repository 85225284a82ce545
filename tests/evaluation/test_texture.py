"""Texture measures: right on pictures whose answer is known, and phantoms within the ranges of real mammograms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from mame_lib.data.case import VENDORS, VIEWS, Attributes
from mame_lib.data.geometry import face_left, left_gap
from mame_lib.data.masks import breast_mask
from mame_lib.data.phantom import draw
from mame_lib.data.texture import Stream, power_law_field
from mame_lib.errors import InputError
from mame_lib.evaluation import texture

REAL = Path(__file__).resolve().parents[3] / "shared" / "mammograms" / "cdd_cesm" / "images"
WHOLE = np.ones((256, 256), bool)


@pytest.mark.parametrize("beta", [2.0, 3.0])
def test_exponent_of_a_field_that_has_one(beta: float) -> None:
    found = [
        texture.power_law_exponent(power_law_field(Stream(1, k), 1, 256, beta) * 20 + 90, WHOLE) for k in range(6)
    ]
    assert np.mean(found) == pytest.approx(beta, abs=0.25)  # the window leaks a little upward


def test_exponent_of_white_noise_is_zero_and_needs_a_region() -> None:
    noise = np.random.default_rng(0).normal(100, 10, (256, 256))
    assert texture.power_law_exponent(noise, WHOLE) == pytest.approx(0.0, abs=0.1)
    thin = np.zeros_like(WHOLE)
    thin[:, :40] = True  # narrower than a region of 64 px
    assert np.isnan(texture.power_law_exponent(noise, thin))


def test_gray_scale_changes_neither_exponent_nor_coherence() -> None:
    phantom = draw(size=256, seed=2, index=1)
    gray = phantom.image.astype(float)
    for measure in (texture.power_law_exponent, texture.coherence):
        assert measure(0.5 * gray + 30, phantom.mask) == pytest.approx(measure(gray, phantom.mask), abs=1e-3)


def test_coherence_tells_strands_from_clouds() -> None:
    x = np.arange(256)
    stripes = np.tile(100 + 40 * np.sin(2 * np.pi * x / 12), (256, 1))
    assert texture.coherence(stripes, WHOLE) > 0.99
    clouds = [texture.coherence(power_law_field(Stream(2, k), 1, 256, 3.0), WHOLE) for k in range(4)]
    combed = [
        texture.coherence(ndimage.uniform_filter1d(power_law_field(Stream(2, k), 1, 256, 3.0), 25, axis=0), WHOLE)
        for k in range(4)
    ]
    assert max(clouds) < 0.45 < 0.6 < min(combed)


@pytest.mark.parametrize("sigma", [2.0, 6.0])
def test_noise_is_read_to_five_percent(sigma: float) -> None:
    y, x = np.mgrid[0:256, 0:256] / 256
    smooth = 90 + 60 * x + 30 * np.sin(4 * y)
    noisy = smooth + np.random.default_rng(1).normal(0, sigma, smooth.shape)
    assert texture.haar_noise(noisy, WHOLE) == pytest.approx(sigma, rel=0.05)
    assert texture.haar_noise(smooth, WHOLE) < 0.1
    assert texture.local_sd(noisy - smooth, WHOLE) == pytest.approx(sigma, rel=0.05)


def test_edge_profile_reads_gray_by_depth() -> None:
    """A half disk of radius 200 whose gray is 40 + depth: r % of its width is 2 r pixels deep."""
    y, x = np.mgrid[0:512, 0:512]
    radius = np.hypot(x, y - 256)
    mask = radius < 200
    found = texture.edge_profile(np.where(mask, 40 + (200 - radius), 0), mask)
    expected = [40 + 2.0 * share for share in texture.EDGE_AT]
    assert np.allclose(found, expected, atol=1.6)


def test_brightness_is_of_the_breast_alone() -> None:
    image = np.zeros((64, 64), np.uint8)
    mask = np.zeros((64, 64), bool)
    mask[:, :10] = True
    image[:, :10] = np.linspace(50, 150, 640).reshape(64, 10).round()
    found = texture.brightness(image, mask)
    assert found["mean"] == pytest.approx(100, abs=0.5) and found["p50"] == pytest.approx(100, abs=1)
    assert found["p05"] == pytest.approx(55, abs=1) and found["p95"] == pytest.approx(145, abs=1)
    assert found["sd"] == pytest.approx(100 / np.sqrt(12), abs=0.3)


def test_a_mirrored_image_has_the_same_texture() -> None:
    phantom = draw(size=256, seed=3, index=2)
    here = texture.profile(phantom.image, phantom.mask)
    there = texture.profile(phantom.image[:, ::-1], phantom.mask[:, ::-1])
    for name, value in here.items():
        assert there[name] == pytest.approx(value, rel=0.02, abs=0.5, nan_ok=True), name


# Spans of 8 CDD-CESM files and 2 full-field files of another collection, measured by the same code at 512 px,
# around the medians of 326 CDD-CESM files (edge: 7, 53, 63, 63, 63 and 100 at 0, 1, 2, 5, 10 and 40 %).
SPANS = {
    "p05": (2, 38), "p50": (48, 112), "p95": (128, 203), "haar_noise": (1.4, 4.5),
    "edge_0": (0, 32), "edge_1": (46, 118), "edge_2": (42, 155), "edge_5": (33, 86), "edge_10": (30, 96),
    "edge_40": (47, 140),
}  # fmt: skip


@pytest.mark.slow
def test_phantoms_lie_within_the_ranges_of_real_mammograms() -> None:
    kinds = [(vendor, view) for vendor in VENDORS for view in VIEWS] * 4
    rows = []
    for index, (vendor, view) in enumerate(kinds):
        phantom = draw(Attributes(vendor=vendor, view=view), size=512, seed=77, index=index, priors="paper")
        rows.append(texture.profile(phantom.image, breast_mask(phantom.image)))
    for name, (low, high) in {**texture.REAL_RANGES, **SPANS}.items():
        values = np.array([row[name] for row in rows])
        assert low <= np.nanmean(values) <= high, name
        assert np.nanmean((values >= low) & (values <= high)) >= 0.75, name
    beta = np.array([row["beta"] for row in rows])
    assert ((beta[np.isfinite(beta)] > 1.5) & (beta[np.isfinite(beta)] < 3.5)).all()  # the published range
    assert np.mean([row["coherence"] for row in rows]) == pytest.approx(0.473, abs=0.035)


@pytest.mark.skipif(not REAL.is_dir(), reason="the real mammograms are not here")
def test_real_files_give_the_published_figures() -> None:
    rows = []
    for path in sorted(REAL.glob("*.jpg"))[:5]:
        image, _ = face_left(np.asarray(Image.open(path).convert("L")))
        image = np.pad(image[:, left_gap(image) :], ((0, 0), (0, left_gap(image))))
        rows.append(texture.profile(image, breast_mask(image)))
    assert np.mean([row["beta"] for row in rows]) == pytest.approx(3.04, abs=0.26)
    assert np.mean([row["coherence"] for row in rows]) == pytest.approx(0.473, abs=0.035)
    assert np.mean([row["mean"] for row in rows]) == pytest.approx(75.7, abs=14.5)
    assert np.mean([row["local_sd"] for row in rows]) == pytest.approx(14.7, abs=5)


@pytest.mark.parametrize(
    ("image", "mask", "fragment"),
    [
        (np.zeros((64, 32), np.uint8), np.ones((64, 32), bool), "square"),
        (np.zeros((64, 64), np.uint8), np.ones((32, 32), bool), "its size"),
        (np.zeros((64, 64), np.uint8), np.zeros((64, 64), bool), "breast pixels"),
        (np.zeros((64, 64), np.uint8), np.ones((64, 64), np.uint8), "bool mask"),
    ],
)
def test_bad_input_is_explained(image: np.ndarray, mask: np.ndarray, fragment: str) -> None:
    for measure in (texture.power_law_exponent, texture.coherence, texture.edge_profile, texture.brightness):
        with pytest.raises(InputError, match=fragment):
            measure(image, mask)
