"""Checks of chapter 09, guidance. Truth is computed in float64, by loops and by searching."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mame_lib.teaching.checks import Hint, exercise


def _close(a: Tensor, b: Tensor) -> bool:
    return bool(torch.allclose(a.double(), b.double(), rtol=1e-5, atol=1e-7))


@exercise("09-guide")
def guided_estimate(answer: Any) -> None:
    g = torch.Generator().manual_seed(0)
    away, text = torch.randn(2, 2, 3, 4, generator=g, dtype=torch.float64)
    for scale in (4.0, 1.0, 0.0, 7.5, -1.0):
        result = answer(away, text, scale)
        if not isinstance(result, Tensor) or result.shape != away.shape:
            raise Hint("return a tensor of the shape of the two answers.")
        if _close(result, (1 - scale) * away + scale * text):
            continue
        if _close(result, text + scale * (text - away)):
            raise Hint("you start at the answer with the sentence: that is the other convention, whose w is g - 1.")
        if _close(result, scale * away + (1 - scale) * text):
            raise Hint("the arrow points the wrong way: it leads from the answer without the sentence to the one with.")
        if _close(result, scale * (text - away)):
            raise Hint("this is the arrow alone; it has to be added to where it begins.")
        raise Hint(f"at g = {scale:g} the result is off: g = 0 must give `away`, g = 1 `text`, g = 2 as far again.")


@exercise("09-best")
def best_scale(answer: Any) -> None:
    g = torch.Generator().manual_seed(1)
    free, text, rest = torch.randn(3, 5, 8, generator=g, dtype=torch.float64)
    text = free + (text - free) * torch.tensor([0.05, 0.3, 1.0, 2.0, 4.0], dtype=torch.float64)[:, None]
    noise = free + 1.7 * (text - free) + rest
    value = float(answer(free.clone(), text.clone(), noise.clone()))
    d = text - free
    truth = float(((noise - free) * d).sum() / (d * d).sum())

    def error(scale: float) -> float:
        return float((free + scale * d - noise).square().sum())

    if math.isclose(value, truth, rel_tol=1e-5) and error(truth) <= min(error(truth - 0.01), error(truth + 0.01)):
        return
    if math.isclose(value, float((((noise - free) * d).sum(1) / (d * d).sum(1)).mean()), rel_tol=1e-5):
        raise Hint("a mean of ratios lets the shortest arrows speak loudest: sum over the whole batch, then divide.")
    if math.isclose(value, float(((noise - text) * d).sum() / (d * d).sum()), rel_tol=1e-5):
        raise Hint("you measure from the tip of the arrow, so 0 would mean g = 1: measure from the free answer.")
    if math.isclose(value, float(((noise - free) * d).sum() / (d * d).sum().sqrt()), rel_tol=1e-5):
        raise Hint("this is a length; in units of the arrow, divide by its squared length and not by its length.")
    if math.isclose(value, float((noise * d).sum() / (d * d).sum()), rel_tol=1e-5):
        raise Hint("the line does not go through the origin: take away where it begins before you project.")
    raise Hint(f"your scale {value:.3f} has squared error {error(value):.2f}; a smaller one is possible.")


@exercise("09-density")
def variances(answer: Any) -> None:
    for a, b, g in ((0.5, 1.0, 2.0), (0.5, 1.0, 1.0), (0.2, 3.0, 4.0), (2.0, 1.0, 1.5)):
        result = answer(a, b, g)
        if not isinstance(result, Sequence) or len(result) != 2 or result[0] is None:
            raise Hint("return two numbers: of the density, of the samples; for these a, b and g both exist.")
        density, sampled = (float(one) for one in result)
        precision = g / a - (g - 1) / b
        powers = math.exp(g * math.log(a) + (1 - g) * math.log(b))
        if math.isclose(density, 1 / precision, rel_tol=1e-9) and math.isclose(sampled, powers, rel_tol=1e-9):
            continue
        if math.isclose(density, powers, rel_tol=1e-9) and math.isclose(sampled, 1 / precision, rel_tol=1e-9):
            raise Hint("the two have changed places: powers of densities add precisions.")
        if math.isclose(density, precision, rel_tol=1e-9):
            raise Hint("the first is a precision; its inverse is the variance.")
        if math.isclose(density, g * a + (1 - g) * b, rel_tol=1e-9):
            raise Hint("it is inverse variances that lie on a line, not the variances themselves.")
        if not math.isclose(density, 1 / precision, rel_tol=1e-9):
            raise Hint("check the variance of the density: log p(x|c)^g p(x)^(1-g) has a factor before -x²/2.")
        raise Hint("check the variance of the samples: a at g = 1, b at g = 0, and its logarithm is linear in g.")
    for a, b, g in ((1.5, 1.0, 3.0), (1.5, 1.0, 4.0)):
        result = answer(a, b, g)
        if not isinstance(result, Sequence) or len(result) != 2:
            raise Hint("return two values where no density exists, too: None and the variance of the samples.")
        if result[0] is not None:
            raise Hint(f"with a = {a}, b = {b}, g = {g:g} the density would grow outwards: there is none, say None.")
        if result[1] is None or not math.isclose(float(result[1]), a**g * b ** (1 - g), rel_tol=1e-9):
            raise Hint("a sampler ends somewhere even where no density exists: its variance stays the same formula.")


@exercise("09-pairs")
def two_means(answer: Any) -> None:
    rng = np.random.default_rng(2)
    for count in (6, 7):
        half = np.triu(rng.uniform(0.1, 0.9, (count, count)), 1)
        scores = half + half.T + np.eye(count)
        result = answer(scores.copy())
        if not isinstance(result, Sequence) or len(result) != 2:
            raise Hint("return two numbers: the mean of all pairs, and that of the disjoint ones.")
        everything, disjoint = (float(one) for one in result)
        truth = float(np.mean([scores[i, j] for i, j in combinations(range(count), 2)]))
        pairs = float(np.mean([scores[k, k + 1] for k in range(0, count - 1, 2)]))
        if math.isclose(everything, float(scores.mean())):
            raise Hint("your mean holds the diagonal: an image compared with itself says nothing about the set.")
        if math.isclose(everything, float(np.triu(scores, 1).mean())):
            raise Hint("the zeros below the diagonal are in your mean: divide by the number of pairs.")
        if not math.isclose(everything, truth):
            raise Hint("the mean of all pairs is off: each pair of different images counts once.")
        if math.isclose(disjoint, float(np.mean([scores[k, k + 1] for k in range(count - 1)]))):
            raise Hint("your neighbors share images: after (0, 1) comes (2, 3), not (1, 2).")
        if not math.isclose(disjoint, pairs):
            raise Hint("the disjoint pairs are (0, 1), (2, 3), …; an odd image at the end has no partner.")


@exercise("09-calls")
def unet_rows(answer: Any) -> None:
    grid = [999, 800, 600, 400, 200, 0]
    cases = ((4.0, 0, 999, 12), (4.0, 200, 600, 9), (4.0, 300, 350, 6), (1.0, 0, 999, 6), (0.0, 0, 999, 6))
    for g, low, high, truth in cases:
        value = answer(list(grid), g, low, high)
        inside = sum(low < t < high for t in grid)
        if value == truth:
            continue
        if g in (0.0, 1.0):
            raise Hint(f"at g = {g:g} one of the two answers is multiplied by zero: nobody has to ask for it.")
        if value == len(grid) + inside:
            raise Hint("both ends belong to the interval: a timestep at its border is guided too.")
        if value == truth - len(grid) or value == 2 * (truth - len(grid)):
            raise Hint("outside of the interval the network is still asked, once a step.")
        if value == 2 * len(grid):
            raise Hint("this is the cost of guidance all the way: count two only within the interval.")
        raise Hint(f"for the timesteps {grid} and {low} to {high} at g = {g:g}, {truth} rows are needed, not {value}.")
