"""Every labelled equation of chapter 03, recomputed on another road than the chapter's: symbols, grids, matrices."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import sympy as sp
from numpy.typing import NDArray
from scipy import integrate, stats

F64 = NDArray[np.float64]

# A short chain of large steps, so that no term is negligible; index 0 is the paper's t = 1.
BETAS = np.array([0.05, 0.12, 0.2, 0.33])
ALPHAS = 1 - BETAS
ABAR = np.cumprod(ALPHAS)


def chain_covariance(first: float, betas: F64 = BETAS) -> F64:
    """Covariance [T+1, T+1] of (x_0, ..., x_T) in one dimension when x_0 has variance `first`, by matrix algebra.

    x = M n with independent n: the chain is a linear map of the start and of the noises of its steps.
    """
    size = len(betas) + 1
    m = np.zeros((size, size))
    m[0, 0] = math.sqrt(first)
    for t, beta in enumerate(betas, start=1):
        m[t] = math.sqrt(1 - beta) * m[t - 1]
        m[t, t] = math.sqrt(beta)
    return m @ m.T


def condition(cov: F64, mean: F64, known: dict[int, float], wanted: int) -> tuple[float, float]:
    """Mean and variance of one entry of a Gaussian vector, given others (Schur complement)."""
    rows = list(known)
    gain = np.linalg.solve(cov[np.ix_(rows, rows)], cov[rows, wanted])
    shift = gain @ (np.array(list(known.values())) - mean[rows])
    return float(mean[wanted] + shift), float(cov[wanted, wanted] - gain @ cov[rows, wanted])


def given_start(x0: float) -> tuple[F64, F64]:
    """Mean and covariance of the chain that starts exactly at x0."""
    return x0 * np.sqrt(np.concatenate([[1.0], ABAR])), chain_covariance(0.0)


def test_eq_03_chain() -> None:
    """The product of the steps is the density of one Gaussian vector, and it integrates to one."""
    gains, spreads = np.array([0.7, 0.9, 0.8]), np.array([0.3, 0.5, 0.4])  # x_{t-1} = gain x_t + spread z
    m = np.zeros((4, 4))
    m[3, 3] = 1.0
    for t in (2, 1, 0):
        m[t] = gains[t] * m[t + 1]
        m[t, t] = spreads[t]
    joint = stats.multivariate_normal(np.zeros(4), m @ m.T)
    for x in np.random.default_rng(0).normal(size=(20, 4)):
        product = stats.norm.logpdf(x[3])
        for t in (1, 2, 3):
            product += stats.norm.logpdf(x[t - 1], gains[t - 1] * x[t], spreads[t - 1])
        assert product == pytest.approx(joint.logpdf(x), rel=1e-10)


def two_peaks() -> list[tuple[float, float]]:
    return [(-1.0, 0.3), (1.0, 0.3)]


def posterior_of_two_peaks(landed: float, beta: float) -> Callable[[F64], F64]:
    """q(x_{t-1} | x_t) from the conditional of each peak's two-dimensional Gaussian."""
    a = math.sqrt(1 - beta)
    parts = []
    for center, sd in two_peaks():
        cov = np.array([[sd**2, a * sd**2], [a * sd**2, a**2 * sd**2 + beta]])
        mean, variance = condition(cov, np.array([center, a * center]), {1: landed}, 0)
        parts.append((stats.norm.pdf(landed, a * center, math.sqrt(cov[1, 1])), mean, math.sqrt(variance)))
    total = sum(weight for weight, _, _ in parts)
    return lambda x: sum(weight / total * stats.norm.pdf(x, mean, sd) for weight, mean, sd in parts)


