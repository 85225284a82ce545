"""Sets of images that are wrong in one known way, and which measures notice: `DAMAGES`, `sensitivity`.

A measure of fidelity is worth what it notices. So a set of phantoms is spoiled in one way at three strengths, and
measured against phantoms that are not. Some damages are done to each image (blur, noise), some to the set alone, with
every image as good as before: too many dense breasts, a vendor that is missing, few breasts again and again, copies
of the reals. Each damage names the measures that should see it; what the others say is the lesson.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from hashlib import blake2b
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mame_lib.data.case import Attributes
from mame_lib.data.phantom import Phantom, draw
from mame_lib.data.pool import each
from mame_lib.errors import InputError
from mame_lib.evaluation import degradations
from mame_lib.evaluation.features import Features, Gray
from mame_lib.evaluation.fidelity import measure, named, scaled
from mame_lib.evaluation.similarity import pairwise_ms_ssim

SIZE = 128
# Which way each measure goes when a set gets worse.
WORSE = {
    "frechet": 1, "extrapolated": 1, "kernel": 1, "precision": -1, "recall": -1, "density": -1, "coverage": -1,
    "authenticity": -1, "similarity": 1,
}  # fmt: skip
COMPARED = 60  # images whose pairs give the mean similarity


@dataclass(frozen=True)
class Phantoms:
    """Phantoms 0 to N - 1 of the population `seed`: images uint8 [N, n, n], masks bool [N, n, n], what they show."""

    images: Gray
    masks: NDArray[np.bool_]
    attributes: tuple[Attributes, ...]
    seed: int

    def __len__(self) -> int:
        return len(self.images)


def draw_phantoms(count: int, seed: int, *, workers: int = 0) -> Phantoms:
    """`count` phantoms of the population `seed`, all words equally often; workers: processes, 0 for none."""
    task = partial(_one, seed=seed)
    found = {index: one for index, one in each(task, range(count), workers=workers)}
    drawn = [one if isinstance(one := found[k], Phantom) else task(k) for k in range(count)]
    return Phantoms(
        np.stack([one.image for one in drawn]), np.stack([one.mask for one in drawn]),
        tuple(one.attributes for one in drawn), seed,
    )  # fmt: skip


def _one(index: int, seed: int) -> Phantom:
    return draw(size=SIZE, seed=seed, index=index)


@lru_cache(maxsize=1024)
def _instead(seed: int, index: int, name: str, word: str) -> Gray:
    """The same phantom with another word for one attribute; what else is drawn for it stays."""
    return draw(Attributes(**{name: word}), size=SIZE, seed=seed, index=index).image


@dataclass(frozen=True)
class Damage:
    """One way to spoil a set.

    strengths: weak, middle, strong, in `unit`. sees: measures of `WORSE` that should see it. spoil: makes the images
    [M, n, n] from fakes, reals, a strength and a generator.
    """

    name: str
    unit: str
    strengths: tuple[float, float, float]
    sees: tuple[str, ...]
    spoil: Callable[[Phantoms, Phantoms, float, np.random.Generator], Gray]

    def __call__(self, fake: Phantoms, real: Phantoms, strength: float, *, seed: int = 0) -> Gray:
        """The fakes, spoiled: uint8 [M, n, n]. A stronger damage spoils the same images and more."""
        return self.spoil(fake, real, strength, np.random.default_rng(seed))


def _share(count: int, share: float, rng: np.random.Generator) -> NDArray[np.int64]:
    """The images that are spoiled, a share of `count`: those of a smaller share and more."""
    return rng.permutation(count)[: round(share * count)]


def _blur(fake: Phantoms, real: Phantoms, strength: float, rng: np.random.Generator) -> Gray:
    return np.stack([degradations.blurred(image, strength) for image in fake.images])


def _noise(fake: Phantoms, real: Phantoms, strength: float, rng: np.random.Generator) -> Gray:
    return np.stack([degradations.noisy(image, strength, rng) for image in fake.images])


def _gray(fake: Phantoms, real: Phantoms, strength: float, rng: np.random.Generator) -> Gray:
    pairs = zip(fake.images, fake.masks, strict=True)
    return np.stack([degradations.gray_background(image, mask, strength) for image, mask in pairs])


def _jpeg(fake: Phantoms, real: Phantoms, strength: float, rng: np.random.Generator) -> Gray:
    return np.stack([degradations.jpeg(image, round(strength)) for image in fake.images])


def _gain(fake: Phantoms, real: Phantoms, strength: float, rng: np.random.Generator) -> Gray:
    return np.asarray(np.rint(strength * fake.images.astype(np.float32)).clip(0, 255), np.uint8)


def _mirrored(fake: Phantoms, real: Phantoms, strength: float, rng: np.random.Generator) -> Gray:
    images = fake.images.copy()
    rows = _share(len(fake), strength, rng)
    images[rows] = images[rows, :, ::-1]
    return images


def _scrambled(fake: Phantoms, real: Phantoms, strength: float, rng: np.random.Generator) -> Gray:
    """A share of the images cut into 4 x 4 tiles and put together in another order: no breast any more."""
    images, n = fake.images.copy(), fake.images.shape[1] // 4
    rows = _share(len(fake), strength, rng)
    orders = np.random.default_rng(0).permuted(np.tile(np.arange(16), (len(fake), 1)), axis=1)
    for k in rows:
        tiles = images[k].reshape(4, n, 4, n).swapaxes(1, 2).reshape(16, n, n)[orders[k]]
        images[k] = tiles.reshape(4, 4, n, n).swapaxes(1, 2).reshape(4 * n, 4 * n)
    return images


def _reworded(name: str, old: str | None, new: str) -> Callable[..., Gray]:
    """A share of the images (of those that show `old`) drawn again with the word `new`."""

    def spoil(fake: Phantoms, real: Phantoms, strength: float, rng: np.random.Generator) -> Gray:
        words = [getattr(said, name) for said in fake.attributes]
        those = np.array([k for k, word in enumerate(words) if word == old or old is None], np.int64)
        images = fake.images.copy()
        for k in those[_share(len(those), strength, rng)]:
            if words[k] != new:
                images[k] = _instead(fake.seed, int(k), name, new)
        return images

    return spoil


def _repeated(fake: Phantoms, real: Phantoms, strength: float, rng: np.random.Generator) -> Gray:
    """As many images as before, but only a share of them are different; the others are repeated."""
    distinct = rng.permutation(len(fake))[: max(1, round(strength * len(fake)))]
    return fake.images[np.resize(distinct, len(fake))]


def _copies(fake: Phantoms, real: Phantoms, strength: float, rng: np.random.Generator) -> Gray:
    """A share of the images are reals themselves."""
    images = fake.images.copy()
    rows = _share(len(fake), strength, rng)
    images[rows] = real.images[rows % len(real)]
    return images


_BOTH = ("frechet", "extrapolated", "kernel")
DAMAGES: dict[str, Damage] = {
    one.name: one
    for one in (
        Damage("blur", "sigma, px", (0.6, 1.0, 2.0), (*_BOTH, "precision"), _blur),
        Damage("noise", "sd, gray levels", (1.0, 2.0, 4.0), (*_BOTH, "precision", "coverage"), _noise),
        Damage("gray background", "gray level", (2.0, 5.0, 15.0), (*_BOTH, "precision", "coverage"), _gray),
        Damage("jpeg", "quality", (80.0, 50.0, 20.0), _BOTH, _jpeg),
        Damage("gain", "factor", (0.9, 0.8, 0.6), _BOTH, _gain),
        Damage("scrambled", "share of images", (0.05, 0.15, 0.45), (*_BOTH, "precision"), _scrambled),
        Damage("mirrored", "share of images", (0.1, 0.3, 1.0), (*_BOTH, "precision"), _mirrored),
        Damage("dense", "share of images", (0.25, 0.5, 1.0), (*_BOTH, "coverage"),
               _reworded("density", None, "very high")),
        Damage("no siemens", "share missing", (0.7, 0.85, 1.0), (*_BOTH, "coverage"),
               _reworded("vendor", "siemens", "hologic")),
        Damage("no MLO", "share missing", (0.7, 0.85, 1.0), (*_BOTH, "coverage"), _reworded("view", "MLO", "CC")),
        Damage("repeated", "share distinct", (0.5, 0.2, 0.05), ("recall", "coverage"), _repeated),
        Damage("copies", "share of images", (0.25, 0.5, 1.0), ("authenticity",), _copies),
    )
}  # fmt: skip


def sensitivity(
    fake: Phantoms, real: Phantoms, features: Sequence[Features], damages: Iterable[Damage] | None = None, *,
    seed: int = 0,
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """Measure fakes against reals, as they are and under each damage at its three strengths.

    Yields a row for each set and feature set: damage (None for the fakes as they are), strength, unit, features, and
    the measures of `WORSE`; "similarity" is the mean MS-SSIM of the pairs of the first 60 images.

    Raises
    ------
    InputError
        If a set is too small for the features (`fidelity.fewest`).
    """
    memory: list[dict[bytes, NDArray[Any]]] = [{} for _ in features]  # most images come again and again
    known = [_recalled(one, real.images, found) for one, found in zip(features, memory, strict=True)]
    for damage, strength, images in _sets(fake, real, damages, seed):
        pairs = pairwise_ms_ssim(images[:COMPARED])
        alike = float(pairs[np.triu_indices(len(pairs), 1)].mean())
        for one, mine, before in zip(features, known, memory, strict=True):
            found = measure(*scaled(one, mine, _recalled(one, images, before)), name=named(one), seed=seed)
            if found.frechet is None or found.extrapolated is None:
                raise InputError(f"{found.fake} images are too few for {found.dimensions} {found.features}; take more.")
            yield {
                "damage": damage.name if damage else None, "strength": strength, "unit": damage.unit if damage else "",
                "features": found.features, "frechet": found.frechet, "extrapolated": found.extrapolated.value,
                "kernel": found.kernel.value, **asdict(found.prdc), "authenticity": found.authenticity,
                "similarity": alike,
            }  # fmt: skip


def _recalled(features: Features, images: Gray, memory: dict[bytes, NDArray[Any]]) -> NDArray[Any]:
    """The features of the images [N, d]; only those are computed that are not in the memory yet."""
    keys = [blake2b(image.tobytes(), digest_size=16).digest() for image in images]
    new = {key: k for k, key in enumerate(keys) if key not in memory}
    if new:
        memory.update(zip(new, features(images[list(new.values())]), strict=True))
    return np.stack([memory[key] for key in keys])


def _sets(
    fake: Phantoms, real: Phantoms, damages: Iterable[Damage] | None, seed: int
) -> Iterator[tuple[Damage | None, float, Gray]]:
    yield None, 0.0, fake.images
    for damage in DAMAGES.values() if damages is None else damages:
        for strength in damage.strengths:
            yield damage, strength, damage(fake, real, strength, seed=seed)


def steps(rows: Sequence[dict[str, Any]], damage: str, features: str, name: str) -> list[float]:
    """A measure without the damage and at its three strengths, in the order of the strengths: four numbers."""
    mine = [row for row in rows if row["features"] == features]
    clean = [row[name] for row in mine if row["damage"] is None]
    by_strength = {row["strength"]: row[name] for row in mine if row["damage"] == damage}
    return [*clean, *(by_strength[strength] for strength in DAMAGES[damage].strengths)]


def seen(rows: Sequence[dict[str, Any]], damage: str, features: str, name: str) -> bool:
    """Whether the measure gets worse with each step of the damage, or has nowhere left to go (a share of 0)."""
    sign, values = WORSE[name], steps(rows, damage, features, name)
    return all(sign * (after - before) > 0 or (sign < 0 and before == after == 0) for before, after in pairwise(values))
