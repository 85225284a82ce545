"""Noise and text states in, denoised latents out: the one place where networks and samplers meet."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from mame_lib.diffusion.guidance import guided
from mame_lib.diffusion.samplers import SAMPLERS, SamplerState, timesteps
from mame_lib.errors import InputError
from mame_lib.models.components import Components


def sample_states(
    components: Components,
    noise: Tensor,
    conditional: Tensor,
    unconditional: Tensor,
    *,
    guidance_scale: float = 4.0,
    steps: int = 24,
    sampler: str = "dpm_solver_pp",
    spacing: str = "trailing",
    generators: list[torch.Generator] | None = None,
    extra: Tensor | None = None,
    guidance_rescale: float = 0.0,
) -> Iterator[SamplerState]:
    """Walk from `noise` to latents; yields every state, the last one holds the finished latents.

    Parameters
    ----------
    noise : `[B, 4, h, w]`, standard normal.
    conditional, unconditional : text states `[B or 1, L, D]` of the prompts and of the negative prompt.
    guidance_scale : g of Eq. 9; 1 follows the prompt without guidance.
    steps : calls of the UNet; the paper uses 24.
    generators : one per image, for samplers that draw noise.
    extra : inpainting only, `[B, 5, h, w]`: mask and latents of the masked image, which join the UNet's input.
    guidance_rescale : see `diffusion.guidance.combine`.
    """
    if sampler not in SAMPLERS:
        raise InputError(f"sampler {sampler!r} is unknown; choose {', '.join(SAMPLERS)}.")
    device = components.device
    beside = None if extra is None else extra.to(device)
    _check_channels(components, extra)

    def denoiser(x: Tensor, t: Tensor, context: Tensor) -> Tensor:
        if beside is not None:  # guidance doubles the batch
            x = torch.cat([x, beside.repeat(len(x) // len(beside), 1, 1, 1)], dim=1)  # [B or 2B, 9, h, w]
        return components.unet(x, t.to(device), encoder_hidden_states=context).sample  # [B or 2B, 4, h, w]

    options: dict[str, Any] = {"prediction_type": components.prediction_type, "generators": generators}
    try:
        model = guided(
            denoiser, conditional.to(device), unconditional.to(device), guidance_scale, guidance_rescale
        )
        schedule = components.schedule
        grid = timesteps(schedule, steps, spacing)
    except ValueError as error:  # diffusion/ stands on torch alone and does not know InputError
        raise InputError(str(error)) from error
    start = components.start_from(noise, grid[0]).to(device)  # [B, 4, h, w]
    run: Any = SAMPLERS[sampler]
    yield from run(model, start, schedule, grid, **options)


def _check_channels(components: Components, extra: Tensor | None) -> None:
    """Raise `InputError` when a UNet of 9 input channels gets no mask, or one of 4 gets one."""
    wants = components.unet.config.in_channels > 4
    if wants and extra is None:
        raise InputError("this is an inpainting model: it needs an image and a mask; use a text-to-image model.")
    if not wants and extra is not None:
        raise InputError("this model can't inpaint, its UNet has 4 input channels; use an inpainting model.")
