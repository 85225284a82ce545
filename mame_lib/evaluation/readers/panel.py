"""Several readers of the same cases: the mean AUC with both kinds of luck, and panels of simulated readers.

Another study would have other cases *and* other readers. `mean_auc` counts both, by the method of Obuchowski and
Rockette (Communications in Statistics - Simulation 24 (1995) 285) with the degrees of freedom of Hillis (Statistics in
Medicine 26 (2007) 596). We prefer it to the one-shot variance of Gallas (Academic Radiology 13 (2006) 353): it is built
from DeLong's covariances, which are there already, and brings degrees of freedom with it. With the few readers that a
study has, those matter more than anything else. From a single reader nothing can be said about other readers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri, stdtrit

from mame_lib.errors import InputError
from mame_lib.evaluation.readers.roc import covariances

F64 = NDArray[np.float64]
LEVELS = 5  # ratings 0 to 4


@dataclass(frozen=True)
class PanelAuc:
    """Mean AUC of J readers, with a standard error that holds for other readers and other cases.

    df: degrees of freedom of the t interval from `low` to `high` (95 %). aucs [J]: of the readers. between: sample
    variance of the readers' AUCs. shared: mean covariance of two readers' AUCs, from the cases that they have in
    common. error: mean variance of one reader's AUC from its cases.
    """

    value: float
    se: float
    df: float
    low: float
    high: float
    aucs: F64
    between: float
    shared: float
    error: float

    @property
    def reader_sd(self) -> float:
        """Standard deviation of the readers' true AUCs, so far as it can be told from luck; 0 where it can't."""
        return math.sqrt(max(0.0, self.between - self.error + self.shared))

    def interval(self, level: float) -> tuple[float, float]:
        """Low and high end of the interval of another level, cut at 0 and 1."""
        half = float(stdtrit(self.df, 0.5 + level / 2)) * self.se
        return max(0.0, self.value - half), min(1.0, self.value + half)


def mean_auc(scores: ArrayLike, positive: ArrayLike) -> PanelAuc:
    """Mean AUC of J >= 2 readers, scores [J, N] of cases `positive` [N] or not, as a sample of readers and of cases.

    A case that a reader has not rated is NaN.

    Raises
    ------
    InputError
        If there is one reader, or as `roc.covariances`.
    """
    values, matrix = covariances(scores, positive)
    if len(values) < 2:
        raise InputError("other readers can't be told from one reader; take roc.delong, which is about other cases.")
    off = ~np.eye(len(values), dtype=bool)
    return combine(values, float(matrix[off].mean()), float(np.diag(matrix).mean()))


def combine(aucs: ArrayLike, shared: float, error: float) -> PanelAuc:
    """The panel's mean from the readers' AUCs [J] and the components of DeLong's covariance matrix (see `PanelAuc`).

    The variance of the mean is (between + J shared) / J: the readers' AUCs scatter by their skill and by what each
    reader makes of the same cases, and the luck of the cases themselves is added once more, for it hits all alike.
    """
    values = np.asarray(aucs, np.float64)
    count, between, shared_up = len(values), float(values.var(ddof=1)), max(shared, 0.0)
    se = math.sqrt(between / count + shared_up)
    df = degrees_of_freedom(between, shared_up, count)
    mean = float(values.mean())
    half = float(stdtrit(df, 0.975)) * se if se > 0 else 0.0
    return PanelAuc(mean, se, df, max(0.0, mean - half), min(1.0, mean + half), values, between, shared, error)


def degrees_of_freedom(between: float, shared: float, count: int) -> float:
    """Hillis's: J - 1 where readers are all the luck, and the more, the more of it is in the cases."""
    if between <= 1e-15:  # readers that agree to the last digit
        return 1e6
    return min(1e6, (count - 1) * ((between + count * max(shared, 0.0)) / between) ** 2)


@dataclass(frozen=True)
class Panel:
    """A simulated panel: ratings int [J, N] of 0 to 4, whether each case is `synthetic` bool [N], and the truth.

    true_aucs [J]: the AUC of each of these readers, with its thresholds, on infinitely many cases.
    """

    ratings: NDArray[np.int64]
    synthetic: NDArray[np.bool_]
    true_aucs: F64

    @property
    def scores(self) -> F64:
        """4 - rating, [J, N]: how synthetic each case looked."""
        return np.asarray(LEVELS - 1.0 - self.ratings)


