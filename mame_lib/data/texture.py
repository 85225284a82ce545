"""Random textures of the phantom: power-law fields, cell walls, fibers. All fields are float32 [n, n].

Every field is a function of its `Stream` alone, and its low frequencies do not depend on the image size:
a phantom drawn at 256 px is the phantom of 128 px with more detail, not another one.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import fft

F32 = NDArray[np.float32]


class Stream:
    """Named random streams of one phantom: the same (seed, index, name) always gives the same numbers."""

    def __init__(self, seed: int, index: int) -> None:
        self._entropy = (seed, index)

    def generator(self, *key: int) -> np.random.Generator:
        """A fresh generator for the stream `key` (small non-negative integers)."""
        return np.random.default_rng(np.random.SeedSequence(self._entropy, spawn_key=key))


@lru_cache(maxsize=64)
def _power_law(size: int, depth: int, beta: float, low: float, high: float) -> F32:
    """Amplitude filter f^(-beta/2), unit variance after `irfftn`; [*depth, size, size//2+1].

    Frequencies are cycles per image side; `low` rounds off the top of the power law, `high` ends it.
    """
    ky = np.fft.fftfreq(size, 1 / size)[:, None]
    kx = np.arange(size // 2 + 1)[None, :]
    squared = ky**2 + kx**2  # [n, n//2+1]
    if depth:
        # the slab is a quarter as thick as the image is wide, hence the factor 4
        squared = squared + (4.0 * np.fft.fftfreq(depth, 1 / depth)[:, None, None]) ** 2
    amplitude = (squared + low**2) ** (-beta / 4) * np.exp(-squared / (2 * high**2))
    amplitude[..., 0, 0] = 0.0
    amplitude[..., abs(ky[:, 0]) >= size / 2, :] = 0.0
    amplitude[..., kx[0] >= size / 2] = 0.0
    twice = np.where(kx == 0, 1.0, 2.0)  # a real field stores one of each pair of conjugates
    power = 2.0 * float((twice * amplitude**2).sum())  # 2: real and imaginary part
    return (amplitude * size**2 * max(depth, 1) / np.sqrt(power)).astype(np.float32)


def _white_spectrum(stream: Stream, name: int, size: int, depth: int) -> NDArray[np.complex64]:
    """Complex white noise [*depth, size, size//2+1] whose low frequencies do not depend on `size`."""
    top = 64
    while top < size:
        top *= 2
    lead = (depth,) if depth else ()
    spectrum = np.zeros((*lead, size, size // 2 + 1), np.complex64)
    level = top
    while level >= 32:  # finest first: each coarser level overwrites the middle of the band
        draws = stream.generator(name, level).standard_normal((*lead, level, level // 2, 2), dtype=np.float32)
        block = draws.view(np.complex64)[..., 0]  # [*, level, level//2]
        half = (min(level, size) + 1) // 2
        spectrum[..., :half, :half] = block[..., :half, :half]
        spectrum[..., 1 - half :, :half] = block[..., 1 - half :, :half]
        level //= 2
    return spectrum


def power_law_field(
    stream: Stream, name: int, size: int, beta: float, *, low: float = 1.0, high: float = 1e6, depth: int = 0
) -> F32:
    """Gaussian random field with power spectrum f^-beta, mean 0, variance 1; [*depth, size, size].

    Power-law parenchyma: Burgess, Jacobson and Judy, Med. Phys. 2001.
    """
    spectrum = _white_spectrum(stream, name, size, depth) * _power_law(size, depth, beta, low, high)
    if depth:
        return np.asarray(fft.irfftn(spectrum, (depth, size, size), workers=1), np.float32)
    return np.asarray(fft.irfft2(spectrum, (size, size), workers=1), np.float32)


def cell_distances(stream: Stream, name: int, u: F32, v: F32) -> tuple[F32, F32]:
    """Distances to the nearest and second nearest of jittered grid points (Worley's cellular texture).

    `u` and `v` are coordinates in units of one cell. The second minus the first is 0 on a cell wall.
    Worley, A cellular texture basis function, SIGGRAPH 1996.
    """
    table = stream.generator(name).random((64, 64, 2), dtype=np.float32)
    table_u, table_v = table[..., 0].ravel(), table[..., 1].ravel()
    column, row = np.floor(u).astype(np.int32), np.floor(v).astype(np.int32)
    fu, fv = u - column, v - row
    first = np.full(u.shape, 9.0, np.float32)
    second = first.copy()
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            place = ((row + down) & 63) * 64 + ((column + right) & 63)  # the lattice repeats after 64 cells
            squared = (table_u.take(place) + (right - fu)) ** 2 + (table_v.take(place) + (down - fv)) ** 2
            second = np.minimum(second, np.maximum(first, squared))
            first = np.minimum(first, squared)
    return np.sqrt(first), np.sqrt(second)


def along(field: F32, angle: F32, reach: float, steps: int) -> F32:
    """Mean of `field` along a straight stroke of +-`reach` pixels at `angle` through every pixel.

    A short line integral convolution (Cabral and Leedom, SIGGRAPH 1993): it combs noise into fibers.
    """
    size = field.shape[0]
    y, x = np.mgrid[0:size, 0:size].astype(np.float32)
    across, down = np.cos(angle), np.sin(angle)
    total = np.zeros_like(field)
    for offset in np.linspace(-reach, reach, steps, dtype=np.float32):
        column = np.rint(x + offset * across).astype(np.int32) % size
        row = np.rint(y + offset * down).astype(np.int32) % size
        total += field.take(row * size + column)
    return np.asarray(total / np.float32(steps), np.float32)


def standardized(field: F32, inside: NDArray[np.bool_]) -> F32:
    """`field` shifted and scaled to mean 0 and standard deviation 1 over `inside`."""
    values = field[inside]
    return np.asarray((field - values.mean()) / (values.std() + 1e-6), np.float32)
