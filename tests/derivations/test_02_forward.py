"""Chapter 02, every labeled equation computed again, another way than the library and the chapter do.

Random checks have fixed seeds, so they give the same answer every time; their bounds are chosen such that a right
formula fails with probability below `ALPHA`, had the seed been drawn.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import sympy as sp
from scipy import integrate, stats

ALPHA = 1e-6
BETAS = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2  # Stable Diffusion 1.5
ABAR = np.exp(np.cumsum(np.log1p(-BETAS)))  # a sum of logarithms, not a product


def _normal(x: sp.Expr, mean: sp.Expr, variance: sp.Expr) -> sp.Expr:
    return sp.exp(-((x - mean) ** 2) / (2 * variance)) / sp.sqrt(2 * sp.pi * variance)


def _walk(x0: float, count: int, steps: int, seed: int, sd_of: str = "root") -> np.ndarray:
    """`count` chains of Eq. 2, taken step by step, [count] float64; sd_of="beta" walks wrongly on purpose."""
    rng, x = np.random.default_rng(seed), np.full(count, x0)
    for beta in BETAS[:steps]:
        x = np.sqrt(1 - beta) * x + (np.sqrt(beta) if sd_of == "root" else beta) * rng.standard_normal(count)
    return x


def _unlike(x: np.ndarray, mean: float, variance: float) -> float:
    """Smallest p-value of three tests that x [n] is a sample of N(mean, variance): mean, variance, whole shape."""
    n, z = len(x), (x - mean) / math.sqrt(variance)
    by_mean = 2 * stats.norm.sf(abs(z.mean()) * math.sqrt(n))
    tail = stats.chi2.cdf((z**2).sum(), n)
    return min(by_mean, 2 * min(tail, 1 - tail), stats.kstest(z, "norm").pvalue)


def test_eq_02_step() -> None:
    """A density with the printed mean and variance, which keeps a unit variance at one."""
    x, before, beta = sp.symbols("x x_before beta", positive=True)
    q = _normal(x, sp.sqrt(1 - beta) * before, beta).subs({before: sp.Rational(4, 5), beta: sp.Rational(9, 25)})

    def moment(k: int) -> float:
        return integrate.quad(sp.lambdify(x, x**k * q), -8, 8, epsabs=1e-12)[0]

    assert moment(0) == pytest.approx(1)
    assert moment(1) == pytest.approx(0.8 * 0.8)  # sqrt(1 - 9/25) = 4/5, of x_before = 4/5
    assert moment(2) - moment(1) ** 2 == pytest.approx(9 / 25)
    # law of total variance for x_before of variance 1: shrunk variance plus added variance
    assert sp.simplify(sp.sqrt(1 - beta) ** 2 * 1 + beta) == 1


def test_eq_02_chain() -> None:
    """The joint density of a Markov chain is the product of its steps: two steps of a linear Gaussian system."""
    b1, b2, x0 = 0.3, 0.6, 1.7
    # written as a linear map of two independent noises, the pair (x1, x2) is jointly Gaussian
    mix = np.array([[math.sqrt(b1), 0], [math.sqrt((1 - b2) * b1), math.sqrt(b2)]])
    mean = x0 * np.array([math.sqrt(1 - b1), math.sqrt((1 - b1) * (1 - b2))])
    joint = stats.multivariate_normal(mean, mix @ mix.T)
    for x1, x2 in ((0.0, 0.0), (1.2, -0.4), (-2.0, 1.0)):
        steps = [stats.norm.pdf(b, math.sqrt(1 - beta) * a, math.sqrt(beta)) for a, b, beta in
                 ((x0, x1, b1), (x1, x2, b2))]  # fmt: skip
        assert joint.pdf([x1, x2]) == pytest.approx(math.prod(steps), rel=1e-12)


def test_eq_02_jump() -> None:
    """Integrate x_1 out of two steps by hand, then by induction: mean and variance of any number of steps."""
    x1, x2 = sp.symbols("x1 x2", real=True)
    x0, a1, a2 = sp.Rational(7, 5), sp.Rational(16, 25), sp.Rational(9, 16)
    both = _normal(x1, sp.sqrt(a1) * x0, 1 - a1) * _normal(x2, sp.sqrt(a2) * x1, 1 - a2)
    marginal = sp.integrate(sp.expand_log(both), (x1, -sp.oo, sp.oo))
    printed = _normal(x2, sp.sqrt(a1 * a2) * x0, 1 - a1 * a2)
    for value in (-1, 0, sp.Rational(3, 2)):
        assert float(marginal.subs(x2, value)) == pytest.approx(float(printed.subs(x2, value)), rel=1e-12)
    # induction: if the variance before is 1 - p, then after a step with alpha it is 1 - p alpha
    p, alpha = sp.symbols("p alpha", positive=True)
    assert sp.expand(alpha * (1 - p) + (1 - alpha) - (1 - p * alpha)) == 0
    # and so for the real schedule, from the recursion of mean and variance
    mean, variance = 1.0, 0.0
    for t, beta in enumerate(BETAS):
        mean, variance = math.sqrt(1 - beta) * mean, (1 - beta) * variance + beta
        assert mean == pytest.approx(math.sqrt(ABAR[t]), rel=1e-12)
        assert variance == pytest.approx(1 - ABAR[t], rel=1e-9)


@pytest.mark.parametrize("steps", [1, 40, 300, 1000])
def test_the_walk_of_eq_2_is_the_jump_of_eq_3_in_distribution(steps: int) -> None:
    """20,000 chains: mean, variance and Kolmogorov-Smirnov, each at ALPHA / 3, so together at most ALPHA."""
    abar = ABAR[steps - 1]
    assert _unlike(_walk(1.5, 20_000, steps, seed=steps), 1.5 * math.sqrt(abar), 1 - abar) > ALPHA / 3


def test_a_wrong_walk_or_a_wrong_jump_is_rejected() -> None:
    """The same test has the power to see the mistakes that are really made."""
    right, mean, variance = _walk(1.5, 20_000, 300, seed=0), 1.5 * math.sqrt(ABAR[299]), 1 - ABAR[299]
    assert _unlike(right, mean, variance) > ALPHA / 3
    assert _unlike(_walk(1.5, 20_000, 300, seed=0, sd_of="beta"), mean, variance) < ALPHA / 3
    assert _unlike(right, 1.5 * ABAR[299], variance) < ALPHA / 3, "abar without its root in the mean"
    assert _unlike(right, mean, math.sqrt(variance)) < ALPHA / 3, "a standard deviation taken for the variance"
    assert _unlike(_walk(1.5, 20_000, 270, seed=0), mean, variance) < ALPHA / 3, "thirty steps too few"


def test_eq_02_sample() -> None:
    """A scaled and shifted standard normal number has the density of the jump: change of variables."""
    x0, t = -0.4, 377
    signal, sigma = math.sqrt(ABAR[t]), math.sqrt(1 - ABAR[t])
    for epsilon in (-2.0, 0.0, 0.7):
        x_t = signal * x0 + sigma * epsilon
        assert stats.norm.pdf(epsilon) / sigma == pytest.approx(stats.norm.pdf(x_t, signal * x0, sigma), rel=1e-12)
    assert signal**2 + sigma**2 == pytest.approx(1)


def test_eq_02_snr() -> None:
    """Power of the image over power of the noise, from an image of unit power, and by a recursion of its reciprocal."""
    rng = np.random.default_rng(3)
    x0 = rng.standard_normal(2000)
    x0 /= np.sqrt((x0**2).mean())  # unit power, exactly
    for t in (0, 353, 354, 999):
        image, noise = np.sqrt(ABAR[t]) * x0, math.sqrt(1 - ABAR[t])  # noise: its standard deviation
        assert (image**2).mean() / noise**2 == pytest.approx(ABAR[t] / (1 - ABAR[t]), rel=1e-12)
    # the reciprocal grows by the rule 1 + 1/SNR_t = (1 + 1/SNR_{t-1}) / alpha_t, which fixes it for all t
    inverse = (1 - ABAR) / ABAR
    assert 1 + inverse[1:] == pytest.approx((1 + inverse[:-1]) / (1 - BETAS[1:]), rel=1e-12)


def _likelihood_ratio(x: np.ndarray, x0: np.ndarray, s: np.ndarray, abar: float) -> np.ndarray:
    """log q(x_t | x_0 + s) - log q(x_t | x_0) from the densities themselves, [n] for x [n, d]."""
    spread = math.sqrt(1 - abar)
    return (
        stats.norm.logpdf(x, math.sqrt(abar) * (x0 + s), spread) - stats.norm.logpdf(x, math.sqrt(abar) * x0, spread)
    ).sum(1)


def test_eq_02_detect() -> None:
    """d' from Monte Carlo of the likelihood ratio, the best statistic there is (Neyman and Pearson)."""
    rng, n, d = np.random.default_rng(4), 40_000, 12
    x0, s = rng.uniform(-1, 1, d), rng.uniform(-0.3, 0.5, d)
    for abar in (0.9, 0.5, 0.05):
        noisy = [math.sqrt(abar) * image + math.sqrt(1 - abar) * rng.standard_normal((n, d)) for image in (x0 + s, x0)]
        ill, healthy = (_likelihood_ratio(x, x0, s, abar) for x in noisy)
        measured = (ill.mean() - healthy.mean()) / math.sqrt((ill.var() + healthy.var()) / 2)
        printed = math.sqrt(abar / (1 - abar)) * math.sqrt((s**2).sum())
        # the estimate of d' has a standard error of sqrt(2 / n + d'^2 / 4n); 4.9 of them leave less than ALPHA outside
        assert abs(measured - printed) < 4.9 * math.sqrt((2 + printed**2 / 4) / n)
        # and the printed ratio is the difference of the logarithms
        x = noisy[0]
        by_hand = math.sqrt(abar) / (1 - abar) * (x - math.sqrt(abar) * x0) @ s - abar * (s**2).sum() / 2 / (1 - abar)
        np.testing.assert_allclose(by_hand, _likelihood_ratio(x, x0, s, abar), rtol=1e-9, atol=1e-9)


