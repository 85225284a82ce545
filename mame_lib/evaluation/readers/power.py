"""How many images, how many readers? And what does a result show: a difference, equality, or nothing?

"Not significantly different from 0.5" says that a study was small, or that readers were guessing; it can't say which.
To *show* that readers can't tell the two kinds apart one must say first how close is close enough, the margin, and
then have an interval that lies within it: two one-sided tests (TOST; Schuirmann, Journal of Pharmacokinetics and
Biopharmaceutics 15 (1987) 657), which at the level 5 % is to say that the 90 % interval lies within the margin.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from scipy.special import ndtr, ndtri, stdtr, stdtrit

from mame_lib.errors import InputError
from mame_lib.evaluation.readers.panel import degrees_of_freedom
from mame_lib.evaluation.readers.roc import hanley_mcneil

GUESS = 0.5
MARGIN = 0.05
ALPHA = 0.05
MOST = 1_000_000  # cases of a kind; a study that needs more won't be made

EQUAL = "equivalent"
DIFFERENT = "different"
SLIGHT = "different, within the margin"
UNKNOWN = "cannot tell"
VERDICTS = {
    EQUAL: "as close to guessing as was asked for",
    DIFFERENT: "not guessing",
    SLIGHT: "not guessing, but as close to it as was asked for",
    UNKNOWN: "cannot tell: neither a difference nor equality is shown",
}


@dataclass(frozen=True)
class Equivalence:
    """What a result says about `at` +- `margin`.

    low, high: interval of level 1 - 2 alpha, 90 % for alpha = 5 %. p: of the two one-sided tests. verdict: one of
    `VERDICTS`. shows: the smallest margin that this result would have shown.
    """

    value: float
    low: float
    high: float
    p: float
    margin: float
    verdict: str
    at: float = GUESS

    @property
    def shows(self) -> float:
        return max(self.high - self.at, self.at - self.low)


def equivalence(
    value: float, se: float, *, df: float = math.inf, margin: float = MARGIN, at: float = GUESS, alpha: float = ALPHA
) -> Equivalence:
    """Two one-sided tests of an AUC `value` with standard error `se` against `at` - margin and `at` + margin.

    df: degrees of freedom of the error; infinite for one reader's DeLong error, `PanelAuc.df` for a panel.

    Raises
    ------
    InputError
        If the error or the margin is not positive, or alpha not between 0 and 0.5.
    """
    if not se > 0 or not margin > 0 or not 0 < alpha < 0.5:
        raise InputError(f"se {se} and margin {margin} must be above 0, and alpha {alpha} between 0 and 0.5.")
    low, high = (value + sign * _quantile(1 - alpha, df) * se for sign in (-1, 1))
    half = _quantile(1 - alpha / 2, df) * se
    p = max(_below((at - margin - value) / se, df), _below((value - at - margin) / se, df))
    said = verdict((low, high), (value - half, value + half), margin=margin, at=at)
    return Equivalence(value, low, high, p, margin, said, at)


def verdict(
    narrow: tuple[float, float], wide: tuple[float, float], *, margin: float = MARGIN, at: float = GUESS
) -> str:
    """One of `VERDICTS`, from the interval of level 1 - 2 alpha (90 %) and that of level 1 - alpha (95 %)."""
    within = narrow[0] > at - margin and narrow[1] < at + margin
    apart = not wide[0] <= at <= wide[1]
    if within:
        return SLIGHT if apart else EQUAL
    return DIFFERENT if apart else UNKNOWN


@dataclass(frozen=True)
class Design:
    """A planned study: `each` cases of each kind, rated by all `readers`.

    auc: mean AUC of readers that is expected. reader_sd: standard deviation of the readers' true AUCs; it does not
    count for one reader, who stands for nobody else. correlation: of two readers' AUCs over other cases, 0..1.

    Raises
    ------
    InputError
        If a number is out of its range.
    """

    each: int
    readers: int = 1
    auc: float = GUESS
    reader_sd: float = 0.0
    correlation: float = 0.3

    def __post_init__(self) -> None:
        if min(self.each, self.readers) < 1 or self.reader_sd < 0 or not (0 <= self.correlation <= 1):
            raise InputError(f"{self} can't be; give a case and a reader or more, and 0 <= correlation <= 1.")

    @property
    def parts(self) -> tuple[float, float]:
        """Expected sample variance of the readers' AUCs, and covariance of two of them, from their shared cases."""
        error = hanley_mcneil(self.auc, self.each, self.each).se ** 2
        return self.reader_sd**2 + error * (1 - self.correlation), error * self.correlation

    @property
    def se(self) -> float:
        """Standard error of the mean AUC."""
        if self.readers == 1:
            return hanley_mcneil(self.auc, self.each, self.each).se
        between, shared = self.parts
        return math.sqrt(between / self.readers + shared)

    @property
    def df(self) -> float:
        """Degrees of freedom that the study will have for it."""
        return math.inf if self.readers == 1 else degrees_of_freedom(*self.parts, self.readers)

    @property
    def half_width(self) -> float:
        """Half the width of the 95 % interval."""
        return _quantile(0.975, self.df) * self.se

    def power(self, at: float = GUESS, alpha: float = ALPHA) -> float:
        """Chance that a two-sided test at level alpha finds the AUC different from `at`."""
        reach, shift = _quantile(1 - alpha / 2, self.df), (self.auc - at) / self.se
        return float(ndtr(shift - reach) + ndtr(-shift - reach))

    def equivalence_power(self, margin: float = MARGIN, at: float = GUESS, alpha: float = ALPHA) -> float:
        """Chance that the study shows the AUC to be within `at` +- `margin`, by two one-sided tests."""
        reach, shift = _quantile(1 - alpha, self.df), self.auc - at
        chance = ndtr((margin - shift) / self.se - reach) + ndtr((margin + shift) / self.se - reach) - 1
        return max(0.0, float(chance))


