"""How alike two images are: PSNR, SSIM and MS-SSIM, of the whole image or of the breast alone.

Images are gray, `[n, m]` or `[N, n, m]`, arrays or tensors of any real type, on a scale `data_range` wide (255 for
8 bits). The range is never read off the images: a score would then change with the brightest pixel of a pair.
A mammogram is mostly black, and black equals black. So every measure takes a mask of the pixels that count.

`pairwise_ms_ssim` compares all pairs of a set; `mame_lib.evaluation.diversity` makes one number of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mame_lib.errors import InputError
from mame_lib.evaluation.windows import RIM, TAPS, Windows, reflected, smooth, windows

K1, K2 = 0.01, 0.03  # keep its quotients away from 0 / 0
WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of the scales of MS-SSIM, fine to coarse (Wang et al. 2003)
BLOCK = 2**18  # pixels whose maps are computed at once: bounds the memory, whatever the number of images or pairs


def psnr(images: Any, others: Any, *, mask: Any = None, data_range: float = 255.0) -> Tensor:
    """Peak signal-to-noise ratio in dB, float64 [N]: 10 log10(data_range^2 / mean squared error); inf if equal.

    mask: bool, the shape of the images: the pixels over which the error is averaged.

    Raises
    ------
    InputError
        If the shapes differ or are not those of gray images, or a mask has no pixel.
    """
    first, second = _pair(images, others)
    return 10 * torch.log10(data_range**2 / mean_within((first - second) ** 2, mask))


def ssim(images: Any, others: Any, *, mask: Any = None, data_range: float = 255.0) -> Tensor:
    """Structural similarity (Wang et al. 2004), float64 [N], 1 for equal images: the mean of `ssim_map`.

    mask: bool, the shape of the images: the pixels over which the map is averaged.

    Raises
    ------
    InputError
        As `psnr`, and if a side has less than 6 pixels.
    """
    first, second = _pair(images, others)
    return mean_within(ssim_map(first, second, data_range=data_range), mask)


def ssim_map(images: Any, others: Any, *, data_range: float = 255.0) -> Tensor:
    """SSIM of the window around each pixel, float64, the shape of the images, -1..1.

    As torchmetrics defines it: a Gaussian window (sd 1.5, 11 taps), images reflected at their borders, population
    variances. InputError as `ssim`.
    """
    first, second = _pair(images, others)
    if min(first.shape[1:]) <= RIM:
        raise InputError(f"SSIM needs images of at least {RIM + 1} pixels a side, not {tuple(first.shape[1:])}.")
    block = max(1, BLOCK // first[0].numel())  # images at a time
    blocks = zip(first.split(block), second.split(block), strict=True)
    maps = [_map(windows(reflected(a)), windows(reflected(b)), data_range) for a, b in blocks]
    return torch.cat(maps).reshape(torch.as_tensor(images).shape)


def ms_ssim(
    images: Any, others: Any, *, mask: Any = None, data_range: float = 255.0, levels: int | None = None
) -> Tensor:
    """Multi-scale structural similarity (Wang, Simoncelli and Bovik 2003), float64 [N], 0..1, 1 for equal images.

    A product over `levels`, each half the size of the one before (means of 2 x 2 pixels): mean structure, to the
    power of the level's weight in `WEIGHTS`; mean SSIM at the last. Negative means count as 0: one level at which
    the images vary in opposite ways makes the score 0, as it happens between breasts. As torchmetrics defines it: at
    all levels but the last, windows that reach over the border are left out. `levels=None` takes `levels_for` the
    smaller side; of less than five the weights are divided by their sum.

    mask: bool, the shape of the images: the pixels over which the maps are averaged, for two breasts the union of
    their masks. A pixel of a smaller level counts if one of its four does. Windows that reach over the border
    stay left out, so that a mask of everything changes nothing. Windows at the skin still see the background: a
    wider one raises this score a little, and no more once it is wider than they reach.

    Raises
    ------
    InputError
        As `psnr`; if the images are too small for the levels, or a mask has no pixel far enough from the border.
    """
    first, second = _pair(images, others)
    levels = _level_count(levels, first)
    inside = _bool_masks(mask, first.shape)
    scores = []
    for rows in torch.arange(len(first)).split(max(1, BLOCK // first[0].numel())):
        within = None if inside is None else inside[rows]
        one, other = (_pyramid(stack[rows], within, levels) for stack in (first, second))
        scores.append(_product(one, other, data_range))
    return torch.cat(scores)


def pairwise_ms_ssim(
    images: Any, *, masks: Any = None, data_range: float = 255.0, pairs: Sequence[tuple[int, int]] | None = None
) -> Tensor:
    """`ms_ssim` of all pairs of the images [N, n, m]: float64 [N, N], symmetric, with ones on its diagonal.

    masks: bool [N, n, m], the breast of each image; a pair is then averaged over the union of its two. pairs: indexes
    (i, j) of the pairs that are wanted, P of them: their scores alone, float64 [P].

    Means and variances of an image's windows are computed once and kept, in float32: about 20 bytes a pixel of all
    images. A pair then costs one smoothing of its product. The memory for pairs doesn't grow with their number.

    Raises
    ------
    InputError
        As `ms_ssim`, and if there are no two images or an index is out of range.
    """
    stack = torch.as_tensor(images).detach().cpu().float()
    if stack.ndim != 3 or len(stack) < 2 or not stack.numel():
        raise InputError(f"pairs need a stack of at least two gray images, [N, n, m], not {tuple(stack.shape)}.")
    count = len(stack)
    wanted = torch.combinations(torch.arange(count)) if pairs is None else torch.as_tensor(pairs)  # [P, 2]
    if wanted.shape[1:] != (2,) or not wanted.numel() or wanted.min() < 0 or wanted.max() >= count:
        raise InputError(f"pairs are indexes (i, j) of {count} images, 0 to {count - 1}.")
    pyramid = _pyramid(stack, _bool_masks(masks, stack.shape), _level_count(None, stack))
    scores = torch.empty(len(wanted), dtype=torch.float64)
    for rows, i, j in _runs(wanted, max(1, BLOCK // stack[0].numel())):
        scores[rows] = _product([level[i] for level in pyramid], [level[j] for level in pyramid], data_range).double()
    if pairs is not None:
        return scores
    matrix = torch.eye(count, dtype=torch.float64)
    matrix[wanted[:, 0], wanted[:, 1]] = matrix[wanted[:, 1], wanted[:, 0]] = scores
    return matrix


def levels_for(side: int) -> int:
    """Levels of MS-SSIM at which a side of `side` pixels still holds its window of 11: 1 to 5, and 0 under 11 pixels.

    Five from 176 pixels on, four from 88, three from 44, two from 22.
    """
    return sum(side // 2**level >= TAPS for level in range(len(WEIGHTS)))


def _map(first: Windows, second: Windows, data_range: float, *, structure_only: bool = False) -> Tensor:
    """SSIM of each window of two stacks, [N, n, m], or its second factor alone: contrast and structure."""
    c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
    means = first.mean * second.mean
    covariance = smooth(first.pixels * second.pixels) - means
    structure = (2 * covariance + c2) / (first.variance + second.variance + c2)
    if structure_only:
        return structure
    luminance = (2 * means + c1) / (first.mean**2 + second.mean**2 + c1)
    return luminance * structure


def _product(first: list[Windows], second: list[Windows], data_range: float) -> Tensor:
    """MS-SSIM of two stacks, given their windows at each level: [N]."""
    levels = len(first)
    weights = WEIGHTS if levels == len(WEIGHTS) else [w / sum(WEIGHTS[:levels]) for w in WEIGHTS[:levels]]
    factors = []
    for level, (a, b) in enumerate(zip(first, second, strict=True), start=1):
        values = _map(a, b, data_range, structure_only=level < levels)
        inside = None if a.mask is None or b.mask is None else a.mask | b.mask
        if inside is not None and not inside.flatten(1).any(1).all():
            raise InputError(
                f"a mask, or the union of two, has no pixel left at level {level}: it is empty or within "
                f"{RIM * 2 ** (level - 1)} pixels of the border; leave such images out."
            )
        factors.append(mean_within(values, inside).relu() ** weights[level - 1])
    return torch.stack(factors).prod(0)


def _pyramid(images: Tensor, masks: Tensor | None, levels: int) -> list[Windows]:
    """The windows of images [N, n, m] at each level: inside the border, and at the last level over it."""
    found = []
    for _ in range(levels - 1):
        within = None if masks is None else masks[:, RIM:-RIM, RIM:-RIM]
        found.append(windows(images, within))
        images = F.avg_pool2d(images, 2)
        masks = None if masks is None else F.max_pool2d(masks.float(), 2).bool()
    return [*found, windows(reflected(images), masks)]


def _runs(pairs: Tensor, most: int) -> Iterator[tuple[slice, slice, slice]]:
    """The pairs [P, 2], at most `most` at a time: their rows, the image on one side, and those on the other.

    Pairs (i, j), (i, j + 1), … go together: a slice of the windows copies nothing.
    """
    breaks = ((pairs[1:] - pairs[:-1]) != torch.tensor([0, 1])).any(1).nonzero().flatten() + 1
    for run in torch.arange(len(pairs)).tensor_split(breaks):
        for rows in run.split(most):
            start, count = int(rows[0]), len(rows)
            i, j = pairs[start].tolist()
            yield slice(start, start + count), slice(i, i + 1), slice(j, j + count)


def _level_count(levels: int | None, images: Tensor) -> int:
    """The levels that were asked for, or as many as fit; InputError if the images [N, n, m] are too small."""
    shape = tuple(images.shape[1:])
    most = levels_for(min(shape))
    levels = max(1, most) if levels is None else levels
    if not 1 <= levels <= len(WEIGHTS):
        raise InputError(f"MS-SSIM has 1 to {len(WEIGHTS)} levels, not {levels}.")
    if levels > most:
        raise InputError(
            f"MS-SSIM of {levels} {'levels' if levels > 1 else 'level'} needs images of at least "
            f"{TAPS * 2 ** (levels - 1)} pixels a side, not {shape}."
        )
    return levels


def _bool_masks(mask: Any, shape: torch.Size) -> Tensor | None:
    """Masks as bool [N, n, m], or None if there are none."""
    if mask is None:
        return None
    inside = torch.as_tensor(mask).cpu()
    inside = inside[None] if inside.ndim == 2 else inside
    if inside.dtype != torch.bool or inside.shape != shape:
        raise InputError("a mask is bool, has the shape of the images, and at least one pixel of each.")
    return inside


def _pair(images: Any, others: Any) -> tuple[Tensor, Tensor]:
    """Both as float64 [N, n, m]: squares of 255 would cost float32 the variance of a flat window."""
    first, second = (torch.as_tensor(values).detach().cpu().double() for values in (images, others))
    if first.shape != second.shape or first.ndim not in (2, 3) or not first.numel():
        raise InputError(
            f"two gray images [n, m], or two stacks [N, n, m], of one shape are compared, not {tuple(first.shape)} "
            f"and {tuple(second.shape)}."
        )
    return (first[None], second[None]) if first.ndim == 2 else (first, second)


def mean_within(values: Tensor, mask: Any) -> Tensor:
    """Mean of each image's values `[N, n, m]`, over its mask if there is one: `[N]`.

    mask: bool, [N, n, m] (or [n, m] for one image), or None for all pixels.

    Raises
    ------
    InputError
        If the mask is of another type or shape, or has no pixel in some image.
    """
    inside = _bool_masks(mask, values.shape)
    if inside is None:
        return values.mean((1, 2))
    count = inside.sum((1, 2))  # [N]
    if not count.all():
        raise InputError("a mask is bool, has the shape of the images, and at least one pixel of each.")
    return (values * inside).sum((1, 2)) / count
