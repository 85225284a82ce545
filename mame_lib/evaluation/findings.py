"""What kind of lesion is in a box: nothing, a mass, a spiculated mass, a cluster of calcifications? `read_findings`.

A few hand-made signs, as early programs of computer-aided detection had them (`signs`): is there a bright blob of the
box's size, is its rim streaky, are there bright specks smaller than tissue makes them. A multinomial logistic
regression turns them into chances of the words of `READ` (`Reader`, `fit`). Its coefficients were found on phantoms,
whose lesions are known, once for phantoms as drawn and once for what the tiny autoencoder makes of them: the second
shows what anything that writes through this autoencoder can be read as, at best.

Coefficients, what they were fitted on and by which command: `weights/findings/findings.json`. Images are gray [n, n],
0..255. The signs may be taken at any size, but the coefficients hold at 128 pixels a side alone.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage, optimize, special

from mame_lib.data.case import FINDINGS
from mame_lib.data.masks import Mask
from mame_lib.errors import InputError
from mame_lib.evaluation.realism import Box
from mame_lib.models.presets import WEIGHTS

Gray = NDArray[Any]
F64 = NDArray[np.float64]

READ = ("nothing", *FINDINGS[1:])  # "lesion" says less than any of these, and is none of them
WORLDS = ("drawn", "decoded")  # images as they are, and those that the tiny autoencoder wrote
SIGNS = ("core", "rim", "edge", "mottle", "radial", "specks", "grain", "size")
COEFFICIENTS = WEIGHTS / "findings" / "findings.json"

_TURN = 64  # directions of the polar grid
_AROUND = 6  # pixels beyond the box that count as around it
_RADII = np.linspace(0.1, 1.6, 16)  # in half boxes


def signs(image: Gray, box: Box, breast: Mask) -> F64:
    """The numbers `[8]`, in the order of `SIGNS`, that tell findings apart.

    core: gray of the middle of the box minus that around it, in levels. rim: the same near the box's ellipse; a
    spiculated mass has a small core and a dim rim. edge: steepest fall of the mean radial profile, levels for a tenth
    of the half box. mottle: spread of the rim over that of the core, for spicules cross the rim. radial: share 0..1 of
    the gradient's energy that runs across the direction to the core: about 1/2 in tissue without order, less at the
    border of a blob, more among spicules (after Karssemeijer and te Brake, IEEE Trans. Med. Imaging 15 (1996) 611).
    specks: spots in the box that a white top-hat of 3 x 3 px finds four times as bright as usual around it, log(1 +
    count). grain: the top-hat in the box over that around. size: box area / image area. The last two and mottle are
    logarithms.

    Raises
    ------
    InputError
        If the box is empty, or there is no breast around it.
    """
    values = np.asarray(image, np.float64)
    half = np.array([box[3] - box[1], box[2] - box[0]]) / 2
    middle = np.array([box[1] + box[3], box[0] + box[2]]) / 2
    if half.min() <= 0:
        raise InputError(f"the box {tuple(box)} is empty; give half-open pixels (x0, y0, x1, y1).")
    y, x = np.mgrid[: values.shape[0], : values.shape[1]] + 0.5 - middle[:, None, None]  # [n, n] each, pixels off it
    rho = np.hypot(y / half[0], x / half[1])  # 1 on the ellipse of the box
    within = rho <= 1.05
    around = (rho > 1.3) & (np.hypot(y / (half[0] + _AROUND), x / (half[1] + _AROUND)) < 1) & breast
    if not (around.any() and within.any()):
        raise InputError(f"the box {tuple(box)} needs breast around it.")
    level = float(np.median(values[around]))
    polar = _polar(values, middle, half)  # [radii, turn]
    inner, outer = _RADII <= 0.5, (_RADII > 0.6) & (_RADII <= 1)
    down, across = np.gradient(ndimage.gaussian_filter(values, 0.7))
    outward = (down * y + across * x) ** 2 / (y**2 + x**2 + 1e-9)  # [n, n]
    annulus = (rho > 0.4) & (rho < 1.2)
    tophat = values - ndimage.grey_opening(values, (3, 3))
    usual = float(tophat[around].mean()) + 0.5
    spots = (tophat == ndimage.maximum_filter(tophat, 3)) & (tophat > 4 * usual + 2) & within
    return np.array([
        polar[_RADII <= 0.4].mean() - level,
        polar[outer].mean() - level,
        -np.diff(polar.mean(1)).min(),
        np.log((polar[outer].std() + 1) / (polar[inner].std() + 1)),
        1 - outward[annulus].sum() / ((down**2 + across**2)[annulus].sum() + 1e-9),
        np.log1p(int(spots.sum())),
        np.log((np.percentile(tophat[within], 95) + 0.5) / (np.percentile(tophat[around], 95) + 0.5)),
        np.log((box[2] - box[0]) * (box[3] - box[1]) / values.size),
    ])  # fmt: skip


def _polar(values: F64, middle: F64, half: F64) -> F64:
    """Gray on `_RADII` half boxes and `_TURN` directions around a box's middle, [radii, turn], between the pixels."""
    angle = np.arange(_TURN) * 2 * np.pi / _TURN
    down = middle[0] - 0.5 + _RADII[:, None] * half[0] * np.sin(angle)
    across = middle[1] - 0.5 + _RADII[:, None] * half[1] * np.cos(angle)
    return np.asarray(ndimage.map_coordinates(values, [down, across], order=1, mode="nearest"))


