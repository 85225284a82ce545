"""Outlines and thickness profiles of masses: round, oval, lobular or irregular; sharp, soft or spiculated.

The shapes and margins are those of the BI-RADS lexicon, stylized.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from mame_lib.data.texture import F32

F64 = NDArray[np.float64]
_EDGE = 0.12  # the extent of a profile is where it exceeds this share of its largest value
_LIMIT = 1.6  # a profile is 0 beyond this many half boxes from the center


def _outline(rng: np.random.Generator, shape: str) -> Callable[[F64, F64], F64]:
    """Make rho(X, Y): 0 at the center, 1 on the outline, whose extent in X and Y is about [-1, 1]."""
    slant = rng.choice([-1.0, 1.0]) * rng.uniform(0.2, 0.55)
    phase = rng.uniform(0, 2 * np.pi, 10)
    wobble = rng.normal(size=10)
    lobes = int(rng.integers(3, 6))
    if shape in ("round", "oval"):
        lean = slant if shape == "oval" else 0.0  # an ellipse inscribed in its box, leaning when `lean` is not 0

        def rho(x: F64, y: F64) -> F64:
            return np.asarray(np.sqrt((x**2 - 2 * lean * x * y + y**2) / (1 - lean**2)))

        return rho
    theta = np.linspace(0, 2 * np.pi, 361)
    if shape == "lobular":
        radius = 0.8 + 0.22 * np.abs(np.cos(lobes * theta / 2 + phase[0])) + 0.06 * np.cos(2 * theta + phase[1])
    else:
        order = np.arange(2, 10)
        waves = np.cos(np.outer(theta, order) + phase[:8]) * wobble[:8] * 0.22 / order**0.6  # [361, 8]
        radius = np.clip(1 + waves.sum(1), 0.45, 1.7)
    x, y = radius * np.cos(theta), radius * np.sin(theta)
    middle, half = ((x.max() + x.min()) / 2, (y.max() + y.min()) / 2), ((np.ptp(x)) / 2, np.ptp(y) / 2)

    def rho_table(x: F64, y: F64) -> F64:
        u, v = x * half[0] + middle[0], y * half[1] + middle[1]
        return np.asarray(np.hypot(u, v) / np.interp(np.arctan2(v, u) % (2 * np.pi), theta, radius))

    return rho_table


def _spicules(rng: np.random.Generator) -> Callable[[F64, F64, float], F64]:
    """Make spicules(X, Y, px), 0..0.6: 14 to 34 tapering lines from the core outward; px: half box in pixels."""
    count = int(rng.integers(14, 35))
    turn = np.sort(rng.uniform(0, 2 * np.pi, 34))
    bend = rng.normal(0, 0.25, 34)
    length = rng.uniform(0.35, 0.75, 34)
    length[[0, 3, 6, 9]] = 0.75  # some reach the box

    def field(x: F64, y: F64, px: float) -> F64:
        radius, theta = np.hypot(x, y), np.arctan2(y, x)
        total = np.zeros_like(radius)
        for k in range(count):
            offset = np.angle(np.exp(1j * (theta - turn[k] - bend[k] * (radius - 0.4))))
            across = offset * radius * px / np.maximum(1.0, 0.05 * px)  # in line widths
            taper = np.clip(1 - (radius - 0.35) / length[k], 0, 1) * np.clip((radius - 0.1) / 0.2, 0, 1)
            total = np.maximum(total, 0.6 * taper * np.exp(-(across**2)))
        return total

    return field


def mass_profile(
    rng: np.random.Generator,
    shape: tuple[int, int],
    center: tuple[float, float],
    box: tuple[float, float],
    outline: str,
    margin: str,
) -> F32:
    """Relative thickness of a mass, 0..1, on an image of `shape` [h, w]; its extent above 12 % fills the box.

    center (x, y) and box (width, height) are in pixels. Profile 2R (1 - rho^2)^nu: nu = 0.5 for a sharp margin
    (a sphere), 1.6 for an indistinct one, and from one to the other around an obscured one. A spiculated
    mass is a soft core with lines that taper to nothing.
    """
    rho = _outline(rng, outline)
    spikes = _spicules(rng)
    veiled = rng.uniform(0, 2 * np.pi)

    def evaluate(x: F64, y: F64, px: float) -> F64:
        grow = 1.8 if margin == "spiculated" else 1.0  # its core takes half of the box
        inside = np.clip(1 - (grow * rho(x, y)) ** 2, 0, None)
        power = {"circumscribed": 0.5, "indistinct": 1.6, "spiculated": 1.1}.get(margin, 0.0)
        if margin == "obscured":
            profile = inside ** (1.1 + 0.7 * np.cos(np.arctan2(y, x) - veiled))
        else:
            profile = inside**power
        if margin == "spiculated":
            profile = np.maximum(profile, spikes(x, y, px))
        return np.where(np.hypot(x, y) < _LIMIT, profile, 0.0)

    middle, half = _fitted(evaluate, 0.5 * min(box))
    window = reach(shape, center, box)
    rows, columns = np.mgrid[window]
    x = (columns + 0.5 - center[0]) / (box[0] / 2) * half[0] + middle[0]  # in half boxes
    y = (rows + 0.5 - center[1]) / (box[1] / 2) * half[1] + middle[1]
    profile = np.zeros(shape, np.float32)
    profile[window] = evaluate(x, y, 0.5 * min(box))
    profile /= np.float32(max(float(profile.max()), 1e-6))
    profile[profile < 0.02] = 0  # an exact end: beyond it nothing of the image changes
    return profile


def reach(shape: tuple[int, int], center: tuple[float, float], box: tuple[float, float]) -> tuple[slice, slice]:
    """Rows and columns of the image within two boxes' width around `center`: all that a mass may touch."""
    spans = []
    for side, middle, extent in zip(shape, center[::-1], box[::-1], strict=True):
        spans.append(slice(max(0, int(middle - extent)), min(side, int(middle + extent) + 1)))
    return spans[0], spans[1]


def _fitted(
    evaluate: Callable[[F64, F64, float], F64], px: float
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Middle and half extent, in X and Y, of where the profile exceeds 12 %: what must fill the box."""
    axis = np.linspace(-_LIMIT, _LIMIT, 129)
    y, x = np.meshgrid(axis, axis, indexing="ij")
    found = evaluate(x, y, px)
    above = found > _EDGE * found.max()
    spans = [axis[np.flatnonzero(above.any(way))] for way in (0, 1)]
    (left, right), (top, bottom) = ((float(span[0]), float(span[-1])) for span in spans)
    return ((left + right) / 2, (top + bottom) / 2), ((right - left) / 2, (bottom - top) / 2)
