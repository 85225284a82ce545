"""Every labelled equation of chapter 04 on another road: random draws, symbols, integrals, Runge-Kutta."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import sympy as sp
from scipy import integrate

# Two levels of one path, the next one cleaner, and a third before them.
ABAR_BEFORE, ABAR, ABAR_NEXT = 0.12, 0.35, 0.8


def signal(abar: float) -> float:
    return math.sqrt(abar)


def sigma(abar: float) -> float:
    return math.sqrt(1 - abar)


def ratio(abar: float) -> float:
    return math.sqrt(1 / abar - 1)


def at_lambda(level: float) -> float:
    """abar where lambda = level."""
    return 1 / (1 + math.exp(-2 * level))


def lam(abar: float) -> float:
    """From the definition of the signal-to-noise ratio, not from its root."""
    return math.log(abar / (1 - abar)) / 2


def test_eq_04_guess() -> None:
    """It undoes the jump: solve x_t = signal x_0 + sigma epsilon for x_0."""
    x0, x, eps = sp.symbols("x0 x epsilon", real=True)
    abar = sp.symbols("abar", positive=True)
    solved = sp.solve(sp.Eq(x, sp.sqrt(abar) * x0 + sp.sqrt(1 - abar) * eps), x0)
    assert len(solved) == 1
    printed = (x - sp.sqrt(1 - abar) * eps) / sp.sqrt(abar)
    assert sp.simplify(solved[0] - printed) == 0


@pytest.mark.parametrize("x0", [-1.3, 0.0, 2.0])
def test_eq_04_variance(x0: float) -> None:
    """Var(x_{t-1} | x_t, x_0) from the joint density on a grid; the variance doesn't depend on x_0."""
    abar_s, beta = ABAR_NEXT, 1 - ABAR / ABAR_NEXT  # one step from s up to t

    def joint(x_s: float, x_t: float = 0.4) -> float:
        prior = math.exp(-((x_s - signal(abar_s) * x0) ** 2) / (2 * (1 - abar_s)))
        return prior * math.exp(-((x_t - math.sqrt(1 - beta) * x_s) ** 2) / (2 * beta))

    middle = integrate.quad(joint, -8, 8, limit=200)[0]
    mean = integrate.quad(lambda x: x * joint(x), -8, 8, limit=200)[0] / middle
    variance = integrate.quad(lambda x: (x - mean) ** 2 * joint(x), -8, 8, limit=200)[0] / middle
    assert (1 - ABAR_NEXT) / (1 - ABAR) * beta == pytest.approx(variance, rel=1e-8)


def test_the_step_of_the_algorithm_is_the_mean_of_bayes_rule() -> None:
    """Step 4 of the algorithm, whose misprints are mended: the mean of x_{t-1} given x_t and the guess."""
    x, eps = sp.symbols("x epsilon", real=True)
    a, before = sp.symbols("alpha abar_before", positive=True)  # alpha_t, abar_{t-1}
    abar, beta = a * before, 1 - a
    x0 = (x - sp.sqrt(1 - abar) * eps) / sp.sqrt(abar)
    precision = a / beta + 1 / (1 - before)  # Gaussians multiply: precisions add
    mean = (sp.sqrt(a) * x / beta + sp.sqrt(before) * x0 / (1 - before)) / precision
    printed = (x - beta / sp.sqrt(1 - abar) * eps) / sp.sqrt(a)
    rng = np.random.default_rng(0)
    for numbers in rng.uniform(0.1, 0.9, size=(20, 4)):
        at = dict(zip((x, eps, a, before), map(float, numbers), strict=True))
        assert float(mean.subs(at)) == pytest.approx(float(printed.subs(at)), rel=1e-12)


