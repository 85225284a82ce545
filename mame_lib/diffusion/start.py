"""Where sampling starts: noise from one stream of random numbers per image, and the signal that training still saw.

A stream is a pure function of three things: the user's seed, the name of the purpose, and the index of the
image. Image 7 of a population is therefore the same whether it is made alone, in a batch of 64, on a laptop
or on a GPU. (Idea: the per-image generators of Karras et al.'s EDM code.)
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from mame_lib.diffusion.process import add_noise
from mame_lib.diffusion.schedule import Schedule


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


@dataclass(frozen=True, eq=False)
class SignalLeak:
    """What the last training timestep still shows of the data: their mean, and how images differ at large.

    Stable Diffusion's schedule keeps 7 % of the signal at t = 999. Pure noise is a start that training never saw,
    and images that ought to be dark come out gray. Starting from a plausible blurred image, noised to the first
    timestep used, mends that without training (Everaert et al. 2024, who fit a Gaussian to the low frequencies).

    Attributes:
        mean: [C, h, w], mean of the scaled training latents.
        factor: [C * k * k, r], the differences between images on k x k cells: cells ~ factor @ N(0, I).
    """

    mean: Tensor
    factor: Tensor

    @classmethod
    def fit(cls, latents: Tensor, cells: int = 4) -> SignalLeak:
        """Fit on scaled latents [N, C, h, w], such as those of the training cache; cells = 0 keeps the mean alone.

        Raises ValueError for fewer than two latents, or more cells than the latents have rows.
        """
        if latents.ndim != 4 or len(latents) < 2:
            raise ValueError(f"a signal leak needs at least two latents [N, C, h, w], got {tuple(latents.shape)}.")
        if not 0 <= cells <= min(latents.shape[2:]):
            raise ValueError(f"cells must lie in 0..{min(latents.shape[2:])}, got {cells}.")
        mean = latents.double().mean(0)  # [C, h, w]
        if cells == 0:
            return cls(mean.float(), torch.zeros(0, 0))
        low = adaptive_avg_pool2d(latents.double() - mean, cells).flatten(1)  # [N, C * k * k]
        _, spread, directions = torch.linalg.svd(low, full_matrices=False)  # [r], [r, C * k * k]
        factor = directions.T * (spread / (len(low) - 1) ** 0.5)  # [C * k * k, r]
        return cls(mean.float(), factor.float())

    def draw(self, generators: Sequence[torch.Generator]) -> Tensor:
        """One blurred image per generator, [N, C, h, w] float32: the mean plus a random large-scale difference."""
        channels, height, width = self.mean.shape
        if self.factor.numel() == 0:
            return self.mean.expand(len(generators), -1, -1, -1)
        weights = noise_like_each((self.factor.shape[1],), generators)  # [N, r]
        cells = round((len(self.factor) / channels) ** 0.5)
        low = (weights @ self.factor.T).reshape(-1, channels, cells, cells)  # [N, C, k, k]
        return self.mean + interpolate(low, size=(height, width), mode="nearest")

    def start(self, schedule: Schedule, noise: Tensor, t: int, generators: Sequence[torch.Generator]) -> Tensor:
        """The start image of a path whose first timestep is t: a drawn image noised to t (MAM-E Eq. 4), [N, C, h, w].

        Args:
            noise: standard normal [N, C, h, w], such as `initial_noise` gives.
            t: the first timestep of the grid, 999 with trailing spacing; leading starts earlier and leaks more.
            generators: one per image, for what is drawn; a stream of their own, such as "leak".
        """
        return add_noise(schedule, self.draw(generators).to(noise.device), noise, t)