@pytest.mark.parametrize("beta", [0.02, 0.3, 0.9])
def test_eq_03_bayes(beta: float) -> None:
    def before(x: float) -> float:
        return sum(stats.norm.pdf(x, center, sd) for center, sd in two_peaks()) / 2

    def numerator(x: float) -> float:
        return stats.norm.pdf(0.2, math.sqrt(1 - beta) * x, math.sqrt(beta)) * before(x)

    marginal = integrate.quad(numerator, -6, 6, epsabs=1e-13, limit=400)[0]  # q(x_t), by brute force
    truth = posterior_of_two_peaks(0.2, beta)
    for x in np.linspace(-2, 2, 21):
        assert numerator(x) / marginal == pytest.approx(float(truth(np.array(x))), rel=1e-8, abs=1e-12)


def test_eq_03_step() -> None:
    """A small step back is nearly Gaussian, with a variance that approaches beta of that step."""
    grid = np.linspace(-8, 8, 160001)
    misplaced, ratio = [], []
    for beta in (0.04, 0.02, 0.01, 0.001):
        density = posterior_of_two_peaks(0.2, beta)(grid)
        mean = integrate.trapezoid(density * grid, grid)
        variance = integrate.trapezoid(density * (grid - mean) ** 2, grid)
        bell = stats.norm.pdf(grid, mean, math.sqrt(variance))
        misplaced.append(integrate.trapezoid(np.abs(density - bell), grid) / 2)
        ratio.append(variance / beta)
    assert np.all(np.diff(misplaced) < 0) and misplaced[-1] < 1e-3
    assert ratio[-1] == pytest.approx(1.0, abs=0.01)


def test_eq_03_product() -> None:
    """The two factors multiply to the conditional of the whole chain, up to one constant."""
    x0, x_t, t = 0.7, -0.4, 3
    mean, cov = given_start(x0)
    m, variance = condition(cov, mean, {t: x_t}, t - 1)
    x = np.linspace(-1.5, 1.5, 9)
    product = stats.norm.logpdf(x_t, math.sqrt(ALPHAS[t - 1]) * x, math.sqrt(BETAS[t - 1])) + stats.norm.logpdf(
        x, math.sqrt(ABAR[t - 2]) * x0, math.sqrt(1 - ABAR[t - 2])
    )
    difference = product - stats.norm.logpdf(x, m, math.sqrt(variance))
    assert np.ptp(difference) < 1e-10


def symbols() -> tuple[sp.Symbol, ...]:
    """x, x0, x_t, alpha_t and abar_{t-1}; beta_t and abar_t follow from the last two."""
    x, x0, x_t = sp.symbols("x x_0 x_t", real=True)
    alpha, before = sp.symbols("alpha abar_before", positive=True)
    return x, x0, x_t, alpha, before


def test_eq_03_square() -> None:
    x, x0, x_t, alpha, before = symbols()
    beta = 1 - alpha
    exponent = (x_t - sp.sqrt(alpha) * x) ** 2 / beta + (x - sp.sqrt(before) * x0) ** 2 / (1 - before)
    a = alpha / beta + 1 / (1 - before)
    b = sp.sqrt(alpha) / beta * x_t + sp.sqrt(before) / (1 - before) * x0
    assert sp.simplify(sp.diff(exponent - (a * x**2 - 2 * b * x), x)) == 0
    assert sp.simplify(sp.diff(exponent - a * (x - b / a) ** 2, x)) == 0
    assert sp.simplify(a - (1 - alpha * before) / (beta * (1 - before))) == 0


@pytest.mark.parametrize("t", [1, 2, 3, 4])
def test_eq_03_small(t: int) -> None:
    mean, cov = given_start(0.7)
    before = ABAR[t - 2] if t > 1 else 1.0
    printed = (1 - before) / (1 - ABAR[t - 1]) * BETAS[t - 1]
    assert printed == pytest.approx(condition(cov, mean, {t: 0.3}, t - 1)[1], rel=1e-10, abs=1e-12)


