"""Checks of chapter 10, extrapolation. Truth comes from counting and from formulas, trial by trial."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import combinations, product
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mame_lib.teaching.checks import Hint, exercise

Z = 1.959964


@exercise("10-together")
def never_together(answer: Any) -> None:
    captions = [{"red", "round"}, {"red", "large"}, {"blue", "round"}, {"blue", "small"}, {"red", "round", "small"}]
    words = sorted(set().union(*captions))
    said = {frozenset(pair) for caption in captions for pair in combinations(caption, 2)}
    truth = {frozenset(pair) for pair in combinations(words, 2)} - said
    result = answer([set(caption) for caption in captions], list(words))
    if not isinstance(result, Iterable) or isinstance(result, str):
        raise Hint("return a collection of pairs of words.")
    found = [frozenset(pair) for pair in result]
    if any(len(pair) != 2 for pair in found):
        raise Hint("each entry must be a pair of two different words: a word is never missing beside itself.")
    if len(found) != len(set(found)):
        raise Hint("a pair came back twice: (red, blue) and (blue, red) are one pair.")
    if set(found) == said:
        raise Hint("these are the pairs that captions did contain; asked are the others.")
    if missed := truth - set(found):
        raise Hint(f"{' and '.join(sorted(min(missed, key=sorted)))} never stand in one caption: you left them out.")
    if extra := set(found) - truth:
        raise Hint(f"{' and '.join(sorted(min(extra, key=sorted)))} stand together in one: look into all captions.")


@exercise("10-chance")
def chance(answer: Any) -> None:
    cases: list[tuple[list[float], list[float]]] = [
        ([0.5, 0.25, 0.25], [0.2, 0.1, 0.7]), ([0, 0, 1], [0.2, 0.1, 0.7]), ([1 / 3] * 3, [0.6, 0.3, 0.1]),
    ]  # fmt: skip
    for asked, measured in cases:
        result = float(answer(np.array(asked), np.array(measured)))
        truth = sum(a * m for a, m in zip(asked, measured, strict=True))
        if math.isclose(result, truth, abs_tol=1e-6):
            continue
        if math.isclose(result, 1 / len(asked), abs_tol=1e-6):
            raise Hint("1 / K holds when every word is asked equally often; here some are asked more than others.")
        if math.isclose(result, max(measured), abs_tol=1e-6):
            raise Hint("the most frequent class is met often only if it is asked for often.")
        if math.isclose(result, sum(m * m for m in measured), abs_tol=1e-6):
            raise Hint("you let the picture meet itself: one of the two factors must be the share of the question.")
        raise Hint("for each word: the chance to be asked it, times the chance that the picture has it; then the sum.")


def _wilson(yes: int, n: int, z: float = Z) -> tuple[float, float]:
    """The two shares whose distance from yes / n is z of *their own* standard errors, by bisection."""

    def off(p: float) -> float:
        return abs(p - yes / n) - z * math.sqrt(p * (1 - p) / n)

    ends = []
    for inner, outer in ((yes / n, 0.0), (yes / n, 1.0)):
        for _ in range(200):
            middle = (inner + outer) / 2
            inner, outer = (middle, outer) if off(middle) < 0 or middle == yes / n else (inner, middle)
        ends.append((inner + outer) / 2)
    return ends[0], ends[1]


@exercise("10-wilson")
def interval(answer: Any) -> None:
    for yes, n in ((13, 40), (1, 40), (40, 40), (0, 12)):
        result = answer(yes, n)
        if not isinstance(result, tuple | list) or len(result) != 2:
            raise Hint("return two numbers, the lower and the upper end.")
        low, high = map(float, result)
        p, (true_low, true_high) = yes / n, _wilson(yes, n)
        if abs(low - true_low) < 2e-3 and abs(high - true_high) < 2e-3:
            continue
        half = Z * math.sqrt(p * (1 - p) / n)
        if abs(low - max(0, p - half)) < 2e-3 or abs(low - (p - half)) < 2e-3:
            raise Hint(
                "this is the textbook's p plus or minus 1.96 standard errors: at 40 of 40 it would be sure of 100 %."
            )
        if abs((low + high) / 2 - p) < 1e-6:
            raise Hint("Wilson's interval is not centered on yes / n: its middle is drawn toward one half.")
        if abs((low + high) / 2 - (true_low + true_high) / 2) < 1e-3:
            raise Hint("the middle is right, the width is not: look at what stands under the root.")
        raise Hint(f"for {yes} of {n} the ends should be {true_low:.3f} and {true_high:.3f}.")


@exercise("10-clusters")
def effective(answer: Any) -> None:
    g = np.random.default_rng(4)
    alike = np.repeat(g.random((1, 40)) < 0.4, 6, axis=0).astype(float)
    mixed = (g.random((6, 40)) < g.beta(0.5, 0.7, 40)).astype(float)
    for hits in (alike, mixed):
        n, p = hits.size, hits.mean()
        totals = (hits - p).sum(0)
        variance = 40 / 39 * sum(float(total) ** 2 for total in totals) / n**2
        truth = n / (variance / (p * (1 - p) / n))
        result = float(answer(hits.copy()))
        if math.isclose(result, truth, rel_tol=0.04):  # with or without C / (C - 1)
            continue
        if math.isclose(result, n, rel_tol=1e-6):
            raise Hint("six copies of 40 images are not 240 trials: let images of one number count together.")
        if hits is mixed and math.isclose(result, 40, rel_tol=0.03):
            raise Hint("not every cluster counts as one trial: images of one noise are alike, but not equal.")
        if math.isclose(result, variance / (p * (1 - p) / n), rel_tol=0.04):
            raise Hint("this is the design effect; the effective size is the number of images divided by it.")
        rows = (hits - p).sum(1)
        if math.isclose(result, n / (6 / 5 * (rows**2).sum() / n**2 / (p * (1 - p) / n) + 1e-12), rel_tol=0.3):
            raise Hint("you summed over the images of a cell; the cluster is a column, one noise in all cells.")
        raise Hint(f"the first case has 40 noises in 6 copies; expected {truth:.0f}, you found {result:.0f}.")


@exercise("10-graft")
def graft(answer: Any) -> None:
    head = torch.arange(8.0)[:, None].expand(8, 2).clone()
    for behind, ahead in product((2, 4), (3, 5)):
        tail = 100 + torch.arange(8.0)[:, None].expand(8, 2).clone()
        result = answer(head.clone(), tail.clone(), ahead, behind)
        if not isinstance(result, Tensor) or result.ndim != 2 or result.shape[1] != 2:
            raise Hint("return a tensor of states, one row a token.")
        if len(result) != 8:
            raise Hint(f"the UNet knows sentences of 8 states here, yours has {len(result)}: fill up, or cut.")
        truth = torch.cat([head[:ahead], tail[behind:], tail[-1:].expand(8, 2)])[:8]
        if torch.equal(result, truth):
            continue
        if not torch.equal(result[:ahead], head[:ahead]):
            raise Hint("the first `ahead` states must stay those of the head.")
        if torch.equal(result[ahead:], tail[ahead:]):
            raise Hint("the word stands at another place in the tail: its first state is number `behind` there.")
        if not torch.equal(result[ahead], tail[behind]):
            raise Hint("right behind the head must stand the tail's state number `behind`.")
        raise Hint("what is missing at the end is padding: repeat the tail's last state.")
