"""Does a number rise with a setting? Slopes and correlations with 95 % intervals: `diversity_trend`, `line`, `pearson`.

A handful of means over a setting makes a tempting curve. The interval says whether it could as well be flat.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri, stdtrit

from mame_lib.errors import InputError
from mame_lib.evaluation.diversity import resampled_means

F64 = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A number and its 95 % interval from `low` to `high`."""

    value: float
    low: float
    high: float


def slope(values: Any, at: Any) -> Any:
    """Slope of the least-squares line through `values` [..., G] over the settings `at` [G]: [...], per unit of `at`.

    Raises
    ------
    InputError
        If the last axis is not as long as `at`, or the settings are all equal.
    """
    y, x = np.asarray(values, np.float64), np.asarray(at, np.float64)
    if x.ndim != 1 or y.shape[-1:] != x.shape or np.ptp(x) == 0:
        raise InputError(f"a slope needs one value at each of two or more settings, not {y.shape} at {x.shape}.")
    apart = x - x.mean()
    return y @ apart / (apart @ apart)


def diversity_trend(scores: Sequence[Any], at: Sequence[float], *, seed: int, draws: int = 2000) -> Estimate:
    """Slope of mean similarity over a setting, with a 95 % bootstrap interval over images.

    scores: similarities [N, N] as `pairwise_ms_ssim` makes them, one matrix a setting, in which row k is the image
    that was made from the same noise. Images of one noise stay together: each of the `draws` sets of N is drawn once
    and used at every setting, so what the noise alone does to a set cancels. Quantiles as in `diversity`.

    Raises
    ------
    InputError
        If the matrices are not all [N, N] with N of at least 4, or as `slope`.
    """
    matrices = [np.asarray(one, np.float64) for one in scores]
    count = len(matrices[0]) if matrices else 0
    if count < 4 or any(one.shape != (count, count) for one in matrices):
        raise InputError("a trend needs one matrix [N, N] a setting, of the same 4 or more images each.")
    upper = np.triu_indices(count, 1)
    value = slope([one[upper].mean() for one in matrices], at)
    means = [resampled_means(one, np.random.default_rng(seed), draws) for one in matrices]  # the same sets each time
    drawn = slope(np.stack(means, axis=1), at)  # [draws]
    tail = ndtr(stdtrit(count - 1, 0.025) * np.sqrt(count / (count - 1)))
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return Estimate(float(value), float(low), float(high))


def line(values: Sequence[float], at: Sequence[float]) -> Estimate:
    """Slope of independent values, with the 95 % interval of ordinary least squares (t with G - 2 degrees of freedom).

    Raises
    ------
    InputError
        As `slope`, and for less than three values.
    """
    value = float(slope(values, at))
    y, x = np.asarray(values, np.float64), np.asarray(at, np.float64)
    if len(x) < 3:
        raise InputError(f"the interval of a slope needs three values or more, not {len(x)}.")
    left = y - y.mean() - value * (x - x.mean())
    error = math.sqrt(float(left @ left) / (len(x) - 2) / float(((x - x.mean()) ** 2).sum()))
    half = -float(stdtrit(len(x) - 2, 0.025)) * error
    return Estimate(value, value - half, value + half)


def pearson(x: Sequence[float], y: Sequence[float]) -> Estimate:
    """Pearson's correlation of n pairs, with Fisher's 95 % interval: tanh(atanh r ± 1.96 / sqrt(n - 3)).

    Fisher, Metron 1 (1921) 3. It supposes pairs that are independent and roughly normal.

    Raises
    ------
    InputError
        If the two differ in length, have less than four values, or do not vary.
    """
    first, second = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if first.ndim != 1 or first.shape != second.shape or len(first) < 4 or not np.ptp(first) or not np.ptp(second):
        raise InputError("a correlation needs two lists of the same length, four values or more, that vary.")
    r = float(np.clip(np.corrcoef(first, second)[0, 1], -1, 1))
    if abs(r) == 1:
        return Estimate(r, r, r)
    half = float(ndtri(0.975)) / math.sqrt(len(first) - 3)
    return Estimate(r, math.tanh(math.atanh(r) - half), math.tanh(math.atanh(r) + half))
