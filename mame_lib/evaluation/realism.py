"""How real does a lesion look, in numbers? Contrast, sharpness of the margin, local spectrum, and the seam.

A filled box can betray itself in four ways: what is in it does not stand out as a lesion does, its margin is too soft
or too sharp, its texture is not that of the tissue around, or the border of the mask shows as a line. Each way has
a number here, `realism` gives them all, and none of them has a right value of its own: compare with true lesions in
the same breasts and boxes, and with those after the autoencoder, beyond which no latent model can go.

Images are gray `[n, n]` on the 8-bit scale, uint8 or float. Boxes are half-open pixels `(x0, y0, x1, y1)`. Lengths
are in pixels of the image given: compare images of one size only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from mame_lib.data.masks import Mask
from mame_lib.errors import InputError
from mame_lib.evaluation.autoencoder import Visibility, visibility

Gray = NDArray[Any]
F64 = NDArray[np.float64]
Box = tuple[int, int, int, int]

BANDS = {"coarse": (0.0, 1 / 8), "middle": (1 / 8, 1 / 4), "fine": (1 / 4, 0.5001)}  # cycles a pixel
SMALLEST_PATCH = 16  # pixels: a spectrum of fewer has no coarse band
DEPTH = 2  # pixels to both sides of a mask's border that say how steep the tissue is there
FAINTEST = 4.0  # gray levels: a step that is lower has no margin to speak of

_ROUNDING = 0.5  # gray levels: no tissue counts as flatter, or the least step in it would be seen from afar
_SMOOTH = 0.7  # sigma in pixels, for finding an outline only


def ellipse(box: Box, size: int, scale: float = 1.0) -> Mask:
    """The ellipse inscribed in a box, `scale` times as wide and high, bool [size, size]: a lesion nobody has outlined.

    The middle pixel always belongs to it.

    Raises
    ------
    InputError
        If the box is empty or its middle lies outside the image.
    """
    x0, y0, x1, y1 = box
    middle_x, middle_y = (x0 + x1) / 2, (y0 + y1) / 2
    if x1 <= x0 or y1 <= y0 or not (0 <= middle_x < size and 0 <= middle_y < size):
        raise InputError(f"the box {tuple(box)} is empty or outside the image of {size} pixels; give (x0, y0, x1, y1).")
    y, x = np.mgrid[:size, :size] + 0.5
    inside = np.hypot((x - middle_x) / (scale * (x1 - x0) / 2), (y - middle_y) / (scale * (y1 - y0) / 2)) <= 1
    inside[int(middle_y), int(middle_x)] = True
    return np.asarray(inside)


def contrast(images: Gray, boxes: Sequence[Box], breasts: Sequence[Mask]) -> Visibility:
    """How what lies in each box stands out from around it, `[N]` each: gray levels, and over the surrounding spread.

    Mean of the box's ellipse minus mean of a ring of 4 px around it (`autoencoder.visibility`). images `[N, n, n]`.
    True lesions are measured like filled ones, by their box, though their outline is known.

    Raises
    ------
    InputError
        If a box is empty or outside, or nothing of the breast lies around it.
    """
    lesions = np.stack([ellipse(box, images.shape[-1]) for box in boxes])
    return visibility(images, lesions, np.asarray(breasts))


def outline(image: Gray, box: Box, breast: Mask) -> Mask | None:
    """Where the image is brighter than half way from the ring around a box to its core, bool [n, n].

    One connected piece without holes, at most half a box beyond the box. None if the core is not `FAINTEST` levels
    brighter than the ring: then there is nothing to outline. InputError as `ellipse`.
    """
    size = len(image)
    values = ndimage.gaussian_filter(np.asarray(image, np.float64), _SMOOTH)
    core, whole = ellipse(box, size, 0.5), ellipse(box, size)
    ring = ndimage.binary_dilation(whole, iterations=5) & ~ndimage.binary_dilation(whole) & breast
    if not ring.any() or values[core].mean() - values[ring].mean() < FAINTEST:
        return None
    bright = (values > (values[core].mean() + values[ring].mean()) / 2) & ellipse(box, size, 1.5) & breast
    pieces, count = ndimage.label(bright)
    cover = np.bincount(pieces[core], minlength=count + 1)[1:]  # pixels of the core in each piece
    if not cover.any():
        return None
    return np.asarray(ndimage.binary_fill_holes(pieces == np.argmax(cover) + 1))


def margin_profile(image: Gray, inside: Mask, breast: Mask, reach: int = 6) -> F64:
    """Mean gray along the normal of an outline, `[2 * reach]`: `reach` pixels within, the deepest first, then without.

    inside: bool [n, n], as `outline` gives it. Neighbors are a pixel apart; nan where the breast has no such pixel.
    """
    without, within = ndimage.distance_transform_edt(~inside), ndimage.distance_transform_edt(inside)
    at = np.where(inside, reach - np.rint(within), reach - 1 + np.rint(without)).astype(int)  # [n, n]
    kept = breast & (at >= 0) & (at < 2 * reach)
    total = np.bincount(at[kept], np.asarray(image, np.float64)[kept], minlength=2 * reach)
    count = np.bincount(at[kept], minlength=2 * reach)
    return np.divide(total, count, out=np.full(2 * reach, np.nan), where=count > 0)


def margin_width(image: Gray, box: Box, breast: Mask, inside: Mask | None = None) -> float:
    """How wide the margin of the lesion in a box is, in pixels: step of the gray across it / its steepest slope.

    Both are read off the mean profile along the outline's normal (`margin_profile`), so any shape will do. A sharp
    step has 1, one blurred by a Gaussian of sigma >= 1 pixels about 2.1 sigma; nan where there is no outline or the
    step is lower than `FAINTEST`. inside: the outline if it is known, otherwise that of the image (`outline`).
    Slope over step is how radiology grades the sharpness of masses (acutance: Rangayyan et al., IEEE Trans. Med.
    Imaging 16 (1997) 799).
    """
    inside = outline(image, box, breast) if inside is None else inside
    if inside is None or not inside.any():
        return float("nan")
    reach = 6
    profile = margin_profile(image, inside, breast, reach)
    within, without = profile[:reach], profile[reach:]
    if not (np.isfinite(within).any() and np.isfinite(without).any()):
        return float("nan")
    step, slope = float(np.nanmax(within) - np.nanmin(without)), float(-np.nanmin(np.diff(profile)))
    return step / slope if step >= FAINTEST and slope > 0 else float("nan")


def local_power(image: Gray, box: Box) -> tuple[F64, F64]:
    """Radial power spectrum in the square around a box: frequencies in cycles a pixel `[F]`, power a pixel `[F]`.

    The square is as wide as the longer side of the box, at least `SMALLEST_PATCH`, moved into the image where it
    stands out; centered on its mean and tapered by a Hann window, its power divided by the window's. White noise of
    variance v has v at every frequency, whatever the size of the box, but for the lowest, which loses a quarter to the
    mean. InputError as `ellipse`.
    """
    size = len(image)
    ellipse(box, size)  # refuses a box that is none
    side = min(max(SMALLEST_PATCH, box[2] - box[0], box[3] - box[1]), size)
    left, top = (int(np.clip((a + b - side) // 2, 0, size - side)) for a, b in ((box[0], box[2]), (box[1], box[3])))
    patch = np.asarray(image[top : top + side, left : left + side], np.float64)
    window = np.outer(np.hanning(side + 2)[1:-1], np.hanning(side + 2)[1:-1])  # no pixel weighs nothing
    patch = (patch - np.average(patch, weights=window)) * window
    power = np.abs(np.fft.fft2(patch)) ** 2 / (window**2).sum()  # [m, m]
    radius = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side)[None])
    ring = np.rint(radius * side).astype(int)
    rings = range(1, side // 2 + 1)
    return np.array([radius[ring == k].mean() for k in rings]), np.array([power[ring == k].mean() for k in rings])


def spectral_slope(image: Gray, box: Box) -> float:
    """beta of the power law K / f^beta in the square of `local_power`, by least squares on log-log.

    The lowest frequency is left out. Breast tissue has about 3 (Burgess, Proc. SPIE 5034, 2003), white noise 0, what
    an autoencoder smoothed more than tissue. nan where the square holds nothing but one gray.
    """
    frequency, power = local_power(image, box)
    if not (power > 1e-9).all():
        return float("nan")
    return -float(np.polyfit(np.log(frequency[1:]), np.log(power[1:]), 1)[0])


def band_power(image: Gray, box: Box) -> dict[str, float]:
    """Mean power of each of the `BANDS` in the square of `local_power`, in dB of a squared gray level.

    The autoencoder's error is largest in "fine". A band without power has that of rounding to whole gray levels,
    1/12, added like any other: about -11 dB.
    """
    frequency, power = local_power(image, box)
    return {
        name: 10 * float(np.log10(power[(frequency >= low) & (frequency < high)].mean() + 1 / 12))
        for name, (low, high) in BANDS.items()
    }


def seam(image: Gray, mask: Mask, breast: Mask) -> float:
    """How steep the image is across the border of a mask, over how steep it is beside it; 1: nothing to see.

    mask: bool [n, n], where the image was made or pasted. Numerator: mean absolute difference of the two pixels on
    either side of the border; denominator: that of neighbors in the same direction up to `DEPTH` pixels within and
    without, at least half a level. Only pixels of the breast count.

    Raises
    ------
    InputError
        If no border of the mask lies within the breast.
    """
    values = np.asarray(image, np.float64)
    across, beside = [], []
    for axis in (0, 1):
        step = np.abs(np.diff(values, axis=axis))
        both = np.minimum(*(np.delete(breast, end, axis) for end in (0, -1)))  # both pixels in the breast
        border = np.diff(mask.astype(np.int8), axis=axis) != 0
        near = ndimage.maximum_filter1d(border, 2 * DEPTH + 1, axis=axis) & ~border
        across.append(step[border & both])
        beside.append(step[near & both])
    steep, usual = np.concatenate(across), np.concatenate(beside)
    if not (steep.size and usual.size):
        raise InputError("no border of the mask lies within the breast; give the mask that was filled.")
    return float(steep.mean() / max(usual.mean(), _ROUNDING))


def realism(
    images: Gray, boxes: Sequence[Box], breasts: Sequence[Mask], masks: Sequence[Mask] | None = None
) -> dict[str, F64]:
    """All measures of this module by name, `[N]` each, of images `[N, n, n]` with one lesion's box each.

    contrast and to_noise (`contrast`), margin (`margin_width`), slope (`spectral_slope`), coarse, middle, fine
    (`band_power`), seam (`seam`). masks: where each image was filled; by default its box. nan where a measure has
    nothing to measure.

    Raises
    ------
    InputError
        As the measures.
    """
    size = images.shape[-1]
    filled = [_rectangle(box, size) for box in boxes] if masks is None else masks
    stands = contrast(images, boxes, breasts)
    rows = list(zip(images, boxes, breasts, filled, strict=True))
    bands = [band_power(image, box) for image, box, _, _ in rows]
    return {
        "contrast": stands.contrast,
        "to_noise": stands.to_noise,
        "margin": np.array([margin_width(image, box, breast) for image, box, breast, _ in rows]),
        "slope": np.array([spectral_slope(image, box) for image, box, _, _ in rows]),
        **{name: np.array([band[name] for band in bands]) for name in BANDS},
        "seam": np.array([seam(image, mask, breast) for image, _, breast, mask in rows]),
    }


def _rectangle(box: Box, size: int) -> Mask:
    mask = np.zeros((size, size), bool)
    mask[box[1] : box[3], box[0] : box[2]] = True
    return mask
