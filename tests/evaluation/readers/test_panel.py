"""Several readers: the mean's error against a published example and simulation, and the simulated panels themselves."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mame_lib.errors import InputError
from mame_lib.evaluation.readers import panel, roc


def test_the_example_of_van_dyke() -> None:
    """Published: areas of five readers and the covariance of two of them (OR-DBM MRMC 2.51, spin-echo MRI of Van Dyke
    et al., Radiology 189 (1993) 159, jackknifed errors). The interval is recomputed from Hillis's formula, as the
    R packages RJafroc and MRMCaov do; they print an error of 0.0331736."""
    areas = [0.91964573, 0.85877617, 0.90386473, 0.97310789, 0.82979066]
    found = panel.combine(areas, shared=0.00048396, error=0.00101410)
    assert found.value == pytest.approx(0.89703704, abs=1e-8)
    assert found.se == pytest.approx(0.0331736, abs=1e-7)
    ms = np.var(areas, ddof=1)
    assert found.df == pytest.approx((ms + 5 * 0.00048396) ** 2 / (ms**2 / 4), rel=1e-12)
    assert found.low < 0.8970 - 2 * found.se < 0.8970 + 2 * found.se < found.high


def test_the_components_are_delongs() -> None:
    one = panel.ReaderModel(auc=0.65, reader_sd=0.05).simulate(4, 30, 35, seed=1)
    areas, matrix = roc.covariances(one.scores, one.synthetic)
    found = panel.mean_auc(one.scores, one.synthetic)
    assert found.value == pytest.approx(areas.mean()) and found.error == pytest.approx(np.diag(matrix).mean())
    assert found.shared == pytest.approx((matrix.sum() - np.trace(matrix)) / 12)
    assert found.se == pytest.approx(math.sqrt(areas.var(ddof=1) / 4 + found.shared))
    narrow = found.interval(0.9)
    assert found.low < narrow[0] < found.value < narrow[1] < found.high


def test_a_negative_covariance_counts_as_none() -> None:
    found = panel.combine([0.5, 0.6, 0.7], shared=-1e-4, error=0.001)
    assert found.se == pytest.approx(0.1 / math.sqrt(3)) and found.df == pytest.approx(2)


def test_readers_without_any_scatter_have_the_error_of_their_cases() -> None:
    found = panel.combine([0.6, 0.6], shared=4e-4, error=5e-4)
    assert found.se == pytest.approx(0.02) and found.df > 1e5 and found.reader_sd == 0
    assert found.high == pytest.approx(0.6 + 1.96 * 0.02, abs=1e-4)


def test_a_panel_has_the_skill_that_was_asked_for() -> None:
    model = panel.ReaderModel(auc=0.5, reader_sd=0.05)
    many = model.simulate(4000, 2, 2, seed=0)
    assert many.true_aucs.mean() == pytest.approx(0.5, abs=0.003)
    assert many.true_aucs.std() == pytest.approx(0.05 * 0.96, abs=0.004)  # five ratings see a little less
    assert model.truth() == 0.5
    assert 0.68 < panel.ReaderModel(auc=0.7).truth() < 0.7


def test_true_areas_are_those_of_many_cases() -> None:
    one = panel.ReaderModel(auc=0.7, reader_sd=0.08, hardness=0.4).simulate(3, 30_000, 30_000, seed=3)
    assert roc.covariances(one.scores, one.synthetic)[0] == pytest.approx(one.true_aucs, abs=0.012)
    assert set(np.unique(one.ratings)) == set(range(5))


def test_the_shared_luck_of_cases_shows_in_the_covariance() -> None:
    def correlation(hardness: float) -> float:
        found = [panel.ReaderModel(hardness=hardness).simulate(2, 60, 60, seed=seed) for seed in range(30)]
        parts = [panel.mean_auc(one.scores, one.synthetic) for one in found]
        return float(np.mean([p.shared for p in parts]) / np.mean([p.error for p in parts]))

    assert abs(correlation(0.0)) < 0.05 < 0.5 < correlation(0.8)


def test_same_seed_same_panel() -> None:
    model = panel.ReaderModel(auc=0.6, reader_sd=0.1)
    first, again, other = (model.simulate(3, 8, 9, seed=seed) for seed in (5, 5, 6))
    assert (first.ratings == again.ratings).all() and (first.ratings != other.ratings).any()
    assert first.synthetic.sum() == 8 and len(first.synthetic) == 17


def test_bad_panels_get_a_sentence() -> None:
    with pytest.raises(InputError, match="one reader"):
        panel.mean_auc(np.array([[0, 1, 2, 3.0]]), [0, 1, 0, 1])
    with pytest.raises(InputError, match="0 < auc < 1"):
        panel.ReaderModel(auc=1.0)
    with pytest.raises(InputError, match="one case or more"):
        panel.ReaderModel().simulate(2, 0, 5, seed=0)
