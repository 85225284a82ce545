"""Phantoms for the detector of `evaluation.cad`: the same breasts with a mass and without, and their boxes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mame_lib.data.lesions import LesionSpec
from mame_lib.data.phantom import draw
from mame_lib.data.pool import Lost, each
from mame_lib.errors import InputError
from mame_lib.evaluation.degradations import round_trip
from mame_lib.evaluation.froc import Box

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

# Share of the image in the box of a mass: from the lower quartile of the paper's masks to three times the upper one.
AREA = (0.003, 0.04)
SPICULATED = 0.3  # share of the masses whose margin is made so; of the others every fourth is drawn so


@dataclass(frozen=True)
class Cases:
    """N images and their truth.

    images: uint8 [N, n, n]. boxes: the lesion boxes of each, an empty list in a healthy one. breasts: which breast it
    is, int [N]; images of one breast belong together in every split and every bootstrap.
    """

    images: NDArray[np.uint8]
    boxes: list[list[Box]]
    breasts: NDArray[np.int64]

    @property
    def ill(self) -> NDArray[np.bool_]:
        """Whether each image has a lesion, [N]."""
        return np.array([len(some) > 0 for some in self.boxes], bool)

    def __len__(self) -> int:
        return len(self.images)

    def __add__(self, other: Cases) -> Cases:
        return Cases(
            np.concatenate([self.images, other.images]), self.boxes + other.boxes,
            np.concatenate([self.breasts, other.breasts]),
        )  # fmt: skip

    def take(self, rows: Sequence[int] | NDArray) -> Cases:
        """Some of the cases, by number or by a bool [N]."""
        asked = np.asarray(rows)
        where = np.arange(len(self))[asked if asked.size else asked.astype(int)]
        return Cases(self.images[where], [self.boxes[k] for k in where], self.breasts[where])


def mass(seed: int, index: int) -> LesionSpec:
    """The mass that breast `index` may get: its size log-uniform within `AREA`, every margin."""
    rng = np.random.default_rng([seed, index, 15])
    area = float(np.exp(rng.uniform(*np.log(AREA))))
    return LesionSpec(kind="mass", margin="spiculated" if rng.random() < SPICULATED else None, area=area)


def draw_case(seed: int, job: tuple[int, bool], size: int = 128) -> tuple[NDArray[np.uint8], list[Box]]:
    """Phantom `index` of the population `seed`, for a job (index, with a mass?); a mass that is too large shrinks."""
    index, ill = job
    if not ill:
        return draw(size=size, seed=seed, index=index).image, []
    spec = mass(seed, index)
    while True:
        try:
            phantom = draw(size=size, seed=seed, index=index, lesion=spec)
        except InputError:
            assert spec.area
            if spec.area < AREA[0] / 4:  # a breast without room for the smallest mass has none
                raise
            spec = LesionSpec(kind=spec.kind, margin=spec.margin, area=0.8 * spec.area)
            continue
        return phantom.image, [lesion.box for lesion in phantom.lesions]


def draw_cases(
    breasts: Iterable[int], seed: int, *, kinds: Sequence[bool] = (True, False), size: int = 128, workers: int = 0
) -> Cases:
    """Each of the breasts with a mass (True), without (False), or both in turn, as `kinds` says.

    A breast is the same with and without its mass. workers: processes that draw; 0 draws in this one.

    Raises
    ------
    InputError
        If there is no breast, or a number is out of range.
    """
    jobs = [(int(index), bool(ill)) for index in breasts for ill in kinds]
    if not jobs:
        raise InputError("there is no breast to draw; ask for one or more.")
    drawn = {}
    for job, made in each(partial(draw_case, seed, size=size), jobs, workers=workers):
        if isinstance(made, Lost):
            raise InputError(f"the drawing of breast {job[0]} was lost: {made.reason}.")
        drawn[job] = made
    pairs = [drawn[job] for job in jobs]
    return Cases(
        np.stack([image for image, _ in pairs]), [boxes for _, boxes in pairs], np.array([index for index, _ in jobs])
    )


def decoded(cases: Cases, vae: AutoencoderKL) -> Cases:
    """The cases after a round trip through an autoencoder, as what a latent diffusion model makes looks."""
    return Cases(round_trip(cases.images, vae), cases.boxes, cases.breasts)
