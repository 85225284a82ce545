"""Every labelled equation of chapter 10, recomputed on another road: by counting, by roots, by derivatives."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import brentq, minimize
from scipy.special import expit

from mame_lib.evaluation.adherence import bootstrap, effective_size, wilson
from mame_lib.evaluation.logistic import logistic

F64 = NDArray[np.float64]


def test_eq_10_chance() -> None:
    """Every question with every picture, counted: 7 questions and 5 pictures in three classes."""
    questions, pictures = [0, 0, 0, 1, 1, 2, 2], [0, 1, 1, 1, 2]
    met = np.mean([q == p for q, p in itertools.product(questions, pictures)])
    q, p = (np.bincount(one) / len(one) for one in (questions, pictures))
    assert met == pytest.approx((q * p).sum())
    for habit in ([1, 0, 0], [0.2, 0.5, 0.3]):
        assert (np.full(3, 1 / 3) * habit).sum() == pytest.approx(1 / 3)


@pytest.mark.parametrize(("yes", "n"), [(0, 40), (13, 40), (40, 40), (3, 7)])
def test_eq_10_wilson(yes: int, n: int) -> None:
    """The ends are the roots of |yes / n - p| = z sqrt(p (1 - p) / n)."""
    z, share = 1.959963984540054, yes / n

    def off(p: float) -> float:
        return (share - p) ** 2 - z**2 * p * (1 - p) / n

    low = 0.0 if yes == 0 else brentq(off, 1e-9, share - 1e-9)
    high = 1.0 if yes == n else brentq(off, share + 1e-9, 1 - 1e-9)
    assert wilson(yes, n) == pytest.approx((low, high), abs=1e-9)


def test_eq_10_effective() -> None:
    """Clusters of equal size: the design effect is 1 + (m - 1) rho, with rho from the analysis of variance."""
    g = np.random.default_rng(0)
    clusters, m = 400, 6
    hits = (g.random((clusters, m)) < g.beta(1, 1, clusters)[:, None]).astype(float)
    within = hits.var(axis=1, ddof=1).mean()
    between = hits.mean(axis=1).var(ddof=1) * m
    rho = (between - within) / (between + (m - 1) * within)
    size = effective_size(hits.ravel(), np.repeat(np.arange(clusters), m).tolist())
    assert size == pytest.approx(hits.size / (1 + (m - 1) * rho), rel=0.01)
    assert rho == pytest.approx(1 / 3, abs=0.05)  # of uniform chances


def test_eq_10_shift() -> None:
    """Drawing noises keeps what the four means have in common: a common factor of each noise leaves tau exact."""
    g = np.random.default_rng(1)
    said = g.uniform(0.2, 0.6, 40)
    mean, low, high = bootstrap(lambda w: (w @ (0.25 * said)) / (w @ said), 40)
    assert (mean, low, high) == pytest.approx((0.25, 0.25, 0.25))
    noisy = 0.25 * said + 0.05 * g.normal(size=40)
    mean, low, high = bootstrap(lambda w: (w @ noisy) / (w @ said), 40)
    delta = np.std(noisy - mean * said, ddof=1) / said.mean() / math.sqrt(40)  # of a ratio, to first order
    assert mean == pytest.approx(noisy.mean() / said.mean())
    assert (high - low) / 2 == pytest.approx(1.96 * delta, rel=0.15)


def test_eq_10_logit() -> None:
    """The coefficient of a group is the logarithm of its odds over the other's."""
    table = {0: (30_000, 10_000), 1: (10_000, 30_000)}  # so many that half a success does not show
    x = np.concatenate([np.full((sum(counts), 2), (1.0, group)) for group, counts in table.items()])
    hits = np.concatenate([np.r_[np.ones(yes), np.zeros(no)] for yes, no in table.values()])
    fitted = logistic(x, hits, draws=0)
    assert np.exp(fitted.estimate[1]) == pytest.approx((10 / 30) / (30 / 10), rel=1e-3)
    assert fitted.chance([[1, 1]])[0] == pytest.approx(0.25, rel=1e-3)


def test_eq_10_firth() -> None:
    """The fit is where the penalized likelihood is flat, also for a group that always obeys."""
    x = np.array([[1, 0, 0]] * 12 + [[1, 1, 0]] * 12 + [[1, 1, 1]] * 12, dtype=float)
    hits = np.r_[np.ones(12), np.ones(9), np.zeros(3), np.ones(4), np.zeros(8)]

    def penalized(b: F64) -> float:
        p = expit(x @ b)
        information = x.T @ np.diag(p * (1 - p)) @ x
        return float(np.sum(np.log(np.where(hits == 1, p, 1 - p))) + 0.5 * np.log(np.linalg.det(information)))

    b = logistic(x, hits, draws=0).estimate
    slopes = [(penalized(b + 1e-4 * e) - penalized(b - 1e-4 * e)) / 2e-4 for e in np.eye(3)]
    assert slopes == pytest.approx([0, 0, 0], abs=1e-5)
    assert b[0] == pytest.approx(math.log(12.5 / 0.5))  # half a success and half a failure more
    best = minimize(lambda b: -penalized(b), np.zeros(3), method="BFGS").x
    np.testing.assert_allclose(b, best, atol=1e-3)


def test_eq_10_probe() -> None:
    """Ridge regression is least squares with the square root of lambda times the identity as further rows."""
    g = np.random.default_rng(2)
    U, Y, lam = g.normal(size=(9, 5)), np.eye(3)[g.integers(0, 3, 9)], 0.7
    printed = np.linalg.solve(U.T @ U + lam * np.eye(5), U.T @ Y)
    wider, taller = np.vstack([U, math.sqrt(lam) * np.eye(5)]), np.vstack([Y, np.zeros((5, 3))])
    np.testing.assert_allclose(printed, np.linalg.lstsq(wider, taller, rcond=None)[0], atol=1e-12)
