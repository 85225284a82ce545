"""Does a generator repeat its training images? `calibrate` on held-out patients, then `audit` what it makes.

For each image the nearest training image is looked for in several spaces: *pixel* and *detail* (`copies.search`, over
flips, turns, shifts and gain), and any others, such as the means of the autoencoder (`latent_space`) or the features of
a network. Each space gives two scores: the distance d1 to the nearest, and d1 over the mean distance of the next 50, as
Carlini et al. (USENIX Security 2023) do; both are small for a copy. How small is suspicious is learned on images of
patients that the model has not seen: they copy nothing, so at most 1 % of them may be called copies.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.stats import binom

from mame_lib.errors import InputError
from mame_lib.evaluation.adherence import wilson
from mame_lib.evaluation.copies import prepare, search
from mame_lib.evaluation.nearest import NEIGHBORS as NEIGHBORS  # all of these are part of this module's face
from mame_lib.evaluation.nearest import Matches as Matches
from mame_lib.evaluation.nearest import Neighbors as Neighbors
from mame_lib.evaluation.nearest import Space as Space
from mame_lib.evaluation.nearest import TrainingSet as TrainingSet
from mame_lib.evaluation.nearest import latent_space as latent_space
from mame_lib.evaluation.nearest import matched_gain, names_of
from mame_lib.evaluation.nearest import nearest as nearest
from mame_lib.models.components import NOTICE

Gray = NDArray[np.uint8]
F64 = NDArray[np.float64]

FALSE_ALARMS = 0.01
CONFIDENCE = 0.95

_TILE, _TEXT, _GAP, _HEAD = 192, 200, 6, 24  # of the picture, pixels
_INK, _PAPER = 232, 36


@dataclass(frozen=True)
class Calibration:
    """Above which suspicion an image is called a copy, learned on images that copy nothing.

    center, scale: of each score of `Matches.scores`. An image's suspicion is the largest (center - score) / scale:
    about 0 in the middle of the held-out images, 1 at the most alike 1 % by one score. threshold: of the suspicion.
    units: held-out patients. false_alarms: of patients that copy nothing, at most this share is above the threshold,
    with `confidence`. allowed: how many of the units are at or above it. suspicion: of each unit, [units].
    nearest_held_out: the smallest distance of a held-out image to a training image, in the detail.
    """

    center: dict[str, float]
    scale: dict[str, float]
    threshold: float
    units: int
    allowed: int
    false_alarms: float
    confidence: float
    nearest_held_out: float
    suspicion: F64 = field(repr=False)

    def parts(self, matches: Matches) -> dict[str, F64]:
        """The suspicion of each image by each score alone, [N] each."""
        scores = matches.scores()
        if set(scores) != set(self.center):
            raise InputError("the calibration is of other spaces than the matches; calibrate with the same ones.")
        return {name: (self.center[name] - scores[name]) / self.scale[name] for name in self.center}

    def of(self, matches: Matches) -> F64:
        """The suspicion of each image, [N]."""
        return np.max(list(self.parts(matches).values()), axis=0)


def fewest(false_alarms: float = FALSE_ALARMS, confidence: float = CONFIDENCE) -> int:
    """How many held-out patients a calibration needs: 299 for 1 % with 95 % confidence, since 0.99^299 < 0.05."""
    return int(np.ceil(np.log(1 - confidence) / np.log(1 - false_alarms)))


def calibrate(
    training: TrainingSet | Gray | None, held_out: Gray | Matches, *, patients: Sequence[str] | None = None,
    false_alarms: float = FALSE_ALARMS, confidence: float = CONFIDENCE,
) -> Calibration:  # fmt: skip
    """The threshold that at most `false_alarms` of patients that copy nothing exceed, with `confidence`.

    held_out: images uint8 [N, n, n] of patients that are not in the training set, or their `Matches` with it (then
    training may be None). patients: whose
    they are, [N], by default each its own; the most suspicious image of a patient counts, because images of one
    patient are not independent. The threshold is an order statistic, so no distribution is assumed: of n patients the
    k-th most suspicious, with the largest k for which a binomial (n, false_alarms) is below k with probability
    1 - confidence at most (Wilks 1941, a tolerance bound).

    Raises
    ------
    InputError
        If there are fewer than `fewest` patients, or the shares are not between 0 and 1; otherwise as `nearest`.
    """
    if not (0 < false_alarms < 1 and 0 < confidence < 1):
        raise InputError(f"false alarms {false_alarms} and confidence {confidence} are shares between 0 and 1.")
    names = names_of(patients, len(held_out), "held-out")
    units = sorted(set(names))
    if len(units) < (needed := fewest(false_alarms, confidence)):
        possible = 1 - (1 - confidence) ** (1 / max(len(units), 1))
        raise InputError(
            f"{false_alarms:.2g} false alarms with {confidence:.0%} confidence need {needed} held-out patients, not "
            f"{len(units)}; give more, or allow {np.ceil(1000 * possible) / 1000:.3f}."
        )
    if isinstance(held_out, Matches):
        matches = held_out
    elif training is None:
        raise InputError("a calibration needs the training images, or what `nearest` found among them.")
    else:
        matches = nearest(held_out, training)
    scores = matches.scores()
    center = {name: float(np.median(values)) for name, values in scores.items()}
    scale = {name: max(center[name] - float(np.quantile(values, 0.01)), 1e-3) for name, values in scores.items()}
    closest = float(matches.spaces["detail"].distance.min())
    raw = Calibration(center, scale, 0.0, len(units), 0, false_alarms, confidence, closest, np.zeros(0))
    each = raw.of(matches)
    own = np.full(len(units), -np.inf)
    np.maximum.at(own, np.searchsorted(units, names), each)
    allowed = int(np.flatnonzero(binom.cdf(np.arange(len(units)), len(units), false_alarms) <= 1 - confidence)[-1]) + 1
    threshold = float(np.sort(own)[-allowed])
    return replace(raw, threshold=threshold, allowed=allowed, suspicion=own)


@dataclass(frozen=True)
class Audit:
    """What `audit` says of N images.

    suspicion [N]; flagged, bool [N]: called a copy; match [N]: index of the training image, in the space that is most
    suspicious; space [N]: which one. The images, and their matches as they are stored, are kept for `worst_pairs`.
    """

    calibration: Calibration
    matches: Matches = field(repr=False)
    suspicion: F64 = field(repr=False)
    flagged: NDArray[np.bool_] = field(repr=False)
    match: NDArray[np.int64] = field(repr=False)
    space: tuple[str, ...] = field(repr=False)
    images: Gray = field(repr=False)
    originals: Gray = field(repr=False)

    @property
    def rate(self) -> float:
        """Share of the images that are called copies, 0..1."""
        return float(self.flagged.mean())

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the rate."""
        return wilson(int(self.flagged.sum()), len(self.flagged))

    @property
    def plain(self) -> NDArray[np.bool_]:
        """Images twice as suspicious as the threshold, bool [N]: no false alarm of the calibration comes near."""
        return np.asarray(self.suspicion > 2 * self.calibration.threshold)

    @property
    def copies_found(self) -> bool:
        """Whether some image is `plain`ly a copy, or more are flagged than false alarms explain (binomial, 5 %)."""
        chance = binom.sf(int(self.flagged.sum()) - 1, len(self.flagged), self.calibration.false_alarms)
        return bool(self.plain.any() or chance < 0.05)

    @property
    def order(self) -> NDArray[np.int64]:
        """Indexes of the images, the most suspicious first, [N]."""
        return np.argsort(-self.suspicion, kind="stable")


