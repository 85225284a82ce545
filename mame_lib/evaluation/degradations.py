"""Ways in which a mammogram suffers, one at a time: files, noise, failed sampling, the autoencoder.

Every function takes a uint8 [n, n] image (`round_trip`: [N, n, n]) and returns a new one of its shape; what is
random comes from the generator that is given. Measures are tested with them, and their reader is trained with them.
"""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from mame_lib.models.latents import to_tensor

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

Gray = NDArray[np.uint8]


def _levels(values: NDArray[np.floating]) -> Gray:
    return np.asarray(np.clip(np.rint(values), 0, 255), np.uint8)


def jpeg(image: Gray, quality: int) -> Gray:
    """Through a JPEG file of `quality` 1..95."""
    file = BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(file, "JPEG", quality=quality)
    return np.array(Image.open(file))


def noisy(image: Gray, sd: float, rng: np.random.Generator) -> Gray:
    """White Gaussian noise of standard deviation `sd` gray levels, also in the background."""
    return _levels(image + np.float32(sd) * rng.standard_normal(image.shape, np.float32))


def blurred(image: Gray, sigma: float) -> Gray:
    """Gaussian blur, `sigma` in pixels."""
    return _levels(ndimage.gaussian_filter(image.astype(np.float32), sigma))


def gray_background(image: Gray, mask: NDArray[np.bool_], level: float) -> Gray:
    """The background outside the breast, bool [n, n], raised to `level`, as failed samples have it (paper, Fig. 20)."""
    return np.where(mask, image, np.maximum(image, np.uint8(round(level))))


def with_marker(image: Gray, rng: np.random.Generator) -> Gray:
    """A bright label in the free corner that is farther from the chest wall, some 8 x 14 % of the side, not as large
    where the breast leaves less room."""
    side = len(image)
    marked = image.copy()
    view = marked if image[:, : side // 2].mean() > image[:, side // 2 :].mean() else marked[:, ::-1]
    height, width = round(rng.uniform(0.05, 0.1) * side), round(rng.uniform(0.08, 0.16) * side)
    top = round(rng.uniform(0.02, 0.06) * side)
    label = view[top : top + height, side - width - top : side - top]
    label[label < 5] = round(rng.uniform(150, 255))
    return marked


@torch.no_grad()
def round_trip(
    images: Gray, vae: AutoencoderKL, *, latent_noise: float = 0.0, seed: int = 0, batch_size: int = 16
) -> Gray:
    """Images [N, n, n] encoded and decoded by `vae`, sides a multiple of 8.

    latent_noise: standard deviation of noise added to the scaled latents, whose own is about 1: an image that the
    autoencoder can write and no encoder would have asked for, much like a sampled one.
    """
    generator = torch.Generator().manual_seed(seed)
    model = vae.to(memory_format=torch.channels_last)  # twice as fast on a CPU
    back = []
    for start in range(0, len(images), batch_size):
        pixels = to_tensor(images[start : start + batch_size]).contiguous(memory_format=torch.channels_last)
        latents = model.encode(pixels).latent_dist.mean  # [B, 4, h, w]
        noise = torch.randn(latents.shape, generator=generator)
        latents = latents + latent_noise / vae.config.scaling_factor * noise
        decoded = model.decode(latents.contiguous(memory_format=torch.channels_last)).sample.float().mean(1)
        back.append(((decoded + 1) * 127.5).round().clamp(0, 255).byte().numpy())
    return np.concatenate(back)
