"""Initial noise: image i depends on (seed, i) and on nothing else."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mame_lib.diffusion.start import generator_for, generators_for, initial_noise, noise_like_each

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
