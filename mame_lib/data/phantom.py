"""A procedural mammogram with known truth: `draw` one, or a whole `population`.

Not a simulation of physics but a stylized picture whose factors (view, vendor look, breast area, glandular
fraction, side, lesion) are chosen, known exactly, and visible. The vendor looks are teaching stylizations.

Glandular fractions. What a density word means by volume depends on who measures: BI-RADS A to D hold about 5, 15,
34 and 60 % gland in the VICTRE phantoms (Badano et al., JAMA Netw. Open 2018), 18, 32, 49 and 73 % by single-energy
absorptiometry, and 95 % of women stay under 45 % (Yaffe et al., Med. Phys. 2009). `GLANDULAR_RANGES` follows the
first, lowers D to stay under the last, and leaves gaps between the words, so that a word can be read back.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import special

from mame_lib.data import anatomy
from mame_lib.data.case import AREAS, DENSITIES, VENDORS, VIEWS, Attributes
from mame_lib.data.geometry import SIZES
from mame_lib.data.lesions import Lesion, LesionSpec, insert
from mame_lib.data.looks import LOOKS, burn_marker, present
from mame_lib.data.texture import Stream
from mame_lib.data.tissue import grow
from mame_lib.errors import InputError

PRIORS = ("uniform", "paper")

# Volumetric glandular fraction drawn for each word.
GLANDULAR_RANGES = {
    "very low": (0.035, 0.075),
    "low": (0.105, 0.165),
    "high": (0.22, 0.32),
    "very high": (0.40, 0.54),
}
# The paper's data: shares of the density words in VinDr-Mammo, area ratio of OMI-H as a cut normal distribution.
PAPER_DENSITY = {"very low": 0.005, "low": 0.085, "high": 0.775, "very high": 0.135}
PAPER_AREA = (0.435, 0.135)  # mean, standard deviation before the cut
_PAPER_RANGES = {"small": (0.08, 0.40), "medium": (0.40, 0.60), "big": (0.60, 0.91)}
_THICKNESS_MM = {"very low": 60.0, "low": 55.0, "high": 47.0, "very high": 40.0}


@dataclass(frozen=True)
class Phantom:
    """One drawn mammogram and its truth.

    image: uint8 [n, n], background exactly 0, left-facing (chest wall at x = 0) unless laterality is R.
    mask: bool [n, n], the breast. pectoral: bool [n, n], the muscle (empty in CC views).
    glandular_fraction: gland volume / breast volume, 0..1, without the lesion. area_ratio: breast pixels / all
    pixels. lesions: what was put in, empty in a healthy breast. noise: as asked. marker: bool [n, n], pixels of
    the burned-in view marker, or None if there is none or no room for it.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    glandular_fraction: float
    area_ratio: float
    attributes: Attributes
    pectoral: NDArray[np.bool_]
    lesions: tuple[Lesion, ...] = ()
    noise: float = 0.0
    marker: NDArray[np.bool_] | None = None

    @property
    def lesion_mask(self) -> NDArray[np.bool_]:
        """bool [n, n]: the pixels of all lesions; nothing in a healthy breast."""
        union = np.zeros_like(self.mask)
        for lesion in self.lesions:
            union |= lesion.mask
        return union


