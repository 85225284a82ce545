"""Images to latents and back through the VAE (paper, sections 2.3.3 and 2.4.1)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mame_lib.models.folding import decoder

if TYPE_CHECKING:
    from diffusers import AutoencoderKL


class Moments(NamedTuple):
    """Mean and standard deviation of the VAE posterior of each image, both `[N, 4, h, w]` float32, unscaled."""

    mean: Tensor
    std: Tensor


def to_tensor(images: np.ndarray) -> Tensor:
    """uint8 `[N, H, W]` gray or `[N, H, W, 3]` RGB to float32 `[N, 3, H, W]` in [-1, 1]; gray fills three channels."""
    pixels = torch.from_numpy(np.ascontiguousarray(images)).float() / 127.5 - 1  # [N, H, W(, 3)]
    if pixels.ndim == 3:
        return pixels[:, None].expand(-1, 3, -1, -1)  # [N, 3, H, W]
    return pixels.permute(0, 3, 1, 2)  # [N, 3, H, W]


def images_at_once(size: int, most: int = 16) -> int:
    """Images of `size` pixels that an autoencoder takes at once: SD 1.5's then stays within about 3 GiB."""
    return max(1, min(most, 2**20 // size**2))


@torch.no_grad()
def encode_moments(vae: AutoencoderKL, images: np.ndarray, batch_size: int | None = None) -> Moments:
    """Encode uint8 images once; training then draws a fresh posterior sample at every step."""
    means, stds = [], []
    batch_size = batch_size or images_at_once(images.shape[1])
    for start in range(0, len(images), batch_size):
        pixels = to_tensor(images[start : start + batch_size]).to(vae.device)  # [B, 3, H, W]
        posterior = vae.encode(pixels).latent_dist
        means.append(posterior.mean.float().cpu())  # [B, 4, h, w]
        stds.append(posterior.std.float().cpu())  # [B, 4, h, w]
    return Moments(torch.cat(means), torch.cat(stds))


def sample_latents(moments: Moments, noise: Tensor, scaling_factor: float) -> Tensor:
    """A posterior sample, scaled to about unit variance: `(mean + std * noise) * scaling_factor`, `[N, 4, h, w]`."""
    return (moments.mean + moments.std * noise) * scaling_factor


def decode_color(vae: AutoencoderKL, latents: Tensor, batch_size: int | None = None) -> Tensor:
    """Unscaled latents `[N, 4, h, w]` to float32 `[N, 3, H, W]` on the CPU, cut to -1..1."""
    return torch.cat([rows.cpu() for rows in _decoded(vae, latents, batch_size)])  # [N, 3, H, W]


def decode(vae: AutoencoderKL, latents: Tensor, batch_size: int | None = None) -> np.ndarray:
    """Scaled latents `[N, 4, h, w]` to gray uint8 images `[N, H, W]`.

    The three channels are averaged: a mammogram has no color, and what color the VAE invents is error.
    """
    rows = _decoded(vae, latents / vae.config.scaling_factor, batch_size)
    return np.concatenate([((one.mean(1) + 1) * 127.5).round().clamp(0, 255).byte().cpu().numpy() for one in rows])


@torch.no_grad()
def _decoded(vae: AutoencoderKL, latents: Tensor, batch_size: int | None) -> Iterator[Tensor]:
    """Unscaled latents as float32 `[B, 3, H, W]` in -1..1, some at a time: on a CPU many at once are no faster."""
    if batch_size is None:
        size = latents.shape[-1] * 2 ** (len(vae.config.block_out_channels) - 1)
        batch_size = images_at_once(size, most=8)
    decoded = decoder(vae)
    for rows in latents.split(batch_size):  # [B, 4, h, w]
        yield decoded(rows.to(vae.device)).float().clamp(-1, 1)  # [B, 3, H, W]
