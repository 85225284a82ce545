"""Table 3's twin: how alike the images of one sentence are at each guidance scale, for three models.

    python benchmarks/sweeps.py guidance --shipped      # makes the images, in build/sweeps
    python benchmarks/guidance_table.py                 # measures them, under a minute

Each cell: 40 images of one sentence, from the same 40 noises. MS-SSIM of the whole images and of the breasts alone;
the paper's 20 pairs, and all 780 with a bootstrap interval over images; pairs that score exactly 0. Baseline: 40
phantoms with the attributes that the sentence asks for. Obedient: the images alone that have all that was asked, where
there are at least 4. Trends: the slope over guidance 4 to 14, as in the paper's
table. Written to benchmarks/results/guidance_table.json.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from provenance import report
from scipy.stats import spearmanr
from sweeps import BUILD, PLANS, RESULTS, Plan, folder_of

from mame_lib.data.case import Attributes
from mame_lib.data.masks import breast_mask
from mame_lib.data.phantom import draw
from mame_lib.data.prompts import parse
from mame_lib.evaluation.diversity import FEWEST, diversity, paper_protocol
from mame_lib.evaluation.similarity import pairwise_ms_ssim
from mame_lib.evaluation.sweep import read
from mame_lib.evaluation.sweep_rows import ASKABLE, Row
from mame_lib.evaluation.trends import diversity_trend

COUNT = 40
TREND = tuple(float(g) for g in range(4, 15))  # the scales of the paper's table
SEED = 0  # of the bootstrap
PHANTOMS = 990_000  # seed of the baseline; no model was trained on this population
KINDS = ("whole", "breast")

Images = NDArray[np.uint8]


def matrices(images: Images) -> dict[str, NDArray[np.float64]]:
    """MS-SSIM of all pairs of the images [N, n, n], whole and within the union of the two breasts: [N, N] each."""
    masks = np.stack([breast_mask(image) for image in images])
    scores = {"whole": pairwise_ms_ssim(images), "breast": pairwise_ms_ssim(images, masks=masks)}
    return {name: np.asarray(one) for name, one in scores.items()}


def spread(matrix: NDArray[np.float64]) -> dict[str, float]:
    """`Diversity` of a matrix [N, N], as it is stored."""
    return {name: round(value, 5) for name, value in asdict(diversity(matrix, seed=SEED)).items()}


def cell(scores: dict[str, NDArray[np.float64]], images: Images, obey: NDArray[np.bool_]) -> dict[str, Any]:
    """The numbers of one cell of the table; obey [N]: which images have all that was asked."""
    areas = np.array([breast_mask(image).mean() for image in images])
    first, second = np.triu_indices(len(images), 1)
    found: dict[str, Any] = {"area": round(float(areas.mean()), 4), "area_sd": round(float(areas.std(ddof=1)), 4)}
    for kind, matrix in scores.items():
        mean, sd = paper_protocol(matrix)
        pairs = matrix[first, second]
        with_area = spearmanr(pairs, (areas[first] + areas[second]) / 2).statistic
        found[kind] = {
            "paper": {"mean": round(mean, 5), "sd": round(sd, 5)},
            "pairs": spread(matrix),
            "zero": round(float((pairs == 0).mean()), 5),
            "with_area": round(float(with_area), 3),
            "obedient": spread(matrix[np.ix_(obey, obey)]) if obey.sum() >= FEWEST else None,
        }
    return found


def pictures(plan: Plan) -> dict[float, tuple[Images, NDArray[np.bool_]]]:
    """Images [40, n, n] of each guidance scale, in the order of their noise, and which have all that was asked [40]."""
    folder = folder_of("guidance", plan)
    found: dict[float, list[Row]] = {}
    for row in read(folder):
        found.setdefault(row.guidance_scale, []).append(row)
    ordered = {g: sorted(rows, key=lambda row: row.index) for g, rows in found.items()}
    return {
        g: (np.stack([np.asarray(Image.open(folder / row.file)) for row in rows]), np.array([*map(as_asked, rows)]))
        for g, rows in ordered.items()
    }


def as_asked(row: Row) -> bool:
    """Whether the image has every attribute that its sentence names, by the likeliest word of each measure."""
    return all(getattr(row, name) == asked for name in ASKABLE if (asked := getattr(row, f"asked_{name}")))


def baseline(asked: Attributes) -> Images:
    """40 phantoms with the attributes of a sentence, what it does not say being drawn at random."""
    return np.stack([draw(asked, seed=PHANTOMS, index=k).image for k in range(COUNT)])


def asked_of(plan: Plan) -> Attributes:
    """What the sentence of a plan asks; a model of one vendor was trained on that vendor's phantoms alone."""
    asked = parse(plan.prompts[0])
    return asked if asked.vendor else Attributes(plan.model, asked.view, area=asked.area, density=asked.density)


def measured(plan: Plan) -> dict[str, Any]:
    """All cells, the baseline and the trends of one model."""
    by_scale = pictures(plan)
    scores = {g: matrices(images) for g, (images, _) in by_scale.items()}
    real = baseline(asked_of(plan))
    return {
        "prompt": plan.prompts[0],
        "cells": {f"{g:g}": cell(scores[g], images, obey) for g, (images, obey) in by_scale.items()},
        "phantoms": cell(matrices(real), real, np.ones(COUNT, bool)),
        "trend": {
            kind: asdict(diversity_trend([scores[g][kind] for g in TREND], TREND, seed=SEED)) for kind in KINDS
        },
    }


def main() -> None:
    """Measure the three models, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS / "guidance_table.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    began = time.process_time()
    models = {plan.model: measured(plan) for plan in PLANS["guidance"]}
    about = f"{COUNT} images a cell of the sweep in {BUILD}/sweeps; MS-SSIM at 128 pixels, four levels, data range 255"
    seconds = round(time.process_time() - began, 1)
    report({"about": about, "models": models}, options.out, "torch", "scipy", seconds=seconds)


if __name__ == "__main__":
    main()
