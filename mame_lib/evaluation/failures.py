"""The four failures of the paper's Fig. 20, found without looking: `examine` and `screen`.

Residual noise, gray background, a prompt that is not met, nonsense. Each detector gives a score in units of its own
limit: above 1 it has found the failure. The limits were set on phantoms of one seed, as drawn and through the tiny
autoencoder; benchmarks/results/failures.json holds what they are worth on phantoms of another, on planted failures
on real mammograms and on what a trained model makes. Nothing is learned and nothing is known of a model, so they may
judge any.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from mame_lib.data.case import Attributes
from mame_lib.data.masks import Mask, breast_mask
from mame_lib.data.prompts import understood
from mame_lib.errors import InputError
from mame_lib.evaluation.attributes import Measured, measure_all
from mame_lib.evaluation.outline import oddities

Gray = NDArray[np.uint8]
Prompt = str | Attributes

FAILURES = ("noise", "background", "prompt", "nonsense")
SMALLEST = 64  # pixels of the side

# Where a score is 1. Phantoms through the autoencoder reach 1.3 and 3 in the first two.
NOISE = 2.0  # gray levels: standard deviation within a tile of the background
BACKGROUND = 5.0  # gray levels: lower quartile of the darkest twentieth of the tiles
CHANCE = 0.05  # of the word that was asked for, as the measures see it
ODD = {
    "pieces": 0.1, "holes": 0.06, "afloat": 0.45, "walls": 0.06, "waist": 0.014, "ragged": 0.01, "soft": 0.064,
    "full": 0.95,
}  # fmt: skip
LEAST = 0.06  # share of the image, below which a breast is too small to be one

_TILES = 8  # a side
_FREE = 2  # tiles of background, below which the quietest of the whole image stand for them


class Verdict(NamedTuple):
    """failed: None where it cannot be said. score: 1 is the limit, higher is worse, nan where nothing was measured.
    reason: a clause in words and numbers."""

    failed: bool | None
    score: float
    reason: str


@dataclass(frozen=True)
class Examination:
    """What was found in one image, a `Verdict` for each of `FAILURES`."""

    noise: Verdict
    background: Verdict
    prompt: Verdict
    nonsense: Verdict

    @property
    def failures(self) -> tuple[str, ...]:
        """Names of the failures found; what cannot be said is none."""
        return tuple(name for name in FAILURES if getattr(self, name).failed)


def examine(images: Sequence[Gray] | Gray, prompts: Sequence[Prompt] | None = None) -> list[Examination]:
    """Look for the four failures in uint8 [N, n, n] images of n >= 64 pixels; some 18 ms each at 128 px, 52 at 512.

    Without `prompts` (one an image) nothing is said about them, and the breast may lie at either side. With them its
    chest wall must be at the left, or where an `Attributes` says: a sentence never does, since a right breast is
    drawn as the mirror of a left one. Sentences outside the grammar ask for nothing that can be measured.

    Raises
    ------
    InputError
        If an image is not a square of 64 pixels or more in uint8, or the prompts are not as many as the images.
    """
    for image in images:
        if image.ndim != 2 or image.shape[0] != image.shape[1] or image.dtype != np.uint8 or len(image) < SMALLEST:
            raise InputError(
                f"examine needs square uint8 images of {SMALLEST} pixels or more, not {image.dtype} {image.shape}; "
                "use mame_lib.data.geometry.to_square."
            )
    if prompts is None:
        silent = Verdict(None, math.nan, "no prompt was given")
        return [Examination(noise(image), background(image), silent, nonsense(image)) for image in images]
    if len(prompts) != len(images):
        raise InputError(f"there are {len(prompts)} prompts for {len(images)} images; give one for each.")
    return [
        _with_prompt(image, asked, found)
        for image, asked, found in zip(images, map(_asked, prompts), measure_all(images), strict=True)
    ]


def screen(images: Sequence[Gray] | Gray, prompts: Sequence[Prompt] | None = None) -> list[bool]:
    """For each image whether it may be kept: none of the four failures was found. Arguments and errors of `examine`."""
    return [not examination.failures for examination in examine(images, prompts)]


def badness(images: Sequence[Gray] | Gray, prompts: Sequence[Prompt] | None = None) -> list[float]:
    """The worst of each image's four scores, where 1 is the limit; what cannot be said counts as 0.

    Arguments and errors of `examine`. `Mame.generate(..., quality="screen")` draws again what is above 1.
    """
    return [
        max(0.0 if math.isnan(score) else score for score in (getattr(one, name).score for name in FAILURES))
        for one in examine(images, prompts)
    ]


def noise(image: Gray) -> Verdict:
    """Residual noise: the standard deviation in gray levels within 1/8 x 1/8 of the image, median over background.

    The background of a mammogram is flat, so all that varies there is noise, fine or coarse: decoded latents that
    were not denoised to the end leave blobs of about eight pixels, which no filter for the finest detail would see.
    """
    rough = _tiles(image.astype(np.float32)).std(1)  # [64]
    free = _tiles(~_wide(breast_mask(image))).all(1)
    value = float(np.median(rough[free]) if free.sum() >= _FREE else np.quantile(rough, 0.05))
    return _judged(value / NOISE, f"the background varies by {value:.1f} gray levels (limit {NOISE:g})")


def background(image: Gray) -> Verdict:
    """Gray background: the level of the darkest places, 1/8 x 1/8 of the image each.

    No mask is needed, which a gray background could mislead. The lower quartile within each place keeps noise on
    black from counting as gray.
    """
    level = float(np.quantile(np.quantile(_tiles(image), 0.25, axis=1), 0.05))
    return _judged(level / BACKGROUND, f"the darkest places are at gray level {level:.0f} (limit {BACKGROUND:g})")


def _tiles(values: NDArray[Any]) -> NDArray[Any]:
    """[n, n] -> [64, pixels]: the squares of 1/8 of the side; up to seven rows and columns at the end are left out."""
    step = len(values) // _TILES
    whole = values[: step * _TILES, : step * _TILES]
    return whole.reshape(_TILES, step, _TILES, step).swapaxes(1, 2).reshape(_TILES**2, step * step)


def _wide(mask: Mask) -> Mask:
    """The breast and 4 % of the side around it, where ripples of its edge may reach."""
    return np.asarray(ndimage.binary_dilation(mask, iterations=round(0.04 * len(mask)))) if mask.any() else mask


_ODD_WORDS = {
    "pieces": "{0:.0%} of the breast's area is bright elsewhere",
    "holes": "{0:.0%} of the breast is black",
    "afloat": "{0:.0%} of the breast's rows don't reach the chest wall",
    "walls": "{0:.0%} of the rows touch the border opposite to the chest wall",
    "waist": "the outline draws in and comes out again ({0:.1%} of the area)",
    "ragged": "the outline is ragged ({0:.1%} of the side)",
    "soft": "the skin's edge is {0:.1%} of the side wide",
    "full": "{0:.0%} of the image is breast",
}


def nonsense(image: Gray, side: str | None = None) -> Verdict:
    """No breast, more than one, at the wrong `side` (L or R; None allows both), or none that could be one.

    The score is that of the worst of `outline.oddities` against its limit in `ODD`.
    """
    odd = oddities(image)
    if "empty" in odd:
        return _judged(2.0, "there is no breast")
    full = odd["full"]
    found = {name: (odd[name] / limit, _ODD_WORDS[name].format(odd[name])) for name, limit in ODD.items()}
    found["small"] = (LEAST / full, f"the breast is {full:.1%} of the image")
    if side is not None:
        far = _share_at(breast_mask(image), "R" if side == "L" else "L")
        found["side"] = (far / 0.5, f"{far:.0%} of the breast's border pixels are at the wrong side")
    return _judged(*max(found.values()))


def _share_at(mask: Mask, side: str) -> float:
    """Share of the mask's pixels in both border strips (1/32 of the side) that lies on `side`."""
    strip = max(1, len(mask) // 32)
    both = int(mask[:, :strip].sum()), int(mask[:, -strip:].sum())
    return both["LR".index(side)] / max(1, sum(both))


def met(found: Measured, asked: Attributes) -> Verdict:
    """Whether the attributes that `asked` says are there: their chances as measured, the least decides.

    Below `CHANCE` the prompt is not met, above one half it is, in between it cannot be said. The score is the
    logarithm of that chance over that of the limit. Lesions are not measured, laterality belongs to `nonsense`.
    """
    chances = found.chances(asked)
    if not chances:
        return Verdict(None, math.nan, "the prompt asks for nothing that is measured")
    name, chance = min(chances.items(), key=lambda item: item[1])
    score = math.log(max(chance, 1e-12)) / math.log(CHANCE)
    wish, seen = getattr(asked, name), getattr(found, name)
    reason = f"{name} {wish} was asked for and has a chance of {chance:.2g} (limit {CHANCE:g}); {seen} is seen"
    return Verdict(None if CHANCE <= chance < 0.5 else chance < CHANCE, score, reason)


def _asked(prompt: Prompt) -> Attributes:
    """What a prompt says; nothing if it is outside the grammar."""
    if isinstance(prompt, Attributes):
        return prompt
    if not isinstance(prompt, str):
        raise InputError(f"a prompt is a sentence or Attributes, not {type(prompt).__name__}.")
    return understood(prompt) or Attributes()


def _with_prompt(image: Gray, asked: Attributes, found: Measured) -> Examination:
    shape = nonsense(image, asked.laterality or "L")
    wish = Verdict(None, math.nan, "what is no breast has no attributes") if shape.failed else met(found, asked)
    return Examination(noise(image), background(image), wish, shape)


def _judged(score: float, reason: str) -> Verdict:
    return Verdict(score > 1, float(score), reason)
