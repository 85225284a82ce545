"""Every vendor x area x density of the MLO view again, asked by two sentences of the training, one after the other.

    python benchmarks/extrapolation_relay.py

The other vendor's sentence rules while there is most noise, the vendor's own below: `evaluation.relay`. Rows are those
of a sweep, under the name of the model, with the sentence that would have asked for everything at once. They go to
benchmarks/results/extrapolation_relay.csv.gz, where they come from to extrapolation_relay.json. Work lies in
build/extrapolation-relay; the same command goes on where it was stopped. About five minutes of one core.
"""

from __future__ import annotations

import json
import os
import time
from itertools import product
from pathlib import Path

import torch
from provenance import provenance
from tqdm import tqdm

from mame_lib.data.case import AREAS, DENSITIES, VENDORS, Attributes
from mame_lib.data.prompts import compose, training_prompt
from mame_lib.evaluation.attributes import measure_all
from mame_lib.evaluation.relay import relay
from mame_lib.evaluation.sweep_models import weights_hash
from mame_lib.evaluation.sweep_rows import Row, read_csv, row_of, write_csv
from mame_lib.generation import Generated, Mame

RESULTS, WORK = Path(__file__).parent / "results", Path("build/extrapolation-relay")
SWAP, IMAGES, STEPS, BATCH = 700, 40, 12, 8


def legs_of(wanted: Attributes) -> list[tuple[int, str]]:
    """The other vendor's sentence down to `SWAP`, then the vendor's own; both are captions of the training."""
    other = next(vendor for vendor in VENDORS if vendor != wanted.vendor)
    first = Attributes(other, wanted.view, wanted.area, wanted.density)
    return [(SWAP, training_prompt(first)), (0, training_prompt(wanted))]


def rows_of(mame: Mame, wanted: Attributes, weights: str) -> list[Row]:
    """The measured images of one cell."""
    rows = []
    for first in range(0, IMAGES, BATCH):
        indices = range(first, min(first + BATCH, IMAGES))
        images = relay(mame, legs_of(wanted), indices=indices, steps=STEPS)
        for index, pixels, said in zip(indices, images, measure_all(images), strict=True):
            made = Generated(
                pixels=pixels, prompt=compose(wanted), negative_prompt="", guidance_scale=4.0, guidance_rescale=0.0,
                guidance_interval=None, steps=STEPS, sampler="dpm_solver_pp", seed=0, index=index, model=mame.name,
            )  # fmt: skip
            rows.append(row_of(made, said, weights=weights))
    return rows


def main() -> None:
    """Make what is missing, store all."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    WORK.mkdir(parents=True, exist_ok=True)
    mame = Mame.load("fused")
    weights, rows, seconds = weights_hash(mame.components), [], 0.0
    cells = [Attributes(*words) for words in product(reversed(VENDORS), ["MLO"], AREAS, DENSITIES)]
    for wanted in tqdm(cells, unit="cell"):
        name = f"{weights}-{STEPS}-{compose(wanted).replace(' ', '-')}"
        kept, took = WORK / f"{name}.csv", WORK / f"{name}.seconds"
        if not took.exists():
            began = time.process_time()
            write_csv(rows_of(mame, wanted, weights), kept)
            took.write_text(str(time.process_time() - began))
        rows += read_csv(kept)
        seconds += float(took.read_text())
    write_csv(rows, RESULTS / "extrapolation_relay.csv.gz")
    result = {"rows": len(rows), "swap": SWAP, "weights": {mame.name: weights},
              "provenance": provenance("torch", seconds=round(seconds, 1))}  # fmt: skip
    (RESULTS / "extrapolation_relay.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
