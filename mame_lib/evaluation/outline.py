"""Is there one breast in the image, and is its outline one that a breast can have? `oddities`.

Nothing is learned: a few numbers that are small for every breast, drawn, decoded or photographed, and large for what
a failed sampler makes. They are taken at a side of 128 pixels or less, where the size of the image no longer matters.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from mame_lib.data.masks import Mask, breast_mask, chest_wall_side, foreground

Gray = NDArray[np.uint8]

COARSE = 128
_NEAR = 0.02  # share of the side: closer than this to the breast, or narrower, is no oddity
_RIM = 0.03  # share of the side: the skin's edge is looked for this far to both sides of the outline
_BLACK = 12  # gray levels: fat is brighter, and so is a background that would be a failure of its own
_BORDER = 1 / 32  # width of the strips at the vertical borders, share of the side


def oddities(image: Gray) -> dict[str, float]:
    """How far a uint8 [n, n] image is from one breast at one chest wall; no entry says anything bad at 0.

    empty: 1 if no breast is found, and then there are no others. pieces: what is at least half as bright elsewhere /
    area of the breast. holes: black share of the breast. afloat: share of its rows that don't reach the chest wall.
    walls: share of the image's rows that reach the opposite border. waist: what is missing where the outline draws
    in and comes out again / area. ragged: mean distance of the outline from a smooth one, share of the side. soft:
    width of the skin's edge, share of the side (step / steepest gradient, median along the skin). full: share of the
    image that is breast.
    """
    coarse = _reduced(image)
    mask = breast_mask(coarse)
    if not mask.any():
        return {"empty": 1.0}
    found = foreground(coarse)[0]
    if chest_wall_side(mask) == "R":
        coarse, mask, found = coarse[:, ::-1], mask[:, ::-1], found[:, ::-1]
    side = len(coarse)
    near = max(1, round(_NEAR * side))
    bright = _closed(ndimage.binary_opening(found, iterations=max(1, side // 128)), near)
    beside = ~ndimage.binary_dilation(mask, iterations=near)  # [s, s]
    breast = bright & ~beside
    width = np.where(breast.any(1), side - np.argmax(breast[:, ::-1], axis=1), 0).astype(np.float64)  # [s]
    # the widest that the rows above and below allow, if a breast widens once and narrows once
    once = np.minimum(np.maximum.accumulate(width), np.maximum.accumulate(width[::-1])[::-1])
    smooth = ndimage.gaussian_filter1d(width, 0.03 * side, mode="nearest")
    area, border = float(mask.sum()), max(1, round(_BORDER * side))
    plain = bright & (coarse > 0.5 * np.median(coarse[mask]))  # noise on black is brighter than black, not that bright
    return {
        "pieces": float((plain & beside).sum()) / area,
        "holes": float((mask & ~bright & (coarse < _BLACK)).sum()) / area,
        "afloat": 1 - float(bright[mask.any(1), :border].any(1).mean()),
        "walls": float(plain[:, -border:].all(1).mean()),
        "waist": float((once - width).sum() / max(width.sum(), 1.0)),
        "ragged": float(np.abs(width - smooth).mean()) / side,
        "soft": _softness(coarse, mask),
        "full": float(mask.mean()),
    }


def _reduced(image: Gray) -> Gray:
    factor = -(-len(image) // COARSE)
    return image if factor == 1 else np.asarray(Image.fromarray(np.ascontiguousarray(image)).reduce(factor))


def _closed(mask: Mask, radius: int) -> Mask:
    """Gaps narrower than twice `radius` closed; the image goes on beyond its borders as it ends there."""
    wide = np.pad(mask, radius + 1, mode="edge")
    trim = slice(radius + 1, -radius - 1)
    return np.asarray(ndimage.binary_closing(wide, iterations=radius)[trim, trim])


def _softness(gray: Gray, mask: Mask) -> float:
    """Width of the skin's edge / side: height of the step over the steepest gradient, the median along the skin."""
    side = len(gray)
    values = ndimage.gaussian_filter(gray.astype(np.float32), 0.6)
    steepest = ndimage.maximum_filter(np.hypot(*np.gradient(values)), 2 * round(_RIM * side) + 1)
    window = 4 * round(_RIM * side) + 1  # a blurred edge reaches farther than it is looked for
    step = ndimage.maximum_filter(values, window) - ndimage.minimum_filter(values, window)
    skin = mask & ~ndimage.binary_erosion(np.pad(mask, 1, mode="edge"))[1:-1, 1:-1]  # image borders are no skin
    return float(np.median((step / np.maximum(steepest, 0.5))[skin])) / side if skin.any() else 1.0