def test_eq_04_ddim() -> None:
    """With the true x_0 and noise the step keeps the marginal: means and variances over random draws agree.

    Data and noise are independent normals of unit variance here, so E[x_s] = 0, Var[x_s] = 1 and the covariances with
    both are the signal and the sigma of level s; with n draws each moment is within 5 standard errors.
    """
    n, rng = 400_000, np.random.default_rng(1)
    x0, noise = rng.normal(size=(2, n))
    x_t = signal(ABAR) * x0 + sigma(ABAR) * noise
    guess = (x_t - sigma(ABAR) * noise) / signal(ABAR)
    x_s = signal(ABAR_NEXT) * guess + sigma(ABAR_NEXT) * noise
    tolerance = 5 * math.sqrt(2 / n)
    assert float(x_s.var()) == pytest.approx(1.0, abs=tolerance)
    assert float((x_s * x0).mean()) == pytest.approx(signal(ABAR_NEXT), abs=tolerance)
    assert float((x_s * noise).mean()) == pytest.approx(sigma(ABAR_NEXT), abs=tolerance)


def test_eq_04_lambda() -> None:
    """Half the logarithm of the signal-to-noise ratio, about -2.7 at the end of Stable Diffusion's schedule."""
    betas = np.linspace(math.sqrt(0.00085), math.sqrt(0.012), 1000) ** 2
    abar = float(np.exp(np.log1p(-betas).sum()))
    assert math.log(signal(abar) / sigma(abar)) == pytest.approx(lam(abar), rel=1e-12)
    assert lam(abar) == pytest.approx(-2.7, abs=0.05)
    x = sp.symbols("abar", positive=True)
    assert sp.limit(sp.log(sp.sqrt(x) / sp.sqrt(1 - x)), x, 1, "-") == sp.oo


def guess_of_peaks(x: float, abar: float) -> float:
    """E[x_0 | x_t] for two Gaussian peaks, by integration over x_0: no closed form is trusted."""
    grid = np.linspace(-4, 4, 4001)
    prior = 0.4 * np.exp(-((grid + 1) ** 2) / (2 * 0.3**2)) + 0.6 * np.exp(-((grid - 0.8) ** 2) / (2 * 0.3**2))
    weight = prior * np.exp(-((x - signal(abar) * grid) ** 2) / (2 * (1 - abar)))
    return float((weight * grid).sum() / weight.sum())


def noise_of_peaks(x: float, abar: float) -> float:
    return (x - signal(abar) * guess_of_peaks(x, abar)) / sigma(abar)


def curve(x: float, abar_from: float, abar_to: float) -> Callable[[float], float]:
    """The flow of chapter 03, dy/dr = epsilon, through x: x as a function of abar between the two levels."""

    def slope(r: float, y: np.ndarray) -> list[float]:
        abar = 1 / (1 + r * r)
        return [noise_of_peaks(float(y[0]) * signal(abar), abar)]

    made = integrate.solve_ivp(
        slope, (ratio(abar_from), ratio(abar_to)), [x / signal(abar_from)], rtol=1e-10, atol=1e-12, method="DOP853",
        dense_output=True,
    )  # fmt: skip
    return lambda abar: float(made.sol(ratio(abar))[0]) * signal(abar)


def test_eq_04_exact() -> None:
    """Both sides along one curve of the flow: the end by Runge-Kutta, the integral by quadrature."""
    along = curve(0.3, ABAR, ABAR_NEXT)

    def integrand(level: float) -> float:
        abar = at_lambda(level)
        return math.exp(level) * guess_of_peaks(along(abar), abar)

    integral = integrate.quad(integrand, lam(ABAR), lam(ABAR_NEXT), epsabs=1e-10)[0]
    assert along(ABAR_NEXT) / sigma(ABAR_NEXT) == pytest.approx(0.3 / sigma(ABAR) + integral, rel=1e-8)


def line_step(x: float, value: float, slope: float, abar_from: float, abar_to: float) -> float:
    """The exact integral of e^lambda times a line that is `value` at the start, as quadrature does it."""
    begin, end = lam(abar_from), lam(abar_to)
    area = integrate.quad(lambda at: math.exp(at) * (value + slope * (at - begin)), begin, end, epsabs=1e-13)[0]
    return sigma(abar_to) * (x / sigma(abar_from) + area)


