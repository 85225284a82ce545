"""What a reader study shows: `report` turns ratings and the key into numbers, intervals and plain words.

The positive class is "synthetic": an AUC of 0.5 is guessing, 1 is a reader who finds every synthetic image.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mame_lib.errors import InputError
from mame_lib.evaluation.adherence import wilson
from mame_lib.evaluation.froc import Interval
from mame_lib.evaluation.readers import agreement, panel, power, roc
from mame_lib.evaluation.readers.ratings import SCALE, TRUTHS, Rating

F64 = NDArray[np.float64]
LEVELS = len(SCALE)
UNSURE = LEVELS // 2  # the rating "not sure"
WIDTH = 88
NOTE = "Some of the images are synthetic. For research and teaching, not for diagnosis."


@dataclass(frozen=True)
class ReaderScore:
    """What one reader did.

    real, synthetic: cases rated. auc: with the 95 % logit interval of DeLong's error, None if there are fewer than two
    cases of a kind. right, wrong, unsure: calls "real" or "synthetic" (a rating of 2 is neither). of_decided: share
    of right calls among those made, with Wilson's interval, None without one. seconds: mean time of a case.
    counts: how often each rating 0..4 was given to real and to synthetic cases. again: agreement with herself on
    cases that were shown twice (quadratic kappa), None without them. missing: cases of the key without a rating.
    """

    name: str
    real: int
    synthetic: int
    auc: Interval | None
    verdict: str
    right: int
    wrong: int
    unsure: int
    of_decided: Interval | None
    seconds: float
    counts: dict[str, list[int]]
    again: agreement.Kappa | None
    missing: int


@dataclass(frozen=True)
class Report:
    """A scored study: its readers, the panel (None for one reader), and what must be said with it.

    cases: of each truth. equality: verdict of `power.equivalence` about the mean of all readers (or the one reader),
    None where there is no error to test with. alpha: Krippendorff's, ordinal; mean_kappa: of pairs, quadratic.
    """

    cases: dict[str, int]
    readers: list[ReaderScore]
    panel: panel.PanelAuc | None
    equality: power.Equivalence | None
    alpha: float | None
    mean_kappa: float | None
    margin: float
    warnings: list[str]

    def text(self) -> str:
        """For the terminal, 88 columns wide."""
        lines = [f"{sum(self.cases.values())} cases: {self.cases['real']} real, {self.cases['synthetic']} synthetic; "
                 f"readers: {len(self.readers)}", "",
                 "reader            cases   AUC [95 %]            right of decided   not sure    time"]  # fmt: skip
        lines += [_row(one) for one in self.readers]
        if self.panel is not None:
            mean = Interval(self.panel.value, self.panel.low, self.panel.high)
            lines.append(f"{'all, for others':24s}{mean!s}   (t, {self.panel.df:.1f} degrees of freedom)")
        heads = ("0 synth.", "1", "2", "3", "4 real")
        lines += ["", "ratings given        " + "  ".join(f"{word:>11s}" for word in heads)]
        for truth in TRUTHS:
            total = np.sum([one.counts[truth] for one in self.readers], axis=0)
            lines.append(f"  {truth:19s}" + "  ".join(f"{count:11d}" for count in total))
        lines += ["", *self._agreement(), *self._verdict()]
        for warning in self.warnings:
            lines += textwrap.wrap(f"note: {warning}", WIDTH, subsequent_indent="      ")
        return "\n".join([*lines, NOTE])

    def _agreement(self) -> list[str]:
        said = []
        if self.alpha is not None and not math.isnan(self.alpha):
            kappa = "" if self.mean_kappa is None else f"; mean quadratic kappa of pairs {self.mean_kappa:.2f}"
            said.append(f"agreement: Krippendorff's alpha {self.alpha:.2f}{kappa}")
        for one in self.readers:
            if one.again is not None and not math.isnan(one.again.value):
                said.append(
                    f"{one.name}, {one.again.n} cases shown twice: kappa {one.again.value:.2f} "
                    f"[{one.again.low:.2f}, {one.again.high:.2f}]"
                )
        return [*said, ""] if said else []

    def _verdict(self) -> list[str]:
        if self.equality is None:
            return textwrap.wrap("equality with guessing: no error can be told, so nothing is shown.", WIDTH)
        one = self.equality
        said = (
            f"equality with guessing (0.5 +- {one.margin:g}, two one-sided tests): {power.VERDICTS[one.verdict]}. "
            f"90 % interval {one.low:.3f} to {one.high:.3f}; the smallest margin that it would have shown is "
            f"{one.shows:.3f}."
        )
        return textwrap.wrap(said, WIDTH)

    def as_json(self) -> dict[str, Any]:
        """All numbers, as JSON can hold them: NaN and infinity become null."""
        found: dict[str, Any] = _plain(asdict(self))
        return found


def report(
    ratings: Iterable[Rating],
    key: Mapping[str, str],
    *,
    repeats: Mapping[str, str] | None = None,
    margin: float = power.MARGIN,
) -> Report:
    """Score the ratings of a study.

    key: the truth of each case, "real" or "synthetic". repeats: cases that show an image again, {second: first}; they
    count for the agreement of a reader with herself, and for nothing else. margin: how close to an AUC of 0.5 counts as
    guessing.

    Raises
    ------
    InputError
        If there is no rating, a rated case is not in the key, a reader has rated a case twice, or ratings come from
        several studies.
    """
    twice = dict(repeats or {})
    truth = {case: said for case, said in key.items() if case not in twice}
    told = list(ratings)
    by_reader = _by_reader(told, key)
    order = sorted(truth)
    synthetic = np.array([truth[case] == "synthetic" for case in order], bool)
    table = np.array([[by_reader[name].get(case, math.nan) for case in order] for name in by_reader])
    times = {name: float(np.mean([one.seconds for one in told if one.reader == name])) for name in by_reader}
    readers = []
    for name, row in zip(by_reader, table, strict=True):
        mine = by_reader[name]
        both = [(first, second) for second, first in twice.items() if first in mine and second in mine]
        pairs = [(int(mine[first]), int(mine[second])) for first, second in both]
        again = agreement.again(pairs) if len(pairs) >= 2 else None
        readers.append(_reader(name, row, synthetic, times[name], again, margin))
    scores = LEVELS - 1 - table
    enough = [j for j, one in enumerate(readers) if one.auc is not None]
    together = panel.mean_auc(scores[enough], synthetic) if len(enough) > 1 else None
    shared = (~np.isnan(table)).sum(0)
    alpha = agreement.krippendorff(table) if (shared >= 2).any() else None
    kappa = agreement.mean_kappa(table) if len(table) > 1 else math.nan
    cases = {kind: int(sum(said == kind for said in truth.values())) for kind in TRUTHS}
    return Report(
        cases, readers, together, _equality(together, scores, synthetic, enough, margin), alpha,
        None if math.isnan(kappa) else kappa, margin, _warnings(cases, readers, enough),
    )  # fmt: skip


def _by_reader(told: list[Rating], key: Mapping[str, str]) -> dict[str, dict[str, float]]:
    """reader -> case -> rating, readers in order of their names."""
    if not told:
        raise InputError("there is no rating to score; give the readers' files.")
    if len(studies := sorted({one.study for one in told})) > 1:
        raise InputError(f"the ratings come from several studies ({', '.join(studies[:3])}); score one at a time.")
    found: dict[str, dict[str, float]] = {name: {} for name in sorted({one.reader for one in told})}
    for one in told:
        if one.case not in key:
            raise InputError(f"{one.reader} rated {one.case}, which is not in the key; give the key of this study.")
        if key[one.case] not in TRUTHS:
            raise InputError(f"the truth of {one.case} is {key[one.case]!r}, but must be real or synthetic.")
        if one.case in found[one.reader]:
            raise InputError(f"{one.reader} rated {one.case} twice; keep one of the ratings.")
        found[one.reader][one.case] = float(one.rating)
    return found


def _reader(
    name: str, row: F64, synthetic: NDArray[np.bool_], seconds: float, again: agreement.Kappa | None, margin: float
) -> ReaderScore:
    rated = ~np.isnan(row)
    given, made = row[rated].astype(np.int64), synthetic[rated]
    counts = {kind: np.bincount(given[made == (kind == "synthetic")], minlength=LEVELS).tolist() for kind in TRUTHS}
    n, m = int(made.sum()), int((~made).sum())
    found = roc.delong(LEVELS - 1 - given, made) if min(n, m) >= 2 else None
    said = power.UNKNOWN
    if found is not None:
        narrow, wide = (found.logit(level) for level in (0.9, 0.95))
        said = power.verdict((narrow.low, narrow.high), (wide.low, wide.high), margin=margin)
    right = int((given[made] < UNSURE).sum() + (given[~made] > UNSURE).sum())
    unsure = int((given == UNSURE).sum())
    decided = len(given) - unsure
    share = Interval(right / decided, *wilson(right, decided)) if decided else None
    return ReaderScore(
        name, m, n, found.logit() if found else None, said, right, decided - right, unsure, share, seconds, counts,
        again, int((~rated).sum()),
    )  # fmt: skip


def _equality(
    together: panel.PanelAuc | None, scores: F64, synthetic: NDArray[np.bool_], enough: list[int], margin: float
) -> power.Equivalence | None:
    if together is not None:
        found, se, df = together.value, together.se, together.df
    elif enough:
        rated = ~np.isnan(scores[enough[0]])
        one = roc.delong(scores[enough[0], rated], synthetic[rated])
        found, se, df = one.value, one.se, math.inf
    else:
        return None
    return power.equivalence(found, se, df=df, margin=margin) if se > 0 else None


def _warnings(cases: dict[str, int], readers: list[ReaderScore], enough: list[int]) -> list[str]:
    said = [f"{one.name} has not rated {one.missing} of {sum(cases.values())} cases." for one in readers if one.missing]
    left = [one.name for j, one in enumerate(readers) if j not in enough]
    if left:
        said.append(f"{', '.join(left)}: fewer than two rated cases of a kind, so no AUC.")
    real, made = cases["real"], cases["synthetic"]
    if min(real, made) < 0.8 * max(real, made):
        said.append(f"{real} real and {made} synthetic cases: a reader who notices can rate by the odds.")
    for one in readers:
        used = sum(a + b > 0 for a, b in zip(*one.counts.values(), strict=True))
        if used == 1:
            said.append(f"{one.name} gave one rating throughout; that says nothing about the images.")
    if len(readers) == 1:
        said.append("one reader: the interval is about other cases, not about other readers.")
    elif len(enough) > 1 and len(readers) < 5:
        said.append(f"{len(readers)} readers: how much readers differ is itself hardly known, so the interval is wide.")
    return said


def _row(one: ReaderScore) -> str:
    auc = str(one.auc) if one.auc else "-"
    right = one.of_decided
    share = f"{right.value:4.0%} [{right.low:.0%}, {right.high:.0%}]" if right else "-"
    n = one.real + one.synthetic
    return f"{one.name[:17]:17s} {n:5d}   {auc:20s}  {share:17s}  {one.unsure / n:8.0%}  {one.seconds:5.1f} s"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, np.ndarray | list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value
