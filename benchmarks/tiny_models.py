"""Measure the shipped models: what the autoencoder keeps, and whether `fused` obeys its prompts.

    python benchmarks/tiny_models.py [--real FOLDER] [--model fused] --out benchmarks/results/tiny_models.json

`--real` adds the reconstruction figures on a data set of real mammograms (as `mame prepare folder` writes it).
"""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from provenance import report

from mame_lib.data import manifest
from mame_lib.data.case import AREAS, DENSITIES, VENDORS, VIEWS, Attributes
from mame_lib.data.phantom import draw
from mame_lib.evaluation.attributes import measure
from mame_lib.generation import Mame
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
    vae = mame.components.vae
    back = decode(vae, encode_moments(vae, images).mean * vae.config.scaling_factor).astype(float)
    psnr = 10 * np.log10(255**2 / ((back - images) ** 2).mean((1, 2)))
    return {
        "images": len(images),
        "psnr_mean_db": round(float(psnr.mean()), 2),
        "psnr_min_db": round(float(psnr.min()), 2),
        "slope_original": round(spectrum_slope(images.astype(float)), 2),
        "slope_reconstruction": round(spectrum_slope(back), 2),
    }


def adherence(mame: Mame, count: int, seed: int, guidance_scale: float) -> tuple[dict[str, Any], list[np.ndarray]]:
    """Ask for all attribute combinations in turn and read each image: confusion of area, agreement of the rest."""
    combinations = [Attributes(*c) for c in product(VENDORS, VIEWS, AREAS, DENSITIES)]
    order = np.random.default_rng(seed).permutation(len(combinations))
    asked = [combinations[order[i % len(order)]] for i in range(count)]
    pixels = [one.pixels for one in mame.generate(asked, seed=seed, guidance_scale=guidance_scale)]
    read = [measure(image) for image in pixels]
    pairs = list(zip(asked, read, strict=True))
    table = {a: {b: sum(q.area == a and r.area == b for q, r in pairs) for b in AREAS} for a in AREAS}
    share = {
        name: round(float(np.mean([getattr(q, name) == getattr(r, name) for q, r in pairs])), 3)
        for name in ("area", "view", "density", "vendor")
    }
    by_vendor = {
        v: {n: round(float(np.mean([getattr(q, n) == getattr(r, n) for q, r in pairs if q.vendor == v])), 3)
            for n in ("area", "view", "density")}
        for v in VENDORS
    }  # fmt: skip
    facts = {"images": count, "seed": seed, "guidance_scale": guidance_scale, "area_asked_then_measured": table}
    return {**facts, "agreement": share, "agreement_by_vendor": by_vendor}, pixels


def main() -> None:
    """Measure, print, and store with provenance."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="fused")
    parser.add_argument("--real", type=Path)
    parser.add_argument("--count", type=int, default=64)
    parser.add_argument("--seed", type=int, default=64)
    parser.add_argument("--guidance-scale", type=float, default=4.0)
    parser.add_argument("--sheet", type=Path, help="write the generated images as one picture")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    mame = Mame.load(options.model)
    phantoms = np.stack([draw(seed=HELD_OUT, index=i).image for i in range(100)])
    result: dict[str, Any] = {"autoencoder": {"held-out phantoms": reconstruction(mame, phantoms)}}
    if options.real:
        data = manifest.load(options.real)
        result["autoencoder"]["real"] = reconstruction(mame, np.stack([data.image(case) for case in data.cases]))
    result["adherence"], pixels = adherence(mame, options.count, options.seed, options.guidance_scale)
    result["ceiling"] = {
        "what": "the same readers on phantoms of seed 900000 and on their reconstructions, share of the true word",
        **ceiling(mame),
    }
    report(result, options.out, "torch", "diffusers", model=options.model)
    if options.sheet:
        rows = [np.concatenate(pixels[i : i + 8], axis=1) for i in range(0, len(pixels) - 7, 8)]
        Image.fromarray(np.concatenate(rows)).save(options.sheet)


def ceiling(mame: Mame, count: int = 100) -> dict[str, dict[str, float]]:
    """What the readers score on phantoms themselves, and after the autoencoder: no model can be read better."""
    drawn = [draw(seed=HELD_OUT, index=i) for i in range(count)]
    images = np.stack([one.image for one in drawn])
    vae = mame.components.vae
    back = decode(vae, encode_moments(vae, images).mean * vae.config.scaling_factor)
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
