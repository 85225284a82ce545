"""Initial noise: image i depends on (seed, i) and on nothing else."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mame_lib.diffusion.samplers import ddim, timesteps
from mame_lib.diffusion.schedule import scaled_linear_schedule
from mame_lib.diffusion.start import SignalLeak, generator_for, generators_for, initial_noise, noise_like_each

SHAPE = (4, 8, 8)


@given(indices=st.lists(st.integers(0, 500), min_size=1, max_size=8, unique=True), seed=st.integers(0, 2**31))
@settings(max_examples=50, deadline=None)
def test_noise_of_an_image_does_not_depend_on_its_batch(indices, seed):
    together = initial_noise(seed, indices, SHAPE)
    assert together.shape == (len(indices), *SHAPE) and together.dtype == torch.float32
    for row, index in zip(together, indices, strict=True):
        assert torch.equal(row, initial_noise(seed, [index], SHAPE)[0])


def test_the_streams_are_frozen():
    """A change of the hash would change every published image: these numbers may never move."""
    assert generator_for(1337, "start", 0).initial_seed() == 3992702353473929864
    assert generator_for(0, "noise", 7).initial_seed() == 6748804321320779450


def test_seeds_streams_and_indices_are_independent():
    seeds = {
        generator_for(seed, stream, index).initial_seed()
        for seed in range(20)
        for stream in ("start", "noise")
        for index in range(20)
    }
    assert len(seeds) == 20 * 2 * 20 and all(0 <= s < 2**63 for s in seeds)


def test_it_is_standard_normal():
    """65,536 numbers: mean and variance within five standard errors (false alarm 1.1e-6, seed fixed)."""
    x = initial_noise(1, range(64), (4, 16, 16)).double()
    assert abs(float(x.mean())) < 5 / x.numel() ** 0.5
    assert abs(float(x.var()) - 1) < 5 * (2 / x.numel()) ** 0.5


def test_different_images_are_uncorrelated():
    x = initial_noise(0, range(40), (4096,))
    correlation = torch.corrcoef(x) - torch.eye(40)
    assert float(correlation.abs().max()) < 6 / 4096**0.5


def test_generators_advance():
    generators = generators_for(5, "noise", [0, 1])
    first, second = noise_like_each(SHAPE, generators), noise_like_each(SHAPE, generators)
    assert not torch.equal(first, second)


def test_no_image_is_refused():
    with pytest.raises(ValueError, match="no image asked for"):
        initial_noise(0, [], SHAPE)


# ---- signal leak ------------------------------------------------------------------------------------

SD = scaled_linear_schedule()


def dark_images(count, side, seed=0):
    """Flat images [N, 1, side, side] of brightness -1.0 +/- 0.3: dark with certainty."""
    m = -1.0 + 0.3 * torch.randn(count, 1, 1, 1, generator=torch.Generator().manual_seed(seed))
    return m.expand(count, 1, side, side)


def exact_model(x, t):
    """The exact noise prediction for `dark_images`: only the mean of an image says something about it."""
    signal, sigma = SD.signal[t][:, None, None, None], SD.sigma[t][:, None, None, None]
    pixels = x[0].numel()
    gain = 0.09 * signal / (0.09 * signal**2 + sigma**2 / pixels)
    brightness = -1.0 + gain * (x.mean((1, 2, 3), keepdim=True) + signal)
    return (x - signal * brightness) / sigma


@pytest.mark.parametrize("spacing", ["trailing", "leading"])
def test_the_leak_cures_the_gray_background_that_pure_noise_gives(spacing):
    """64 x 64 pixels; for pure noise the mean is mu (1 - s sqrt(abar D) / sqrt(abar D s^2 + 1 - abar)).

    200 images: the mean brightness has a standard error of 0.3 / sqrt(200) = 0.02.
    """
    grid, count, pixels = timesteps(SD, 24, spacing), 200, 64 * 64
    noise = initial_noise(0, range(count), (1, 64, 64))
    leak = SignalLeak.fit(dark_images(500, 64), cells=1)
    start = leak.start(SD, noise, grid[0], generators_for(0, "leak", range(count)))
    (*_, gray), (*_, dark) = ddim(exact_model, noise, SD, grid), ddim(exact_model, start, SD, grid)
    abar = float(SD.alphas_cumprod[grid[0]])
    expected = -(1 - 0.3 * (abar * pixels) ** 0.5 / (abar * pixels * 0.09 + 1 - abar) ** 0.5)
    assert float(gray.sample.mean()) == pytest.approx(expected, abs=0.05) and expected > -0.25
    assert float(dark.sample.mean()) == pytest.approx(-1.0, abs=0.09)
    assert float(dark.sample.mean((1, 2, 3)).std()) == pytest.approx(0.3, abs=0.06)


def test_what_is_drawn_has_the_mean_and_the_large_scale_covariance_of_the_data():
    """400 latents with correlated quadrants; 4,000 draws: five standard errors, plus the fit's own exactness."""
    g = torch.Generator().manual_seed(1)
    mixing = torch.randn(8, 8, generator=g)
    low = (torch.randn(400, 8, generator=g) @ mixing).reshape(400, 2, 2, 2)
    latents = low.repeat_interleave(4, 2).repeat_interleave(4, 3) + 3.0  # [400, 2, 8, 8]
    leak = SignalLeak.fit(latents, cells=2)
    drawn = leak.draw(generators_for(0, "leak", range(4000)))
    assert drawn.shape == (4000, 2, 8, 8) and drawn.dtype == torch.float32
    torch.testing.assert_close(leak.factor @ leak.factor.T, torch.cov(low.flatten(1).T), rtol=1e-4, atol=1e-4)
    spread = latents.std(0)
    assert bool(((drawn.mean(0) - latents.mean(0)).abs() < 5 * spread / 4000**0.5).all())
    assert bool((drawn.std(0) / spread - 1).abs().max() < 5 / 8000**0.5)


def test_without_cells_the_leak_is_the_mean_alone_and_an_image_does_not_depend_on_its_batch():
    latents = torch.randn(10, 4, 6, 6, generator=torch.Generator().manual_seed(2))
    flat = SignalLeak.fit(latents, cells=0)
    noise = initial_noise(0, range(3), (4, 6, 6))
    torch.testing.assert_close(
        flat.start(SD, noise, 999, generators_for(0, "leak", range(3))),
        SD.signal[999] * latents.mean(0) + SD.sigma[999] * noise,
    )
    leak = SignalLeak.fit(latents, cells=3)
    together = leak.draw(generators_for(0, "leak", range(5)))
    torch.testing.assert_close(leak.draw(generators_for(0, "leak", [3]))[0], together[3], rtol=0, atol=1e-5)
    assert not torch.equal(together[0], together[1])


@pytest.mark.parametrize(
    ("shape", "cells", "message"),
    [
        ((1, 4, 6, 6), 2, "at least two"),
        ((5, 6, 6), 2, "at least two"),
        ((5, 4, 6, 6), 7, r"0\.\.6, got 7"),
        ((5, 4, 6, 6), -1, r"0\.\.6, got -1"),
    ],
)
def test_a_leak_that_cannot_be_fitted_is_told(shape, cells, message):
    with pytest.raises(ValueError, match=message):
        SignalLeak.fit(torch.zeros(shape), cells)
