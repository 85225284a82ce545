"""Sentences in turn: one leg is `generate`, each leg rules its own timesteps, and the stored rows can be made again."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mame_lib.data.prompts import TRAINING_PROMPTS, parse
from mame_lib.diffusion.samplers import timesteps
from mame_lib.errors import InputError
from mame_lib.evaluation import relay as module
from mame_lib.evaluation.attributes import measure
from mame_lib.evaluation.relay import relay
from mame_lib.evaluation.sweep_models import weights_hash
from mame_lib.evaluation.sweep_rows import row_of
from mame_lib.generation import Generated, Mame
from mame_lib.models.text import encode_prompts
from mame_lib.teaching.stored import stored, stored_rows

A, B = "a hologic mammogram in MLO view with small area", "a siemens mammogram in MLO view with high density"
BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def fused() -> Mame:
    return Mame.load("fused")


def test_one_leg_is_generate(fused: Mame) -> None:
    images = relay(fused, [(0, A)], indices=[4, 5], seed=1, steps=2)
    made = fused.generate(A, count=2, start_index=4, seed=1, steps=2)
    np.testing.assert_array_equal(images, [one.pixels for one in made])


def test_each_sentence_is_read_at_its_own_timesteps(fused: Mame, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[tuple[int, bytes]] = []

    class Watched(module.Walk):
        def __call__(self, x: Any, t: Any, context: torch.Tensor) -> torch.Tensor:
            read.append((int(t[0]), context[-1].numpy().tobytes()))
            return super().__call__(x, t, context)

    monkeypatch.setattr(module, "Walk", Watched)
    grid = timesteps(fused.components.schedule, 4)
    third = "a mammogram"
    relay(fused, [(grid[1], A), (grid[3] + 1, B), (0, third)], indices=[0], steps=4)
    states = encode_prompts(fused.components.tokenizer, fused.components.text_encoder, [A, B, third])
    names = {state.numpy().tobytes(): name for state, name in zip(states, "ABc", strict=True)}
    assert [(t, names[state]) for t, state in read] == list(zip(grid, "AABc", strict=True))


@pytest.mark.parametrize("legs", [[], [(10, A)], [(0, A), (0, B)], [(0, A), (500, B)]])
def test_legs_must_lead_from_noise_to_image(fused: Mame, legs: list[tuple[int, str]]) -> None:
    with pytest.raises(InputError, match="falling timesteps"):
        relay(fused, legs, indices=[0], steps=1)


@pytest.mark.slow
def test_stored_rows_are_made_again_from_captions_of_the_training(fused: Mame, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    before = set(sys.modules)
    benchmark = importlib.import_module("extrapolation_relay")
    rows = stored_rows("extrapolation_relay")
    assert stored("extrapolation_relay")["weights"] == {"fused": weights_hash(fused.components)}
    for k in np.random.default_rng(0).permutation(len(rows))[:3]:
        row = rows[k]
        legs = benchmark.legs_of(parse(row.prompt))
        assert {sentence for _, sentence in legs} <= set(TRAINING_PROMPTS)
        [pixels] = relay(fused, legs, indices=[row.index], seed=row.seed, steps=row.steps)
        recipe = {name: getattr(row, name) for name in ("prompt", "negative_prompt", "guidance_scale", "steps",
                                                        "sampler", "seed", "index", "model")}  # fmt: skip
        made = Generated(pixels=pixels, guidance_rescale=0.0, guidance_interval=None, **recipe)
        again = row_of(made, measure(pixels), weights=row.weights)
        for name in ("area_ratio", "density_index", "view_score", "vendor_score"):
            assert getattr(again, name) == pytest.approx(getattr(row, name), abs=1e-3)
    for name in set(sys.modules) - before:
        if str(BENCHMARKS) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]
