"""Captioned procedural pictures that are *not* mammograms: what the tiny base model is pretrained on.

Stable Diffusion saw photographs of everything before MAM-E showed it a breast. Our tiny base sees shapes, clouds,
leaves, stripes, dots and gradients, gray and colored, with plain captions. Picture *i* depends on `(seed, i)` only.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.random import Generator

GRAYS = {"black": 0.03, "dark gray": 0.25, "gray": 0.5, "light gray": 0.75, "white": 0.97}
COLORS = {
    "red": (0.85, 0.15, 0.12), "orange": (0.95, 0.55, 0.1), "yellow": (0.95, 0.9, 0.2), "green": (0.15, 0.65, 0.25),
    "blue": (0.15, 0.3, 0.85), "purple": (0.55, 0.2, 0.7),
    "pink": (0.95, 0.6, 0.75), "brown": (0.45, 0.28, 0.12),
}  # fmt: skip
SIZES = {"small": (0.10, 0.17), "medium": (0.20, 0.28), "big": (0.32, 0.44)}  # half width / image side
LEVELS = {"very low": 0.06, "low": 0.18, "high": 0.42, "very high": 0.7}  # share of ink in dots and stripes
SHAPES = ("circle", "square", "triangle", "ring", "star", "cross", "diamond", "ellipse")
TEXTURES = ("clouds", "smoke", "marble", "hair", "sand", "leaves", "stripes", "dots", "checks", "gradient")
PLACES = {
    "on the left": (-1, 0), "on the right": (1, 0), "at the top": (0, -1), "at the bottom": (0, 1),
    "in the middle": (0, 0),
}  # fmt: skip


@lru_cache(maxsize=8)
def _grid(size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixel coordinates in [-0.5, 0.5) (x, y) and the radial frequency of the real FFT in cycles/pixel."""
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size - 0.5
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :]).astype(np.float32)
    frequency[0, 0] = 1.0 / size
    return x, y, frequency


def fractal_noise(rng: Generator, size: int, beta: float, stretch: float = 1.0) -> np.ndarray:
    """Gaussian field with power spectrum 1/f^beta, zero mean, unit standard deviation, `[size, size]`.

    `stretch` above 1 draws it out along one random direction, into streaks.
    """
    _, _, frequency = _grid(size)
    if stretch > 1:
        angle = rng.uniform(0, np.pi)
        fy, fx = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :]
        along, across = fx * np.cos(angle) + fy * np.sin(angle), fy * np.cos(angle) - fx * np.sin(angle)
        frequency = np.hypot(stretch * along, across).astype(np.float32)
        frequency[0, 0] = 1.0 / size
    spectrum = np.fft.rfft2(rng.standard_normal((size, size), dtype=np.float32)) * frequency ** (-beta / 2)
    spectrum[0, 0] = 0
    field = np.fft.irfft2(spectrum, s=(size, size)).astype(np.float32)
    return field / (field.std() + 1e-6)


def _distance(shape: str, x: np.ndarray, y: np.ndarray, r: float) -> np.ndarray:
    """Signed distance-like function of a shape of half width `r` about the origin: negative inside."""
    radius = np.hypot(x, y)
    if shape == "circle":
        return radius - r
    if shape == "ring":
        return np.abs(radius - 0.78 * r) - 0.22 * r
    if shape == "square":
        return np.maximum(np.abs(x), np.abs(y)) - 0.88 * r
    if shape == "diamond":
        return (np.abs(x) + np.abs(y) - 1.15 * r) / 1.41
    if shape == "ellipse":
        return (np.hypot(x, y / 0.6) - r) * 0.8
    if shape == "triangle":
        return np.maximum(y - 0.6 * r, (0.87 * np.abs(x) - 0.5 * y - 0.5 * r))
    if shape == "cross":
        return np.minimum(np.maximum(np.abs(x) - r, np.abs(y) - 0.33 * r),
                          np.maximum(np.abs(y) - r, np.abs(x) - 0.33 * r))  # fmt: skip
    angle = np.arctan2(x, -y)  # star with five points
    return radius - r * (0.66 + 0.34 * np.cos(5 * angle))


