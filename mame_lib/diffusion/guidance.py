"""Classifier-free guidance: how a prompt steers the network while sampling (Ho and Salimans 2022)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from mame_lib.diffusion.path import Model

Denoiser = Callable[[Tensor, Tensor, Tensor], Tensor]  # (x [B, ...], t [B], context [B, L, D]) -> [B, ...]


def combine(free: Tensor, text: Tensor, guidance_scale: float, rescale: float = 0.0) -> Tensor:
    """MAM-E Eq. 9: e_free + g (e_text - e_free), in float32.

    g = 0 ignores the prompt, g = 1 is the plain conditional prediction, g > 1 goes beyond it.

    Guidance also widens the prediction, and with it the contrast of the image. `rescale` takes that back: the
    result is drawn by this share (0 to 1; 0.7 in Lin et al. 2024, Eq. 15 and 16) towards the standard deviation
    that the conditional prediction has in each image.
    """
    guided = free.float() + guidance_scale * (text.float() - free.float())  # [B, ...]
    if rescale == 0.0:
        return guided
    dims = tuple(range(1, text.ndim))
    ratio = text.float().std(dims, keepdim=True) / guided.std(dims, keepdim=True)  # [B, 1, ..., 1]
    return guided * (rescale * ratio + 1.0 - rescale)


def guided(
    denoiser: Denoiser,
    conditional: Tensor,
    unconditional: Tensor | None,
    guidance_scale: float,
    rescale: float = 0.0,
) -> Model:
    """Close a text-conditioned denoiser over its prompts; samplers then see a plain model(x, t).

    Args:
        denoiser: predicts from noisy images, timesteps and text embeddings.
        conditional: embeddings of the prompts, [B, L, D], or [1, L, D] for one prompt shared by all images.
        unconditional: embeddings of the empty prompt, or of a negative prompt to steer away from; same
            shapes. May be None when the scale is 1, where Eq. 9 does not use it.
        guidance_scale: g of Eq. 9, any finite number. Both predictions come from one batched forward pass;
            for g = 1 and g = 0 only the half that counts is computed.
        rescale: share of the widening by guidance that is taken back, see `combine`.

    Note:
        A diffusers pipeline turns guidance off for every g <= 1, so its g = 0 still follows the prompt and
        ignores the negative one. Here Eq. 9 holds for every g.
    """
    g = float(guidance_scale)
    if not math.isfinite(g):
        raise ValueError(f"the guidance scale must be a finite number, got {guidance_scale}.")
    if g == 1.0:
        return lambda x, t: denoiser(x, t, _rows(conditional, len(x)))
    if unconditional is None:
        raise ValueError(f"guidance scale {g:g} needs an unconditional context, such as the empty prompt's.")
    if g == 0.0:
        return lambda x, t: denoiser(x, t, _rows(unconditional, len(x)))
    if conditional.shape[1:] != unconditional.shape[1:]:
        raise ValueError(
            f"the two contexts must have equal lengths and widths, got {tuple(conditional.shape[1:])} "
            f"and {tuple(unconditional.shape[1:])}: pad both prompts to the same number of tokens."
        )

    def model(x: Tensor, t: Tensor) -> Tensor:
        context = torch.cat([_rows(unconditional, len(x)), _rows(conditional, len(x))])  # [2B, L, D]
        free, text = denoiser(torch.cat([x, x]), torch.cat([t, t]), context).chunk(2)  # 2 x [B, ...]
        return combine(free, text, g, rescale)

    return model


def switch(low: int, high: int, inside: Model, outside: Model) -> Model:
    """One model for the timesteps low..high, both included, and another for the rest.

    Guidance only in an interval (Kynkaanniemi et al. 2024): `switch(200, 800, guided(...), guided(..., 1.0))` follows
    the prompt with guidance in the middle of the path and saves half of the network at its ends. With another prompt
    for each half it changes the subject midway. All images of a batch must be at one timestep, as they are while
    sampling.

    Raises ValueError when low exceeds high.
    """
    if low > high:
        raise ValueError(f"the interval must begin at its lower timestep, got {low}..{high}.")
    return lambda x, t: (inside if low <= int(t[0]) <= high else outside)(x, t)


def _rows(context: Tensor, count: int) -> Tensor:
    """One context row per image: [1, L, D] is repeated without copying, [count, L, D] is passed through."""
    if len(context) not in (1, count):
        raise ValueError(f"got {len(context)} prompts for {count} images: give one prompt, or one per image.")
    return context.expand(count, *context.shape[1:])  # [count, L, D]
