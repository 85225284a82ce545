"""The classical ways to put a lesion into another breast: cut it out and paste it, hard, feathered or by gradients.

What inpainting must beat. Every function takes a gray image [n, n], a patch [h, w] cut from another one, and the box
(x0, y0, x1, y1) it goes to, whose size is that of the patch, and returns a new uint8 image [n, n]; outside the box
nothing changes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csc_array
from scipy.sparse.linalg import spsolve

from mame_lib.errors import InputError

Gray = NDArray[np.uint8]
Box = tuple[int, int, int, int]


def hard_paste(image: Gray, patch: NDArray[Any], box: Box) -> Gray:
    """The patch as it is: where the two breasts differ in gray, a square is seen. InputError if it does not fit."""
    _check(image, patch, box)
    pasted = image.copy()
    pasted[box[1] : box[3], box[0] : box[2]] = np.clip(np.rint(patch), 0, 255)
    return pasted


def feathered_paste(image: Gray, patch: NDArray[Any], box: Box, width: float = 2.0) -> Gray:
    """The patch faded in over `width` pixels from the border of the box inward, linearly.

    InputError as `hard_paste`.
    """
    _check(image, patch, box)
    rows, columns = (np.minimum(np.arange(k) + 0.5, np.arange(k)[::-1] + 0.5) for k in patch.shape)
    weight = np.clip(np.minimum(rows[:, None], columns[None]) / max(width, 0.5), 0, 1)  # [h, w]
    under = image[box[1] : box[3], box[0] : box[2]].astype(np.float64)
    return hard_paste(image, weight * patch + (1 - weight) * under, box)


def poisson_paste(image: Gray, patch: NDArray[Any], box: Box) -> Gray:
    """The differences between the patch's pixels, from the gray that the image has along the border of the box.

    Solves the discrete Poisson equation whose right side is the patch's Laplacian and whose values on the outermost
    pixels of the box are the image's own (Perez, Gangnet and Blake, SIGGRAPH 2003, Eq. 7). The patch's gray level is
    lost: a lesion out of dark tissue becomes a bright one in bright tissue. InputError as `hard_paste`.
    """
    _check(image, patch, box)
    source = np.asarray(patch, np.float64)  # [h, w]
    solved = image[box[1] : box[3], box[0] : box[2]].astype(np.float64)  # its border stays
    height, width = patch.shape
    if min(height, width) < 3:
        return image.copy()
    inner = (slice(1, -1), slice(1, -1))
    free = np.full(source.shape, -1)
    count = source[inner].size
    free[inner] = np.arange(count).reshape(source[inner].shape)
    right = np.zeros(source[inner].shape)
    rows, columns = [np.arange(count)], [np.arange(count)]
    for down, across in ((0, 1), (0, -1), (1, 0), (-1, 0)):
        near = (slice(1 + down, height - 1 + down), slice(1 + across, width - 1 + across))
        known = free[near] < 0
        right += source[inner] - source[near] + np.where(known, solved[near], 0)
        rows.append(free[inner][~known])
        columns.append(free[near][~known])
    i, j = np.concatenate(rows), np.concatenate(columns)
    matrix = coo_array((np.where(i == j, 4.0, -1.0), (i, j)), shape=(count, count))
    solved[inner] = spsolve(csc_array(matrix), right.ravel()).reshape(right.shape)
    return hard_paste(image, solved, box)


def _check(image: Gray, patch: NDArray[Any], box: Box) -> None:
    x0, y0, x1, y1 = box
    inside = 0 <= x0 < x1 <= image.shape[1] and 0 <= y0 < y1 <= image.shape[0]
    if not inside or patch.shape != (y1 - y0, x1 - x0):
        raise InputError(
            f"a patch of {patch.shape[1]} x {patch.shape[0]} pixels does not fit the box {tuple(box)} of this image; "
            "cut one of the box's size."
        )
