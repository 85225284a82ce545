"""Do the intervals of reader studies hold what they promise, and how many images does equality take? By simulation.

    python benchmarks/readers.py [--quick] [--out benchmarks/results/readers.json]

`intervals`: one reader; how often each 95 % interval holds that reader's true AUC. `panels`: several readers; how often
it holds the mean AUC of all such readers. `widths`: half-widths by number of images. `equality`: how often a reader who
guesses is shown to, and one who does not is said to, by two one-sided tests. About five minutes of one core.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
from provenance import report
from scipy.special import stdtrit

from mame_lib.evaluation.adherence import wilson
from mame_lib.evaluation.readers import panel, power, roc

SIZES = ((25, 28), (50, 50), (200, 200))  # positive and negative cases; the first is the paper's study
AUCS = (0.5, 0.7, 0.9)
Z = 1.959963984540054
READERS = (3, 5, 10)
SKILLS = (0.0, 0.06)  # standard deviation of the readers' true AUCs
WIDTHS = (50, 100, 200, 400)
FIRST = 100  # of the trials, kept apart: the chapter makes some of them again


def share(hits: int, trials: int) -> dict[str, Any]:
    """A share of the trials with its 95 % Wilson interval."""
    low, high = wilson(hits, trials)
    return {"share": round(hits / trials, 4), "interval": [round(low, 4), round(high, 4)]}


def resampled(scores: np.ndarray, synthetic: np.ndarray, draws: int, rng: np.random.Generator) -> tuple[float, float]:
    """The percentile interval of `roc.bootstrap`, by drawing counts of the five ratings: the same, faster."""
    counts = [np.bincount(scores[kind].astype(int), minlength=5) for kind in (synthetic, ~synthetic)]
    made, real = (rng.multinomial(c.sum(), c / c.sum(), size=draws) / c.sum() for c in counts)  # [draws, 5]
    areas = (made * (np.cumsum(real, 1) - real / 2)).sum(1)
    low, high = np.percentile(areas, (2.5, 97.5))
    return float(low), float(high)


def intervals(trials: int) -> list[dict[str, Any]]:
    """One reader: coverage and mean width of four intervals."""
    found = []
    for n, m in SIZES:
        for auc in AUCS:
            model, rng = panel.ReaderModel(auc=auc), np.random.default_rng([n, round(100 * auc)])
            hits, widths, first = dict.fromkeys(("normal", "logit", "Hanley-McNeil", "bootstrap"), 0), {}, {}
            for trial in range(trials):
                one = model.simulate(1, n, m, seed=trial)
                score, truth = one.scores[0], one.true_aucs[0]
                by = roc.delong(score, one.synthetic)
                formula = roc.hanley_mcneil(by.value, n, m).normal()
                spans = {
                    "normal": (by.normal().low, by.normal().high), "logit": (by.logit().low, by.logit().high),
                    "Hanley-McNeil": (formula.low, formula.high),
                    "bootstrap": resampled(score, one.synthetic, 500, rng),
                }  # fmt: skip
                for name, (low, high) in spans.items():
                    hits[name] += low <= truth <= high
                    widths[name] = widths.get(name, 0.0) + (high - low) / trials
                if trial < FIRST:
                    first = dict(hits)
            for name in hits:
                found.append({"synthetic": n, "real": m, "auc": auc, "method": name, "width": round(widths[name], 4),
                              "of the first": int(first[name]), **share(int(hits[name]), trials)})  # fmt: skip
    return found


def spans_of_panel(one: panel.Panel) -> dict[str, tuple[float, float]]:
    """Four intervals for the mean AUC of a panel; only the first is about other readers and other cases."""
    found = panel.mean_auc(one.scores, one.synthetic)
    count = len(found.aucs)
    fixed = math.sqrt(max(0.0, found.error + (count - 1) * found.shared) / count)
    lone = float(stdtrit(count - 1, 0.975)) * math.sqrt(found.between / count)
    pooled = roc.delong(one.scores.reshape(-1), np.tile(one.synthetic, count)).logit()
    return {
        "readers and cases": (found.low, found.high),
        "cases only": (found.value - Z * fixed, found.value + Z * fixed),
        "readers only": (found.value - lone, found.value + lone),
        "pooled": (pooled.low, pooled.high),
    }


def panels(trials: int, each: int = 50) -> list[dict[str, Any]]:
    """Several readers: coverage of the mean AUC of all readers of the population."""
    found = []
    for auc in AUCS[:2]:
        for skill in SKILLS:
            model = panel.ReaderModel(auc=auc, reader_sd=skill)
            truth = model.truth(200_000)
            for readers in READERS:
                hits, widths, first = {}, {}, {}
                for trial in range(trials):
                    for name, (low, high) in spans_of_panel(model.simulate(readers, each, each, seed=trial)).items():
                        hits[name] = hits.get(name, 0) + int(low <= truth <= high)
                        widths[name] = widths.get(name, 0.0) + (high - low) / trials
                    if trial < FIRST:
                        first = dict(hits)
                for name in hits:
                    found.append({"readers": readers, "each": each, "auc": auc, "reader_sd": skill, "method": name,
                                  "truth": round(truth, 5), "width": round(widths[name], 4),
                                  "of the first": first[name], **share(hits[name], trials)})  # fmt: skip
    return found


def widths(trials: int) -> list[dict[str, Any]]:
    """Half-width of one guessing reader's 95 % interval: planned, and measured with five ratings."""
    found = []
    for each in WIDTHS:
        seen = [
            Z * roc.delong(one.scores[0], one.synthetic).se
            for one in (panel.ReaderModel().simulate(1, each, each, seed=seed) for seed in range(trials))
        ]
        planned = power.Design(each=each).half_width
        found.append({"each": each, "planned": round(planned, 4), "measured": round(float(np.mean(seen)), 4)})
    return found