@dataclass(frozen=True)
class Reader:
    """A fitted regression: chances of the words of `READ` are softmax(((signs - mean) / sd, 1) @ weights).

    mean, sd: [8]. weights: [9, 4], the last row the intercepts.
    """

    mean: F64
    sd: F64
    weights: F64

    def chances(self, rows: ArrayLike) -> F64:
        """Chances `[N, 4]` of the words of `READ`, from signs `[N, 8]`; each row sums to 1."""
        return np.asarray(special.softmax(_standard(np.asarray(rows), self.mean, self.sd) @ self.weights, axis=1))


def _standard(rows: F64, mean: F64, sd: F64) -> F64:
    return np.column_stack([(rows - mean) / sd, np.ones(len(rows))])


def fit(rows: ArrayLike, words: Sequence[str], *, ridge: float = 1.0) -> Reader:
    """Multinomial logistic regression from signs `[N, 8]` to words of `READ`, `[N]`.

    ridge: weight of the sum of squared coefficients (standardized signs, intercepts free) against the log-likelihood.

    Raises
    ------
    InputError
        If a word is not one of `READ`, or one of them does not occur.
    """
    table = np.asarray(rows, np.float64)
    strange = sorted(set(words) ^ set(READ))
    if strange or len(table) != len(words):
        raise InputError(f"each row needs one of the words {', '.join(READ)}, and each word a row; see {strange[:3]}.")
    mean, sd = table.mean(0), table.std(0) + 1e-9
    x = _standard(table, mean, sd)  # [N, 9]
    wanted = np.eye(len(READ))[[READ.index(word) for word in words]]  # [N, 4]
    shape = (x.shape[1], len(READ))

    def loss(flat: F64) -> tuple[float, F64]:
        weights = flat.reshape(shape)
        logs = special.log_softmax(x @ weights, axis=1)
        slope = x.T @ (np.exp(logs) - wanted)
        slope[:-1] += ridge * weights[:-1]
        return -float((logs * wanted).sum()) + 0.5 * ridge * float((weights[:-1] ** 2).sum()), slope.ravel()

    found = optimize.minimize(loss, np.zeros(shape).ravel(), jac=True, method="L-BFGS-B", options={"maxiter": 2000})
    return Reader(mean, sd, found.x.reshape(shape))


@cache
def load_findings(world: str = "decoded") -> Reader:
    """The shipped reader for images as drawn or as decoded (`WORLDS`). InputError for another world."""
    if world not in WORLDS:
        raise InputError(f"the world {world!r} is unknown; use {' or '.join(WORLDS)}.")
    values = json.loads(Path(COEFFICIENTS).read_text(encoding="utf-8"))["readers"][world]
    return Reader(*(np.array(values[name]) for name in ("mean", "sd", "weights")))


def read_findings(
    images: Gray, boxes: Sequence[Box], breasts: Sequence[Mask], *, world: str = "decoded"
) -> F64:
    """Chances `[N, 4]` of the words of `READ` for what lies in one box of each image `[N, n, n]`.

    world: "decoded" for what a model or the autoencoder wrote, "drawn" for images as they are. The word read is that
    with the largest chance, `READ[k]` for k = argmax.

    Raises
    ------
    InputError
        If a box has no breast in it and around it, or the world is unknown.
    """
    rows = [signs(image, box, breast) for image, box, breast in zip(images, boxes, breasts, strict=True)]
    return load_findings(world).chances(np.stack(rows))


def confusion(asked: Sequence[str], read: Sequence[str], rows: Sequence[str] = READ) -> NDArray[np.int64]:
    """Counts `[rows, 4]`: how often what was asked (or true) was read as each word of `READ`."""
    counts = np.zeros((len(rows), len(READ)), np.int64)
    for wanted, found in zip(asked, read, strict=True):
        counts[list(rows).index(wanted), READ.index(found)] += 1
    return counts
