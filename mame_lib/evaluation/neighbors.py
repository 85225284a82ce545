"""Do fakes lie among the reals, and reals among the fakes? `prdc`, with `prdc_intervals`, and `authenticity`.

`mame_lib.evaluation.fidelity` compares images with them, and says when each lies.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial.distance import cdist

from mame_lib.errors import InputError
from mame_lib.evaluation.adherence import wilson
from mame_lib.evaluation.distances import F64, GROUPS, blocks, half_width, left_out, pair


@dataclass(frozen=True)
class PRDC:
    """Precision, recall and coverage, 0..1, and density, 0 and more."""

    precision: float
    recall: float
    density: float
    coverage: float


def prdc(real: ArrayLike, fake: ArrayLike, k: int = 5) -> PRDC:
    """Precision and recall (Kynkäänniemi et al., NeurIPS 2019), density and coverage (Naeem et al., ICML 2020).

    The ball of an image reaches to its k-th nearest neighbor in its own set, without its rim. Precision: share of
    fakes within a ball of a real. Recall: share of reals within a ball of a fake. Density: balls of reals that a fake
    lies in, on average, over k. Coverage: share of reals that have a fake within their ball.

    Raises
    ------
    InputError
        If the sets are not finite features of one d, or there are no more than k images in one.
    """
    first, second = pair(real, fake)
    if k < 1 or min(len(first), len(second)) <= k:
        raise InputError(
            f"the {k}-th nearest neighbor needs more than {k} images in each set (and k of 1 or more), not "
            f"{len(first)} and {len(second)}."
        )
    reach, fake_reach = radii(first, k), radii(second, k)
    inside, nearest = np.zeros(len(second), np.int64), np.empty(len(first))
    recalled, start = np.zeros(len(first), bool), 0
    for part in blocks(first, len(second)):
        rows = slice(start, start + len(part))
        distance = cdist(part, second)  # [B, M]
        inside += (distance < reach[rows, None]).sum(0)
        nearest[rows] = distance.min(1)
        recalled[rows] = (distance < fake_reach).any(1)
        start += len(part)
    return PRDC(
        precision=float((inside > 0).mean()), recall=float(recalled.mean()), density=float(inside.mean() / k),
        coverage=float((nearest < reach).mean()),
    )  # fmt: skip


def authenticity(real: ArrayLike, fake: ArrayLike) -> float:
    """Share of fakes, 0..1, that are farther from their nearest real than that is from its own nearest real.

    Copies have 0, independent images of the same distribution about 0.5, bad images 1 (Alaa et al., ICML 2022). So a
    high value is no praise, and a low one a reason to look for copies (`mame_lib.evaluation.memorization`).

    Raises
    ------
    InputError
        If the sets are not finite features of one d, or there are less than two reals.
    """
    first, second = pair(real, fake)
    if len(first) < 2:
        raise InputError("a single real image has no nearest real; give two or more.")
    reach, found = radii(first, 1), []
    for part in blocks(second, len(first)):
        distance = cdist(part, first)  # [B, N]
        nearest = distance.argmin(1)
        found.append(distance[np.arange(len(part)), nearest] > reach[nearest])
    return float(np.concatenate(found).mean())


def prdc_intervals(real: ArrayLike, fake: ArrayLike, k: int = 5, *, seed: int) -> dict[str, tuple[float, float]]:
    """95 % intervals (low, high) of the four numbers of `prdc`, over images of both sets; errors of `prdc`.

    By the jackknife of `frechet_extrapolated`, cut to what is possible, and for the three shares not within Wilson's
    interval, which is not empty where a share is 0 or 1. They are about the spread of images, not about the change
    with n.

    Raises
    ------
    InputError
        As `prdc`, and if there are less than 20 images in a set.
    """
    first, second = pair(real, fake)
    if min(len(first), len(second)) < 2 * GROUPS:
        raise InputError(
            f"an interval over images needs {2 * GROUPS} images in each set, not {min(len(first), len(second))}; "
            "take more, or prdc alone."
        )
    found = prdc(first, second, k)
    sizes = {"precision": len(second), "recall": len(first), "coverage": len(first)}
    left = left_out(lambda a, b: asdict(prdc(first[a], second[b], k)), len(first), len(second), seed)
    intervals = {}
    for name, value in asdict(found).items():
        half = half_width([one[name] for one in left])
        low, high = max(0.0, value - half), value + half
        if name in sizes:
            least, most = wilson(value * sizes[name], sizes[name])
            low, high = min(low, least), min(1.0, max(high, most))
        intervals[name] = (low, high)
    return intervals


def radii(features: F64, k: int) -> F64:
    """Distance of each of N points [N, d] to its k-th nearest neighbor among the others: [N]."""
    return np.concatenate([np.partition(cdist(part, features), k, axis=1)[:, k] for part in blocks(features)])
