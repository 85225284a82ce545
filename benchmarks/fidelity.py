"""What the measures of fidelity notice, how they depend on the number of images, and what they say of the models.

    python benchmarks/fidelity.py sets            # draws and samples the images, in build/fidelity: half an hour
    python benchmarks/fidelity.py sensitivity     # damages at three strengths: fidelity_sensitivity.json
    python benchmarks/fidelity.py bias            # Fréchet distance against n, extrapolated: fidelity_bias.json
    python benchmarks/fidelity.py models          # the three models: fidelity_models.json

Sets of 300. Reference: phantoms of a seed that nothing was trained on, of the population that the model learned. The
images of a model are drawn for their captions. Floor: other phantoms of that population. Ceiling: those phantoms
through the autoencoder, which no model of latents can exceed. Against the decoded reference the autoencoder's share is
gone and the model's own is left. `sets` goes on where it was stopped; its images are not in the repository. One thread.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from provenance import report
from safetensors.numpy import load_file, save_file
from tqdm import tqdm

from mame_lib.data.masks import breast_mask
from mame_lib.data.prompts import parse
from mame_lib.data.sources import phantom_source
from mame_lib.evaluation.adherence import wilson
from mame_lib.evaluation.attributes import SMALLEST_BREAST, measure_all
from mame_lib.evaluation.damages import DAMAGES, Phantoms, draw_phantoms, seen, sensitivity
from mame_lib.evaluation.degradations import round_trip
from mame_lib.evaluation.distances import fewest
from mame_lib.evaluation.diversity import diversity
from mame_lib.evaluation.features import Features, phantom_features
from mame_lib.evaluation.fidelity import Fidelity, frechet, frechet_extrapolated, measure, named, rounded, scaled
from mame_lib.evaluation.radiomics import radiomics
from mame_lib.evaluation.similarity import pairwise_ms_ssim
from mame_lib.generation import Mame
from mame_lib.models.components import Components

RESULTS = Path("benchmarks/results")
COUNT = 300
REFERENCE, HELD_OUT = 43_000_000, 44_000_000  # seeds of phantoms; no other script draws them
NOISE = 45_000_000  # seed of the models' images
MODELS = {"fused": None, "hologic": "hologic", "siemens": "siemens"}  # the vendor of the population
# (guidance, steps): guidance at 12 steps, steps at guidance 2
CELLS = ((1.0, 12), (2.0, 12), (4.0, 12), (8.0, 12), (2.0, 4), (2.0, 8), (2.0, 24))
PAIRS = 100  # images whose pairs are compared by MS-SSIM
CAPTIONS = 12  # captions of which 12 images each are compared among themselves
LARGE = 1000  # phantoms of each set for the bias

Images = NDArray[np.uint8]


def feature_sets() -> tuple[Features, Features]:
    return phantom_features(), radiomics


def kept(file: Path, make: Callable[[], dict[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    """Arrays from a file, made first where there is none."""
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(".partial")
        save_file(make(), part)
        part.rename(file)
    return load_file(file)


def population(model: str, seed: int, count: int, work: Path) -> tuple[Images, list[str]]:
    """Phantoms of the population that a model learned, and their captions."""
    items = work / f"{model}-{seed}-{count}.safetensors"

    def make() -> dict[str, NDArray[Any]]:
        drawn = list(phantom_source(count, seed=seed, vendor=MODELS[model]))
        words = np.array([item.prompt.ljust(100) for item in drawn]).astype("S100")
        return {
            "images": np.stack([item.image for item in drawn]),
            "prompts": np.frombuffer(words.tobytes(), np.uint8).reshape(count, 100).copy(),
        }

    found = kept(items, make)
    return found["images"], [bytes(row).decode("ascii").strip() for row in found["prompts"]]


def sampled(model: str, guidance: float, steps: int, work: Path) -> Images:
    """The images of a cell, for the captions of the reference."""
    _, prompts = population(model, REFERENCE, COUNT, work)

    def make() -> dict[str, NDArray[Any]]:
        drawn = Mame.load(model).stream(prompts, guidance_scale=guidance, steps=steps, seed=NOISE)
        bar = tqdm(drawn, total=COUNT, desc=f"{model}, guidance {guidance:g}, {steps} steps")
        return {"images": np.stack([one.pixels for one in bar])}

    return kept(work / f"{model}-guidance-{guidance:g}-steps-{steps}.safetensors", make)["images"]


def decoded(model: str, seed: int, work: Path) -> Images:
    """Phantoms of the reference, or held-out ones, through the autoencoder."""
    images, _ = population(model, seed, COUNT, work)
    file = work / f"{model}-{seed}-decoded.safetensors"
    return kept(file, lambda: {"images": round_trip(images, Components.load("tiny").vae)})["images"]


def sets(work: Path, out: Path | None) -> None:
    """Everything that takes long, the sets that matter most first."""
    for model in MODELS:
        population(model, REFERENCE, COUNT, work)
        population(model, HELD_OUT, COUNT, work)
        decoded(model, REFERENCE, work)
        decoded(model, HELD_OUT, work)
    for cell in CELLS:
        for model in MODELS:
            sampled(model, *cell, work)
    for seed in (REFERENCE, HELD_OUT):
        population("fused", seed, LARGE, work)


def sensitivities(work: Path, out: Path | None) -> None:
    """The table of damages."""
    began = time.process_time()
    fake, real = draw_phantoms(COUNT, HELD_OUT), draw_phantoms(COUNT, REFERENCE)
    total = 2 * (1 + 3 * len(DAMAGES))
    rows = [rounded(row) for row in tqdm(sensitivity(fake, real, feature_sets()), total=total, desc="damaged sets")]
    names = [named(one) for one in feature_sets()]
    noticed = {
        damage.name: {name: {one: seen(rows, damage.name, name, one) for one in damage.sees} for name in names}
        for damage in DAMAGES.values()
    }
    seconds = round(time.process_time() - began, 1)
    result = {"count": COUNT, "seeds": {"real": REFERENCE, "fake": HELD_OUT}, "rows": rows, "seen": noticed}
    report(result, out or RESULTS / "fidelity_sensitivity.json", "torch", "scipy", seconds=seconds)
    save_file(examples(fake, real), (out or RESULTS / "fidelity.json").with_name("fidelity_features.safetensors"))


def examples(fake: Phantoms, real: Phantoms) -> dict[str, NDArray[np.float32]]:
    """Phantom features [300, 32] of some of the sets, so that a chapter can measure them without drawing them."""
    extract = phantom_features()
    found = {"real": extract(real.images), "fake": extract(fake.images)}
    for name in ("blur", "no siemens", "copies"):
        for strength in DAMAGES[name].strengths:
            found[f"{name} {strength:g}"] = extract(DAMAGES[name](fake, real, strength))
    return found


def bias(work: Path, out: Path | None) -> None:
    """Fréchet distances of n and n images: the mean and sd of several draws, and extrapolated from each n."""
    began = time.process_time()
    large = [population("fused", seed, LARGE, work)[0] for seed in (REFERENCE, HELD_OUT)]
    small = population("fused", REFERENCE, COUNT, work)[0]
    pairs = {
        "phantoms": (large[0], large[1], (60, 100, 150, 200, 300, 500, 1000)),
        "fused": (small, sampled("fused", 2.0, 12, work), (60, 100, 150, 200, 300)),
    }
    found: dict[str, Any] = {}
    for which, (first, second, sizes) in pairs.items():
        for features in feature_sets():
            real, fake = scaled(features, features(first), features(second))
            found.setdefault(which, {})[named(features)] = [curve(real, fake, n) for n in sizes]
    seconds = round(time.process_time() - began, 1)
    report({"sets": found}, out or RESULTS / "fidelity_bias.json", "torch", "scipy", seconds=seconds)


def curve(real: NDArray[Any], fake: NDArray[Any], n: int, draws: int = 20) -> dict[str, Any]:
    """Distances of random subsets of n of both; one draw where n are all there are."""
    rng = np.random.default_rng(n)
    draws = 1 if n == len(real) else draws
    values, far = [], []
    for number in range(draws):
        one, other = (some[rng.permutation(len(some))[:n]] for some in (real, fake))
        values.append(frechet(one, other))
        if n >= fewest(real.shape[1]) and number < 5:
            far.append(frechet_extrapolated(one, other, seed=number))
    row: dict[str, Any] = {"n": n, "draws": draws, "mean": float(np.mean(values)), "sd": float(np.std(values))}
    if far:
        row |= {name: float(np.mean([getattr(one, name) for one in far])) for name in ("value", "low", "high")}
    return dict(rounded(row))


def models(work: Path, out: Path | None) -> None:
    """All measures of all cells of the three models, with floor and ceiling."""
    began = time.process_time()
    found = {}
    for model in MODELS:
        reference, prompts = population(model, REFERENCE, COUNT, work)
        held_out, others = population(model, HELD_OUT, COUNT, work)
        far = decoded(model, HELD_OUT, work)
        known = [
            [features(some) for features in feature_sets()] for some in (reference, decoded(model, REFERENCE, work))
        ]
        rows = [
            {"set": "reference", **own(reference, prompts)},
            {"set": "floor", **own(held_out, others), **against(known, held_out)},
            {"set": "ceiling", **own(far, others), **against(known, far)},
        ]
        for guidance, steps in tqdm(CELLS, desc=model):
            images = sampled(model, guidance, steps, work)
            row = {"set": "sampled", "guidance": guidance, "steps": steps, **own(images, prompts)}
            rows.append({**row, **against(known, images)})
        found[model] = rows
    seconds = round(time.process_time() - began, 1)
    result = {"count": COUNT, "seeds": {"reference": REFERENCE, "held out": HELD_OUT, "noise": NOISE}, "models": found}
    report(result, out or RESULTS / "fidelity_models.json", "torch", "diffusers", "scipy", seconds=seconds)


def against(known: list[list[NDArray[Any]]], images: Images) -> dict[str, Any]:
    """The images against the reference, and against the decoded reference, whose features are known, in both sets."""
    mine = [features(images) for features in feature_sets()]
    found: dict[str, Any] = {}
    for which, reals in zip(("against", "against decoded"), known, strict=True):
        measured: list[Fidelity] = [
            measure(*scaled(features, real, fake), name=named(features))
            for features, real, fake in zip(feature_sets(), reals, mine, strict=True)
        ]
        found[which] = {one.features: one.as_json() for one in measured}
    return found


def own(images: Images, prompts: list[str]) -> dict[str, Any]:
    """What is measured without a reference: adherence to the captions, and how alike the images are."""
    yes: dict[str, list[bool]] = {}
    for seen_, sentence in zip(measure_all(images), prompts, strict=True):
        asked = parse(sentence).to_dict()
        for name, word in asked.items():
            there = seen_.area_ratio >= SMALLEST_BREAST and getattr(seen_, name) == word
            yes.setdefault(name, []).append(bool(there))
        yes.setdefault("all", []).append(all(rows[-1] for name, rows in yes.items() if name in asked))
    adherence = {
        name: {"yes": sum(rows), "n": len(rows), "interval": wilson(sum(rows), len(rows))} for name, rows in yes.items()
    }
    return dict(rounded({"adherence": adherence, "similarity": alike(images, prompts)}))


def alike(images: Images, prompts: list[str]) -> dict[str, Any]:
    """Mean MS-SSIM of the pairs of the first images, whole and within the breasts, with its interval over images.

    "mixed": images of all captions together, as Pinaya et al. took theirs; "caption": pairs of one caption only.
    """
    masks = np.stack([breast_mask(image) for image in images])
    usable = np.flatnonzero(masks.mean((1, 2)) >= 0.02)
    first = usable[:PAIRS]
    mixed = {
        "whole": asdict(diversity(pairwise_ms_ssim(images[first]), seed=0)),
        "breast": asdict(diversity(pairwise_ms_ssim(images[first], masks=masks[first]), seed=0)),
    }
    words = np.array(prompts)
    within: dict[str, list[float]] = {"whole": [], "breast": []}
    for word in sorted(set(prompts)):
        rows = np.array([k for k in usable if words[k] == word])[:CAPTIONS]
        if len(rows) >= 2:
            pair = np.triu_indices(len(rows), 1)
            within["whole"].append(float(pairwise_ms_ssim(images[rows])[pair].mean()))
            within["breast"].append(float(pairwise_ms_ssim(images[rows], masks=masks[rows])[pair].mean()))
    caption = {name: {"mean": float(np.mean(some)), "captions": len(some)} for name, some in within.items()}
    return {"mixed": mixed, "caption": caption}


TASKS: dict[str, Callable[[Path, Path | None], None]] = {
    "sets": sets, "sensitivity": sensitivities, "bias": bias, "models": models,
}  # fmt: skip


def main() -> None:
    """One task."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=tuple(TASKS))
    parser.add_argument("--work", type=Path, default=Path("build/fidelity"))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    TASKS[options.task](options.work, options.out)


if __name__ == "__main__":
    main()
