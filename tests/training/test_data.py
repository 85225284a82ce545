"""Batches: a pure function of (data, seed, step), with everything random in its right measure."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mame_lib.training.data import TrainingSet, batch_of_step, rows_of_step, stratified_timesteps
from mame_lib.training.world import World
from tests.training.support import config_of, random_set


def equal(one, other) -> bool:
    return all((a is None and b is None) or torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("masks", [False, True])
def test_a_batch_is_a_function_of_seed_and_step(masks) -> None:
    config, data = config_of(batch_size=4, seed=1), random_set(masks=masks)
    torch.manual_seed(0)
    one = batch_of_step(data, config, 5)
    batch_of_step(data, config, 6)
    torch.manual_seed(99)  # nobody else's randomness takes part
    assert equal(one, batch_of_step(data, config, 5))
    before = torch.random.get_rng_state()
    batch_of_step(data, config, 5)
    assert torch.equal(before, torch.random.get_rng_state())
    for other in (batch_of_step(data, config, 6), batch_of_step(data, config.with_changes(seed=2), 5)):
        assert not torch.equal(one.noise, other.noise) and not torch.equal(one.latents, other.latents)


def test_a_batch_does_not_depend_on_how_it_will_be_cut() -> None:
    """Not on micro-batches, checkpoints or validation; and the shares of several processes are the batch."""
    data, config = random_set(), config_of(batch_size=5)
    whole = batch_of_step(data, config, 3)
    other = config.with_changes(micro_batch_size=2, validation_every=7, checkpoint_every=1, steps=900)
    assert equal(whole, batch_of_step(data, other, 3))
    for size in (1, 2, 3, 5):
        shares = [whole.part(World(rank, size).share(5)) for rank in range(size)]
        assert max(len(s.latents) for s in shares) - min(len(s.latents) for s in shares) <= 1
        assert torch.equal(torch.cat([s.noise for s in shares]), whole.noise)


@pytest.mark.parametrize(("count", "batch_size"), [(10, 4), (7, 16), (3, 1), (5, 5)])
def test_every_image_is_seen_once_an_epoch_and_no_batch_is_short(count, batch_size) -> None:
    steps = -(-5 * count // batch_size)
    rows = [rows_of_step(count, batch_size, seed=0, step=s) for s in range(steps)]
    assert {len(r) for r in rows} == {batch_size}
    epochs = torch.cat(rows)[: 5 * count].reshape(5, count)
    assert all(sorted(epoch.tolist()) == list(range(count)) for epoch in epochs)
    assert len({tuple(epoch.tolist()) for epoch in epochs}) > 1, "each epoch has an order of its own"


@pytest.mark.parametrize("batch_size", [1, 3, 8, 256])
def test_timesteps_are_stratified_and_uniform(batch_size) -> None:
    """One in each of B equal slices; over many steps every tenth gets its share.

    The count of a tenth among n independent draws has standard deviation sqrt(0.09 n); among stratified ones less.
    """
    seeds = range(2000 // batch_size)
    drawn = [stratified_timesteps(batch_size, 1000, torch.Generator().manual_seed(seed)) for seed in seeds]
    for t in drawn:
        ordered = sorted(t.tolist())
        assert all(1000 * k // batch_size <= ordered[k] <= 1000 * (k + 1) // batch_size for k in range(batch_size))
    every = torch.cat(drawn)
    assert int(every.min()) >= 0 and int(every.max()) <= 999
    counts = torch.bincount(every * 10 // 1000, minlength=10).double()
    assert float((counts - len(every) / 10).abs().max()) < 5 * (0.09 * len(every)) ** 0.5
    if batch_size > 1:
        assert any(t.tolist() != sorted(t.tolist()) for t in drawn), "which image gets which slice is random too"


def test_the_posterior_is_sampled_afresh_at_each_step() -> None:
    """Two visits of an image differ by scale * std * sqrt(2); the mean is what was cached, scaled."""
    data, config = random_set(std=0.1), config_of(batch_size=10, seed=1)
    visits = []
    for step in range(2):
        batch = batch_of_step(data, config, step)
        visits.append(batch.latents[torch.argsort(batch.rows)])
    assert float((visits[0] - visits[1]).std()) == pytest.approx(0.5 * 0.1 * 2**0.5, rel=0.05)
    mean = torch.from_numpy(data.moments[:, 0]).float() * 0.5
    assert float((visits[0] - mean).std()) == pytest.approx(0.5 * 0.1, rel=0.05)
    assert abs(float((visits[0] - mean).mean())) < 5 * 0.05 / visits[0].numel() ** 0.5


def test_rows_say_which_image_and_which_caption() -> None:
    data = random_set(std=0.0)
    batch = batch_of_step(data, config_of(batch_size=6, caption_dropout=0.0), 2)
    for row, latent, ids in zip(batch.rows, batch.latents, batch.input_ids, strict=True):
        assert torch.equal(ids, data.input_ids[row])
        torch.testing.assert_close(latent, torch.from_numpy(data.moments[row, 0]).float() * 0.5)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_captions_are_dropped_at_the_asked_rate(share) -> None:
    """400 captions: five standard errors of a share of 0.3 are 0.115."""
    data, config = random_set(), config_of(batch_size=10, caption_dropout=share)
    empty = [(batch_of_step(data, config, s).input_ids == data.empty_ids).all(1) for s in range(40)]
    assert float(torch.cat(empty).float().mean()) == pytest.approx(share, abs=0.115 if 0 < share < 1 else 0)


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_class_images_join_with_their_own_weights(batch_size) -> None:
    data, prior = random_set(std=0.0), random_set(6, seed=4, std=0.0)
    config = config_of(batch_size=batch_size, prior_prompt="x", prior_weight=0.25, caption_dropout=1.0)
    batch = batch_of_step(data, config, 3, prior)
    assert len(batch.latents) == 2 * batch_size
    own, others = batch.part(slice(0, batch_size)), batch.part(slice(batch_size, None))
    assert float(own.weights.sum()) == pytest.approx(1) and float(others.weights.sum()) == pytest.approx(0.25)
    assert bool((own.rows >= 0).all()) and bool((others.rows < 0).all())
    for row, latent, ids in zip(others.rows, others.latents, others.input_ids, strict=True):
        torch.testing.assert_close(latent, torch.from_numpy(prior.moments[-1 - row, 0]).float() * 0.5)
        assert torch.equal(ids, prior.input_ids[-1 - row]), "the captions of class images are never dropped"
    assert not torch.equal(own.noise, others.noise)
    alone = batch_of_step(data, config, 3)
    assert all(torch.equal(a, b) for a, b in zip(own, alone, strict=True) if a is not None)
    seen = torch.cat([batch_of_step(data, config, s, prior).rows[batch_size:] for s in range(-(-6 // batch_size))])
    assert set((-1 - seen).tolist()) == set(range(6)), "all class images are used"


def test_offset_noise_adds_one_number_a_channel() -> None:
    """The mean over a channel's 256 pixels has variance 1/256 without it, and offset² more with it."""
    data, plain = random_set(), config_of(batch_size=64)
    some = plain.with_changes(offset_noise=0.3)
    noise = batch_of_step(data, plain, 0).noise
    assert float(noise.mean((2, 3)).var()) == pytest.approx(1 / 256, rel=0.5)
    moved = batch_of_step(data, some, 0).noise
    means = moved.mean((2, 3))  # [64, 4]
    assert float(means.var()) == pytest.approx(1 / 256 + 0.09, rel=0.5)
    assert float((moved - means[..., None, None]).std()) == pytest.approx(1, rel=0.02)
    torch.testing.assert_close(moved - noise, (moved - noise)[..., :1, :1].expand_as(noise), rtol=0, atol=1e-6)


