"""How varied a set of images is: the mean MS-SSIM of its pairs, and how far that number can be trusted.

A set of n images has n (n - 1) / 2 pairs, but they share images: one odd image moves n - 1 of them at once. So what is
drawn again for an interval are the images. Low similarity is diversity only if the images are good: noise is diverse
too. Print it beside the same number of real images, or phantoms, of the same prompt.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, stdtrit

from mame_lib.errors import InputError
from mame_lib.evaluation.similarity import pairwise_ms_ssim

F64 = NDArray[np.float64]

PAPER_PAIRS = tuple((2 * k, 2 * k + 1) for k in range(20))  # 20 calls that draw two images each, in order
FEWEST = 4  # images for an interval


@dataclass(frozen=True)
class Diversity:
    """Mean similarity of all pairs of `images` images, and its 95 % interval from `low` to `high`; low is diverse."""

    mean: float
    low: float
    high: float
    images: int


def diversity(scores: Any, *, seed: int, draws: int = 2000) -> Diversity:
    """Mean over all pairs, with a 95 % bootstrap interval over images, of which there are at least 4.

    scores: similarities [N, N], symmetric (its diagonal is not used), as `pairwise_ms_ssim` makes them, or gray
    images [N, n, m] of 0..255, for plain `pairwise_ms_ssim`. draws: sets of N images drawn with replacement.

    A pair that consists of one image drawn twice is left out: its similarity of 1 says nothing about the set. The
    quantiles are those of the expanded percentile interval (Hesterberg, The American Statistician 2015): further out
    than 2.5 and 97.5 %, as a t distribution is wider than a normal, since the plain ones are too narrow for few
    images. In simulations (benchmarks/results/similarity.json) the interval holds the truth as often as it should
    from 6 images on, and too seldom with 4; drawing pairs instead holds it far too seldom.

    Raises
    ------
    InputError
        If the scores are of another shape, not symmetric or not finite, if there are too few images, or as
        `pairwise_ms_ssim`.
    """
    matrix = _matrix(scores)
    count = len(matrix)
    if count < FEWEST:
        raise InputError(f"an interval over images needs at least {FEWEST} of them, not {count}.")
    means = resampled_means(matrix, np.random.default_rng(seed), draws)
    tail = ndtr(stdtrit(count - 1, 0.025) * np.sqrt(count / (count - 1)))
    low, high = np.quantile(means, [tail, 1 - tail])
    return Diversity(float(matrix[np.triu_indices(count, 1)].mean()), float(low), float(high), count)


def resampled_means(matrix: F64, rng: np.random.Generator, draws: int) -> F64:
    """Mean similarity of each of `draws` sets of N images, drawn with replacement from the N of the matrix [N, N].

    Image i is drawn c_i times; the pair (i, j) then counts c_i c_j times, and (i, i) not at all. A set that is one
    image N times has no pair and no mean: it is left out, so that with few images there may be fewer means.
    """
    count = len(matrix)
    drawn = rng.multinomial(count, np.full(count, 1 / count), size=draws).astype(np.float64)  # [draws, N]
    between = np.where(np.eye(count, dtype=bool), 0, matrix)
    totals = ((drawn @ between) * drawn).sum(1)  # [draws]
    pairs = count**2 - (drawn**2).sum(1)
    return np.asarray(totals[pairs > 0] / pairs[pairs > 0])


def paper_protocol(scores: Any) -> tuple[float, float]:
    """Mean and standard deviation (divided by n, not n - 1) of 20 pairs that share no image, as in Table 3.

    scores: similarities [N, N] or gray images [N, n, m] of 0..255, as in `diversity`; of the first 40 images the
    first is compared with the second, the third with the fourth, … The standard deviation is that of single pairs:
    the error of the mean is smaller by a factor of about 4.4 (the root of 19).

    Raises
    ------
    InputError
        If there are less than 40 images, or as `diversity`.
    """
    count, needed = len(scores), 2 * len(PAPER_PAIRS)
    if count < needed:
        raise InputError(f"the paper's 20 pairs need {needed} images, not {count}.")
    if np.ndim(scores) == 3:
        values = np.asarray(pairwise_ms_ssim(scores[:needed], pairs=PAPER_PAIRS))
    else:
        values = _matrix(scores)[tuple(zip(*PAPER_PAIRS, strict=True))]
    return float(values.mean()), float(values.std())


def _matrix(scores: Any) -> F64:
    """Similarities as float64 [N, N], checked; computed if `scores` are images."""
    matrix = np.asarray(pairwise_ms_ssim(scores) if np.ndim(scores) == 3 else scores, np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not np.isfinite(matrix).all():
        raise InputError(f"scores are finite numbers [N, N], or images [N, n, m], not {matrix.shape}.")
    if not np.allclose(matrix, matrix.T):
        raise InputError("scores are symmetric: the pair (i, j) is the pair (j, i).")
    return matrix
