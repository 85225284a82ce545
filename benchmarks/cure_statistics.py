"""Statistics of benchmarks/cures.py: rates, paired differences on the same seeds, side effects, what screening keeps.

A table is a list of the rows that `cures.rows` makes, one an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import comb
from typing import Any

import numpy as np

from mame_lib.evaluation.adherence import wilson
from mame_lib.evaluation.attributes import measure_all
from mame_lib.evaluation.diversity import diversity, resampled_means
from mame_lib.evaluation.failures import BACKGROUND, FAILURES
from mame_lib.evaluation.similarity import pairwise_ms_ssim
from mame_lib.evaluation.sweep_rows import ASKABLE

DRAWS = 2000  # of the bootstraps


def failed(table: Sequence[dict[str, Any]], name: str) -> np.ndarray:
    """Whether each image has the failure, bool [N]; "any" for one of the four."""
    return np.array([bool(row["failed"]) if name == "any" else name in row["failed"].split() for row in table])


def share(hits: np.ndarray) -> dict[str, Any]:
    """A share with its 95 % Wilson interval."""
    low, high = wilson(int(hits.sum()), len(hits))
    return {"share": round(float(hits.mean()), 4), "images": len(hits), "interval": [round(low, 4), round(high, 4)]}


def paired(after: np.ndarray, before: np.ndarray) -> dict[str, Any]:
    """Mean difference on the same seeds with its 95 % bootstrap interval over images."""
    difference = after.astype(float) - before.astype(float)
    drawn = np.random.default_rng(0).integers(len(difference), size=(DRAWS, len(difference)))
    low, high = np.percentile(difference[drawn].mean(1), (2.5, 97.5))
    return {"mean": round(float(difference.mean()), 4), "interval": [round(float(low), 4), round(float(high), 4)]}


def mcnemar(after: np.ndarray, before: np.ndarray) -> dict[str, Any]:
    """Images that were mended and that were spoiled, and the exact two-sided p value of McNemar's test."""
    mended, spoiled = int((before & ~after).sum()), int((after & ~before).sum())
    n, k = mended + spoiled, min(mended, spoiled)
    p = min(1.0, 2 * sum(comb(n, i) for i in range(k + 1)) / 2**n)
    return {"mended": mended, "spoiled": spoiled, "p": float(f"{p:.2g}")}


def similarities(images: np.ndarray) -> np.ndarray:
    """MS-SSIM of all pairs of the images of Fig. 20's sentence, over the union of the two breasts: [N, N]."""
    some = images[::2]
    masks = np.stack([one.mask for one in measure_all(some)])
    return np.asarray(pairwise_ms_ssim(some, masks=masks))


def varied(scores: np.ndarray, before: np.ndarray) -> dict[str, Any]:
    """Mean similarity with its interval, and its difference to the baseline on the same resampled images."""
    own = diversity(scores, seed=0)
    spread = np.subtract(*(resampled_means(one, np.random.default_rng(0), DRAWS) for one in (scores, before)))
    low, high = np.percentile(spread, (2.5, 97.5))
    return {
        "mean": round(own.mean, 4), "interval": [round(own.low, 4), round(own.high, 4)],
        "difference": {"mean": round(own.mean - diversity(before, seed=0).mean, 4),
                       "interval": [round(float(low), 4), round(float(high), 4)]},
    }  # fmt: skip


def side_effects(table: Sequence[dict[str, Any]], before: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Words obeyed, of those that could be told, and shifts of gray level and area on the same seeds."""
    obeyed = {}
    for name in ASKABLE:
        said = [row[f"obeyed_{name}"] for row in table]
        obeyed[name] = share(np.array([word == "yes" for word in said if word in ("yes", "no")]))
    level, level_before = (BACKGROUND * np.array([row["background"] for row in rows]) for rows in (table, before))
    area, area_before = (np.array([row["area_ratio"] for row in rows]) for rows in (table, before))
    return {
        "obeyed": obeyed,
        "background level": {"mean": round(float(level.mean()), 3), "difference": paired(level, level_before)},
        "area ratio": {"mean": round(float(area.mean()), 4), "difference": paired(area, area_before)},
    }


def indices(table: Sequence[dict[str, Any]]) -> dict[str, list[int]]:
    """Which images have each failure."""
    return {name: [int(k) for k in np.flatnonzero(failed(table, name))] for name in FAILURES}


def screening(table: Sequence[dict[str, Any]], prompts: Sequence[str]) -> dict[str, Any]:
    """What is kept if every image with a failure is thrown away, and how the kept differ from all.

    Of the 14 captions alone: of Fig. 20's sentence next to nothing is kept.
    """
    captions = [row for row in table if row["index"] % 2]
    kept = ~failed(captions, "any")
    rng, values = np.random.default_rng(0), {}
    for name in ("area_ratio", "density_index"):
        value = np.array([row[name] for row in captions])
        drawn = rng.integers(len(value), size=(DRAWS, len(value)))
        spread = [value[some][kept[some]].mean() - value[some].mean() for some in drawn]
        values[name] = {
            "all": round(float(value.mean()), 4), "kept": round(float(value[kept].mean()), 4),
            "shift": [round(float(x), 4) for x in np.percentile(spread, (2.5, 97.5))],
        }  # fmt: skip
    by_sentence: dict[str, list[int]] = {}
    for row, good in zip(table, ~failed(table, "any"), strict=True):
        cell = by_sentence.setdefault(prompts[row["index"] % len(prompts)], [0, 0])
        cell[0] += int(good)
        cell[1] += 1
    return {"kept": share(kept), "kept of sentence": by_sentence, "values": values}
