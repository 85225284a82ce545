"""Make the shipped models, with the trainer of the library. One command each:

    python tools/train_tiny_models.py hologic
    python tools/train_tiny_models.py siemens
    python tools/train_tiny_models.py fused
    python tools/train_tiny_models.py inpaint

Each is trained in rounds on its own phantoms (`inpaint` from `fused`, which knows what a breast looks like), each round
from the averaged weights of the one before. Work and checkpoints lie in build/NAME; the same command goes on where it
was stopped.

The variants are not shipped: they answer what a choice of the recipe is good for (chapters 09, 10 and 12). The first
three are short trainings of `fused`, alike but for one setting; the last goes on from the shipped `fused`:

    python tools/train_tiny_models.py fused-short
    python tools/train_tiny_models.py fused-frozen-text
    python tools/train_tiny_models.py fused-no-dropout
    python tools/train_tiny_models.py fused-zero-snr
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from mame_lib.data import manifest
from mame_lib.data.sources import phantom_source
from mame_lib.models.components import Components, write_shipped
from mame_lib.models.presets import WEIGHTS
from mame_lib.training.config import TrainConfig
from mame_lib.training.loop import fit

# "structure" weights the noisy timesteps, where it is decided what the picture shows; "texture" weights all alike.
ROUNDS: dict[str, dict[str, Any]] = {
    "structure": {"min_snr_gamma": 1.0, "learning_rate": 2.5e-3, "text_learning_rate_factor": 1.0, "warmup": 50},
    "texture": {"learning_rate": 2e-3, "text_learning_rate_factor": 0.5},
}


@dataclass(frozen=True)
class Recipe:
    """What a model learns from (arguments of `phantom_source`), and its rounds: kind and steps."""

    phantoms: dict[str, Any]
    rounds: tuple[tuple[str, int], ...]
    preset: str = "tiny"
    base: str | None = None  # None: the preset's own
    settings: dict[str, Any] = field(default_factory=dict)


SHARED: dict[str, Any] = {"batch_size": 32, "ema_decay": 0.995, "validation_every": 200, "checkpoint_every": 100}
LESIONS = {"lesions": 0.75, "lesion_area": (0.003, 0.04), "say_findings": True}
FUSED = {"count": 4000, "seed": 23}
RECIPES = {
    "hologic": Recipe({"count": 2500, "seed": 21, "vendor": "hologic"}, (("structure", 900), ("texture", 500))),
    "siemens": Recipe({"count": 2500, "seed": 22, "vendor": "siemens"}, (("structure", 900), ("texture", 900))),
    "fused": Recipe(
        FUSED, (("structure", 1300), ("texture", 1300), ("structure", 1200), ("texture", 600)),
    ),
    "inpaint": Recipe(
        {"count": 3200, "seed": 24, **LESIONS}, (("structure", 500), ("texture", 700)), preset="tiny-inpaint",
        base="fused", settings={"mask_loss_weight": 20.0, "healthy_boxes": True},
    ),
}
SHORT = (("structure", 500),)
VARIANTS = {
    "fused-short": Recipe(FUSED, SHORT),
    "fused-frozen-text": Recipe(FUSED, SHORT, settings={"method": "unet"}),
    "fused-no-dropout": Recipe(FUSED, SHORT, settings={"caption_dropout": 0.0}),
    "fused-zero-snr": Recipe(FUSED, (("texture", 1200),), base="fused", settings={"zero_terminal_snr": True}),
}


def train(name: str, work: Path) -> Path:
    """Draw the phantoms and train the rounds that are not there yet; the folder of the last model."""
    recipe, data = {**RECIPES, **VARIANTS}[name], work / "phantoms"
    if not data.exists():
        manifest.write(data, phantom_source(**recipe.phantoms), source="phantom", settings=recipe.phantoms)
    model: Path | None = None
    for number, (kind, steps) in enumerate(recipe.rounds, start=1):
        run = work / f"round-{number}"
        config = TrainConfig(
            data=data, out=run, preset=recipe.preset, base=recipe.base if model is None else str(model), steps=steps,
            seed=1336 + number, resume=(run / "config.json").exists(), **SHARED, **ROUNDS[kind], **recipe.settings,
        )  # fmt: skip
        if not (run / "model").exists():
            with tqdm(total=steps, desc=f"{name}, round {number}", unit="step") as bar:
                for result in fit(config):
                    bar.update(result.step - bar.n)
        model = run / "model"
    assert model is not None
    return model


def main() -> None:
    """Train one model and put it among the shipped ones; its card stays. A variant stays in its last run folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=(*RECIPES, *VARIANTS))
    parser.add_argument("--work", type=Path, help="(default: build/NAME)")
    parser.add_argument("--out", type=Path, help="(default: the library's weights/NAME)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = train(options.name, options.work or Path("build") / options.name)
    if options.name in VARIANTS:
        print(model)
    else:
        write_shipped(Components.load(model), options.out or WEIGHTS / options.name)


if __name__ == "__main__":
    main()