def for_half_width(half: float, **design: float) -> int:
    """Fewest cases of each kind for a 95 % interval of value +- half; `design` as in `Design`, without `each`.

    Raises
    ------
    InputError
        If no number of cases will do: then it is the readers, not the images, that are too few.
    """
    return _fewest(lambda one: one.half_width <= half, f"an interval of +- {half}", design)


def for_difference(auc: float, *, at: float = GUESS, power: float = 0.8, **design: float) -> int:
    """Fewest cases of each kind to find, with chance `power`, that the AUC is not `at` if it is `auc`.

    Raises `InputError` as `for_half_width`.
    """
    return _fewest(lambda one: one.power(at) >= power, f"telling {auc} from {at}", {**design, "auc": auc})


def for_equivalence(margin: float = MARGIN, *, at: float = GUESS, power: float = 0.8, **design: float) -> int:
    """Fewest cases of each kind to show, with chance `power`, that an AUC of `at` (or `auc`) is within the margin.

    Raises `InputError` as `for_half_width`.
    """
    wanted = f"showing {at} +- {margin}"
    return _fewest(lambda one: one.equivalence_power(margin, at) >= power, wanted, {"auc": at, **design})


def _fewest(enough: Callable[[Design], bool], wanted: str, design: dict[str, float]) -> int:
    """Smallest number of cases of each kind that is enough, by steps of a tenth and then bisection.

    Steps, for with two or three readers more cases may be worse than fewer: what is left then is the luck of the
    readers, for which the interval has few degrees of freedom.
    """
    of = Design(each=1, **design)  # type: ignore[arg-type]
    low, high = 0, 1
    while not enough(replace(of, each=high)):
        low, high = high, high + max(1, high // 10)
        if high > MOST:
            raise InputError(f"{wanted} can't be had with {of.readers} readers, whatever the images; ask more readers.")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(replace(of, each=middle)) else (middle, high)
    return high


def _quantile(p: float, df: float) -> float:
    return float(ndtri(p) if math.isinf(df) else stdtrit(df, p))


def _below(x: float, df: float) -> float:
    return float(ndtr(x) if math.isinf(df) else stdtr(df, x))
