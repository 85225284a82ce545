"""Inpainting: the UNet sees, beside the noisy latents, a mask and what lies around it (paper, Fig. 11).

    input [B, 9, h, w] = noisy latents [B, 4, h, w] | mask [B, 1, h, w] | latents of the masked image [B, 4, h, w]

A mask is 1 where the image is to be made. Masked pixels are 0 in [-1, 1], a middle gray, as in Stable Diffusion's own
inpainting model.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel

EXTRA_CHANNELS = 5
GRAY = 127.5


def widen(unet: UNet2DConditionModel) -> None:
    """Turn a UNet of 4 input channels into one of 9, in place; the new weights are zero, so its output is unchanged.

    A UNet that has 9 already is left alone. Raises `ValueError` for any other number.
    """
    old = unet.conv_in
    if old.in_channels == 4 + EXTRA_CHANNELS:
        return
    if old.in_channels != 4:
        raise ValueError(f"a UNet of {old.in_channels} input channels can't be turned into an inpainting one.")
    new = nn.Conv2d(
        4 + EXTRA_CHANNELS, old.out_channels, old.kernel_size, padding=old.padding,
        device=old.weight.device, dtype=old.weight.dtype,
    )  # fmt: skip
    with torch.no_grad():
        new.weight.zero_()  # [C, 9, 3, 3]
        new.weight[:, :4] = old.weight
        assert new.bias is not None and old.bias is not None
        new.bias.copy_(old.bias)
    unet.conv_in = new.requires_grad_(old.weight.requires_grad)
    unet.register_to_config(in_channels=4 + EXTRA_CHANNELS)


def box_mask(boxes: Iterable[tuple[float, float, float, float]], size: int, grow: float = 0.0) -> NDArray[np.bool_]:
    """Filled rectangles, bool `[size, size]`.

    boxes : half-open `(x0, y0, x1, y1)` in pixels; parts outside the square are cut off.
    grow : each box gets longer and wider by this share of itself, around its center.
    """
    mask = np.zeros((size, size), bool)
    for x0, y0, x1, y1 in boxes:
        dx, dy = grow * (x1 - x0) / 2, grow * (y1 - y0) / 2
        columns = slice(max(0, round(x0 - dx)), max(0, round(x1 + dx)))
        rows = slice(max(0, round(y0 - dy)), max(0, round(y1 + dy)))
        mask[rows, columns] = True
    return mask


def snap(mask: NDArray[np.bool_], cell: int) -> NDArray[np.bool_]:
    """Grow a mask `[n, n]` to whole cells of the latent grid, `cell` pixels a side.

    The mask then means the same region at both resolutions. Without it a lesion smaller than a cell may fall between
    the pixels that `latent_mask` looks at, and vanish.
    """
    n = len(mask)
    cells = mask.reshape(n // cell, cell, n // cell, cell).any((1, 3))  # [h, w]
    return cells.repeat(cell, 0).repeat(cell, 1)  # [n, n]


def latent_mask(masks: NDArray[np.bool_], size: int) -> Tensor:
    """Masks bool `[B, n, n]` at the resolution of the latents, float32 `[B, 1, size, size]` of 0 and 1.

    The nearest pixel decides, as in `StableDiffusionInpaintPipeline`; for a snapped mask every rule agrees.
    """
    pixels = torch.from_numpy(np.ascontiguousarray(masks)).float()[:, None]  # [B, 1, n, n]
    return nn.functional.interpolate(pixels, size=(size, size), mode="nearest")  # [B, 1, size, size]


def blank(images: NDArray[np.uint8] | NDArray[np.float32], masks: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Images `[B, n, n]`, 0 … 255, with their masked pixels set to middle gray, 127.5, which float32 can hold."""
    return np.where(masks, np.float32(GRAY), images.astype(np.float32))
