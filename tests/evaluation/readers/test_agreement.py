"""Kappa and alpha: against scikit-learn, published examples, and a bootstrap for the error."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from mame_lib.errors import InputError
from mame_lib.evaluation.readers import agreement

# Krippendorff, Computing Krippendorff's Alpha-Reliability (2011), data C and D: four observers, twelve units, NaN
# where one did not judge. Printed: nominal .743, ordinal .815, interval .849.
N = np.nan
ALPHA = np.array([[1, 2, 3, 3, 2, 1, 4, 1, 2, N, N, N], [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, N, 3],
                  [N, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, N], [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, N]]) - 1  # fmt: skip


def two(seed: int, n: int = 60) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    first = rng.integers(0, 5, n)
    return first, np.clip(first + rng.integers(-2, 3, n), 0, 4)


@pytest.mark.parametrize("weights", agreement.WEIGHTS)
@pytest.mark.parametrize("seed", range(3))
def test_kappa_is_that_of_scikit_learn(weights: str, seed: int) -> None:
    first, second = two(seed)
    theirs = cohen_kappa_score(first, second, labels=range(5), weights=None if weights == "none" else weights)
    assert agreement.kappa(first, second, weights).value == pytest.approx(theirs, rel=1e-10)


@pytest.mark.parametrize("weights", agreement.WEIGHTS)
def test_the_error_of_kappa_is_about_that_of_a_bootstrap(weights: str) -> None:
    first, second = two(7, 200)
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(400):
        rows = rng.integers(200, size=200)
        drawn.append(agreement.kappa(first[rows], second[rows], weights).value)
    assert agreement.kappa(first, second, weights).se == pytest.approx(np.std(drawn), rel=0.12)


def test_the_ends_of_kappa() -> None:
    same = agreement.kappa([0, 1, 4, 2], [0, 1, 4, 2])
    assert (same.value, same.se, same.observed) == (1, 0, 1)
    assert agreement.kappa([0, 4, 0, 4], [4, 0, 4, 0]).value == -1
    assert math.isnan(agreement.kappa([2, 2, 2], [2, 2, 2]).value)
    assert agreement.again([(0, 0), (4, 4), (2, 2)]).value == 1


@pytest.mark.parametrize(("scale", "value"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_alpha_is_the_published_one(scale: str, value: float) -> None:
    assert round(agreement.krippendorff(ALPHA, scale), 3) == value


def test_alpha_of_two_is_near_kappa_and_of_noise_near_zero() -> None:
    first, second = two(3, 400)
    alpha = agreement.krippendorff(np.stack([first, second]), "interval")
    assert alpha == pytest.approx(agreement.kappa(first, second).value, abs=0.01)
    noise = np.random.default_rng(1).integers(0, 5, (4, 500))
    assert abs(agreement.krippendorff(noise)) < 0.05
    assert math.isnan(agreement.krippendorff(np.full((2, 3), 2.0)))


def test_mean_kappa_takes_the_pairs_that_exist() -> None:
    first, second = two(4)
    third = np.full(60, np.nan)
    third[:1] = 2
    value = agreement.mean_kappa(np.stack([first, second, third]))
    assert value == pytest.approx(agreement.kappa(first, second).value)
    assert math.isnan(agreement.mean_kappa(np.stack([third, third])))


def test_bad_ratings_get_a_sentence() -> None:
    with pytest.raises(InputError, match="two ratings of each case"):
        agreement.kappa([1, 2], [1])
    with pytest.raises(InputError, match="from 0 to 4"):
        agreement.kappa([1, 5], [1, 2])
    with pytest.raises(InputError, match="choose none, linear, quadratic"):
        agreement.kappa([1], [1], "cubic")
    with pytest.raises(InputError, match="two readers have rated"):
        agreement.krippendorff(np.array([[1, N], [N, 1]]))
    with pytest.raises(InputError, match="nominal, ordinal or interval"):
        agreement.krippendorff(ALPHA, "ratio")
    with pytest.raises(InputError, match="NaN"):
        agreement.krippendorff(np.array([[1, 7], [0, 1]]))
