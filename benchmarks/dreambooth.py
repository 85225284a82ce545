"""The long experiments of chapter 07: what learning rate, batch, loss weights, class images and so on decide.

    python benchmarks/dreambooth.py --out benchmarks/results/dreambooth.json

Every run fine-tunes the tiny base on phantoms of one vendor, captioned with view and density, one seed each. What a
run gave is kept in build/dreambooth, so that the same command goes on where it was stopped; a run alone: `--only NAME`.
Besides the numbers two pictures are written, beside the JSON. About 20 minutes on one core.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from provenance import report

from mame_lib.data import manifest
from mame_lib.data.case import DENSITIES, VIEWS, Attributes
from mame_lib.data.pictures import picture
from mame_lib.data.sources import phantom_source
from mame_lib.diffusion.start import generator_for
from mame_lib.evaluation.attributes import measure_all
from mame_lib.generation import Mame
from mame_lib.models.components import NOTICE, Components
from mame_lib.models.latents import encode_moments
from mame_lib.models.text import tokenize
from mame_lib.training.config import TrainConfig
from mame_lib.training.data import Batch, TrainingSet, batch_of_step
from mame_lib.training.images import evaluating
from mame_lib.training.loop import diffusion_loss, start, train_step
from mame_lib.training.setup import Prepared, prepare

PHANTOMS: dict[str, Any] = {"count": 600, "seed": 7, "vendor": "siemens"}
FEW, CIRCLE, PICTURES_SEED = 12, "a big white circle", 99
RECIPE: dict[str, Any] = {
    "preset": "tiny", "steps": 400, "batch_size": 16, "learning_rate": 2e-3, "text_learning_rate_factor": 1.0,
    "min_snr_gamma": 1.0,
}  # fmt: skip
GRID = {f"rate-{rate:g}-batch-{batch}": {"learning_rate": rate, "batch_size": batch, "steps": 2400 // batch,
                                          "min_snr_gamma": None, "rate_schedule": "constant"}
        for rate, batch in product((1e-4, 1e-3, 3e-3, 1e-2), (8, 32))}  # fmt: skip
RUNS: dict[str, dict[str, Any]] = {
    "weighted": {},
    "plain": {"min_snr_gamma": None},
    "prior": {"prior_prompt": CIRCLE, "prior_images": 48},
    "few": {},
    "lora": {"method": "lora", "lora_rank": 16, "learning_rate": 5e-3},
    "unet": {"method": "unet"},
    "no-dropout": {"caption_dropout": 0.0},
    **GRID,
}
GUIDANCE = {"weighted": (1.0, 2.0, 4.0, 8.0), "no-dropout": (1.0, 2.0, 4.0, 8.0)}  # the others: 2 alone
SAMPLER_STEPS, ASKED = 12, 48


@dataclass(frozen=True)
class FixedLoss:
    """The loss of some images with their captions at fixed noise and timesteps that cover the whole range."""

    batch: Batch

    @classmethod
    def of(cls, parts: Components, latents: torch.Tensor, captions: Sequence[str], draws: int = 4) -> FixedLoss:
        """Clean scaled latents `[N, 4, h, w]` and N captions, each with `draws` noises and timesteps."""
        rows = len(latents) * draws
        random = generator_for(0, "fixed loss", rows)
        return cls(Batch(
            latents=latents.repeat(draws, 1, 1, 1), noise=torch.randn(rows, *latents.shape[1:], generator=random),
            timesteps=(torch.randperm(rows, generator=random) * 1000 + 500) // rows,
            input_ids=tokenize(parts.tokenizer, list(captions)).repeat(draws, 1),
        ))  # fmt: skip

    @torch.no_grad()
    def __call__(self, parts: Components) -> list[float]:
        """Unweighted mean squared error in each tenth of the timesteps, from clean to noisy."""
        chunks = [self.batch.part(slice(k, k + 32)) for k in range(0, len(self.batch.latents), 32)]
        with evaluating(parts.unet, parts.text_encoder):
            losses = torch.cat([diffusion_loss(parts, c, parts.schedule, torch.float32) for c in chunks])
        tenth = self.batch.timesteps // 100
        return [round(float(losses[tenth == k].mean()), 5) for k in range(10)]


class Bench:
    """Data, fixed losses and the run of one configuration, measured on the way."""

    def __init__(self, work: Path) -> None:
        self.work = work
        folder = work / "phantoms"
        if not folder.exists():
            manifest.write(folder, phantom_source(**PHANTOMS), source="phantom", settings=PHANTOMS)
        self.data = manifest.load(folder)
        self.held_out, self.train = (np.stack([self.data.image(c) for c in self.data.split(s)])
                                     for s in ("validation", "train"))  # fmt: skip
        base = Components.load("tiny")
        held = self.data.split("validation")[:16]
        known = self.data.split("train")[:FEW]  # the few are among the many
        drawn = [picture(PICTURES_SEED, k) for k in range(400)]
        others = [(image, text) for image, text in drawn if "circle" not in text][:16]
        circles = [(image, text) for image, text in drawn if "circle" in text][:16]
        self.losses: dict[str, FixedLoss] = {}
        for name, images, captions in (
            ("held_out", [self.data.image(c) for c in held], [c.prompt for c in held]),
            ("held_out_no_caption", [self.data.image(c) for c in held], [""] * len(held)),
            ("training", [self.data.image(c) for c in known], [c.prompt for c in known]),
            ("pictures", [image for image, _ in others], [text for _, text in others]),
            ("circles", [image for image, _ in circles], [text for _, text in circles]),
        ):
            latents = encode_moments(base.vae, np.stack(images)).mean * base.vae.config.scaling_factor
            self.losses[name] = FixedLoss.of(base, latents, captions)

    def measured(self, parts: Components, names: Sequence[str]) -> dict[str, list[float]]:
        return {name: self.losses[name](parts) for name in names}

    def run(self, name: str) -> dict[str, Any]:
        """Train one configuration; losses on the way, adherence and pictures at the end."""
        config = TrainConfig(data=self.data.root, out=self.work / "unused", **(RECIPE | RUNS[name]))
        parts, prepared = prepare(config)
        if name == "few":
            prepared = replace(prepared, training_set=_first(prepared.training_set, FEW))
        state = start(config, parts, prepared=prepared)
        names = ["held_out"] if name in GRID else ["held_out", "training", "pictures", "circles"]
        tries = 4 if name in GRID else 8
        history = [{"step": 0, "losses": self.measured(parts, names)}]
        obeyed, seconds = [], 0.0
        for step in range(config.steps):
            began = time.perf_counter()
            train_step(state, batch_of_step(prepared.training_set, config, step, prepared.prior), config)
            seconds += time.perf_counter() - began
            if (step + 1) % (config.steps // tries) == 0:
                with state.ema.applied():
                    history.append({"step": step + 1, "losses": self.measured(parts, names)})
                    if name in ("weighted", "plain") and step + 1 in (100, 200):
                        obeyed.append({"step": step + 1, **self.adherence(parts, 2.0)})
        with state.ema.applied():
            obeyed += [{"step": config.steps, **self.adherence(parts, g)} for g in GUIDANCE.get(name, (2.0,))]
            result = {
                "settings": {k: v for k, v in (RECIPE | RUNS[name]).items() if k != "preset"},
                "images": len(prepared.training_set), "trained_weights": sum(p.numel() for p in state.trained),
                "seconds_a_step": round(seconds / config.steps, 3), "history": history, "adherence": obeyed,
                "last": self.measured(parts, ["held_out_no_caption"]),
            }  # fmt: skip
            if name in ("weighted", "prior", "few"):
                result["nearest"] = self.pictures(name, parts, prepared)
        return result

    def adherence(self, parts: Components, guidance: float) -> dict[str, Any]:
        """Ask for all views and densities in turn and read the images: shares as asked."""
        asked = [Attributes(view=v, density=d) for v, d in product(VIEWS, DENSITIES)] * (ASKED // 8)
        with evaluating(parts.unet, parts.text_encoder):
            made = Mame(parts, "run").generate(asked, seed=11, guidance_scale=guidance, steps=SAMPLER_STEPS)
        read = measure_all([one.pixels for one in made])
        table = {a: {b: sum(q.density == a and r.density == b for q, r in zip(asked, read, strict=True))
                     for b in DENSITIES} for a in DENSITIES}  # fmt: skip
        share = {k: round(float(np.mean([getattr(q, k) == getattr(r, k) for q, r in zip(asked, read, strict=True)])), 3)
                 for k in ("view", "density")}  # fmt: skip
        return {"guidance": guidance, "images": ASKED, **share, "density_asked_then_measured": table}

    def pictures(self, name: str, parts: Components, prepared: Prepared) -> dict[str, float]:
        """Circles of the tuned model, mammograms with their nearest training image; distances in gray levels."""
        with evaluating(parts.unet, parts.text_encoder):
            mame, known = Mame(parts, "run"), self.train[: len(prepared.training_set)]
            circles = mame.generate([CIRCLE] * 5, seed=3)
            asked = [c.prompt for c in self.data.split("train")[:FEW]]
            made = np.stack([one.pixels for one in mame.generate(asked, seed=5, guidance_scale=2.0)])
        rows, near = nearest(made, known)
        np.savez_compressed(self.work / f"{name}.npz", circles=[one.pixels for one in circles], made=made[:5],
                            nearest=known[rows[:5]])  # fmt: skip
        _, fresh = nearest(self.held_out, known)
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
    parser.add_argument("--only", choices=RUNS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    bench, began = Bench(options.work), time.perf_counter
    for name in [options.only] if options.only else RUNS:
        if not (options.work / f"{name}.json").exists():
            at = began()
            result = {**bench.run(name), "seconds": 0.0}
            result["seconds"] = round(began() - at, 1)
            (options.work / f"{name}.json").write_text(json.dumps(result))
            print(name, result["adherence"][-1], f"{result['seconds']} s", flush=True)
    if options.only:
        return
    runs = {name: json.loads((options.work / f"{name}.json").read_text()) for name in RUNS}
    report({"phantoms": PHANTOMS, "few": FEW, "class_prompt": CIRCLE, "runs": runs}, options.out, "torch", "diffusers",
           "peft", seconds=round(sum(run["seconds"] for run in runs.values())))  # fmt: skip
    if options.out:
        saved = {name: np.load(options.work / f"{name}.npz") for name in ("weighted", "prior", "few")}
        before = np.stack([one.pixels for one in Mame.load("tiny").generate([CIRCLE] * 5, seed=3)])
        _sheet(options.out.with_name("dreambooth_circles.png"),
               [before, saved["weighted"]["circles"], saved["prior"]["circles"]])  # fmt: skip
        _sheet(options.out.with_name("dreambooth_nearest.png"),
               [saved[name][row] for name in ("few", "weighted") for row in ("made", "nearest")])  # fmt: skip


if __name__ == "__main__":
    main()
