"""`relay`: one image from several sentences, one after the other on the way from noise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mame_lib.diffusion.guidance import guided, switch
from mame_lib.diffusion.path import Model
from mame_lib.diffusion.samplers import dpm_solver_pp, timesteps
from mame_lib.diffusion.start import initial_noise
from mame_lib.errors import InputError
from mame_lib.generation import Mame
from mame_lib.models.text import encode_prompts
from mame_lib.models.walk import Walk


def relay(
    mame: Mame,
    legs: Sequence[tuple[int, str]],
    *,
    indices: Sequence[int],
    seed: int = 0,
    guidance_scale: float = 4.0,
    steps: int = 24,
) -> NDArray[np.uint8]:
    """Draw images of which each sentence rules a part of the way: gray uint8 [B, n, n] for B `indices`.

    legs: (lowest timestep, sentence), from noise to image; the last one ends at 0. `[(700, a), (0, b)]` follows a
    from the noise down to timestep 700, and b below. Two such sentences may ask for a combination that no sentence
    of the training asked for. One leg alone is `Mame.generate`. Noise as there: image k starts from (seed, k).

    Raises
    ------
    InputError
        If there is no leg, if their timesteps do not fall, or if the last is not 0.
    """
    ends = [low for low, _ in legs]
    if not legs or ends != sorted(set(ends), reverse=True) or ends[-1] != 0:
        raise InputError(f"the legs end at {ends}; give falling timesteps, the last one 0.")
    parts = mame.components
    sentences = [sentence for _, sentence in legs]
    texts = encode_prompts(parts.tokenizer, parts.text_encoder, [*sentences, ""])  # [K + 1, L, D]
    walk = Walk(parts.unet)

    def denoiser(x: Tensor, t: Tensor, context: Tensor) -> Tensor:
        return walk(x[: len(indices)], t[: len(indices)], context)  # guidance doubles the batch; `walk` sees that

    rules = [guided(denoiser, text[None], texts[-1:], guidance_scale) for text in texts[:-1]]
    model: Model = rules[0]
    for above, rule in zip(ends[:-1], rules[1:], strict=True):
        model = switch(0, above - 1, inside=rule, outside=model)
    grid = timesteps(parts.schedule, steps)
    start = parts.start_from(initial_noise(seed, indices, parts.latent_shape), grid[0])
    *_, last = dpm_solver_pp(model, start.to(parts.device), parts.schedule, grid)
    return mame.decode(last.sample)
