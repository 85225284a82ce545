"""The nearest training image of every image, in pixels, detail, and any other space: `TrainingSet`, `nearest`.

`evaluation.memorization` says which of them are copies.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mame_lib.errors import InputError
from mame_lib.evaluation.copies import FLIPS, Prepared, Transform, prepare, search

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

Gray = NDArray[np.uint8]
F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Space = Callable[[Gray], NDArray[np.floating]]  # images uint8 [N, n, n] to vectors [N, d]

NEIGHBORS = 50  # next nearest images, whose mean distance the nearest is compared with
_CHUNK = 32  # images at once
_NOUGHT = 1e-6  # distances are not taken to be below


@dataclass(frozen=True)
class Neighbors:
    """The nearest training images of N images in one space: index [N]; distance [N]; second [N], the distance of the
    second nearest; others [N], the mean distance of the next 50 (of all others, where there are fewer)."""

    index: NDArray[np.int64]
    distance: F64
    second: F64
    others: F64

    @property
    def ratio(self) -> F64:
        """distance / others [N]: Carlini's relative distance, near 0 for a copy."""
        return self.distance / np.maximum(self.others, _NOUGHT)

    @property
    def nndr(self) -> F64:
        """distance / second [N], the nearest neighbor distance ratio; a copy of one of two twins escapes it."""
        return self.distance / np.maximum(self.second, _NOUGHT)


@dataclass(frozen=True)
class Matches:
    """What `nearest` found for N images: `Neighbors` by space, and how each image was moved to lie on its nearest one
    in the detail, transform [N]."""

    spaces: dict[str, Neighbors]
    transform: tuple[Transform, ...]

    def __len__(self) -> int:
        return len(self.transform)

    def scores(self) -> dict[str, F64]:
        """Logarithms of distance and ratio in each space, [N] each: lower is more alike."""
        found = {}
        for name, space in self.spaces.items():
            found[f"{name} distance"] = np.log(np.maximum(space.distance, _NOUGHT))
            found[f"{name} ratio"] = np.log(np.maximum(space.ratio, _NOUGHT))
        return found


class TrainingSet:
    """Training images uint8 [M, n, n], ready to be compared with.

    patients: whose they are, [M]; by default each its own. spaces: what is compared beside pixels and detail, by name.
    flips: of `copies.FLIPS`, those that are looked for. progress: wraps an iterator of chunks of images, for a bar.

    Raises
    ------
    InputError
        As `copies.prepare`, for fewer than 3 images, or if patients are not as many.
    """

    def __init__(
        self, images: Gray, *, patients: Sequence[str] | None = None, spaces: Mapping[str, Space] | None = None,
        flips: Sequence[str] = FLIPS, progress: Callable[[Any, int], Any] | None = None,
    ) -> None:  # fmt: skip
        self.images = np.asarray(images)
        if self.images.ndim == 3 and len(self.images) < 3:
            raise InputError(f"there are {len(self.images)} training images; a comparison needs 3 or more.")
        self.patients = names_of(patients, len(self.images), "training")
        self.spaces = dict(spaces or {})
        self.flips = tuple(flips)
        self.progress = progress or (lambda chunks, total: chunks)
        parts: list[Prepared] = []
        vectors: dict[str, list[F32]] = {name: [] for name in self.spaces}
        for rows in self._chunks(len(self.images)):
            parts.append(prepare(self.images[rows]))
            for name, space in self.spaces.items():
                vectors[name].append(_vectors(space, self.images[rows], name))
        self.prepared = Prepared.joined(parts)
        self.vectors = {name: np.concatenate(some) for name, some in vectors.items()}

    def __len__(self) -> int:
        return len(self.images)

    def first(self, count: int) -> TrainingSet:
        """The first `count` images alone; nothing is computed again."""
        part = object.__new__(TrainingSet)
        part.__dict__.update(self.__dict__)
        part.images, part.patients, part.prepared = self.images[:count], self.patients[:count], self.prepared[:count]
        part.vectors = {name: some[:count] for name, some in self.vectors.items()}
        return part

    def _chunks(self, count: int) -> Any:
        chunks = [slice(k, k + _CHUNK) for k in range(0, count, _CHUNK)]
        return self.progress(iter(chunks), len(chunks))


def latent_space(vae: AutoencoderKL) -> Space:
    """The space of an autoencoder: the mean of its posterior, scaled as the diffusion model sees it, [N, 4 h w]."""
    from mame_lib.models.latents import encode_moments

    def encode(images: Gray) -> NDArray[np.floating]:
        means = encode_moments(vae, images).mean * vae.config.scaling_factor
        return np.asarray(means.flatten(1).numpy())

    return encode


