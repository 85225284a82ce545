"""Where the randomness of sampling comes from: one stream of random numbers per image.

A stream is a pure function of three things: the user's seed, the name of the purpose, and the index of the
image. Image 7 of a population is therefore the same whether it is made alone, in a batch of 64, on a laptop
or on a GPU. (Idea: the per-image generators of Karras et al.'s EDM code.)
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor


def generator_for(seed: int, stream: str, index: int) -> torch.Generator:
    """A CPU generator that depends only on (seed, stream, index), on every machine and Python version.

    The three are hashed, not added: seeds 0 and 1 must not share images shifted by one.
    """
    digest = hashlib.blake2b(f"{int(seed)}/{stream}/{int(index)}".encode(), digest_size=8).digest()
    return torch.Generator("cpu").manual_seed(int.from_bytes(digest, "big") >> 1)  # 63 bits: a valid seed


def generators_for(seed: int, stream: str, indices: Iterable[int]) -> list[torch.Generator]:
    """One generator per image, as the stochastic samplers take them."""
    return [generator_for(seed, stream, index) for index in indices]


def noise_like_each(shape: Sequence[int], generators: Sequence[torch.Generator]) -> Tensor:
    """Standard normal noise [N, *shape] float32 on the CPU, image i drawn from generator i."""
    if not generators:
        raise ValueError("no image asked for: the list of image indices or generators is empty.")
    return torch.stack([torch.randn(tuple(shape), generator=g) for g in generators])  # [N, *shape]


def initial_noise(seed: int, indices: Iterable[int], shape: Sequence[int]) -> Tensor:
    """The start image x_T of each index: standard normal, [N, *shape] float32 on the CPU.

    Args:
        seed: the user's seed; the paper used 1337.
        indices: which images of the population, such as `range(8)`.
        shape: one image or latent without the batch dimension, such as (4, 64, 64).
    """
    return noise_like_each(shape, generators_for(seed, "start", indices))
