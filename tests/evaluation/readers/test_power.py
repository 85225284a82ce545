"""Planning and equivalence: against the numbers that everybody quotes, and against simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import ndtri

from mame_lib.errors import InputError
from mame_lib.evaluation.readers import panel, power, reconstruction, roc


def test_the_paper_can_tell_neither() -> None:
    ratings, synthetic = reconstruction.fig_17()
    assert (len(ratings), synthetic.sum()) == (53, 25)
    found = roc.delong(4 - ratings, synthetic)
    assert found.value == 343 / 700 == reconstruction.PRINTED_AUC
    assert round(roc.hanley_mcneil(found.value, 25, 28).se, 3) == 0.080
    said = power.equivalence(found.value, found.se)
    assert said.verdict == power.UNKNOWN and said.p > 0.2 and said.shows > 0.13
    points = roc.operating_points(4 - ratings, synthetic)  # the corners read off the printed curve
    assert points.false_positive[1:].round(4).tolist() == [0.0357, 0.4643, 0.5714, 0.8214, 1]
    assert points.true_positive[1:].round(4).tolist() == [0, 0.44, 0.48, 0.92, 1]
    assert ratings[~synthetic].mean().round(2) == 2.11 and ratings[synthetic].mean().round(2) == 2.16


def test_half_widths_are_the_known_ones() -> None:
    for each, half in ((50, 0.114), (100, 0.080), (200, 0.057), (400, 0.040)):
        assert round(power.Design(each).half_width, 3) == pytest.approx(half, abs=1e-9)
    assert power.for_half_width(0.057) in range(190, 202)


def test_about_570_images_show_equality() -> None:
    formula = (ndtri(0.95) + ndtri(0.9)) ** 2 / (6 * 0.05**2)
    assert power.for_equivalence(0.05) == pytest.approx(formula, abs=2) == pytest.approx(571, abs=2)
    assert power.Design(power.for_equivalence(0.05)).equivalence_power(0.05) >= 0.8
    assert power.Design(power.for_equivalence(0.05) - 1).equivalence_power(0.05) < 0.8


@pytest.mark.slow
def test_equality_is_shown_as_often_as_planned_and_never_too_often() -> None:
    """Continuous scores of a reader who guesses, and of one on the edge of the margin, by normal draws."""
    rng = np.random.default_rng(0)
    each = power.for_equivalence(0.05)
    synthetic = np.arange(2 * each) < each
    for auc, planned in ((0.5, 0.8), (0.55, 0.05)):
        hits = 0
        for _ in range(300):
            found = roc.delong(rng.normal(size=2 * each) + synthetic * math.sqrt(2) * ndtri(auc), synthetic)
            hits += power.equivalence(found.value, found.se).verdict in (power.EQUAL, power.SLIGHT)
        assert hits / 300 == pytest.approx(planned, abs=0.07 if planned > 0.5 else 0.035)


def test_the_two_tests_are_the_ninety_percent_interval() -> None:
    rng = np.random.default_rng(1)
    for value, se, df in zip(rng.normal(0.5, 0.04, 200), rng.uniform(0.005, 0.04, 200), rng.integers(2, 60, 200),
                             strict=True):  # fmt: skip
        one = power.equivalence(value, se, df=float(df))
        inside = one.low > 0.45 and one.high < 0.55
        assert inside == (one.p < 0.05) == (one.verdict in (power.EQUAL, power.SLIGHT)) == (one.shows < 0.05)


@pytest.mark.parametrize(
    ("narrow", "wide", "said"),
    [
        ((0.47, 0.53), (0.46, 0.54), power.EQUAL), ((0.51, 0.54), (0.505, 0.545), power.SLIGHT),
        ((0.6, 0.7), (0.59, 0.71), power.DIFFERENT), ((0.4, 0.6), (0.38, 0.62), power.UNKNOWN),
        ((0.51, 0.56), (0.495, 0.57), power.UNKNOWN), ((0.3, 0.4), (0.29, 0.41), power.DIFFERENT),
    ],
)  # fmt: skip
def test_the_verdict_of_two_intervals(narrow: tuple, wide: tuple, said: str) -> None:
    assert power.verdict(narrow, wide) == said and said in power.VERDICTS


def test_more_readers_help_until_the_cases_are_what_is_left() -> None:
    alone = power.for_equivalence()
    assert power.for_equivalence(readers=10, correlation=0.0) < alone / 5
    assert power.for_equivalence(readers=10, correlation=0.3) > 0.3 * alone
    with pytest.raises(InputError, match="ask more readers"):
        power.for_equivalence(readers=5, reader_sd=0.06)


@pytest.mark.slow
def test_a_planned_panel_has_the_error_that_panels_have() -> None:
    design = power.Design(60, readers=5, reader_sd=0.05, correlation=0.3)
    model = panel.ReaderModel(reader_sd=0.05, hardness=0.3)
    panels = (model.simulate(5, 60, 60, seed=seed) for seed in range(150))
    found = [panel.mean_auc(one.scores, one.synthetic).value for one in panels]
    assert np.std(found) == pytest.approx(design.se, rel=0.15)


def test_a_difference_takes_more_images_the_smaller_it_is() -> None:
    sizes = [power.for_difference(auc) for auc in (0.55, 0.6, 0.7, 0.8)]
    assert sizes == sorted(sizes, reverse=True)
    assert power.Design(sizes[1], auc=0.6).power() >= 0.8 > power.Design(sizes[1] - 1, auc=0.6).power()


def test_bad_plans_get_a_sentence() -> None:
    with pytest.raises(InputError, match="above 0"):
        power.equivalence(0.5, 0.0)
    with pytest.raises(InputError, match="a case and a reader or more"):
        power.Design(0)
    with pytest.raises(InputError, match="can't be had"):
        power.for_half_width(0.01, readers=3, reader_sd=0.1)
