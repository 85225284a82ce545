"""A model that knows how its latents differ at large starts each image from a drawing of its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mame_lib.diffusion.start import SignalLeak, generators_for, initial_noise
from mame_lib.errors import InputError
from mame_lib.evaluation.sweep_models import weights_hash
from mame_lib.generation import Mame
from mame_lib.models.components import Components


@pytest.fixture(scope="module")
def drawn() -> Components:
    parts = Components.load("fused")
    factor = torch.randn(64, 5, generator=torch.Generator().manual_seed(0))
    return replace(parts, start_factor=factor)


def test_the_start_is_that_of_the_signal_leak(drawn: Components) -> None:
    noise = initial_noise(0, range(3), drawn.latent_shape)
    assert drawn.start_mean is not None and drawn.start_factor is not None
    leak = SignalLeak(drawn.start_mean, drawn.start_factor)
    wanted = leak.start(drawn.schedule, noise, 999, generators_for(0, "sampler", range(3)))
    assert torch.equal(drawn.start_from(noise, 999, generators_for(0, "sampler", range(3))), wanted)
    with pytest.raises(ValueError, match="pass 3 generators"):
        drawn.start_from(noise, 999)


def test_an_image_depends_on_its_index_alone_and_differs_from_the_mean_start(drawn: Components) -> None:
    mame, plain = Mame(drawn, "drawn"), Mame(replace(drawn, start_factor=None), "plain")
    both = mame.generate("a mammogram", count=2, steps=2, seed=4)
    [second] = mame.generate("a mammogram", start_index=1, steps=2, seed=4)
    assert abs(both[1].pixels.astype(int) - second.pixels.astype(int)).max() <= 1
    assert (both[1].pixels != plain.generate("a mammogram", start_index=1, steps=2, seed=4)[0].pixels).any()


def test_it_is_saved_read_and_part_of_the_hash(drawn: Components, tmp_path: Path) -> None:
    drawn.save(tmp_path / "model")
    again = Components.load(tmp_path / "model")
    assert drawn.start_factor is not None
    assert torch.equal(again.start_factor, drawn.start_factor.half().float())  # type: ignore[arg-type]
    assert weights_hash(drawn) != weights_hash(replace(drawn, start_factor=None))
    assert weights_hash(drawn) != weights_hash(replace(drawn, start_factor=drawn.start_factor + 1))


def test_a_start_that_is_drawn_needs_its_generators(drawn: Components) -> None:
    from mame_lib.models.sampling import sample_states

    text = torch.zeros(1, 32, 96)
    with pytest.raises(InputError, match="pass 1 generators"):
        list(sample_states(drawn, torch.zeros(1, *drawn.latent_shape), text, text, steps=1))
