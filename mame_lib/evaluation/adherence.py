"""How often images obey their sentences, with uncertainty: `wilson`, `rate`, `confusion`, `shift`, `explained`.

Rows are those of a sweep (`evaluation.sweep_rows.Row`). An image obeys when its measured class is the class that was
asked for. Cells of a sweep share their noise: image k of every cell begins alike. So pooled rows are no independent
trials, and every interval here counts an image number (seed and index) as one cluster.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

from mame_lib.data.case import AREAS, DENSITIES, VENDORS, VIEWS
from mame_lib.errors import InputError
from mame_lib.evaluation.attributes import SMALLEST_BREAST
from mame_lib.evaluation.sweep_rows import NO, YES, Row

CLASSES: dict[str, tuple[str, ...]] = {"vendor": VENDORS, "view": VIEWS, "area": AREAS, "density": DENSITIES}
DRAWS = 1000  # of the bootstrap

Interval = tuple[float, float, float]  # estimate, low, high


def wilson(yes: float, n: float, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval (low, high) of a share, in 0..1, from `yes` successes in `n` independent trials.

    With no trial the share may be anything: (0, 1). Unlike the textbook's p +- 1.96 se it stays within 0..1 and is
    not empty at 0 of n. `n` need not be whole: dependent trials count less (`rate`). level: coverage, 0..1.

    Wilson, Journal of the American Statistical Association 22 (1927) 209.

    Raises
    ------
    InputError
        If not 0 <= yes <= n, or if `level` is not between 0 and 1.
    """
    if not 0 <= yes <= n:
        raise InputError(f"{yes} successes in {n} trials is impossible; give 0 <= yes <= n.")
    if not 0 < level < 1:
        raise InputError(f"level is {level}, but must lie between 0 and 1, such as 0.95.")
    if n == 0:
        return 0.0, 1.0
    z = float(ndtri(0.5 + level / 2))
    middle = (yes + z**2 / 2) / (n + z**2)
    half = z / (n + z**2) * math.sqrt(yes * (n - yes) / n + z**2 / 4)
    # At the ends the bound is the end itself; rounding must not move it past the share.
    return (0.0 if yes == 0 else max(0.0, middle - half)), (1.0 if yes == n else min(1.0, middle + half))


@dataclass(frozen=True)
class Rate:
    """A share of images with its interval: `yes` of `n` images, which tell as much as `effective` independent ones."""

    yes: int
    n: int
    effective: float
    low: float
    high: float

    @property
    def share(self) -> float:
        """yes / n, 0..1; NaN without images."""
        return self.yes / self.n if self.n else math.nan

    def __str__(self) -> str:
        return f"{self.share:.0%} [{self.low:.0%}, {self.high:.0%}]" if self.n else "-"


def hit(row: Row, name: str, *, sure: bool = False) -> bool | None:
    """Whether an image has the class of `name` (of `CLASSES`) that was asked for; None where nothing was.

    An image without a breast obeys nothing. sure: count only the images about which the measure is sure, chance 0.75
    or more on either side (`sweep_rows.SURE`), and return None for the others.
    """
    asked = getattr(row, f"asked_{_known(name)}")
    if not asked:
        return None
    if sure:
        return {YES: True, NO: False}.get(getattr(row, f"obeyed_{name}"))
    return bool(row.area_ratio >= SMALLEST_BREAST and getattr(row, name) == asked)


def rate(rows: Iterable[Row], name: str, *, sure: bool = False, level: float = 0.95) -> Rate:
    """How many of the images that were asked for `name` obey, with Wilson's interval; `hit` says what counts.

    The interval is that of `effective_size` independent images.
    """
    judged = [(answer, (row.seed, row.index)) for row in rows if (answer := hit(row, name, sure=sure)) is not None]
    yes, n = sum(answer for answer, _ in judged), len(judged)
    size = effective_size([answer for answer, _ in judged], [cluster for _, cluster in judged])
    low, high = wilson(yes * size / n if n else 0, size, level)
    return Rate(yes, n, size, low, high)


def rates(
    rows: Iterable[Row], name: str, by: Sequence[str] | Callable[[Row], Any], *, sure: bool = False
) -> dict[Any, Rate]:
    """`rate` of each group of rows. by: columns whose values make the key (a tuple), or a function that gives it.

    Groups come in the order in which they first appear; those in which nobody was asked for `name` are left out.
    """
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        key = by(row) if callable(by) else tuple(getattr(row, column) for column in by)
        groups.setdefault(key, []).append(row)
    found = {key: rate(group, name, sure=sure) for key, group in groups.items()}
    return {key: one for key, one in found.items() if one.n}


