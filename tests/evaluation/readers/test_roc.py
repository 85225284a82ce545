"""AUC, DeLong and intervals: against pairs counted one by one, scikit-learn, and published worked examples."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import beta
from sklearn.metrics import roc_auc_score, roc_curve

from mame_lib.errors import InputError
from mame_lib.evaluation.readers import roc

# Hanley and McNeil, Radiology 143 (1982) 29, Table I: CT images rated 1 (definitely normal) to 5 by one reader.
CT_NORMAL, CT_ABNORMAL = (33, 6, 6, 11, 2), (3, 2, 2, 11, 33)
# The example of DeLong, DeLong and Clarke-Pearson, as the SAS/STAT User's Guide prints it (PROC LOGISTIC, "Comparing
# Receiver Operating Characteristic Curves"): albumin, total protein, K-G score, outcome of 43 patients.
OVARIAN = """
3.0 5.8 10 0  3.2 6.3 5 1  3.9 6.8 3 1  2.8 4.8 6 0  3.2 5.8 3 1  0.9 4.0 5 0  2.5 5.7 8 0  1.6 5.6 5 1  3.8 5.7 5 1
3.7 6.7 6 1  3.2 5.4 4 1  3.8 6.6 6 1  4.1 6.6 5 1  3.6 5.7 5 1  4.3 7.0 4 1  3.6 6.7 4 0  2.3 4.4 6 1  4.2 7.6 4 0
4.0 6.6 6 0  3.5 5.8 6 1  3.8 6.8 7 1  3.0 4.7 8 0  4.5 7.4 5 1  3.7 7.4 5 1  3.1 6.6 6 1  4.1 8.2 6 1  4.3 7.0 5 1
4.3 6.5 4 1  3.2 5.1 5 1  2.6 4.7 6 1  3.3 6.8 6 0  1.7 4.0 7 0  3.7 6.1 5 1  3.3 6.3 7 1  4.2 7.7 6 1  3.5 6.2 5 1
2.9 5.7 9 0  2.1 4.8 7 1  2.8 6.2 8 0  4.0 7.0 7 1  3.3 5.7 6 1  3.7 6.9 5 1  3.6 6.6 5 1
"""


def ordinal(n: int, m: int, seed: int, gain: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    positive = rng.permutation(np.arange(n + m) < n)
    return np.clip(np.round(rng.normal(2 + gain * positive, 1.2)), 0, 4), positive


def by_pairs(scores: np.ndarray, positive: np.ndarray) -> tuple[float, list[float], list[float]]:
    """AUC and structural components, pair by pair."""
    def psi(s: float, t: float) -> float:
        return 1.0 if s > t else 0.5 if s == t else 0.0

    yes, no = scores[positive].tolist(), scores[~positive].tolist()
    v = [sum(psi(s, t) for t in no) / len(no) for s in yes]
    w = [sum(psi(s, t) for s in yes) / len(yes) for t in no]
    return sum(v) / len(v), v, w


@pytest.mark.parametrize("seed", range(6))
def test_delong_is_that_of_all_pairs(seed: int) -> None:
    scores, positive = ordinal(17 + seed, 23, seed)
    area, v, w = by_pairs(scores, positive)
    found = roc.delong(scores, positive)
    assert found.value == pytest.approx(area, rel=1e-12)
    assert found.value == pytest.approx(roc_auc_score(positive, scores), rel=1e-12)
    assert found.se == pytest.approx(math.sqrt(np.var(v, ddof=1) / len(v) + np.var(w, ddof=1) / len(w)), rel=1e-10)
    for mine, theirs in zip(roc.components(scores, positive), (v, w), strict=True):
        assert mine == pytest.approx(theirs, abs=1e-12)


def test_operating_points_are_those_of_scikit_learn() -> None:
    scores, positive = ordinal(40, 50, 3)
    points = roc.operating_points(scores, positive)
    alarm, hit, limit = roc_curve(positive, scores, drop_intermediate=False)
    assert points.false_positive == pytest.approx(alarm) and points.true_positive == pytest.approx(hit)
    assert points.thresholds[1:] == pytest.approx(limit[1:]) and np.isinf(points.thresholds[0])
    area = np.trapezoid(points.true_positive, points.false_positive)
    assert area == pytest.approx(roc.delong(scores, positive).value)


def test_the_example_of_hanley_and_mcneil() -> None:
    """Published: AUC .893, error .032 by their formula; DeLong's error is the .0307 of Stata's manual, recomputed."""
    levels = np.arange(5)
    scores = np.concatenate([np.repeat(levels, CT_ABNORMAL), np.repeat(levels, CT_NORMAL)])
    positive = np.arange(109) < 51
    found = roc.delong(scores, positive)
    assert round(found.value, 3) == 0.893 and round(found.se, 4) == 0.0307
    formula = roc.hanley_mcneil(found.value, 51, 58)
    assert round(formula.se, 3) == 0.032


def test_the_example_of_delong() -> None:
    """Published areas, errors, differences and chi-square, to their four digits."""
    rows = np.array(OVARIAN.split(), float).reshape(-1, 4)
    tests = np.stack([rows[:, 0], 10 - rows[:, 2], rows[:, 1]])  # albumin, K-G score (turned), total protein
    positive = rows[:, 3] == 1
    areas, matrix = roc.covariances(tests, positive)
    assert areas.round(4).tolist() == [0.7366, 0.7258, 0.6478]
    assert np.sqrt(np.diag(matrix)).round(4).tolist() == [0.0927, 0.1028, 0.1000]
    for first, difference, se, p in ((0, 0.0108, 0.0953, 0.9102), (2, -0.0780, 0.1046, 0.4561)):
        one = roc.compare(tests[first], tests[1], positive)
        assert (round(one.difference, 4), round(one.se, 4), round(one.p, 4)) == (difference, se, p)
    contrast = np.array([[1, -1, 0], [0, -1, 1]])
    gaps = contrast @ areas
    assert gaps @ np.linalg.solve(contrast @ matrix @ contrast.T, gaps) == pytest.approx(2.5340, abs=5e-5)


def test_a_covariance_is_that_of_the_components() -> None:
    scores, positive = ordinal(30, 20, 1)
    other = np.clip(scores + np.random.default_rng(2).integers(-1, 2, 50), 0, 4)
    _, matrix = roc.covariances(np.stack([scores, other]), positive)
    (_, v1, w1), (_, v2, w2) = by_pairs(scores, positive), by_pairs(other, positive)
    assert matrix[0, 1] == pytest.approx(np.cov(v1, v2)[0, 1] / 30 + np.cov(w1, w2)[0, 1] / 20, rel=1e-10)
    assert matrix == pytest.approx(matrix.T)


def test_cases_that_were_not_rated_are_left_out_of_their_reader_alone() -> None:
    scores, positive = ordinal(30, 30, 4)
    table = np.stack([scores, scores, np.full(60, np.nan)])
    table[1, :20] = np.nan
    table[2, :20] = scores[:20]
    areas, matrix = roc.covariances(table, positive)
    for row, area, variance in zip(table, areas, np.diag(matrix), strict=True):
        rated = ~np.isnan(row)
        alone = roc.delong(row[rated], positive[rated])
        assert (area, math.sqrt(variance)) == pytest.approx((alone.value, alone.se))
    assert matrix[1, 2] == 0  # without a common case
    assert 0 < matrix[0, 1] < matrix[1, 1]


def test_a_rater_does_not_differ_from_itself() -> None:
    scores, positive = ordinal(12, 9, 0)
    same = roc.compare(scores, scores, positive)
    assert (same.difference, same.se, same.z, same.p) == (0, 0, 0, 1)
    apart = roc.compare(positive * 1.0, 1.0 - positive, positive)
    assert apart.difference == 1 and apart.z == math.inf and apart.p == 0


def test_the_logit_interval_stays_inside_and_the_others_contain_the_area() -> None:
    good = roc.Auc(0.97, 0.03, 20, 20)
    low, high = good.logit().low, good.logit().high
    assert 0 < low < 0.97 < high < 1 and 0.97 - low > high - 0.97
    assert good.normal().high == 1.0
    scores, positive = ordinal(20, 25, 5)
    found = roc.delong(scores, positive)
    drawn, again, other = (roc.bootstrap(scores, positive, seed=seed, draws=300) for seed in (1, 1, 2))
    assert drawn == again != other
    for span in (found.normal(), found.logit(), drawn):
        assert span.value == found.value and span.low < found.value < span.high
    assert found.logit(0.9).low > found.logit(0.95).low


@pytest.mark.parametrize(("shift", "value"), [(5, 1.0), (-5, 0.0), (0, 0.5)])
def test_a_reader_who_never_varies_still_gets_an_interval(shift: int, value: float) -> None:
    positive = np.arange(30) < 12
    found = roc.delong(positive * shift, positive)
    assert found.value == value and found.se == 0
    span = found.logit()
    unseen = beta.ppf(0.975, 1, 12)  # Clopper and Pearson: none in 12 independent pairs
    assert unseen == pytest.approx(1 - 0.025 ** (1 / 12))
    widths = {1.0: (1 - unseen, 1.0), 0.0: (0.0, unseen), 0.5: (0.5 - unseen / 2, 0.5 + unseen / 2)}
    assert (span.low, span.high) == pytest.approx(widths[value])


def test_order_preserving_changes_change_nothing_and_turning_turns() -> None:
    scores, positive = ordinal(15, 18, 6)
    found, bent, turned = (roc.delong(s, positive) for s in (scores, np.exp(scores), -scores))
    assert (bent.value, bent.se) == pytest.approx((found.value, found.se))
    assert (turned.value, turned.se) == pytest.approx((1 - found.value, found.se))


@pytest.mark.parametrize(
    ("scores", "truth", "words"),
    [
        ([1, 2, 3], [1, 0], "as long"), ([1, np.nan, 2, 3], [1, 0, 1, 0], "finite"),
        ([1, 2, 3], [1, 0, 0], "two cases"), ([1, 2, 3, 4], [0, 1, 2, 1], "1 .positive"),
        ([[1, 2], [3, 4]], [1, 0], "as long"),
    ],
)  # fmt: skip
def test_bad_scores_get_a_sentence(scores: list, truth: list, words: str) -> None:
    with pytest.raises(InputError, match=words):
        roc.delong(scores, truth)


def test_other_bad_input_gets_a_sentence() -> None:
    with pytest.raises(InputError, match="raters, cases"):
        roc.covariances([1, 2, 3], [1, 0, 1])
    with pytest.raises(InputError, match="0 <= AUC"):
        roc.hanley_mcneil(1.2, 10, 10)
    with pytest.raises(InputError, match="level"):
        roc.Auc(0.6, 0.1, 10, 10).logit(95)
