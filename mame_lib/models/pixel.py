"""A UNet for tiny gray images, small enough to train while one reads about it: no latents, no text.

The class is diffusers' `UNet2DModel`, as in the unconditional experiments beside the paper, with a tenth of their
channels. Blocks of 2 x 2 pixels enter as four channels: nothing is lost, and a step costs a quarter.
"""

from __future__ import annotations

from collections.abc import Sequence

from diffusers import UNet2DModel
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

BLOCK = 2  # pixels of a block's side


class PixelUNet(nn.Module):
    """Noisy gray images [B, 1, n, n] and timesteps [B] in; one value per pixel [B, 1, n, n] out."""

    def __init__(self, unet: UNet2DModel) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """What this stands for (noise, velocity, image) is up to the loss."""
        blocks = pixel_unshuffle(x, BLOCK)  # [B, 4, n/2, n/2]
        return pixel_shuffle(self.unet(blocks, t).sample, BLOCK)  # [B, 1, n, n]


def pixel_unet(size: int = 32, channels: Sequence[int] = (32, 48, 64)) -> PixelUNet:
    """An untrained network for `size` x `size` images: 0.9 million weights with the usual channels.

    channels: of each floor, from fine to coarse; each floor below the first halves the resolution.

    Raises
    ------
    ValueError
        If the size cannot be halved that often, or a channel count is no multiple of 8 from 16 on. The norms work in 8
        groups; with one channel a group, they would remove what a block is told about the timestep.
    """
    if not channels or any(c < 16 or c % 8 for c in channels):
        raise ValueError(f"channels must be multiples of 8, 16 or more, got {tuple(channels)}.")
    smallest = BLOCK * 2 ** (len(channels) - 1)
    if size < smallest or size % smallest:
        raise ValueError(f"{len(channels)} floors need a size that is a multiple of {smallest}, got {size}.")
    floors = len(channels)
    return PixelUNet(
        UNet2DModel(
            sample_size=size // BLOCK,
            in_channels=BLOCK**2,
            out_channels=BLOCK**2,
            block_out_channels=tuple(channels),
            layers_per_block=1,
            norm_num_groups=8,
            down_block_types=("DownBlock2D",) * floors,
            up_block_types=("UpBlock2D",) * floors,
            attention_head_dim=8,  # in the middle, the only place with attention
        )
    )
