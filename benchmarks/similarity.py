"""MS-SSIM of all pairs of a set, ours beside torchmetrics, and how often the interval of its mean holds the truth.

    python benchmarks/similarity.py --out benchmarks/results/similarity.json

Speed: phantoms, every pair once, one thread. torchmetrics in float32, called pair by pair, and with as many pairs at
once as ours; ours is `pairwise_ms_ssim`, plain and within the breasts. First all must agree. Then they take turns, in
an order that is reversed every round; medians of CPU seconds, and the ratio to ours of each round. Memory: peak of a
process of its own beyond its images, for one number of images and for twice as many, with four times the pairs.

Coverage: sets of n points with similarities exp(-|x - y|² / 2), whose expectation is known; shares of sets whose
95 % interval holds it, drawing images (`diversity`) and, for contrast, drawing pairs. Three minutes of CPU time in all.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from provenance import report
from torch import Tensor
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

from mame_lib.data.phantom import draw
from mame_lib.evaluation.diversity import diversity
from mame_lib.evaluation.similarity import BLOCK, WEIGHTS, levels_for, pairwise_ms_ssim

SETS = {64: 40, 128: 40, 512: 8}  # side: images
SEED = 960_000
LIMIT = 1e-4  # largest difference of two scores
SPREAD, DIMENSIONS = 0.6, 2


def phantoms(side: int, count: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    drawn = [draw(size=side, seed=SEED, index=k) for k in range(count)]
    return np.stack([one.image for one in drawn]), np.stack([one.mask for one in drawn])


def torchmetrics(images: NDArray[np.uint8], at_once: int) -> Tensor:
    """Scores [P] of all pairs, `at_once` a call."""
    stack = torch.as_tensor(images)[:, None].float()
    levels = levels_for(images.shape[1])
    betas = WEIGHTS if levels == len(WEIGHTS) else tuple(w / sum(WEIGHTS[:levels]) for w in WEIGHTS[:levels])
    rows = [
        multiscale_structural_similarity_index_measure(
            stack[some[:, 0]], stack[some[:, 1]], data_range=255.0, betas=betas, reduction="none"
        ).reshape(-1)
        for some in torch.combinations(torch.arange(len(images))).split(at_once)
    ]
    return torch.cat(rows).double()


def speed(side: int, count: int, rounds: int) -> dict[str, Any]:
    """Equality, then seconds and ratios of one set of images."""
    images, masks = phantoms(side, count)
    first, second = np.triu_indices(count, 1)
    ways: dict[str, Callable[[], Tensor]] = {
        "ours": lambda: pairwise_ms_ssim(images)[first, second],
        "ours_breast": lambda: pairwise_ms_ssim(images, masks=masks)[first, second],
        "torchmetrics": lambda: torchmetrics(images, 1),
        "torchmetrics_batches": lambda: torchmetrics(images, max(1, BLOCK // side**2)),
    }
    scores = {name: way() for name, way in ways.items()}
    gap = max(float((scores["ours"] - scores[name]).abs().max()) for name in ("torchmetrics", "torchmetrics_batches"))
    if gap > LIMIT:
        raise SystemExit(f"scores of {side} px differ by {gap:.1e}: there is nothing to compare")
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        for name in list(ways)[:: -1 if number % 2 else 1]:
            began = time.process_time()
            ways[name]()
            seconds[name].append(time.process_time() - began)
    ratios = {
        name: [there / here for here, there in zip(seconds["ours"], seconds[name], strict=True)]
        for name in ways
        if name != "ours"
    }
    return {
        "images": count, "pairs": len(first), "levels": levels_for(side), "largest_difference": gap,
        "cpu_seconds_median": {name: round(statistics.median(values), 4) for name, values in seconds.items()},
        "seconds_relative_to_ours": {
            name: {"median": round(statistics.median(values), 2), "rounds": [round(value, 2) for value in values]}
            for name, values in ratios.items()
        },
    }  # fmt: skip


def peak_mb(side: int, count: int) -> dict[str, float]:
    """Megabytes that all pairs of `count` images take beyond the images, in a process of its own."""
    command = [sys.executable, __file__, "--memory", str(side), str(count)]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return {"images": count, "pairs": count * (count - 1) // 2, **found}


def print_peak(side: int, count: int) -> None:
    """Inside that process. Noise: what is in the images does not matter here."""
    images = np.random.default_rng(0).integers(0, 256, (count, side, side), dtype=np.uint8)
    pairwise_ms_ssim(images[:2])  # what torch loads at its first call is not counted
    process, ended = psutil.Process(), threading.Event()
    before = process.memory_info().rss
    seen = [before]

    def watch() -> None:
        while not ended.wait(0.001):
            seen.append(process.memory_info().rss)

    thread = threading.Thread(target=watch)
    thread.start()
    pairwise_ms_ssim(images)
    ended.set()
    thread.join()
    more = max(seen) - before
    print(json.dumps({"peak_mb": round(more / 1e6, 1), "bytes_a_pixel": round(more / images.size, 1)}))


def coverage(count: int, sets: int, draws: int = 600) -> dict[str, float]:
    """Shares of sets of `count` images whose 95 % interval of the mean similarity holds its expectation."""
    rng = np.random.default_rng([SEED, count])
    truth = (1 + 2 * SPREAD**2) ** (-DIMENSIONS / 2)
    held = {"images": 0, "pairs": 0}
    for number in range(sets):
        points = rng.normal(0, SPREAD, (count, DIMENSIONS))
        matrix = np.exp(-((points[:, None] - points) ** 2).sum(2) / 2)
        found = diversity(matrix, seed=number, draws=draws)
        values = matrix[np.triu_indices(count, 1)]
        low, high = np.quantile(rng.choice(values, (draws // 3, len(values))).mean(1), [0.025, 0.975])
        held["images"] += found.low <= truth <= found.high
        held["pairs"] += bool(low <= truth <= high)
    return {"n": count, "sets": sets, **{f"by_{name}": round(value / sets, 4) for name, value in held.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sets", type=int, default=2000)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--memory", type=int, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.memory:
        print_peak(*options.memory)
        return
    result = {
        "speed": {str(side): speed(side, count, options.rounds) for side, count in SETS.items()},
        "memory": {"side": 512, "block_pixels": BLOCK, "sets": [peak_mb(512, count) for count in (20, 40)]},
        "coverage_of_95_percent": [coverage(count, options.sets) for count in (4, 6, 10, 20, 40)],
    }
    report(result, options.out, "torch", "torchmetrics", "scipy", seed=SEED, threads=1, rounds=options.rounds)


if __name__ == "__main__":
    main()
