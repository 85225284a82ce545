"""How alike two images are: PSNR and SSIM, of the whole image or of the breast alone.

Images are gray, `[n, m]` or `[N, n, m]`, arrays or tensors of any real type, on a scale `data_range` wide (255 for
8 bits). The range is never read off the images: a score would then change with the brightest pixel of a pair.
A mammogram is mostly black, and black equals black. So every measure takes a mask of the pixels that count.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mame_lib.errors import InputError

SIGMA, TAPS = 1.5, 11  # Gaussian window of SSIM, in pixels
K1, K2 = 0.01, 0.03  # keep its quotients away from 0 / 0
BLOCK = 2**18  # pixels whose maps are computed at once: bounds the memory, whatever the number of images


def psnr(images: Any, others: Any, *, mask: Any = None, data_range: float = 255.0) -> Tensor:
    """Peak signal-to-noise ratio in dB, float64 [N]: 10 log10(data_range^2 / mean squared error); inf if equal.

    mask: bool, the shape of the images: the pixels over which the error is averaged.

    Raises
    ------
    InputError
        If the shapes differ or are not those of gray images, or a mask has no pixel.
    """
    first, second = _pair(images, others)
    return 10 * torch.log10(data_range**2 / mean_within((first - second) ** 2, mask))


def ssim(images: Any, others: Any, *, mask: Any = None, data_range: float = 255.0) -> Tensor:
    """Structural similarity (Wang et al. 2004), float64 [N], 1 for equal images: the mean of `ssim_map`.

    mask: bool, the shape of the images: the pixels over which the map is averaged.

    Raises
    ------
    InputError
        As `psnr`, and if a side has less than 6 pixels.
    """
    first, second = _pair(images, others)
    return mean_within(ssim_map(first, second, data_range=data_range), mask)


def ssim_map(images: Any, others: Any, *, data_range: float = 255.0) -> Tensor:
    """SSIM of the window around each pixel, float64, the shape of the images, -1..1.

    As torchmetrics defines it: a Gaussian window (sd 1.5, 11 taps), images reflected at their borders, population
    variances. InputError as `ssim`.
    """
    first, second = _pair(images, others)
    if min(first.shape[1:]) <= TAPS // 2:
        raise InputError(f"SSIM needs images of at least {TAPS // 2 + 1} pixels a side, not {tuple(first.shape[1:])}.")
    block = max(1, BLOCK // first[0].numel())  # images at a time
    maps = [_map(a, b, data_range) for a, b in zip(first.split(block), second.split(block), strict=True)]
    return torch.cat(maps).reshape(torch.as_tensor(images).shape)


def _map(first: Tensor, second: Tensor, data_range: float) -> Tensor:
    """SSIM of each window of two stacks [N, n, m]."""
    products = torch.cat([first, second, first**2, second**2, first * second])  # [5N, n, m]
    mean1, mean2, square1, square2, product = _smooth(products).chunk(5)  # [N, n, m] each
    variance1, variance2 = (square1 - mean1**2).clamp(min=0), (square2 - mean2**2).clamp(min=0)
    covariance = product - mean1 * mean2
    c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
    luminance = (2 * mean1 * mean2 + c1) / (mean1**2 + mean2**2 + c1)
    structure = (2 * covariance + c2) / (variance1 + variance2 + c2)
    return luminance * structure


def _smooth(images: Tensor) -> Tensor:
    """Mean under the Gaussian window around each pixel, [N, n, m]; the window is a product, so two short passes do."""
    taps = torch.arange(TAPS, dtype=images.dtype) - TAPS // 2
    window = torch.exp(-((taps / SIGMA) ** 2) / 2)
    window = (window / window.sum()).reshape(1, 1, 1, TAPS)
    padded = F.pad(images[:, None], (TAPS // 2,) * 4, mode="reflect")  # [N, 1, n + 10, m + 10]
    return F.conv2d(F.conv2d(padded, window), window.mT)[:, 0]


def _pair(images: Any, others: Any) -> tuple[Tensor, Tensor]:
    """Both as float64 [N, n, m]: squares of 255 would cost float32 the variance of a flat window."""
    first, second = (torch.as_tensor(values).detach().cpu().double() for values in (images, others))
    if first.shape != second.shape or first.ndim not in (2, 3) or not first.numel():
        raise InputError(
            f"two gray images [n, m], or two stacks [N, n, m], of one shape are compared, not {tuple(first.shape)} "
            f"and {tuple(second.shape)}."
        )
    return (first[None], second[None]) if first.ndim == 2 else (first, second)


def mean_within(values: Tensor, mask: Any) -> Tensor:
    """Mean of each image's values `[N, n, m]`, over its mask if there is one: `[N]`.

    mask: bool, [N, n, m] (or [n, m] for one image), or None for all pixels.

    Raises
    ------
    InputError
        If the mask is of another type or shape, or has no pixel in some image.
    """
    if mask is None:
        return values.mean((1, 2))
    inside = torch.as_tensor(mask).cpu()
    inside = inside[None] if inside.ndim == 2 else inside
    if inside.dtype != torch.bool or inside.shape != values.shape or not inside.flatten(1).any(1).all():
        raise InputError("a mask is bool, has the shape of the images, and at least one pixel of each.")
    return (values * inside).sum((1, 2)) / inside.sum((1, 2))
