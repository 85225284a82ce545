"""A procedural mammogram with known truth: `draw` one, or a whole `population`.

Not a simulation of physics but a stylized picture whose factors (view, vendor look, breast area, glandular
fraction, side) are chosen, known exactly, and visible. The vendor looks are teaching stylizations.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from mame_lib.data import anatomy
from mame_lib.data.case import AREAS, DENSITIES, VENDORS, VIEWS, Attributes
from mame_lib.data.looks import LOOKS, present
from mame_lib.data.texture import F32, Stream, along, cell_distances, power_law_field, standardized
from mame_lib.errors import InputError

SIZES = (64, 1024)  # smallest and largest image side in pixels

# Volumetric glandular fraction drawn for each word; disjoint ranges, so that a word can be read back.
GLANDULAR_RANGES = {
    "very low": (0.035, 0.075),
    "low": (0.105, 0.165),
    "high": (0.22, 0.32),
    "very high": (0.40, 0.54),
}
_THICKNESS_MM = {"very low": 60.0, "low": 55.0, "high": 47.0, "very high": 40.0}
_SLICES = 10
_HAIR = 1.2  # weight of the finest strands; brings the power-law exponent from 3.5 to that of real tissue
# Meshes of strands: cells across the breast, stretch toward the nipple, weight.
_MESHES = ((4.2, 1.35, 1.0), (6.4, 1.5, 0.9), (10.0, 1.7, 0.6), (16.0, 1.7, 0.6), (26.0, 1.5, 0.5))


@dataclass(frozen=True)
class Phantom:
    """One drawn mammogram and its truth.

    image: uint8 [n, n], background exactly 0, left-facing (chest wall at x = 0) unless laterality is R.
    mask: bool [n, n], the breast. pectoral: bool [n, n], the muscle (empty in CC views).
    glandular_fraction: gland volume / breast volume, 0..1. area_ratio: breast pixels / all pixels.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    glandular_fraction: float
    area_ratio: float
    attributes: Attributes
    pectoral: NDArray[np.bool_]


def draw(attributes: Attributes | None = None, *, size: int = 128, seed: int = 0, index: int = 0) -> Phantom:
    """Draw phantom `index` of the population `seed`; the same arguments always give the same bytes.

    Attributes that are not said are drawn uniformly from (seed, index), except laterality, which is L.

    Raises
    ------
    InputError
        If size, seed or index is out of range, or a lesion is asked for.
    """
    _check(size, seed, index, attributes)
    stream = Stream(seed, index)
    asked = _complete(attributes or Attributes(), stream.generator(0))
    assert asked.view and asked.area and asked.density and asked.vendor
    look = LOOKS[asked.vendor]
    rng = stream.generator(1)
    area = rng.uniform(*anatomy.AREA_RANGES[asked.area])
    target = rng.uniform(*GLANDULAR_RANGES[asked.density])
    full_mm = _THICKNESS_MM[asked.density] * rng.uniform(0.85, 1.2)
    shape = anatomy.build_shape(rng, asked.view, area, size, look.side_mm)
    thick = anatomy.thickness(shape.skin_mm, full_mm)
    gland, septa = _tissue(stream, shape, thick, target)
    image = present(stream, shape, thick, gland, septa, look, full_mm=full_mm)
    volume = float(thick[shape.mask].sum())
    fraction = float((gland * thick)[shape.mask].sum()) / volume
    muscle = shape.pectoral > 0.5
    mask = shape.mask
    if asked.laterality == "R":
        image, mask, muscle = image[:, ::-1].copy(), mask[:, ::-1].copy(), muscle[:, ::-1].copy()
    return Phantom(image, mask, fraction, float(mask.mean()), asked, muscle)


def population(
    count: int, *, size: int = 128, seed: int = 0, attributes: Attributes | None = None
) -> Iterator[Phantom]:
    """Yield `count` phantoms, index 0 to count - 1; each depends on (seed, its index) only."""
    if count < 0:
        raise InputError(f"count {count} is negative; ask for 0 or more phantoms.")
    return (draw(attributes, size=size, seed=seed, index=index) for index in range(count))


