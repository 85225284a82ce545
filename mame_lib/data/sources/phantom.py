"""The source that needs no data: procedural phantoms, drawn as they are asked for."""

from __future__ import annotations

from collections.abc import Iterator

from mame_lib.data.case import Attributes
from mame_lib.data.manifest import Item
from mame_lib.data.prompts import training_prompt
from mame_lib.errors import InputError

SIZES = (64, 1024)  # smallest and largest side, pixels


def phantom_source(count: int, size: int = 128, seed: int = 0, vendor: str | None = None) -> Iterator[Item]:
    """`count` phantoms of the population `seed`, captioned by the paper's trick; each is its own patient.

    With `vendor` all images have that look and, as in the paper's two separate models, no caption says it.

    Raises
    ------
    InputError
        If count, size or seed is out of range (at once, not at the first image).
    """
    from mame_lib.data.phantom import population

    if not SIZES[0] <= size <= SIZES[1] or size % 8:
        raise InputError(f"size {size} is not possible; use a multiple of 8 from {SIZES[0]} to {SIZES[1]} pixels.")
    if count < 1:
        raise InputError(f"count {count} is too small; ask for 1 or more phantoms.")
    if seed < 0:
        raise InputError(f"seed {seed} is negative; use 0 or more.")
    drawn = population(count, size=size, seed=seed, attributes=Attributes(vendor=vendor))
    return (
        Item(
            image=phantom.image,
            mask=phantom.mask,
            patient=f"phantom-{seed}-{index:06d}",
            prompt=training_prompt(phantom.attributes, say_vendor=vendor is None),
            attributes=phantom.attributes,
            source="phantom",
            truth={"area_ratio": phantom.area_ratio, "glandular_fraction": phantom.glandular_fraction},
        )
        for index, phantom in enumerate(drawn)
    )
