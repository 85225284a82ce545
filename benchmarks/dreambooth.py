"""The long experiments of chapter 07: what learning rate, batch, loss weights, class images and so on decide.

    python benchmarks/dreambooth.py --out benchmarks/results/dreambooth.json

Every run fine-tunes the tiny base on phantoms of one vendor, one seed each. What a run gave is kept in
build/dreambooth, so that the same command goes on where it was stopped; a run alone: `--only NAME`. Besides the
numbers two pictures are written, beside the JSON. About half an hour on one core.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fixed_loss import FixedLoss
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from provenance import report

from mame_lib.data import manifest
from mame_lib.data.case import AREAS, DENSITIES, VIEWS, Attributes
from mame_lib.data.pictures import picture
from mame_lib.data.sources import phantom_source
from mame_lib.evaluation.attributes import measure_all
from mame_lib.generation import Mame
from mame_lib.models.components import NOTICE, Components
from mame_lib.models.latents import encode_moments
from mame_lib.training.config import TrainConfig
from mame_lib.training.data import TrainingSet, batch_of_step
from mame_lib.training.images import evaluating
from mame_lib.training.loop import start, train_step
from mame_lib.training.setup import prepare

HOLOGIC: dict[str, Any] = {"count": 300, "seed": 7, "vendor": "hologic"}  # captions: view and area
SIEMENS: dict[str, Any] = {"count": 1000, "seed": 8, "vendor": "siemens"}  # captions: view and density
FEW, CIRCLE, PICTURES_SEED = 12, "a big white circle", 99
SAMPLER_STEPS, ASKED = 12, 48


@dataclass(frozen=True)
class Plan:
    """One run: what it changes in the recipe of the live chapter, and what is measured."""

    changes: dict[str, Any]
    phantoms: dict[str, Any] = field(default_factory=lambda: HOLOGIC)
    few: bool = False  # only so many training images
    losses: tuple[str, ...] = ("held_out", "training")
    measured: int = 6  # times in all that the losses are measured
    asked_at: tuple[int, ...] = ()  # steps at which prompts are asked too; at the end always
    guidance: tuple[float, ...] = (2.0,)


RECIPE: dict[str, Any] = {"preset": "tiny", "steps": 300, "batch_size": 16, "learning_rate": 1.5e-3}
MEMORY = ("held_out", "training", "pictures", "circles")
DENSITY: dict[str, Any] = {
    "phantoms": SIEMENS, "losses": ("held_out",), "asked_at": (175, 350, 525), "measured": 2
}  # fmt: skip
STRONG = {"steps": 700, "batch_size": 32, "learning_rate": 2e-3, "text_learning_rate_factor": 1.0, "ema_decay": 0.995}
PLANS = {
    "full": Plan({}, losses=MEMORY, guidance=(1.0, 2.0, 4.0, 8.0)),
    "prior": Plan({"prior_prompt": CIRCLE, "prior_images": 48}, losses=MEMORY),
    "few": Plan({}, few=True),
    "no-dropout": Plan({"caption_dropout": 0.0}, guidance=(1.0, 2.0, 4.0, 8.0)),
    "unet": Plan({"method": "unet"}, losses=MEMORY),
    "lora": Plan({"method": "lora", "lora_rank": 16, "learning_rate": 5e-3}, losses=MEMORY),
    **{
        f"rate-{rate:g}-batch-{batch}": Plan(
            {"learning_rate": rate, "batch_size": batch, "steps": 1600 // batch, "rate_schedule": "constant"},
            losses=("held_out",), measured=4,
        )
        for rate, batch in product((1e-4, 1e-3, 1e-2), (8, 32))
    },
    "density-weighted": Plan({**STRONG, "min_snr_gamma": 1.0}, **DENSITY),
    "density-plain": Plan(STRONG, **DENSITY),
}  # fmt: skip
DRAWN = ("full", "prior", "few")  # runs whose pictures are stored


class Bench:
    """The data of one vendor, losses at fixed noise, and runs that are measured on the way."""

    def __init__(self, work: Path, phantoms: dict[str, Any]) -> None:
        self.work, folder = work, work / phantoms["vendor"]
        if not folder.exists():
            manifest.write(folder, phantom_source(**phantoms), source="phantom", settings=phantoms)
        self.data = manifest.load(folder)
        held, known = self.data.split("validation")[:16], self.data.split("train")
        self.train = np.stack([self.data.image(c) for c in known])  # [N, n, n]
        self.held_out = np.stack([self.data.image(c) for c in held])  # [16, n, n]
        self.captions = [c.prompt for c in known]
        drawn = [picture(PICTURES_SEED, k) for k in range(400)]
        circles, others = ([one for one in drawn if ("circle" in one[1]) is wanted][:16] for wanted in (True, False))
        base = Components.load("tiny")
        self.losses: dict[str, FixedLoss] = {}
        for name, images, captions in (
            ("held_out", self.held_out, [c.prompt for c in held]),
            ("held_out_no_caption", self.held_out, [""] * len(held)),
            ("training", self.train[:FEW], self.captions[:FEW]),  # the few, who are among the many
            ("pictures", np.stack([image for image, _ in others]), [text for _, text in others]),
            ("circles", np.stack([image for image, _ in circles]), [text for _, text in circles]),
        ):
            latents = encode_moments(base.vae, images).mean * base.vae.config.scaling_factor
            self.losses[name] = FixedLoss.of(base, latents, captions)

    def run(self, name: str, plan: Plan) -> dict[str, Any]:
        """Train one configuration with the averaged weights measured on the way; seconds are of one core."""
        config = TrainConfig(data=self.data.root, out=self.work / "unused", **(RECIPE | plan.changes))
        parts, prepared = prepare(config)
        if plan.few:
            prepared = replace(prepared, training_set=_first(prepared.training_set, FEW))
        state = start(config, parts, prepared=prepared)
        history = [{"step": 0, "losses": self._losses(parts, plan)}]
        obeyed, seconds = [], 0.0
        for step in range(1, config.steps + 1):
            began = time.process_time()
            train_step(state, batch_of_step(prepared.training_set, config, step - 1, prepared.prior), config)
            seconds += time.process_time() - began
            with state.ema.applied():
                if step % (config.steps // plan.measured) == 0:
                    history.append({"step": step, "losses": self._losses(parts, plan)})
                if step in plan.asked_at:
                    obeyed.append({"step": step, **self.adherence(parts, 2.0)})
        with state.ema.applied():
            obeyed += [{"step": config.steps, **self.adherence(parts, scale)} for scale in plan.guidance]
            result = {
                "settings": RECIPE | plan.changes, "vendor": self.data.info["settings"]["vendor"],
                "images": len(prepared.training_set), "trained_weights": sum(p.numel() for p in state.trained),
                "seconds_a_step": round(seconds / config.steps, 3), "history": history, "adherence": obeyed,
                "held_out_no_caption": self.losses["held_out_no_caption"](parts),
            }  # fmt: skip
            if name in DRAWN:
                result["nearest"] = self.pictures(name, parts, len(prepared.training_set))
        return result

    def _losses(self, parts: Components, plan: Plan) -> dict[str, list[float]]:
        return {name: self.losses[name](parts) for name in plan.losses}

    def adherence(self, parts: Components, guidance: float) -> dict[str, Any]:
        """Ask for all views and classes in turn and read the images: shares as asked."""
        key, words = ("area", AREAS) if "area" in self.captions[0] else ("density", DENSITIES)
        pairs = list(product(VIEWS, words))
        asked = [Attributes(view=view, **{key: word}) for view, word in pairs] * (ASKED // len(pairs))
        with evaluating(parts.unet, parts.text_encoder):
            made = Mame(parts, "run").generate(asked, seed=11, guidance_scale=guidance, steps=SAMPLER_STEPS)
        both = list(zip(asked, measure_all([one.pixels for one in made]), strict=True))
        table = {a: {b: sum(getattr(q, key) == a and getattr(r, key) == b for q, r in both) for b in words}
                 for a in words}  # fmt: skip
        share = {k: round(float(np.mean([getattr(q, k) == getattr(r, k) for q, r in both])), 3) for k in ("view", key)}
        return {"guidance": guidance, "images": len(asked), **share, "asked_then_measured": table}

    def pictures(self, name: str, parts: Components, count: int) -> dict[str, float]:
        """Circles, and mammograms with their nearest training image, kept; median distances in gray levels."""
        with evaluating(parts.unet, parts.text_encoder):
            mame, known = Mame(parts, "run"), self.train[:count]
            circles = mame.generate([CIRCLE] * 5, seed=3)
            made = np.stack([o.pixels for o in mame.generate(self.captions[:FEW], seed=5, guidance_scale=2.0)])
        rows, near = nearest(made, known)
        np.savez_compressed(self.work / f"{name}.npz", circles=[one.pixels for one in circles], made=made[:5],
                            nearest=known[rows[:5]])  # fmt: skip
        fresh = nearest(self.held_out, known)[1]
        return {"made_to_training": round(float(np.median(near)), 2),
                "held_out_to_training": round(float(np.median(fresh)), 2)}  # fmt: skip


def _first(data: TrainingSet, count: int) -> TrainingSet:
    return replace(data, moments=data.moments[:count], input_ids=data.input_ids[:count], ids=data.ids[:count])


def nearest(images: NDArray[np.uint8], known: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Row of the nearest of `known` `[K, n, n]` for each image `[N, n, n]`, and the root mean square difference.

    Compared at a quarter of the size, where noise is averaged away and shape and density remain.
    """

    def small(pictures: NDArray[np.uint8]) -> NDArray[np.float64]:
        n = pictures.shape[-1] // 4
        return pictures.reshape(-1, n, 4, n, 4).mean((2, 4))  # [N, n/4, n/4]

    apart = np.sqrt(((small(images)[:, None] - small(known)[None]) ** 2).mean((2, 3)))  # [N, K]
    return apart.argmin(1), apart.min(1)


