"""Failures planted on purpose, at a known strength: what the detectors of `mame_lib.evaluation.failures` are tried on.

Every function takes a uint8 [n, n] mammogram and returns a new one of its shape; what is random comes from the
generator that is given. `PLANTS` says which of them is meant for which failure, and at which strengths.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from mame_lib.data.case import VOCABULARY, Attributes
from mame_lib.data.masks import Mask
from mame_lib.data.prompts import compose, said
from mame_lib.errors import InputError
from mame_lib.evaluation import degradations

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

Gray = NDArray[np.uint8]
Plant = Callable[[Gray, Mask, float, np.random.Generator], Gray]


def gray_background(image: Gray, mask: Mask, level: float, rng: np.random.Generator) -> Gray:
    """The background raised to `level` gray levels, fading out over 2 % of the side at the skin; paper, Fig. 20b."""
    soft = ndimage.gaussian_filter((~mask).astype(np.float32), 0.01 * len(image))  # [n, n]
    return np.maximum(image, np.rint(level * soft).astype(np.uint8))


def white_noise(image: Gray, mask: Mask, sd: float, rng: np.random.Generator) -> Gray:
    """Noise of `sd` gray levels in every pixel, as a sampler leaves it that works on pixels."""
    return degradations.noisy(image, sd, rng)


def shuffled(image: Gray, mask: Mask, blocks: float, rng: np.random.Generator) -> Gray:
    """Cut into `blocks` x `blocks` squares that change places; what does not divide stays where it is.

    Of eight orders the one is taken that changes most pixels: two black corners that change places are no failure.
    """
    count = int(blocks)
    step = len(image) // count
    whole = image[: step * count, : step * count]
    squares = whole.reshape(count, step, count, step).swapaxes(1, 2).reshape(-1, step, step)
    tried = [_put(image, squares[rng.permutation(len(squares))], count) for _ in range(8)]
    changes = [np.abs(one.astype(np.int16) - image).mean() for one in tried]
    return tried[int(np.argmax(changes))]


def _put(image: Gray, squares: Gray, count: int) -> Gray:
    step = squares.shape[1]
    placed = image.copy()
    placed[: step * count, : step * count] = (
        squares.reshape(count, count, step, step).swapaxes(1, 2).reshape(step * count, -1)
    )
    return placed


def in_pieces(image: Gray, mask: Mask, pieces: float, rng: np.random.Generator) -> Gray:
    """The breast cut into slanted slices, `pieces` of them, with black gaps of 6 to 10 % of the side between them."""
    side = len(image)
    rows = np.flatnonzero(mask.any(1))
    cuts = rows[0] + len(rows) * (np.arange(1, int(pieces)) + rng.uniform(-0.15, 0.15, int(pieces) - 1)) / int(pieces)
    y, x = np.mgrid[:side, :side]
    slanted = y + rng.uniform(-0.4, 0.4) * x  # [n, n]
    gaps = [np.abs(slanted - cut) < 0.5 * side * rng.uniform(0.06, 0.1) for cut in cuts]
    return np.where(np.any(gaps, axis=0), np.uint8(0), image)


def with_holes(image: Gray, mask: Mask, holes: float, rng: np.random.Generator) -> Gray:
    """`holes` black disks in the breast, their radii 5 to 9 % of the side."""
    pierced = image.copy()
    inside = np.argwhere(mask)
    y, x = np.mgrid[: len(image), : len(image)]
    for top, left in inside[rng.integers(len(inside), size=int(holes))]:
        pierced[np.hypot(y - top, x - left) < rng.uniform(0.05, 0.09) * len(image)] = 0
    return pierced


def doubled(image: Gray, mask: Mask, share: float, rng: np.random.Generator) -> Gray:
    """A second breast, the mirror of the first and `share` of its brightness, at the other side of the image."""
    return np.maximum(image, np.rint(share * image[:, ::-1].astype(np.float32)).astype(np.uint8))


def mirrored(image: Gray, mask: Mask, strength: float, rng: np.random.Generator) -> Gray:
    """The breast at the wrong side, whatever the strength."""
    return np.ascontiguousarray(image[:, ::-1])


def melted(image: Gray, mask: Mask, share: float, rng: np.random.Generator) -> Gray:
    """A blurred blob: Gaussian blur, sigma a `share` of the side."""
    return degradations.blurred(image, share * len(image))


def clouds(image: Gray, mask: Mask, size: float, rng: np.random.Generator) -> Gray:
    """No breast at all: gray clouds on black, their width a share `size` of the side, as bright as the breast was."""
    field = ndimage.gaussian_filter(rng.standard_normal(image.shape), size * len(image), mode="wrap")
    height = np.clip(field / field.std() - rng.uniform(0, 0.5), 0, 1)  # [n, n]
    return np.asarray(np.rint(height * float(np.percentile(image[mask], 80))), np.uint8)


@dataclass(frozen=True)
class Kind:
    """One way to plant a failure: the function, and strengths from barely to plainly visible."""

    plant: Plant
    strengths: tuple[float, ...]
    unit: str


# What lies below the first strength is hard to see with the eye too (levels of 255 on black, soft at 128 px).
PLANTS: dict[str, dict[str, Kind]] = {
    "noise": {"white noise": Kind(white_noise, (4, 6, 10, 16), "gray levels")},
    "background": {"gray background": Kind(gray_background, (8, 12, 20, 40, 80), "gray levels")},
    "nonsense": {
        "shuffled": Kind(shuffled, (2, 3, 4, 6), "blocks a side"),
        "in pieces": Kind(in_pieces, (2, 3, 4), "pieces"),
        "holes": Kind(with_holes, (2, 4, 8), "holes"),
        "doubled": Kind(doubled, (0.5, 1.0), "of the brightness"),
        "mirrored": Kind(mirrored, (1.0,), ""),
        "melted": Kind(melted, (0.04, 0.06, 0.1), "of the side"),
        "clouds": Kind(clouds, (0.04, 0.06, 0.09), "of the side"),
    },
}
LATENT_NOISE = (0.2, 0.3, 0.5, 0.8)  # sd added to scaled latents: a walk stopped where its noise is that strong


def unfinished(images: Gray, vae: AutoencoderKL, sd: float, seed: int) -> Gray:
    """Images [N, n, n] with noise of standard deviation `sd` left in their latents, whose own is about 1.

    A walk that stops early leaves the same: what is decoded is signal and noise, not signal alone; paper, Fig. 20a.
    """
    return degradations.round_trip(images, vae, latent_noise=sd, seed=seed)


def other_prompt(attributes: Attributes, others: Sequence[Attributes], rng: np.random.Generator) -> str:
    """A caption of training's kind that is true of one of `others` and not of an image with `attributes`.

    Raises
    ------
    InputError
        If every caption of `others` is true of the image as well.
    """
    wrong = [part for part in (said(other, "training") for other in others) if unlike(attributes, part)]
    if not wrong:
        raise InputError("every one of the other captions is true of this image; give images that differ.")
    return compose(wrong[int(rng.integers(len(wrong)))])


def unlike(attributes: Attributes, asked: Attributes) -> tuple[str, ...]:
    """Names of the attributes that `asked` says otherwise than `attributes`."""
    return tuple(name for name, word in asked.to_dict().items() if getattr(attributes, name) != word)


def one_word_off(attributes: Attributes, name: str, rng: np.random.Generator) -> str:
    """The caption of `attributes` with another word for the attribute `name`: the hardest wrong prompt there is."""
    words = [word for word in VOCABULARY[name] if word != getattr(attributes, name)]
    return compose(replace(attributes, **{name: words[int(rng.integers(len(words)))]}))
