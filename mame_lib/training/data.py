"""What one training step sees, as a pure function of (data, seed, step): resuming needs no generator state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mame_lib.diffusion.start import generator_for
from mame_lib.models.latents import Moments, sample_latents
from mame_lib.training.config import TrainConfig


class Batch(NamedTuple):
    """Everything random about a step, already drawn."""

    latents: Tensor  #   [B, 4, h, w] clean, scaled
    noise: Tensor  #     [B, 4, h, w] standard normal (plus a constant a channel, with offset noise)
    timesteps: Tensor  # [B] long, 0 … T-1
    input_ids: Tensor  # [B, L] long
    weights: Tensor | None = None  # [B] what each loss counts; None: 1 / B
    extra: Tensor | None = None  #   [B, 5, h, w] mask and masked latents, for inpainting
    rows: Tensor | None = None  #    [B] which images these are; -1 - i for class image i

    def part(self, rows: slice) -> Batch:
        """Some rows of the batch."""
        return Batch._make(None if value is None else value[rows] for value in self)

    def to(self, device: torch.device) -> Batch:
        """The batch on `device`; from pinned memory without waiting."""
        return Batch._make(None if value is None else value.to(device, non_blocking=True) for value in self)


@dataclass(frozen=True)
class Masks:
    """Inpainting: the masks of every image in V variants, and the latents around them."""

    latent: NDArray[np.bool_]  # [N, V, h, w]
    moments: NDArray[np.float16]  # [N, V, 2, 4, h, w] mean and standard deviation of the masked image
    gray: Tensor  # [2, 4, h, w] the same of an image that is masked as a whole


@dataclass(frozen=True)
class TrainingSet:
    """Cached posterior moments and token ids of every training image."""

    moments: NDArray[np.float16]  # [N, 2, 4, h, w] mean and standard deviation, unscaled; may be memory-mapped
    input_ids: Tensor  #            [N, L]
    empty_ids: Tensor  #            [L] tokens of the empty caption
    scaling_factor: float
    masks: Masks | None = None
    ids: tuple[str, ...] = ()  # names of the images, for messages
    key: str = ""  # a digest of what was encoded: pixels, boxes, autoencoder, captions

    def __len__(self) -> int:
        return len(self.input_ids)

    def mean_latent(self) -> Tensor:
        """Mean of all training latents, scaled, `[4, h, w]`, in one pass."""
        total = np.zeros(self.moments.shape[2:], np.float64)  # [4, h, w]
        for first in range(0, len(self), 256):
            total += self.moments[first : first + 256, 0].sum(0, dtype=np.float64)
        return torch.from_numpy(total / len(self)).float() * self.scaling_factor


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


def batch_of_step(data: TrainingSet, config: TrainConfig, step: int, prior: TrainingSet | None = None) -> Batch:
    """Draw step `step` (0-based): `config.rows` images, and as many class images when there is a `prior`.

    Images, a fresh posterior sample of each, noise, stratified timesteps, dropped captions and mask variants depend on
    (seed, step) alone, not on micro-batches or processes. Our weights add up to 1, those of the class images to
    `prior_weight`.
    """
    own = _draw(data, config, "train", step)
    if prior is None:
        return own
    others = _draw(prior, config, "prior", step)
    assert own.weights is not None and others.weights is not None and others.rows is not None
    others = others._replace(weights=others.weights * config.prior_weight, rows=-1 - others.rows)
    return Batch._make(None if a is None or b is None else torch.cat([a, b]) for a, b in zip(own, others, strict=True))


def _draw(data: TrainingSet, config: TrainConfig, stream: str, step: int) -> Batch:
    count, generator = config.rows, generator_for(config.seed, stream, step)
    rows = rows_of_step(len(data), count, config.seed, step)  # [B]
    latents = _sample(data.moments[rows.numpy()], data.scaling_factor, generator)  # [B, 4, h, w]
    dropped = torch.rand(count, generator=generator) < (config.caption_dropout if stream == "train" else 0.0)  # [B]
    noise = torch.randn(latents.shape, generator=generator)  # [B, 4, h, w]
    if config.offset_noise:
        noise += config.offset_noise * torch.randn(*latents.shape[:2], 1, 1, generator=generator)
    return Batch(
        latents=latents,
        noise=noise,
        timesteps=stratified_timesteps(count, 1000, generator),
        input_ids=torch.where(dropped[:, None], data.empty_ids, data.input_ids[rows]),
        weights=torch.full((count,), 1 / count),
        extra=None if data.masks is None else _extra(data.masks, rows, data.scaling_factor, config, generator),
        rows=rows,
    )


def _sample(moments: NDArray[np.float16], scaling_factor: float, generator: torch.Generator) -> Tensor:
    """A posterior sample, scaled, `[B, 4, h, w]`, of moments `[B, 2, 4, h, w]`."""
    mean, std = torch.from_numpy(moments).float().unbind(1)  # 2 x [B, 4, h, w]
    return sample_latents(Moments(mean, std), torch.randn(mean.shape, generator=generator), scaling_factor)


def _extra(
    masks: Masks, rows: Tensor, scaling_factor: float, config: TrainConfig, generator: torch.Generator
) -> Tensor:
    """Mask and masked latents `[B, 5, h, w]`: a random variant of each image's mask, or, rarely, everything masked."""
    variant = torch.randint(masks.latent.shape[1], (len(rows),), generator=generator)  # [B]
    everything = torch.rand(len(rows), generator=generator) < config.mask_dropout  # [B]
    pick = (rows.numpy(), variant.numpy())
    mask = torch.from_numpy(masks.latent[pick]).float()[:, None]  # [B, 1, h, w]
    moments = torch.from_numpy(masks.moments[pick]).float()  # [B, 2, 4, h, w]
    whole = everything[:, None, None, None]  # [B, 1, 1, 1]
    moments = torch.where(whole[:, None], masks.gray, moments)
    around = _sample(moments.numpy(), scaling_factor, generator)  # [B, 4, h, w]
    return torch.cat([torch.where(whole, 1.0, mask), around], dim=1)  # [B, 5, h, w]
