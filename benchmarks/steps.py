"""How many steps are enough: the tiny model's images by sampler and steps, against 1,000 steps and against phantoms.

    python benchmarks/steps.py --out benchmarks/results/steps.json

Asked for are the fourteen sentences that the model was trained on, once a round. A deterministic sampler is held to
the end of 1,000 DDIM steps from the same noise, image by image. DDPM draws its noise, so only distributions can be
compared: every set of images is held to a set of 1,000 DDPM steps from *another* seed, by the energy distance of the
latents (Szekely and Rizzo 2013), and by what pixels say about attributes and contrast. The latents are kept in
build/steps, so that the command goes on where it was stopped; more rounds are added to those there. A round takes about
five minutes of one core.
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
from safetensors.torch import load_file, save_file
from torch import Tensor

from mame_lib.data.case import AREAS, DENSITIES, VIEWS, Attributes
from mame_lib.data.phantom import draw
from mame_lib.data.prompts import compose
from mame_lib.evaluation.attributes import measure_all
from mame_lib.evaluation.texture import local_sd
from mame_lib.generation import Mame

SEED, OTHER_SEED, GUIDANCE = 1337, 2024, 4.0
SENTENCES = [Attributes("siemens", view=view, density=word) for view, word in product(VIEWS, DENSITIES)] + [
    Attributes("hologic", view=view, area=word) for view, word in product(VIEWS, AREAS)
]
STEPS = (10, 20, 24, 50, 100)
RUNS = [(sampler, n, SEED) for n in STEPS for sampler in ("ddpm", "ddim", "dpm_solver_pp")]
EXACT, MANY = ("ddim", 1000, SEED), ("ddpm", 1000, OTHER_SEED)
SHUFFLES = 400


def finished(mame: Mame, work: Path, run: tuple[str, int, int], number: int) -> tuple[Tensor, float]:
    """Latents [14, 4, h, w] of one round, made now or kept from before, and the CPU seconds they took."""
    path = work / f"{run[0]}-{run[1]}-round-{number}.safetensors"
    if not path.exists():
        began, count = time.process_time(), len(SENTENCES)
        *_, last = mame.trajectory(
            [compose(one) for one in SENTENCES], indices=range(number * count, (number + 1) * count), seed=run[2],
            sampler=run[0], steps=run[1], guidance_scale=GUIDANCE,
        )  # fmt: skip
        work.mkdir(parents=True, exist_ok=True)
        spent = torch.tensor(time.process_time() - began, dtype=torch.float64)
        save_file({"latents": last.sample.contiguous(), "seconds": spent}, path)
    kept = load_file(path)
    return kept["latents"], float(kept["seconds"])


def energy_distance(gaps: NDArray[np.float64], first: NDArray[np.bool_]) -> float:
    """2 E|a - b| - E|a - a'| - E|b - b'| of two sets of equal size; `gaps` [2n, 2n], `first` says who is of set a."""
    n = int(first.sum())
    within = [gaps[np.ix_(one, one)].sum() / (n * (n - 1)) for one in (first, ~first)]
    return float(2 * gaps[np.ix_(first, ~first)].mean() - sum(within))


def against(latents: Tensor, reference: Tensor) -> dict[str, float]:
    """Energy distance of two sets that follow the same prompts, and what luck gives when images swap sets.

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
    """Of images [14 R, n, n]: shares that are as asked, where it was asked, and local contrast in the breast."""
    read = measure_all(images)
    both = list(zip(SENTENCES * (len(images) // len(SENTENCES)), read, strict=True))
    result = {}
    for key in ("view", "density", "area"):
        said = [getattr(a, key) == getattr(b, key) for a, b in both if getattr(a, key) is not None]
        result[key] = float(np.mean(said))
    contrast = [local_sd(image, one.mask) for image, one in zip(images, read, strict=True) if one.mask.any()]
    return {**result, "local_sd": float(np.nanmedian(contrast))}


def apart(a: Any, b: Any) -> float:
    """Mean over the images of their root mean square difference."""
    gap = np.asarray(a, np.float64) - np.asarray(b, np.float64)
    return float(np.sqrt((gap**2).mean(tuple(range(1, gap.ndim)))).mean())


def main() -> None:
    """Make what is missing, measure everything, store it with its provenance."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/steps"))
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    mame, kept = Mame.load("fused", device="cpu"), {}
    for number in range(options.rounds):
        for run in (*RUNS, EXACT, MANY):
            kept[run, number] = finished(mame, options.work, run, number)
    runs = (*RUNS, EXACT, MANY)
    made = {run: torch.cat([kept[run, k][0] for k in range(options.rounds)]) for run in runs}
    seconds = {run: sum(kept[run, k][1] for k in range(options.rounds)) for run in runs}
    decoded = {run: np.concatenate([mame.decode(part) for part in made[run].split(len(SENTENCES))]) for run in runs}
    rows = []
    for run in made:
        row: dict[str, Any] = {"sampler": run[0], "steps": run[1], "seed": run[2], "seconds": round(seconds[run], 1)}
        if run[0] != "ddpm" and run != EXACT:
            row["latents"], row["gray"] = apart(made[run], made[EXACT]), apart(decoded[run], decoded[EXACT])
        if run != MANY:
            row["to_ddpm"] = against(made[run], made[MANY])
        rows.append({**row, **looks(decoded[run])})
    wanted = SENTENCES * options.rounds
    phantoms = np.stack([draw(one, size=decoded[EXACT].shape[-1], seed=SEED, index=k).image
                         for k, one in enumerate(wanted)])  # fmt: skip
    facts = {"model": "fused", "guidance": GUIDANCE, "images": len(wanted), "rows": rows, "phantoms": looks(phantoms)}
    report(facts, options.out, "torch", "diffusers", seconds=round(sum(seconds.values())))


if __name__ == "__main__":
    main()
