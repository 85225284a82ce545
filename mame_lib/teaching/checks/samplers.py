"""Checks of chapter 04, samplers.

Truth comes from first principles in float64. The last check really samples: a small two-dimensional problem
with a known answer grades the reader's grid by what it achieves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from mame_lib.teaching.checks import Hint, exercise


def _close(a: Tensor, b: Tensor) -> bool:
    return bool(torch.allclose(a.double(), b.double(), rtol=1e-5, atol=1e-6))


@exercise("04-ddim")
def ddim_step(answer: Any) -> None:
    g = torch.Generator().manual_seed(0)
    clean = torch.randn(3, 4, generator=g, dtype=torch.float64)
    noise = torch.randn(3, 4, generator=g, dtype=torch.float64)
    now, after = 0.36, 0.64
    x = now**0.5 * clean + (1 - now) ** 0.5 * noise
    result = answer(x, noise, now, after)
    if not isinstance(result, Tensor) or result.shape != x.shape:
        raise Hint("return an image of the same shape as x.")
    truth = after**0.5 * clean + (1 - after) ** 0.5 * noise
    if _close(result, truth):
        if not _close(answer(x, noise, now, 1.0), clean):
            raise Hint("with abar_next = 1 the step must end at the predicted clean image.")
        return
    if _close(result, after**0.5 * clean + (1 - now) ** 0.5 * noise):
        raise Hint(
            "the noise is mixed in with the sigma of the present level, so nothing was denoised; which level "
            "do you want to reach?"
        )
    undivided = x - (1 - now) ** 0.5 * noise
    if _close(result, after**0.5 * undivided + (1 - after) ** 0.5 * noise):
        raise Hint(
            "your clean image is too faint: after removing the noise, divide by the signal, sqrt(abar)."
        )
    if _close(result, after**0.5 * clean):
        raise Hint("the noise of the next level is missing: the step lands on a clean image that is dimmed.")
    raise Hint(
        "mixed from a known clean image and known noise, x should come back mixed the same way at abar_next; "
        "check first that your predicted clean image is right."
    )


@exercise("04-variance")
def fresh_variance(answer: Any) -> None:
    for now, after in ((0.36, 0.64), (0.0047, 0.0071), (0.9, 0.99)):
        beta = 1 - now / after
        truth = beta * (1 - after) / (1 - now)
        value = float(answer(now, after))
        if math.isclose(value, truth, rel_tol=1e-6):
            continue
        if math.isclose(value, math.sqrt(truth), rel_tol=1e-6):
            raise Hint("this is the standard deviation; the variance is asked for.")
        if math.isclose(value, beta, rel_tol=1e-6):
            raise Hint("this is the large variance, beta; the small one knows where the clean image is.")
        if math.isclose(value, (1 - now) * (1 - after) / (1 - now), rel_tol=1e-6) or math.isclose(
            value, 1 - after, rel_tol=1e-6
        ):
            raise Hint("beta of the step is one minus the ratio of the two abar, not one minus abar.")
        if math.isclose(value, beta * (1 - now) / (1 - after), rel_tol=1e-6):
            raise Hint("the ratio of the noise variances is upside down: the cleaner level goes on top.")
        raise Hint("multiply beta of the step by the noise variance of the next level over that of this one.")
    if abs(float(answer(0.9, 1.0))) > 1e-9:
        raise Hint("a step that ends at the clean image must add no noise.")


def _integers(grid: Any, count: int) -> list[int]:
    if not isinstance(grid, Sequence | Tensor):
        raise Hint(f"return a list of timesteps, not {type(grid).__name__}.")
    numbers = [float(t) for t in grid]
    if any(t != int(t) for t in numbers):
        raise Hint("timesteps are whole numbers: round them.")
    if len(numbers) != count:
        raise Hint(f"asked for {count} timesteps, got {len(numbers)}.")
    return [int(t) for t in numbers]


@exercise("04-grid")
def trailing(answer: Any) -> None:
    for total, count in ((1000, 10), (1000, 24), (1000, 61), (100, 7), (1000, 1)):
        grid = _integers(answer(total, count), count)
        if grid[0] == total:
            raise Hint(
                f"the first timestep is {total}, but arrays count from zero: the noisiest is {total - 1}."
            )
        if grid[-1] == total - 1 and count > 1:
            raise Hint("the order is reversed: sampling starts at the noisiest timestep.")
        if grid[0] != total - 1:
            raise Hint(
                f"the grid starts at {grid[0]}, so the noisiest timesteps are never visited: count back from "
                "the end instead of up from zero."
            )
        wanted = [round(total - i * total / count) - 1 for i in range(count)]
        if max(abs(a - b) for a, b in zip(grid, wanted, strict=True)) > 1:
            raise Hint(
                f"the strides are not equal: for T = {total} and N = {count} each should be about T / N."
            )


@exercise("04-budget")
def better_grid(answer: Any) -> None:
    grid = _integers(answer(1000, 10), 10)
    if grid[0] != 999:
        raise Hint(f"the grid must start where the noise is, at 999, not at {grid[0]}.")
    if any(a <= b for a, b in pairwise(grid)) or grid[-1] < 0:
        raise Hint("the timesteps must decrease strictly and stay at or above zero.")
    even = _error(tuple(round(1000 - i * 100) - 1 for i in range(10)))
    mine = _error(tuple(grid))
    if mine >= even:
        raise Hint(
            f"your error, {mine:.3f}, is no better than the evenly spaced {even:.3f}: lambda changes fastest "
            "at small t, so put more timesteps there."
        )
    if mine > even / 2:
        raise Hint(f"better: {mine:.3f} against {even:.3f}, but not half of it yet; go further the same way.")


@exercise("04-cost")
def passes(answer: Any) -> None:
    for sampler, count, g in (
        ("dpm_solver_pp", 24, 4.0), ("dpm_solver_pp", 24, 1.0), ("ddim", 10, 0.0), ("heun", 1, 1.0),
        ("heun", 12, 1.0), ("heun", 12, 4.0), ("ddpm", 1000, 7.5), ("dpm_solver_pp_2s", 11, 0.5),
    ):  # fmt: skip
        rows = 1 if g in (0.0, 1.0) else 2
        calls = 2 * count - 1 if sampler == "heun" else count
        value = answer(sampler, count, g)
        if value == rows * calls:
            continue
        where = f"for {sampler} with {count} timesteps and guidance {g:g} "
        if sampler == "heun" and value == rows * 2 * count:
            raise Hint(where + "the last step is counted twice: its far end is clean, and nobody asks there.")
        if sampler == "heun" and value == rows * count:
            raise Hint(where + "the second look is missing.")
        if sampler == "dpm_solver_pp_2s":
            raise Hint(where + "count again: the second look of 2S falls on a timestep of the list, see the table.")
        if rows == 2 and value == calls:
            raise Hint(where + "the network sees every picture twice, with the prompt and without it.")
        if rows == 1 and value == 2 * calls:
            raise Hint(where + "one of the two predictions of guidance has weight zero: it need not be made.")
        raise Hint(where + "multiply the calls of the sampler by the pictures of a call, one or two.")


def _outline() -> Tensor:
    a = torch.linspace(-math.pi / 2, math.pi / 2, 60, dtype=torch.float64)
    points = torch.stack([1.9 * a.cos() + 0.35 * (-((a / 0.12) ** 2)).exp(), 1.5 * a.sin()], 1)
    return points - points.mean(0)  # [60, 2]


@cache
def _end(grid: tuple[int, ...]) -> Tensor:
    """Where 200 points end that follow this grid by DPM-Solver++ 2M with the exact denoiser, [200, 2]."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    abar, centers, spread = torch.cumprod(1 - betas, 0), _outline(), 0.1
    path = [(float(abar[t].sqrt()), float((1 - abar[t]).sqrt())) for t in grid] + [(1.0, 0.0)]
    x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    before: tuple[Tensor, float] | None = None
    for (a, s), (a2, s2) in pairwise(path):
        variance = (a * spread) ** 2 + s**2
        gap = x[:, None] - a * centers  # [200, 60, 2]
        odds = torch.softmax(-(gap**2).sum(-1) / (2 * variance), 1)  # [200, 60]
        x0 = (odds[..., None] * (centers + spread**2 * a / variance * gap)).sum(1)
        lam, guess = math.log(a / s), x0
        if before is not None and s2 > 0:
            guess = x0 + (math.log(a2 / s2) - lam) / 2 * (x0 - before[0]) / (lam - before[1])
        x = s2 / s * x + (a2 - s2 / s * a) * guess
        before = (x0, lam)
    return x


def _error(grid: tuple[int, ...]) -> float:
    """Mean distance from where 500 steps lead."""
    exact = _end(tuple(range(999, 0, -2)))
    return float((_end(grid) - exact).norm(dim=1).mean())
