"""Distances of two sets of features: Fréchet (`frechet`, `frechet_extrapolated`) and kernel (`kernel_distance`).

`mame_lib.evaluation.fidelity` compares images with them, and says when each lies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

from mame_lib.errors import InputError

T = TypeVar("T")
F64 = NDArray[np.float64]
BLOCK = 2**21  # distances or products computed at once: 16 MB
GROUPS = 10  # of the jackknife


def frechet(real: ArrayLike, fake: ArrayLike, *, few: bool = False) -> float:
    """Fréchet distance of the Gaussians with the means and covariances of two sets: "FID" where d = 2048 of Inception.

    d² = |m1 - m2|² + tr(S1 + S2 - 2 (S1^½ S2 S1^½)^½), in units of squared features. The root is taken of a
    symmetric matrix, so that it is real whatever the rank (Heusel et al., NeurIPS 2017, wrote it as (S1 S2)^½, of
    which it is the trace alike). Covariances divide by n - 1.

    few: allow sets of d images or less, whose covariances say nothing of some directions.

    Raises
    ------
    InputError
        If the sets are not finite features of one d, or have too few images.
    """
    first, second = pair(real, fake)
    n, d = min(len(first), len(second)), first.shape[1]
    if n < 2 or (n <= d and not few):
        raise InputError(
            f"a Fréchet distance of {d} features needs more than {d} images in each set, and {2 * d} to mean much, "
            f"not {n}; take more images or fewer features, or use kernel_distance, which has no bias."
        )
    return _frechet(*_moments(first), *_moments(second))


def _moments(features: F64) -> tuple[F64, F64]:
    """Mean [d] and covariance [d, d]."""
    return features.mean(0), np.cov(features, rowvar=False).reshape(features.shape[1], -1)


def _frechet(m1: F64, s1: F64, m2: F64, s2: F64) -> float:
    values, vectors = np.linalg.eigh(s1)
    root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T  # S1^½
    inner = root @ s2 @ root
    roots = np.sqrt(np.clip(np.linalg.eigvalsh((inner + inner.T) / 2), 0, None))
    distance = ((m1 - m2) ** 2).sum() + np.trace(s1) + np.trace(s2) - 2 * roots.sum()
    return max(0.0, float(distance))  # equal sets may round to less


@dataclass(frozen=True)
class Extrapolated:
    """A distance at endless images, with its 95 % interval from `low` to `high`, and what it was read off.

    sizes: images of each set, falling; values: mean Fréchet distance of subsets of that size.
    """

    value: float
    low: float
    high: float
    sizes: tuple[int, ...]
    values: tuple[float, ...]


MOST_PARTS, SHUFFLES = 4, 6  # of an extrapolation


def frechet_extrapolated(real: ArrayLike, fake: ArrayLike, *, seed: int) -> Extrapolated:
    """Fréchet distance without the bias of few images: the idea of FID_inf (Chong and Forsyth, CVPR 2020).

    The bias falls nearly like 1 / n. So both sets are cut into 1, 2, … equal parts at random (up to 4, each of at least
    2 d images), the distances of the parts are averaged, and the straight line through them is followed to 1 / n = 0.
    The interval is that of a jackknife that leaves out a tenth of both sets at a time, with t of 9 degrees of freedom:
    drawing images with replacement would add bias of its own. Near 0 the estimate may be negative.

    Raises
    ------
    InputError
        As `frechet`, and if there are less than 4 d images.
    """
    first, second = pair(real, fake)
    n, d = min(len(first), len(second)), first.shape[1]
    if n < fewest(d):
        raise InputError(
            f"to extrapolate a Fréchet distance of {d} features takes {fewest(d)} images in each set, not {n}; take "
            "more images or fewer features, or use kernel_distance, which has no bias."
        )
    rng = np.random.default_rng(seed)
    most = min(MOST_PARTS, n // (2 * d))
    cuts = [[(_labels(first, m, rng), _labels(second, m, rng)) for _ in range(SHUFFLES if m > 1 else 1)]
            for m in range(1, most + 1)]  # fmt: skip
    values = _means_of_parts(first, second, cuts)

    def at_zero(kept: NDArray[np.bool_], others: NDArray[np.bool_]) -> float:
        # the parts stay the same but for the images left out: new ones would add noise of their own
        fewer = [[(a[kept], b[others]) for a, b in some[:2]] for some in cuts]
        return _at_zero(_means_of_parts(first[kept], second[others], fewer))

    half, value = half_width(left_out(at_zero, len(first), len(second), seed)), _at_zero(values)
    return Extrapolated(value, value - half, value + half, tuple(n // m for m in range(1, most + 1)), tuple(values))


def fewest(d: int) -> int:
    """Images that `frechet_extrapolated` needs of each set for d features."""
    return max(4 * d, 2 * GROUPS)


def _labels(features: F64, parts: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """The part that each image belongs to, [N], 0 to `parts` - 1, all of one size but for one image."""
    return np.asarray(rng.permutation(len(features)) % parts)


def _means_of_parts(real: F64, fake: F64, cuts: list[list[tuple[NDArray[np.int64], NDArray[np.int64]]]]) -> list[float]:
    """Mean distance of the parts, for each number of parts."""
    return [
        float(np.mean([
            _frechet(*_moments(real[a == part]), *_moments(fake[b == part])) for a, b in some for part in range(m)
        ]))
        for m, some in enumerate(cuts, start=1)
    ]  # fmt: skip


def _at_zero(values: list[float]) -> float:
    """Where the line through the values of 1, 2, … parts meets 0 parts, which is endless images."""
    return float(np.polyfit(np.arange(1, len(values) + 1), values, 1)[1])


def left_out(
    measure: Callable[[NDArray[np.bool_], NDArray[np.bool_]], T], real: int, fake: int, seed: int
) -> list[T]:
    """A measure of the images kept, bool [N] and [M], each of ten random groups of both sets left out once.

    Unlike in the bootstrap no image is ever there twice, which a distance between sets would take for a mode.
    """
    rng = np.random.default_rng([seed, GROUPS])
    first, second = rng.permutation(real) % GROUPS, rng.permutation(fake) % GROUPS
    return [measure(first != g, second != g) for g in range(GROUPS)]


def half_width(left: list[float]) -> float:
    """Half a 95 % interval from `left_out`: the delete-a-group jackknife (Shao and Wu, Annals of Statistics 1989)."""
    error = np.sqrt((GROUPS - 1) * np.var(left))
    return float(stdtrit(GROUPS - 1, 0.975) * error)


@dataclass(frozen=True)
class KernelDistance:
    """Squared maximum mean discrepancy, without bias (so it may be negative), and its standard error."""

    value: float
    error: float


def kernel_distance(real: ArrayLike, fake: ArrayLike) -> KernelDistance:
    """Kernel distance of all pairs, k(x, y) = (x·y / d + 1)³: "KID" (Binkowski et al., ICLR 2018), unbiased.

    MMD² = mean k(x, x') + mean k(y, y') - 2 mean k(x, y) over different images. KID as it is usually printed is the
    mean over random subsets of this (`kernel_subsets`), since 50,000 images have too many pairs; with a few thousand
    all pairs cost a second and vary less. The error is that of leaving out one image at a time, in closed form.
    Equal sets have 0 within the error, whatever n. The unit depends on the scale of the features.

    Raises
    ------
    InputError
        If the sets are not finite features of one d, or a set has less than 3 images.
    """
    first, second = pair(real, fake)
    n, m = len(first), len(second)
    if min(n, m) < 3:
        raise InputError(f"a kernel distance with its error needs 3 or more images in each set, not {n} and {m}.")
    own = [_sums(one, one) - _kernel_of_itself(one) for one in (first, second)]  # of each image with its set's others
    cross = [_sums(first, second), _sums(second, first)]
    within = [rows.sum() / (len(rows) * (len(rows) - 1)) for rows in own]
    total = cross[0].sum()
    variance = 0.0
    for rows, across, count, others in zip(own, cross, (n, m), (m, n), strict=True):
        left = (rows.sum() - 2 * rows) / ((count - 1) * (count - 2)) - 2 * (total - across) / ((count - 1) * others)
        variance += (count - 1) / count * float(((left - left.mean()) ** 2).sum())
    return KernelDistance(float(within[0] + within[1] - 2 * total / (n * m)), float(np.sqrt(variance)))


def kernel_subsets(
    real: ArrayLike, fake: ArrayLike, *, subsets: int = 100, size: int = 1000, seed: int = 0
) -> F64:
    """Kernel distances of random subsets of `size` images of each set, [subsets]: what papers print the mean and sd of.

    Their standard deviation is that of one subset and not the error of the mean. It is 0 where `size` images are all
    there are, which is refused.

    Raises
    ------
    InputError
        As `kernel_distance`, or if the smaller set has no more than `size` images, or a number is too small.
    """
    first, second = pair(real, fake)
    if subsets < 1 or size < 3 or size >= min(len(first), len(second)):
        raise InputError(
            f"{subsets} subsets of {size} images out of {len(first)} and {len(second)} tell nothing; take fewer "
            "images in each (3 or more), or use kernel_distance, which takes all pairs."
        )
    rng = np.random.default_rng(seed)
    pairs = ((_some(first, size, rng), _some(second, size, rng)) for _ in range(subsets))
    return np.array([kernel_distance(one, other).value for one, other in pairs])


def _some(features: F64, size: int, rng: np.random.Generator) -> F64:
    return features[rng.permutation(len(features))[:size]]


def _sums(one: F64, other: F64) -> F64:
    """Sum of k(x, y) over all y, for each x: [N]."""
    d = one.shape[1]
    return np.concatenate([((part @ other.T / d + 1) ** 3).sum(1) for part in blocks(one, len(other))])


def _kernel_of_itself(features: F64) -> F64:
    return np.asarray(((features**2).sum(1) / features.shape[1] + 1) ** 3)


def blocks(features: F64, others: int | None = None) -> Iterator[F64]:
    """The rows, so many at a time that a block against all `others` stays small."""
    step = max(1, BLOCK // max(1, len(features) if others is None else others))
    return (features[start : start + step] for start in range(0, len(features), step))


def pair(real: ArrayLike, fake: ArrayLike) -> tuple[F64, F64]:
    """Both sets as float64, checked."""
    first, second = (np.asarray(some, np.float64) for some in (real, fake))
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1] or not first.size or not second.size:
        raise InputError(
            f"features are compared as [N, d] and [M, d] of one d, not {list(first.shape)} and {list(second.shape)}."
        )
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise InputError("features must be finite, but some are infinite or not a number; look at what made them.")
    return first, second
