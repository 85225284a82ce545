"""How often `fused` fails, by start, steps and guidance; and four cures of the gray background on the same seeds.

    python benchmarks/cures.py make             # the images, in build/cures; goes on where it was stopped
    python benchmarks/cures.py measure          # what the detectors say, to benchmarks/results

Image k of every arm starts from the same noise and follows the same sentence, so arms are compared pair by pair. Every
second sentence is that of the paper's Fig. 20, the others are the 14 captions in turn. `measure` writes cures.csv.gz
(one row an image), cures.json (the cures beside the baseline), failure_rates.json (by start, steps and guidance) and
cures.png (the sheet of the chapter's picker). The arm "zero terminal SNR" needs build/fused-zero-snr, see
tools/train_tiny_models.py.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cure_statistics import failed, indices, mcnemar, paired, screening, share, side_effects, similarities, varied
from PIL import Image
from provenance import provenance
from safetensors.torch import load_file, save_file
from tqdm import tqdm

from mame_lib.data.prompts import NEGATIVE_PROMPTS, PAPER_PROMPTS, TRAINING_PROMPTS
from mame_lib.data.sources.phantom import phantom_source
from mame_lib.diffusion.start import SignalLeak
from mame_lib.evaluation.attributes import measure_all
from mame_lib.evaluation.failures import FAILURES, examine
from mame_lib.evaluation.sweep_models import weights_hash
from mame_lib.evaluation.sweep_rows import ASKABLE, row_of
from mame_lib.evaluation.sweep_sheet import notice
from mame_lib.generation import Generated, Mame
from mame_lib.models.components import Components
from mame_lib.models.latents import encode_moments

RESULTS = Path(__file__).parent / "results"
BUILD = Path("build/cures")
ZERO_SNR = Path("build/fused-zero-snr/round-1")
LEAK = RESULTS / "signal_leak.safetensors"
FIT = 800  # of the phantoms that `fused` was trained with
SEED, BATCH = 0, 8
CURED, RATED = 224, 112  # images an arm
PROMPTS = tuple(one for caption in TRAINING_PROMPTS for one in (PAPER_PROMPTS["figures 16, 20"], caption))
SHEET = (5, 7)  # images of the sheet: at most so many where the baseline's background is gray, so many in all
PICKED = ("none", "mean start", "signal-leak start", "negative prompt", "more steps", "zero terminal SNR")
FOUND = 4  # images of each failure in the gallery


@dataclass(frozen=True)
class Arm:
    """One way to make the images; all have seed, sentences and noise in common."""

    start: str = "noise"  # noise | mean | leak | zero SNR
    steps: int = 24
    guidance: float = 4.0
    negative: str = ""
    rescale: float = 0.0
    count: int = RATED

    @property
    def name(self) -> str:
        """Its folder, and its key in the stored results."""
        words = [f"{self.start}, {self.steps} steps, g {self.guidance:g}"]
        words += [f"not {self.negative!r}"] if self.negative else []
        words += [f"rescale {self.rescale:g}"] if self.rescale else []
        return ", ".join(words)

    @property
    def calls(self) -> int:
        """Rows that the UNet is asked about for one image: guidance asks twice."""
        return self.steps * (1 if self.guidance == 1 else 2)


BASELINE = Arm(count=CURED)
CURES = {
    "none": BASELINE,
    "mean start": replace(BASELINE, start="mean"),
    "signal-leak start": replace(BASELINE, start="leak"),
    "negative prompt": replace(BASELINE, negative=NEGATIVE_PROMPTS[0]),
    "more steps": replace(BASELINE, steps=50),
    "zero terminal SNR": replace(BASELINE, start="zero SNR", rescale=0.7),
    "guidance rescale alone": replace(BASELINE, rescale=0.7),
    **{f"negative prompt: {other}": replace(BASELINE, negative=other, count=RATED) for other in NEGATIVE_PROMPTS[1:]},
}  # fmt: skip
STEPS, SCALES = (5, 10, 16, 24, 50), (1.0, 2.0, 4.0, 8.0, 14.0)
UNGUIDED = [Arm(start, guidance=1.0) for start in ("noise", "mean", "leak", "zero SNR")]
RATES = [
    *UNGUIDED,
    *(Arm("noise", steps) for steps in STEPS),
    *(Arm(start, guidance=g) for start in ("noise", "mean") for g in SCALES if (start, g) != ("noise", 4.0) and g != 1),
]  # fmt: skip


def arms() -> list[Arm]:
    """All arms, each once, with as many images as the largest use of it, the most wanted first."""
    cured = list(CURES.values())
    others = [arm for arm in RATES if arm.name not in {one.name for one in cured}]
    return [*cured[:6], *others, *cured[6:]]


def leak_factor() -> torch.Tensor:
    """How the training latents differ at large, [4 * 16, r]; fitted once and stored."""
    if not LEAK.is_file():
        images = np.stack([np.asarray(one.image) for one in islice(phantom_source(count=4000, seed=23), FIT)])
        vae = Mame.load("fused").components.vae
        latents = encode_moments(vae, images).mean * vae.config.scaling_factor  # [FIT, 4, h, w]
        save_file({"factor": SignalLeak.fit(latents).factor.half()}, LEAK)
    return load_file(LEAK)["factor"].float()


def model(start: str) -> Mame:
    """`fused` with another start, or its fine-tuned variant."""
    if start == "zero SNR":
        return Mame(Components.load(ZERO_SNR / "model"), "fused-zero-snr")
    mame = Mame.load("fused")
    if start == "noise":
        mame.components.start_mean = None
    if start == "leak":
        mame.components.start_factor = leak_factor()
    return mame


def images_of(mame: Mame, arm: Arm, indices: range) -> list[Generated]:
    """The images of an arm at these indices."""
    wanted = [PROMPTS[k % len(PROMPTS)] for k in indices]
    return mame.generate(
        wanted, negative_prompt=arm.negative, guidance_scale=arm.guidance, guidance_rescale=arm.rescale,
        steps=arm.steps, seed=SEED, start_index=indices[0], batch_size=BATCH,
    )  # fmt: skip


def missing(arm: Arm) -> list[int]:
    """First indices of the batches that are not there yet."""
    return [k for k in range(0, arm.count, BATCH) if not (BUILD / arm.name / f"{k + BATCH - 1}.png").is_file()]


def make(arm: Arm) -> None:
    """Every image that is not there yet, a batch at a time; what a batch took is a line of seconds.txt."""
    folder, mame = BUILD / arm.name, model(arm.start)
    folder.mkdir(parents=True, exist_ok=True)
    (BUILD / f"{arm.start}.txt").write_text(weights_hash(mame.components), encoding="utf-8")
    for first in tqdm(missing(arm), desc=arm.name, unit="batch", mininterval=30):
        began = time.process_time()
        made = images_of(mame, arm, range(first, first + BATCH))
        with (folder / "seconds.txt").open("a", encoding="utf-8") as log:
            log.write(f"{(time.process_time() - began) / BATCH:.3f}\n")
        for one in made:
            one.save(folder / f"{one.index}.png")


def pixels(arm: Arm) -> np.ndarray:
    """The images of an arm, uint8 [count, n, n]."""
    return np.stack([np.asarray(Image.open(BUILD / arm.name / f"{k}.png")) for k in range(arm.count)])


def recipe(image: np.ndarray, prompt: str) -> Generated:
    """As much of a recipe as `row_of` needs to judge an image."""
    empty: dict[str, Any] = {one.name: "" for one in fields(Generated)}
    return Generated(**{**empty, "pixels": image, "prompt": prompt})


OBEYED = tuple(f"obeyed_{name}" for name in ASKABLE)
COLUMNS = ("arm", "index", *FAILURES, "failed", "gray", "area_ratio", "density_index", *OBEYED)


def rows(arm: Arm, images: np.ndarray, first: int = 0) -> Iterator[dict[str, Any]]:
    """What detectors and measures say of each image: scores (1 is the limit), failures found, words obeyed."""
    prompts = [PROMPTS[k % len(PROMPTS)] for k in range(first, first + len(images))]
    found = zip(images, prompts, examine(images, prompts), measure_all(images), strict=True)
    for k, (image, prompt, seen, measured) in enumerate(found, start=first):
        obeyed = row_of(recipe(image, prompt), measured, weights="").values()
        yield {
            "arm": arm.name, "index": k, "failed": " ".join(seen.failures), "gray": round(float(image.mean()), 2),
            **{name: round(getattr(seen, name).score, 3) for name in FAILURES},
            **{name: obeyed[name] for name in ("area_ratio", "density_index", *OBEYED)},
        }  # fmt: skip


def cost(arm: Arm) -> dict[str, Any]:
    """UNet rows and processor seconds an image."""
    seconds = np.loadtxt(BUILD / arm.name / "seconds.txt", ndmin=1)
    return {"unet rows": arm.calls, "processor seconds": round(float(np.median(seconds)), 2)}


def compared(tables: dict[str, list[dict[str, Any]]], ready: dict[str, Arm]) -> dict[str, Any]:
    """The cures beside the baseline."""
    result, plain = {}, similarities(pixels(BASELINE))
    for cure, arm in ready.items():
        table, before = tables[arm.name], tables[BASELINE.name][: arm.count]
        result[cure] = {
            "arm": arm.name, "settings": vars(arm), "cost": cost(arm), "failed": indices(table),
            "rates": {name: share(failed(table, name)) for name in (*FAILURES, "any")},
            "differences": {
                name: {**paired(failed(table, name), failed(before, name)),
                       **mcnemar(failed(table, name), failed(before, name))}
                for name in (*FAILURES, "any")
            },
            **side_effects(table, before),
            "similarity": varied(similarities(pixels(arm)), plain[: arm.count // 2, : arm.count // 2]),
        }  # fmt: skip
    return result


def rates(tables: dict[str, list[dict[str, Any]]], ready: Sequence[Arm]) -> list[dict[str, Any]]:
    """Failures by start, steps and guidance, on the first seeds of all arms."""
    result = []
    for arm in ready:
        table = tables[arm.name][:RATED]
        halves = {"all": table, "figure 20": table[::2], "captions": table[1::2]}
        result.append({
            "start": arm.start, "steps": arm.steps, "guidance": arm.guidance, "failed": indices(table),
            "gray": round(float(np.mean([row["gray"] for row in table])), 2),
            **{half: {name: share(failed(some, name)) for name in (*FAILURES, "any")} for half, some in halves.items()},
        })  # fmt: skip
    return result


def sheet(tables: dict[str, list[dict[str, Any]]], ready: dict[str, Arm]) -> dict[str, list[Any]]:
    """Write cures.png, a row a cure and a column an image; returns which.

    The first ones by index in which the baseline has a gray background, then the first of the others.
    """
    gray = failed(tables[BASELINE.name], "background")
    chosen = [k for k in range(CURED) if gray[k]][: SHEET[0]]
    chosen = sorted(chosen + [k for k in range(CURED) if not gray[k]][: SHEET[1] - len(chosen)])
    shown = [cure for cure in PICKED if cure in ready]
    grid = [np.hstack([pixels(ready[cure])[k] for k in chosen]) for cure in shown]
    Image.fromarray(np.vstack(grid)).save(RESULTS / "cures.png", optimize=True, pnginfo=notice())
    return {"rows": shown, "images": chosen, "prompts": [PROMPTS[k % len(PROMPTS)] for k in chosen]}


def gallery(tables: dict[str, list[dict[str, Any]]], made: dict[str, Arm]) -> list[dict[str, Any]]:
    """Write failure_gallery.png, the first images with each failure in the order of arms and indices; what they are."""
    tiles, said = [], []
    for name in FAILURES:
        found = [(arm, k) for arm in made for k in np.flatnonzero(failed(tables[arm], name))][:FOUND]
        for arm, k in found:
            tiles.append(pixels(made[arm])[k])
            said.append({"failure": name, "arm": arm, "index": int(k), "prompt": PROMPTS[k % len(PROMPTS)]})
        missing_tiles = FOUND - len(found)
        tiles += [np.zeros((128, 128), np.uint8)] * missing_tiles
        said += [{"failure": name, "arm": None, "index": None, "prompt": None}] * missing_tiles
    grid = [np.hstack(tiles[k : k + FOUND]) for k in range(0, len(tiles), FOUND)]
    Image.fromarray(np.vstack(grid)).save(RESULTS / "failure_gallery.png", optimize=True, pnginfo=notice())
    return said


def measure() -> None:
    """What the detectors say of all images, stored with provenance."""
    ready = {cure: arm for cure, arm in CURES.items() if not missing(arm)}
    if left := CURES.keys() - ready.keys():
        print(f"not made yet: {', '.join(left)}")
    rated = [arm for arm in RATES if not missing(arm)]
    made = {arm.name: arm for arm in [*ready.values(), *rated, *ready.values()]}  # the cures have more images
    tables = {name: list(rows(arm, pixels(arm))) for name, arm in made.items()}
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(row for table in tables.values() for row in table)
    (RESULTS / "cures.csv.gz").write_bytes(gzip.compress(text.getvalue().encode(), mtime=0))
    origin = provenance(
        "torch", seeds=[SEED], weights={path.stem: path.read_text() for path in sorted(BUILD.glob("*.txt"))},
    )
    for file, result in (
        ("cures", {"prompts": PROMPTS, "cures": compared(tables, ready), "training": training(),
                   "screening": {c: screening(tables[ready[c].name], PROMPTS) for c in ("none", "mean start")},
                   "sheet": sheet(tables, ready)}),
        ("failure_rates", {"prompts": PROMPTS, "images": RATED, "rates": rates(tables, rated),
                           "gallery": gallery(tables, made)}),
    ):  # fmt: skip
        whole = json.dumps({**result, "provenance": origin}, indent=1)
        (RESULTS / f"{file}.json").write_text(whole + "\n", encoding="utf-8")


def training() -> dict[str, Any]:
    """What the fine-tuning with zero terminal SNR took."""
    if not (ZERO_SNR / "model").is_dir():
        return {}
    lines = [json.loads(line) for line in (ZERO_SNR / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    paced = [line for line in lines if line.get("images_per_second")]
    batch = paced[-1]["images"] / paced[-1]["step"]
    seconds = sum(line["steps_averaged"] * batch / line["images_per_second"] for line in paced)
    return {"steps": paced[-1]["step"], "images": paced[-1]["images"], "minutes": round(seconds / 60, 1)}


def main() -> None:
    """Make the images, or measure them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("make", "measure"))
    parser.add_argument("--most", type=int, help="make so many arms, then stop")
    options = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    if options.what == "make":
        able = [arm for arm in arms() if arm.start != "zero SNR" or (ZERO_SNR / "model").is_dir()]
        for arm in [arm for arm in able if missing(arm)][: options.most]:
            make(arm)
    else:
        measure()


if __name__ == "__main__":
    main()
