"""Distances, precision and recall: equal to the reference implementations, right on cases with a known answer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from prdc import compute_prdc
from scipy.linalg import sqrtm
from torchmetrics.image.fid import _compute_fid
from torchmetrics.image.kid import poly_mmd

from mame_lib.errors import InputError
from mame_lib.evaluation import distances, fidelity, neighbors

F64 = NDArray[np.float64]


def clouds(n: int = 300, d: int = 16, seed: int = 0) -> tuple[F64, F64]:
    """Two sets of correlated features that differ in mean and spread."""
    rng = np.random.default_rng([seed, n, d])
    mix = rng.normal(size=(d, d)) / np.sqrt(d)
    return rng.normal(size=(n, d)) @ mix + 0.5, 1.2 * rng.normal(size=(n, d)) @ mix + 0.2 * rng.normal(size=d)


@pytest.mark.parametrize("d", [2, 16, 64])
def test_frechet_equals_torchmetrics_and_scipy(d: int) -> None:
    real, fake = clouds(300, d)
    said = [torch.as_tensor(part) for some in (real, fake) for part in (some.mean(0), np.cov(some, rowvar=False))]
    found = fidelity.frechet(real, fake)
    assert found == pytest.approx(float(_compute_fid(*said)), rel=1e-4)
    s1, s2 = np.cov(real, rowvar=False), np.cov(fake, rowvar=False)
    textbook = ((real.mean(0) - fake.mean(0)) ** 2).sum() + np.trace(s1 + s2 - 2 * np.real(sqrtm(s1 @ s2)))
    assert found == pytest.approx(textbook, rel=1e-6)


def test_frechet_of_gaussians_in_one_dimension_is_that_of_means_and_deviations() -> None:
    rng = np.random.default_rng(1)
    real, fake = rng.normal(size=(50, 1)), 3 * rng.normal(size=(60, 1)) + 2
    expected = (real.mean() - fake.mean()) ** 2 + (real.std(ddof=1) - fake.std(ddof=1)) ** 2
    assert fidelity.frechet(real, fake) == pytest.approx(expected, rel=1e-9)


def test_frechet_of_a_set_with_itself_is_nothing_whatever_its_rank() -> None:
    real, fake = clouds(100, 8)
    for some in (real, real @ np.diag([1, 1, 0, 0, 0, 0, 0, 0]), np.hstack([real, real])):
        assert abs(fidelity.frechet(some, some)) < 1e-6 * np.trace(np.cov(some, rowvar=False))
    doubled = fidelity.frechet(np.hstack([real, real]), np.hstack([fake, fake]))
    assert doubled == pytest.approx(2 * fidelity.frechet(real, fake), rel=1e-6)


def test_few_images_are_refused_with_their_numbers() -> None:
    real, fake = clouds(16, 16)
    with pytest.raises(InputError, match=r"16 features needs more than 16 images .* not 16"):
        fidelity.frechet(real, fake)
    assert fidelity.frechet(real, fake, few=True) > 0
    with pytest.raises(InputError, match="64 images in each set, not 16"):
        fidelity.frechet_extrapolated(real, fake, seed=0)
    with pytest.raises(InputError):
        fidelity.frechet(real[:1], fake[:1], few=True)


def test_kernel_distance_equals_torchmetrics() -> None:
    real, fake = clouds(120)
    expected = float(poly_mmd(torch.as_tensor(real), torch.as_tensor(fake)))
    assert fidelity.kernel_distance(real, fake).value == pytest.approx(expected, rel=1e-4)
    unequal = [fidelity.kernel_distance(real[:n], fake[:m]).value for n, m in ((90, 120), (120, 90))]
    assert unequal == pytest.approx([expected] * 2, rel=0.3)


def test_the_error_of_the_kernel_distance_is_that_of_leaving_out_each_image() -> None:
    real, fake = clouds(20, 4)
    rows = np.arange(20)
    variance = 0.0
    for left in (lambda k: (real[rows != k], fake), lambda k: (real, fake[rows != k])):
        values = np.array([fidelity.kernel_distance(*left(k)).value for k in rows])
        variance += 19 / 20 * ((values - values.mean()) ** 2).sum()
    assert fidelity.kernel_distance(real, fake).error == pytest.approx(np.sqrt(variance), rel=1e-9)


@pytest.mark.slow
def test_the_kernel_distance_is_unbiased_and_its_error_right() -> None:
    """Equal distributions, many sets: the mean is 0 within its error, and the stated error is the spread."""
    rng = np.random.default_rng(3)
    found = [fidelity.kernel_distance(rng.normal(size=(40, 4)), rng.normal(size=(40, 4)) + 0.3) for _ in range(200)]
    large = fidelity.kernel_distance(rng.normal(size=(1500, 4)), rng.normal(size=(1500, 4)) + 0.3)
    values = np.array([one.value for one in found])
    assert abs(values.mean() - large.value) < 3 * (values.std() / np.sqrt(200) + large.error)
    assert np.mean([one.error for one in found]) == pytest.approx(values.std(), rel=0.2)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    real, fake = clouds(70)
    whole = fidelity.kernel_distance(real, fake), fidelity.prdc(real, fake), fidelity.authenticity(real, fake)
    monkeypatch.setattr(distances, "BLOCK", 350)
    parts = fidelity.kernel_distance(real, fake), fidelity.prdc(real, fake), fidelity.authenticity(real, fake)
    assert parts[0].value == pytest.approx(whole[0].value, rel=1e-12) and parts[1:] == whole[1:]


def test_subsets_of_everything_are_refused() -> None:
    real, fake = clouds(60)
    some = fidelity.kernel_subsets(real, fake, subsets=50, size=30)
    assert some.std() > 0 and abs(some.mean() - fidelity.kernel_distance(real, fake).value) < some.std()
    assert np.array_equal(some, fidelity.kernel_subsets(real, fake, subsets=50, size=30))
    with pytest.raises(InputError, match="tell nothing"):
        fidelity.kernel_subsets(real, fake, size=60)


@pytest.mark.parametrize("k", [1, 5])
def test_prdc_equals_prdc(k: int, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in range(3):
        real, fake = clouds(150, 8, seed)
        expected = compute_prdc(real, fake[:120], nearest_k=k)
        found = fidelity.prdc(real, fake[:120], k)
        for name, value in expected.items():
            assert getattr(found, name) == pytest.approx(value, rel=1e-9), name


def test_prdc_of_sets_with_known_answers() -> None:
    rng = np.random.default_rng(0)
    real = rng.normal(size=(200, 4))
    far = fidelity.prdc(real, real + 100)
    assert (far.precision, far.recall, far.density, far.coverage) == (0, 0, 0, 0)
    same = fidelity.prdc(real, real)
    assert (same.precision, same.recall, same.coverage) == (1, 1, 1)
    once = fidelity.prdc(real, np.repeat(real[:10], 20, axis=0))  # their balls are points
    assert once.precision == 1 and once.recall == 0 and once.coverage < 0.5
    halves = fidelity.prdc(np.vstack([real, real + 100]), real)  # one of two modes is missing
    assert halves.precision == 1 and halves.recall == pytest.approx(0.5) and halves.coverage == pytest.approx(0.5)


def test_coverage_of_equal_distributions_is_what_combinatorics_say() -> None:
    """1 - (N - 1) … (N - k) / ((2N - 1) … (2N - k)), whatever the distribution (Naeem et al. 2020)."""
    n, k = 60, 5
    below = np.prod([(n - j) / (2 * n - j) for j in range(1, k + 1)])
    rng = np.random.default_rng(2)
    found = [fidelity.prdc(rng.normal(size=(n, 3)), rng.normal(size=(n, 3)), k).coverage for _ in range(200)]
    assert np.mean(found) == pytest.approx(1 - below, abs=3 * np.std(found) / np.sqrt(200))


def test_authenticity_knows_copies() -> None:
    rng = np.random.default_rng(4)
    real, new = rng.normal(size=(300, 6)), rng.normal(size=(300, 6))
    assert fidelity.authenticity(real, real) == 0
    assert fidelity.authenticity(real, new) == pytest.approx(0.5, abs=0.1)
    assert fidelity.authenticity(real, new + 50) == 1
    assert fidelity.authenticity(real, np.vstack([real[:150], new[:150]])) == pytest.approx(0.25, abs=0.1)


@pytest.mark.slow
def test_extrapolation_takes_the_bias_of_few_images_back() -> None:
    """Three pairs of distributions whose distance is known: off by its error, where 200 images alone are far off."""
    d, n = 12, 200
    for seed, (scale, shift) in enumerate([(1.0, 0.0), (1.0, 0.4), (0.7, 0.0)]):
        truth = d * (shift**2 + (1 - scale) ** 2)
        rng = np.random.default_rng(seed)
        found = [
            fidelity.frechet_extrapolated(rng.normal(size=(n, d)), scale * rng.normal(size=(n, d)) + shift, seed=k)
            for k in range(8)
        ]
        values = np.array([one.value for one in found])
        plain = np.array([one.values[0] for one in found])
        assert abs(values.mean() - truth) < 3 * values.std(ddof=1) / np.sqrt(8) + 0.02
        assert plain.mean() - truth > 0.2
        assert sum(one.low <= truth <= one.high for one in found) >= 7
        assert found[0].sizes == (200, 100, 66, 50) and list(found[0].values) == sorted(found[0].values)


def test_the_same_seed_gives_the_same_interval() -> None:
    real, fake = clouds(100, 8)
    one, again, other = (fidelity.frechet_extrapolated(real, fake, seed=seed) for seed in (1, 1, 2))
    assert one == again and one != other and one.low < one.value < one.high


def test_intervals_of_shares_hold_the_spread() -> None:
    """The stated interval is about as wide as twice the spread of many pairs of sets."""
    rng = np.random.default_rng(5)
    found, widths = [], []
    for k in range(40):
        real, fake = rng.normal(size=(100, 3)), 1.1 * rng.normal(size=(100, 3)) + 0.5
        found.append(fidelity.prdc(real, fake).coverage)
        if k < 10:
            low, high = fidelity.prdc_intervals(real, fake, seed=k)["coverage"]
            widths.append((high - low) / 2)
            assert low <= found[-1] <= high
    assert 0.7 < np.mean(widths) / (1.96 * np.std(found)) < 2
    perfect = fidelity.prdc_intervals(real, real, seed=0)
    assert perfect["recall"][1] == 1 and 0.9 < perfect["recall"][0] < 1


def test_compare_gives_everything_and_prints_it() -> None:
    rng = np.random.default_rng(6)
    images = rng.integers(0, 256, (2, 90, 8, 8), dtype=np.uint8)

    def corner(some: NDArray[np.uint8]) -> NDArray[np.float32]:
        return some[:, :2, :3].reshape(len(some), 6).astype(np.float32) / 255

    found = fidelity.compare(*images, corner, seed=3)
    assert (found.features, found.dimensions, found.real, found.fake) == ("corner", 6, 90, 90)
    assert found.frechet == fidelity.frechet(corner(images[0]), corner(images[1]))
    assert found.extrapolated is not None and found.as_json()["prdc"].keys() == found.intervals.keys()
    assert "corner (6 features)" in str(found) and "coverage" in str(found)
    few = fidelity.compare(images[0][:22], images[1][:22], lambda some: some.reshape(len(some), -1)[:, :25])
    assert few.frechet is None and few.extrapolated is None and "Fréchet" not in str(few)


@pytest.mark.parametrize(
    ("real", "fake"),
    [
        (np.zeros((9, 3)), np.zeros((9, 4))), (np.zeros(9), np.zeros((9, 1))), (np.zeros((0, 3)), np.zeros((9, 3))),
        (np.full((9, 3), np.nan), np.zeros((9, 3))), (np.zeros((9, 3)), np.full((9, 3), np.inf)),
    ],
)  # fmt: skip
def test_what_are_no_features(real: F64, fake: F64) -> None:
    for measure in (fidelity.frechet, fidelity.kernel_distance, fidelity.prdc, fidelity.authenticity):
        with pytest.raises(InputError):
            measure(real, fake)


def test_too_few_neighbors() -> None:
    real, fake = clouds(5, 2)
    with pytest.raises(InputError, match="more than 5 images"):
        fidelity.prdc(real, fake)
    with pytest.raises(InputError, match="20 images in each set, not 12"):
        fidelity.prdc_intervals(*clouds(12, 2), seed=0)
    with pytest.raises(InputError):
        fidelity.authenticity(real[:1], fake)
    with pytest.raises(InputError, match="3 or more"):
        fidelity.kernel_distance(real[:2], fake)
    assert neighbors.radii(np.array([[0.0], [1.0], [3.0]]), 1).tolist() == [1, 1, 2]
