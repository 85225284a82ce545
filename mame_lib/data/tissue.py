"""Glandular tissue and strands of the phantom: what fills the breast between skin and muscle.

A solid power-law field, thresholded slice by slice, is the gland; cell walls and fibers drawn toward the nipple
give it strands. Its volume fraction is solved for, so it is known exactly.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from mame_lib.data import anatomy
from mame_lib.data.texture import F32, Stream, along, cell_distances, power_law_field, standardized

_SLICES = 10
# Meshes of strands: cells across the breast, stretch toward the nipple, weight.
_MESHES = ((4.2, 1.35, 1.0), (6.4, 1.5, 0.9), (10.0, 1.7, 0.6), (16.0, 1.7, 0.6), (26.0, 1.5, 0.5))


def grow(stream: Stream, shape: anatomy.Shape, thick: F32, target: float) -> tuple[F32, F32]:
    """Glandular share of the thickness [n, n], 0..1, with volume fraction `target`, and the strands in fat.

    thick: relative thickness [n, n]. The strands are a contrast [n, n] on the same scale as gland.
    """
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
    hair = power_law_field(stream, 54, size, 1.2, low=30.0, high=170.0)
    combed = along(coarse, angle, 0.06 * size, 9) + 0.6 * along(fine, across, 0.04 * size, 9)
    # the hair has unit variance at every size, but a small image shows only the low end of its band
    weight = np.float32(1.2 * min(1.0, size / 400))
    return standardized(combed + weight * along(hair, tangled, 0.014 * size, 9), shape.mask)


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
