"""Chapter 14: each equation derived again, by another way than the chapter's."""

from __future__ import annotations

import itertools
import math
from statistics import NormalDist

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from mame_lib.evaluation.readers import agreement, panel, power, reconstruction, roc

Z = NormalDist().inv_cdf


def sample(n: int, m: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    positive = np.arange(n + m) < n
    return np.clip(np.round(rng.normal(2 + 0.7 * positive, 1.1)), 0, 4), positive


def test_eq_14_auc() -> None:
    """The share of pairs is the area below straight lines between the corners."""
    for n, m, seed in ((25, 28, 0), (4, 9, 1)):
        scores, positive = sample(n, m, seed)
        s, t = scores[positive], scores[~positive]
        printed = sum(1.0 if a > b else 0.5 if a == b else 0.0 for a in s for b in t) / (n * m)
        corners = [(np.mean(t >= limit), np.mean(s >= limit)) for limit in (5, 4, 3, 2, 1, 0)]
        area = sum((x1 - x0) * (y0 + y1) / 2 for (x0, y0), (x1, y1) in itertools.pairwise(corners))
        assert printed == pytest.approx(area) == pytest.approx(roc.delong(scores, positive).value)
    ratings, synthetic = reconstruction.fig_17()
    assert roc.delong(4 - ratings, synthetic).value == 343 / 700


def test_eq_14_components() -> None:
    """Leave a case out: the area without it is the rest of the pairs, so V is what it brought."""
    scores, positive = sample(7, 9, 2)
    v, w = roc.components(scores, positive)
    whole = roc.delong(scores, positive).value
    for i in range(7):
        rest = roc.delong(np.delete(scores, i), np.delete(positive, i)).value
        assert v[i] == pytest.approx(7 * whole - 6 * rest)
    for j in range(9):
        rest = roc.delong(np.delete(scores, 7 + j), np.delete(positive, 7 + j)).value
        assert w[j] == pytest.approx(9 * whole - 8 * rest)
    assert v.mean() == pytest.approx(w.mean()) == pytest.approx(whole)


def test_eq_14_delong() -> None:
    """The mean of the estimated variances is the variance of the areas, over many studies; and the jackknife's."""
    model, found = panel.ReaderModel(auc=0.7, shift=0.0, stretch=0.0), []
    for seed in range(300):
        one = model.simulate(1, 20, 25, seed=seed)
        found.append(roc.delong(one.scores[0], one.synthetic))
    assert np.mean([a.se**2 for a in found]) == pytest.approx(np.var([a.value for a in found]), rel=0.2)
    scores, positive = sample(8, 11, 3)
    v, w = roc.components(scores, positive)
    printed = v.var(ddof=1) / 8 + w.var(ddof=1) / 11
    assert roc.delong(scores, positive).se ** 2 == pytest.approx(printed)
    kept = [roc.delong(np.delete(scores, k), np.delete(positive, k)).value for k in range(19)]
    jackknife = sum((len(x) - 1) / len(x) * sum((one - np.mean(x)) ** 2 for one in x) for x in (kept[:8], kept[8:]))
    assert jackknife == pytest.approx(printed)


def test_eq_14_logit() -> None:
    """The slope of the log-odds, by differences, carries the error over; and back within 0..1."""
    for value, se in ((0.49, 0.076), (0.9, 0.05), (0.03, 0.02)):
        odds = math.log(value / (1 - value))
        step = 1e-6
        up, down = (math.log(x / (1 - x)) for x in (value + step, value - step))
        half = 1.959964 * se * (up - down) / (2 * step)
        low, high = (1 / (1 + math.exp(-(odds + sign * half))) for sign in (-1, 1))
        found = roc.Auc(value, se, 20, 20).logit()
        assert (found.low, found.high) == pytest.approx((low, high), rel=1e-5)
        assert 0 < found.low < value < found.high < 1


def test_eq_14_tost() -> None:
    """Both tests reject exactly when the 90 % interval lies within the margin."""
    rng = np.random.default_rng(4)
    z = Z(0.95)
    for value, se, margin in zip(*rng.uniform((0.4, 0.005, 0.02), (0.6, 0.05, 0.1), (300, 3)).T, strict=True):
        both = (value - (0.5 - margin)) / se > z and ((0.5 + margin) - value) / se > z
        inside = value - z * se > 0.5 - margin and value + z * se < 0.5 + margin
        said = power.equivalence(value, se, margin=margin).verdict in (power.EQUAL, power.SLIGHT)
        assert both == inside == said


def test_eq_14_size() -> None:
    """From the variance of a rank sum: (n + m + 1) / (12 n m), by all orders of four; then the chance of both tests."""
    n = 2
    areas = [sum(a > b for a in order[:n] for b in order[n:]) / n**2 for order in itertools.permutations(range(2 * n))]
    assert np.var(areas) == pytest.approx((2 * n + 1) / (12 * n**2))
    assert roc.hanley_mcneil(0.5, 50, 50).se ** 2 == pytest.approx(101 / (12 * 2500))
    for margin, chance in ((0.05, 0.8), (0.03, 0.9), (0.1, 0.5)):
        images = (Z(0.95) + Z(1 - (1 - chance) / 2)) ** 2 / (6 * margin**2)
        se = 1 / math.sqrt(6 * images)
        reach = margin - Z(0.95) * se  # how far from 0.5 the area may come out
        assert 2 * NormalDist().cdf(reach / se) - 1 == pytest.approx(chance)
        assert power.for_equivalence(margin, power=chance) == pytest.approx(images, abs=2)


def test_eq_14_panel() -> None:
    """Areas with a reader's part, a shared part and a part of both: the mean estimate is the variance of the mean."""
    rng = np.random.default_rng(5)
    readers, shared, own = 0.05, 0.04, 0.03
    means, told = [], []
    for _ in range(4000):
        luck = rng.normal(0, shared)
        areas = 0.6 + rng.normal(0, readers, 4) + luck + rng.normal(0, own, 4)
        means.append(areas.mean())
        told.append(panel.combine(areas, shared=shared**2, error=shared**2 + own**2).se ** 2)
    assert np.mean(told) == pytest.approx(np.var(means), rel=0.06)
    assert np.var(means) == pytest.approx((readers**2 + own**2) / 4 + shared**2, rel=0.06)


def test_eq_14_df() -> None:
    """Satterthwaite: twice the squared mean of the variance estimate over its variance, with MS a scaled chi-square."""
    between, shared, count = 0.002, 0.0003, 5
    rng = np.random.default_rng(6)
    estimates = between * rng.chisquare(count - 1, 200_000) / (count - 1) / count + shared
    assert panel.degrees_of_freedom(between, shared, count) == pytest.approx(
        2 * estimates.mean() ** 2 / estimates.var(), rel=0.02)  # fmt: skip
    assert panel.degrees_of_freedom(between, 0.0, count) == count - 1


def test_eq_14_kappa() -> None:
    """By the table and by all pairs of ratings, and scikit-learn's."""
    rng = np.random.default_rng(7)
    first = rng.integers(0, 5, 50)
    second = np.clip(first + rng.integers(-1, 3, 50), 0, 4)
    p = agreement.table(first, second) / 50
    cost = [[(a - b) ** 2 for b in range(5)] for a in range(5)]
    chance = sum(cost[a][b] * p[a].sum() * p[:, b].sum() for a in range(5) for b in range(5))
    printed = 1 - (np.array(cost) * p).sum() / chance
    assert printed == pytest.approx(1 - ((first - second) ** 2).mean() / (np.subtract.outer(first, second) ** 2).mean())
    assert printed == pytest.approx(cohen_kappa_score(first, second, weights="quadratic"))
    assert printed == pytest.approx(agreement.kappa(first, second).value)


def test_eq_14_hotelling() -> None:
    """No other direction separates the means further for their spread; and it is the normal log-likelihood ratio."""
    rng = np.random.default_rng(8)
    root = rng.normal(size=(4, 4))
    sigma, gap = root @ root.T + np.eye(4), rng.normal(size=4)
    w = np.linalg.solve(sigma, gap)

    def separation(direction: np.ndarray) -> float:
        return float((direction @ gap) ** 2 / (direction @ sigma @ direction))

    assert separation(w) == pytest.approx(gap @ np.linalg.solve(sigma, gap))
    assert all(separation(w) >= separation(rng.normal(size=4)) for _ in range(500))
    x, y = rng.normal(size=(2, 4))
    inverse = np.linalg.inv(sigma)
    ratio = [((one @ inverse @ one) - (one - gap) @ inverse @ (one - gap)) / 2 for one in (x, y)]
    assert ratio[0] - ratio[1] == pytest.approx(w @ x - w @ y)
