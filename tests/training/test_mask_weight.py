"""Inpainting: the error inside the mask may count more."""

from __future__ import annotations

import pytest
import torch

from mame_lib.models.components import Components
from mame_lib.models.inpainting import widen
from mame_lib.training.data import Batch
from mame_lib.training.loop import diffusion_loss


@pytest.fixture(scope="module")
def parts() -> Components:
    components = Components.load("tiny")
    widen(components.unet)
    return components


def batch(mask: torch.Tensor) -> Batch:
    random = torch.Generator().manual_seed(3)
    latents, noise = torch.randn(2, len(mask), 4, 16, 16, generator=random)
    around = torch.randn(len(mask), 4, 16, 16, generator=random)
    ids = torch.ones(len(mask), 32, dtype=torch.long)
    return Batch(latents, noise, torch.full((len(mask),), 500), ids, extra=torch.cat([mask, around], dim=1))


def test_a_weight_of_one_is_the_plain_mean_and_a_large_one_looks_inside_only(parts: Components) -> None:
    mask = torch.zeros(2, 1, 16, 16)
    mask[0, :, 4:7, 5:9] = 1
    mask[1, :, 10:12, 2:4] = 1
    some = batch(mask)
    with torch.no_grad():
        plain, one, many = (
            diffusion_loss(parts, some, parts.schedule, torch.float32, weight) for weight in (1.0, 1.0 + 1e-6, 1e9)
        )
        seen = parts.schedule.signal[500] * some.latents + parts.schedule.sigma[500] * some.noise
        assert some.extra is not None
        context = parts.text_encoder(some.input_ids).last_hidden_state
        output = parts.unet(torch.cat([seen, some.extra], 1), 500, encoder_hidden_states=context).sample
    errors = (output - some.noise) ** 2  # [2, 4, 16, 16]
    torch.testing.assert_close(plain, errors.mean((1, 2, 3)), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(one, plain, rtol=1e-5, atol=1e-6)
    inside = torch.stack([errors[i][:, mask[i, 0] > 0].mean() for i in range(2)])
    torch.testing.assert_close(many, inside, rtol=1e-4, atol=1e-5)


def test_everything_masked_counts_as_nothing_masked(parts: Components) -> None:
    some = batch(torch.ones(1, 1, 16, 16))
    with torch.no_grad():
        weighted = diffusion_loss(parts, some, parts.schedule, torch.float32, 20.0)
        plain = diffusion_loss(parts, some, parts.schedule, torch.float32)
    torch.testing.assert_close(weighted, plain, rtol=1e-5, atol=1e-6)
