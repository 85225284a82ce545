"""Checks of chapter 02, the forward process.

Each check builds its own truth from first principles in float64, never from the library, so
that it would also catch a mistake in the library. Random inputs come from a fixed generator.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from mame_lib.teaching.checks import Hint, exercise


def _normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _betas(count: int = 1000) -> Tensor:
    return torch.linspace(0.00085**0.5, 0.012**0.5, count, dtype=torch.float64) ** 2


def _image(value: Any, shape: torch.Size, what: str) -> Tensor:
    if not isinstance(value, Tensor):
        raise Hint(f"return {what} as a tensor, not {type(value).__name__}.")
    if value.shape != shape:
        raise Hint(f"{what} must have the shape of x, {tuple(shape)}, but has {tuple(value.shape)}.")
    return value.double()


def _close(a: Tensor, b: Tensor, tolerance: float = 1e-5) -> bool:
    return bool(torch.allclose(a.double(), b.double(), rtol=tolerance, atol=tolerance))


@exercise("02-step")
def one_step(answer: Any) -> None:
    x, noise, beta = _normal(3, 5), _normal(3, 5, seed=1), 0.19
    silent = _image(answer(x, torch.zeros_like(x), beta), x.shape, "the next image")
    if _close(silent, (1 - beta) * x):
        raise Hint(
            "without noise the image should shrink by the root of 1 - beta, and yours shrinks by 1 - beta: "
            "the variance would fall below one at every step."
        )
    if _close(silent, x):
        raise Hint("the image is not shrunk at all, so the variance grows with every step; look at the mean.")
    if not _close(silent, math.sqrt(1 - beta) * x):
        raise Hint("with noise = 0 the answer should be the mean of the Gaussian in the equation; it is not.")
    alone = _image(answer(torch.zeros_like(x), noise, beta), x.shape, "the next image")
    if _close(alone, beta * noise):
        raise Hint(
            "the noise is multiplied by beta, but beta is a variance: which number, squared, gives beta?"
        )
    if not _close(alone, math.sqrt(beta) * noise):
        raise Hint("the noise has the wrong size: its variance after the step should be exactly beta.")


@exercise("02-jump")
def jump(answer: Any) -> None:
    betas, x0, noise = _betas(), _normal(4, 6, 5), _normal(4, 6, 5, seed=1)
    t = torch.tensor([0, 3, 400, 999])
    abar = torch.cumprod(1 - betas, 0)[t]
    signal, sigma = abar.sqrt()[:, None, None], (1 - abar).sqrt()[:, None, None]
    silent = _image(answer(x0, torch.zeros_like(x0), t, betas), x0.shape, "x_t")
    shifted = torch.cumprod(1 - torch.cat([betas.new_zeros(1), betas]), 0)[t].sqrt()[:, None, None]
    if _close(silent, shifted * x0):
        raise Hint("off by one: at t = 0 one step has already been taken, so the product includes betas[0].")
    if _close(silent, (1 - betas)[t].sqrt()[:, None, None] * x0):
        raise Hint(
            "your signal uses alpha of step t alone; the jump needs the product of all alphas up to t."
        )
    if _close(silent, signal**2 * x0):
        raise Hint("with noise = 0 the image is multiplied by abar; the mean of the jump has its root.")
    if not _close(silent, signal * x0):
        raise Hint("with noise = 0 the answer should be sqrt(abar_t) times x0, each image with its own t.")
    alone = _image(answer(torch.zeros_like(x0), noise, t, betas), x0.shape, "x_t")
    if _close(alone, sigma**2 * noise):
        raise Hint("the noise is multiplied by its variance 1 - abar; multiply by the standard deviation.")
    if not _close(alone, sigma * noise):
        raise Hint("the noise has the wrong size: squared, its factor and the signal's must add up to one.")


@exercise("02-snr")
def snr_and_crossing(answer: Any) -> None:
    for betas in (_betas(), torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)):
        pair = answer(betas)
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise Hint("return two things: the tensor of ratios and the first timestep below one.")
        ratios, first = pair
        abar = torch.cumprod(1 - betas, 0)
        truth = abar / (1 - abar)
        ratios = _image(ratios, betas.shape, "the table of ratios")
        if _close(ratios, truth.sqrt()):
            raise Hint("this is the ratio of amplitudes; power is amplitude squared.")
        if _close(ratios, 1 / truth, 1e-4):
            raise Hint("the ratio is upside down: signal above, noise below, so that it falls with t.")
        if _close(ratios, (1 - betas) / betas, 1e-4):
            raise Hint("this compares one step's alpha and beta; the image at t has gone through all steps.")
        if not torch.allclose(ratios, truth, rtol=1e-3, atol=0):
            raise Hint(
                "the ratios differ from abar / (1 - abar); begin with the running product of 1 - beta."
            )
        wanted = int((truth >= 1).sum())
        if first == wanted - 1:
            raise Hint(
                "your timestep is the last one where the signal still wins; the next one is asked for."
            )
        if first != wanted:
            raise Hint(f"the ratio at your timestep {first} does not cross from above one to below one.")


@exercise("02-leak")
def leak(answer: Any) -> None:
    def right(abar: float, brightness: float, pixels: int) -> float:
        return math.sqrt(pixels * abar / (1 - abar)) * abs(brightness)

    def value(*arguments: float) -> float:
        return float(answer(*arguments))

    abar = 0.0046604
    if value(abar, -1.0, 4096) < 0:
        raise Hint("a distance is asked for: dark images lie as far from zero as bright ones.")
    if math.isclose(value(abar, 1.0, 400), value(abar, 1.0, 100), rel_tol=1e-6):
        raise Hint(
            "your answer does not grow with the number of pixels: averaging D noise values divides their "
            "standard deviation by the root of D."
        )
    if math.isclose(value(abar, 1.0, 400), 4 * value(abar, 1.0, 100), rel_tol=1e-6):
        raise Hint(
            "four times the pixels should double the distance, not multiply it by four: variances of a mean "
            "fall with D, standard deviations with its root."
        )
    if math.isclose(value(abar, 1.0, 100), 10 * abar / (1 - abar), rel_tol=1e-3):
        raise Hint("signal and noise enter with their amplitudes, the roots of abar and of 1 - abar.")
    for arguments in ((abar, -1.0, 4096), (0.5, 0.25, 256), (0.1, 0.6, 1)):
        if not math.isclose(value(*arguments), right(*arguments), rel_tol=1e-3):
            raise Hint(
                "divide the mean of the noisy image, sqrt(abar) times the brightness, by the standard "
                "deviation of the mean of its noise."
            )


@exercise("02-detect")
def right_choices(answer: Any) -> None:
    def value(ill: Tensor, healthy: Tensor, abar: float) -> float:
        return float(answer(ill, healthy, abar))

    def phi(z: float) -> float:
        return 0.5 * (1 + math.erf(z / math.sqrt(2)))

    healthy, abar = _normal(8, 8) / 4, 0.2
    lesion = torch.zeros(8, 8, dtype=torch.float64)
    lesion[2:5, 3:7] = 0.4  # 12 pixels
    z = math.sqrt(abar / (1 - abar) / 2) * float(lesion.norm())
    got = value(healthy + lesion, healthy, abar)
    if math.isclose(value(healthy, healthy, abar), 0.0, abs_tol=1e-6):
        raise Hint("two equal images: the observer guesses and is right half the time; you return d', not a share.")
    if math.isclose(got, phi(z * math.sqrt(2)), rel_tol=1e-5):
        raise Hint("two images are compared, each with noise of its own: how much does the difference of scores vary?")
    if math.isclose(got, phi(z * math.sqrt(abar / (1 - abar))), rel_tol=1e-5):
        raise Hint("detectability counts amplitudes, and abar / (1 - abar) is a ratio of powers: something is missing.")
    if not math.isclose(value(healthy - lesion, healthy, abar), got, rel_tol=1e-5):
        raise Hint("a dark lesion is found as easily as a bright one, but yours depends on the sign of the lesion.")
    if math.isclose(got, phi(z / math.sqrt(12)), rel_tol=1e-4) or math.isclose(got, phi(z / 8), rel_tol=1e-4):
        raise Hint("a wider lesion of the same contrast is easier to find, not yours: add squares up, do not average.")
    if math.isclose(got, phi(z * math.sqrt(12)), rel_tol=1e-4):
        raise Hint("twelve pixels of a lesion help as the root of twelve, since their noise adds up too: use a length.")
    for factor, a in ((1.0, 0.2), (0.3, 0.9), (2.0, 0.005)):
        wanted = phi(math.sqrt(a / (1 - a) / 2) * float(lesion.norm()) * factor)
        if not math.isclose(value(healthy + factor * lesion, healthy, a), wanted, rel_tol=1e-4):
            raise Hint("compute d', the root of the SNR times the length of the difference, then Phi of d' / sqrt(2).")
