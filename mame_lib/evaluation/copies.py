"""Looking for copies of an image that may have been turned, moved, mirrored, made brighter, or blurred: `search`.

Images are compared in two forms. *pixel*: gray levels at 32 pixels a side, less their mean. *detail*: what a band-pass
filter leaves of the breast at 64 pixels a side, each place divided by the contrast around it; outline and density are
gone, the tissue's pattern stays. Either becomes a vector of length 1, so that gain and offset do not matter. Two
vectors are d = sqrt(2 - 2 r) apart, r their correlation: 0 for a copy, sqrt(2) for strangers.

The search is in three stages: all images roughly, at few positions; the best of them at many; the best few around
their best position. A mirrored or shifted copy is then found as surely as a plain one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from mame_lib.data.masks import breast_mask
from mame_lib.errors import InputError

Gray = NDArray[np.uint8]
F32 = NDArray[np.float32]

FORMS = ("pixel", "detail")
SIDE = 64  # of the detail; the pixel form has half of it
FLIPS = ("", "h", "v", "hv")
ANGLES = (-6.0, -4.5, -3.0, -1.5, 0.0, 1.5, 3.0, 4.5, 6.0)  # degrees
CANDIDATES = 64  # images of each query that are looked at closely, half of them by each form
POLISHED = 3  # of them, by each form, that are looked at more closely still

_BAND = (1.0, 3.5)  # sd of the two Gaussians of the band-pass, pixels of 64
_ROUGH_BAND = (1.5, 4.0)  # of the first stage: coarser, so that few positions suffice
_REACH = 2  # pixels of 64 by which an image is shifted at most: 1/32 of the side, 4 pixels of 128
_FLOOR = 0.02  # of the breast's mean gray level: contrast below this is not blown up
_BATCH = 16  # images at once


@dataclass(frozen=True)
class Transform:
    """How an image is moved: first mirrored, then turned about its middle, then shifted.

    flip: "", "h" (left and right change places), "v", or "hv". angle: degrees, counterclockwise. dx, dy: shares of the
    side, to the right and down.
    """

    flip: str = ""
    angle: float = 0.0
    dx: float = 0.0
    dy: float = 0.0

    def apply(self, image: Gray) -> Gray:
        """A uint8 [n, n] image moved, bilinearly; what comes in over a border continues it."""
        if self == Transform():
            return image.copy()
        values = torch.from_numpy(np.ascontiguousarray(image)).float()[None, None]
        moved = _moved(values, _matrices([self]), len(image), "border")[0, 0]
        return np.asarray(moved.round().clamp(0, 255).byte())

    def __str__(self) -> str:
        names = {"h": "mirrored", "v": "upside down", "hv": "turned around"}
        parts = [names[self.flip]] if self.flip else []
        parts += [f"{self.angle:+.1f} degrees"] if self.angle else []
        parts += [f"shifted by {100 * self.dx:+.1f}, {100 * self.dy:+.1f} %"] if self.dx or self.dy else []
        return ", ".join(parts) or "as it is"


@dataclass(frozen=True)
class Prepared:
    """Images in their forms: rough [N, 32, 32] and detail [N, 64, 64], zero outside the breast, pixel [N, 32, 32]."""

    pixel: Tensor
    detail: Tensor
    rough: Tensor

    def __len__(self) -> int:
        return len(self.pixel)

    def __getitem__(self, rows: Any) -> Prepared:
        return Prepared(self.pixel[rows], self.detail[rows], self.rough[rows])

    @classmethod
    def joined(cls, parts: Sequence[Prepared]) -> Prepared:
        """Parts one after another."""
        return cls(*(torch.cat([getattr(part, name) for part in parts]) for name in ("pixel", "detail", "rough")))


@dataclass(frozen=True)
class Found:
    """The candidates of N queries in one form, nearest first: index [N, C] among the searched images, distance [N, C]
    0..2 (inf where there was none), and by which `transform` the query comes to lie on its nearest one, [N]."""

    index: NDArray[np.int64]
    distance: NDArray[np.float64]
    transform: tuple[Transform, ...]


def prepare(images: Gray | Sequence[Gray]) -> Prepared:
    """Images uint8 [N, n, n], n at least 64, in the forms in which they are compared; about 2 ms an image.

    Raises
    ------
    InputError
        If they are not 8-bit gray squares of one size, 64 pixels a side or more.
    """
    stack = np.asarray(images)
    if stack.ndim != 3 or stack.dtype != np.uint8 or stack.shape[1] != stack.shape[2] or stack.shape[1] < SIDE:
        raise InputError(
            f"copies are looked for among 8-bit gray squares of one size, [N, n, n] with n at least {SIDE}, not "
            f"{stack.dtype} {list(stack.shape)}."
        )
    parts = [_forms(stack[k : k + _BATCH]) for k in range(0, len(stack), _BATCH)]
    if not parts:
        raise InputError("there is no image to look for copies of; give one or more.")
    return Prepared(*(torch.cat(some) for some in zip(*parts, strict=True)))


def _forms(images: Gray) -> tuple[Tensor, Tensor, Tensor]:
    gray = F.adaptive_avg_pool2d(torch.from_numpy(np.ascontiguousarray(images)).float()[:, None], SIDE)[:, 0]
    small = gray.round().byte().numpy()
    breast = torch.from_numpy(np.stack([breast_mask(one) for one in small])).float()  # [B, 64, 64]
    level = (gray * breast).sum((1, 2)) / breast.sum((1, 2)).clamp_min(1)
    floor = (_FLOOR * level).clamp_min(0.1)[:, None, None]
    detail, rough = (_detail(gray, breast, floor, band) for band in (_BAND, _ROUGH_BAND))
    gray = gray - gray.mean((1, 2), keepdim=True)  # small numbers lose less in squares
    return F.avg_pool2d(gray[:, None], 2)[:, 0], detail, F.avg_pool2d(rough[:, None], 2)[:, 0]


def _detail(gray: Tensor, breast: Tensor, floor: Tensor, band: tuple[float, float]) -> Tensor:
    """Band-pass within the breast [B, 64, 64], divided by its own spread around each place; zero outside."""
    fine, wide = ((_smooth(gray * breast, s) / _smooth(breast, s).clamp_min(1e-3)) for s in band)
    difference = (fine - wide) * breast
    spread = (_smooth(difference**2, band[1]) / _smooth(breast, band[1]).clamp_min(1e-3)).sqrt()
    flat = difference / (spread + floor)
    return (flat - (flat.sum((1, 2)) / breast.sum((1, 2)).clamp_min(1))[:, None, None]) * breast


def _smooth(images: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of [B, h, w], zeros beyond the borders."""
    reach = round(3 * sigma)
    taps = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma) ** 2)
    taps = taps / taps.sum()
    rows = F.conv2d(images[:, None], taps[None, None, :, None], padding=(reach, 0))
    return F.conv2d(rows, taps[None, None, None, :], padding=(0, reach))[:, 0]