@pytest.mark.parametrize("t", [1, 2, 3, 4])
def test_eq_03_posterior(t: int) -> None:
    before = ABAR[t - 2] if t > 1 else 1.0
    for x0, x_t in ((0.7, -0.4), (-1.1, 0.9)):
        mean, cov = given_start(x0)
        printed = math.sqrt(before) * BETAS[t - 1] / (1 - ABAR[t - 1]) * x0
        printed += math.sqrt(ALPHAS[t - 1]) * (1 - before) / (1 - ABAR[t - 1]) * x_t
        assert printed == pytest.approx(condition(cov, mean, {t: x_t}, t - 1)[0], rel=1e-10)


def test_eq_03_guess() -> None:
    """The only clean image that turns into x_t when this noise is added, found by a root finder's algebra."""
    x0, x_t, epsilon = sp.symbols("x_0 x_t epsilon", real=True)
    abar = sp.symbols("abar", positive=True)
    [solution] = sp.solve(sp.Eq(x_t, sp.sqrt(abar) * x0 + sp.sqrt(1 - abar) * epsilon), x0)
    assert sp.simplify(solution - (x_t - sp.sqrt(1 - abar) * epsilon) / sp.sqrt(abar)) == 0


@pytest.mark.parametrize("t", [1, 2, 3, 4])
def test_eq_03_mean(t: int) -> None:
    """With the true noise, the printed mean is the one that the chain's covariance gives; with alpha_T it is not."""
    x0, epsilon = 0.7, -1.3
    x_t = math.sqrt(ABAR[t - 1]) * x0 + math.sqrt(1 - ABAR[t - 1]) * epsilon
    mean, cov = given_start(x0)
    truth, _ = condition(cov, mean, {t: x_t}, t - 1)
    inside = x_t - BETAS[t - 1] / math.sqrt(1 - ABAR[t - 1]) * epsilon
    assert inside / math.sqrt(ALPHAS[t - 1]) == pytest.approx(truth, rel=1e-10)
    if t < len(BETAS):
        assert abs(inside / math.sqrt(ALPHAS[-1]) - truth) > 1e-2


def test_eq_03_large() -> None:
    cov = chain_covariance(1.0)
    for t in range(1, len(BETAS) + 1):
        assert condition(cov, np.zeros(5), {t: 0.6}, t - 1)[1] == pytest.approx(BETAS[t - 1], rel=1e-10)


def gaussian_kl(mean: float, variance: float, other_mean: float, other_variance: float) -> float:
    """KL divergence of two normal distributions by numerical integration."""
    sd, other = math.sqrt(variance), math.sqrt(other_variance)

    def integrand(x: float) -> float:
        log = stats.norm.logpdf(x, mean, sd)
        return math.exp(log) * (log - stats.norm.logpdf(x, other_mean, other))

    return float(integrate.quad(integrand, mean - 12 * sd, mean + 12 * sd, epsabs=1e-12)[0])


