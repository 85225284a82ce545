"""Checks of chapter 13, fidelity. Truth is counted pair by pair, or follows another formula."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mame_lib.teaching.checks import Hint, exercise, number, two_numbers

F64 = NDArray[np.float64]


@exercise("13-frechet")
def frechet(answer: Any) -> None:
    rng = np.random.default_rng(0)
    mixed = rng.normal(size=(30, 3)) @ rng.normal(size=(3, 3))
    cases = {
        "two means, one spread": (rng.normal(size=(20, 1)), 0.0, 3.0, 1.0),
        "one mean, two spreads": (rng.normal(size=(20, 1)), 0.0, 0.0, 4.0),
        "three features that go together": (mixed, 0.3, 0.5, 2.0),
    }
    for name, (real, tilt, shift, scale) in cases.items():
        fake = scale * real[:12] + shift + tilt * rng.normal(size=(12, real.shape[1])) * np.arange(1, real.shape[1] + 1)
        value = number(answer(real.copy(), fake.copy()))
        gap, s1, s2 = real.mean(0) - fake.mean(0), np.cov(real.T, ddof=1), np.cov(fake.T, ddof=1)
        s1, s2 = np.atleast_2d(s1), np.atleast_2d(s2)
        means, spread = float(gap @ gap), float(np.trace(s1) + np.trace(s2))
        root = float(np.sqrt(np.clip(np.linalg.eigvals(s1 @ s2).real, 0, None)).sum())
        truth = means + spread - 2 * root
        if abs(value - truth) < 1e-6 * max(1, abs(truth)):
            continue
        if abs(value - math.sqrt(max(truth, 0))) < 1e-6:
            raise Hint("this is the distance; the number that everybody reports is its square, without the last root.")
        if abs(value - (math.sqrt(means) + spread - 2 * root)) < 1e-6:
            raise Hint("the means enter by the square of their distance, not by the distance itself.")
        if abs(value - (means + spread - root)) < 1e-6:
            raise Hint("the root counts twice: two equal sets must come out as 0.")
        if abs(value - (means + spread)) < 1e-6:
            raise Hint("the last term is missing: the spreads alone add up even for two equal sets.")
        b1, b2 = (s * (len(x) - 1) / len(x) for s, x in ((s1, real), (s2, fake)))
        biased = means + float(np.trace(b1 + b2)) - 2 * float(np.sqrt(np.abs(np.linalg.eigvals(b1 @ b2))).sum())
        if abs(value - biased) < 1e-6:
            raise Hint("your covariances divide by n; references divide by n - 1, and with few images one sees it.")
        if name == "three features that go together" and np.isfinite(value):
            elementwise = means + spread - 2 * float(np.trace(np.sqrt(np.abs(s1 @ s2))))
            apart = means + float(((np.sqrt(np.diag(s1)) - np.sqrt(np.diag(s2))) ** 2).sum())
            if abs(value - elementwise) < 1e-6:
                raise Hint("np.sqrt takes the root of each entry; a matrix's root has the roots of its eigenvalues.")
            if abs(value - apart) < 1e-6:
                raise Hint("you compare each feature alone; that two go together lies in the whole covariance.")
        raise Hint(f"{name}: you got {value:.4g} instead of {truth:.4g}.")


@exercise("13-kernel")
def kernel(answer: Any) -> None:
    rng = np.random.default_rng(1)
    for n, m, d in ((6, 6, 2), (5, 8, 3), (4, 7, 1)):
        x, y = rng.normal(size=(n, d)), rng.normal(0.5, 1.2, size=(m, d))

        value = number(answer(x.copy(), y.copy()))
        xx, yy, xy = _three_means(x, y)
        truth = xx + yy - 2 * xy
        near = 1e-8 * max(1.0, abs(xx) + abs(yy))
        if abs(value - truth) < near:
            continue
        vx, vy, vxy = _three_means(x, y, own=True)
        if abs(value - (vx + vy - 2 * vxy)) < near:
            raise Hint("your means hold each image beside itself: leave the diagonals out, they add too much.")
        if abs(value - (vx * n / (n - 1) + vy * m / (m - 1) - 2 * xy)) < near:
            raise Hint("you divide by n (n - 1), yet the diagonal is still in the sum: take it off.")
        if abs(value - (xx * (n - 1) / n + yy * (m - 1) / m - 2 * xy)) < near:
            raise Hint("the diagonal is gone, but you still divide by n² pairs: there are n (n - 1) of them.")
        if abs(value - (xx + yy - xy)) < near:
            raise Hint("the mean between the sets counts twice: the distance of a set to itself must be about 0.")
        if d > 1:
            ax, ay, axy = _three_means(x, y, over=1.0)
            if abs(value - (ax + ay - 2 * axy)) < 1e-8 * max(1.0, abs(ax) + abs(ay)):
                raise Hint("divide the inner product by d, the number of features, before you add 1.")
        for power in (1, 2):
            px, py, pxy = _three_means(x, y, power=power)
            if abs(value - (px + py - 2 * pxy)) < near:
                raise Hint(f"your kernel has the power {power}; the third is what lets it see skewed features.")
        if truth > 0 and abs(value - math.sqrt(truth)) < near:
            raise Hint("no root: an unbiased estimate is negative half of the time when the sets are alike.")
        raise Hint(f"with {n} and {m} images you got {value:.4g} instead of {truth:.4g}: three means, one twice.")


def _three_means(x: F64, y: F64, power: int = 3, over: float = 0, own: bool = False) -> tuple[float, float, float]:
    """Mean kernel within x, within y and between them, by loops; `own`: images beside themselves count, too."""

    def k(a: F64, b: F64) -> float:
        return float((sum(float(p) * float(q) for p, q in zip(a, b, strict=True)) / (over or x.shape[1]) + 1) ** power)

    def within(s: F64) -> float:
        pairs = [k(a, b) for (i, a), (j, b) in itertools.product(enumerate(s), repeat=2) if own or i != j]
        return sum(pairs) / len(pairs)

    between = [k(a, b) for a, b in itertools.product(x, y)]
    return within(x), within(y), sum(between) / len(between)


@exercise("13-balls")
def balls(answer: Any) -> None:
    rng = np.random.default_rng(2)
    blob = rng.normal(size=(24, 2))
    cases = {
        "one mode of two": (np.r_[blob, blob + 20], rng.normal(size=(15, 2)), 3),
        "half of the fakes far away": (blob, np.r_[rng.normal(size=(8, 2)), rng.normal(size=(9, 2)) * 0.1 + 30], 2),
        "two clouds": (blob, 1.2 * rng.normal(size=(30, 2)) + 0.8, 4),
    }
    for name, (real, fake, k) in cases.items():
        precision, recall = two_numbers(answer(real.copy(), fake.copy(), k), "(precision, recall)")
        truth = _covered(fake, real, k), _covered(real, fake, k)
        if max(abs(precision - truth[0]), abs(recall - truth[1])) < 1e-9:
            continue
        if max(abs(precision - truth[1]), abs(recall - truth[0])) < 1e-9:
            raise Hint("the two are exchanged: precision asks the fakes whether they lie in balls of real images.")
        if max(abs(precision - _covered(fake, real, k - 1)), abs(recall - _covered(real, fake, k - 1))) < 1e-9:
            raise Hint("each image is its own nearest neighbor, at distance 0: leave it out when you count to k.")
        own = _covered_by_own(fake, real, k), _covered_by_own(real, fake, k)
        if max(abs(precision - own[0]), abs(recall - own[1])) < 1e-9:
            raise Hint("the radius belongs to the center of the ball: it comes from the other set, not from the guest.")
        nearest = _nearest_ball(fake, real, k), _nearest_ball(real, fake, k)
        if max(abs(precision - nearest[0]), abs(recall - nearest[1])) < 1e-9:
            raise Hint("any ball will do, not that of the nearest center: a far center may have a large ball.")
        if abs(precision - recall) < 1e-9:
            raise Hint("precision and recall came out equal: in the second, real and fake change places.")
        if abs(precision - truth[0]) < 1e-9:
            raise Hint(f"{name}: precision is right; recall asks the real images whether they lie in balls of fakes.")
        raise Hint(f"{name}: ({precision:.2f}, {recall:.2f}) instead of ({truth[0]:.2f}, {truth[1]:.2f}).")


def _distance(a: F64, b: F64) -> float:
    return math.sqrt(sum((float(p) - float(q)) ** 2 for p, q in zip(a, b, strict=True)))


def _radii(points: F64, k: int) -> list[float]:
    """Distance of each point to its k-th neighbor, itself not counted; 0 for k = 0."""
    return [([0.0, *sorted(_distance(a, b) for j, b in enumerate(points) if j != i)])[k] for i, a in enumerate(points)]


def _covered(guests: F64, centers: F64, k: int) -> float:
    """Share of the guests that lie in a ball around some center."""
    radii = _radii(centers, k)
    inside = [any(_distance(g, c) < r for c, r in zip(centers, radii, strict=True)) for g in guests]
    return sum(inside) / len(inside)


def _covered_by_own(guests: F64, centers: F64, k: int) -> float:
    inside = [any(_distance(g, c) < r for c in centers) for g, r in zip(guests, _radii(guests, k), strict=True)]
    return sum(inside) / len(inside)


def _nearest_ball(guests: F64, centers: F64, k: int) -> float:
    radii, inside = _radii(centers, k), 0
    for g in guests:
        far, at = min((_distance(g, c), i) for i, c in enumerate(centers))
        inside += far < radii[at]
    return inside / len(guests)


@exercise("13-infinity")
def at_infinity(answer: Any) -> None:
    rng = np.random.default_rng(3)
    cases = [([50, 100, 200], [3.0, 2.0, 1.5]), ([40, 80, 160, 320], [9.0, 5.1, 3.2, 2.0])]
    cases.append((sizes := [30, 60, 90, 150], list(0.4 + 20 / np.array(sizes) + rng.normal(0, 0.05, 4))))
    for sizes, values in cases:
        value = number(answer(list(sizes), list(values)))

        def line(x: list[float], values: list[float] = values) -> tuple[float, float]:
            """Intercept and slope of the least squares line, by its sums."""
            n, sx, sy = len(x), sum(x), sum(values)
            sxy, sxx = sum(a * b for a, b in zip(x, values, strict=True)), sum(a * a for a in x)
            slope = (n * sxy - sx * sy) / (n * sxx - sx**2)
            return (sy - slope * sx) / n, slope

        truth, slope = line([1 / n for n in sizes])
        if abs(value - truth) < 1e-7:
            continue
        if abs(value - slope) < 1e-6:
            raise Hint("you returned the slope; where 1/n is 0 the line has its intercept.")
        if abs(value - line([float(n) for n in sizes])[0]) < 1e-6:
            raise Hint("the line is straight in 1/n, not in n.")
        if abs(value - line([n**-0.5 for n in sizes])[0]) < 1e-6:
            raise Hint("the bias falls like 1/n; the *error* of a mean falls like the root of it.")
        if abs(value - values[-1]) < 1e-9 or abs(value - min(values)) < 1e-9:
            raise Hint("the largest set still carries its share of the bias: follow the line on to 1/n = 0.")
        raise Hint(f"for sizes {sizes} and values {[round(v, 2) for v in values]} the line ends at {truth:.4g}.")


@exercise("13-copy")
def copy(answer: Any) -> None:
    rng = np.random.default_rng(4)
    training = rng.integers(60, 200, (5, 8, 8), dtype=np.uint8)
    moves = [lambda a: a, lambda a: a[:, ::-1], lambda a: np.roll(a, 1, 0), lambda a: np.roll(a, -2, 1)]
    tired = (training[3].astype(int) + rng.integers(-30, 31, (8, 8))).astype(np.uint8)
    cases = {
        "a noisy copy": tired, "a darker copy with more contrast": (1.2 * training[2].astype(float) - 60).round(),
        "a mirrored copy": tired[:, ::-1], "a shifted copy": np.roll(training[1], -1, 0),
        "no copy": rng.integers(0, 256, (8, 8)),
    }  # fmt: skip
    for name, picture in cases.items():
        image = np.asarray(picture, np.uint8)
        told = answer(image.copy(), training.copy(), list(moves))
        index, distance = two_numbers(told, "(index of the nearest training image, distance)")
        table = np.array([[_apart(move(image), one) for one in training] for move in moves])  # [moves, training]
        truth, least = int(table.min(0).argmin()), float(table.min())
        if abs(distance - least) < 1e-6:
            if index == truth:
                continue
            raise Hint(f"the distance is right, but the index {index:g} is not that of a training image it belongs to.")
        if name in ("a mirrored copy", "a shifted copy") and abs(distance - float(table[0].min())) < 1e-6:
            raise Hint(f"{name} passed unseen: try every move on the image, and keep the smallest distance.")
        if abs(distance - float(table[-1].min())) < 1e-6:
            raise Hint("only the last move counts in yours: keep the smallest over all moves.")
        if abs(distance - least**2) < 1e-6:
            raise Hint("take the root: 2 - 2 r is the squared length of the difference.")
        if abs(distance - (1 - least**2 / 2)) < 1e-6:
            raise Hint("this is the correlation r, which is large for a copy; the distance is sqrt(2 - 2 r).")
        plain = min(_apart(move(image), one, center=False) for move in moves for one in training)
        if abs(distance - plain) < 1e-6:
            raise Hint("take each image's mean off first, or every bright image is like every other bright image.")
        levels = min(_gray_levels(move(image), one) for move in moves for one in training)
        if abs(distance - levels) < 1e-6:
            raise Hint("a darker copy is a copy: take the mean off and divide by the length before you compare.")
        raise Hint(f"{name}: distance {distance:.3g} instead of {least:.3g} to training image {truth}.")


def _apart(a: Any, b: Any, center: bool = True) -> float:
    """Length of the difference of two images as vectors of length 1, by loops over their pixels."""
    rows = [[float(v) for v in np.asarray(one, float).ravel()] for one in (a, b)]
    if center:
        rows = [[v - sum(row) / len(row) for v in row] for row in rows]
    units = [[v / math.sqrt(sum(w * w for w in row)) for v in row] for row in rows]
    return _distance(np.array(units[0]), np.array(units[1]))


def _gray_levels(a: Any, b: Any) -> float:
    return math.sqrt(float(np.mean((np.asarray(a, float) - np.asarray(b, float)) ** 2)))


@exercise("13-alarm")
def alarm(answer: Any) -> None:
    rng = np.random.default_rng(5)
    cases = [(299, 0.01, 0.95), (500, 0.01, 0.95), (120, 0.05, 0.9), (1000, 0.01, 0.95), (200, 0.01, 0.95)]
    for count, rate, confidence in cases:
        suspicion = rng.permutation(np.round(rng.gamma(2, 1, count), 6))
        value = number(answer(suspicion.copy(), rate, confidence))
        row = sorted(suspicion.tolist(), reverse=True)
        most, below = 0, _exactly(0, count, rate)  # P(B < 1), then P(B < 2), …
        while below <= 1 - confidence:
            most += 1
            below += _exactly(most, count, rate)
        truth = row[most - 1] if most else math.inf
        if value == truth or abs(value - truth) < 1e-9:
            continue
        if not most:
            raise Hint(
                f"{count} images are too few for {rate:.0%} with {confidence:.0%} confidence, whatever they score: "
                "return infinity, which calls nothing a copy."
            )
        mean = math.floor(rate * (count + 1) + 1e-9)
        if value <= row[count // 2]:
            raise Hint("copies are the most suspicious: the threshold lies among the largest values.")
        if abs(value - row[most]) < 1e-9:
            raise Hint("one too many: P(B < k) may be at most 1 - confidence, and yours exceeds it by one step of k.")
        if most > 1 and abs(value - row[most - 2]) < 1e-9:
            raise Hint("one too strict: the largest k that keeps P(B < k) within 1 - confidence is meant.")
        if mean and abs(value - row[mean - 1]) < 1e-9:
            raise Hint("this keeps the rate on average; half of all calibrations are worse. Ask for confidence.")
        if abs(value - float(np.quantile(suspicion, 1 - rate))) < 1e-9:
            raise Hint("a quantile of these images is a guess of the true one, too low half of the time.")
        if abs(value - row[0]) < 1e-9:
            raise Hint("the largest value is safe but stricter than asked: how many may lie at or above the threshold?")
        raise Hint(f"for {count} values, {rate:.0%} and {confidence:.0%} the threshold is number {most} from above.")


def _exactly(k: int, count: int, rate: float) -> float:
    """P(B = k), B binomial."""
    return math.comb(count, k) * rate**k * (1 - rate) ** (count - k)
