"""What image number i of a population is to show: `plan`, a pure function of the population and the number.

Each attribute is drawn by itself, from a number in 0..1 that a hash makes of seed, attribute and i. So the shares
hold on average, not exactly (the data card tests them), and nothing depends on how many images are made, by whom,
and in which order: a larger population begins with the smaller one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mame_lib.data.case import Attributes
from mame_lib.data.prompts import FINDING_PROMPTS, compose, said
from mame_lib.synthesize.spec import NONE, SAID, TABLES, Spec

BLOCK = 8  # consecutive images that are always made together


@dataclass(frozen=True)
class Plan:
    """One image before it is made.

    attributes : what the sentence says, side and finding. What it leaves unsaid is nowhere asked for.
    prompt, lesion_prompt : of the breast; of the lesion, None without one.
    """

    index: int
    attributes: Attributes
    order: str
    prompt: str
    lesion_prompt: str | None
    split: str

    @property
    def name(self) -> str:
        """The image's file name, without its extension."""
        return f"{self.index:06d}"


def unit(seed: int, stream: str, index: int) -> float:
    """A uniform number in 0..1, 1 excluded, that depends on the three alone: 53 bits of their hash."""
    return (_hash(seed, stream, index) >> 11) * 2.0**-53


def draws(spec: Spec, index: int) -> dict[str, str]:
    """The word of each of `TABLES` that image `index` drew, whether its sentence will say it or not."""
    return {name: _word(spec.shares[name], words, unit(spec.seed, name, index)) for name, words in TABLES.items()}


def plan(spec: Spec, index: int) -> Plan:
    """What image `index` of the population is to show."""
    drawn = draws(spec, index)
    finding = None if drawn["finding"] == NONE else drawn["finding"]
    words = Attributes(**{name: None if drawn[name] == NONE else drawn[name] for name in SAID})
    spoken = said(words, drawn["order"])
    return Plan(
        index=index,
        attributes=Attributes(**spoken.to_dict(), laterality=drawn["laterality"], finding=finding),
        order=drawn["order"],
        prompt=compose(words, drawn["order"]),
        lesion_prompt=None if finding is None else FINDING_PROMPTS[finding],
        split=drawn["split"],
    )


def block(spec: Spec, number: int) -> list[Plan]:
    """The images that are made together as block `number`."""
    return [plan(spec, index) for index in range(BLOCK * number, BLOCK * (number + 1))]


def _word(shares: Mapping[str, float], words: tuple[str, ...], chance: float) -> str:
    """The word in whose share of 0..1 `chance` falls."""
    possible = [word for word in words if shares.get(word, 0.0) > 0]
    upper = np.cumsum([shares[word] for word in possible])
    return possible[min(int(np.searchsorted(upper, chance, side="right")), len(possible) - 1)]


def _hash(seed: int, stream: str, index: int) -> int:
    """64 bits. As in `diffusion.start`: the three are hashed, not added."""
    digest = hashlib.blake2b(f"{seed}/synthesize {stream}/{index}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")
