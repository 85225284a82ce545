"""Which pixels are breast, and on which side its chest wall lies."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Mask = NDArray[np.bool_]


def breast_mask(image: NDArray[np.uint8]) -> Mask:
    """Breast pixels of a uint8 [n, n] image; robust to a gray or noisy background.

    Threshold above the background level of the border, raised toward half the level of the fat so that
    blur does not widen the breast; the largest component, holes filled (also those open to the chest wall).
    """
    side = image.shape[0]
    smooth = ndimage.gaussian_filter(image.astype(np.float32), max(0.6, 1.5 * side / 512))
    border = np.sort(np.concatenate([smooth[0], smooth[-1], smooth[:, 0], smooth[:, -1]]))
    outside = border[: int(0.6 * border.size)]
    level = float(np.median(outside))
    spread = 1.4826 * float(np.median(np.abs(outside - level)))  # of the noise, from the MAD
    floor = max(5.0, level + 4.5 * min(spread, 6.0) + 3)
    above = smooth > floor
    fat = float(np.percentile(smooth[above], 20)) if above.any() else floor
    threshold = max(floor, min(level + 0.35 * (fat - level), level + 20))
    found = smooth > threshold
    # dark fat under the skin breaks the rim: close gaps of 2 % of the side, then drop specks
    found = ndimage.binary_opening(_closed(found, max(1, round(0.02 * side))), iterations=max(1, side // 256))
    labels, count = ndimage.label(found)
    if count == 0:
        return np.zeros(image.shape, bool)
    largest = labels == 1 + int(np.argmax(np.bincount(labels.ravel())[1:]))
    return _fill(largest)


def _closed(mask: Mask, radius: int) -> Mask:
    """Morphological closing by a disk of `radius` pixels, by distances: as fast for a large disk."""
    if not mask.any():
        return mask
    padded = np.pad(mask, radius + 1, mode="edge")
    wide = ndimage.distance_transform_edt(~padded) <= radius
    closed = np.asarray(ndimage.distance_transform_edt(np.pad(wide, radius, mode="edge")) > radius)
    trim = 2 * radius + 1
    return np.asarray(closed[trim:-trim, trim:-trim])


def _fill(mask: Mask) -> Mask:
    """Fill holes, counting the chest wall as closed between the breast's first and last row."""
    at_left = chest_wall_side(mask) == "L"
    faced = mask if at_left else mask[:, ::-1]
    rows = np.flatnonzero(faced[:, : max(2, mask.shape[1] // 16)].any(1))
    wall = np.zeros((mask.shape[0], 1), bool)
    if rows.size:
        wall[rows[0] : rows[-1] + 1] = True
    filled = ndimage.binary_fill_holes(np.concatenate([wall, faced], axis=1))[:, 1:]
    return np.asarray(filled if at_left else filled[:, ::-1], bool)


def chest_wall_side(mask: Mask) -> str:
    """L or R: the side whose border columns (1/32 of the width) hold more of the mask; L when they tie."""
    strip = max(1, mask.shape[1] // 32)
    return "L" if mask[:, :strip].sum() >= mask[:, -strip:].sum() else "R"