def equality(trials: int) -> list[dict[str, Any]]:
    """How often two one-sided tests show equality with guessing, within the default margin."""
    rng, found = np.random.default_rng(8), []
    alone = power.for_equivalence()
    together = power.for_equivalence(readers=5, reader_sd=0.02)
    looks = [(1, alone, 0.5, 0.0, False), (1, alone, 0.5, 0.0, True), (1, alone, 0.55, 0.0, False),
             (1, 25, 0.5, 0.0, True), (5, together, 0.5, 0.02, True), (5, together, 0.55, 0.02, True)]  # fmt: skip
    for readers, each, auc, skill, rated in looks:
        hits = apart = 0
        # The mean AUC of five ratings is nearer to 0.5 than that of the looks: aim at the ratings' mean.
        model = panel.ReaderModel(auc=aimed(auc, skill) if rated else auc, reader_sd=skill)
        for seed in range(trials):
            if rated:
                one = model.simulate(readers, each, each, seed=seed)
                scores, synthetic = one.scores, one.synthetic
            else:
                synthetic = np.arange(2 * each) < each
                scores = rng.normal(size=(1, 2 * each)) + synthetic * math.sqrt(2) * roc.ndtri(auc)
            if readers == 1:
                by = roc.delong(scores[0], synthetic)
                said = power.equivalence(by.value, by.se).verdict
            else:
                mean = panel.mean_auc(scores, synthetic)
                said = power.equivalence(mean.value, mean.se, df=mean.df).verdict
            hits += said in (power.EQUAL, power.SLIGHT)
            apart += said in (power.DIFFERENT, power.SLIGHT)
        design = power.Design(each, readers, auc, skill)
        found.append({"readers": readers, "each": each, "auc": auc, "reader_sd": skill, "five ratings": rated,
                      "planned": round(design.equivalence_power(), 4), "equal": share(hits, trials),
                      "different": share(apart, trials)})  # fmt: skip
    return found


def aimed(auc: float, skill: float) -> float:
    """The AUC before the cut into five ratings for which ratings have the mean AUC `auc`."""
    low, high = 0.5, 0.99
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (middle, high) if panel.ReaderModel(auc=middle, reader_sd=skill).truth() < auc else (low, middle)
    return 0.5 if auc == 0.5 else high


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the first trials alone, to see that it runs")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    trials, start = FIRST if arguments.quick else 2000, time.process_time()
    result = {
        "trials": trials, "first": FIRST, "margin": power.MARGIN, "intervals": intervals(trials),
        "panels": panels(trials), "widths": widths(trials), "equality": equality(trials),
    }  # fmt: skip
    report(result, arguments.out, "scipy", seconds=round(time.process_time() - start))


if __name__ == "__main__":
    main()
