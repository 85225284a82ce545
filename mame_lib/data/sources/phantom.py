"""The source that needs no data: procedural phantoms, drawn as they are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from mame_lib.data.case import Attributes
from mame_lib.data.geometry import check_size
from mame_lib.data.manifest import Item
from mame_lib.data.prompts import LESION_PROMPT, training_prompt
from mame_lib.errors import InputError

if TYPE_CHECKING:
    from mame_lib.data.lesions import LesionSpec


def phantom_source(
    count: int,
    size: int = 128,
    seed: int = 0,
    vendor: str | None = None,
    *,
    priors: str = "uniform",
    lesions: float = 0.0,
    lesion_kind: str | None = None,
) -> Iterator[Item]:
    """`count` phantoms of the population `seed`, captioned by the paper's trick; each is its own patient.

    With `vendor` all images have that look and, as in the paper's two separate models, no caption says it.
    priors: "uniform", or "paper" for the shares of the paper's data (see `phantom.draw`). lesions: share of images
    with one lesion, 0 to 1, under the inpainting caption; which ones depends on the seed and the index alone.
    lesion_kind: "mass" or "calcifications" for all of them; None draws it.

    Raises
    ------
    InputError
        If count, size, seed, priors or lesions is out of range (at once, not at the first image).
    """
    from mame_lib.data.lesions import LesionSpec
    from mame_lib.data.phantom import PRIORS

    check_size(size)
    if count < 1:
        raise InputError(f"count {count} is too small; ask for 1 or more phantoms.")
    if seed < 0:
        raise InputError(f"seed {seed} is negative; use 0 or more.")
    if priors not in PRIORS:
        raise InputError(f"priors {priors!r} are unknown; use {' or '.join(PRIORS)}.")
    if not 0 <= lesions <= 1:
        raise InputError(f"the share of lesions {lesions} is not between 0 and 1.")
    spec = LesionSpec(kind=lesion_kind) if lesion_kind is not None else None
    return (_item(index, size, seed, vendor, priors, lesions, spec) for index in range(count))


def _item(
    index: int, size: int, seed: int, vendor: str | None, priors: str, lesions: float, spec: LesionSpec | None
) -> Item:
    from mame_lib.data.phantom import draw

    ill = bool(np.random.default_rng([seed, index]).random() < lesions)
    asked = Attributes(vendor=vendor, finding="lesion" if ill else None)
    phantom = draw(asked, size=size, seed=seed, index=index, priors=priors, lesion=spec if ill else None)
    said = phantom.attributes
    return Item(
        image=phantom.image,
        mask=phantom.mask,
        lesion=phantom.lesion_mask if ill else None,
        boxes=tuple(lesion.box for lesion in phantom.lesions),
        kept=(1.0,) * len(phantom.lesions),
        patient=f"phantom-{seed}-{index:06d}",
        prompt=LESION_PROMPT if ill else training_prompt(said, say_vendor=vendor is None),
        attributes=said,
        source="phantom",
        truth={"area_ratio": phantom.area_ratio, "glandular_fraction": phantom.glandular_fraction},
    )
