"""Checks of chapter 12, failures. Truth is counted pair by pair, or summed over all outcomes of the coins."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from mame_lib.teaching.checks import Hint, exercise, number, two_numbers


@exercise("12-background")
def measures(answer: Any) -> None:
    rng = np.random.default_rng(0)
    free = np.arange(64) % 4 != 0
    black, breast = np.zeros((64, 16)), np.where(free, 0, 120)[:, None]
    noise = rng.normal(0, 6, (64, 16))
    cases = {
        "a plain gray background": black + 20 + breast,
        "noise on black": np.clip(black + noise, 0, 255) + breast,
        "one tile with a bright marker": black + breast + 200 * (np.arange(64) == 1)[:, None] * (np.arange(16) > 7),
        "noise of different strength in each tile": 60 + noise * np.linspace(0.1, 3, 64)[:, None] + breast,
    }
    for name, tiles in cases.items():
        n, b = two_numbers(answer(tiles.copy(), free.copy()), "(n, b)")
        spreads = sorted(math.sqrt(sum((x - row.mean()) ** 2 for x in row) / 16) for row in tiles[free])
        true_n = (spreads[23] + spreads[24]) / 2
        true_b = _quantile([_quantile(row, 0.25) for row in tiles], 0.05)
        if abs(n - true_n) > 1e-6:
            if abs(n - float(np.median(tiles.std(1)))) < 1e-6:
                raise Hint("n looks at the breast's tiles too: tissue is no noise, so use the free tiles only.")
            if abs(n - float(np.mean(spreads))) < 1e-6:
                raise Hint("one marker moves a mean over the tiles as far as it likes; take their median.")
            if abs(n - float(tiles[free].std())) < 1e-6:
                raise Hint("take the standard deviation within each tile first: over all at once a slow shade counts.")
            raise Hint(f"n is {n:.2f} instead of {true_n:.2f} for {name}: spread in each free tile, then the median.")
        if abs(b - true_b) > 1e-6:
            if abs(b - _quantile([float(row.mean()) for row in tiles], 0.05)) < 1e-6:
                raise Hint("b rises with noise on black, since gray can't be negative: no mean, a lower quartile.")
            if abs(b - _quantile([_quantile(row, 0.25) for row in tiles[free]], 0.05)) < 1e-6:
                raise Hint("b needs no mask: take all 64 tiles, for gray may mislead what finds the breast.")
            raise Hint(f"b is {b:.2f}, not {true_b:.2f}, for {name}: a quartile in each tile, then the 5 % quantile.")


def _quantile(values: Any, share: float) -> float:
    """By linear interpolation between the sorted values."""
    row = sorted(float(x) for x in values)
    place = share * (len(row) - 1)
    low = int(place)
    high = min(low + 1, len(row) - 1)
    return row[low] + (place - low) * (row[high] - row[low])


@exercise("12-auc")
def area(answer: Any) -> None:
    cases = [([3.0, 2.0], [1.0]), ([1.0], [3.0, 2.0]), ([0.0, 0.0, 2.0], [0.0, 0.0, 1.0]), ([1.0, 1.0], [1.0] * 3)]
    rng = np.random.default_rng(1)
    cases.append((list(rng.integers(0, 6, 9).astype(float)), list(rng.integers(0, 4, 14).astype(float))))
    for bad, good in cases:
        value = number(answer(list(bad), list(good)))
        pairs = list(itertools.product(bad, good))
        wins, ties = sum(b > g for b, g in pairs), sum(b == g for b, g in pairs)
        truth = (wins + ties / 2) / len(pairs)
        if abs(value - truth) < 1e-9:
            continue
        if abs(value - (1 - truth)) < 1e-9:
            raise Hint("you have the groups the other way round: a good detector, whose bad images score high, has 1.")
        if ties and abs(value - wins / len(pairs)) < 1e-9:
            raise Hint("a tie is a coin thrown: it counts one half, not nothing. A detector that is silent has 0.5.")
        if ties and abs(value - (wins + ties) / len(pairs)) < 1e-9:
            raise Hint("a tie counts one half, not one. A detector that says the same of all images is worth 0.5.")
        if value > 1:
            raise Hint(f"your area is {value:.3g}: divide by the number of pairs, a bad image with a good one.")
        raise Hint(f"for bad {bad[:3]} and good scores {good[:3]} … you got {value:.3f}: compare every pair once.")


@exercise("12-gray")
def brightness(answer: Any) -> None:
    for abar, pixels, mu, s in ((0.00466, 4096, -1.0, 0.3), (0.0, 4096, -1.0, 0.3), (0.01, 64, 0.5, 0.2)):
        mean, sd = two_numbers(answer(abar, pixels, mu, s), "(mean, sd)")
        # the map that carries the right start to the data, at two points: the line through them is read at 0 and 1
        right_mean, right_sd = math.sqrt(abar * pixels) * mu, math.sqrt(abar * pixels * s * s + 1 - abar)
        at = [mu + s * (x - right_mean) / right_sd for x in (0.0, 1.0)]
        true_mean, true_sd = at[0], at[1] - at[0]
        if abs(mean - true_mean) < 1e-9 and abs(sd - true_sd) < 1e-9:
            continue
        if abar == 0:
            raise Hint("with abar = 0 pure noise is the right start: mean mu and sd s of the data must come out.")
        if abs(mean - mu * (1 - s * math.sqrt(abar * pixels))) < 1e-9 or abs(sd - s) < 1e-9:
            raise Hint("divide by kappa: the network's map to the data shrinks by the spread of the right start.")
        no_root = math.sqrt(abar * pixels * s * s + 1 - abar) ** 2
        if abs(sd - s / no_root) < 1e-9:
            raise Hint("kappa is a standard deviation: take the square root of abar D s^2 + 1 - abar.")
        small = math.sqrt(abar * s * s + 1 - abar)
        if abs(sd - s / small) < 1e-9:
            raise Hint("the variance along e is D s^2, not s^2: all D pixels say the same, so they add up.")
        raise Hint(f"for abar {abar}, D {pixels}, mu {mu}, s {s} you got {mean:.3f} ± {sd:.3f}: carry 0 and 1 over.")


@exercise("12-paired")
def paired(answer: Any) -> None:
    patterns = [(8, 2, 30, 5), (0, 0, 10, 0), (1, 1, 0, 0), (0, 6, 3, 3), (5, 4, 2, 1)]
    for mended, spoiled, fine, both in patterns:
        before = [True] * mended + [False] * spoiled + [False] * fine + [True] * both
        after = [False] * mended + [True] * spoiled + [False] * fine + [True] * both
        value = number(answer(list(before), list(after)))
        n, k = mended + spoiled, min(mended, spoiled)
        # every way the n coins can fall, counted: at least as uneven as this one
        truth = sum(min(h, n - h) <= k for h in (bin(way).count("1") for way in range(2**n))) / 2**n
        if abs(value - truth) < 1e-9:
            continue
        if n == 0:
            raise Hint("no image changed, so there is no evidence at all: p must be 1.")
        if abs(value - truth / 2) < 1e-9:
            raise Hint("your test has one side; a cure may also do harm: count both tails.")
        if value > 1:
            raise Hint("a chance above 1: when both groups are equal the two tails overlap; cut at 1.")
        counts = (mended + both, spoiled + both)
        if abs(value - _two_tails(sum(counts), min(counts))) < 1e-9:
            raise Hint("images that failed both times say nothing about the difference: count only those that changed.")
        raise Hint(f"{mended} mended and {spoiled} spoiled should give p = {truth:.3g}, you got {value:.3g}.")


def _two_tails(n: int, k: int) -> float:
    return min(1.0, 2 * sum(math.comb(n, i) for i in range(k + 1)) / 2**n)


@exercise("12-redraw")
def redraw(answer: Any) -> None:
    def run(scores: list[float], most: int, index: int = 7) -> tuple[Any, list[tuple[int, int]]]:
        asked: list[tuple[int, int]] = []

        def draw(seed: int, number: int) -> list[int]:
            asked.append((seed, number))
            return [seed, number]

        def bad(image: list[int]) -> float:
            return scores[image[0] - 100]

        return answer(draw, bad, lambda j: 100 + j, index, most), asked

    cases = [([0.5, 2.0], 4, 0), ([3.0, 2.0, 0.9, 0.1], 4, 2), ([3.0, 1.5, 2.0, 0.1], 3, 1), ([1.0], 1, 0)]
    for scores, most, j in cases:
        returned, asked = run([*scores, *[9.0] * 5], most)
        if not (isinstance(returned, tuple) and len(returned) == 2):
            raise Hint("return a pair: the image, and the number of its draw.")
        if any(number != 7 for _, number in asked):
            raise Hint("the index changed: image 7 would become a copy of another. Change the seed, not the index.")
        needed = next((k + 1 for k, score in enumerate(scores[:most]) if score <= 1), most)
        if len(asked) > most:
            raise Hint(f"with at most {most} draws you drew {len(asked)} times.")
        if len(asked) > needed:
            raise Hint(f"draw {needed - 1} could be kept, yet you drew on: a score of 1 or less is accepted at once.")
        if len(asked) < needed or [seed for seed, _ in asked] != [100 + k for k in range(needed)]:
            raise Hint("each draw has a seed of its own, in order: seed_of(0), then seed_of(1), up to `most` draws.")
        image, number = returned
        if image != [100 + j, 7]:
            raise Hint("when all draws are refused, return the least bad of them, not the last or nothing.")
        if number != j:
            raise Hint("the second value is the number of the draw that is returned, counted from 0.")
