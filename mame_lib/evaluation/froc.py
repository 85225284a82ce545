"""How good is a detector? Marks, hits and false alarms (`judge`), FROC curves (`froc`), AUC with intervals (`auc`).

The FROC curve of a detector (free-response operating characteristic) is the share of lesions that it finds against
the false alarms that it sets on an image, as its threshold falls: Chakraborty, Medical Physics 16 (1989) 561.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage
from scipy.stats import rankdata

from mame_lib.errors import InputError

Box = Sequence[float]  # (x0, y0, x1, y1), half-open pixels
F64 = NDArray[np.float64]
DRAWS = 2000  # of the bootstraps
SLACK = 2.0  # pixels by which a mark may miss a box and still be a hit


@dataclass(frozen=True)
class Detection:
    """A mark on an image: its place in pixels (the middle of the upper left pixel is 0.5, 0.5), and score 0..1."""

    x: float
    y: float
    score: float


def peaks(heat: NDArray[np.floating], *, least: float = 0.01, apart: float = 8.0, most: int = 12) -> list[Detection]:
    """Local maxima of a map [n, n], strongest first, at least `apart` pixels from each other; at most `most`.

    least: no mark below this. On a plateau the mark is at its middle.

    Raises
    ------
    InputError
        If the map is not square of two dimensions or `apart` is below 1.
    """
    values = np.asarray(heat, np.float64)
    if values.ndim != 2 or not values.size or apart < 1:
        raise InputError(f"peaks are looked for in one map [h, w], 1 or more pixels apart; it is {list(values.shape)}.")
    top = values == ndimage.maximum_filter(values, size=2 * int(apart / 2) + 1, mode="nearest")
    labels, count = ndimage.label(top & (values >= least), structure=np.ones((3, 3)))
    if not count:
        return []
    middles = np.array(ndimage.center_of_mass(np.ones_like(values), labels, range(1, count + 1)))  # [K, 2]
    heights = ndimage.maximum(values, labels, range(1, count + 1))
    kept: list[Detection] = []
    for k in np.argsort(-np.asarray(heights), kind="stable"):
        y, x = middles[k] + 0.5
        if all(np.hypot(x - one.x, y - one.y) >= apart for one in kept):
            kept.append(Detection(float(x), float(y), float(heights[k])))
        if len(kept) == most:
            break
    return kept


@dataclass(frozen=True)
class Judged:
    """The marks of N images, told apart by the truth.

    lesions: best score of a mark that hits each lesion, [L], -inf where none does; lesion_image: its image, [L].
    alarms: scores of the marks that hit none, [A]; alarm_image: their images, [A]. images: N.
    """

    lesions: F64
    lesion_image: NDArray[np.int64]
    alarms: F64
    alarm_image: NDArray[np.int64]
    images: int


def hits(mark: Detection, box: Box, slack: float = SLACK) -> bool:
    """Whether a mark lies in a box, or outside it by no more than `slack` pixels."""
    x0, y0, x1, y1 = box
    return bool(x0 - slack <= mark.x <= x1 + slack and y0 - slack <= mark.y <= y1 + slack)


def judge(
    found: Sequence[Sequence[Detection]], boxes: Sequence[Sequence[Box]], *, slack: float = SLACK
) -> Judged:
    """Tell hits from false alarms, on N images: the marks of each, and its lesion boxes (none if it is healthy).

    A second mark in one box is neither. Raises `InputError` if there are not as many lists of marks as of boxes.
    """
    if len(found) != len(boxes) or not found:
        raise InputError(f"marks of {len(found)} images and boxes of {len(boxes)}; give one list of each an image.")
    best: list[tuple[float, int]] = []
    alarms: list[tuple[float, int]] = []
    for image, (marks, some) in enumerate(zip(found, boxes, strict=True)):
        best += [(max((m.score for m in marks if hits(m, box, slack)), default=-np.inf), image) for box in some]
        alarms += [(m.score, image) for m in marks if not any(hits(m, box, slack) for box in some)]
    columns = [np.array(pairs, np.float64).reshape(-1, 2).T for pairs in (best, alarms)]
    (lesions, at), (wrong, where) = columns
    return Judged(lesions, at.astype(np.int64), wrong, where.astype(np.int64), len(found))


@dataclass(frozen=True)
class Froc:
    """A FROC curve, one point a threshold, from strict to lenient.

    thresholds [K]; alarms [K]: false alarms an image, over all images, healthy or not; sensitivity [K]: share of
    the lesions found, 0..1. The curve starts at (0, share of the lesions above every false alarm).
    """

    thresholds: F64
    alarms: F64
    sensitivity: F64

    def at(self, alarms: float) -> float:
        """Sensitivity at no more than so many false alarms an image."""
        return float(self.sensitivity[np.searchsorted(self.alarms, alarms + 1e-12, side="right") - 1])

    def area(self, most: float = 1.0) -> float:
        """Mean sensitivity over 0 to `most` false alarms an image, 0..1: the normalized area under the curve."""
        edges = np.append(np.minimum(self.alarms, most), most)
        return float((np.diff(edges) * self.sensitivity).sum() / most)


def froc(judged: Judged, weights: ArrayLike | None = None) -> Froc:
    """The FROC curve of what `judge` told apart; weights [N]: how often each image counts, as in a bootstrap.

    Raises
    ------
    InputError
        If there is no lesion (with any weight), or the weights do not match the images.
    """
    w = np.ones(judged.images) if weights is None else np.asarray(weights, np.float64)
    if w.shape != (judged.images,):
        raise InputError(f"there are {judged.images} images, but weights {list(w.shape)}; give one an image.")
    lesions = w[judged.lesion_image]
    if not lesions.sum() > 0:
        raise InputError("there is no lesion among the images; a FROC curve needs one or more.")
    order = np.argsort(-judged.alarms, kind="stable")
    falling = judged.alarms[order]
    counts = np.cumsum(w[judged.alarm_image[order]]) / w.sum()
    last = np.flatnonzero(np.append(np.diff(falling) != 0, True))[: len(falling)]  # equal scores come together
    thresholds = np.append(np.inf, falling[last]) if len(falling) else np.array([np.inf])
    # Point k shows the alarms of the k highest scores, and all lesions above the next one: the best place to stop.
    below = np.append(thresholds[1:], -np.inf)
    up = np.argsort(judged.lesions, kind="stable")
    rank = np.searchsorted(judged.lesions[up], below, side="right")  # lesions that are not above
    above = lesions.sum() - np.append(0.0, np.cumsum(lesions[up]))[rank]
    missed = lesions[~np.isfinite(judged.lesions)].sum()
    found = np.minimum(above, lesions.sum() - missed) / lesions.sum()
    return Froc(thresholds, np.append(0.0, counts[last] if len(falling) else []), found)


@dataclass(frozen=True)
class Interval:
    """A number and its 95 % interval from `low` to `high`."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def auc(scores: ArrayLike, ill: ArrayLike) -> float:
    """Area under the ROC curve, 0..1: the chance that an ill image scores higher than a healthy one, ties half.

    scores [N]; ill [N]: truth, 0 or 1. By ranks (Mann and Whitney), so it costs a sort.

    Raises
    ------
    InputError
        If the shapes differ, a score is NaN, or one of the two kinds is missing.
    """
    values, sick = _scored(scores, ill)
    n = int(sick.sum())
    ranks = rankdata(values)  # ties share their mean rank
    return float((ranks[sick].sum() - n * (n + 1) / 2) / (n * (len(values) - n)))