def _dots(rng: Generator, size: int, share: float) -> np.ndarray:
    x, y, _ = _grid(size)
    pitch = rng.uniform(0.07, 0.16)
    radius = pitch * np.sqrt(share / np.pi)
    u = (x + rng.uniform()) % pitch - pitch / 2
    v = (y + rng.uniform()) % pitch - pitch / 2
    return np.clip(0.5 - (np.hypot(u, v) - radius) * size, 0, 1)


def _stripes(rng: Generator, size: int, share: float) -> np.ndarray:
    x, y, _ = _grid(size)
    angle, pitch = rng.uniform(0, np.pi), rng.uniform(0.06, 0.2)
    phase = (x * np.cos(angle) + y * np.sin(angle) + rng.uniform()) % pitch / pitch
    return np.clip(0.5 - (np.abs(phase - 0.5) - share / 2) * pitch * size, 0, 1)


def _leaves(rng: Generator, size: int, share: float) -> np.ndarray:
    """Dead leaves: opaque disks of many radii thrown on top of one another (scale-invariant, with edges)."""
    x, y, _ = _grid(size)
    image = np.full((size, size), rng.uniform(), np.float32)
    for _ in range(int(20 + 60 * share)):
        radius = 0.02 / rng.uniform(0.08, 1.0) ** 0.9
        cx, cy = rng.uniform(-0.55, 0.55, 2)
        image = np.where((x - cx) ** 2 + (y - cy) ** 2 < radius**2, np.float32(rng.uniform()), image)
    return image