def test_eq_02_choice() -> None:
    """P(score with > score without) for N(d', 1) and N(0, 1): an integral, without the difference of the two."""
    for d in (0.0, 0.5, 1.0, 2.5):
        wins = integrate.quad(lambda x, d=d: stats.norm.pdf(x, d) * stats.norm.cdf(x), -12, 15, epsabs=1e-12)[0]
        assert wins == pytest.approx(0.5 * (1 + math.erf(d / 2)), abs=1e-9)  # Phi(d / sqrt 2)
        assert wins == pytest.approx(stats.norm.cdf(d / math.sqrt(2)), abs=1e-9)


@pytest.mark.parametrize(("pixels", "expected"), [(256, -0.69), (4096, -0.20)])
def test_eq_02_gray(pixels: int, expected: float) -> None:
    """The probability-flow ODE of the one number, solved backwards with its exact score, from a standard normal.

    In the noise-to-signal ratio r = sigma / signal and y = x / signal, the flow is dy/dr = (y - E[x_0 | y]) / r.
    """
    mu, tau = -1.0, 0.3
    center, spread = math.sqrt(pixels) * mu, math.sqrt(pixels) * tau  # of the sum over sqrt(D) in the data

    def clean(y: np.ndarray, r: float) -> np.ndarray:  # E[x_0 | y], y = x_0 + r eps
        return (spread**2 * y + r**2 * center) / (spread**2 + r**2)

    first = math.sqrt((1 - ABAR[-1]) / ABAR[-1])
    starts = np.array([-1.0, 0.0, 2.0])  # of the standard normal number
    flow = integrate.solve_ivp(
        lambda u, y: y - clean(y, math.exp(u)), (math.log(first), math.log(1e-6)), starts / math.sqrt(ABAR[-1]),
        rtol=1e-10, atol=1e-10,
    )  # fmt: skip
    left, middle, right = flow.y[:, -1] / math.sqrt(pixels)
    assert right - middle == pytest.approx(2 * (middle - left), rel=1e-6), "the sampler is a straight line"
    den = math.sqrt(ABAR[-1] * pixels * tau**2 + 1 - ABAR[-1])
    assert middle == pytest.approx(mu * (1 - tau * math.sqrt(ABAR[-1] * pixels) / den), rel=1e-5)
    assert middle == pytest.approx(expected, abs=0.005)