def _scored(scores: ArrayLike, ill: ArrayLike) -> tuple[F64, NDArray[np.bool_]]:
    values, sick = np.asarray(scores, np.float64), np.asarray(ill).astype(bool)
    if values.ndim != 1 or values.shape != sick.shape or np.isnan(values).any():
        raise InputError(f"scores {list(values.shape)} and truth {list(sick.shape)} must be as long, without NaN.")
    if not 0 < sick.sum() < len(sick):
        raise InputError("an AUC needs ill and healthy images, one or more of each.")
    return values, sick


def auc_interval(
    scores: ArrayLike, ill: ArrayLike, patients: ArrayLike | None = None, *, draws: int = DRAWS, seed: int = 0
) -> Interval:
    """`auc` with a 95 % percentile bootstrap interval; patients [N]: whose images are drawn together.

    Without patients ill and healthy images are drawn apart (a stratified bootstrap). Give them where one breast is
    in the data twice, with and without a lesion: its two images do not vary independently.
    """
    values, sick = _scored(scores, ill)
    generator = np.random.default_rng(seed)
    spread = [auc(values[rows], sick[rows]) for rows in redrawn(sick, patients, draws, generator)]
    low, high = np.percentile(spread, (2.5, 97.5))
    return Interval(auc(values, sick), float(low), float(high))


def redrawn(
    ill: ArrayLike, patients: ArrayLike | None, draws: int, generator: np.random.Generator
) -> Iterator[NDArray[np.int64]]:
    """Yield `draws` bootstrap samples as row numbers; those without ill or without healthy images are drawn again."""
    sick = np.asarray(ill).astype(bool)
    if patients is None:
        kinds = [np.flatnonzero(sick), np.flatnonzero(~sick)]
        for _ in range(draws):
            yield np.concatenate([generator.choice(rows, len(rows)) for rows in kinds])
        return
    names, which = np.unique(np.asarray(patients), return_inverse=True)
    rows_of = [np.flatnonzero(which == k) for k in range(len(names))]
    for _ in range(draws):
        rows = np.zeros(0, np.int64)
        while not 0 < sick[rows].sum() < len(rows):
            rows = np.concatenate([rows_of[k] for k in generator.integers(len(names), size=len(names))])
        yield rows


def froc_interval(
    judged: Judged, alarms: float = 1.0, *, area: bool = False, patients: ArrayLike | None = None, draws: int = DRAWS,
    seed: int = 0,
) -> Interval:  # fmt: skip
    """Sensitivity at so many false alarms an image (or, with `area`, its mean up to there), with a 95 % interval.

    Images are drawn again with their marks, whole patients [N] where they are given.
    """
    def of(weights: ArrayLike | None) -> float:
        curve = froc(judged, weights)
        return curve.area(alarms) if area else curve.at(alarms)

    ill = np.bincount(judged.lesion_image, minlength=judged.images) > 0
    generator = np.random.default_rng(seed)
    samples = redrawn(ill, patients, draws, generator) if 0 < ill.sum() < len(ill) else (
        generator.integers(len(ill), size=len(ill)) for _ in range(draws)
    )  # fmt: skip
    spread = [of(np.bincount(rows, minlength=judged.images)) for rows in samples]
    low, high = np.percentile(spread, (2.5, 97.5))
    return Interval(of(None), float(low), float(high))
