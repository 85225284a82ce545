"""The same questions again and again: images from fixed noise, and the loss at fixed images, noise and timesteps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mame_lib.diffusion.start import initial_noise
from mame_lib.models.components import Components
from mame_lib.training.config import TrainConfig
from mame_lib.training.data import TrainingSet, batch_of_step
from mame_lib.training.images import draw, evaluating
from mame_lib.training.setup import Prepared

if TYPE_CHECKING:
    from mame_lib.training.loop import TrainState

HELD_OUT_DRAWS = 4  # noise and timestep of each held-out image


class Validator:
    """Validates with the averaged weights; the randomness of training, modes and places stay as they were.

    Text-to-image runs draw one image for each prompt. Inpainting runs fill the masks of the first held-out images (of
    training images, when nothing is held out). The held-out loss is free of sampling noise, so a rise means that the
    model begins to know its images by heart: the only honest sign of overfitting that a loss can give.
    """

    def __init__(self, config: TrainConfig, components: Components, prepared: Prepared) -> None:
        self.config, self.components = config, components
        self.prompts = config.validation_prompts or prepared.prompts[:3]
        self.extra = _first_masks(prepared.held_out or prepared.training_set, len(self.prompts))
        count = len(self.prompts)
        self.noise = initial_noise(config.seed, range(count), components.latent_shape)  # [P, 4, h, w]
        data = prepared.held_out
        count = min(config.held_out_images, len(data) if data else 0)
        fixed = config.with_changes(
            batch_size=max(1, count), caption_dropout=0.0, mask_dropout=0.0, offset_noise=0.0, seed=config.seed + 1
        )
        draws = range(HELD_OUT_DRAWS if count else 0)
        self.batches = [batch_of_step(data, fixed, step) for step in draws] if data is not None else []

    def run(self, state: TrainState) -> tuple[NDArray[np.uint8], float | None]:
        """Images uint8 `[P, n, n]`, and the held-out loss: mean squared error, unweighted; None without such images."""
        with state.ema.applied():
            images = draw(
                self.components, self.prompts, self.noise, guidance_scale=self.config.validation_guidance_scale,
                steps=self.config.validation_steps, extra=self.extra,
                guidance_rescale=guidance_rescale(self.config),
            )  # fmt: skip
            return images, self._held_out_loss(state) if self.batches else None

    @torch.no_grad()
    def _held_out_loss(self, state: TrainState) -> float:
        from mame_lib.training.loop import diffusion_loss

        parts, step = state.components, self.config.micro_rows
        with evaluating(parts.unet, parts.text_encoder):
            losses = [
                diffusion_loss(parts, batch.part(slice(first, first + step)), state.schedule, state.dtype)
                for batch in self.batches
                for first in range(0, len(batch.latents), step)
            ]
        return float(torch.cat(losses).mean())


def guidance_rescale(config: TrainConfig) -> float:
    """How much of guidance's widening is taken back: 0.7 with zero terminal SNR (Lin et al. 2024), else nothing."""
    return 0.7 if config.zero_terminal_snr else 0.0


def _first_masks(data: TrainingSet, count: int) -> Tensor | None:
    """Masks and surroundings of the first images, again and again up to `count`, `[P, 5, h, w]`; None without masks."""
    if data.masks is None:
        return None
    rows = np.arange(count) % len(data)
    mask = torch.from_numpy(data.masks.latent[rows, 0]).float()[:, None]  # [P, 1, h, w]
    around = torch.from_numpy(data.masks.moments[rows, 0, 0]).float() * data.scaling_factor  # [P, 4, h, w]
    return torch.cat([mask, around], dim=1)  # [P, 5, h, w]
