"""Checks of chapter 14, readers. Truth is counted by loops: pair by pair, case by case, reader by reader."""

from __future__ import annotations

import itertools
import math
from statistics import NormalDist
from typing import Any

import numpy as np

from mame_lib.teaching.checks import Hint, exercise, number

_Z = NormalDist().inv_cdf


def _psi(s: float, t: float) -> float:
    return 1.0 if s > t else 0.5 if s == t else 0.0


@exercise("14-auc")
def from_counts(answer: Any) -> None:
    cases = [
        ([1, 12, 3, 7, 5], [0, 11, 1, 11, 2]), ([0, 0, 0, 0, 4], [3, 0, 0, 0, 0]), ([2, 0, 1, 0, 3], [1, 2, 0, 0, 1]),
    ]  # fmt: skip
    for real, made in cases:
        value = number(answer(list(real), list(made)))
        s, t = ([4 - a for a in range(5) for _ in range(counts[a])] for counts in (made, real))
        pairs = [(a, b) for a in s for b in t]
        wins, ties = sum(a > b for a, b in pairs), sum(a == b for a, b in pairs)
        truth = (wins + ties / 2) / len(pairs)
        if abs(value - truth) < 1e-9:
            continue
        if abs(value - truth * len(pairs)) < 1e-9:
            raise Hint("divide by the number of pairs, the synthetic images times the real ones.")
        if ties and abs(value - wins / len(pairs)) < 1e-9:
            raise Hint("pairs of the same rating count one half; you left them out.")
        if ties and abs(value - (wins + ties) / len(pairs)) < 1e-9:
            raise Hint("pairs of the same rating count one half; you counted them as won.")
        if abs(value - (1 - truth)) < 1e-9:
            raise Hint("the wrong way round: a LOW rating says synthetic, so the lower rating wins.")
        if ties and abs(value - wins / max(1, len(pairs) - ties)) < 1e-9:
            raise Hint("pairs of the same rating count one half; to leave them out of both sums is another measure.")
        raise Hint(f"for real {real} and synthetic {made} you got {value:.3f} instead of {truth:.3f}.")


@exercise("14-delong")
def error(answer: Any) -> None:
    rng = np.random.default_rng(14)
    for n, m in ((6, 9), (25, 28), (4, 3)):
        scores = rng.integers(0, 5, n + m).astype(float)
        scores[0], scores[-1] = 4, 0
        made = np.arange(n + m) < n
        value = number(answer(scores.copy(), made.copy()))
        v = [sum(_psi(s, t) for t in scores[n:]) / m for s in scores[:n]]
        w = [sum(_psi(s, t) for s in scores[:n]) / n for t in scores[n:]]

        def spread(x: list[float], less: int = 1) -> float:
            mean = sum(x) / len(x)
            return sum((one - mean) ** 2 for one in x) / (len(x) - less)

        squared = spread(v) / n + spread(w) / m
        truth = math.sqrt(squared)
        if abs(value - truth) < 1e-9:
            continue
        if abs(value - squared) < 1e-9:
            raise Hint("that is the variance; the standard error is its root.")
        if abs(value - math.sqrt(spread(v, 0) / n + spread(w, 0) / m)) < 1e-9:
            raise Hint("the sample variance divides by the number of cases less one: ddof=1.")
        if abs(value - math.sqrt(spread(v) + spread(w))) < 1e-9:
            raise Hint("the variance of a mean is the variance over the number of cases: divide by n, and by m.")
        if abs(value - math.sqrt(spread(v) / m + spread(w) / n)) < 1e-9:
            raise Hint("n and m are exchanged: there are n synthetic cases, so n values V.")
        if abs(value - math.sqrt(spread(v) / n)) < 1e-9 or abs(value - math.sqrt(spread(w) / m)) < 1e-9:
            raise Hint("both kinds of cases bring luck: add the part of the other one.")
        if abs(value - (math.sqrt(spread(v) / n) + math.sqrt(spread(w) / m))) < 1e-9:
            raise Hint("independent errors add as squares: add the variances, then take the root.")
        raise Hint(f"with {n} synthetic and {m} real images it is {truth:.4f}, not {value:.4f}; ties count one half.")