def _check(size: int, seed: int, index: int, attributes: Attributes | None) -> None:
    for name, value in (("size", size), ("seed", seed), ("index", index)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer):
            raise InputError(f"phantom {name} {value!r} is not an integer; give a whole number.")
    if not SIZES[0] <= size <= SIZES[1]:
        raise InputError(f"phantom size {size} is out of range; use {SIZES[0]} to {SIZES[1]} pixels.")
    if seed < 0 or index < 0:
        raise InputError(f"phantom seed {seed} and index {index} must be 0 or more.")
    if attributes is not None and attributes.finding is not None:
        raise InputError("phantom.draw makes healthy breasts only; leave `finding` unsaid.")


def _complete(said: Attributes, rng: np.random.Generator) -> Attributes:
    """Fill in what is not said; all are drawn, said or not, so that saying one never changes another."""
    drawn = {
        name: words[int(rng.integers(len(words)))]
        for name, words in (("vendor", VENDORS), ("view", VIEWS), ("area", AREAS), ("density", DENSITIES))
    }
    return replace(said, **{**drawn, "laterality": "L", **said.to_dict()})


def _nipple_frame(stream: Stream, shape: anatomy.Shape) -> tuple[F32, F32, F32, F32]:
    """Polar coordinates about the nipple: r, theta (0 toward the chest wall), and their bent logs."""
    size = shape.mask.shape[0]
    inward, down = shape.nipple[0] - shape.x, shape.y - shape.nipple[1]
    radius, theta = np.hypot(inward, down), np.arctan2(down, inward)
    fan = 1.3 * theta * radius / (radius + 0.12)  # widens the cells at the nipple, where angles pinch them
    bend_u = power_law_field(stream, 20, size, 3.0, low=1.5, high=8.0)
    bend_v = power_law_field(stream, 21, size, 3.0, low=1.5, high=8.0)
    return radius, theta, np.log(radius + 0.2) + 0.05 * bend_u, fan + 0.08 * bend_v


def _envelope(rng: np.random.Generator, shape: anatomy.Shape, radius: F32, theta: F32) -> F32:
    """Where gland may grow, 0..1: a cone behind the nipple, between subcutaneous and retromammary fat."""
    fat_mm, back = rng.uniform(5, 10), rng.uniform(0.01, 0.07)
    axis = rng.uniform(-0.3, 0.15)
    depth = max(shape.nipple[0], 0.15)
    under_skin = 0.5 + 0.5 * np.tanh((shape.skin_mm - fat_mm) / 4.0)
    from_wall = 0.5 + 0.5 * np.tanh((shape.x - back) / 0.05)
    fan = np.exp(-((np.abs(theta - axis) / 1.15) ** 4) - ((radius / depth - 0.48) / 0.62) ** 2)
    return np.asarray(under_skin * from_wall * fan * (1 - shape.pectoral), np.float32)


def _walls(stream: Stream, u: F32, v: F32, size: int) -> tuple[F32, F32]:
    """Strands between fat lobules (walls of cells drawn out toward the nipple), and the lobules' cores."""
    walls = np.zeros_like(u)
    cores = np.zeros_like(u)
    for layer, (cells, stretch, weight) in enumerate(_MESHES):
        if 2.2 * cells > 0.25 * size:
            break  # walls of this mesh would be thinner than a pixel
        first, second = cell_distances(stream, 30 + layer, u * (cells / stretch) + 40, v * cells + 40)
        patchy = power_law_field(stream, 40 + layer, size, 3.0, low=4.0)
        width = np.float32(max(0.11, 2.2 * cells / size))  # never thinner than a pixel, or it would alias
        walls += weight * np.exp(-((second - first) / width)) * np.clip(0.5 + 0.5 * patchy, 0, 1.7)
        if layer < 3:  # finer lobules have no visible core
            cores += weight * np.exp(-((first / 0.45) ** 2))
    return walls, cores


def _fibers(stream: Stream, shape: anatomy.Shape) -> F32:
    """Strands combed toward the nipple, fainter ones across, and fine hair; mean 0, sd 1 inside the breast."""
    size = shape.mask.shape[0]
    toward = np.arctan2(shape.nipple[1] - shape.y, shape.nipple[0] + 0.05 - shape.x)
    angle = toward + 0.35 * power_law_field(stream, 50, size, 3.5, low=2.0, high=6.0)
    across = angle + 0.8 + 0.5 * power_law_field(stream, 51, size, 3.5, low=2.0, high=6.0)
    tangled = angle + 0.6 * power_law_field(stream, 55, size, 3.0, low=4.0, high=16.0)
    coarse = power_law_field(stream, 52, size, 2.4, low=8.0, high=64.0)
    fine = power_law_field(stream, 53, size, 2.0, low=14.0, high=96.0)
    hair = power_law_field(stream, 54, size, 1.2, low=30.0, high=200.0)
    combed = along(coarse, angle, 0.06 * size, 9) + 0.6 * along(fine, across, 0.04 * size, 9)
    return standardized(combed + _HAIR * along(hair, tangled, 0.014 * size, 9), shape.mask)


