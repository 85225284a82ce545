"""Where a lesion may lie: boxes inside the breast, off its skin and muscle, with the paper's sizes.

The paper planned 2,000 healthy images with an inpainted lesion each: a box of 720 to 3,721 pixels of 512 x 512, the
quartiles of its masks, and a height over width within 0.653 to 1.653, the mean 1.153 of its boxes plus and
minus one standard deviation. In their code a random corner is tried until the box lies in the breast, which may
never end. Here all places where a box fits are counted at once and one of them is drawn.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from mame_lib.errors import InputError

Mask = NDArray[np.bool_]
Box = tuple[int, int, int, int]

PAPER_AREA = (720 / 512**2, 3721 / 512**2)  # quartiles of the paper's masks, shares of the image
PAPER_ASPECT = (0.653, 1.653)  # height / width: mean 1.153 -+ standard deviation 0.500
_SKIN = 0.018  # of the side: as near to the skin as the phantom's own lesions come


def free_area(breast: Mask, muscle: Mask | None = None) -> Mask:
    """Pixels [n, n] that a lesion may cover: of the breast, off its skin and off the pectoral muscle if that is given.

    Where the breast meets the border of the image there is no skin: it goes on beyond.
    """
    size = max(breast.shape)
    depth = ndimage.distance_transform_edt(np.pad(breast, 1, mode="edge"))[1:-1, 1:-1]
    free = breast & (depth > max(2.0, _SKIN * size))
    return free if muscle is None else free & ~muscle


def place_box(free: Mask, width: int, height: int, rng: np.random.Generator) -> Box | None:
    """A box of `width` x `height` pixels wholly within `free`, each place equally likely; None where none fits."""
    rows, columns = free.shape
    if not (0 < width <= columns and 0 < height <= rows):
        return None
    sums = np.pad(free.cumsum(0).cumsum(1), ((1, 0), (1, 0)))  # [h + 1, w + 1]
    inside = sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]
    places = np.flatnonzero(inside == width * height)
    if not places.size:
        return None
    y, x = divmod(int(places[rng.integers(places.size)]), columns - width + 1)
    return x, y, x + width, y + height


def sample_box(
    free: Mask,
    rng: np.random.Generator,
    *,
    area: tuple[float, float] = PAPER_AREA,
    aspect: tuple[float, float] = PAPER_ASPECT,
    tries: int = 100,
) -> Box:
    """A plausible lesion box, half-open (x0, y0, x1, y1) in pixels, wholly within `free` [h, w].

    area: smallest and largest share of the image, aspect: smallest and largest height / width; both are drawn
    uniformly, as in the paper's code, until a box of that size fits somewhere, `tries` times at most.

    Raises `InputError` when no box drawn fits.
    """
    for _ in range(tries):
        pixels, ratio = rng.uniform(*area) * free.size, rng.uniform(*aspect)
        width, height = (max(1, round(side)) for side in (np.sqrt(pixels / ratio), np.sqrt(pixels * ratio)))
        box = place_box(free, width, height, rng)
        if box is not None:
            return box
    raise InputError(
        f"none of {tries} boxes of {area[0] * free.size:.0f} to {area[1] * free.size:.0f} pixels fits into this "
        "breast, off its skin and muscle; ask for a smaller area or give a box."
    )