@exercise("14-verdict")
def verdict(answer: Any) -> None:
    cases = [
        (0.49, 0.08, 0.05, "cannot tell"), (0.5, 0.02, 0.05, "equal"), (0.7, 0.05, 0.05, "different"),
        (0.3, 0.05, 0.05, "different"), (0.51, 0.0231, 0.05, "equal"), (0.54, 0.03, 0.05, "cannot tell"),
        (0.515, 0.005, 0.05, "equal"), (0.56, 0.0335, 0.05, "cannot tell"), (0.47, 0.03, 0.1, "equal"),
    ]  # fmt: skip
    for value, se, margin, truth in cases:
        said = answer(value, se, margin)
        if said == truth:
            continue
        if said not in ("equal", "different", "cannot tell"):
            raise Hint('return "equal", "different" or "cannot tell".')
        told = f"an area of {value} with error {se} and margin {margin}"
        if truth == "cannot tell" and said == "equal":
            raise Hint(f"{told} shows no equality: the whole 90 % interval must lie within the margin.")
        if truth == "cannot tell":
            raise Hint(f"{told} shows no difference: the 95 % interval holds 0.5.")
        if (value, se) == (0.515, 0.005):
            raise Hint("ask about equality first: an area may be surely above 0.5, and surely within the margin.")
        if truth == "equal" and se > 0.023 and said == "cannot tell":
            raise Hint(f"{told}: each of the two tests is one-sided, so take 1.645 errors, not 1.96.")
        if value < 0.5:
            raise Hint(f"{told}: an area below 0.5 is as far from guessing as one above.")
        raise Hint(f"{told} means {truth!r}, not {said!r}.")


@exercise("14-size")
def size(answer: Any) -> None:
    for margin, power in ((0.05, 0.8), (0.1, 0.8), (0.03, 0.9), (0.05, 0.5)):
        value = number(answer(margin, power))

        def images(alpha: float = 0.05, miss: float = (1 - power) / 2, factor: float = 6, squared: int = 2) -> float:
            return (_Z(1 - alpha) + _Z(1 - miss)) ** squared / (factor * margin**squared)  # noqa: B023

        truth = math.ceil(images())
        if abs(value - truth) < 1e-6:
            continue
        if abs(value - images()) < 1e-6 or value in (math.floor(images()), round(images())):
            raise Hint("images come whole, and fewer are not enough: round up.")
        if _near(value, images(miss=1 - power)):
            raise Hint("there are two ways to fail, left and right: half of the missing chance goes to each.")
        if _near(value, images(alpha=0.025)):
            raise Hint("each of the two tests is one-sided at 5 %: z of 0.95, not of 0.975.")
        if _near(value, images(squared=1)):
            raise Hint("square both the sum of the z values and the margin.")
        if _near(value, images(factor=12)) or _near(value, images(factor=3)):
            raise Hint("the variance of the area is 1 / (6 n) for n images of EACH kind.")
        raise Hint(f"for a margin of {margin} and a chance of {power} it takes {truth} images, not {value:g}.")


def _near(value: float, truth: float) -> bool:
    return abs(value - truth) < 1e-6 or value in (math.ceil(truth), math.floor(truth))


