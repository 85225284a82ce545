"""How far a set of images is from another: Fréchet and kernel distance, precision, recall, density and coverage.

All are computed from features (`mame_lib.evaluation.features`, `mame_lib.evaluation.radiomics`), real [N, d] and fake
[M, d], and none sees what the features do not see. `compare` gives them all. When each of them lies:

- The Fréchet distance takes both sets for Gaussian: sets that share means and covariances have distance 0, whatever
  their shapes. It is too large for few images, by an amount that falls like 1 / n and depends on the model, so that
  values of different n cannot be compared; `frechet_extrapolated` takes most of that back. A set of copies of the real
  images is perfect, and a few images in a thousand do not count, however odd.
- The kernel distance has no such bias, and may come out below 0 when the sets are alike. Its unit depends on the scale
  of the features. Averages over subsets of all images have no spread at all: their error is not 0 for that.
- Precision asks whether fakes lie near reals, recall whether reals lie near fakes. One real outlier has a large ball,
  which makes precision and recall too high. Recall is blind to how often a mode is drawn as long as it is drawn.
- Density counts how many balls a fake lies in (above 1 where fakes crowd into the middle), coverage how many reals
  have a fake near. Identical distributions reach a coverage of 0.97 at k = 5, not 1. All four change with n, and many
  dimensions make all points equally far: compare at equal n.
- No distance knows a copy from a new image: authenticity does where the copy is exact in the features, and
  `mame_lib.evaluation.memorization` where it is moved or changed. None knows whether the image is of what
  was asked for (`mame_lib.evaluation.adherence` does).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from numpy.typing import ArrayLike, NDArray

from mame_lib.evaluation.distances import Extrapolated as Extrapolated  # all of them are part of this module's face
from mame_lib.evaluation.distances import KernelDistance as KernelDistance
from mame_lib.evaluation.distances import fewest as fewest
from mame_lib.evaluation.distances import frechet as frechet
from mame_lib.evaluation.distances import frechet_extrapolated as frechet_extrapolated
from mame_lib.evaluation.distances import kernel_distance as kernel_distance
from mame_lib.evaluation.distances import kernel_subsets as kernel_subsets
from mame_lib.evaluation.distances import pair
from mame_lib.evaluation.features import Features, Gray
from mame_lib.evaluation.neighbors import PRDC as PRDC
from mame_lib.evaluation.neighbors import authenticity as authenticity
from mame_lib.evaluation.neighbors import prdc as prdc
from mame_lib.evaluation.neighbors import prdc_intervals as prdc_intervals


@dataclass(frozen=True)
class Fidelity:
    """All measures of a set of fakes against reals, in one feature set.

    features: its name; dimensions: d; real, fake: images. frechet is None with d images or less, extrapolated with
    less than `fewest(d)`. intervals: 95 % (low, high) of precision, recall, density and coverage.
    authenticity: share of fakes that are no nearer to a real than reals are to each other.
    """

    features: str
    dimensions: int
    real: int
    fake: int
    frechet: float | None
    extrapolated: Extrapolated | None
    kernel: KernelDistance
    prdc: PRDC
    intervals: dict[str, tuple[float, float]]
    authenticity: float

    def as_json(self) -> dict[str, Any]:
        """Plain numbers to store, six significant digits."""
        return dict(rounded(asdict(self)))

    def __str__(self) -> str:
        lines = [f"{self.fake} images against {self.real}, {self.features} ({self.dimensions} features)"]
        if self.frechet is not None:
            lines.append(f"Fréchet distance   {self.frechet:8.3f}  at these numbers of images")
        if (more := self.extrapolated) is not None:
            lines.append(f"  of endless sets  {more.value:8.3f}  [{more.low:.3f}, {more.high:.3f}]")
        lines.append(f"kernel distance    {self.kernel.value:8.4f}  +- {self.kernel.error:.4f} (standard error)")
        for name, (low, high) in self.intervals.items():
            lines.append(f"{name:18} {getattr(self.prdc, name):8.3f}  [{low:.3f}, {high:.3f}]")
        lines.append(f"authenticity       {self.authenticity:8.3f}  (about 0.5 for new images as good as these)")
        return "\n".join(lines)


def compare(real_images: Gray, fake_images: Gray, features: Features, *, seed: int = 0, k: int = 5) -> Fidelity:
    """All measures of uint8 images [M, n, n] against [N, n, n], in the features of a function.

    Features that ask for it (`standardized`, as those of `radiomics`) are brought to one scale first, by the reals
    alone. seed: of random parts and groups.

    Raises
    ------
    InputError
        If a set has less than 20 images, as `kernel_distance` and `prdc`, and as the features do.
    """
    real, fake = features(real_images), features(fake_images)
    return measure(*scaled(features, real, fake), name=named(features), seed=seed, k=k)


def scaled(features: Features, real: NDArray[Any], fake: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """What a feature set made of reals and fakes, on one scale if it asks for that."""
    standardized = getattr(features, "standardized", None)
    return standardized(real, fake) if standardized else (real, fake)


def named(features: Features) -> str:
    """The name of a feature set, for tables."""
    return str(getattr(features, "name", None) or getattr(features, "__name__", None) or type(features).__name__)


def measure(real: ArrayLike, fake: ArrayLike, *, name: str = "features", seed: int = 0, k: int = 5) -> Fidelity:
    """`compare` of features that are there already, [N, d] and [M, d]."""
    first, second = pair(real, fake)
    n, d = min(len(first), len(second)), first.shape[1]
    return Fidelity(
        features=name, dimensions=d, real=len(first), fake=len(second),
        frechet=frechet(first, second) if n > d else None,
        extrapolated=frechet_extrapolated(first, second, seed=seed) if n >= fewest(d) else None,
        kernel=kernel_distance(first, second), prdc=prdc(first, second, k),
        intervals=prdc_intervals(first, second, k, seed=seed), authenticity=authenticity(first, second),
    )  # fmt: skip


def rounded(value: Any) -> Any:
    """Floats to six significant digits, in dictionaries and lists too."""
    if isinstance(value, dict):
        return {name: rounded(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(one) for one in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value
