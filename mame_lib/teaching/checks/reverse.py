"""Checks of chapter 03, the reverse process.

Truth comes from first principles in float64: the posterior from Bayes' rule on a grid of values, everything else
from a clean image and a noise that the check knows and the answer does not.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from mame_lib.teaching.checks import Hint, exercise


def _close(a: Any, b: Tensor, rtol: float = 1e-4) -> bool:
    return bool(torch.allclose(torch.as_tensor(a).double(), b.double(), rtol=rtol, atol=1e-6))


def _betas() -> Tensor:
    """A chain of twenty large steps, float64 [20]: its posteriors are wide enough to be told apart."""
    return torch.linspace(0.02, 0.3, 20, dtype=torch.float64)


def _bayes(x0: float, x_t: float, t: int) -> tuple[float, float]:
    """Mean and variance of q(x_{t-1} | x_t, x_0), by multiplying the two densities on a grid."""
    betas = _betas()
    before = float(torch.cumprod(1 - betas, 0)[t - 1])
    beta = float(betas[t])
    x = torch.linspace(-8, 8, 20001, dtype=torch.float64)
    log = -((x_t - math.sqrt(1 - beta) * x) ** 2) / (2 * beta) - (x - math.sqrt(before) * x0) ** 2 / (2 * (1 - before))
    odds = torch.softmax(log, 0)
    mean = float((odds * x).sum())
    return mean, float((odds * (x - mean) ** 2).sum())


@exercise("03-posterior")
def posterior(answer: Any) -> None:
    for x0, x_t, t in ((0.8, 0.2, 2), (-0.5, 1.1, 7), (0.3, -0.9, 15)):
        result = answer(torch.tensor([x0], dtype=torch.float64), torch.tensor([x_t], dtype=torch.float64), t, _betas())
        if not isinstance(result, tuple | list) or len(result) != 2:
            raise Hint("return two things: the mean and the variance.")
        mean, variance = result
        true_mean, true_variance = _bayes(x0, x_t, t)
        if not _close(variance, torch.tensor(true_variance)):
            _explain_variance(float(torch.as_tensor(variance)), true_variance, t)
        if not _close(mean, torch.tensor([true_mean])):
            _explain_mean(float(torch.as_tensor(mean)), x0, x_t, t)
    first = answer(torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64), 0, _betas())
    if not _close(first[0], torch.ones(1)) or abs(float(torch.as_tensor(first[1]))) > 1e-9:
        raise Hint(
            "at t = 0 the step leads to the clean image itself: mean x0, variance 0. What is abar before the first "
            "step?"
        )


def _explain_variance(value: float, truth: float, t: int) -> None:
    betas = _betas()
    abar = torch.cumprod(1 - betas, 0)
    if math.isclose(value, math.sqrt(truth), rel_tol=1e-4):
        raise Hint("the second number is a standard deviation; the variance is asked for.")
    if math.isclose(value, float(betas[t]), rel_tol=1e-4):
        raise Hint("the variance is that of the forward step: it does not yet know x0, so it is too large.")
    if math.isclose(value, float(betas[t] * (1 - abar[t]) / (1 - abar[t - 1])), rel_tol=1e-4):
        raise Hint("the ratio in the variance is upside down: knowing more makes it smaller than beta.")
    raise Hint(f"Bayes' rule on a grid gives a variance of {truth:.4f} at t = {t}, yours is {value:.4f}.")


def _explain_mean(value: float, x0: float, x_t: float, t: int) -> None:
    betas = _betas()
    abar = torch.cumprod(1 - betas, 0)
    now, before, beta = float(abar[t]), float(abar[t - 1]), float(betas[t])
    of_x0, of_xt = math.sqrt(before) * beta / (1 - now), math.sqrt(1 - beta) * (1 - before) / (1 - now)
    if math.isclose(value, of_xt / (1 - before) * beta * x0 + of_x0 / beta * (1 - before) * x_t, rel_tol=1e-4):
        raise Hint("the two roots are exchanged: sqrt(abar) of the level before goes with x0, sqrt(alpha) with x_t.")
    if math.isclose(value, of_xt * x0 + of_x0 * x_t, rel_tol=1e-4):
        raise Hint("the two weights are exchanged: late in the chain one step hardly moves, so x_t weighs most.")
    if math.isclose(value, math.sqrt(now / before) * of_x0 * x0 + of_xt * x_t, rel_tol=1e-4):
        raise Hint("the weight of x0 has the root of abar at t; the step leads to t - 1.")
    raise Hint("the mean is off: with a noise-free x_t = sqrt(abar_t) x0 it must come out as sqrt(abar_{t-1}) x0.")


def _made(levels: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A clean image, a noise, their mixture at each of `levels` timesteps, and the abar, all float64 [levels, 4]."""
    g = torch.Generator().manual_seed(0)
    x0 = torch.randn(levels, 4, generator=g, dtype=torch.float64)
    noise = torch.randn(levels, 4, generator=g, dtype=torch.float64)
    abar = torch.linspace(0.95, 0.05, levels, dtype=torch.float64)[:, None]
    return x0, noise, abar.sqrt() * x0 + (1 - abar).sqrt() * noise, abar


