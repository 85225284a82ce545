"""Every labelled equation of chapter 12 on another road: known images, random draws, an integrator, all coins."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import integrate, stats

ABAR_T = float(np.prod(1 - np.linspace(math.sqrt(0.00085), math.sqrt(0.012), 1000) ** 2))
D, MU, S = 4096, -1.0, 0.3


def tiles(image: np.ndarray) -> np.ndarray:
    step = len(image) // 8
    return np.stack([
        image[step * i : step * (i + 1), step * j : step * (j + 1)].ravel() for i in range(8) for j in range(8)
    ])  # fmt: skip


def level(image: np.ndarray) -> float:
    return float(np.quantile(np.quantile(tiles(image), 0.25, axis=1), 0.05))


def test_eq_12_noise() -> None:
    """White noise is measured as it is, whatever constant lies under it and whatever one tile shows."""
    noise = np.random.default_rng(0).normal(0, 3.0, (128, 128))
    for ground in (0.0, 40.0):
        image = ground + noise
        image[:16, :16] += np.linspace(0, 200, 16)  # a marker in one tile
        assert float(np.median(tiles(image).std(1))) == pytest.approx(3.0, rel=0.05)
    assert float(np.median(tiles(np.full((128, 128), 40.0)).std(1))) == 0


def test_eq_12_level() -> None:
    """A constant is read off exactly, noise on black not at all, and a large breast changes nothing."""
    black = np.zeros((128, 128))
    noise = np.clip(np.random.default_rng(0).normal(0, 8.0, black.shape), 0, None)
    assert level(noise) == 0 and noise.mean() > 3
    for ground in (0.0, 7.0):
        image = black + ground
        image[:, :100] = 120
        assert level(image) == pytest.approx(ground)


def test_eq_12_met() -> None:
    """The score passes 1 where the chance passes 0.05, and rises as the chance falls."""
    for p in (0.2, 0.051, 0.049, 0.001):
        assert (math.log(p) / math.log(0.05) > 1) == (p < 0.05)
    assert math.log(0.05) / math.log(0.05) == 1


def test_eq_12_auc() -> None:
    """The area under the curve that all limits draw, by trapezoids, equals the share of pairs."""
    rng = np.random.default_rng(2)
    bad, good = rng.integers(0, 8, 40), rng.integers(0, 6, 55)
    limits = np.arange(-1, 10)[::-1]
    hit = np.array([(bad > x).mean() for x in limits])
    alarm = np.array([(good > x).mean() for x in limits])
    area = float(np.trapezoid(hit, alarm))
    pairs = np.mean([(b > g) + (b == g) / 2 for b, g in itertools.product(bad, good)])
    assert area == pytest.approx(float(pairs), rel=1e-12)


def test_eq_12_start() -> None:
    """Products of the betas give the signal that the last timestep keeps: 7 % of the amplitude."""
    assert round(ABAR_T, 4) == 0.0047
    assert math.sqrt(ABAR_T) == pytest.approx(0.07, abs=0.005)


def posterior_mean(x: float, abar: float) -> float:
    """E[c | x] by integration over c ~ N(sqrt(D) mu, D s^2), x ~ N(sqrt(abar) c, 1 - abar)."""
    middle, spread = math.sqrt(D) * MU, math.sqrt(D) * S
    c = np.linspace(middle - 10 * spread, middle + 10 * spread, 40_001)
    weight = stats.norm.pdf(c, middle, spread) * stats.norm.pdf(x, math.sqrt(abar) * c, math.sqrt(1 - abar))
    return float((c * weight).sum() / weight.sum())


@pytest.mark.parametrize("abar", [ABAR_T, 0.1, 0.7])
def test_eq_12_exact(abar: float) -> None:
    for x in (-3.0, 0.0, 2.5):
        gain = math.sqrt(abar) * D * S**2 / (abar * D * S**2 + 1 - abar)
        printed = math.sqrt(D) * MU + gain * (x - math.sqrt(abar * D) * MU)
        assert printed == pytest.approx(posterior_mean(x, abar), rel=1e-6)


def flow(x: float) -> float:
    """The deterministic path from x at the last timestep to clean, by Runge-Kutta: dy/dr = noise, y = x / signal."""

    def slope(r: float, y: np.ndarray) -> list[float]:
        abar = 1 / (1 + r * r)
        noisy = float(y[0]) * math.sqrt(abar)
        precision = 1 / (D * S**2) + abar / (1 - abar)  # Gaussians multiply: precisions add
        clean = (math.sqrt(D) * MU / (D * S**2) + math.sqrt(abar) * noisy / (1 - abar)) / precision
        return [(noisy - math.sqrt(abar) * clean) / math.sqrt(1 - abar)]

    begin = math.sqrt(1 / ABAR_T - 1)
    made = integrate.solve_ivp(slope, (begin, 1e-6), [x / math.sqrt(ABAR_T)], rtol=1e-10, atol=1e-10, method="DOP853")
    return float(made.y[0, -1]) / math.sqrt(D)


KAPPA = math.sqrt(ABAR_T * D * S**2 + 1 - ABAR_T)


def test_eq_12_brightness() -> None:
    """Two paths of the flow: it is a line, so 0 leads to the mean and a step of 1 to the standard deviation."""
    mean, up, down = flow(0.0), flow(1.0), flow(-1.0)
    assert up - mean == pytest.approx(mean - down, rel=1e-6)
    assert MU * (1 - S * math.sqrt(ABAR_T * D) / KAPPA) == pytest.approx(mean, rel=1e-6)
    assert up - mean == pytest.approx(S / KAPPA, rel=1e-6)


def test_eq_12_mean_start() -> None:
    """The same flow from x ~ N(sqrt(abar D) mu, 1 - abar)."""
    middle, width = math.sqrt(ABAR_T * D) * MU, math.sqrt(1 - ABAR_T)
    assert flow(middle) == pytest.approx(MU, rel=1e-6)
    assert S * math.sqrt(1 - ABAR_T) / KAPPA == pytest.approx(flow(middle + width) - flow(middle), rel=1e-6)


@pytest.mark.parametrize(("mended", "spoiled"), [(8, 2), (3, 3), (0, 5), (6, 7)])
def test_eq_12_mcnemar(mended: int, spoiled: int) -> None:
    """scipy's exact binomial test of a fair coin."""
    n, k = mended + spoiled, min(mended, spoiled)
    printed = min(1.0, 2 * sum(math.comb(n, i) for i in range(k + 1)) / 2**n)
    assert printed == pytest.approx(stats.binomtest(mended, n).pvalue, rel=1e-12)


def test_eq_12_tries() -> None:
    """Drawn until one passes, 200,000 times, within five standard errors."""
    q, rng = 0.4, np.random.default_rng(3)
    draws = rng.geometric(q, 200_000)
    assert float(draws.mean()) == pytest.approx(1 / q, abs=5 * math.sqrt(1 - q) / q / math.sqrt(len(draws)))
    assert sum((1 - q) ** j for j in range(200)) == pytest.approx(1 / q)


def test_eq_12_bias() -> None:
    """Draw from p, keep with probability q, look at what is kept."""
    p, q = np.array([0.5, 0.3, 0.2]), np.array([0.9, 0.5, 0.1])
    rng = np.random.default_rng(4)
    x = rng.choice(3, p=p, size=300_000)
    kept = x[rng.random(len(x)) < q[x]]
    printed = p * q / (p * q).sum()
    assert np.bincount(kept, minlength=3) / len(kept) == pytest.approx(printed, abs=0.005)
