"""Validation: the same questions each time, and training never notices that it was asked."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from mame_lib.training.loop import start, train_step
from mame_lib.training.run import read_log
from mame_lib.training.setup import prepare
from mame_lib.training.validation import Validator, guidance_rescale
from tests.training.support import assert_same_runs, config_of, copies, files_of, images_of, random_batch, run_to, same

QUICK = {"validation_steps": 2, "validation_prompts": ("a circle", "no"), "log_every": 1, "batch_size": 2}


@pytest.mark.parametrize("preset", ["tiny", "tiny-inpaint"])
def test_training_is_the_same_with_and_without_validation(phantoms, lesions, tmp_path, preset) -> None:
    data = lesions if preset == "tiny-inpaint" else phantoms
    settings = {**QUICK, "data": data, "preset": preset, "caption_dropout": 0.5}
    often = config_of(out=tmp_path / "often", **{**settings, "validation_every": 1})
    never = config_of(out=tmp_path / "never", **settings)
    results = run_to(often), run_to(never)
    assert len(images_of(results[0])) == 5 and not images_of(results[1])
    assert [r.loss for r in results[0][1:]] == [r.loss for r in results[1]]
    assert files_of(often.out / "checkpoints") == files_of(never.out / "checkpoints")
    assert files_of(often.out / "model") == files_of(never.out / "model")


def test_a_validator_asks_the_same_again_and_leaves_everything_as_it_was(phantoms, tmp_path) -> None:
    config = config_of(data=phantoms, out=tmp_path / "run", **QUICK)
    components, prepared = prepare(config)
    state = start(config, components, prepared=prepared)
    train_step(state, random_batch(config), config)
    before = torch.random.get_rng_state()
    validator, raw = Validator(config, components, prepared), copies(state.trained)
    images, loss = validator.run(state)
    again, same_loss = validator.run(state)
    assert images.shape == (2, 128, 128) and images.dtype == np.uint8
    assert np.array_equal(images, again) and loss == same_loss is not None
    assert torch.equal(before, torch.random.get_rng_state()) and same(raw, copies(state.trained))
    assert components.unet.training and components.text_encoder.training and not components.vae.training
    assert all(p.grad is None for p in state.trained)
    resumed = Validator(config, components, prepared)  # as a resumed run makes one
    assert torch.equal(resumed.noise, validator.noise) and np.array_equal(resumed.run(state)[0], images)
    other = Validator(config.with_changes(seed=2), components, prepared).run(state)
    assert not np.array_equal(other[0], images) and other[1] != loss


def test_what_is_validated_is_the_average(phantoms, tmp_path) -> None:
    """With the raw weights spoilt the pictures and the loss stay; with the average spoilt they do not."""
    config = config_of(data=phantoms, out=tmp_path / "run", **QUICK)
    components, prepared = prepare(config)
    state = start(config, components, prepared=prepared)
    validator = Validator(config, components, prepared)
    images, loss = validator.run(state)
    with torch.no_grad():
        for parameter in state.trained:
            parameter.mul_(1.5)
    spoilt_raw = validator.run(state)
    assert np.array_equal(spoilt_raw[0], images) and spoilt_raw[1] == loss
    for shadow in state.ema.shadow:
        shadow.mul_(1.5)
    spoilt = validator.run(state)
    assert not np.array_equal(spoilt[0], images) and spoilt[1] != loss


def test_the_held_out_loss_does_not_depend_on_what_only_training_does(phantoms, tmp_path) -> None:
    """Dropout, offset noise, Min-SNR weights and micro-batches are training's; the question stays the same."""
    config = config_of(data=phantoms, out=tmp_path / "run", **QUICK)
    components, prepared = prepare(config)
    losses = []
    for changes in ({}, {"caption_dropout": 1.0, "offset_noise": 0.5, "min_snr_gamma": 1.0}, {"batch_size": 5}):
        other = config.with_changes(**changes)
        state = start(other, components, prepared=prepared)
        losses.append(Validator(other, components, prepared).run(state)[1])
    assert losses[0] == losses[1] and losses[2] == pytest.approx(losses[0], rel=1e-5)


def test_samples_and_the_log_tell_what_was_validated(phantoms, tmp_path) -> None:
    config = config_of(data=phantoms, out=tmp_path / "run", **{**QUICK, "validation_every": 2, "steps": 3})
    results = run_to(config)
    assert sorted(images_of(results)) == [0, 2, 3]
    for step, images in images_of(results).items():
        with Image.open(config.out / "samples" / f"step-{step:06d}.png") as saved:
            assert np.array_equal(np.asarray(saved), np.concatenate(list(images), axis=1))
    lines = read_log(config.out)
    assert [line["step"] for line in lines if "held_out_loss" in line] == [2, 3]
    assert [r.held_out_loss for r in results if r.step in (2, 3)] == [
        line["held_out_loss"] for line in lines if "held_out_loss" in line
    ]
    assert not list((config.out / "samples").glob("*.partial"))


def test_validation_may_be_switched_on_at_a_resume(phantoms, tmp_path) -> None:
    settings = {**QUICK, "data": phantoms, "method": "lora", "lora_rank": 2}
    run_to(config_of(out=tmp_path / "straight", **settings))
    run_to(config_of(out=tmp_path / "run", **settings), last=2)
    results = run_to(config_of(out=tmp_path / "run", resume=True, **{**settings, "validation_every": 1}))
    assert sorted(images_of(results)) == [3, 4]
    assert files_of(tmp_path / "run" / "model") == files_of(tmp_path / "straight" / "model")
    with pytest.raises(AssertionError):
        assert_same_runs(tmp_path / "run", tmp_path / "straight")  # the held-out loss is in one log only


def test_no_held_out_images_is_no_held_out_loss(phantoms, tmp_path) -> None:
    config = config_of(data=phantoms, out=tmp_path / "run", held_out_images=0, **QUICK)
    components, prepared = prepare(config)
    images, loss = Validator(config, components, prepared).run(start(config, components))
    assert loss is None and len(images) == 2


def test_guidance_is_rescaled_with_zero_terminal_snr_only() -> None:
    assert guidance_rescale(config_of()) == 0.0
    assert guidance_rescale(config_of(zero_terminal_snr=True)) == 0.7
