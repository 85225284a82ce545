"""Pictures made while training: validation images from fixed noise, and class images for prior preservation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

from mame_lib.data.folders import complete_or_nothing
from mame_lib.diffusion.start import initial_noise
from mame_lib.models.cache import digest_of, key_of
from mame_lib.models.components import Components
from mame_lib.models.latents import decode
from mame_lib.models.sampling import sample_states
from mame_lib.models.text import encode_prompts

CLASS_STEPS, CLASS_GUIDANCE = 24, 4.0


@contextmanager
def placed(network: nn.Module, device: torch.device) -> Iterator[None]:
    """`network` on `device` inside the block, and back where it was: the GPU holds what it needs, when it needs it."""
    home = next(network.parameters()).device
    network.to(device)
    try:
        yield
    finally:
        network.to(home)


@contextmanager
def evaluating(*networks: nn.Module) -> Iterator[None]:
    """The networks in evaluation mode inside the block, and in their own mode afterwards."""
    modes = [network.training for network in networks]
    for network in networks:
        network.eval()
    try:
        yield
    finally:
        for network, mode in zip(networks, modes, strict=True):
            network.train(mode)


@torch.inference_mode()
def draw(
    components: Components,
    prompts: Sequence[str],
    noise: Tensor,
    *,
    guidance_scale: float,
    steps: int,
    guidance_rescale: float = 0.0,
    extra: Tensor | None = None,
) -> NDArray[np.uint8]:
    """One image a prompt from `noise` `[B, 4, h, w]`, uint8 `[B, n, n]`, by the sampler used for inference.

    The live networks are used, and modes, places and training randomness are left as they were.
    """
    parts, device = components, components.device
    with evaluating(parts.unet, parts.text_encoder, parts.vae), placed(parts.text_encoder, device):
        states = encode_prompts(parts.tokenizer, parts.text_encoder, [*prompts, ""])  # [B + 1, L, D]
        for state in sample_states(
            parts, noise, states[:-1], states[-1:], guidance_scale=guidance_scale, steps=steps, extra=extra,
            guidance_rescale=guidance_rescale,
        ):  # fmt: skip
            final = state.sample  # [B, 4, h, w]
        with placed(parts.vae, device):
            return decode(parts.vae, final)


def class_images(
    components: Components, prompt: str, count: int, seed: int, cache: Path, *, batch_size: int = 8
) -> tuple[Path, str]:
    """The folder of class images that the base model draws of `prompt`, and its key; drawn unless it is there.

    The folder's name is a digest of prompt, weights, sampler, count and seed: another model never gets these images.
    """
    weights = digest_of(components.unet, components.text_encoder, components.vae)
    sampler = f"dpm_solver_pp trailing {CLASS_STEPS} {CLASS_GUIDANCE}"
    key = key_of(["class images/1", prompt, weights, sampler, str(count), str(seed)])
    folder = cache / f"class-{key}"
    if not folder.is_dir():
        with complete_or_nothing(folder) as partial:
            blocks = range(0, count, batch_size)
            for first in tqdm(blocks, desc="class images", unit="batch", disable=None, leave=False):
                indices = range(first, min(first + batch_size, count))
                noise = initial_noise(seed, indices, components.latent_shape)  # [B, 4, h, w]
                images = draw(
                    components, [prompt] * len(indices), noise, guidance_scale=CLASS_GUIDANCE, steps=CLASS_STEPS
                )
                for index, image in zip(indices, images, strict=True):
                    Image.fromarray(image).save(partial / f"{index:06d}.png")
    return folder, key