def test_eq_04_dpm() -> None:
    """With a constant it is the integral exactly; a line is met to third order in h, with the sign that is printed."""

    def printed(x: float, guess: float, before: float, abar_to: float) -> float:
        h = lam(abar_to) - lam(ABAR)
        d = guess + h / 2 * (guess - before) / (lam(ABAR) - lam(ABAR_BEFORE))
        return sigma(abar_to) / sigma(ABAR) * x + signal(abar_to) * (1 - math.exp(-h)) * d

    assert printed(0.3, 0.7, 0.7, ABAR_NEXT) == pytest.approx(line_step(0.3, 0.7, 0.0, ABAR, ABAR_NEXT), rel=1e-10)
    slope = (0.7 - 0.2) / (lam(ABAR) - lam(ABAR_BEFORE))
    gaps = []
    for h in (0.2, 0.1, 0.05):
        abar_to = at_lambda(lam(ABAR) + h)
        gaps.append(abs(printed(0.3, 0.7, 0.2, abar_to) - line_step(0.3, 0.7, slope, ABAR, abar_to)))
    assert [gaps[0] / gaps[1], gaps[1] / gaps[2]] == pytest.approx([8, 8], rel=0.15)


def local_orders(step: Callable[[float, float], float], x: float = 0.3) -> list[float]:
    """How a single step's error against the flow falls when the step is halved in lambda: log2 of the ratios."""
    errors = []
    for h in (0.2, 0.1, 0.05):
        abar_to = at_lambda(lam(ABAR) + h)
        errors.append(abs(step(x, abar_to) - curve(x, ABAR, abar_to)(abar_to)))
    return [math.log2(a / b) for a, b in pairwise(errors)]


def euler(x: float, abar_to: float) -> float:
    return signal(abar_to) * (x / signal(ABAR) + (ratio(abar_to) - ratio(ABAR)) * noise_of_peaks(x, ABAR))


def test_eq_04_euler() -> None:
    """It is DDIM's step, symbolically, and one step of it errs in second order (so many steps in first)."""
    x, eps, a, b = sp.symbols("x epsilon a b", positive=True)  # a, b: abar of t and s
    y = x / sp.sqrt(a) + (sp.sqrt((1 - b) / b) - sp.sqrt((1 - a) / a)) * eps
    mixed = sp.sqrt(b) * (x - sp.sqrt(1 - a) * eps) / sp.sqrt(a) + sp.sqrt(1 - b) * eps
    for numbers in np.random.default_rng(2).uniform(0.1, 0.9, size=(20, 4)):
        at = dict(zip((x, eps, a, b), map(float, numbers), strict=True))
        assert float((sp.sqrt(b) * y).subs(at)) == pytest.approx(float(mixed.subs(at)), rel=1e-12)
    assert local_orders(euler) == pytest.approx([2, 2], abs=0.25)


def test_eq_04_heun() -> None:
    """One step errs in third order; with the trial point's noise alone, or with a wrong sign, it would not."""

    def heun(x: float, abar_to: float, weight: float = 0.5) -> float:
        step = ratio(abar_to) - ratio(ABAR)
        first, second = noise_of_peaks(x, ABAR), noise_of_peaks(euler(x, abar_to), abar_to)
        return signal(abar_to) * (x / signal(ABAR) + step * ((1 - weight) * first + weight * second))

    assert min(local_orders(heun)) > 2.6
    assert max(local_orders(lambda x, to: heun(x, to, weight=1.0))) < 2.4


def test_eq_04_2s() -> None:
    """One step errs in third order wherever the middle level lies; twice the printed slope errs in second."""

    def second_guess(x: float, abar_to: float, share: float, factor: float = 1.0) -> float:
        h = lam(abar_to) - lam(ABAR)
        abar_m = at_lambda(lam(ABAR) + share * h)
        h_m = lam(abar_m) - lam(ABAR)
        guess = guess_of_peaks(x, ABAR)
        middle = line_step(x, guess, 0.0, ABAR, abar_m)
        d = guess + factor * h / (2 * h_m) * (guess_of_peaks(middle, abar_m) - guess)
        return sigma(abar_to) / sigma(ABAR) * x + signal(abar_to) * (1 - math.exp(-h)) * d

    for share in (0.3, 0.5, 0.8):
        assert min(local_orders(lambda x, to, s=share: second_guess(x, to, s))) > 2.6
    assert max(local_orders(lambda x, to: second_guess(x, to, 0.5, factor=2.0))) < 2.4