def test_noise_is_standard_normal() -> None:
    noise = batch_of_step(random_set(), config_of(batch_size=64), 0).noise
    n = noise.numel()
    assert abs(float(noise.mean())) < 5 / n**0.5 and abs(float(noise.var()) - 1) < 5 * (2 / n) ** 0.5


def test_masks_come_in_variants_with_their_own_surroundings() -> None:
    data, config = random_set(masks=True), config_of(batch_size=10, mask_dropout=0.0, preset="tiny-inpaint")
    assert data.masks is not None
    used = set()
    for step in range(6):
        batch = batch_of_step(data, config, step)
        assert batch.extra.shape == (10, 5, 16, 16)
        for row, extra in zip(batch.rows, batch.extra, strict=True):
            found = [v for v in range(3) if np.array_equal(extra[0].numpy() > 0.5, data.masks.latent[row, v])]
            assert len(found) == 1, "the mask is one of the image's own"
            around = torch.from_numpy(data.masks.moments[row, found[0], 0]).float() * 0.5
            torch.testing.assert_close(extra[1:], around, rtol=0, atol=5e-3)
            used.add((int(row), found[0]))
    assert {variant for _, variant in used} == {0, 1, 2} and len(used) > 20


def test_mask_dropout_masks_all_and_shows_gray() -> None:
    data, config = random_set(masks=True), config_of(batch_size=10, mask_dropout=0.3, preset="tiny-inpaint")
    extras = torch.cat([batch_of_step(data, config, step).extra for step in range(40)])
    whole = (extras[:, 0] == 1).all((1, 2))  # [400]
    assert float(whole.float().mean()) == pytest.approx(0.3, abs=0.115)
    assert bool((extras[whole, 1:] == 7 * 0.5).all()), "nothing of the image is left around it"
    assert not bool((extras[~whole, 1:] == 7 * 0.5).all((1, 2, 3)).any())


def test_mean_latent_is_that_of_all_images() -> None:
    data = random_set(600)
    wanted = torch.from_numpy(data.moments[:, 0].astype(np.float64).mean(0)) * data.scaling_factor
    torch.testing.assert_close(data.mean_latent(), wanted.float(), rtol=0, atol=1e-6)
    assert isinstance(data, TrainingSet) and data.mean_latent().shape == (4, 16, 16)


def test_moments_are_not_read_whole(tmp_path) -> None:
    """A batch of a memory-mapped set copies its own rows only: a float16 file stays where it is."""
    data = random_set(50)
    np.save(tmp_path / "moments.npy", data.moments)
    mapped = np.load(tmp_path / "moments.npy", mmap_mode="r")
    other = TrainingSet(mapped, data.input_ids, data.empty_ids, data.scaling_factor)
    config = config_of(batch_size=4)
    assert equal(batch_of_step(data, config, 1), batch_of_step(other, config, 1))
    assert isinstance(other.moments, np.memmap)