def draw(
    attributes: Attributes | None = None,
    *,
    size: int = 128,
    seed: int = 0,
    index: int = 0,
    priors: str = "uniform",
    lesion: LesionSpec | None = None,
    noise: float = 0.0,
    marker: bool = False,
) -> Phantom:
    """Draw phantom `index` of the population `seed`; the same arguments always give the same bytes.

    Attributes that are not said are drawn from (seed, index), except laterality, which is L: each word equally
    often (priors="uniform"), or as often as in the paper's data (priors="paper"). A `lesion`, or a finding
    (then all that its word leaves open is drawn), is put into the same breast that is drawn without it.
    noise: quantum noise, 1 is a usual dose. marker: burn the view ("R MLO") into a corner.

    Raises
    ------
    InputError
        If size, seed, index, noise or priors is out of range, or the lesion asked for does not fit.
    """
    _check(size, seed, index, priors, noise)
    stream = Stream(seed, index)
    asked = _complete(attributes or Attributes(), stream.generator(0), priors)
    assert asked.view and asked.area and asked.density and asked.vendor
    look = LOOKS[asked.vendor]
    rng = stream.generator(1)
    area = _area(asked.area, rng.uniform(), priors)
    target = rng.uniform(*GLANDULAR_RANGES[asked.density])
    full_mm = _THICKNESS_MM[asked.density] * rng.uniform(0.85, 1.2)
    shape = anatomy.build_shape(rng, asked.view, area, size, look.side_mm)
    thick = anatomy.thickness(shape.skin_mm, full_mm)
    gland, septa = grow(stream, shape, thick, target)
    right = asked.laterality == "R"
    lesions: tuple[Lesion, ...] = ()
    added = None
    if lesion is not None or asked.finding:
        spec = lesion or LesionSpec.of_finding(str(asked.finding), stream.generator(6).random())
        spec = spec.mirrored() if right else spec
        one, added = insert(spec, stream, shape, thick, gland, full_mm=full_mm, side_mm=look.side_mm)
        lesions, asked = (one,), replace(asked, finding=asked.finding or "lesion")
    image = present(stream, shape, thick, gland, septa, look, full_mm=full_mm, added=added, noise=noise)
    volume = float(thick[shape.mask].sum())
    fraction = float((gland * thick)[shape.mask].sum()) / volume
    muscle = shape.pectoral > 0.5
    mask = shape.mask
    if right:
        image, mask, muscle = image[:, ::-1].copy(), mask[:, ::-1].copy(), muscle[:, ::-1].copy()
        lesions = tuple(one.mirrored() for one in lesions)
    burned = burn_marker(image, mask, f"{asked.laterality} {asked.view}") if marker else None
    return Phantom(image, mask, fraction, float(mask.mean()), asked, muscle, lesions, float(noise), burned)


def population(
    count: int,
    *,
    size: int = 128,
    seed: int = 0,
    attributes: Attributes | None = None,
    priors: str = "uniform",
    noise: float = 0.0,
    marker: bool = False,
) -> Iterator[Phantom]:
    """Yield `count` phantoms, index 0 to count - 1; each depends on (seed, its index) and the keywords only."""
    if count < 0:
        raise InputError(f"count {count} is negative; ask for 0 or more phantoms.")
    return (
        draw(attributes, size=size, seed=seed, index=index, priors=priors, noise=noise, marker=marker)
        for index in range(count)
    )


def _check(size: int, seed: int, index: int, priors: str, noise: float) -> None:
    for name, value in (("size", size), ("seed", seed), ("index", index)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer):
            raise InputError(f"phantom {name} {value!r} is not an integer; give a whole number.")
    if not SIZES[0] <= size <= SIZES[1]:
        raise InputError(f"phantom size {size} is out of range; use {SIZES[0]} to {SIZES[1]} pixels.")
    if seed < 0 or index < 0:
        raise InputError(f"phantom seed {seed} and index {index} must be 0 or more.")
    if priors not in PRIORS:
        raise InputError(f"phantom priors {priors!r} are unknown; use {' or '.join(PRIORS)}.")
    if not 0 <= noise <= 10:
        raise InputError(f"phantom noise {noise} is out of range; use 0 (none) to 10, where 1 is a usual dose.")


def _cut(bounds: tuple[float, float]) -> tuple[float, float]:
    """Probabilities below the two `bounds` under the normal distribution `PAPER_AREA`."""
    low, high = (float(special.ndtr((bound - PAPER_AREA[0]) / PAPER_AREA[1])) for bound in bounds)
    return low, high


def _complete(said: Attributes, rng: np.random.Generator, priors: str) -> Attributes:
    """Fill in what is not said; all are drawn, said or not, so that saying one never changes another."""
    sizes = np.diff([_cut(_PAPER_RANGES[word]) for word in AREAS], axis=1)[:, 0]
    shares = {"area": sizes / sizes.sum(), "density": np.array([PAPER_DENSITY[word] for word in DENSITIES])}
    drawn = {}
    for name, words in (("vendor", VENDORS), ("view", VIEWS), ("area", AREAS), ("density", DENSITIES)):
        if priors == "paper" and name in shares:
            drawn[name] = words[int(rng.choice(len(words), p=shares[name]))]
        else:
            drawn[name] = words[int(rng.integers(len(words)))]
    return replace(said, **{**drawn, "laterality": "L", **said.to_dict()})


def _area(word: str, chance: float, priors: str) -> float:
    """Area ratio at the quantile `chance` (0..1) of its distribution within the word."""
    if priors == "uniform":
        low, high = anatomy.AREA_RANGES[word]
        return low + chance * (high - low)
    low, high = _PAPER_RANGES[word]
    # the nipple and partly covered pixels add up to 0.007: stay as far below the next word
    below, above = _cut((low, high - 0.008))
    return float(PAPER_AREA[0] + PAPER_AREA[1] * special.ndtri(below + chance * (above - below)))
