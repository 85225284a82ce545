"""ROC analysis of ratings: operating points, the AUC, its DeLong error, intervals, and two raters compared.

A *score* says how strongly a case is taken for a positive one. In our reader studies the positive cases are the
synthetic images, and a rating of 0 (definitely synthetic) to 4 (definitely real) gives the score 4 - rating. An AUC of
0.5 is that of a reader who guesses; below 0.5 a reader tells the two apart, and calls them by the wrong names.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit, ndtr, ndtri
from scipy.stats import rankdata

from mame_lib.errors import InputError
from mame_lib.evaluation.froc import DRAWS, Interval, auc, auc_interval

F64 = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Points:
    """The operating points of a rater, one a threshold, from strict to lenient; the first is (0, 0), the last (1, 1).

    thresholds [K]: what is scored at least so high is called positive, and infinite at first.
    false_positive, true_positive [K]: shares of the negative and of the positive cases that are, 0..1.
    """

    thresholds: F64
    false_positive: F64
    true_positive: F64


def operating_points(scores: ArrayLike, positive: ArrayLike) -> Points:
    """The corners of the empirical ROC curve of scores [N] of cases that are `positive` [N] or not.

    Ratings of five levels give at most five corners beside (0, 0); the area below the straight lines between them is
    `auc`. Raises `InputError` as `delong`.
    """
    values, yes = checked(scores, positive)
    levels = np.unique(values)[::-1]
    shares = [np.array([np.mean(values[kind] >= level) for level in levels]) for kind in (~yes, yes)]
    return Points(np.append(np.inf, levels), *(np.append(0.0, one) for one in shares))


@dataclass(frozen=True)
class Auc:
    """An AUC with its standard error, from `positives` and `negatives` cases.

    The error is that of other cases of the same kind, for this one rater.
    """

    value: float
    se: float
    positives: int
    negatives: int

    def normal(self, level: float = 0.95) -> Interval:
        """value +- z se, cut at 0 and 1: too narrow for few cases, and worst near the ends."""
        half = _z(level) * self.se
        return Interval(self.value, max(0.0, self.value - half), min(1.0, self.value + half))

    def logit(self, level: float = 0.95) -> Interval:
        """value +- z se on the scale of log-odds, where an AUC has no ends: it stays within 0..1 and is lopsided.

        Where all cases of a kind fare alike (every pair won, lost or tied) the estimated error is zero, and says
        nothing. Then the interval is that of min(n, m) pairs without a common case, which are independent trials: if
        another outcome had a chance of more than 1 - (1 - level) / 2 to the power of 1 / min(n, m), it would have been
        seen (Clopper and Pearson, Biometrika 26 (1934) 404).
        """
        if self.se == 0:
            unseen = 1 - ((1 - level) / 2) ** (1 / min(self.positives, self.negatives))
            reach = unseen if self.value in (0.0, 1.0) else unseen / 2
            return Interval(self.value, max(0.0, self.value - reach), min(1.0, self.value + reach))
        half = _z(level) * self.se / (self.value * (1 - self.value))
        low, high = expit(logit(self.value) + np.array([-half, half]))
        return Interval(self.value, float(low), float(high))


def delong(scores: ArrayLike, positive: ArrayLike) -> Auc:
    """AUC of scores [N] with DeLong's standard error; ties count one half.

    DeLong, DeLong and Clarke-Pearson, Biometrics 44 (1988) 837, by the ranks of Sun and Xu, IEEE Signal Processing
    Letters 21 (2014) 1389: it costs two sorts.

    Raises
    ------
    InputError
        If the shapes differ, a score is not finite, or one of the kinds has fewer than two cases.
    """
    values, yes = checked(scores, positive)
    _, covariance = covariances(values[None], yes)
    return Auc(auc(values, yes), math.sqrt(covariance[0, 0]), int(yes.sum()), int((~yes).sum()))


def components(scores: ArrayLike, positive: ArrayLike) -> tuple[F64, F64]:
    """How each case fares: for a positive one the share of negatives below it [n], for a negative one the share of
    positives above it [m]; ties count one half. The mean of either is the AUC.

    A positive case's rank among all cases counts the negatives below it and the positives below it; its rank among
    the positives counts the latter alone.
    """
    values, yes = checked(scores, positive)
    n, m = int(yes.sum()), int((~yes).sum())
    ranks = rankdata(values)
    return (ranks[yes] - rankdata(values[yes])) / m, 1 - (ranks[~yes] - rankdata(values[~yes])) / n


def covariances(scores: ArrayLike, positive: ArrayLike) -> tuple[F64, F64]:
    """AUCs [J] of J raters of the same cases, scores [J, N], and DeLong's covariance matrix of the AUCs [J, J].

    The covariance is over cases: another draw of cases moves all raters at once. A score of NaN is a case that this
    rater did not rate; two raters then share the cases that both have rated, and two without a common case share
    nothing. Raises `InputError` as `delong`, for each rater.
    """
    table, truth = np.asarray(scores, np.float64), np.asarray(positive)
    if table.ndim != 2 or truth.shape != table.shape[1:]:
        raise InputError(f"scores are [raters, cases] and the truth [cases], not {table.shape} and {truth.shape}.")
    kinds = truth.astype(bool)
    rated = ~np.isnan(table)  # [J, N]
    values, apart = np.zeros(len(table)), np.zeros_like(table)  # apart: how a case fares, less the rater's mean
    for j, (row, mask) in enumerate(zip(table, rated, strict=True)):
        of_positives, of_negatives = components(row[mask], kinds[mask])
        values[j] = auc(row[mask], kinds[mask])
        apart[j, mask & kinds], apart[j, mask & ~kinds] = of_positives - values[j], of_negatives - values[j]
    total = np.zeros((len(table), len(table)))
    for kind in (kinds, ~kinds):
        own = rated[:, kind].astype(np.float64)
        both, each = own @ own.T, own.sum(1)
        products = apart[:, kind] @ apart[:, kind].T
        # The sample covariance over the shared cases, which are `both` of the cases of either rater.
        total += products / np.maximum(both - 1, 1) * both / np.outer(each, each)
    return values, total


@dataclass(frozen=True)
class Comparison:
    """AUC of one rater less that of another, with standard error, 95 % interval, z and two-sided p."""

    difference: float
    se: float
    low: float
    high: float
    z: float
    p: float


def compare(first: ArrayLike, second: ArrayLike, positive: ArrayLike) -> Comparison:
    """DeLong's test of two raters (or one rater at two times, or two machines) of the same cases, scores [N] each.

    Two independent errors would be too wide here: what makes a case hard makes it hard for both. Raises as `delong`.
    """
    values, matrix = covariances(np.stack([np.asarray(first, np.float64), np.asarray(second, np.float64)]), positive)
    difference = float(values[0] - values[1])
    se = math.sqrt(max(0.0, float(matrix[0, 0] + matrix[1, 1] - 2 * matrix[0, 1])))
    z = difference / se if se > 1e-12 else math.copysign(math.inf, difference) if difference else 0.0
    half = _z(0.95) * se
    return Comparison(difference, se, difference - half, difference + half, z, float(2 * ndtr(-abs(z))))


def hanley_mcneil(value: float, positives: int, negatives: int) -> Auc:
    """An AUC with the standard error that Hanley and McNeil give it without the scores, as if they were exponential.

    The formula for when a paper prints an AUC and two numbers of cases, and the one for planning. Ties make the true
    error smaller. Hanley and McNeil, Radiology 143 (1982) 29.

    Raises
    ------
    InputError
        If the value is not within 0..1, or there is no case of a kind.
    """
    if not 0 <= value <= 1 or positives < 1 or negatives < 1:
        raise InputError(f"an AUC of {value} with {positives} and {negatives} cases can't be; give 0 <= AUC <= 1.")
    two_positives, two_negatives = value / (2 - value), 2 * value**2 / (1 + value)
    variance = value * (1 - value)
    variance += (positives - 1) * (two_positives - value**2) + (negatives - 1) * (two_negatives - value**2)
    return Auc(value, math.sqrt(variance / (positives * negatives)), positives, negatives)


def bootstrap(scores: ArrayLike, positive: ArrayLike, *, seed: int, draws: int = DRAWS) -> Interval:
    """AUC with a 95 % percentile interval; positive and negative cases are drawn apart, with replacement.

    Raises `InputError` as `delong`.
    """
    values, yes = checked(scores, positive)
    return auc_interval(values, yes, draws=draws, seed=seed)


def checked(scores: ArrayLike, positive: ArrayLike) -> tuple[F64, Mask]:
    """Scores [N] and truth [N], finite and with two cases or more of each kind, or a sentence about what is wrong."""
    values, yes = np.asarray(scores, np.float64), np.asarray(positive)
    if values.ndim != 1 or values.shape != yes.shape or not np.isfinite(values).all():
        raise InputError(f"scores {list(values.shape)} and truth {list(yes.shape)} must be as long, and finite.")
    if not np.isin(yes, (0, 1)).all():
        raise InputError("the truth of a case is 1 (positive, such as synthetic) or 0.")
    n, m = int((yes == 1).sum()), int((yes == 0).sum())
    if min(n, m) < 2:
        raise InputError(f"an AUC with an error needs two cases or more of each kind, not {n} positive, {m} negative.")
    return values, yes.astype(bool)


def _z(level: float) -> float:
    if not 0 < level < 1:
        raise InputError(f"level is {level}, but must lie between 0 and 1, such as 0.95.")
    return float(ndtri(0.5 + level / 2))
