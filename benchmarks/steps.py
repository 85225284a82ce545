"""How many steps are enough: the tiny model's images by sampler and steps, against 1,000 steps and against phantoms.

    python benchmarks/steps.py --out benchmarks/results/steps.json

Each view, density and area is asked for twice. A deterministic sampler is held to the end of 1,000 DDIM steps from the
same noise, image by image. DDPM draws its noise, so only distributions can be compared: every set of images is held to
a set of 1,000 DDPM steps from *another* seed, by the energy distance of the latents (Szekely and Rizzo 2013) and by what
pixels say about attributes and grain. The latents are kept in build/steps, so that the command goes on where it was
stopped. About a quarter of an hour on one core.
"""

from __future__ import annotations

import argparse
import time
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from provenance import report
from torch import Tensor

from mame_lib.data.case import AREAS, DENSITIES, VIEWS, Attributes
from mame_lib.data.phantom import draw
from mame_lib.data.prompts import compose
from mame_lib.evaluation.attributes import measure_all
from mame_lib.evaluation.texture import haar_noise, local_sd
from mame_lib.generation import Mame

SEED, OTHER_SEED, GUIDANCE, BATCH = 1337, 2024, 4.0, 24
ASKED = [Attributes("siemens", view, area, density) for view, density, area in product(VIEWS, DENSITIES, AREAS)] * 2
STEPS = (10, 20, 24, 50, 100)
RUNS = [(sampler, n, SEED) for n in STEPS for sampler in ("ddpm", "ddim", "dpm_solver_pp")]
EXACT, MANY = ("ddim", 1000, SEED), ("ddpm", 1000, OTHER_SEED)
SHUFFLES = 400


def finished(mame: Mame, work: Path, run: tuple[str, int, int]) -> tuple[Tensor, float]:
    """Latents [48, 4, h, w] of one run, made now or kept from before, and the CPU seconds they took."""
    path = work / f"{run[0]}-{run[1]}.pt"
    if not path.exists():
        began, parts = time.process_time(), []
        for first in range(0, len(ASKED), BATCH):
            numbers = range(first, min(first + BATCH, len(ASKED)))
            *_, last = mame.trajectory(
                [compose(ASKED[k]) for k in numbers], indices=numbers, seed=run[2], sampler=run[0], steps=run[1],
                guidance_scale=GUIDANCE,
            )  # fmt: skip
            parts.append(last.sample)
        work.mkdir(parents=True, exist_ok=True)
        torch.save({"latents": torch.cat(parts), "seconds": time.process_time() - began}, path)
    kept = torch.load(path, weights_only=True)
    return kept["latents"], kept["seconds"]


def energy_distance(gaps: NDArray[np.float64], first: NDArray[np.bool_]) -> float:
    """2 E|a - b| - E|a - a'| - E|b - b'| of two sets of equal size; `gaps` [2n, 2n], `first` says who is of set a."""
    n = int(first.sum())
    within = [gaps[np.ix_(one, one)].sum() / (n * (n - 1)) for one in (first, ~first)]
    return float(2 * gaps[np.ix_(first, ~first)].mean() - sum(within))


def against(latents: Tensor, reference: Tensor) -> dict[str, float]:
    """Energy distance of two sets that follow the same prompts, and what luck gives: images swap sets, prompt by prompt.

    luck_low and luck_high hold 95 % of the distances of `SHUFFLES` random swaps.
    """
    n, random = len(latents), np.random.default_rng(0)
    both = torch.cat([latents, reference]).flatten(1).double()  # [2n, d]
    gaps = torch.cdist(both, both).numpy()  # [2n, 2n]
    first = np.arange(2 * n) < n
    shuffled = []
    for _ in range(SHUFFLES):
        swap = np.tile(random.random(n) < 0.5, 2)
        shuffled.append(energy_distance(gaps, first ^ swap))
    low, high = np.percentile(shuffled, (2.5, 97.5))
    return {"energy": energy_distance(gaps, first), "luck_low": float(low), "luck_high": float(high)}


def looks(images: NDArray[np.uint8]) -> dict[str, float]:
    """Shares of images [48, n, n] that are as asked, and the median grain and local contrast in the breast."""
    read = measure_all(images)
    both = list(zip(ASKED, read, strict=True))
    breasts = [(image, one.mask) for image, one in zip(images, read, strict=True) if one.mask.any()]
    return {
        **{key: float(np.mean([getattr(a, key) == getattr(b, key) for a, b in both]))
           for key in ("view", "density", "area")},
        "grain": float(np.median([haar_noise(*one) for one in breasts])),
        "local_sd": float(np.nanmedian([local_sd(*one) for one in breasts])),
    }  # fmt: skip


def apart(a: Any, b: Any) -> float:
    """Mean over the images of their root mean square difference."""
    gap = np.asarray(a, np.float64) - np.asarray(b, np.float64)
    return float(np.sqrt((gap**2).mean(tuple(range(1, gap.ndim)))).mean())


def main() -> None:
    """Make what is missing, measure everything, store it with its provenance."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/steps"))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    mame = Mame.load("fused", device="cpu")
    made, seconds = {}, {}
    for run in (*RUNS, EXACT, MANY):
        made[run], seconds[run] = finished(mame, options.work, run)
    decoded = {run: np.concatenate([mame.decode(part) for part in made[run].split(BATCH)]) for run in made}
    rows = []
    for run in made:
        row: dict[str, Any] = {"sampler": run[0], "steps": run[1], "seed": run[2], "seconds": round(seconds[run], 1)}
        if run[0] != "ddpm" and run != EXACT:
            row["latents"], row["gray"] = apart(made[run], made[EXACT]), apart(decoded[run], decoded[EXACT])
        if run != MANY:
            row["to_ddpm"] = against(made[run], made[MANY])
        rows.append({**row, **looks(decoded[run])})
    phantoms = np.stack([draw(one, size=decoded[EXACT].shape[-1], seed=SEED, index=k).image
                         for k, one in enumerate(ASKED)])  # fmt: skip
    facts = {
        "model": "fused", "guidance": GUIDANCE, "images": len(ASKED),
        "background": float(np.mean([image[4:44, -44:-4].std() for image in decoded[EXACT]])),
        "rows": rows, "phantoms": looks(phantoms),
    }  # fmt: skip
    report(facts, options.out, "torch", "diffusers", seconds=round(sum(seconds.values())))


if __name__ == "__main__":
    main()
