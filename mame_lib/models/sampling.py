"""Noise and text states in, denoised latents out: the one place where networks and samplers meet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from mame_lib.diffusion.guidance import guided, switch
from mame_lib.diffusion.samplers import SAMPLERS, SamplerState, timesteps
from mame_lib.diffusion.start import generators_for, initial_noise
from mame_lib.errors import InputError
from mame_lib.models.components import Components
from mame_lib.models.walk import Walk


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
    guidance_interval: tuple[int, int] | None = None,
) -> Iterator[SamplerState]:
    """Walk from `noise` to latents; yields every state, the last one holds the finished latents.

    Parameters
    ----------
    noise : `[B, 4, h, w]`, standard normal.
    conditional, unconditional : text states `[B or 1, L, D]` of the prompts and of the negative prompt.
    guidance_scale : g of Eq. 9; 1 follows the prompt without guidance.
    steps : timesteps at which the UNet is called; the paper uses 24. Heun calls twice at all but the first.
    generators : one per image, for samplers that draw noise and for a start that is drawn.
    extra : inpainting only, `[B, 5, h, w]`: mask and latents of the masked image, which join the UNet's input.
    guidance_rescale : see `diffusion.guidance.combine`.
    guidance_interval : (low, high), timesteps with guidance, both included; the others follow the prompt without it,
        which takes half the work (Kynkaanniemi et al. 2024). By default all have guidance.
    """
    if sampler not in SAMPLERS:
        raise InputError(f"sampler {sampler!r} is unknown; choose {', '.join(SAMPLERS)}.")
    device = components.device
    beside = None if extra is None else extra.to(device)
    _check_channels(components, extra)
    walk = Walk(components.unet)

    def denoiser(x: Tensor, t: Tensor, context: Tensor) -> Tensor:
        x, t = x[: len(noise)], t[: len(noise)]  # guidance doubles the batch; `walk` sees that by the context
        if beside is not None:
            x = torch.cat([x, beside.expand(len(x), -1, -1, -1)], dim=1)  # [B, 9, h, w]
        return walk(x, t.to(device), context)  # [B or 2B, 4, h, w]

    options: dict[str, Any] = {"prediction_type": components.prediction_type, "generators": generators}
    try:
        text, free = conditional.to(device), unconditional.to(device)
        model = guided(denoiser, text, free, guidance_scale, guidance_rescale)
        if guidance_interval is not None:
            model = switch(*guidance_interval, model, guided(denoiser, text, None, 1.0))
        schedule = components.schedule
        grid = timesteps(schedule, steps, spacing)
        _check_interval(guidance_interval, len(schedule))
        start = components.start_from(noise, grid[0], generators).to(device)  # [B, 4, h, w]
        run: Any = SAMPLERS[sampler]
        states = run(model, start, schedule, grid, **options)
    except ValueError as error:  # diffusion/ stands on torch alone and does not know InputError
        raise InputError(str(error)) from error
    yield from states


def seeded_states(
    components: Components, text: Tensor, indices: Sequence[int], seed: int, **options: Any
) -> Iterator[SamplerState]:
    """`sample_states` from the noise of (seed, index) of each image, for text states `[B + 1, L, D]`.

    The last row of the text states is the negative prompt's.
    """
    return sample_states(
        components,
        initial_noise(seed, indices, components.latent_shape),  # [B, 4, h, w]
        text[:-1],
        text[-1:],
        generators=generators_for(seed, "sampler", indices),
        **options,
    )


def _check_interval(interval: tuple[int, int] | None, total: int) -> None:
    """Raise `InputError` unless both ends are timesteps."""
    if interval is not None and not 0 <= min(interval) <= max(interval) < total:
        raise InputError(
            f"the guidance interval {interval[0]}..{interval[1]} must lie within the timesteps 0..{total - 1}."
        )


def _check_channels(components: Components, extra: Tensor | None) -> None:
    """Raise `InputError` when a UNet of 9 input channels gets no mask, or one of 4 gets one."""
    wants = components.unet.config.in_channels > 4
    if wants and extra is None:
        raise InputError("this is an inpainting model: it needs an image and a mask; use a text-to-image model.")
    if not wants and extra is not None:
        raise InputError("this model can't inpaint, its UNet has 4 input channels; use an inpainting model.")
