"""Every labelled equation of chapter 13 on another road: optimal transport, all samples of a die, moments, loops."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import special, stats
from scipy.linalg import sqrtm

from mame_lib.evaluation import copies, damages, fidelity, memorization

RNG = np.random.default_rng


def test_eq_13_line() -> None:
    """The cheapest way to carry one heap of sand to another keeps the order: quantile to quantile, integrated."""
    height = (np.arange(200_000) + 0.5) / 200_000
    z = stats.norm.ppf(height)
    for (m1, s1), (m2, s2) in (((0, 1), (3, 1)), ((0, 1), (0, 4)), ((-1, 2), (2, 0.5))):
        work = np.mean((m1 + s1 * z - m2 - s2 * z) ** 2)
        assert work == pytest.approx((m1 - m2) ** 2 + (s1 - s2) ** 2, rel=1e-4)


def test_eq_13_frechet() -> None:
    """The map that carries one Gaussian onto the other costs exactly this, and other maps cost more."""
    rng = RNG(0)
    a, b = rng.normal(size=(2, 3, 3))
    s1, s2, gap = a @ a.T, b @ b.T, rng.normal(size=3)
    half = np.real(sqrtm(s1))
    inner = np.real(sqrtm(half @ s2 @ half))
    printed = gap @ gap + np.trace(s1 + s2 - 2 * np.real(sqrtm(s1 @ s2)))
    move = np.linalg.inv(half) @ inner @ np.linalg.inv(half)

    def cost(m: np.ndarray) -> float:
        """Mean squared way of x -> mx + shift when x has the covariance s1."""
        return float(gap @ gap + np.trace((np.eye(3) - m) @ s1 @ (np.eye(3) - m).T))

    assert move @ s1 @ move.T == pytest.approx(s2)
    assert cost(move) == pytest.approx(printed)
    for _ in range(20):  # every other linear map onto s2 differs by a turn
        turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
        other = np.real(sqrtm(s2)) @ turn @ np.linalg.inv(half)
        assert other @ s1 @ other.T == pytest.approx(s2) and cost(other) >= printed - 1e-9
    real, fake = rng.normal(size=(50, 4)), rng.normal(size=(70, 4)) @ rng.normal(size=(4, 4))
    c1, c2 = np.cov(real.T), np.cov(fake.T)
    by_hand = ((real.mean(0) - fake.mean(0)) ** 2).sum() + np.trace(c1 + c2 - 2 * np.real(sqrtm(c1 @ c2)))
    assert fidelity.frechet(real, fake) == pytest.approx(by_hand, rel=1e-6)


def test_eq_13_floor() -> None:
    """Two samples of one white Gaussian, many times: their mean distance is what is printed, to a few percent."""
    rng = RNG(1)
    for d, n in ((4, 200), (8, 500)):
        found = [fidelity.frechet(rng.normal(size=(n, d)), rng.normal(size=(n, d))) for _ in range(120)]
        assert np.mean(found) == pytest.approx((d**2 + 5 * d) / (2 * n), rel=0.08)


def test_eq_13_infinity() -> None:
    """Known Gaussians: the values of growing samples, drawn out to 1/n = 0, end at the formula's distance."""
    rng, truth, sizes = RNG(2), 0.3**2 * 4 + 4 * 0.2**2, np.array([50, 100, 200, 400])
    means = [
        np.mean([fidelity.frechet(rng.normal(size=(n, 4)), rng.normal(0.3, 1.2, (n, 4))) for _ in range(60)])
        for n in sizes
    ]
    slope, end = np.polyfit(1 / sizes, means, 1)
    assert slope > 0 and end == pytest.approx(truth, rel=0.05)
    assert means[0] > 1.2 * truth


def test_eq_13_mmd() -> None:
    """(x y + 1)^3 multiplied out: in one dimension the distance compares the first three moments, and no more."""
    dice = {0.0: 0.2, 1.0: 0.5, 3.0: 0.3}, {0.0: 0.4, 1.0: 0.1, 2.0: 0.5}

    def mean(a: dict[float, float], b: dict[float, float]) -> float:
        return sum(p * q * (x * y + 1) ** 3 for x, p in a.items() for y, q in b.items())

    printed = mean(dice[0], dice[0]) + mean(dice[1], dice[1]) - 2 * mean(*dice)
    moments = [[sum(p * x**j for x, p in die.items()) for j in range(4)] for die in dice]
    by_moments = sum(math.comb(3, j) * (a - b) ** 2 for j, (a, b) in enumerate(zip(*moments, strict=True)))
    assert printed == pytest.approx(by_moments)


