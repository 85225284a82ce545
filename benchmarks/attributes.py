"""What each measure of `mame_lib.evaluation.attributes` is worth, on phantoms and on real files.

    python benchmarks/attributes.py [--real FOLDER] --out benchmarks/results/attributes.json

Phantoms of a seed on which nothing was fitted, every combination of the factors in turn: as drawn, damaged in several
ways, after a round trip through the tiny autoencoder, and at 512 pixels. `--real` adds agreement with what the names
of real pictures say (`…L_CC.png`, `…_R_DM_MLO.jpg`, in any folder below); nothing was fitted on them, though
the training was changed once after a look at their scores.
"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from provenance import report
from scipy.stats import spearmanr

from mame_lib.data.case import AREAS, DENSITIES, LATERALITIES, VENDORS, VIEWS, Attributes
from mame_lib.data.geometry import face_left, left_gap, to_square
from mame_lib.data.phantom import Phantom, draw
from mame_lib.data.raster import read_raster
from mame_lib.evaluation import degradations
from mame_lib.evaluation.attributes import AREA_CUTS, Measured, measure, measure_all
from mame_lib.generation import Mame

HELD_OUT = 990_000  # and 990_001: phantom populations on which nothing was fitted
FACTORS = [Attributes(*f) for f in product(VENDORS, VIEWS, AREAS, DENSITIES, LATERALITIES)]  # 96


def phantoms(count: int, size: int, *, seed: int = HELD_OUT, priors: str = "uniform") -> list[Phantom]:
    """`count` phantoms with every combination of the five factors in turn; priors="paper" draws the area instead."""
    said = [replace(f, area=None) for f in FACTORS] if priors == "paper" else FACTORS
    return [draw(said[k % len(said)], size=size, seed=seed, index=k, priors=priors) for k in range(count)]


def worth(drawn: Sequence[Phantom], images: Sequence[np.ndarray]) -> dict[str, Any]:
    """Errors, accuracies and calibration of the measures on `images` of the phantoms `drawn`."""
    read = measure_all(images)
    pairs = list(zip(drawn, read, strict=True))
    area = np.array([(p.area_ratio, m.area_ratio, m.area_ratio_sd) for p, m in pairs])
    density = np.array([(p.glandular_fraction, m.density_index, m.density_index_sd) for p, m in pairs])
    oblique = [(p, m) for p, m in pairs if p.attributes.view == m.view == "MLO"]
    muscle = np.array([(p.pectoral.mean(), m.pectoral_share, m.pectoral_share_sd) for p, m in oblique])
    clear = [(p, m) for p, m in pairs if min(abs(p.area_ratio - cut) for cut in AREA_CUTS) > 0.02]
    overlap = [(p.pectoral & m.pectoral).sum() / (p.pectoral | m.pectoral).sum() for p, m in oblique]
    mlo = np.array([p.attributes.view == "MLO" for p in drawn])
    siemens = np.array([p.attributes.vendor == "siemens" for p in drawn])
    likeliest = [(p, int(np.argmax(m.density_chances)), max(m.density_chances)) for p, m in pairs]
    best = np.array([(chance, p.attributes.density == DENSITIES[word]) for p, word, chance in likeliest])
    return {
        "images": len(pairs),
        "area_ratio": _errors(area),
        "area_class_accuracy_off_borders": {"accuracy": _share(clear, "area"), "images": len(clear)},
        "laterality_accuracy": _share(pairs, "laterality"),
        "view": _chances(np.array([m.view_score for m in read]), mlo),
        "pectoral_share_of_mlo": {**_errors(muscle), "overlap_mean": _round(np.mean(overlap))},
        "density_accuracy": _share(pairs, "density"),
        "density_accuracy_by_vendor": {
            v: _share([(p, m) for p, m in pairs if p.attributes.vendor == v], "density") for v in VENDORS
        },
        "density_index": {**_errors(density), "rank_correlation": _round(spearmanr(density[:, 0], density[:, 1])[0])},
        "density_word": {"calibration_error": _calibration(best[:, 0], best[:, 1])},
        "vendor": _chances(np.array([m.vendor_score for m in read]), siemens),
    }


def _round(value: float) -> float:
    return round(float(value), 4)


def _share(pairs: Sequence[tuple[Phantom, Measured]], name: str) -> float:
    return _round(np.mean([getattr(p.attributes, name) == getattr(m, name) for p, m in pairs]))


def _errors(table: np.ndarray) -> dict[str, float]:
    """Columns truth, estimate, sd: mean absolute error, bias, and how often the truth lies within 2 sd."""
    off = table[:, 1] - table[:, 0]
    return {
        "mae": _round(np.abs(off).mean()),
        "bias": _round(off.mean()),
        "largest": _round(np.abs(off).max()),
        "mean_sd": _round(table[:, 2].mean()),
        "within_2_sd": _round(np.mean(np.abs(off) <= 2 * table[:, 2])),
    }


def _chances(stated: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """Accuracy, Brier score and calibration of stated probabilities [N] of what is `true` [N]."""
    sure, right = np.maximum(stated, 1 - stated), (stated > 0.5) == true
    brier = _round(np.mean((stated - true) ** 2))
    return {"accuracy": _round(right.mean()), "brier": brier, "calibration_error": _calibration(sure, right)}


def _calibration(sure: np.ndarray, right: np.ndarray) -> float:
    """Expected calibration error in ten bins of equal width from 0 to 1."""
    bins = np.minimum((10 * sure).astype(int), 9)
    gaps = [abs(sure[bins == b].mean() - right[bins == b].mean()) * np.mean(bins == b) for b in np.unique(bins)]
    return _round(sum(gaps))


def damaged(drawn: Sequence[Phantom]) -> dict[str, list[np.ndarray]]:
    """The images of `drawn` in conditions with a name."""
    rng = np.random.default_rng(HELD_OUT)
    ways = {
        "jpeg 75": lambda p: degradations.jpeg(p.image, 75),
        "noise 4": lambda p: degradations.noisy(p.image, 4, rng),
        "blur 1 px": lambda p: degradations.blurred(p.image, 1.0),
        "marker": lambda p: degradations.with_marker(p.image, rng),
        "gray background 15": lambda p: degradations.gray_background(p.image, p.mask, 15),
        "gray background 30": lambda p: degradations.gray_background(p.image, p.mask, 30),
        "gray background 60": lambda p: degradations.gray_background(p.image, p.mask, 60),
    }
    return {name: [way(p) for p in drawn] for name, way in ways.items()}


def real(folder: Path, size: int) -> dict[str, Any]:
    """Agreement with the view and side in the names of the pictures below `folder`, `size` pixels a side."""
    rows = []
    for path in sorted(p for p in folder.rglob("*") if p.suffix in {".png", ".jpg"} and p.parent.name != "masks"):
        said = re.search(r"_(?P<side>[LR])_(?:DM_)?(?P<view>CC|MLO)$", path.stem)
        if not said:
            continue
        picture = 255 * read_raster(path)[0]  # [h, w]
        found = measure(_bytes(to_square(picture, size, fit="pad")))
        faced, _ = face_left(picture)
        prepared = measure(_bytes(to_square(faced[:, left_gap(faced) :], size)))
        rows.append((said["side"], said["view"], found, prepared))
    mlo = np.array([view == "MLO" for _, view, *_ in rows])
    score = np.array([prepared.view_score for *_, prepared in rows])
    gaps = score[mlo][:, None] - score[~mlo][None]  # [MLO, CC]
    return {
        "images": len(rows),
        "oblique": int(mlo.sum()),
        "view_auc": _round(np.mean((gaps > 0) + 0.5 * (gaps == 0))),
        "view_pairs_misordered": f"{int((gaps < 0).sum())} of {gaps.size}",
        "view_accuracy": _round(np.mean((score > 0.5) == mlo)),
        "view_scores_cc": sorted(round(float(s), 3) for s in score[~mlo]),
        "view_scores_mlo": sorted(round(float(s), 3) for s in score[mlo]),
        "laterality": f"{sum(side == found.laterality for side, _, found, _ in rows)} of {len(rows)}",
        "density_index": sorted(round(p.density_index, 3) for *_, p in rows),
        "density_index_sd": sorted(round(p.density_index_sd, 3) for *_, p in rows),
        "pectoral_share_mlo": sorted(round(p.pectoral_share, 3) for _, view, _, p in rows if view == "MLO"),
    }


def _bytes(gray: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(gray), 0, 255).astype(np.uint8)


def speed(size: int) -> dict[str, float]:
    """Milliseconds an image, one at a time and in a batch of 32; the best of five."""
    images = [draw(size=size, seed=1, index=k % 4).image for k in range(32)]
    one, many = [], []
    for _ in range(5):
        start = time.perf_counter()
        measure(images[0])
        one.append(time.perf_counter() - start)
        start = time.perf_counter()
        measure_all(images)
        many.append((time.perf_counter() - start) / len(images))
    return {"one": round(1e3 * min(one), 2), "in_batch": round(1e3 * min(many), 2)}


def main() -> None:
    """Measure, print, and store with provenance."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", type=Path)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    vae = Mame.load("tiny").components.vae
    drawn = phantoms(options.count, 128)
    images = np.stack([p.image for p in drawn])
    few = drawn[: options.count // 5]
    large = phantoms(max(2, options.count // 10), 512)
    wide = phantoms(options.count // 5, 128, seed=HELD_OUT + 1, priors="paper")
    result: dict[str, Any] = {"phantoms": {"128 px": worth(drawn, images)}}
    table = result["phantoms"]
    table["128 px, autoencoder round trip"] = worth(drawn, degradations.round_trip(images, vae))
    table["512 px"] = worth(large, [p.image for p in large])
    table["128 px, the paper's areas"] = worth(wide, [p.image for p in wide])
    for name, spoiled in damaged(few).items():
        table[f"128 px, {name}"] = worth(few, spoiled)
    if options.real:
        result["real"] = {f"{size} px": real(options.real, size) for size in (128, 512)}
    result["milliseconds"] = {f"{size} px": speed(size) for size in (128, 512)}
    report(result, options.out, "torch", seeds=[HELD_OUT, HELD_OUT + 1])


if __name__ == "__main__":
    main()