def test_eq_03_bound() -> None:
    """A chain of two steps, with a model that is not perfect: both sides by integration over a grid."""
    betas = np.array([0.3, 0.5])
    alphas, abar = 1 - betas, np.cumprod(1 - betas)
    x0, gains, spreads = 0.8, (0.6, 0.75), (0.5, 0.65)  # p(x_{t-1} | x_t) = N(gain x_t, spread ** 2)
    grid = np.linspace(-9, 9, 1201)
    one, two = np.meshgrid(grid, grid, indexing="ij")  # x_1, x_2

    def integral(values: F64) -> float:
        return float(integrate.trapezoid(integrate.trapezoid(values, grid), grid))

    log_q = stats.norm.logpdf(one, math.sqrt(alphas[0]) * x0, math.sqrt(betas[0]))
    log_q += stats.norm.logpdf(two, math.sqrt(alphas[1]) * one, math.sqrt(betas[1]))
    log_p = stats.norm.logpdf(two) + stats.norm.logpdf(one, gains[1] * two, spreads[1])
    log_last = stats.norm.logpdf(x0, gains[0] * one, spreads[0])
    surprise = -math.log(integral(np.exp(log_p + log_last)))
    middle = integral(np.exp(log_q) * (log_q - log_p - log_last))
    assert surprise < middle

    # The three terms, the middle one averaged over q(x_2 | x_0).
    nothing_to_learn = gaussian_kl(math.sqrt(abar[1]) * x0, 1 - abar[1], 0.0, 1.0)
    variance = 1 / (alphas[1] / betas[1] + 1 / betas[0])
    points, weights = np.polynomial.hermite_e.hermegauss(12)
    step_back = 0.0
    for point, weight in zip(points, weights / weights.sum(), strict=True):
        x_2 = math.sqrt(abar[1]) * x0 + math.sqrt(1 - abar[1]) * point
        mean = variance * (math.sqrt(alphas[1]) / betas[1] * x_2 + math.sqrt(alphas[0]) / betas[0] * x0)
        step_back += weight * gaussian_kl(mean, variance, gains[1] * x_2, spreads[1] ** 2)
    last = -integral(np.exp(log_q) * log_last)
    assert nothing_to_learn + step_back + last == pytest.approx(middle, rel=1e-6)


@pytest.mark.parametrize(("mean", "other", "sd"), [(0.3, -0.8, 0.4), (1.0, 1.5, 2.0)])
def test_eq_03_kl(mean: float, other: float, sd: float) -> None:
    assert (mean - other) ** 2 / (2 * sd**2) == pytest.approx(gaussian_kl(mean, sd**2, other, sd**2), rel=1e-8)


def test_eq_03_weight() -> None:
    """Both means are taken from x_0 and the guessed x_0, not from the noises that the equation compares."""
    _, x0, _, alpha, before = symbols()
    epsilon, guess = sp.symbols("epsilon epsilon_theta", real=True)
    spread = sp.symbols("sigma", positive=True)
    beta, abar = 1 - alpha, alpha * before
    x_t = sp.sqrt(abar) * x0 + sp.sqrt(1 - abar) * epsilon
    x0_guess = (x_t - sp.sqrt(1 - abar) * guess) / sp.sqrt(abar)
    of_x0 = sp.sqrt(before) * beta / (1 - abar)  # x_t has the same weight in both means
    left = (of_x0 * (x0 - x0_guess)) ** 2 / (2 * spread**2)
    right = beta**2 / (2 * spread**2 * alpha * (1 - abar)) * (epsilon - guess) ** 2
    assert sp.simplify(left - right) == 0


