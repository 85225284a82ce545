"""Do readers agree, with each other and with themselves? Cohen's kappa, weighted kappa, Krippendorff's alpha.

Two readers who guess agree now and then. All measures here count agreement beyond that: 1 is perfect, 0 is what their
ratings would share by chance, and below 0 they contradict each other. Agreement is not accuracy: two readers may agree
on every image and both be wrong, and where all images look alike good readers disagree.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

from mame_lib.errors import InputError

F64 = NDArray[np.float64]
LEVELS = 5  # ratings 0 to 4
WEIGHTS = ("none", "linear", "quadratic")


@dataclass(frozen=True)
class Kappa:
    """Kappa of two readers from `n` cases, with its standard error and 95 % interval from `low` to `high`.

    observed: (weighted) share of agreement, 0..1. chance: what readers with these ratings would share by chance. Where
    both gave one and the same rating throughout there is nothing to agree on: kappa and its error are NaN.
    """

    value: float
    se: float
    low: float
    high: float
    n: int
    observed: float
    chance: float


def table(first: ArrayLike, second: ArrayLike, levels: int = LEVELS) -> NDArray[np.int64]:
    """Counts [levels, levels] of the ratings 0..levels-1 of two readers, or of one reader at two times, [N] each.

    Raises
    ------
    InputError
        If the shapes differ, there is no case, or a rating is not a whole number of the scale.
    """
    a, b = np.asarray(first), np.asarray(second)
    if a.ndim != 1 or a.shape != b.shape or not a.size:
        raise InputError(f"agreement needs two ratings of each case, not {list(a.shape)} and {list(b.shape)}.")
    if not all(np.isin(one, np.arange(levels)).all() for one in (a, b)):
        raise InputError(f"ratings are whole numbers from 0 to {levels - 1}.")
    counts = np.zeros((levels, levels), np.int64)
    np.add.at(counts, (a.astype(np.int64), b.astype(np.int64)), 1)
    return counts


def kappa(first: ArrayLike, second: ArrayLike, weights: str = "quadratic", *, levels: int = LEVELS) -> Kappa:
    """Cohen's kappa of two readers' ratings [N] each, with the large-sample error of Fleiss, Cohen and Everitt.

    weights: what a disagreement by d steps costs: "none" (all the same), "linear" (d) or "quadratic" (d squared, the
    usual one for ratings). Cohen, Psychological Bulletin 70 (1968) 213; the error: the same, 72 (1969) 323.

    Raises
    ------
    InputError
        As `table`, or for another name of weights.
    """
    if weights not in WEIGHTS:
        raise InputError(f"weights {weights!r} are unknown; choose {', '.join(WEIGHTS)}.")
    counts = table(first, second, levels)
    n, p = int(counts.sum()), counts / counts.sum()
    apart = np.abs(np.subtract.outer(np.arange(levels), np.arange(levels))) / (levels - 1)
    cost = {"none": np.ceil(apart), "linear": apart, "quadratic": apart**2}[weights]
    w = 1.0 - cost  # how much each pair of ratings agrees
    rows, columns = p.sum(1), p.sum(0)
    observed, chance = float((w * p).sum()), float(rows @ w @ columns)
    if chance >= 1 - 1e-12:
        return Kappa(math.nan, math.nan, math.nan, math.nan, n, observed, chance)
    value = (observed - chance) / (1 - chance)
    typical = np.add.outer(w @ columns, rows @ w)  # mean agreement of each rating with the other reader's
    spread = float((p * (w - typical * (1 - value)) ** 2).sum()) - (value - chance * (1 - value)) ** 2
    se = math.sqrt((spread if spread > 1e-12 else 0.0) / n) / (1 - chance)
    half = float(ndtri(0.975)) * se
    return Kappa(value, se, max(-1.0, value - half), min(1.0, value + half), n, observed, chance)


def mean_kappa(ratings: ArrayLike, weights: str = "quadratic", *, levels: int = LEVELS) -> float:
    """Mean kappa over all pairs of readers, ratings [J, N] with NaN where one has not rated; NaN without a pair.

    Pairs that share fewer than two cases, and pairs without a kappa, are left out.
    """
    rows = np.asarray(ratings, np.float64)
    found = []
    for j in range(len(rows)):
        for k in range(j):
            both = ~np.isnan(rows[j]) & ~np.isnan(rows[k])
            if both.sum() >= 2:
                found.append(kappa(rows[j, both], rows[k, both], weights, levels=levels).value)
    found = [value for value in found if not math.isnan(value)]
    return float(np.mean(found)) if found else math.nan


def krippendorff(ratings: ArrayLike, scale: str = "ordinal", *, levels: int = LEVELS) -> float:
    """Krippendorff's alpha of any number of readers, ratings [J, N] of 0..levels-1 with NaN where one has not rated.

    scale: how two ratings differ: "nominal" (they do or don't), "ordinal" (by the cases rated between them) or
    "interval" (by their squared distance). Cases with fewer than two ratings say nothing. NaN if all ratings are
    the same. Krippendorff, Computing Krippendorff's Alpha-Reliability (University of Pennsylvania, 2011).

    Raises
    ------
    InputError
        If no case has two ratings, a rating is not on the scale, or the scale is unknown.
    """
    rows = np.asarray(ratings, np.float64)
    if rows.ndim != 2 or not np.isin(rows[~np.isnan(rows)], np.arange(levels)).all():
        raise InputError(f"ratings are [readers, cases], whole numbers from 0 to {levels - 1} or NaN.")
    counts = np.stack([(rows == level).sum(0) for level in range(levels)], 1).astype(np.float64)  # [N, levels]
    counts = counts[counts.sum(1) >= 2]
    if not len(counts):
        raise InputError("alpha needs a case that two readers have rated.")
    each, total = counts.sum(1), counts.sum(0)
    apart = _distance(total, scale)
    seen = (np.einsum("nc,ck,nk->n", counts, apart, counts) / (each - 1)).sum() / each.sum()
    expected = float(total @ apart @ total) / (total.sum() * (total.sum() - 1))
    return float(1 - seen / expected) if expected > 0 else math.nan


def _distance(total: F64, scale: str) -> F64:
    """Squared differences [levels, levels] between ratings, given how often each was used."""
    levels = np.arange(len(total))
    if scale == "nominal":
        return 1.0 - np.eye(len(total))
    if scale == "interval":
        return np.subtract.outer(levels, levels).astype(np.float64) ** 2
    if scale == "ordinal":
        middle = np.cumsum(total) - total / 2  # rank of the middle of each rating
        return np.asarray(np.subtract.outer(middle, middle) ** 2)
    raise InputError(f"the scale {scale!r} is unknown; choose nominal, ordinal or interval.")


def again(pairs: Iterable[tuple[int, int]], weights: str = "quadratic") -> Kappa:
    """Kappa of readers with themselves: pairs of (first, second) rating of cases that were shown twice.

    Pairs of several readers may be put together. Raises `InputError` as `table`.
    """
    both = np.array(list(pairs)).reshape(-1, 2)
    return kappa(both[:, 0], both[:, 1], weights)
