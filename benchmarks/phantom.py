"""Measure the phantom against real mammograms: texture, brightness, edge, priors, lesions, and time to draw.

    python benchmarks/phantom.py [--real FOLDER] [--count 64] --out benchmarks/results/phantom.json

`--real` measures a folder of real images (png or jpg; files under a folder `masks` are left out) with the same code.
Texture is measured at 512 px on the mask that a reader of the pixels finds, as on a real file. The tone curves, the
rim and the weight of the finest strands were chosen with these measures in view, on other seeds and on the same real
files: agreement is a fit, not an independent validation.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from provenance import report

from mame_lib.data.case import DENSITIES, VENDORS, VIEWS, Attributes
from mame_lib.data.geometry import face_left, left_gap, to_square
from mame_lib.data.masks import breast_mask
from mame_lib.data.phantom import Phantom, draw
from mame_lib.evaluation.texture import REAL_RANGES, profile

SIDE = 512
SEED = 950_000  # a population that nothing was fitted on
Row = dict[str, float]


def real_image(path: Path) -> NDArray[np.uint8]:
    """One file as 8-bit gray [512, 512], chest wall at the left border."""
    pixels = np.asarray(Image.open(path)).astype(np.float64)
    gray = pixels.mean(2) if pixels.ndim == 3 else pixels
    gray *= 255 / (255 if gray.max() <= 255 else 65535)
    faced, _ = face_left(gray.astype(np.float32))
    square = to_square(faced, SIDE)
    gap = left_gap(square)
    shifted = np.pad(square[:, gap:], ((0, 0), (0, gap)))
    return np.clip(np.rint(shifted), 0, 255).astype(np.uint8)


def summary(rows: list[Row]) -> dict[str, dict[str, float]]:
    """Mean, standard deviation, and 5 and 95 % quantiles of each measure over images."""
    table: dict[str, dict[str, float]] = {}
    for name in rows[0]:
        values = np.array([row[name] for row in rows])
        low, middle, high = np.nanpercentile(values, [5, 50, 95])
        table[name] = {
            key: round(float(value), 3)
            for key, value in (
                ("mean", np.nanmean(values)), ("sd", np.nanstd(values)), ("q05", low), ("median", middle),
                ("q95", high),
            )
        }  # fmt: skip
    return table


def inside(rows: list[Row], ranges: dict[str, tuple[float, float]]) -> dict[str, dict[str, Any]]:
    """For each range: whether the phantoms' mean lies in it, and the share of phantoms that do."""
    result: dict[str, dict[str, Any]] = {}
    for name, (low, high) in ranges.items():
        values = np.array([row[name] for row in rows if np.isfinite(row[name])])  # the smallest breasts hold no region
        share = float(np.mean((values >= low) & (values <= high)))
        result[name] = {
            "range": [round(low, 3), round(high, 3)],
            "mean_inside": bool(low <= values.mean() <= high),
            "share_inside": round(share, 3),
        }
    return result


def texture(count: int, real: Path | None) -> dict[str, Any]:
    """Statistics of `count` phantoms (looks and views in turn, densities and areas as in the paper) and real files."""
    pairs = [(vendor, view) for vendor in VENDORS for view in VIEWS]
    rows: dict[str, list[Row]] = {"hologic": [], "siemens": [], "CC": [], "MLO": []}
    every = []
    for index in range(count):
        vendor, view = pairs[index % len(pairs)]
        phantom = draw(Attributes(vendor=vendor, view=view), size=SIDE, seed=SEED, index=index, priors="paper")
        row = profile(phantom.image, breast_mask(phantom.image))
        every.append(row)
        rows[vendor].append(row)
        rows[view].append(row)
    result: dict[str, Any] = {
        "phantoms": count,
        "all": summary(every),
        **{name: summary(some) for name, some in rows.items()},
        "inside_ranges_of_326_real": {
            name: inside(some, REAL_RANGES) for name, some in (("all", every), *rows.items())
        },
    }
    if real is not None:
        files = sorted(p for p in real.rglob("*") if p.suffix in {".png", ".jpg"} and p.parent.name != "masks")
        measured = [profile(image, breast_mask(image)) for image in map(real_image, files)]
        result["real"] = {
            "images": len(files),  # no names and no single image: they belong to patients
            **summary(measured),
        }
        spans = {key: (min(r[key] for r in measured), max(r[key] for r in measured)) for key in measured[0]}
        result["inside_span_of_these_files"] = {
            name: inside(some, spans) for name, some in (("all", every), *rows.items())
        }
    return result


def priors(count: int) -> dict[str, Any]:
    """Area, densities, views and lesions of `count` phantoms of 128 px with the paper's priors."""
    drawn: list[Phantom] = [
        draw(Attributes(finding="lesion"), size=128, seed=SEED, index=index, priors="paper") for index in range(count)
    ]
    area = np.array([one.area_ratio for one in drawn])
    lesions = [one.lesions[0] for one in drawn]
    boxes = np.array([one.box for one in lesions if one.kind == "mass"], float)
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    box_area = width * height * (SIDE / 128) ** 2
    words = {
        name: {word: round(total / count, 4) for word, total in
               Counter(str(getattr(one.attributes, name)) for one in drawn).items()}
        for name in ("density", "view", "vendor", "area")
    }  # fmt: skip
    gland = {
        word: round(float(np.mean([one.glandular_fraction for one in drawn if one.attributes.density == word])), 3)
        for word in DENSITIES
        if any(one.attributes.density == word for one in drawn)
    }
    return {
        "phantoms": count,
        "area_ratio": {"mean": round(float(area.mean()), 4), "sd": round(float(area.std()), 4),
                       "min": round(float(area.min()), 4), "max": round(float(area.max()), 4)},
        "shares": words,
        "glandular_fraction": gland,
        "lesion_kinds": dict(Counter(one.kind for one in lesions)),
        "mass_box_area_at_512_px": {"mean": round(float(box_area.mean())), "sd": round(float(box_area.std())),
                                    "q25": float(np.percentile(box_area, 25)),
                                    "q75": float(np.percentile(box_area, 75))},
        "mass_height_over_width": {"mean": round(float((height / width).mean()), 3),
                                   "sd": round(float((height / width).std()), 3)},
    }  # fmt: skip


def seconds(count: int = 12) -> dict[str, float]:
    """Median processor time of one phantom, healthy and with a lesion."""
    result = {}
    for size in (128, 256, 512):
        for name, said in (("healthy", None), ("lesion", Attributes(finding="lesion"))):
            times = []
            for index in range(count + 1):
                start = time.process_time()
                draw(said, size=size, seed=SEED, index=index)
                times.append(time.process_time() - start)
            result[f"{size} px, {name}"] = round(float(np.median(times[1:])), 4)  # the first one fills caches
    return result


def main() -> None:
    """Measure, print, and store with provenance."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", type=Path)
    parser.add_argument("--count", type=int, default=64, help="phantoms of 512 px for the texture")
    parser.add_argument("--population", type=int, default=2000, help="phantoms of 128 px for the priors")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    result = {
        "texture": texture(options.count, options.real),
        "priors": priors(options.population),
        "processor_seconds": seconds(),
    }
    report(result, options.out, "scipy", seed=SEED)


if __name__ == "__main__":
    main()