def _tissue(stream: Stream, shape: anatomy.Shape, thick: F32, target: float) -> tuple[F32, F32]:
    """Glandular share of the thickness [n, n] 0..1 with volume fraction `target`, and the strands in fat."""
    size = shape.mask.shape[0]
    rng = stream.generator(2)
    lobular, webbed, hairy = rng.uniform(0.05, 0.40), rng.uniform(0.6, 1.4), rng.uniform(0.5, 1.1)
    radius, theta, u, v = _nipple_frame(stream, shape)
    envelope = _envelope(rng, shape, radius, theta)
    walls, cores = _walls(stream, u, v, size)
    fibers = _fibers(stream, shape)
    web = standardized(walls, shape.mask)
    holes = standardized(cores, shape.mask)
    score = _clouds(stream, u, v, size) + 2.6 * (envelope - 0.55)[::2, ::2]
    score += (0.08 * web - lobular * holes)[::2, ::2]
    weight = (thick * shape.mask)[::2, ::2]
    base = _solve(score, np.sqrt(envelope[::2, ::2]), weight, target)
    gland = ndimage.zoom(base, size / base.shape[0], order=1, grid_mode=True, mode="nearest")
    detail = np.exp(0.09 * web - 0.6 * lobular * holes + 0.24 * hairy * fibers)
    gland = _saturate(gland * detail * shape.mask, thick, target)
    septa = 0.055 * webbed * np.clip(web, -0.7, 3.0) + 0.035 * hairy * np.clip(fibers, -0.5, 2.5)
    septa += 0.20 * anatomy.vessels(rng, shape) + 0.05 * power_law_field(stream, 62, size, 3.0, low=2.0)
    return gland, np.asarray(septa, np.float32)


def _clouds(stream: Stream, u: F32, v: F32, size: int) -> F32:
    """Slices [z, h, h], at half resolution, of a solid f^-3 field plus one drawn out toward the nipple."""
    solid = power_law_field(stream, 60, (size + 1) // 2, 3.0, low=2.0, depth=_SLICES)
    lattice = power_law_field(stream, 61, 128, 3.0, low=3.0)
    place = [20.0 * v[::2, ::2] + 64, 12.0 * u[::2, ::2] + 64]
    polar = ndimage.map_coordinates(lattice, place, order=1, mode="grid-wrap")  # [h, h]
    height = np.linspace(-1, 1, _SLICES, dtype=np.float32)[:, None, None]
    return np.asarray(0.75 * solid + 0.55 * polar - 0.6 * height**2, np.float32)


def _solve(score: F32, root: F32, weight: F32, target: float) -> F32:
    """Mean over slices of sqrt(E) sigmoid(3.4 (score + b)), b bisected to the volume fraction `target`."""
    inside = weight > 0
    columns = score[:, inside]  # [z, pixels]
    share = (root * weight)[inside] / weight[inside].sum()
    low, high = -6.0, 6.0
    for _ in range(11):
        bias = np.float32(0.5 * (low + high))
        filled = float((0.5 + 0.5 * np.tanh(1.7 * (columns + bias))).mean(0) @ share)
        low, high = (float(bias), high) if filled < target else (low, float(bias))
    return np.asarray(root * (0.5 + 0.5 * np.tanh(1.7 * (score + bias))).mean(0), np.float32)


def _saturate(amount: F32, thick: F32, target: float) -> F32:
    """Glandular share 1 - exp(-k amount), with k found so that its volume fraction is `target`."""
    inside = thick > 0
    values, weight = amount[inside], thick[inside] / thick[inside].sum()
    scale = 1.0
    for _ in range(8):
        filled = float((1 - np.exp(-scale * values)) @ weight)
        slope = float((values * np.exp(-scale * values)) @ weight)
        scale = max(scale + (target - filled) / max(slope, 1e-6), 0.2 * scale)  # Newton on a concave function
    return np.asarray(1 - np.exp(-np.float32(scale) * amount), np.float32)
