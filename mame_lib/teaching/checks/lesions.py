"""Checks of chapter 11, lesions. Truth is counted cell by cell and place by place, or known because it was put in."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mame_lib.teaching.checks import Hint, exercise, number


@exercise("11-cells")
def cells(answer: Any) -> None:
    rng = np.random.default_rng(0)
    mixed = np.zeros((32, 32), bool)  # a whole cell, most of one but its first pixel, a speck, a first pixel
    mixed[:8, 8:16] = mixed[17:24, 24:32] = mixed[13, 22] = mixed[24, 0] = True
    cases = [(mixed, 8), (rng.random((24, 24)) < 0.02, 4), (np.zeros((16, 16), bool), 8), (np.ones((8, 8), bool), 2)]
    for mask, f in cases:
        n = len(mask) // f
        result = np.asarray(answer(mask.copy(), f))
        if result.shape != (n, n):
            if result.shape == mask.shape:
                raise Hint(f"this is still as large as the image; a cell is one value of [{n}, {n}].")
            raise Hint(f"a mask of {len(mask)} pixels a side has {n} x {n} cells of {f} pixels, not {result.shape}.")
        blocks = {(i, j): mask[i * f : i * f + f, j * f : j * f + f] for i in range(n) for j in range(n)}
        true = np.array([[blocks[i, j].any() for j in range(n)] for i in range(n)])
        if result.dtype == bool and np.array_equal(result, true):
            continue
        if np.array_equal(result, mask[::f, ::f]):
            raise Hint("this is the nearest rule: one pixel speaks for its cell, and what lies between is lost.")
        if np.array_equal(result > 0, true):
            raise Hint("the right cells are found, but the answer must be boolean: True or False, not a number.")
        if np.array_equal(result, [[blocks[i, j].all() for j in range(n)] for i in range(n)]):
            raise Hint("you keep the cells that are masked as a whole; one pixel must be enough.")
        if np.array_equal(result, [[blocks[i, j].mean() >= 0.5 for j in range(n)] for i in range(n)]):
            raise Hint("a majority of pixels is too much to ask of a small lesion; one pixel must be enough.")
        if np.array_equal(result, true.T):
            raise Hint("rows and columns have changed places: cell [i, j] lies i cells down and j across.")
        if np.array_equal(result, mask.reshape(n, n, f, f).any((2, 3))):
            raise Hint("the axes are mixed up: a row of the image is (cell, pixel of the cell), in turn.")
        raise Hint("some cells are wrong: a cell is masked if any pixel of its f x f block is.")


@exercise("11-lost")
def lost(answer: Any) -> None:
    for w, h, f in ((6, 7, 8), (3, 3, 8), (2, 12, 8), (4, 20, 8), (12, 9, 8), (1, 1, 4)):
        places = [(x, y) for x in range(f) for y in range(f)]
        seen = [any(p % f == 0 for p in range(x, x + w)) * any(p % f == 0 for p in range(y, y + h)) for x, y in places]
        true = 1 - sum(seen) / len(seen)
        value = number(answer(w, h, f))
        if math.isclose(value, true, abs_tol=1e-9):
            continue
        if math.isclose(value, 1 - true, abs_tol=1e-9):
            raise Hint("this is the chance that the box is found; the exercise asks for the chance that it is lost.")
        if math.isclose(value, 1 - w * h / f**2, abs_tol=1e-9) or value < 0:
            raise Hint(f"a side of {max(w, h)} pixels is found for sure: cut each factor at 1, not the product.")
        if math.isclose(value, max(0, 1 - w / f) * max(0, 1 - h / f), abs_tol=1e-9):
            raise Hint("it is enough that one axis misses: multiply the chances to be found, not those to be missed.")
        raise Hint(f"a box of {w} x {h} on cells of {f} is lost in {true:.1%} of all places, not {value:.1%}.")


@exercise("11-widen")
def widen(answer: Any) -> None:
    g = torch.Generator().manual_seed(0)
    for channels, extra in ((6, 5), (3, 2)):
        weight, x = torch.randn(channels, 4, 3, 3, generator=g), torch.randn(2, 4 + extra, 7, 7, generator=g)
        result = answer(weight.clone(), extra)
        if not isinstance(result, Tensor) or result.shape != (channels, 4 + extra, 3, 3):
            raise Hint(f"return a tensor of shape [{channels}, {4 + extra}, 3, 3]: kernels, inputs, rows, columns.")
        before = F.conv2d(x[:, :4], weight)
        if torch.allclose(F.conv2d(x, result), before, atol=1e-5):
            continue
        if torch.allclose(F.conv2d(torch.cat([x[:, 4:], x[:, :4]], 1), result), before, atol=1e-5):
            raise Hint("the new channels come last: the first four inputs are the noisy latents, as before.")
        if not bool(result[:, 4:].any()):
            raise Hint("the new weights are zero, as they should be, but the old ones have changed; keep them.")
        if torch.equal(result[:, :4], weight):
            raise Hint("with these new weights the output depends on what is in the new channels: they must be zero.")
        raise Hint("the widened convolution says something else than the old one; look at weight[:, :4].")


@exercise("11-loss")
def loss(answer: Any) -> None:
    g = torch.Generator().manual_seed(1)
    errors = torch.rand(3, 4, 5, 6, generator=g)
    mask = torch.zeros(3, 1, 5, 6)
    mask[0, :, 1:3, 2:5] = 1
    mask[1, :, 4, 0] = 1
    for inside in (1.0, 20.0):
        result = answer(errors.clone(), mask.clone(), inside)
        if not isinstance(result, Tensor) or result.shape != (3,):
            raise Hint("return one loss for each image, a tensor [B]; the batch is not averaged.")
        true = torch.tensor([_mean_with_weights(errors[k], mask[k, 0], inside) for k in range(3)])
        if torch.allclose(result, true, atol=1e-6):
            continue
        if torch.allclose(result, 4 * true, atol=1e-5):
            raise Hint("four times too large: each cell has four channels, of which the error takes the mean.")
        counts = 1 + (inside - 1) * mask
        if torch.allclose(result, (counts * errors).mean((1, 2, 3)), atol=1e-5):
            raise Hint("divide by the sum of the weights, not by the number of cells, or large masks cost more.")
        if torch.allclose(result * counts.sum() / 3, true * counts.sum((1, 2, 3)), rtol=1e-4):
            raise Hint("the sum of the weights is that of each image, not of the whole batch.")
        if torch.allclose(result, (inside * mask * errors).mean((1, 2, 3)), atol=1e-5) or not bool(result[2]):
            raise Hint("outside the mask an error counts once, not nothing: an image without a mask has a loss, too.")
        extra, cells = 1 + inside * mask, errors.mean(1, keepdim=True)
        if torch.allclose(result, (extra * cells).sum((1, 2, 3)) / extra.sum((1, 2, 3)), atol=1e-5):
            raise Hint("inside, an error counts `inside` times, not `inside` + 1 times; at 1 all must count alike.")
        raise Hint(f"for inside = {inside:g} the first loss should be {true[0]:.4f}: a weighted mean of cells.")


def _mean_with_weights(errors: Tensor, mask: Tensor, inside: float) -> float:
    """The loss of one image, cell by cell."""
    above = below = 0.0
    for i in range(mask.shape[0]):
        for j in range(mask.shape[1]):
            count = inside if mask[i, j] else 1.0
            above += count * float(errors[:, i, j].mean())
            below += count
    return above / below


@exercise("11-belief")
def belief(answer: Any) -> None:
    g = torch.Generator().manual_seed(2)
    for share in (0.75, 0.0, 1.0, 0.3):
        lesion, healthy, away = torch.randn(3, 2, 4, 6, 6, generator=g, dtype=torch.float64)
        d = lesion - healthy
        away = 0.3 * (away - (away * d).sum() / (d * d).sum() * d)  # across the line: it must not matter
        free = share * lesion + (1 - share) * healthy + away
        value = number(answer(lesion.clone(), healthy.clone(), free.clone()))
        if math.isclose(value, share, abs_tol=1e-6):
            continue
        if math.isclose(value, 1 - share, abs_tol=1e-6):
            raise Hint("this is the belief in healthy tissue: what guidance has left to say is 1 - P.")
        if math.isclose(value, 1 - float((lesion - free).norm() / d.norm()), abs_tol=1e-6):
            raise Hint("a ratio of lengths counts what lies across the line, too; project on d instead.")
        each = 1 - ((lesion - free) * d).sum((1, 2, 3)) / (d * d).sum((1, 2, 3))
        if math.isclose(value, float(each.mean()), abs_tol=1e-6):
            raise Hint("a mean of ratios lets the shortest arrows speak loudest: sum over everything, then divide.")
        if math.isclose(value, 1 - float(((lesion - free) * d).sum() / d.norm()), abs_tol=1e-6):
            raise Hint("divide by the squared length of d, not by its length: a belief has no units.")
        raise Hint(f"free lies at a share {share:g} of the way from healthy to lesion, and you found {value:.3f}.")


@exercise("11-paste")
def paste(answer: Any) -> None:
    rng = np.random.default_rng(3)
    for dtype, top in ((np.uint8, 255), (np.uint16, 65535)):
        image: Any = rng.integers(0, top + 1, (12, 9)).astype(dtype)
        change = rng.normal(0, top, image.shape)
        change[5, 5], image[5, 5] = 0.75, 100  # 100.75 is nearer to 101
        mask = np.zeros(image.shape, bool)
        mask[3:9, 2:8] = True
        weight = np.where(mask, rng.uniform(0.2, 1, image.shape), 0.5)
        weight[5, 5] = 1.0
        given = image.copy()
        result = answer(given, change.copy(), mask.copy(), weight.copy())
        if not np.array_equal(given, image):
            raise Hint("the picture that was handed in has changed; write into a copy.")
        if not isinstance(result, np.ndarray) or result.shape != image.shape:
            raise Hint("return an array of the shape of the picture.")
        if result.dtype != dtype:
            raise Hint(f"the picture is {np.dtype(dtype)} and yours is {result.dtype}: cast at the very end.")
        if not np.array_equal(result[~mask], image[~mask]):
            raise Hint("pixels outside the mask have changed; take them from the picture as they are.")
        wanted = np.array([min(max(round(float(v)), 0), top) for v in (image + weight * change)[mask]])
        gap = np.abs(result[mask].astype(int) - wanted)
        if not gap.any():
            continue
        if gap.max() > top // 4:
            if np.array_equal(result[mask], np.clip(np.rint((image + change)[mask]), 0, top).astype(dtype)):
                raise Hint("the weight is missing: the change comes in by `weight` times.")
            if np.array_equal(result[mask], np.clip(np.rint((weight * change)[mask]), 0, top).astype(dtype)):
                raise Hint("the change is added to the picture; it does not take its place.")
            raise Hint(f"some pixels are far off: clip to 0 … {top} before you cast, for an integer type starts over.")
        raise Hint("some pixels are one off: round to the nearest whole number, a cast alone cuts the fraction off.")