def audit(
    images: Gray, training: TrainingSet | Gray, calibration: Calibration, *, matches: Matches | None = None
) -> Audit:
    """Which of the images uint8 [N, n, n] copy a training image; InputError as `nearest`.

    matches: what `nearest` said of them, where it was asked before.
    """
    known = training if isinstance(training, TrainingSet) else TrainingSet(training)
    found = nearest(images, known) if matches is None else matches
    parts = calibration.parts(found)
    names = list(parts)
    stacked = np.stack(list(parts.values()))  # [scores, N]
    spaces = tuple(names[k].rsplit(" ", 1)[0] for k in stacked.argmax(0))
    match = np.array([found.spaces[space].index[k] for k, space in enumerate(spaces)])
    suspicion = stacked.max(0)
    flagged = suspicion > calibration.threshold
    return Audit(calibration, found, suspicion, flagged, match, spaces, np.asarray(images), known.images[match])


@dataclass(frozen=True)
class Extraction:
    """Samples of one caption that are all but equal to each other, members [K], the middle one of them, and the
    training image that it copies, or None if it is no copy of any."""

    members: tuple[int, ...]
    middle: int
    training: int | None


def extract(
    samples: Gray, training: TrainingSet | Gray, calibration: Calibration, *, least: int = 3
) -> list[Extraction]:
    """An extraction attempt (Carlini et al. 2023): many samples of one caption, uint8 [N, n, n], and what they repeat.

    Who does not have the training images can still see that a model draws one picture again and again. Samples that
    are nearer to each other in the detail than any held-out image is to the training images (`nearest_held_out`) are
    linked; a group of at least `least` is an attempt, and its middle image is then audited. Largest group first.
    """
    known = training if isinstance(training, TrainingSet) else TrainingSet(training)
    ready = prepare(samples)
    each = [str(k) for k in range(len(ready))]
    found = search(ready, ready, groups=(each, each), flips=("",))["detail"]
    near = found.distance < calibration.nearest_held_out
    rows, columns = np.nonzero(near)
    ones = np.ones(len(rows))
    linked = coo_matrix((ones, (rows, found.index[rows, columns])), shape=(len(ready),) * 2)
    labels = connected_components(linked, directed=False)[1]
    links = np.asarray((linked + linked.T).sum(1)).ravel()
    groups = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    groups = sorted((group for group in groups if len(group) >= least), key=len, reverse=True)
    if not groups:
        return []
    middles = [int(group[links[group].argmax()]) for group in groups]
    said = audit(np.asarray(samples)[middles], known, calibration)
    return [
        Extraction(tuple(group.tolist()), middle, int(match) if flagged else None)
        for group, middle, match, flagged in zip(groups, middles, said.match, said.flagged, strict=True)
    ]