def search(
    queries: Prepared, among: Prepared, *, groups: tuple[Sequence[Any], Sequence[Any]] | None = None,
    flips: Sequence[str] = FLIPS, candidates: int = CANDIDATES,
) -> dict[str, Found]:
    """The most similar of M images to each of N queries, in either form of `FORMS`, wherever they lie.

    groups: a name (patient) of each query and of each image; images of the query's own group are left out. flips: of
    `FLIPS`, those that are tried. candidates: images that the second stage looks at. The cost of a query, 4 flips, one
    thread, is in benchmarks/results/memorization.json.

    Raises
    ------
    InputError
        If there are fewer than 2 images, or groups are not as many as images.
    """
    if len(among) < 2:
        raise InputError(f"a nearest and a second nearest image need 2 images or more, not {len(among)}.")
    barred = _barred(groups, len(queries), len(among))
    most = min(candidates, len(among))
    rough = _Rough(among, flips)
    rows: dict[str, list[Any]] = {form: [] for form in FORMS}
    for k in range(len(queries)):
        query = queries[k]
        bars = None if barred is None else torch.from_numpy(barred[k])  # [M]
        chosen = rough.best(query, most, bars)  # [C]
        for form in FORMS:
            found = _closely(getattr(query, form), getattr(among, form)[chosen], form, tuple(flips), bars, chosen)
            rows[form].append(found)
    return {form: _table(found) for form, found in rows.items()}