def texture(rng: Generator, kind: str, size: int, share: float) -> np.ndarray:
    """A gray texture in [0, 1], `[size, size]`; `share` is the amount of ink where the kind has any."""
    x, y, _ = _grid(size)
    if kind in ("clouds", "smoke", "sand"):
        beta = {"clouds": rng.uniform(2.5, 3.6), "smoke": rng.uniform(3.4, 4.5), "sand": rng.uniform(0.4, 1.6)}[kind]
        return np.clip(0.5 + rng.uniform(0.12, 0.26) * fractal_noise(rng, size, beta), 0, 1)
    if kind == "marble":  # bright veins where a smooth field crosses zero
        field = np.abs(fractal_noise(rng, size, rng.uniform(2.6, 3.6)))
        return np.clip(0.95 - rng.uniform(0.5, 1.0) * field**0.6, 0, 1)
    if kind == "hair":
        return np.clip(0.5 + 0.22 * fractal_noise(rng, size, rng.uniform(2.0, 3.2), rng.uniform(2, 5)), 0, 1)
    if kind == "checks":
        pitch = rng.uniform(0.06, 0.2)
        return (((x // pitch) + (y // pitch)) % 2).astype(np.float32)
    if kind == "gradient":
        angle = rng.uniform(0, 2 * np.pi)
        return np.clip(0.5 + 0.9 * (x * np.cos(angle) + y * np.sin(angle)), 0, 1)
    drawers: dict[str, Callable[[Generator, int, float], np.ndarray]] = {
        "dots": _dots, "stripes": _stripes, "leaves": _leaves,
    }  # fmt: skip
    return drawers[kind](rng, size, share)


def _color(rng: Generator, gray: bool) -> tuple[str, np.ndarray]:
    if gray or rng.uniform() < 0.35:
        name = str(rng.choice(list(GRAYS)))
        return name, np.clip(np.full(3, GRAYS[name]) + rng.uniform(-0.04, 0.04), 0, 1)
    name = str(rng.choice(list(COLORS)))
    return name, np.clip(np.array(COLORS[name]) + rng.uniform(-0.06, 0.06, 3), 0, 1)


def _scene(rng: Generator, size: int, gray: bool) -> tuple[np.ndarray, str]:
    """One shape on a background: `[size, size, 3]` in [0, 1] and its caption."""
    x, y, _ = _grid(size)
    shape, place, extent = (str(rng.choice(list(names))) for names in (SHAPES, PLACES, SIZES))
    half = rng.uniform(*SIZES[extent])
    free = 0.49 - half  # the whole shape stays inside the frame
    cx, cy = (np.array(PLACES[place]) * rng.uniform(0.6, 1.0) + rng.uniform(-0.15, 0.15, 2)) * free
    turn = rng.uniform(-0.3, 0.3)
    u = (x - cx) * np.cos(turn) + (y - cy) * np.sin(turn)
    v = (y - cy) * np.cos(turn) - (x - cx) * np.sin(turn)
    cover = np.clip(0.5 - _distance(shape, u, v, half) * size / rng.uniform(1, 3), 0, 1)[..., None]

    (ink_name, ink), (back_name, back) = _color(rng, gray), _color(rng, gray)
    while np.abs(ink - back).max() < 0.15:
        back_name, back = _color(rng, gray)
    filling, fill_word = ink[None, None, :], ""
    if rng.uniform() < 0.7:
        kind, level = str(rng.choice(TEXTURES)), str(rng.choice(list(LEVELS)))
        depth = rng.uniform(0.4, 1.0)
        filling = ink * (1 - depth * 0.5 + depth * (texture(rng, kind, size, LEVELS[level])[..., None] - 0.3))
        fill_word = f" of {kind}" + (f" with {level} density" if kind in ("dots", "stripes") else "")
    background = np.broadcast_to(back, (size, size, 3))
    if rng.uniform() < 0.3:
        background = back * (0.7 + 0.5 * texture(rng, str(rng.choice(TEXTURES[:3])), size, 0.3)[..., None])
    image = cover * filling + (1 - cover) * background
    if rng.uniform() < 0.5:
        caption = f"a {extent} {ink_name} {shape}{fill_word}"
    else:
        caption = f"a {ink_name} {shape}{fill_word} with {extent} area"
    caption += f" {place}" if rng.uniform() < 0.6 else ""
    caption += f" on a {back_name} background" if rng.uniform() < 0.7 else ""
    return image, caption


def _pattern(rng: Generator, size: int, gray: bool) -> tuple[np.ndarray, str]:
    """A texture that fills the frame: `[size, size, 3]` in [0, 1] and its caption."""
    kind, level = str(rng.choice(TEXTURES)), str(rng.choice(list(LEVELS)))
    (one_name, one), (two_name, two) = _color(rng, gray), _color(rng, gray)
    while np.abs(one - two).max() < 0.15:
        two_name, two = _color(rng, gray)
    ink = texture(rng, kind, size, LEVELS[level])[..., None]
    image = ink * one + (1 - ink) * two
    inked = f" with {level} density" if kind in ("dots", "stripes", "leaves") else ""
    return image, f"a picture of {one_name} and {two_name} {kind}{inked}"


def picture(seed: int, index: int, size: int = 128, gray_share: float = 0.5) -> tuple[np.ndarray, str]:
    """Draw picture `index` of the population `seed`; `gray_share` of the pictures have no color.

    Returns
    -------
    image : uint8 array `[size, size, 3]`, RGB.
    caption : str, lower case.
    """
    rng = np.random.default_rng(np.random.SeedSequence((seed, index)))
    gray = bool(rng.uniform() < gray_share)
    image, caption = (_scene if rng.uniform() < 0.65 else _pattern)(rng, size, gray)
    if rng.uniform() < 0.25:
        image = image + rng.uniform(0.005, 0.03) * rng.standard_normal((size, size, 1))
    return (np.clip(image, 0, 1) * 255).round().astype(np.uint8), caption.replace("a orange", "an orange")
