"""Measure the shipped models: what the autoencoder keeps, whether prompts are obeyed, whether lesions are filled in.

    python benchmarks/tiny_models.py [--real FOLDER] --out benchmarks/results/tiny_models.json
    python benchmarks/tiny_models.py --models inpaint --keep --out benchmarks/results/tiny_models.json

`--real` adds the reconstruction figures on a data set of real mammograms (as `mame prepare folder` writes it).
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from provenance import report

from mame_lib.data import manifest
from mame_lib.data.case import AREAS, DENSITIES, VENDORS, VIEWS, Attributes
from mame_lib.data.lesions import LesionSpec
from mame_lib.data.phantom import draw
from mame_lib.data.prompts import FINDING_PROMPTS, compose, parse
from mame_lib.evaluation.attributes import measure
from mame_lib.evaluation.autoencoder import visibility
from mame_lib.evaluation.similarity import psnr
from mame_lib.generation import Mame
from mame_lib.models.inpainting import snap
from mame_lib.models.latents import decode, encode_moments

HELD_OUT = 900_000  # a phantom population that no model was trained on


def spectrum_slope(images: np.ndarray) -> float:
    """Exponent beta of the radial power spectrum 1/f^beta, images `[N, n, n]`, from 0.03 to 0.25 cycles a pixel."""
    side = images.shape[-1]
    window = np.hanning(side)[:, None] * np.hanning(side)[None]
    centered = images - images.mean((1, 2), keepdims=True)
    power = (np.abs(np.fft.fft2(centered * window)) ** 2).mean(0)
    radius = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side)[None])
    rings = [(radius >= low) & (radius < low + 1 / side) for low in np.arange(0.03, 0.25, 1 / side)]
    f, p = ([float(table[ring].mean()) for ring in rings] for table in (radius, power))
    return -float(np.polyfit(np.log(f), np.log(p), 1)[0])


def reconstruction(mame: Mame, images: np.ndarray) -> dict[str, float]:
    """PSNR in dB and spectral slopes of images and their reconstructions."""
    back = _roundtrip(mame, images).astype(float)
    decibels = psnr(images, back)
    return {
        "images": len(images),
        "psnr_mean_db": round(float(decibels.mean()), 2),
        "psnr_min_db": round(float(decibels.min()), 2),
        "slope_original": round(spectrum_slope(images.astype(float)), 2),
        "slope_reconstruction": round(spectrum_slope(back), 2),
    }


def questions(model: str) -> dict[str, list[str]]:
    """Every sentence of a model's captions once; for `fused` also those that no caption combined, in both orders."""
    view_area = [Attributes(view=v, area=a) for v, a in product(VIEWS, AREAS)]
    view_density = [Attributes(view=v, density=d) for v, d in product(VIEWS, DENSITIES)]
    if model == "hologic":
        return {"captions": [compose(one) for one in view_area]}
    if model == "siemens":
        return {"captions": [compose(one) for one in view_density]}
    captions = [replace(one, vendor="hologic") for one in view_area]
    captions += [replace(one, vendor="siemens") for one in view_density]
    both = [Attributes(*words) for words in product(VENDORS, VIEWS, AREAS, DENSITIES)]
    return {
        "captions": [compose(one) for one in captions],
        "area with density": [compose(one, "area") for one in both],
        "density with area": [compose(one, "density") for one in both],
    }


def adherence(mame: Mame, sentences: list[str], repeats: int, seed: int, guidance_scale: float) -> dict[str, Any]:
    """Ask every sentence `repeats` times and read each image: the share that is as asked, of those asked for a word."""
    asked = [parse(sentence) for sentence in sentences] * repeats
    made = mame.generate(sentences * repeats, seed=seed, guidance_scale=guidance_scale)
    pairs = list(zip(asked, (measure(one.pixels) for one in made), strict=True))
    names = [n for n in ("vendor", "view", "area", "density") if any(getattr(one, n) is not None for one in asked)]

    def share(name: str, some: list[Any]) -> float | None:
        told = [getattr(q, name) == getattr(r, name) for q, r in some if getattr(q, name) is not None]
        return round(float(np.mean(told)), 3) if told else None

    result: dict[str, Any] = {"images": len(asked), "as_asked": {name: share(name, pairs) for name in names}}
    for name, words in (("area", AREAS), ("density", DENSITIES)):
        if name in names:
            counts = Counter((getattr(q, name), getattr(r, name)) for q, r in pairs)  # None: not asked for
            result[f"{name}_asked_then_measured"] = {a: {b: counts[a, b] for b in words} for a in words}
    if "vendor" in names:
        result["as_asked_by_vendor"] = {
            v: {n: share(n, [p for p in pairs if p[0].vendor == v]) for n in ("view", "area", "density")}
            for v in VENDORS
        }
    return result


