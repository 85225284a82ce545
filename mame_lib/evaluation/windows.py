"""The Gaussian windows through which SSIM looks at an image: their means and variances, each computed once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

SIGMA, TAPS = 1.5, 11  # in pixels
RIM = TAPS // 2  # pixels by which a window reaches around its center


@dataclass(frozen=True)
class Windows:
    """Pixels of a stack of images `[N, n + 10, m + 10]`, and mean and variance of each window, `[N, n, m]`.

    mask: bool `[N, n, m]`, the windows that count, or None if all do.
    """

    pixels: Tensor
    mean: Tensor
    variance: Tensor
    mask: Tensor | None

    def __getitem__(self, images: slice) -> Windows:
        """The same for some of the images."""
        mask = None if self.mask is None else self.mask[images]
        return Windows(self.pixels[images], self.mean[images], self.variance[images], mask)


def windows(pixels: Tensor, mask: Tensor | None = None) -> Windows:
    """The windows that lie in the pixels `[N, n + 10, m + 10]`."""
    mean = smooth(pixels)
    return Windows(pixels, mean, (smooth(pixels**2) - mean**2).clamp(min=0), mask)


def smooth(pixels: Tensor) -> Tensor:
    """Mean of each window that lies in the pixels, `[N, n + 10, m + 10]` to `[N, n, m]`.

    The window is a product, so rows and then columns do. Sums of shifted images are several times faster than a
    convolution that has one channel.
    """
    taps = torch.arange(TAPS, dtype=torch.float64) - RIM
    gauss = torch.exp(-((taps / SIGMA) ** 2) / 2)
    weights = (gauss / gauss.sum()).tolist()
    for axis in (1, 2):
        size = pixels.shape[axis] - 2 * RIM
        total = pixels.narrow(axis, 0, size) * weights[0]
        for tap in range(1, TAPS):
            total.add_(pixels.narrow(axis, tap, size), alpha=weights[tap])
        pixels = total
    return pixels


def reflected(images: Tensor) -> Tensor:
    """Images `[N, n, m]` continued by 5 pixels over each border, as in a mirror: `[N, n + 10, m + 10]`."""
    return F.pad(images[:, None], (RIM,) * 4, mode="reflect")[:, 0]
