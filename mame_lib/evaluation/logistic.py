"""Logistic regression for outcomes that may be always or never met, with intervals over clusters: `logistic`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

from mame_lib.errors import InputError

_ROUNDS = 200
_LONGEST_STEP = 5.0  # in log-odds


@dataclass(frozen=True)
class Logistic:
    """Coefficients [k] in log-odds, with the low and high end of their 95 % intervals.

    covariance [k, k]: from the information matrix, as if all trials were independent.
    """

    estimate: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    covariance: NDArray[np.float64]

    def chance(self, x: ArrayLike) -> NDArray[np.float64]:
        """Probabilities [n] for rows x [n, k]."""
        return np.asarray(expit(np.asarray(x, dtype=np.float64) @ self.estimate))


def logistic(
    x: ArrayLike, hits: ArrayLike, clusters: Sequence[Any] | None = None, *, draws: int = 400, seed: int = 0
) -> Logistic:
    """Fit log-odds of `hits` (0 or 1, [n]) as x [n, k] times coefficients, by Firth's penalized likelihood.

    Where a group always (or never) obeys, the ordinary estimate is infinite; Firth's stays finite and has less bias.
    Put a column of ones into x for the intercept. clusters [n]: which trials belong together; without them every trial
    is its own cluster. Intervals are the percentiles of a bootstrap over clusters, but never narrower than for
    independent trials: a group that always obeys does so in every draw, and would seem to be known exactly.

    Firth, Biometrika 80 (1993) 27; Heinze and Schemper, Statistics in Medicine 21 (2002) 2409.

    Raises
    ------
    InputError
        If the shapes do not match, a hit is neither 0 nor 1, or columns of x depend on each other.
    """
    rows, said = np.asarray(x, dtype=np.float64), np.asarray(hits, dtype=np.float64)
    names = list(range(len(said))) if clusters is None else list(clusters)
    if rows.ndim != 2 or said.shape != (len(rows),) or len(names) != len(rows) or not len(rows):
        raise InputError(f"x is {rows.shape}, but hits {said.shape} and {len(names)} clusters; give one row a trial.")
    if not np.isin(said, (0, 1)).all():
        raise InputError("every hit must be 0 or 1.")
    # Trials of equal rows are counted together: a sweep has thousands of images and a few dozen patterns.
    patterns, which = np.unique(rows, axis=0, return_inverse=True)
    order = {name: k for k, name in enumerate(dict.fromkeys(names))}
    at = (np.asarray(which).reshape(-1), np.array([order[name] for name in names]))
    yes, n = np.zeros((2, len(patterns), len(order)))  # [P, C]
    np.add.at(yes, at, said)
    np.add.at(n, at, 1.0)
    estimate, covariance = _fit(patterns, yes.sum(1), n.sum(1))
    g = np.random.default_rng(seed)
    weights = g.multinomial(len(order), np.full(len(order), 1 / len(order)), size=draws)  # [draws, C]
    redrawn = [_refit(patterns, yes @ w, n @ w, estimate) for w in weights]
    low, high = np.nanquantile(redrawn, (0.025, 0.975), axis=0) if draws else (estimate, estimate)
    half = 1.959964 * np.sqrt(np.diag(covariance))
    return Logistic(estimate, np.minimum(low, estimate - half), np.maximum(high, estimate + half), covariance)


def _refit(
    x: NDArray[np.float64], yes: NDArray[np.float64], n: NDArray[np.float64], start: NDArray[np.float64]
) -> NDArray[np.float64]:
    """One draw of the bootstrap, NaN where it left a column without trials."""
    try:
        return _fit(x[n > 0], yes[n > 0], n[n > 0], start)[0]
    except InputError:
        return np.full(x.shape[1], np.nan)


def _fit(
    x: NDArray[np.float64], yes: NDArray[np.float64], n: NDArray[np.float64], start: NDArray[np.float64] | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Newton's method on Firth's score, for `yes` of `n` trials [P] at patterns x [P, k]: estimate, covariance."""
    if np.linalg.matrix_rank(x) < x.shape[1]:
        raise InputError("columns of x depend on each other; leave one out.")
    b = np.zeros(x.shape[1]) if start is None else start.copy()
    for _ in range(_ROUNDS):
        p = expit(x @ b)
        w = n * p * (1 - p)
        covariance = np.linalg.pinv((x.T * w) @ x)
        leverage = w * np.einsum("pi,ij,pj->p", x, covariance, x)
        step = covariance @ (x.T @ (yes - n * p + leverage * (0.5 - p)))
        b = b + step * min(1.0, _LONGEST_STEP / max(float(np.abs(step).max()), 1e-12))
        if np.abs(step).max() < 1e-9:
            return b, covariance
    raise InputError("the logistic model did not settle; use fewer columns.")
