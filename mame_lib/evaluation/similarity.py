"""How alike two images are: PSNR, SSIM and MS-SSIM, of the whole image or of the breast alone.

Images are gray, `[n, m]` or `[N, n, m]`, arrays or tensors of any real type, on a scale `data_range` wide (255 for
8 bits). The range is never read off the images: a score would then change with the brightest pixel of a pair.
A mammogram is mostly black, and black equals black. So every measure takes a mask of the pixels that count.

`pairwise_ms_ssim` compares all pairs of a set; `mame_lib.evaluation.diversity` makes one number of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from mame_lib.errors import InputError

SIGMA, TAPS = 1.5, 11  # Gaussian window of SSIM, in pixels
K1, K2 = 0.01, 0.03  # keep its quotients away from 0 / 0
WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of the scales of MS-SSIM, fine to coarse (Wang et al. 2003)
BLOCK = 2**18  # pixels whose maps are computed at once: bounds the memory, whatever the number of images or pairs
_RIM = TAPS // 2


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
    if min(first.shape[1:]) <= _RIM:
        raise InputError(f"SSIM needs images of at least {_RIM + 1} pixels a side, not {tuple(first.shape[1:])}.")
    block = max(1, BLOCK // first[0].numel())  # images at a time
    blocks = zip(first.split(block), second.split(block), strict=True)
    maps = [_map(_windows(_reflected(a)), _windows(_reflected(b)), data_range) for a, b in blocks]
    return torch.cat(maps).reshape(torch.as_tensor(images).shape)


def ms_ssim(
    images: Any, others: Any, *, mask: Any = None, data_range: float = 255.0, levels: int | None = None
) -> Tensor:
    """Multi-scale structural similarity (Wang, Simoncelli and Bovik 2003), float64 [N], 0..1, 1 for equal images.

    A product over `levels`, each half the size of the one before (means of 2 x 2 pixels): mean structure, to the
    power of the level's weight in `WEIGHTS`; mean SSIM at the last. Negative means count as 0. As torchmetrics
    defines it: at all levels but the last, windows that reach over the border are left out. `levels=None` takes
    `levels_for` the smaller side; of less than five the weights are divided by their sum.

    mask: bool, the shape of the images: the pixels over which the maps are averaged, for two breasts the union of
    their masks. A pixel of a smaller level counts if one of its four does. Windows that reach over the border
    stay left out, so that a mask of everything changes nothing.

    Raises
    ------
    InputError
        As `psnr`; if the images are too small for the levels, or a mask has no pixel far enough from the border.
    """
    first, second = _pair(images, others)
    levels = _checked(levels, first)
    inside = _masks(mask, first)
    block = max(1, BLOCK // first[0].numel())  # pairs at a time
    scores = []
    for start in range(0, len(first), block):
        some = slice(start, start + block)
        within = None if inside is None else inside[some]
        sides = (_pyramid(x[some], within, levels) for x in (first, second))
        scores.append(_product(*sides, data_range))
    return torch.cat(scores)


def pairwise_ms_ssim(
    images: Any, *, masks: Any = None, data_range: float = 255.0, pairs: Sequence[tuple[int, int]] | None = None
) -> Tensor:
    """`ms_ssim` of all pairs of the images [N, n, m]: float64 [N, N], symmetric, with ones on its diagonal.

    masks: bool [N, n, m], the breast of each image; a pair is then averaged over the union of its two. pairs: indexes
    (i, j) of the pairs that are wanted, P of them: their scores alone, float64 [P].

    Means and variances of an image's windows are computed once and kept, in float32: 21 bytes a pixel of all images.
    A pair then costs one smoothing of its product. Beyond that, the memory doesn't grow with the number of pairs.

    Raises
    ------
    InputError
        As `ms_ssim`, and if there are no two images or an index is out of range.
    """
    stack, _ = _pair(images, images)
    count = len(stack)
    if torch.as_tensor(images).ndim != 3 or count < 2:
        raise InputError("pairs need a stack of at least two images, [N, n, m].")
    wanted = torch.as_tensor(torch.combinations(torch.arange(count)) if pairs is None else pairs).long()  # [P, 2]
    if wanted.ndim != 2 or wanted.shape[1] != 2 or wanted.min() < 0 or wanted.max() >= count:
        raise InputError(f"pairs are indexes (i, j) of {count} images, 0 to {count - 1}.")
    pyramid = _pyramid(stack.float(), _masks(masks, stack), _checked(None, stack))
    scores = torch.empty(len(wanted), dtype=torch.float64)
    for rows, i, j in _runs(wanted, max(1, BLOCK // stack[0].numel())):
        scores[rows] = _product([w.of(i) for w in pyramid], [w.of(j) for w in pyramid], data_range).double()
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


class _Windows(NamedTuple):
    """A stack of images as SSIM sees it: pixels [N, n + 10, m + 10], mean and variance of each window [N, n, m].

    mask: bool [N, n, m], the windows that count, or None for all.
    """

    pixels: Tensor
    mean: Tensor
    variance: Tensor
    mask: Tensor | None

    def of(self, images: slice | Tensor) -> _Windows:
        """The same for some of the images."""
        return _Windows(*(None if values is None else values[images] for values in self))  # type: ignore[arg-type]


def _windows(pixels: Tensor, mask: Tensor | None = None) -> _Windows:
    mean = _smooth(pixels)
    return _Windows(pixels, mean, (_smooth(pixels**2) - mean**2).clamp(min=0), mask)


def _map(first: _Windows, second: _Windows, data_range: float, *, structure_only: bool = False) -> Tensor:
    """SSIM of each window of two stacks, [N, n, m], or its second factor alone: contrast and structure."""
    c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
    means = first.mean * second.mean
    covariance = _smooth(first.pixels * second.pixels) - means
    structure = (2 * covariance + c2) / (first.variance + second.variance + c2)
    if structure_only:
        return structure
    luminance = (2 * means + c1) / (first.mean**2 + second.mean**2 + c1)
    return luminance * structure


def _product(first: list[_Windows], second: list[_Windows], data_range: float) -> Tensor:
    """MS-SSIM of two pyramids, [N]."""
    levels = len(first)
    weights = WEIGHTS if levels == len(WEIGHTS) else [w / sum(WEIGHTS[:levels]) for w in WEIGHTS[:levels]]
    score = torch.ones(1)
    for level, (a, b, weight) in enumerate(zip(first, second, weights, strict=True)):
        values = _map(a, b, data_range, structure_only=level < levels - 1)
        inside = None if a.mask is None or b.mask is None else a.mask | b.mask
        if inside is not None and not inside.flatten(1).any(1).all():
            raise InputError(
                f"the mask of a pair has no pixel at least {_RIM * 2**level} pixels from the border; leave it out."
            )
        score = score * mean_within(values, inside).relu() ** weight
    return score


def _pyramid(images: Tensor, masks: Tensor | None, levels: int) -> list[_Windows]:
    """The windows of images [N, n, m] at each level: inside the border, and at the last level over it."""
    found = []
    for _ in range(levels - 1):
        within = None if masks is None else masks[:, _RIM:-_RIM, _RIM:-_RIM]
        found.append(_windows(images, within))
        images = F.avg_pool2d(images, 2)
        masks = None if masks is None else F.max_pool2d(masks.float(), 2).bool()
    return [*found, _windows(_reflected(images), masks)]


def _runs(pairs: Tensor, most: int) -> Iterator[tuple[slice, Tensor | slice, Tensor | slice]]:
    """Consecutive pairs [P, 2], `most` at a time: their rows, and the images on each side.

    Pairs (i, j), (i, j + 1) … of one image are given as slices, which copy nothing.
    """
    steps = pairs[1:] - pairs[:-1]
    breaks = (steps != torch.tensor([0, 1])).any(1).nonzero().flatten() + 1
    for start, stop in zip([0, *breaks.tolist()], [*breaks.tolist(), len(pairs)], strict=True):
        for begin in range(start, stop, most):
            rows = slice(begin, min(begin + most, stop))
            (i, j), count = pairs[begin].tolist(), rows.stop - begin
            yield rows, slice(i, i + 1), slice(j, j + count)


def _smooth(pixels: Tensor) -> Tensor:
    """Mean under the Gaussian window around each pixel but the outermost 5, [N, n + 10, m + 10] to [N, n, m].

    The window is a product of two, so rows and then columns do; both are symmetric, and sums of shifted images are
    several times faster than a convolution with one channel.
    """
    taps = torch.arange(TAPS, dtype=torch.float64) - _RIM
    window = torch.exp(-((taps / SIGMA) ** 2) / 2)
    weights = (window / window.sum()).tolist()
    for axis in (1, 2):
        size = pixels.shape[axis] - 2 * _RIM
        total = pixels.narrow(axis, _RIM, size) * weights[_RIM]
        for tap in (*range(_RIM), *range(_RIM + 1, TAPS)):
            total.add_(pixels.narrow(axis, tap, size), alpha=weights[tap])
        pixels = total
    return pixels


def _reflected(images: Tensor) -> Tensor:
    """Images [N, n, m] with 5 pixels more at each border, reflected."""
    return F.pad(images[:, None], (_RIM,) * 4, mode="reflect")[:, 0]


def _checked(levels: int | None, images: Tensor) -> int:
    """The number of levels; InputError if the images [N, n, m] are too small for it."""
    side = min(images.shape[1:])
    most = levels_for(side)
    levels = most if levels is None else levels
    if not 1 <= levels <= most:
        needed = f"{TAPS * 2 ** (levels - 1)} pixels a side for {levels} levels" if 1 <= levels <= 5 else "1 to 5 levels"
        raise InputError(f"MS-SSIM needs at least {TAPS} pixels a side for 1 level.")
    return levels


def _masks(mask: Any, images: Tensor) -> Tensor | None:
    """Masks as bool [N, n, m], the shape of the images, or None if there are none."""
    if mask is None:
        return None
    inside = torch.as_tensor(mask).cpu()
    inside = inside[None] if inside.ndim == 2 else inside
    if inside.dtype != torch.bool or inside.shape != images.shape:
        raise InputError("a mask is bool and has the shape of the images.")
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
    if mask is None:
        return values.mean((1, 2))
    inside = torch.as_tensor(mask).cpu()
    inside = inside[None] if inside.ndim == 2 else inside
    if inside.dtype != torch.bool or inside.shape != values.shape or not inside.flatten(1).any(1).all():
        raise InputError("a mask is bool, has the shape of the images, and at least one pixel of each.")
    return (values * inside).sum((1, 2)) / inside.sum((1, 2))