def _sheet(path: Path, rows: Sequence[NDArray[np.uint8]]) -> None:
    """Rows of images `[5, n, n]` as one PNG that says what it is."""
    info = PngInfo()
    info.add_text("Disclaimer", NOTICE)
    Image.fromarray(np.concatenate([np.concatenate(list(row), axis=1) for row in rows])).save(path, pnginfo=info)


def main() -> None:
    """Do the runs that are not there yet; when all are, store them with their provenance."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/dreambooth"))
    parser.add_argument("--only", choices=PLANS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    benches: dict[str, Bench] = {}
    for name in [options.only] if options.only else PLANS:
        path, plan = options.work / f"{name}.json", PLANS[name]
        if not path.exists():
            vendor, began = plan.phantoms["vendor"], time.process_time()
            if vendor not in benches:
                benches[vendor] = Bench(options.work, plan.phantoms)
            result = benches[vendor].run(name, plan)
            result["seconds"] = round(time.process_time() - began, 1)
            path.write_text(json.dumps(result))
            print(name, result["adherence"][-1], f"{result['seconds']} s", flush=True)
    if options.only or options.out is None:
        return
    runs = {name: json.loads((options.work / f"{name}.json").read_text()) for name in PLANS}
    facts = {"phantoms": [HOLOGIC, SIEMENS], "few": FEW, "class_prompt": CIRCLE, "runs": runs}
    report(facts, options.out, "torch", "diffusers", "peft", seconds=round(sum(r["seconds"] for r in runs.values())))
    saved = {name: np.load(options.work / f"{name}.npz") for name in DRAWN}
    before = np.stack([one.pixels for one in Mame.load("tiny").generate([CIRCLE] * 5, seed=3)])
    _sheet(options.out.with_name("dreambooth_circles.png"),
           [before, saved["full"]["circles"], saved["prior"]["circles"]])  # fmt: skip
    _sheet(options.out.with_name("dreambooth_nearest.png"),
           [saved[name][row] for name in ("few", "full") for row in ("made", "nearest")])  # fmt: skip


if __name__ == "__main__":
    main()