@dataclass(frozen=True)
class ReaderModel:
    """A population of readers and of cases, after Roe and Metz (Academic Radiology 4 (1997) 298), one modality.

    How synthetic case k looks to reader j is mu (if it is) + r_j + c_k + e_jk; all are normal, the variances of c
    and e add up to 1. Each reader cuts that scale into five ratings in its own way.

    auc: mean AUC of readers before they cut, 0.5 for guessing. reader_sd: standard deviation of the readers' AUCs near
    0.5. hardness: share of the luck of a case that all readers have in common, 0..1. shift, stretch: how differently
    readers use the scale (standard deviations of the place of their thresholds, and of the log of their spacing).
    """

    auc: float = 0.5
    reader_sd: float = 0.0
    hardness: float = 0.3
    shift: float = 0.3
    stretch: float = 0.2

    def __post_init__(self) -> None:
        if not 0 < self.auc < 1 or not 0 <= self.hardness <= 1 or min(self.reader_sd, self.shift, self.stretch) < 0:
            raise InputError(f"{self} can't be; give 0 < auc < 1, 0 <= hardness <= 1, and nothing negative.")

    @property
    def _skill(self) -> float:
        """Standard deviation of r for each truth, so that AUCs near 0.5 have the standard deviation `reader_sd`."""
        return self.reader_sd * math.sqrt(2 * math.pi)

    @property
    def _mu(self) -> float:
        return float(ndtri(self.auc)) * math.sqrt(2 * (1 + self._skill**2))

    def simulate(self, readers: int, positives: int, negatives: int, *, seed: int) -> Panel:
        """A panel that rates `positives` synthetic and `negatives` real cases, synthetic ones first.

        Raises `InputError` if there is no reader, or no case of a kind.
        """
        if min(readers, positives, negatives) < 1:
            raise InputError("a panel needs one reader or more, and one case or more of each kind.")
        rng = np.random.default_rng(seed)
        synthetic = np.arange(positives + negatives) < positives
        means, cuts = self._readers(readers, rng)
        cases = rng.normal(0, math.sqrt(self.hardness), len(synthetic))
        own = rng.normal(0, math.sqrt(1 - self.hardness), (readers, len(synthetic)))
        looks = np.where(synthetic, means[:, 1:], means[:, :1]) + cases + own  # [J, N]
        scores = (looks[..., None] > cuts[:, None, :]).sum(-1)
        return Panel(LEVELS - 1 - scores, synthetic, true_aucs(means, cuts))

    def truth(self, count: int = 20_000) -> float:
        """Mean AUC of ratings over all such readers: exactly 0.5 for guessing, else the mean of `count` drawn ones.

        Somewhat nearer to 0.5 than `auc`: five ratings tell less than the look itself.
        """
        if self.auc == 0.5:
            return 0.5
        return float(true_aucs(*self._readers(count, np.random.default_rng(0))).mean())

    def _readers(self, count: int, rng: np.random.Generator) -> tuple[F64, F64]:
        """Mean looks of real and synthetic cases [J, 2], and four rising thresholds [J, 4]."""
        means = rng.normal(0, self._skill, (count, 2)) + np.array([0.0, self._mu])
        middle = self._mu / 2 + rng.normal(0, self.shift, (count, 1))
        spacing = np.exp(rng.normal(0, self.stretch, (count, 1)))
        # An average reader of cases that look alike uses the five ratings equally often.
        return means, middle + spacing * ndtri(np.arange(1, LEVELS) / LEVELS)


def true_aucs(means: F64, cuts: F64) -> F64:
    """AUC [J] of ratings: looks are normal, of means [J, 2] (real, synthetic) and variance 1, cut at [J, 4]."""
    edges = np.pad(cuts, ((0, 0), (1, 1)), constant_values=((0, 0), (-np.inf, np.inf)))
    real, made = (np.diff(ndtr(edges - means[:, k : k + 1]), axis=1) for k in (0, 1))  # [J, 5], chance of each score
    below = np.cumsum(real, 1) - real
    return np.asarray((made * (below + real / 2)).sum(1))
