"""The loss at fixed images, noise and timesteps: the same question to every model, without sampling noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from mame_lib.diffusion.start import generator_for
from mame_lib.models.components import Components
from mame_lib.models.text import tokenize
from mame_lib.training.data import Batch
from mame_lib.training.images import evaluating
from mame_lib.training.loop import diffusion_loss


@dataclass(frozen=True)
class FixedLoss:
    """The loss of some images with their captions at fixed noise and timesteps that cover the whole range."""

    batch: Batch

    @classmethod
    def of(cls, parts: Components, latents: torch.Tensor, captions: Sequence[str], draws: int = 4) -> FixedLoss:
        """Clean scaled latents `[N, 4, h, w]` and N captions, each with `draws` noises and timesteps."""
        rows = len(latents) * draws
        random = generator_for(0, "fixed loss", rows)
        return cls(Batch(
            latents=latents.repeat(draws, 1, 1, 1), noise=torch.randn(rows, *latents.shape[1:], generator=random),
            timesteps=(torch.randperm(rows, generator=random) * 1000 + 500) // rows,
            input_ids=tokenize(parts.tokenizer, list(captions)).repeat(draws, 1),
        ))  # fmt: skip

    @torch.no_grad()
    def __call__(self, parts: Components) -> list[float]:
        """Unweighted mean squared error in each tenth of the timesteps, from clean to noisy."""
        chunks = [self.batch.part(slice(k, k + 32)) for k in range(0, len(self.batch.latents), 32)]
        with evaluating(parts.unet, parts.text_encoder):
            losses = torch.cat([diffusion_loss(parts, c, parts.schedule, torch.float32) for c in chunks])
        tenth = self.batch.timesteps // 100
        return [round(float(losses[tenth == k].mean()), 5) for k in range(10)]
