"""A picture of any size and depth as a model sees it, and what the model made of it put back: `Canvas`.

    stored levels [h, w] -> facing left -> padded to a square [s, s] -> gray 0 … 255 at the model's size [n, n]

Only the *change* goes the way back, enlarged where s > n. So detail finer than a pixel of the model stays that of the
picture, also inside the mask, and nothing at all happens outside of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from mame_lib.data.geometry import faces_right
from mame_lib.data.levels import Levels, Mask, check_on_breast, white_of
from mame_lib.data.masks import breast_mask

F32 = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Canvas:
    """One picture and the mask of what is to be made there.

    levels: uint8 or uint16 [h, w], as stored. mask: bool [h, w], not empty. size: n, the side of the model's images.

    Raises `InputError` when less than half of the mask lies on the breast.
    """

    levels: Levels
    mask: Mask
    size: int

    def __post_init__(self) -> None:
        check_on_breast(self.small_mask, breast_mask(np.rint(self.gray).astype(np.uint8)))

    @cached_property
    def right(self) -> bool:
        """Whether the breast faces right; the models have only seen breasts that face left."""
        return faces_right(self.levels)

    @property
    def side(self) -> int:
        """Pixels a side of the square, s."""
        return max(self.levels.shape)

    @cached_property
    def gray(self) -> F32:
        """The picture as the model sees it, [n, n] in 0 … 255: averaged over the pixels of the model."""
        values = self.levels.astype(np.float32) * np.float32(255 / white_of(self.levels))
        return _resized(self._square(values), self.size)

    @cached_property
    def small_mask(self) -> Mask:
        """The mask at the model's size, bool [n, n]: every pixel that it touches."""
        return _resized(self._square(self.mask.astype(np.float32)), self.size) > 1e-6

    def paste(self, change: F32, feather: float = 0.0) -> Levels:
        """The picture with `change` [n, n], in gray levels 0 … 255 of the model, added inside the mask.

        feather: how softly it comes in at the border of the mask, pixels of the model; see `feathered`.
        """
        full = self._unsquare(_resized(change, self.side))  # [h, w]
        weight = feathered(self.mask, feather * self.side / self.size)
        white = white_of(self.levels)
        values = self.levels[self.mask] + (weight * full)[self.mask] * (white / 255)
        result = self.levels.copy()
        result[self.mask] = np.clip(np.rint(values), 0, white).astype(self.levels.dtype)
        return result

    def _square(self, values: F32) -> F32:
        """[h, w] -> [s, s], facing left; what is added is black, before the nipple or above and below."""
        left = values[:, ::-1] if self.right else values
        height, width = values.shape
        top = (self.side - height) // 2
        return np.pad(left, ((top, self.side - height - top), (0, self.side - width)))

    def _unsquare(self, values: F32) -> F32:
        """[s, s] -> [h, w], the inverse of `_square`."""
        height, width = self.levels.shape
        top = (self.side - height) // 2
        left = values[top : top + height, :width]
        return left[:, ::-1] if self.right else left


def feathered(mask: Mask, sigma: float) -> F32:
    """Weights 0..1 of a mask, bool [h, w]: 0 outside of it and at its border, 1 deep inside; corners become round.

    The mask is blurred by a Gaussian of `sigma` pixels, and what is above one half, the value at a straight border, is
    stretched to 0..1. sigma is at most half the largest depth in the mask, so that the middle of a small one is filled
    as well. 0 gives the mask itself. The border of the image is no border of the mask: it goes on beyond.
    """
    if sigma == 0:
        return mask.astype(np.float32)
    around = int(np.ceil(4 * sigma)) + 1
    beyond = np.pad(mask, around, mode="edge")
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    near = tuple(slice(int(span[0]), int(span[-1]) + 1 + 2 * around) for span in (rows, columns))
    sigma = min(sigma, 0.5 * float(ndimage.distance_transform_edt(beyond[near]).max()))
    blurred = np.zeros(beyond.shape, np.float32)
    blurred[near] = ndimage.gaussian_filter(beyond[near].astype(np.float32), sigma, mode="nearest")
    inner = blurred[around:-around, around:-around]
    return np.where(mask, np.clip(2 * inner - 1, 0, 1), 0).astype(np.float32)


def _resized(values: F32, size: int) -> F32:
    """[m, m] -> [size, size]: averaged over the new pixels when it shrinks, interpolated when it grows."""
    if len(values) == size:
        return values
    kind = Image.Resampling.BOX if len(values) > size else Image.Resampling.BILINEAR
    return np.asarray(Image.fromarray(np.ascontiguousarray(values, np.float32)).resize((size, size), kind))
