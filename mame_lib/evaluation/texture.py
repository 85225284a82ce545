"""Texture of a mammogram in numbers: is a phantom, or a generated image, built like real breast tissue?

Every measure takes a gray image `[n, n]` on the 8-bit scale (0..255, uint8 or float), and the breast mask
`[n, n]`. Lengths are in pixels of a 512-px image, the size at which the published and measured ranges of real
mammograms hold; at another size the same pixels see coarser or finer tissue. `profile` gives all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from mame_lib.errors import InputError

Gray = NDArray[Any]
Mask = NDArray[np.bool_]
F64 = NDArray[np.float64]

BAND = (0.03, 0.25)  # cycles a pixel over which the power law is fitted
EDGE_AT = (0.0, 1.0, 2.0, 5.0, 10.0, 20.0, 40.0)  # distance to the skin, % of the breast's width

# 5 to 95 % quantiles of 326 processed full-field images (CDD-CESM low energy, 512 px, 8 bit; TCIA 10.7937/29kw-ae92);
# coherence: mean 0.473 and two standard deviations of 0.035.
REAL_RANGES: dict[str, tuple[float, float]] = {
    "beta": (2.55, 3.45), "coherence": (0.403, 0.543), "mean": (57.0, 103.0), "sd": (31.0, 61.0),
    "local_sd": (9.1, 23.8),
}  # fmt: skip


def _checked(image: Gray, mask: Mask) -> F64:
    """`image` as float64 [n, n]; refuses what is not a square picture with a breast."""
    if image.ndim != 2 or image.shape[0] != image.shape[1] or mask.shape != image.shape:
        raise InputError(
            f"texture needs a square gray image and a mask of its size, not {image.shape} and {mask.shape}; "
            "use mame_lib.data.geometry.to_square."
        )
    if mask.dtype != np.bool_ or not mask.any():
        raise InputError("texture needs a bool mask with breast pixels in it; use mame_lib.data.masks.breast_mask.")
    return np.asarray(image, np.float64)


def radial_power(image: Gray, mask: Mask) -> tuple[F64, F64]:
    """Frequencies (cycles a pixel, `BAND`) and mean power spectrum of the square regions fully inside the breast.

    Regions are n/4 pixels wide (128 at 512 px) and half overlap; each is centered on its mean and tapered by a
    Hann window, and their periodograms are averaged before the rings are. Empty arrays if no region fits.

    Raises
    ------
    InputError
        If image and mask are not squares of one size, or the mask is empty.
    """
    values = _checked(image, mask)
    side = values.shape[0] // 4
    window = np.outer(np.hanning(side), np.hanning(side))
    total, count = np.zeros((side, side)), 0
    for top in range(0, values.shape[0] - side + 1, side // 4):
        for left in range(0, values.shape[0] - side + 1, side // 4):
            where = slice(top, top + side), slice(left, left + side)
            if mask[where].all():
                region = values[where]
                total += np.abs(np.fft.fft2((region - region.mean()) * window)) ** 2
                count += 1
    if not count:
        return np.empty(0), np.empty(0)
    radius = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side)[None])  # [m, m]
    ring = np.rint(radius * side).astype(int)
    frequency = np.array([radius[ring == k].mean() for k in range(side // 2)])
    power = np.array([total[ring == k].mean() / count for k in range(side // 2)])
    keep = (frequency >= BAND[0]) & (frequency <= BAND[1])
    return frequency[keep], power[keep]


def power_law_exponent(image: Gray, mask: Mask) -> float:
    """beta of the power spectrum K / f^beta, by least squares on log-log; nan if no region fits in the breast.

    Mammograms: beta 1.5 to 3.5 (Burgess, Proc. SPIE 5034, 2003), 3.2 to 3.3 on average for CC and MLO views
    (Chen et al., Med. Phys. 2012). White noise has 0. InputError as `radial_power`.
    """
    frequency, power = radial_power(image, mask)
    if frequency.size < 3 or not (power > 0).all():
        return float("nan")
    return -float(np.polyfit(np.log(frequency), np.log(power), 1)[0])


def coherence(image: Gray, mask: Mask) -> float:
    """How strand-like the tissue is, 0 (no direction) to 1: mean over the breast of (l1 - l2) / (l1 + l2).

    l1 >= l2 are the eigenvalues of the structure tensor: gradients at scale 1 px, averaged over 4 px (Gaussian
    sigmas; Bigun and Granlund, ICCV 1987). Pixels within 8 px of the skin, whose edge is the strongest
    direction of all, do not count. InputError as `radial_power`.
    """
    values = _checked(image, mask)
    dy, dx = (ndimage.gaussian_filter(values, 1.0, order=order) for order in ((1, 0), (0, 1)))
    xx, yy, xy = (ndimage.gaussian_filter(product, 4.0) for product in (dx * dx, dy * dy, dx * dy))
    ratio = np.hypot(xx - yy, 2 * xy) / (xx + yy + 1e-9)  # [n, n]
    inside = skin_distance(mask) > 8
    return float(ratio[inside if inside.any() else mask].mean())


def skin_distance(mask: Mask) -> F64:
    """Distance in pixels of breast pixels to the skin [n, n]; image borders and the chest wall are no skin."""
    padded = np.pad(mask, 64, mode="edge")
    return np.asarray(ndimage.distance_transform_edt(padded)[64:-64, 64:-64])


def brightness(image: Gray, mask: Mask) -> dict[str, float]:
    """Gray levels inside the breast: mean, sd, and percentiles p05, p50, p95. InputError as `radial_power`."""
    values = _checked(image, mask)[mask]
    low, middle, high = np.percentile(values, (5, 50, 95))
    return {
        "mean": float(values.mean()), "sd": float(values.std()),
        "p05": float(low), "p50": float(middle), "p95": float(high),
    }  # fmt: skip


def edge_profile(image: Gray, mask: Mask, at: Sequence[float] = EDGE_AT) -> F64:
    """Median gray at distances `at` from the skin, in % of the breast's width (its largest horizontal extent).

    A ring is 1.5 px wide (1 % of a breast of 150 px) and the one at 0 is the outermost pixel. A distance that
    the breast does not reach is nan. Processed mammograms are flat under the skin because the vendor equalizes
    the thinner rim; unprocessed ones fall off. InputError as `radial_power`.
    """
    values = _checked(image, mask)
    distance = skin_distance(mask) - 1.0
    width = int(mask.any(0).sum())
    rings = [mask & (np.abs(distance - share / 100 * width) <= 0.75) for share in at]
    return np.array([float(np.median(values[ring])) if ring.any() else np.nan for ring in rings])


def haar_noise(image: Gray, mask: Mask) -> float:
    """Standard deviation of the finest noise in gray levels: median |diagonal Haar coefficient| / 0.6745.

    Over blocks of 2 x 2 pixels that lie inside the mask (Donoho and Johnstone, Biometrika 1994). Give the
    complement of the breast for the noise of the background. InputError as `radial_power`.
    """
    values = _checked(image, mask)
    detail = (values[:-1, :-1] - values[1:, :-1] - values[:-1, 1:] + values[1:, 1:]) / 2
    whole = mask[:-1, :-1] & mask[1:, :-1] & mask[:-1, 1:] & mask[1:, 1:]
    return float(np.median(np.abs(detail[whole])) / 0.6745) if whole.any() else 0.0


def local_sd(image: Gray, mask: Mask) -> float:
    """Mean over the breast of the standard deviation in windows of 15 x 15 px that lie inside it (gray levels).

    nan where no window fits. InputError as `radial_power`.
    """
    values = _checked(image, mask)
    mean = ndimage.uniform_filter(values, 15)
    spread = np.sqrt(np.clip(ndimage.uniform_filter(values**2, 15) - mean**2, 0, None))
    whole = ndimage.minimum_filter(mask, 15)
    return float(spread[whole].mean()) if whole.any() else float("nan")


def profile(image: Gray, mask: Mask) -> dict[str, float]:
    """All measures of this module for one image of either facing; edge gray as `edge_0`, `edge_1`, … in %."""
    single: dict[str, Callable[[Gray, Mask], float]] = {
        "beta": power_law_exponent, "coherence": coherence, "haar_noise": haar_noise, "local_sd": local_sd,
    }  # fmt: skip
    edges = dict(zip(EDGE_AT, edge_profile(image, mask), strict=True))
    return {
        **{name: measure(image, mask) for name, measure in single.items()},
        **brightness(image, mask),
        **{f"edge_{share:g}": float(gray) for share, gray in edges.items()},
    }