@exercise("03-mean")
def reverse_mean(answer: Any) -> None:
    betas = _betas()
    alphas, abar = 1 - betas, torch.cumprod(1 - betas, 0)
    x0, noise, _, _ = _made(1)
    for t in (1, 7, 15):
        x_t = abar[t].sqrt() * x0 + (1 - abar[t]).sqrt() * noise
        result = answer(x_t, noise, t, betas)
        if not isinstance(result, Tensor) or result.shape != x_t.shape:
            raise Hint("return an image of the same shape as x_t.")
        # With the true noise the mean is that of the posterior, which Bayes' rule gives directly.
        truth = torch.tensor([[_bayes(float(c), float(x), t)[0] for c, x in zip(x0[0], x_t[0], strict=True)]])
        if _close(result, truth):
            continue
        typical = {
            "you undo the shrinking of the last step, alpha_T, at every step: the misprint of the paper. Which alpha "
            "belongs to step t?": (x_t - betas[t] / (1 - abar[t]).sqrt() * noise) / alphas[-1].sqrt(),
            "the predicted noise is divided by the root of 1 - alpha_t. The noise in x_t was piled up by all steps so "
            "far: use abar.": (x_t - betas[t] / (1 - alphas[t]).sqrt() * noise) / alphas[t].sqrt(),
            "this is the clean image: you removed all of the noise instead of one step's share.": x0,
            "the noise is removed but the shrinking is not undone: divide by the root of alpha_t.": x_t
            - betas[t] / (1 - abar[t]).sqrt() * noise,
            "the shrinking of the whole road is undone at once: divide by the root of alpha_t, not of abar_t.": (
                x_t - betas[t] / (1 - abar[t]).sqrt() * noise
            )
            / abar[t].sqrt(),
        }
        for hint, wrong in typical.items():
            if _close(result, wrong):
                raise Hint(hint)
        raise Hint("with the true noise the result must be the mean that Bayes' rule gives; compare exercise 1.")


@exercise("03-convert")
def convert(answer: Any) -> None:
    x0, noise, x_t, abar = _made(5)
    v = abar.sqrt() * noise - (1 - abar).sqrt() * x0
    result = answer(x_t, v, abar)
    if not isinstance(result, tuple | list) or len(result) != 2:
        raise Hint("return two images: x0 and the noise.")
    clean, eps = (torch.as_tensor(r) for r in result)
    if clean.shape != x_t.shape or eps.shape != x_t.shape:
        raise Hint("both images must have the shape of x_t.")
    if _close(clean, noise) and _close(eps, x0):
        raise Hint("both are right, in the wrong order: x0 first.")
    if _close(clean, abar.sqrt() * x_t + (1 - abar).sqrt() * v):
        raise Hint("the sign of v in x0 is wrong: v points from the image towards the noise.")
    if _close(clean, abar * x_t - (1 - abar) * v):
        raise Hint("the factors are roots: their squares, not they themselves, add up to one.")
    if not _close(clean, x0):
        raise Hint("x0 does not come back: the quarter circle says x_t cos - v sin, with cos = sqrt(abar).")
    if not _close(eps, noise):
        raise Hint("x0 is right, the noise is not: check that mixing your two images again gives x_t.")