@exercise("14-panel")
def of_panel(answer: Any) -> None:
    rng = np.random.default_rng(3)
    for count, sign in ((3, 1.0), (5, 1.0), (4, -1.0)):
        aucs = 0.6 + rng.normal(0, 0.05, count)
        root = rng.normal(0, 0.02, (count, count))
        matrix = root @ root.T + sign * 4e-4
        value = number(answer(aucs.copy(), matrix.copy()))
        ms = sum((a - sum(aucs) / count) ** 2 for a in aucs) / (count - 1)
        pairs = [matrix[j, k] for j, k in itertools.product(range(count), repeat=2) if j != k]
        shared, everything = sum(pairs) / len(pairs), float(matrix.mean())
        squared = ms / count + max(shared, 0.0)
        if abs(value - math.sqrt(squared)) < 1e-9:
            continue
        if abs(value - squared) < 1e-9:
            raise Hint("that is the variance; the standard error is its root.")
        if shared < 0 and (math.isnan(value) or abs(value**2 - (ms / count + shared)) < 1e-9):
            raise Hint("a covariance that comes out below 0 is bad luck: take 0 for it.")
        if abs(value - math.sqrt(ms / count)) < 1e-9:
            raise Hint("that is the luck of the readers alone; add the mean covariance, that of the cases.")
        if abs(value - math.sqrt(max(shared, 0))) < 1e-9 or abs(value - math.sqrt(everything)) < 1e-9:
            raise Hint("that is the luck of the cases alone; add that of the readers, MS over J.")
        if abs(value - math.sqrt(ms / count + everything)) < 1e-9:
            raise Hint("C is the mean over pairs of different readers: leave the diagonal out.")
        if abs(value - math.sqrt((ms + max(shared, 0)) / count)) < 1e-9:
            raise Hint("more readers don't average the luck of the shared cases away: divide only MS by J.")
        if abs(value - math.sqrt(ms + max(shared, 0))) < 1e-9:
            raise Hint("it is the error of a mean: divide MS by the number of readers.")
        if abs(value - math.sqrt(ms * (count - 1) / count**2 + max(shared, 0))) < 1e-9:
            raise Hint("MS is the sample variance, which divides by J - 1: ddof=1.")
        raise Hint(f"for {count} readers the error is {math.sqrt(squared):.4f}, not {value:.4f}.")


@exercise("14-kappa")
def weighted(answer: Any) -> None:
    rng = np.random.default_rng(5)
    base = rng.integers(0, 5, 40)
    cases = [
        ([0, 1, 2, 3, 4], [0, 1, 2, 3, 4]), ([0, 4, 0, 4], [4, 0, 4, 0]), ([0, 0, 1, 4, 2, 3], [1, 0, 3, 4, 2, 1]),
        (base.tolist(), np.clip(base + rng.integers(-1, 3, 40), 0, 4).tolist()),
    ]  # fmt: skip
    for first, second in cases:
        value = number(answer(np.array(first), np.array(second)))

        def by(cost: Any) -> tuple[float, float]:
            seen = sum(cost(a, b) for a, b in zip(first, second, strict=True)) / len(first)  # noqa: B023
            chance = sum(cost(a, b) for a in first for b in second) / len(first) ** 2  # noqa: B023
            return seen, chance

        seen, chance = by(lambda a, b: (a - b) ** 2)
        truth = 1 - seen / chance
        if abs(value - truth) < 1e-9:
            continue
        for name, cost in (("a disagreement", lambda a, b: float(a != b)), ("the distance", lambda a, b: abs(a - b))):
            other = by(cost)
            if abs(value - (1 - other[0] / other[1])) < 1e-9:
                raise Hint(f"you count {name} as it is: a disagreement costs the square of its steps.")
        if abs(value - seen / chance) < 1e-9:
            raise Hint("that is the disagreement; agreement is 1 minus it.")
        if abs(value - (1 - seen / 16)) < 1e-9 or abs(value - (1 - seen)) < 1e-9:
            raise Hint("what would the two disagree by chance? Divide by that.")
        if abs(value - (1 - seen / 4)) < 1e-9:
            raise Hint("chance is not the same for all: take the shares of ratings of these two readers.")
        raise Hint(f"for {first[:6]} and {second[:6]} kappa is {truth:.3f}, not {value:.3f}.")
