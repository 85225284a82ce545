"""Attribute readers against the phantom's truth, on phantoms that no reader was fitted on."""

from __future__ import annotations

import time

import numpy as np
import pytest
from scipy.stats import spearmanr

from mame_lib.data.case import Attributes
from mame_lib.data.masks import breast_mask
from mame_lib.data.phantom import Phantom, draw, population
from mame_lib.errors import InputError
from mame_lib.evaluation import attributes as readers
from mame_lib.evaluation.attributes import Measured, fit, measure


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


@pytest.fixture(scope="module", params=[64, 128])
def read(request: pytest.FixtureRequest) -> list[tuple[Phantom, Measured]]:
    return [(p, measure(p.image)) for p in population(100, size=request.param, seed=31)]


def _share(read: list[tuple[Phantom, Measured]], name: str) -> float:
    return float(np.mean([getattr(p.attributes, name) == getattr(m, name) for p, m in read]))


def _rank_correlation(read: list[tuple[Phantom, Measured]]) -> float:
    """Spearman correlation of the density index with the true glandular fraction."""
    return float(spearmanr([p.glandular_fraction for p, _ in read], [m.density_index for _, m in read])[0])


def test_mask_and_area(read: list[tuple[Phantom, Measured]]) -> None:
    overlaps = [_overlap(p.mask, m.mask) for p, m in read]
    assert np.mean(overlaps) >= 0.98 and np.quantile(overlaps, 0.02) >= 0.95
    assert max(abs(p.area_ratio - m.area_ratio) for p, m in read) < 0.02
    assert _share(read, "area") >= 0.99


def test_view_vendor_laterality(read: list[tuple[Phantom, Measured]]) -> None:
    assert _share(read, "view") >= 0.97
    assert _share(read, "vendor") >= 0.97
    assert _share(read, "laterality") == 1.0


def test_density(read: list[tuple[Phantom, Measured]]) -> None:
    assert _rank_correlation(read) >= 0.9
    assert _share(read, "density") >= 0.8


def test_larger_images_read_alike() -> None:
    read = [(p, measure(p.image)) for p in population(12, size=256, seed=32)]
    large = draw(size=512, seed=32, index=0)
    read.append((large, measure(large.image)))
    for name in ("area", "view", "vendor", "laterality"):
        assert _share(read, name) == 1.0
    assert min(_overlap(p.mask, m.mask) for p, m in read) >= 0.95
    assert _share(read, "density") >= 0.75


def test_mirror_reads_the_same() -> None:
    for index in range(6):
        left = draw(size=128, seed=33, index=index)
        a, b = measure(left.image), measure(left.image[:, ::-1])
        assert (a.laterality, b.laterality) == ("L", "R")
        assert np.array_equal(a.mask[:, ::-1], b.mask)
        assert (a.view_score, a.density_index, a.vendor) == (b.view_score, b.density_index, b.vendor)


@pytest.mark.parametrize(("level", "sigma"), [(0, 3), (12, 0), (30, 0), (20, 4)])
def test_gray_or_noisy_background(level: int, sigma: float) -> None:
    """Background as failed samples have it: the mask must not swallow it.

    At level 30 the darkest fat is as dark as the background, so that some of the breast is truly lost.
    """
    rng = np.random.default_rng(0)
    agree = []
    for phantom in population(12, size=128, seed=34):
        spoiled = np.maximum(phantom.image, level) + sigma * rng.standard_normal(phantom.image.shape)
        found = measure(np.clip(np.rint(spoiled), 0, 255).astype(np.uint8))
        overlap = _overlap(phantom.mask, found.mask)
        assert overlap > 0.8
        agree.append((overlap, found.area == phantom.attributes.area, found.view == phantom.attributes.view))
    overlaps, area, view = np.mean(agree, axis=0)
    assert overlaps >= 0.92 and area >= 0.9 and view >= 0.9


def test_marker_outside_is_not_breast() -> None:
    phantom = draw(Attributes(view="CC", area="small"), size=128, seed=35)
    image = phantom.image.copy()
    image[6:14, 110:122] = 255
    found = measure(image)
    assert _overlap(phantom.mask, found.mask) > 0.95 and found.area == "small"


def test_fit_on_few_phantoms_generalizes() -> None:
    """The stored tables come from `fit()`; a smaller fit of the same kind must already do the job."""
    fitted = fit(160, sizes=(64, 128), seed=77)
    held_out = [(p, measure(p.image, fitted)) for p in population(100, size=64, seed=78)]
    assert _share(held_out, "view") >= 0.97
    assert _share(held_out, "vendor") >= 0.97
    assert _rank_correlation(held_out) >= 0.85


def test_every_feature_has_a_name_and_a_weight() -> None:
    for model, names in (
        (readers.READERS.view, readers.SHAPE_FEATURES),
        (readers.READERS.vendor, readers.TONE_FEATURES),
        (readers.READERS.density["hologic"], readers.TONE_FEATURES),
        (readers.READERS.density["siemens"], readers.TONE_FEATURES),
    ):
        assert len(model.center) == len(model.weight) == len(names)


@pytest.mark.parametrize("value", [0, 3, 90, 255])
def test_flat_image_is_read_without_error(value: int) -> None:
    found = measure(np.full((64, 64), value, np.uint8))
    assert 0 <= found.area_ratio <= 1 and 0 <= found.density_index <= 1


def test_noise_is_read_without_error() -> None:
    for seed in range(5):
        image = np.random.default_rng(seed).integers(0, 256, (96, 96), dtype=np.uint8)
        found = measure(image)
        assert found.mask.shape == (96, 96) and 0 <= found.view_score <= 1
    assert not breast_mask(np.zeros((64, 64), np.uint8)).any()


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((64, 32), np.uint8),
        np.zeros((64, 64), float),
        np.zeros((3, 64, 64), np.uint8),
        np.zeros((8, 8), np.uint8),
    ],
)
def test_bad_input_is_explained(image: np.ndarray) -> None:
    with pytest.raises(InputError, match="square uint8"):
        measure(image)


def test_fast_enough_for_populations() -> None:
    image = draw(size=128, seed=1).image
    measure(image)
    times = []
    for _ in range(9):
        start = time.perf_counter()
        measure(image)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.03  # 6 ms on an idle core; the best of nine forgives a busy machine
