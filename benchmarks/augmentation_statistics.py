"""Statistics of benchmarks/augmentation.py: AUC and FROC of each arm, and differences to the first, with intervals.

Bootstrap over both levels: seeds (another training set and another start of the weights) and test cases, ill and
healthy ones apart. A draw is the same for all arms, so differences are paired. p values are those of the bootstrap,
corrected by Holm over all comparisons of a measure.
"""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mame_lib.evaluation.froc import Judged, auc, froc

ROWS = "augmentation.csv.gz"
COLUMNS = ("arm", "seed", "case", "ill", "score", "hit", "alarms")
DRAWS = 2000
MEASURES = ("auc", "sensitivity at 0.5", "sensitivity at 1", "froc area")


@dataclass(frozen=True)
class Run:
    """What one detector says of the N test cases.

    ill: bool [N]; scores: of the image, [N]; hit: best score of a mark in the lesion's box, 0 where there is none, [N];
    alarms: scores of the other marks of each.
    """

    arm: str
    seed: int
    ill: np.ndarray
    scores: np.ndarray
    hit: np.ndarray
    alarms: list[list[float]]

    def judged(self) -> Judged:
        """As `froc` takes it."""
        at = np.flatnonzero(self.ill)
        lesions = np.where(self.hit[at] > 0, self.hit[at], -np.inf)
        where = np.repeat(np.arange(len(self.ill)), [len(some) for some in self.alarms])
        return Judged(lesions, at, np.array([s for some in self.alarms for s in some]), where, len(self.ill))


def write_rows(runs: Sequence[Run], path: Path) -> None:
    """One row a run and test case; scores to four digits."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for run in runs:
        for k, some in enumerate(run.alarms):
            wrong = " ".join(f"{s:.4f}" for s in some)
            writer.writerow([run.arm, run.seed, k, int(run.ill[k]), f"{run.scores[k]:.4f}", f"{run.hit[k]:.4f}", wrong])
    path.write_bytes(gzip.compress(text.getvalue().encode(), mtime=0))


def read_rows(path: Path) -> Iterator[Run]:
    """The inverse of `write_rows`."""
    rows: dict[tuple[str, int], list[dict[str, str]]] = {}
    with gzip.open(path, "rt", newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            rows.setdefault((row["arm"], int(row["seed"])), []).append(row)
    for (arm, seed), some in rows.items():
        ill, scores, hit = (np.array([float(row[name]) for row in some]) for name in ("ill", "score", "hit"))
        alarms = [[float(word) for word in row["alarms"].split()] for row in some]
        yield Run(arm, seed, ill > 0, scores, hit, alarms)


def measures(run: Run, judged: Judged, rows: np.ndarray) -> list[float]:
    """`MEASURES` of a run on test cases drawn as `rows`."""
    curve = froc(judged, np.bincount(rows, minlength=len(run.ill)))
    return [auc(run.scores[rows], run.ill[rows]), curve.at(0.5), curve.at(1.0), curve.area(1.0)]


def bootstrap(runs: Sequence[Run], draws: int = DRAWS) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Names of the arms [A]; their measures by seed [A, S, M]; and those of each draw, averaged over seeds [D, A, M].

    Raises `ValueError` if an arm lacks a seed.
    """
    arms = list(dict.fromkeys(run.arm for run in runs))
    seeds = sorted({run.seed for run in runs})
    by = {(run.arm, run.seed): (run, run.judged()) for run in runs}
    if len(by) != len(arms) * len(seeds):
        raise ValueError("an arm lacks a seed.")
    ill = runs[0].ill
    kinds = np.flatnonzero(ill), np.flatnonzero(~ill)
    whole = np.arange(len(ill))
    plain = np.array([[measures(*by[arm, seed], whole) for seed in seeds] for arm in arms])
    rng = np.random.default_rng(0)
    drawn = np.zeros((draws, len(arms), len(MEASURES)))
    for one in drawn:
        rows = np.concatenate([rng.choice(kind, len(kind)) for kind in kinds])
        times = np.bincount(rng.integers(len(seeds), size=len(seeds)), minlength=len(seeds)) / len(seeds)
        for k, arm in enumerate(arms):
            for seed, share in zip(seeds, times, strict=True):
                if share:
                    one[k] += share * np.array(measures(*by[arm, seed], rows))
    return arms, plain, drawn


def holm(p: Sequence[float]) -> list[float]:
    """Holm's corrected p values, in the order given."""
    order = np.argsort(p, kind="stable")
    corrected = np.maximum.accumulate([min(1.0, (len(p) - rank) * p[k]) for rank, k in enumerate(order)])
    back = np.empty(len(p))
    back[order] = corrected
    return [float(value) for value in back]


def p_value(differences: np.ndarray) -> float:
    """Two-sided, of a bootstrapped difference [D]: never below 2 / (D + 1)."""
    tail = min((differences <= 0).sum(), (differences >= 0).sum())
    return float(min(1.0, 2 * (tail + 1) / (len(differences) + 1)))


def table(runs: Sequence[Run], base: str, draws: int = DRAWS) -> dict[str, Any]:
    """Each arm's measures and their differences to the arm `base`, with 95 % intervals."""
    arms, plain, drawn = bootstrap(runs, draws)
    first = arms.index(base)
    apart = drawn - drawn[:, [first]]
    result: dict[str, Any] = {arm: {} for arm in arms}
    for m, name in enumerate(MEASURES):
        others = [k for k in range(len(arms)) if k != first]
        corrected = dict(zip(others, holm([p_value(apart[:, k, m]) for k in others]), strict=True))
        for k, arm in enumerate(arms):
            result[arm][name] = {
                "value": round(float(plain[k, :, m].mean()), 4),
                "interval": _ends(drawn[:, k, m]),
                "by seed": [round(float(v), 4) for v in plain[k, :, m]],
            }
            if k != first:
                result[arm][name]["difference"] = {
                    "value": round(float((plain[k, :, m] - plain[first, :, m]).mean()), 4),
                    "interval": _ends(apart[:, k, m]),
                    "p": float(f"{p_value(apart[:, k, m]):.2g}"),
                    "p (Holm)": float(f"{corrected[k]:.2g}"),
                }
    return result


def _ends(values: np.ndarray) -> list[float]:
    return [round(float(v), 4) for v in np.percentile(values, (2.5, 97.5))]