@exercise("03-weights")
def weights(answer: Any) -> None:
    x0, noise, x_t, abar = _made(7)
    g = torch.Generator().manual_seed(1)
    guess = x0 + 0.1 * torch.randn(7, 4, generator=g, dtype=torch.float64)
    eps = (x_t - abar.sqrt() * guess) / (1 - abar).sqrt()  # the noise and the v that this guess implies
    v, v_guess = (abar.sqrt() * e - (1 - abar).sqrt() * c for e, c in ((noise, x0), (eps, guess)))
    image = ((x0 - guess) ** 2).mean(1)
    by_noise, by_v = ((noise - eps) ** 2).mean(1) / image, ((v - v_guess) ** 2).mean(1) / image
    result = answer(abar[:, 0])
    if not isinstance(result, tuple | list) or len(result) != 2:
        raise Hint("return two tensors: the weight for the noise and the weight for v.")
    first, second = (torch.as_tensor(r) for r in result)
    if _close(first, by_noise) and _close(second, by_v):
        return
    if _close(first, by_noise.sqrt()) or _close(second, by_v.sqrt()):
        raise Hint("these are the rates for an error; the loss squares it.")
    if _close(first, 1 / by_noise):
        raise Hint("upside down: at a nearly clean image a small image error is a large error of the noise.")
    if _close(first, by_v) and _close(second, by_noise):
        raise Hint("both are right, in the wrong order: the noise first.")
    if _close(first, by_noise):
        raise Hint(
            "the noise is right, v is not. Try abar near zero: there v is minus the image, and the weight must be one."
        )
    raise Hint("solve x_t for the noise, once with x0 and once with a guess, and subtract: which factor is left?")


@exercise("03-loss")
def loss(answer: Any) -> None:
    x0, noise, _, abar = _made(5)
    seen: list[tuple[Tensor, Tensor]] = []

    def network(x: Tensor, t: Tensor) -> Tensor:
        seen.append((x, t))
        return 0.5 * x

    table = torch.cumprod(1 - _betas(), 0)
    t = torch.tensor([0, 3, 9, 14, 19])
    abar = table[t][:, None]
    value = answer(network, x0, noise, t, table)
    if not seen:
        raise Hint("the network was never asked: call network(x_t, t).")
    value = torch.as_tensor(value)
    if value.ndim != 0:
        raise Hint("the loss is one number for the whole batch: average it.")
    asked = seen[-1][0]
    if _close(asked, x0):
        raise Hint("the network was shown the clean images; it must see the noisy ones.")
    x_t = abar.sqrt() * x0 + (1 - abar).sqrt() * noise
    if not _close(asked, x_t):
        raise Hint("the network does not see x_t: mix image and noise by the roots of abar and 1 - abar at t.")
    error = noise - 0.5 * x_t
    if _close(value, (error**2).mean()):
        return
    if _close(value, (error**2).sum()) or _close(value, (error**2).sum(1).mean()):
        raise Hint("this is a sum over the pixels, so it grows with the image: take the mean over all of them.")
    if _close(value, error.norm()) or _close(value, error.norm(dim=1).mean()):
        raise Hint("this is the norm: a root was taken. The loss is the mean of the squares.")
    if _close(value, (((1 - abar).sqrt() * noise - 0.5 * x_t) ** 2).mean()):
        raise Hint("the target is the noise as it is in the image, scaled; it must be the noise of unit variance.")
    if _close(value, ((x0 - 0.5 * x_t) ** 2).mean()):
        raise Hint("the target is the clean image; this network predicts the noise.")
    raise Hint("compare the network's answer with the noise: subtract, square, and average over everything.")