def _table(found: Sequence[tuple[NDArray[np.int64], NDArray[np.float64], Transform]]) -> Found:
    index, distance, transform = zip(*found, strict=True)
    return Found(np.stack(index), np.stack(distance), tuple(transform))


def _barred(groups: Any, queries: int, images: int) -> NDArray[np.bool_] | None:
    """Pairs [N, M] that are left out."""
    if groups is None:
        return None
    mine, theirs = (np.asarray([str(name) for name in names]) for names in groups)
    if (len(mine), len(theirs)) != (queries, images):
        sizes = f"{queries} queries and {images} images, not {len(mine)} and {len(theirs)}"
        raise InputError(f"give one group an image: {sizes}.")
    return np.asarray(mine[:, None] == theirs[None])


class _Rough:
    """The first stage: all images, at a few positions."""

    def __init__(self, among: Prepared, flips: Sequence[str]) -> None:
        self.detail = _unit(among.rough.flatten(1))  # [M, 1024]
        self.pixel = _unit(F.avg_pool2d(among.pixel[:, None], 2).flatten(1))  # [M, 256]
        self.turns = _matrices([Transform(flip, angle) for flip in flips for angle in ANGLES[::2]])

    def best(self, query: Prepared, most: int, barred: Tensor | None) -> Tensor:
        """Indexes [C] of the `most` images that are most similar, half of them in each form."""
        detail = _correlations(_windows(query.rough, self.turns, 1, "zeros"), self.detail)  # [positions, M]
        small = F.avg_pool2d(query.pixel[None], 2)[0]
        pixel = _correlations(_windows(small, self.turns, 0, "border"), self.pixel)
        by_detail, by_pixel = detail.max(0).values, pixel.max(0).values
        for scores in (by_detail, by_pixel):
            if barred is not None:
                scores[barred] = -2.0
        first = by_detail.topk((most + 1) // 2).indices
        by_pixel[first] = -3.0
        return torch.cat([first, by_pixel.topk(most - len(first)).indices])


def _closely(
    query: Tensor, images: Tensor, form: str, flips: tuple[str, ...], barred: Tensor | None, chosen: Tensor
) -> tuple[NDArray[np.int64], NDArray[np.float64], Transform]:
    """Second and third stage: the candidates, `images` [C, n, n] of number `chosen` [C], in order, their distances, and
    how the query lies on the nearest."""
    turns, matrices = _turns(flips)
    padding = "zeros" if form == "detail" else "border"
    reach = _REACH * images.shape[-1] // SIDE
    vectors = _unit(images.flatten(1))
    similar = _correlations(_windows(query, matrices, reach, padding), vectors)  # [positions, C]
    best, where = similar.max(0)
    if barred is not None:
        best[barred[chosen]] = -torch.inf
    moved = [_position(turns, int(at), reach, images.shape[-1]) for at in where]
    for k in best.topk(min(POLISHED, len(best))).indices.tolist():
        if best[k] == -torch.inf:
            continue
        best[k], moved[k] = _polished(query, vectors[k], moved[k], padding, float(best[k]))
    order = best.argsort(descending=True, stable=True)
    distance = (2 - 2 * best[order].double()).clamp_min(0).sqrt()
    return chosen[order].numpy(), distance.numpy(), moved[int(order[0])]


def _polished(query: Tensor, vector: Tensor, start: Transform, padding: str, before: float) -> tuple[float, Transform]:
    """The best position around `start`, half a pixel and three quarters of a degree away, and its correlation."""
    step = 0.5 / query.shape[-1]
    near = [
        Transform(start.flip, start.angle + turn, start.dx + x * step, start.dy + y * step)
        for turn in (-0.75, 0.0, 0.75) for x in (-1, 0, 1) for y in (-1, 0, 1)
    ]  # fmt: skip
    moved = _moved(query.expand(len(near), 1, -1, -1), _matrices(near), query.shape[-1], padding)
    similar = _correlations(moved.flatten(1), vector[None])[:, 0]
    k = int(similar.argmax())
    return (float(similar[k]), near[k]) if similar[k] > before else (before, start)


@lru_cache(maxsize=8)
def _turns(flips: tuple[str, ...]) -> tuple[list[Transform], Tensor]:
    turns = [Transform(flip, angle) for flip in flips for angle in ANGLES]
    return turns, _matrices(turns)


def _position(turns: Sequence[Transform], at: int, reach: int, side: int) -> Transform:
    """The transform of row `at` of `_windows`."""
    width = 2 * reach + 1
    turn, (y, x) = turns[at // width**2], divmod(at % width**2, width)
    return Transform(turn.flip, turn.angle, (reach - x) / side, (reach - y) / side)


def _windows(image: Tensor, matrices: Tensor, reach: int, padding: str) -> Tensor:
    """An image [n, n] turned in T ways and shifted by -reach..reach pixels in x and y: [T * (2 reach + 1)^2, n * n]."""
    side = image.shape[-1]
    wide = _moved(image.expand(len(matrices), 1, -1, -1), matrices, side + 2 * reach, padding)[:, 0]
    return wide.unfold(1, side, 1).unfold(2, side, 1).reshape(-1, side * side)


def _moved(images: Tensor, matrices: Tensor, out: int, padding: str) -> Tensor:
    """Images [T, 1, n, n], each by its own matrix [2, 3], drawn on [T, 1, out, out] with the same middle and scale."""
    side = images.shape[-1]
    at = (torch.arange(out) - (out - 1) / 2) * 2 / side  # pixel middles, in half sides
    y, x = torch.meshgrid(at, at, indexing="ij")
    points = torch.stack([x, y, torch.ones_like(x)], -1)  # [out, out, 3]
    grid = torch.einsum("hwk,tik->thwi", points, matrices)
    return F.grid_sample(images, grid, padding_mode=padding, align_corners=False)


def _matrices(transforms: Sequence[Transform]) -> Tensor:
    """From places in the moved image to those in the original, [T, 2, 3], in half sides from the middle."""
    numbers = np.array([(np.deg2rad(one.angle), 2 * one.dx, 2 * one.dy) for one in transforms])  # [T, 3]
    signs = np.array([(-1.0 if "h" in one.flip else 1.0, -1.0 if "v" in one.flip else 1.0) for one in transforms])
    cos, sin = np.cos(numbers[:, 0]), np.sin(numbers[:, 0])
    turned = np.stack([cos, -sin, sin, cos], 1).reshape(-1, 2, 2)  # y points down, so this is back
    linear = signs[:, :, None] * turned  # [T, 2, 2]
    return torch.from_numpy(np.concatenate([linear, -linear @ numbers[:, 1:, None]], 2)).float()


def _correlations(rows: Tensor, vectors: Tensor) -> Tensor:
    """Of rows [P, d], as they are, and vectors [C, d] of mean 0 and length 1: [P, C]."""
    squares = torch.linalg.vector_norm(rows, dim=1) ** 2 - rows.shape[1] * rows.mean(1) ** 2
    return (rows @ vectors.T) / squares.clamp_min(1e-12).sqrt()[:, None].clamp_min(1e-6)


def _unit(rows: Tensor) -> Tensor:
    """Rows [N, d] less their means, of length 1; flat ones become 0."""
    rows = rows - rows.mean(1, keepdim=True)
    return rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-6)
