"""Figure 15 with numbers: what the combined model makes of the paper's sentence as its training goes on.

    python benchmarks/extrapolation_steps.py

The run is the one of `tools/train_tiny_models.py fused-short`, bit for bit, with more checkpoints kept. At each of
them 40 images are made of the paper's sentence and of five sentences beside it, and measured. One row an image goes to
benchmarks/results/extrapolation_steps.csv.gz, where they come from to extrapolation_steps.json, and the first images
of the paper's sentence to extrapolation_steps.png. Work lies in build/extrapolation-steps; the same command goes on
where it was stopped. Half an hour of one core. `--there` trains nothing, and takes the checkpoints that
there are.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from provenance import provenance
from tqdm import tqdm

from mame_lib.data import manifest
from mame_lib.data.prompts import PAPER_PROMPTS
from mame_lib.data.sources import phantom_source
from mame_lib.evaluation.sweep import pixels, sweep
from mame_lib.evaluation.sweep_models import weights_hash
from mame_lib.evaluation.sweep_rows import Row, write_csv
from mame_lib.evaluation.sweep_sheet import notice
from mame_lib.generation import Mame
from mame_lib.models.components import Components
from mame_lib.training.checkpoint import complete_checkpoints, read_checkpoint
from mame_lib.training.config import TrainConfig
from mame_lib.training.loop import fit
from mame_lib.training.networks import trainable
from mame_lib.training.setup import prepare

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))
from train_tiny_models import FUSED, ROUNDS, SHARED

RESULTS = Path(__file__).parent / "results"
WORK, SHORT_RUN = Path("build/extrapolation-steps"), Path("build/fused-short")
STEPS = (0, 100, 200, 300, 500)
SAMPLER_STEPS = 12
PAPER = PAPER_PROMPTS["figure 15, table 3"]
SENTENCES = (
    PAPER,
    "a siemens mammogram in MLO view with small area",  # never captioned
    "a siemens mammogram in MLO view with big area",  # never captioned
    "a hologic mammogram in MLO view with small area",
    "a hologic mammogram in MLO view with big area",
    "a siemens mammogram in MLO view with high density",
)
IMAGES, SHOWN = 40, 4


def config_of() -> TrainConfig:
    """The short training of the recipe of `fused`, on its phantoms, with every checkpoint kept."""
    data = SHORT_RUN / "phantoms"
    if not data.exists():
        data = WORK / "phantoms"
        if not data.exists():
            manifest.write(data, phantom_source(**FUSED), source="phantom", settings=FUSED)
    run = WORK / "run"
    return TrainConfig(
        data=data, out=run, steps=STEPS[-1], seed=1337, resume=(run / "config.json").exists(), **SHARED,
        **ROUNDS["structure"], keep_checkpoints=STEPS[-1] // SHARED["checkpoint_every"],
    )  # fmt: skip


def checkpoints() -> dict[int, Path]:
    """Folders of the checkpoints that are there, by step."""
    return {int(path.name[5:]): path for path in complete_checkpoints(WORK / "run" / "checkpoints")}


def models(config: TrainConfig) -> Iterator[Mame]:
    """The averaged weights after each of `STEPS` whose checkpoint is there; before the first step, the base."""
    parts, _ = prepare(config)
    yield Mame(parts, "step-0")
    for step, folder in sorted(checkpoints().items()):
        if step in STEPS:
            files, _ = read_checkpoint(folder)
            parts, _ = prepare(config)
            with torch.no_grad():
                for number, weight in enumerate(trainable(config, parts)):
                    weight.copy_(files["ema"][str(number)])
            yield Mame(_closed(parts), f"step-{step}")


def _closed(parts: Components) -> Components:
    """Networks as they are used, not as they are trained."""
    for network in (parts.unet, parts.text_encoder):
        network.requires_grad_(False).eval()
    return parts


def sheet(columns: list[list[NDArray[np.uint8]]]) -> Image.Image:
    """One row an image number, one column a step."""
    return Image.fromarray(np.vstack([np.hstack(row) for row in zip(*columns, strict=True)]))


def main() -> None:
    """Train if need be, measure, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--there", action="store_true", help="measure the checkpoints that are there; train nothing")
    options = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    config = config_of()
    if not options.there and not set(STEPS[1:]) <= set(checkpoints()):
        with tqdm(total=config.steps, unit="step") as bar:
            for result in fit(config):
                bar.update(result.step - bar.n)
    rows: list[Row] = []
    columns, hashes, seconds = [], {}, 0.0
    for mame in models(config):
        folder = WORK / "sweeps" / mame.name
        made = sweep(
            mame, SENTENCES, steps=SAMPLER_STEPS, count=IMAGES, out=folder,
            progress=lambda new, total: tqdm(new, total=total),
        )  # fmt: skip
        seconds += json.loads((folder / "sweep.json").read_text())["provenance"]["seconds"]
        hashes[mame.name] = weights_hash(mame.components)
        columns.append([pixels(folder, row) for row in made if row.prompt == PAPER][:SHOWN])
        rows += [replace(row, file="") for row in made]
    write_csv(rows, RESULTS / "extrapolation_steps.csv.gz")
    sheet(columns).save(RESULTS / "extrapolation_steps.png", optimize=True, pnginfo=notice())
    result: dict[str, Any] = {
        "steps": [int(name[5:]) for name in hashes], "batch_size": config.batch_size,
        "training_images": prepare(config)[1].facts["images"],
        "shown": SHOWN, "weights": hashes,
        "provenance": provenance("torch", seconds=round(seconds, 1)),
    }  # fmt: skip
    (RESULTS / "extrapolation_steps.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