def test_eq_03_loss() -> None:
    """The best guess in the sense of the loss is the conditional mean; the value is a mean over pixels.

    Data N(0, s^2 I): the best linear guess of the noise is known, and the loss it leaves does not depend on D.
    """
    s, abar = 0.5, 0.6
    gain = math.sqrt(1 - abar) / (abar * s**2 + 1 - abar)  # E[eps | x_t] = gain x_t, from the covariances
    rng = np.random.default_rng(0)
    losses = []
    for pixels in (4, 400):
        x0, eps = s * rng.normal(size=(400_000 // pixels, pixels)), rng.normal(size=(400_000 // pixels, pixels))
        x_t = math.sqrt(abar) * x0 + math.sqrt(1 - abar) * eps
        loss = [np.mean(np.sum((eps - k * x_t) ** 2, 1) / pixels) for k in (0.9 * gain, gain, 1.1 * gain)]
        assert loss[1] < loss[0] and loss[1] < loss[2]
        losses.append(loss[1])
    assert losses == pytest.approx([1 - gain * math.sqrt(1 - abar)] * 2, rel=0.01)


def test_eq_03_velocity() -> None:
    """v is the speed of x_t on the quarter circle, and the two inversions return what went in."""
    x0, epsilon, angle = sp.symbols("x_0 epsilon phi", real=True)
    x_t = sp.cos(angle) * x0 + sp.sin(angle) * epsilon  # cos = sqrt(abar), sin = sqrt(1 - abar)
    v = sp.cos(angle) * epsilon - sp.sin(angle) * x0
    assert sp.simplify(sp.diff(x_t, angle) - v) == 0
    assert sp.simplify(sp.cos(angle) * x_t - sp.sin(angle) * v - x0) == 0
    assert sp.simplify(sp.sin(angle) * x_t + sp.cos(angle) * v - epsilon) == 0


def test_eq_03_errors() -> None:
    x0, guess, x_t = sp.symbols("x_0 guess x_t", real=True)
    abar = sp.symbols("abar", positive=True)
    snr = abar / (1 - abar)

    def noise(clean: sp.Expr) -> sp.Expr:
        return (x_t - sp.sqrt(abar) * clean) / sp.sqrt(1 - abar)

    def velocity(clean: sp.Expr) -> sp.Expr:
        return sp.sqrt(abar) * noise(clean) - sp.sqrt(1 - abar) * clean

    assert sp.simplify((noise(x0) - noise(guess)) ** 2 - snr * (x0 - guess) ** 2) == 0
    assert sp.simplify((velocity(x0) - velocity(guess)) ** 2 - (snr + 1) * (x0 - guess) ** 2) == 0


def test_eq_03_odds() -> None:
    """Three suspects as very narrow bells: the mean of x_0 given x_t, by integration over x_0."""
    suspects, abar, x_t, width = np.array([-1.0, 0.1, 0.9]), 0.4, 0.25, 1e-3
    odds = np.exp(-((x_t - math.sqrt(abar) * suspects) ** 2) / (2 * (1 - abar)))
    printed = float(odds @ suspects / odds.sum())
    top = bottom = 0.0
    for suspect in suspects:
        x0 = np.linspace(suspect - 6 * width, suspect + 6 * width, 2001)
        density = stats.norm.pdf(x0, suspect, width) / 3
        density = density * stats.norm.pdf(x_t, math.sqrt(abar) * x0, math.sqrt(1 - abar))
        top += float(integrate.trapezoid(density * x0, x0))
        bottom += float(integrate.trapezoid(density, x0))
    assert printed == pytest.approx(top / bottom, abs=1e-5)


def test_eq_03_flow() -> None:
    """Data N(0, s^2), where the best noise guess is a covariance ratio: the flow carries each level into the next."""
    s, start, end = 0.7, 8.0, 0.05  # noise-to-signal ratios

    def guess(ratio: float, y: F64) -> F64:
        """E[eps | x_t] for y = x_t / sqrt(abar) = x_0 + ratio * eps."""
        return ratio * y / (s**2 + ratio**2)

    y0 = np.array([-1.0, 0.3, 2.0]) * math.sqrt(s**2 + start**2)
    solved = integrate.solve_ivp(guess, (start, end), y0, rtol=1e-10, atol=1e-12)
    assert solved.y[:, -1] == pytest.approx(np.array([-1.0, 0.3, 2.0]) * math.sqrt(s**2 + end**2), rel=1e-7)


def test_eq_03_minsnr() -> None:
    """The weighted error of v is the image error times min(SNR, gamma), for errors that a wrong image implies."""
    rng = np.random.default_rng(1)
    for abar in (0.999, 0.9, 0.5, 0.01):
        x0, x_t, guess = rng.normal(size=(3, 64))
        v, v_guess = (
            math.sqrt(abar) * (x_t - math.sqrt(abar) * clean) / math.sqrt(1 - abar) - math.sqrt(1 - abar) * clean
            for clean in (x0, guess)
        )
        snr = abar / (1 - abar)
        left = min(snr, 5) / (snr + 1) * np.mean((v - v_guess) ** 2)
        assert left == pytest.approx(min(snr, 5) * np.mean((x0 - guess) ** 2), rel=1e-10)
