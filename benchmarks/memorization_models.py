"""Models made to memorize: the same training on 20, 80, 320 and 1,280 phantoms, kept at several steps.

    python benchmarks/memorization_models.py --work build/memorization

`benchmarks/memorization.py` examines what they draw. The phantoms are the first of one population, so the small sets
are parts of the large ones. A rate that never falls makes step 500 of a longer run the end of a shorter one. About an
hour on one core; the same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from mame_lib.data import manifest
from mame_lib.data.sources import phantom_source
from mame_lib.training.config import TrainConfig
from mame_lib.training.loop import fit

SEED = 31_000_000  # of the phantoms; no other script draws them
COUNTS = (20, 80, 320, 1280)
STEPS = (100, 300, 600, 1200)
RECIPE: dict[str, Any] = {
    "preset": "tiny", "batch_size": 16, "learning_rate": 1.5e-3, "text_learning_rate_factor": 0.5,
    "rate_schedule": "constant", "ema_decay": 0.99, "validation_every": 0, "held_out_images": 0,
}  # fmt: skip


def data_of(count: int, work: Path) -> Path:
    """The folder with the first `count` phantoms, all of them for training."""
    folder = work / f"phantoms-{count}"
    if not folder.exists():
        settings = {"count": count, "seed": SEED}
        items = (replace(item, split="train") for item in phantom_source(**settings))
        manifest.write(folder, items, source="phantom", settings=settings)
    return folder


def train(count: int, work: Path) -> None:
    """One run over all of `STEPS`; its models lie in `work`/count-STEPS."""
    run = work / f"run-{count}"
    for steps in STEPS:
        kept = work / f"{count}-{steps}"
        if kept.exists():
            continue
        config = TrainConfig(
            data=data_of(count, work), out=run, steps=steps, resume=(run / "config.json").exists(), **RECIPE
        )
        with tqdm(total=steps, desc=f"{count} phantoms", unit="step") as bar:
            for result in fit(config):
                bar.update(result.step - bar.n)
        shutil.copytree(run / "model", kept.with_suffix(".partial"))
        kept.with_suffix(".partial").rename(kept)


def main() -> None:
    """Train what is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/memorization"))
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for count in options.counts:
        train(count, options.work)


if __name__ == "__main__":
    main()