def nearest(
    images: Gray, training: TrainingSet | Gray, *, patients: Sequence[str] | None = None, neighbors: int = NEIGHBORS
) -> Matches:
    """The nearest training image of each image uint8 [N, n, n], in every space of the training set.

    patients: whose the images are, [N]; training images of the same patient are left out, which makes training images
    themselves comparable with the others. None: nothing is left out. neighbors: how many others the ratio looks at.

    In pixels and detail the whole search is done. In the other spaces an image is compared as it is, and moved (and
    its gain and offset matched) as it lies best on its nearest one in the detail.

    Raises
    ------
    InputError
        As `copies.prepare`, or if the sizes of the images differ.
    """
    known = training if isinstance(training, TrainingSet) else TrainingSet(training)
    stack = np.asarray(images)
    if stack.shape[1:] != known.images.shape[1:]:
        raise InputError(
            f"the images are {list(stack.shape[1:])}, the training images {list(known.images.shape[1:])} pixels; "
            "bring both to one size."
        )
    owners = None if patients is None else names_of(patients, len(stack), "compared")
    parts = [
        _nearest(stack[rows], known, None if owners is None else owners[rows], neighbors)
        for rows in known._chunks(len(stack))
    ]
    if not parts:
        raise InputError("there is no image to compare; give one or more.")
    spaces = {name: _joined([part.spaces[name] for part in parts]) for name in parts[0].spaces}
    return Matches(spaces, tuple(one for part in parts for one in part.transform))


def _nearest(images: Gray, known: TrainingSet, patients: Sequence[str] | None, neighbors: int) -> Matches:
    groups = None if patients is None else (patients, known.patients)
    found = search(prepare(images), known.prepared, groups=groups, flips=known.flips, candidates=neighbors + 14)
    spaces = {form: _neighbors(one.distance, one.index, neighbors) for form, one in found.items()}
    transform = found["detail"].transform
    if known.spaces:
        pairs = zip(images, transform, known.images[spaces["detail"].index], strict=True)
        moved = np.stack([matched_gain(how.apply(image), other) for image, how, other in pairs])
        for name, space in known.spaces.items():
            views = [_vectors(space, some, name) for some in (images, moved)]
            spaces[name] = _neighbors(*_among(views, known.vectors[name], groups, neighbors + 1), neighbors)
    return Matches(spaces, transform)


def _neighbors(distance: F64, index: NDArray[np.int64], neighbors: int) -> Neighbors:
    """From distances [N, C], nearest first, inf where there is none."""
    next_ones = distance[:, 1 : neighbors + 1]
    there = np.isfinite(next_ones)
    if not there.any(1).all():
        raise InputError("an image has fewer than 2 training images of other patients to be compared with.")
    others = np.where(there, next_ones, 0).sum(1) / there.sum(1)
    return Neighbors(index[:, 0], distance[:, 0], distance[:, 1], others)


def _joined(parts: Sequence[Neighbors]) -> Neighbors:
    names = ("index", "distance", "second", "others")
    return Neighbors(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def _among(views: Sequence[F32], known: F32, groups: Any, most: int) -> tuple[F64, NDArray[np.int64]]:
    """Euclidean distances [N, K] of the nearest of M vectors, in order, and which they are. views: vectors [N, d] of
    the same images in several ways, of which the nearer one counts."""
    squares = np.min([(known**2).sum(1) - 2 * view @ known.T + (view**2).sum(1)[:, None] for view in views], axis=0)
    if groups is not None:
        squares[np.asarray(groups[0])[:, None] == np.asarray(groups[1])[None]] = np.inf
    order = np.argsort(squares, axis=1, kind="stable")[:, :most]  # [N, K]
    exact = np.empty(order.shape)
    for n, chosen in enumerate(order):  # the difference of large squares has lost the digits of small distances
        apart = [np.linalg.norm(known[chosen].astype(np.float64) - view[n], axis=1) for view in views]
        exact[n] = np.where(np.isfinite(squares[n, chosen]), np.min(apart, axis=0), np.inf)
    again = np.argsort(exact, axis=1, kind="stable")
    return np.take_along_axis(exact, again, 1), np.take_along_axis(order, again, 1)


def _vectors(space: Space, images: Gray, name: str) -> F32:
    vectors = np.asarray(space(images), np.float32)
    if vectors.ndim != 2 or len(vectors) != len(images):
        raise InputError(f"the space {name!r} made {list(vectors.shape)} of {len(images)} images, not [N, d].")
    return vectors


def names_of(names: Sequence[str] | None, count: int, which: str) -> list[str]:
    found = [f"image {k}" for k in range(count)] if names is None else [str(name) for name in names]
    if len(found) != count:
        raise InputError(f"there are {count} {which} images, but {len(found)} patients; give one each.")
    return found


def matched_gain(image: Gray, other: Gray) -> Gray:
    """A uint8 image with gain and offset that bring it closest to another one of its shape."""
    x, y = image.astype(np.float64), other.astype(np.float64)
    gain = ((x - x.mean()) * (y - y.mean())).mean() / max(float(x.var()), 1e-9)
    if gain <= 0:
        return image
    return np.asarray(np.clip(np.rint(gain * (x - x.mean()) + y.mean()), 0, 255), np.uint8)