def effective_size(hits: ArrayLike, clusters: Sequence[Any]) -> float:
    """How many independent trials tell as much about a share as these `hits` (0 or 1, [n]) of the given `clusters`.

    n divided by Kish's design effect: the variance of the mean between clusters over that of independent trials.
    Never above n. Where all hits are equal no variance can be seen, and each cluster counts as one trial.
    """
    said = np.asarray(hits, dtype=np.float64)
    if len(said) != len(clusters):
        raise InputError(f"there are {len(said)} hits but {len(clusters)} clusters; give one for each.")
    names = {cluster: k for k, cluster in enumerate(dict.fromkeys(clusters))}
    n, count = len(said), len(names)
    if n == 0 or count == n:
        return float(n)
    p = said.mean()
    if p in (0.0, 1.0) or count == 1:
        return float(count)
    totals = np.bincount([names[cluster] for cluster in clusters], weights=said - p)  # [C]
    variance = count / (count - 1) * (totals**2).sum() / n**2
    return float(n / max(1.0, variance / (p * (1 - p) / n)))


def confusion(rows: Iterable[Row], asked: str, measured: str | None = None) -> NDArray[np.int64]:
    """Counts [asked class, measured class], in the order of `CLASSES`, of the rows that were asked for `asked`.

    measured: another attribute than the one asked for, to see whether a word went astray.
    """
    seen = _known(measured or asked)
    counts = np.zeros((len(CLASSES[_known(asked)]), len(CLASSES[seen])), dtype=np.int64)
    for row in rows:
        if word := getattr(row, f"asked_{asked}"):
            counts[CLASSES[asked].index(word), CLASSES[seen].index(getattr(row, seen))] += 1
    return counts


def spread(rows: Iterable[Row], name: str) -> NDArray[np.float64]:
    """Shares [class] of the measured classes of `name`: what a model gives, asked for or not."""
    words = CLASSES[_known(name)]
    counts = np.bincount([words.index(getattr(row, name)) for row in rows], minlength=len(words))
    return counts / max(1, counts.sum())


def shift(rows: Iterable[Row], value: str, asked: str, words: tuple[str, str]) -> Interval:
    """How much the mean of a measured number rises from the first asked word to the second, with its 95 % interval.

    value: a column such as "area_ratio" or "density_index". The bootstrap draws image numbers, so that what two
    images of one noise have in common cancels.
    """
    groups: list[list[tuple[Any, float]]] = [[], []]
    for row in rows:
        if (word := getattr(row, f"asked_{_known(asked)}")) in words:
            groups[words.index(word)].append(((row.seed, row.index), getattr(row, value)))
    if not all(groups):
        raise InputError(f"no row asks for {asked} {words[0]!r}, or none for {words[1]!r}.")
    names = {cluster: k for k, cluster in enumerate(dict.fromkeys(c for group in groups for c, _ in group))}
    sums, counts = np.zeros((2, len(names))), np.zeros((2, len(names)))
    for g, group in enumerate(groups):
        for cluster, number in group:
            sums[g, names[cluster]] += number
            counts[g, names[cluster]] += 1

    def difference(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        first, second = (weights @ sums[g] / (weights @ counts[g]) for g in (0, 1))
        return np.asarray(second - first)

    return bootstrap(difference, len(names))


def explained(rows: Iterable[Row], value: str, asked: str) -> Interval:
    """Share 0..1 of a measured number's variance that the asked word explains (eta squared), with its 95 % interval.

    0: the word says nothing about the number; 1: it decides it. Unlike `shift` it needs no order of the words.
    """
    said = [(getattr(row, f"asked_{_known(asked)}"), (row.seed, row.index), getattr(row, value)) for row in rows]
    said = [one for one in said if one[0]]
    if not said:
        raise InputError(f"no row asks for {asked}.")
    words = {word: k for k, word in enumerate(dict.fromkeys(word for word, _, _ in said))}
    names = {cluster: k for k, cluster in enumerate(dict.fromkeys(cluster for _, cluster, _ in said))}
    moments = np.zeros((3, len(names), len(words)))  # count, sum and sum of squares of each cluster and word
    for word, cluster, number in said:
        moments[:, names[cluster], words[word]] += (1.0, number, number**2)

    def share(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        n, total, squares = weights @ moments  # [B, words] each
        mean = total.sum(-1) / n.sum(-1)  # [B]
        whole = squares.sum(-1) - n.sum(-1) * mean**2
        between = (n * (total / np.maximum(n, 1e-12) - mean[:, None]) ** 2).sum(-1)
        return np.asarray(between / np.maximum(whole, 1e-12))

    return bootstrap(share, len(names))


def bootstrap(
    statistic: Callable[[NDArray[np.float64]], NDArray[np.float64]], clusters: int, *, draws: int = DRAWS, seed: int = 0
) -> Interval:
    """A statistic with its 95 % percentile interval over clusters drawn with replacement.

    statistic: from weights [B, clusters], how often each cluster was drawn, to values [B].
    """
    g = np.random.default_rng(seed)
    weights = g.multinomial(clusters, np.full(clusters, 1 / clusters), size=draws).astype(np.float64)  # [draws, C]
    low, high = np.nanquantile(statistic(weights), (0.025, 0.975))
    return float(statistic(np.ones((1, clusters)))[0]), float(low), float(high)


def _known(name: str) -> str:
    if name not in CLASSES:
        raise InputError(f"{name!r} can't be asked for; choose {', '.join(CLASSES)}.")
    return name
