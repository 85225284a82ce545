"""Every labelled equation of chapter 09, recomputed in float64 on another road."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import avg_pool2d

from mame_lib.diffusion.guidance import combine
from mame_lib.diffusion.schedule import scaled_linear_schedule
from mame_lib.evaluation.similarity import WEIGHTS, ms_ssim, ssim, ssim_map
from mame_lib.evaluation.windows import RIM


def test_eq_09_cfg() -> None:
    """g = 2 is as far beyond the tip as the tip is from the start: the tip lies midway."""
    rng = np.random.default_rng(0)
    free, text = (torch.from_numpy(rng.normal(size=(2, 4, 3, 3))) for _ in range(2))
    for g in (-1.0, 0.0, 1.0, 2.0, 7.5):
        mixed = (1 - g) * free + g * text
        torch.testing.assert_close(combine(free, text, g).double(), mixed, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close((combine(free, text, 2.0).double() + free) / 2, text, rtol=1e-5, atol=1e-5)


def test_eq_09_best() -> None:
    """The smallest of many errors along the line is at the printed scale."""
    rng = np.random.default_rng(1)
    free, text, noise = rng.normal(size=(3, 6, 5))
    d = text - free
    best = float(((noise - free) * d).sum() / (d * d).sum())
    scales = best + np.linspace(-2, 2, 4001)
    errors = [((free + g * d - noise) ** 2).sum() for g in scales]
    assert scales[int(np.argmin(errors))] == pytest.approx(best, abs=1e-3)


# One pixel, two classes: p(x | c) and the rest, at some noise level.
ASKED, OTHER, PRIOR = (-0.8, 0.5), (0.9, 0.7), 0.3


def _normal(x: float, mean: float, sd: float) -> float:
    return math.exp(-((x - mean) ** 2) / (2 * sd**2)) / (sd * math.sqrt(2 * math.pi))


def _free(x: float) -> float:
    return PRIOR * _normal(x, *ASKED) + (1 - PRIOR) * _normal(x, *OTHER)


def _slope_of_log(density: object, x: float, h: float = 1e-5) -> float:
    return (math.log(density(x + h)) - math.log(density(x - h))) / (2 * h)  # type: ignore[operator]


def test_eq_09_bayes() -> None:
    """Differences of logarithms: guided score, and score plus g times the slope of the classifier's log."""
    for x in (-1.5, -0.2, 0.4, 1.3):
        for g in (0.0, 1.0, 3.5):
            free = _slope_of_log(_free, x)
            text = _slope_of_log(lambda y: _normal(y, *ASKED), x)
            vote = _slope_of_log(lambda y: PRIOR * _normal(y, *ASKED) / _free(y), x)
            assert free + g * (text - free) == pytest.approx(free + g * vote, abs=1e-6)


def test_eq_09_density() -> None:
    """Both forms of the guided density have the guided score, and are one density once normalized."""
    side = np.linspace(-6, 6, 4001)
    text, free = (np.array([f(float(x)) for x in side]) for f in (lambda y: _normal(y, *ASKED), _free))
    for g in (0.5, 1.0, 3.0):
        powers, posterior = text**g * free ** (1 - g), free * (PRIOR * text / free) ** g
        assert np.allclose(powers / powers.sum(), posterior / posterior.sum(), atol=1e-12)
        score = np.gradient(np.log(powers), side)
        guided = (1 - g) * np.gradient(np.log(free), side) + g * np.gradient(np.log(text), side)
        assert np.allclose(score[1:-1], guided[1:-1], atol=1e-6)


@pytest.mark.parametrize("g", [0.0, 1.0, 2.0, 3.0])
def test_eq_09_gauss(g: float) -> None:
    """The variance of the density by integration; that of samples by following the flow of DDIM in tiny steps."""
    a, b = 0.5, 1.2
    side = np.linspace(-30, 30, 200_001)
    density = np.exp(-(g / a + (1 - g) / b) * side**2 / 2)
    assert (density * side**2).sum() / density.sum() == pytest.approx(1 / (g / a + (1 - g) / b), rel=1e-6)
    # y = x / signal against the noise-to-signal ratio r: dy / dr = -r score; linear, so one path tells the variance.
    log_r = np.linspace(math.log(1e-4), math.log(1e4), 200_001)
    r2 = np.exp(2 * log_r)
    slope = r2 * (g / (a + r2) + (1 - g) / (b + r2))  # d log y / d log r
    growth = float(((slope[1:] + slope[:-1]) / 2 * np.diff(log_r)).sum())
    assert 1e8 / math.exp(2 * growth) == pytest.approx(a**g * b ** (1 - g), rel=1e-3)
    assert scaled_linear_schedule().signal[-1] < 0.07  # the book's start is nearly, not wholly, pure noise


def test_eq_09_msssim() -> None:
    """The product, from maps of each scale: structure inside the border, at the last scale all of SSIM."""
    rng = np.random.default_rng(3)
    rough = torch.from_numpy(rng.normal(size=(2, 2, 1, 96, 96)))
    images = 128 + 40 * avg_pool2d(rough.flatten(0, 1), 9, 1, 4).reshape(2, 2, 96, 96) * 5
    images[1] = 0.8 * images[0] + 0.2 * images[1]
    weights = np.array(WEIGHTS[:4]) / sum(WEIGHTS[:4])
    assert weights.sum() == pytest.approx(1)
    first, second = images
    product = np.ones(2)
    for level, weight in enumerate(weights, start=1):
        if level == 4:
            factor = ssim(first, second)
        else:  # structure alone is SSIM of images of equal local means: divide the luminance term out of the map
            factor = _structure(first, second)
            first, second = (avg_pool2d(one[:, None], 2)[:, 0] for one in (first, second))
        product *= np.maximum(factor.numpy(), 0) ** weight
    np.testing.assert_allclose(ms_ssim(*images).numpy(), product, rtol=1e-6)


def _structure(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Mean of SSIM over luminance, inside the border; local means by an explicit Gaussian of 11 taps."""
    taps = torch.exp(-((torch.arange(11) - 5.0) ** 2) / (2 * 1.5**2)).double()
    kernel = torch.outer(taps, taps)[None, None] / taps.sum() ** 2
    a, b = (torch.nn.functional.conv2d(one[:, None], kernel)[:, 0] for one in (first, second))
    c1 = (0.01 * 255) ** 2
    luminance = (2 * a * b + c1) / (a**2 + b**2 + c1)
    inside = ssim_map(first, second)[:, RIM:-RIM, RIM:-RIM]
    return (inside / luminance).mean((1, 2))


def test_eq_09_rescale() -> None:
    """share 1 gives the spread of the plain estimate, share 0 that of the guided one, 0.7 lies on the line between."""
    rng = np.random.default_rng(4)
    free, text = rng.normal(size=(2, 1, 4, 8, 8))
    guided = free + 6 * (text - free)
    ratio = text.std(ddof=1) / guided.std(ddof=1)
    for share in (0.0, 0.7, 1.0):
        found = combine(torch.from_numpy(free), torch.from_numpy(text), 6.0, share).numpy()
        np.testing.assert_allclose(found, (share * ratio + 1 - share) * guided, rtol=1e-4, atol=1e-5)
        assert found.std() == pytest.approx(share * text.std() + (1 - share) * guided.std(), rel=1e-4)