def pair_images(said: Audit, count: int = 6) -> Gray:
    """The most suspicious images first, uint8 [count, 4, n, n]: each, its nearest training image, the image moved onto
    that one with its gain matched, and half their difference on middle gray."""
    rows = []
    for k in said.order[:count]:
        moved = matched_gain(said.matches.transform[k].apply(said.images[k]), said.originals[k])
        apart = np.clip(128 + (moved.astype(np.int16) - said.originals[k]) / 2, 0, 255).astype(np.uint8)
        rows.append([said.images[k], said.originals[k], moved, apart])
    return np.array(rows)


def worst_pairs(said: Audit, count: int = 6) -> Image.Image:
    """A gray picture of `pair_images`, measurements beside them; images of more than 192 pixels are made smaller."""
    side = min(_TILE, max(128, said.images.shape[1]))
    shown = said.order[:count]
    sheet = Image.new("L", (4 * (side + _GAP) + _GAP + _TEXT, _HEAD + len(shown) * (side + _GAP) + _HEAD), _PAPER)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for column, title in enumerate(("generated (synthetic)", "nearest in training", "laid upon it", "difference")):
        pen.text((_GAP + column * (side + _GAP), 5), title, fill=_INK, font=font)
    for row, (k, four) in enumerate(zip(shown, pair_images(said, count), strict=True)):
        y = _HEAD + row * (side + _GAP)
        for column, pixels in enumerate(four):
            tile = Image.fromarray(pixels).resize((side, side), Image.Resampling.BILINEAR)
            sheet.paste(tile, (_GAP + column * (side + _GAP), y))
        spaces = said.matches.spaces
        lines = [
            "called a copy" if said.flagged[k] else "not called a copy",
            f"suspicion {said.suspicion[k]:.2f}", f"threshold {said.calibration.threshold:.2f}",
            *(f"{name} {one.distance[k]:.2f}, ratio {one.ratio[k]:.2f}" for name, one in spaces.items()),
            *textwrap.wrap(str(said.matches.transform[k]), 24),
        ]  # fmt: skip
        pen.multiline_text((4 * (side + _GAP) + 2 * _GAP, y), "\n".join(lines), fill=_INK, font=font, spacing=2)
    pen.text((_GAP, sheet.height - _HEAD + 5), f"first and third column: {NOTICE}", fill=_INK, font=font)
    return sheet
