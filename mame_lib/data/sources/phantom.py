"""The source that needs no data: procedural phantoms, drawn as they are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from mame_lib.data.case import FINDINGS, Attributes
from mame_lib.data.geometry import check_size
from mame_lib.data.manifest import Item
from mame_lib.data.prompts import FINDING_PROMPTS, training_prompt
from mame_lib.errors import InputError

if TYPE_CHECKING:
    from mame_lib.data.lesions import LesionSpec

_LEAST_AREA = 1e-3  # of the image; below this a box fits into every breast


def phantom_source(
    count: int,
    size: int = 128,
    seed: int = 0,
    vendor: str | None = None,
    *,
    priors: str = "uniform",
    lesions: float = 0.0,
    lesion_kind: str | None = None,
    lesion_area: tuple[float, float] | None = None,
    say_findings: bool = False,
) -> Iterator[Item]:
    """`count` phantoms of the population `seed`, captioned by the paper's trick; each is its own patient.

    With `vendor` all images have that look and, as in the paper's two separate models, no caption says it.
    priors: "uniform", or "paper" for the shares of the paper's data (see `phantom.draw`). lesions: share of images
    with one lesion, 0 to 1, under the inpainting caption; which ones depends on the seed and the index alone.
    lesion_kind: "mass" or "calcifications" for all of them; None draws it. lesion_area: smallest and largest box
    area as shares of the image, between which the logarithm is uniform (smaller where the breast has no room); None
    draws the paper's sizes. say_findings: a mass, a spiculated mass and a calcification cluster equally often, every
    second one at random under its own words, the others under the paper's caption for all lesions.

    Raises
    ------
    InputError
        If count, size, seed, priors, lesions or lesion_area is out of range, or both a kind and findings are asked
        for (at once, not at the first image).
    """
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
    if lesion_area is not None and not 0 < lesion_area[0] <= lesion_area[1] <= 0.25:
        raise InputError(f"the lesion areas {lesion_area} must rise from above 0 to 0.25 of the image at most.")
    if say_findings and lesion_kind is not None:
        raise InputError("lesion_kind makes all lesions alike, say_findings draws three kinds; choose one of them.")
    wanted = _Wanted(lesions, lesion_kind, lesion_area, say_findings)
    return (_item(index, size, seed, vendor, priors, wanted) for index in range(count))


@dataclass(frozen=True)
class _Wanted:
    """What is asked of the lesions; see `phantom_source`."""

    share: float
    kind: str | None
    area: tuple[float, float] | None
    say: bool

    def draw(self, rng: np.random.Generator) -> tuple[str, LesionSpec | None]:
        """The finding of one image, and its lesion where more than the finding is asked for."""
        from mame_lib.data.lesions import LesionSpec

        finding = FINDINGS[1 + int(rng.integers(len(FINDINGS) - 1))] if self.say else "lesion"
        chance, position = rng.random(2)
        spec = LesionSpec(kind=self.kind) if self.kind else LesionSpec.of_finding(finding, chance)
        area = None if self.area is None else float(self.area[0] * (self.area[1] / self.area[0]) ** position)
        return finding, None if (spec, area) == (LesionSpec(), None) else replace(spec, area=area)


def _item(index: int, size: int, seed: int, vendor: str | None, priors: str, wanted: _Wanted) -> Item:
    from mame_lib.data.phantom import draw

    rng = np.random.default_rng([seed, index])
    ill = bool(rng.random() < wanted.share)
    finding, spec = wanted.draw(rng) if ill else (None, None)
    asked = Attributes(vendor=vendor, finding=finding)
    while True:
        try:
            phantom = draw(asked, size=size, seed=seed, index=index, priors=priors, lesion=spec)
            break
        except InputError:
            if spec is None or spec.area is None or spec.area < _LEAST_AREA:
                raise
            spec = replace(spec, area=0.7 * spec.area)  # no room for a box as large as this
    said = phantom.attributes
    caption = training_prompt(said, say_vendor=vendor is None)
    if finding is not None:
        caption = FINDING_PROMPTS[finding if wanted.say and rng.random() < 0.5 else "lesion"]
    return Item(
        image=phantom.image,
        mask=phantom.mask,
        lesion=phantom.lesion_mask if ill else None,
        boxes=tuple(lesion.box for lesion in phantom.lesions),
        kept=(1.0,) * len(phantom.lesions),
        patient=f"phantom-{seed}-{index:06d}",
        prompt=caption,
        attributes=said,
        source="phantom",
        truth={"area_ratio": phantom.area_ratio, "glandular_fraction": phantom.glandular_fraction},
    )