def test_eq_13_kernel() -> None:
    """The mean over *all* samples that two coins can give is the true distance; with the diagonals it is larger."""
    faces, n = (0.0, 1.0), 3
    p, q = 0.3, 0.6

    def k(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (a[:, None] * b[None] + 1) ** 3

    def off(m: np.ndarray) -> float:
        return float((m.sum() - np.trace(m)) / (n * (n - 1)))

    unbiased = biased = 0.0
    for x, y in itertools.product(itertools.product(faces, repeat=n), repeat=2):
        chance = math.prod(p if v else 1 - p for v in x) * math.prod(q if v else 1 - q for v in y)
        a, b = np.array(x), np.array(y)
        unbiased += chance * (off(k(a, a)) + off(k(b, b)) - 2 * k(a, b).mean())
        biased += chance * (k(a, a).mean() + k(b, b).mean() - 2 * k(a, b).mean())
    truth = sum(math.comb(3, j) for j in (1, 2, 3)) * (p - q) ** 2  # all moments of a coin are its chance
    assert unbiased == pytest.approx(truth) and biased > truth + 0.5
    rng = RNG(3)
    real, fake = rng.normal(size=(40, 5)), rng.normal(0.4, 1, (40, 5))
    gram = [(u @ v.T / 5 + 1) ** 3 for u, v in ((real, real), (fake, fake), (real, fake))]
    by_hand = sum((g.sum() - np.trace(g)) / (40 * 39) for g in gram[:2]) - 2 * gram[2].mean()
    assert fidelity.kernel_distance(real, fake).value == pytest.approx(by_hand, rel=1e-6)


def _balls(guests: np.ndarray, centers: np.ndarray, k: int) -> np.ndarray:
    """bool [guests, centers], by loops over sorted distances."""
    radii = [sorted(math.dist(a, b) for b in centers)[k] for a in centers]
    return np.array([[math.dist(g, c) < r for c, r in zip(centers, radii, strict=True)] for g in guests])


def test_eq_13_balls() -> None:
    """Loops equal the library; and a set that lies on a part of the other has full precision and little recall."""
    rng = RNG(4)
    real, fake = rng.normal(size=(40, 3)), rng.normal(0.5, 1.2, (30, 3))
    found = fidelity.prdc(real, fake, k=3)
    assert found.precision == pytest.approx(_balls(fake, real, 3).any(1).mean())
    assert found.recall == pytest.approx(_balls(real, fake, 3).any(1).mean())
    two = np.r_[rng.normal(size=(30, 2)), rng.normal(size=(30, 2)) + 30]
    part = two[:30] + 0.01 * rng.normal(size=(30, 2))
    assert _balls(part, two, 3).any(1).mean() > 0.9
    assert _balls(two, part, 3).any(1).mean() <= 0.5


def test_eq_13_density() -> None:
    """Loops equal the library; the mean density of equal distributions is 1: k of n balls hold any one point."""
    rng = RNG(5)
    real, fake = rng.normal(size=(40, 3)), rng.normal(0.5, 1.2, (30, 3))
    found, inside = fidelity.prdc(real, fake, k=3), _balls(fake, real, 3)
    assert found.density == pytest.approx(inside.sum() / (3 * 30))
    radii = [sorted(math.dist(a, b) for b in real)[3] for a in real]
    near = [min(math.dist(r, f) for f in fake) for r in real]
    assert found.coverage == pytest.approx(np.mean(np.array(near) < np.array(radii)))
    many = [fidelity.prdc(rng.normal(size=(60, 2)), rng.normal(size=(60, 2)), k=5).density for _ in range(40)]
    assert np.mean(many) == pytest.approx(1, abs=0.06)


def test_eq_13_chance() -> None:
    """All n - 1 + m others are equally likely to be the nearest: shuffle their labels and count."""
    rng = RNG(6)
    for n, m, k in ((30, 30, 5), (20, 50, 2)):
        printed = 1 - math.prod((n - 1 - j) / (n - 1 + m - j) for j in range(k))
        others = np.r_[np.zeros(n - 1), np.ones(m)]
        shuffled = rng.permuted(np.tile(others, (5_000, 1)), axis=1)[:, :k].any(1).mean()
        assert shuffled == pytest.approx(printed, abs=0.015)
        found = [fidelity.prdc(rng.normal(size=(n, 3)), rng.normal(size=(m, 3)), k=k).coverage for _ in range(60)]
        assert np.mean(found) == pytest.approx(printed, abs=0.04)


def test_eq_13_copy() -> None:
    """Vectors of length 1 are sqrt(2 - 2 r) apart; a moved, darker copy has 0, and the library finds it, too."""
    rng = RNG(7)
    x, y = rng.normal(size=(2, 400)) + 0.5
    unit = [(v - v.mean()) / np.linalg.norm(v - v.mean()) for v in (x, y)]
    assert np.linalg.norm(unit[0] - unit[1]) == pytest.approx(math.sqrt(2 - 2 * np.corrcoef(x, y)[0, 1]))
    training = damages.draw_phantoms(6, seed=13_700_000).images
    moved = [np.roll(0.8 * training[2], (-4, 0), (0, 1)), training[4][:, ::-1], training[1]]
    images = np.stack([np.asarray(one, np.uint8) for one in moved])
    found = copies.search(copies.prepare(images), copies.prepare(training))["pixel"]
    assert found.index[:, 0].tolist() == [2, 4, 1]
    assert found.distance[:, 0].max() < 0.1 < found.distance[:, 1].min()
    assert found.transform[1].flip == "h" and found.transform[0].dy == pytest.approx(4 / 128)


def test_eq_13_ratio() -> None:
    """Strangers, spread evenly in d dimensions: what the order of their distances predicts, and the library's words."""
    rng, n = RNG(8), 400
    for d in (2, 8, 32):
        near = np.sort(rng.random((600, n)) ** (1 / d), 1)  # distances of points spread evenly in a ball, sorted
        expected = special.gammaln(np.arange(1, 52) + 1 / d) - special.gammaln(np.arange(1, 52))
        expected = np.exp(expected + special.gammaln(n + 1) - special.gammaln(n + 1 + 1 / d))  # E of the j-th smallest
        ratio = near[:, 0] / near[:, 1:51].mean(1)
        assert ratio.mean() == pytest.approx(expected[0] / expected[1:].mean(), abs=0.02)
        rows = np.arange(600)
        said = memorization.Neighbors(rows, near[:, 0], near[:, 1], near[:, 1:51].mean(1))
        assert said.ratio == pytest.approx(ratio)
    assert ratio.mean() > 0.85  # in many dimensions all strangers are equally far, and only a copy stands out


def _matches(scores: np.ndarray) -> memorization.Matches:
    """Matches with these distances [N] in the detail, and others that say nothing."""
    one = np.ones_like(scores)
    spaces = {"pixel": (one, one), "detail": (scores, one)}
    found = {name: memorization.Neighbors(one.astype(int), a, b, b) for name, (a, b) in spaces.items()}
    return memorization.Matches(found, (copies.Transform(),) * len(scores))


def test_eq_13_suspicion() -> None:
    """The library's suspicion of 400 held-out images and of a copy is the printed one, of whichever score is worst."""
    held_out = RNG(9).lognormal(0, 0.1, 400)
    told = memorization.calibrate(np.zeros((3, 64, 64), np.uint8), _matches(held_out))
    logs = np.log(held_out)
    scale = np.median(logs) - np.quantile(logs, 0.01)
    new = np.array([1.0, 0.05])
    printed = (np.median(logs) - np.log(new)) / scale
    assert told.of(_matches(new)) == pytest.approx(np.maximum(printed, 0))
    assert printed[1] > told.threshold


def test_eq_13_alarm() -> None:
    """Calibrate thousands of times on numbers whose true rate is known: the promise breaks in 5 % of them at most."""
    rng, rate = RNG(10), 0.01
    for n, allowed in ((299, 1), (1000, 5)):
        tails = stats.binom.cdf(np.arange(n), n, rate)  # P(B <= j), so P(B < k) is tails[k - 1]
        assert int((tails <= 0.05).sum()) == allowed
        values = rng.random((4_000, n))  # a new number is above t with the chance 1 - t
        threshold = np.sort(values, 1)[:, -allowed]
        broken = (1 - threshold > rate).mean()
        assert broken == pytest.approx(tails[allowed - 1], abs=0.012) and broken < 0.06
        assert stats.beta(allowed, n + 1 - allowed).sf(rate) == pytest.approx(tails[allowed - 1])
        told = memorization.calibrate(np.zeros((3, 64, 64), np.uint8), _matches(np.exp(values[0])))
        assert told.allowed == allowed and (told.suspicion > told.threshold).sum() == allowed - 1
    assert memorization.fewest() == 299 and 0.99**298 > 0.05 >= 0.99**299
