"""Checks of chapter 05, the latent space.

Each check builds its own truth in float64, by another way than the formula where there is one, never from the library.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from mame_lib.teaching.checks import Hint, exercise


def _normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _pair(value: Any, what: str) -> tuple[float, float]:
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise Hint(f"return two numbers: {what}.")
    return float(value[0]), float(value[1])


def _near(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=1e-4)


@exercise("05-ratio")
def compression(answer: Any) -> None:
    what = "how many times fewer numbers, and how many times fewer bits"
    numbers, bits = _pair(answer((3, 512, 512), 8, (4, 64, 64), 16), what)
    if _near(numbers, 8):
        raise Hint("8 compares one side with one side; count all numbers, over channels, rows and columns.")
    if _near(numbers, 64):
        raise Hint("64 compares the areas; the channels count too, on both sides.")
    if _near(numbers, 1 / 48):
        raise Hint("the ratio is upside down: image over latent, so that compression is more than one.")
    if not _near(numbers, 48):
        raise Hint("the ratio of the numbers is not that of the two products of channels, rows and columns.")
    if _near(bits, numbers):
        raise Hint("the bits of a number differ between image and latent, and so does the second ratio.")
    if _near(bits, 96):
        raise Hint("a latent number has twice the bits here, so the saving in bits is smaller, not larger.")
    for arguments, wanted in (
        (((3, 512, 512), 8, (4, 64, 64), 16), (48, 24)),
        (((1, 128, 96), 12, (4, 16, 12), 32), (16, 6)),
    ):
        if not all(map(_near, _pair(answer(*arguments), what), wanted)):
            raise Hint("bits are numbers times bits a number, for the image and for the latent.")


@exercise("05-kl")
def kl(answer: Any) -> None:
    mean, std = _normal(3, 4, 2, 5), 0.1 + _normal(3, 4, 2, 5, seed=1).abs()
    each = kl_divergence(Normal(mean, std), Normal(torch.zeros_like(mean), torch.ones_like(std)))
    truth = each.sum((1, 2, 3))
    value = answer(mean, std)
    if not isinstance(value, Tensor) or value.shape != (3,):
        raise Hint("return one number an image, a tensor [N]: sum over channels, rows and columns, not over images.")
    nothing = answer(torch.zeros(2, 4, 1, 1), torch.ones(2, 4, 1, 1))
    if not torch.allclose(nothing.double(), torch.zeros(2, dtype=torch.float64), atol=1e-6):
        raise Hint("for mean 0 and standard deviation 1 the divergence must be exactly zero; yours is not.")
    if torch.allclose(value, each.mean((1, 2, 3))):
        raise Hint("this is the mean over an image's numbers; divergences of independent numbers add up.")
    if torch.allclose(value, 2 * truth):
        raise Hint("twice the divergence: the one half in front is missing.")
    without_square = 0.5 * (mean**2 + std**2 - 1 - std.log()).sum((1, 2, 3))
    if torch.allclose(value, without_square):
        raise Hint("the logarithm is that of the variance; you took it of the standard deviation.")
    if torch.allclose(value, 0.5 * (mean**2 + std - 1 - std.log()).sum((1, 2, 3))):
        raise Hint("you are given the standard deviation, and the equation asks for the variance, twice.")
    if not torch.allclose(value, truth):
        raise Hint("the value is right nowhere but at zero; test it with std = 1, where it is half of mean squared.")


@exercise("05-scale")
def scaling_factor(answer: Any) -> None:
    mean, std = 3 + 2 * _normal(8, 4, 6, 6), 1.5 + 0.2 * _normal(8, 4, 6, 6, seed=1).abs()
    variance = float(mean.var()) + float((std**2).mean())
    value = float(answer(mean, std))
    if math.isclose(value, math.sqrt(variance), rel_tol=0.01):
        raise Hint("this is the standard deviation itself; latents are multiplied by the factor, so divide one by it.")
    if math.isclose(value, 1 / variance, rel_tol=0.01):
        raise Hint("multiplying by a factor multiplies the variance by its square: a root is missing.")
    if math.isclose(value, float(mean.var()) ** -0.5, rel_tol=0.01):
        raise Hint("this would be right if the clouds were points; their own variance belongs to that of the samples.")
    if math.isclose(value, 1 / float(mean.std() + std.mean()), rel_tol=0.01):
        raise Hint("standard deviations do not add; variances do.")
    if math.isclose(value, float((mean**2).mean() + (std**2).mean()) ** -0.5, rel_tol=0.01):
        raise Hint("a variance is measured from the mean; yours is measured from zero, and these latents are shifted.")
    if not math.isclose(value, variance**-0.5, rel_tol=0.01):
        raise Hint("samples times your factor do not have variance one; begin with the variance of a sample.")


@exercise("05-slerp")
def slerp(answer: Any) -> None:
    a, b = _normal(4, 8, 8), _normal(4, 8, 8, seed=1)
    ends = [answer(a, b, w) for w in (0.0, 1.0)]
    if not all(isinstance(end, Tensor) and end.shape == a.shape for end in ends):
        raise Hint("return a tensor of the shape of a.")
    if torch.allclose(ends[0], b, atol=1e-6) and torch.allclose(ends[1], a, atol=1e-6):
        raise Hint("you walk backwards: at w = 0 the answer must be a.")
    if not (torch.allclose(ends[0], a, atol=1e-6) and torch.allclose(ends[1], b, atol=1e-6)):
        raise Hint("the ends are not met: w = 0 must give a and w = 1 must give b.")
    middle = answer(a, b, 0.5)
    if torch.allclose(middle, (a + b) / 2):
        raise Hint("this is the straight average: in the middle it has lost half of its squared length.")
    unit = [x / x.norm() for x in (a, b)]
    angle = math.acos(float((unit[0] * unit[1]).sum()))
    for w in (0.2, 0.5, 0.9):  # turn unit vectors in their plane, an independent way to the same arc
        normal = unit[1] - math.cos(angle) * unit[0]
        turned = math.cos(w * angle) * unit[0] + math.sin(w * angle) * normal / normal.norm()
        got = answer(unit[0], unit[1], w)
        if math.isclose(float(got.norm()), 1, rel_tol=1e-4) and not torch.allclose(got, turned, atol=1e-5):
            raise Hint("the point is on the arc, but not at w of the angle; both weights are sines of shares of it.")
        if not torch.allclose(got, turned, atol=1e-5):
            raise Hint("between two vectors of length one the answer must have length one; look at the angle.")
    if not torch.allclose(answer(3 * a, b, 0.3), math.sin(0.7 * angle) / math.sin(angle) * 3 * a
                          + math.sin(0.3 * angle) / math.sin(angle) * b, atol=1e-5):  # fmt: skip
        raise Hint("for vectors of different lengths the angle is still that of their directions: divide by both.")


@exercise("05-kept")
def survival(answer: Any) -> None:
    before = np.array([2.0, 5.0, 20.0, 40.0])
    after = np.array([1.9, 2.4, 11.0, 21.0])
    what = "the share that is kept, and the contrast needed before"
    share, needed = _pair(answer(before, after, 5.0), what)
    truth = float(np.linalg.lstsq(before[:, None], after, rcond=None)[0][0])
    if math.isclose(share, float((after / before).mean()), rel_tol=1e-6):
        raise Hint("a mean of quotients listens to the faintest lesion most; the equation weighs by contrast.")
    if math.isclose(share, float(np.polyfit(before, after, 1)[0]), rel_tol=1e-6):
        raise Hint("this line has an intercept; no lesion before means none after, so it goes through the origin.")
    if math.isclose(share, float((before * after).sum() / (after * after).sum()), rel_tol=1e-6):
        raise Hint("this is the slope the other way round, before over after; check what is squared below.")
    if not math.isclose(share, truth, rel_tol=1e-6):
        raise Hint("the share is not the least-squares slope through the origin.")
    if math.isclose(needed, 5 * truth, rel_tol=1e-6):
        raise Hint("times the share is what is left of 5 gray levels; asked is what must be there so that 5 are left.")
    if not math.isclose(needed, 5 / truth, rel_tol=1e-6):
        raise Hint("the contrast needed before, times the share, must be the visible one.")