def filling(mame: Mame, count: int, seed: int, guidance_scale: float) -> dict[str, Any]:
    """Fill the boxes of held-out masses with a mass: gray of the lesion minus gray of a ring around, in gray levels.

    Beside it the same in the phantom with its true mass, in the same breast without one, and after the autoencoder.
    """
    pairs = [
        (draw(seed=HELD_OUT + 1, index=i, lesion=LesionSpec(kind="mass")), draw(seed=HELD_OUT + 1, index=i))
        for i in range(count)
    ]
    lesions, breasts = (np.stack([getattr(one, name) for one, _ in pairs]) for name in ("lesion_mask", "mask"))
    with_mass, without = (np.stack([pair[k].image for pair in pairs]) for k in (0, 1))  # [N, n, n]
    filled = mame.inpaint(
        list(without), box=[list(one.lesions[0].box) for one, _ in pairs], prompt=FINDING_PROMPTS["mass"],
        guidance_scale=guidance_scale, seed=seed,
    )  # fmt: skip
    made = np.stack([one.raw for one in filled])  # [N, n, n]
    masks = np.stack([snap(one.mask, 8) for one in filled])  # [N, n, n]
    kinds = {
        "filled": made,
        "true mass": with_mass,
        "true mass after the autoencoder": _roundtrip(mame, with_mass),
        "no mass": without,
        "no mass after the autoencoder": _roundtrip(mame, without),
    }
    result: dict[str, Any] = {"images": count, "seed": seed, "guidance_scale": guidance_scale}
    for name, images in kinds.items():
        values = visibility(images, lesions, breasts).contrast
        result[name] = {"contrast_mean": round(np.mean(values).item(), 2), "sd": round(np.std(values).item(), 2)}
    apart = np.abs(made.astype(float) - _roundtrip(mame, without))[~masks].mean()
    result["change_outside_the_mask"] = round(float(apart), 2)
    return result


def _roundtrip(mame: Mame, images: np.ndarray) -> np.ndarray:
    vae = mame.components.vae
    return decode(vae, encode_moments(vae, images).mean * vae.config.scaling_factor)


def main() -> None:
    """Measure, print, and store with provenance."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["hologic", "siemens", "fused", "inpaint"])
    parser.add_argument("--real", type=Path)
    parser.add_argument("--seed", type=int, default=64)
    parser.add_argument("--guidance-scales", nargs="+", type=float, default=[1.0, 2.0, 4.0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--keep", action="store_true", help="everything else that --out holds stays")
    options = parser.parse_args()
    if options.keep and not options.out:
        parser.error("--keep needs --out: the file that stays")
    more: dict[str, Any] = {}
    if options.keep:
        result: dict[str, Any] = json.loads(options.out.read_text(encoding="utf-8"))
        more["kept"] = result.pop("provenance")
    else:
        result = whole(options.real)
    for name in options.models:
        mame = Mame.load(name)
        result["models"][name] = {}
        for g in options.guidance_scales:
            made = filling(mame, 48, options.seed, g) if mame.components.inpainting else {
                kind: adherence(mame, sentences, -(-48 // len(sentences)), options.seed, g)
                for kind, sentences in questions(name).items()
            }  # fmt: skip
            result["models"][name][f"guidance {g:g}"] = made
            print(name, g, made, flush=True)
    report(result, options.out, "torch", "diffusers", **more)


def whole(real: Path | None) -> dict[str, Any]:
    """What belongs to no one model: the autoencoder, and what the readers are worth."""
    tiny = Mame.load("tiny")
    phantoms = np.stack([draw(seed=HELD_OUT, index=i).image for i in range(100)])
    kept: dict[str, Any] = {"held-out phantoms": reconstruction(tiny, phantoms)}
    if real:
        data = manifest.load(real)
        kept["real"] = reconstruction(tiny, np.stack([data.image(case) for case in data.cases]))
    what = "the same readers on phantoms of seed 900000 and on their reconstructions, share of the true word"
    return {"autoencoder": kept, "models": {}, "ceiling": {"what": what, **ceiling(tiny)}}


def ceiling(mame: Mame, count: int = 100) -> dict[str, dict[str, float]]:
    """What the readers score on phantoms themselves, and after the autoencoder: no model can be read better."""
    drawn = [draw(seed=HELD_OUT, index=i) for i in range(count)]
    images = np.stack([one.image for one in drawn])
    back = _roundtrip(mame, images)
    scores: dict[str, dict[str, float]] = {}
    for name, some in (("phantoms", images), ("reconstructions", back)):
        read = [measure(image) for image in some]
        scores[name] = {
            key: float(
                np.mean([getattr(r, key) == getattr(d.attributes, key) for r, d in zip(read, drawn, strict=True)])
            )
            for key in ("area", "view", "density", "vendor")
        }
    return scores


if __name__ == "__main__":
    main()
