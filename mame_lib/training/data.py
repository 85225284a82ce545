"""What one training step sees, as a pure function of (data, seed, step): resuming needs no generator state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mame_lib.diffusion.start import generator_for
from mame_lib.models.latents import Moments, sample_latents


class Batch(NamedTuple):
    """Everything random about a step, already drawn."""

    latents: Tensor  #   [B, 4, h, w] clean, scaled
    noise: Tensor  #     [B, 4, h, w] standard normal
    timesteps: Tensor  # [B] long, 0 … T-1
    input_ids: Tensor  # [B, L] long


@dataclass(frozen=True)
class TrainingSet:
    """Cached posterior moments and token ids of every training image."""

    moments: Moments  #    2 x [N, 4, h, w]
    input_ids: Tensor  #   [N, L]
    empty_ids: Tensor  #   [L] tokens of the empty caption
    scaling_factor: float

    def __len__(self) -> int:
        return len(self.input_ids)


def rows_of_step(count: int, batch_size: int, seed: int, step: int) -> Tensor:
    """Indices of the images of a step, `[B]`: an endless chain of fresh permutations, never cut at an epoch's end."""
    positions = np.arange(step * batch_size, (step + 1) * batch_size)
    epochs = positions // count
    orders = {int(epoch): np.random.default_rng((seed, int(epoch))).permutation(count) for epoch in np.unique(epochs)}
    chosen = [orders[int(epoch)][position % count] for epoch, position in zip(epochs, positions, strict=True)]
    return torch.as_tensor(np.array(chosen))  # [B]


def stratified_timesteps(batch_size: int, total: int, generator: torch.Generator) -> Tensor:
    """One timestep from each of B equal slices of 0 … T-1, in random order, `[B]`: uniform, with less variance."""
    slices = torch.randperm(batch_size, generator=generator)  # [B]
    position = (slices + torch.rand(batch_size, generator=generator, dtype=torch.float64)) / batch_size
    return (position * total).long().clamp(max=total - 1)  # [B]


def batch_of_step(
    data: TrainingSet, *, batch_size: int, seed: int, step: int, caption_dropout: float, total_timesteps: int
) -> Batch:
    """Draw step `step`: images, a fresh posterior sample of each, noise, stratified timesteps, dropped captions."""
    generator = generator_for(seed, "train", step)
    rows = rows_of_step(len(data), batch_size, seed, step)  # [B]
    moments = Moments(data.moments.mean[rows], data.moments.std[rows])  # 2 x [B, 4, h, w]
    posterior_noise = torch.randn(moments.mean.shape, generator=generator)  # [B, 4, h, w]
    latents = sample_latents(moments, posterior_noise, data.scaling_factor)  # [B, 4, h, w]
    dropped = torch.rand(batch_size, generator=generator) < caption_dropout  # [B]
    return Batch(
        latents=latents,
        noise=torch.randn(latents.shape, generator=generator),
        timesteps=stratified_timesteps(batch_size, total_timesteps, generator),
        input_ids=torch.where(dropped[:, None], data.empty_ids, data.input_ids[rows]),
    )
