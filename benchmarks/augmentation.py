"""Does synthetic data help a detector that has seen few lesions? The experiment that the paper plans.

    python benchmarks/augmentation.py draw       # phantoms, in build/augmentation
    python benchmarks/augmentation.py paint      # synthetic pictures, there too
    python benchmarks/augmentation.py train      # one detector an arm and seed; goes on where it was stopped
    python benchmarks/augmentation.py measure    # to benchmarks/results: augmentation.json, augmentation.csv.gz

Every arm starts from the same 24 phantoms with a mass and 240 without, of its seed, and adds to them: nothing,
classical augmentation, k synthetic masses or k true ones, each with as many pictures without a mass. All arms take
the same number of steps. They are tested on phantoms, as drawn, that no detector and no generator has seen.

"synthetic" is a breast by `fused` with a mass by `inpaint`, and the same breast without as its healthy picture.
"in true breasts" is a mass by `inpaint` in a phantom without one, and the same box filled under "a mammogram" as its
healthy picture. "without twins" leaves the healthy pictures away: then whatever else tells synthetic from true tells
ill from healthy. Both generators learned from thousands of phantoms, masses among them: they know more than 24 cases.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from augmentation_statistics import ROWS, Run, read_rows, table, write_rows
from provenance import report

from mame_lib.data.pool import Lost, each
from mame_lib.data.prompts import CONSTANT_PROMPT, FINDING_PROMPTS, TRAINING_PROMPTS
from mame_lib.evaluation.cad import find, score, train_detector
from mame_lib.evaluation.cad_cases import AREA, Cases, draw_cases
from mame_lib.evaluation.froc import hits
from mame_lib.generation import Mame
from mame_lib.inpaint import places

RESULTS = Path(__file__).parent / "results"
BUILD = Path("build/augmentation")
SEEDS, FEW, HEALTHY = 5, 24, 240
SIZES = (24, 96, 384)  # cases that are added
TEST, TRAIN, GROUND, PAINT = 15_200_000, 15_300_000, 15_400_000, 15_500_000  # seeds of phantoms, and of sampling
TESTED = 300  # of either kind, each another breast
STEPS, BATCH = 200, 16
TRAINING = 21, 22, 23, 24  # seeds of the phantoms that the generators learned from, for the record


@dataclass(frozen=True)
class Arm:
    """What is added to the few: `count` cases of a `source`, with their healthy twins or without; augmentation."""

    source: str = ""  # "" | synthetic | in true breasts | true
    count: int = 0
    classical: bool = False
    twins: bool = True

    @property
    def name(self) -> str:
        """Its name in the results."""
        words = [f"{self.count} {self.source}"] if self.count else ["few"]
        words += ["without twins"] if not self.twins else []
        words += ["classical"] if self.classical else []
        return ", ".join(words)


SOURCES = ("synthetic", "in true breasts", "true")
ARMS = [
    Arm(), Arm(classical=True),
    *(Arm(source, count) for source in SOURCES for count in SIZES),
    *(Arm(source, SIZES[-1], classical=True) for source in SOURCES),
    Arm("synthetic", SIZES[-1], twins=False),
]  # fmt: skip


def save(cases: Cases, name: str) -> None:
    """Keep cases with at most one box each."""
    BUILD.mkdir(parents=True, exist_ok=True)
    boxes = np.array([some[0] if some else (0, 0, 0, 0) for some in cases.boxes])
    np.savez(BUILD / f"{name}.npz", images=cases.images, boxes=boxes, breasts=cases.breasts)


@lru_cache(maxsize=8)
def load(name: str) -> Cases:
    """The inverse of `save`."""
    with np.load(BUILD / f"{name}.npz") as stored:
        boxes = [[tuple(box)] if box[2] else [] for box in stored["boxes"].tolist()]
        return Cases(stored["images"], boxes, stored["breasts"])  # type: ignore[arg-type]


def prompts_of(count: int) -> list[str]:
    """Sentences of the masses: every second one spiculated, as nearly as often as among `cad_cases.mass`."""
    return [FINDING_PROMPTS["spiculated mass" if k % 2 == 0 else "mass"] for k in range(count)]


def draw(workers: int) -> None:
    """Draw the phantoms that are not there yet."""
    if not (BUILD / "test.npz").exists():
        ill = draw_cases(range(TESTED), TEST, kinds=(True,), workers=workers)
        save(ill + draw_cases(range(TESTED, 2 * TESTED), TEST, kinds=(False,), workers=workers), "test")
    if not (BUILD / "ground.npz").exists():
        save(draw_cases(range(SIZES[-1]), GROUND, kinds=(False,), workers=workers), "ground")
    for seed in range(SEEDS):
        if not (BUILD / f"true-{seed}.npz").exists():
            first = 10_000 * seed
            ill = draw_cases(range(first, first + FEW + SIZES[-1]), TRAIN, kinds=(True,), workers=workers)
            well = range(first + 5000, first + 5000 + HEALTHY + SIZES[-1])
            save(ill + draw_cases(well, TRAIN, kinds=(False,), workers=workers), f"true-{seed}")
            print(f"true cases of seed {seed}", flush=True)


def paint() -> None:
    """Make the synthetic pictures that are not there yet."""
    inpainter = Mame.load("inpaint")
    if not (BUILD / "synthetic.npz").exists():
        asked = [TRAINING_PROMPTS[k % len(TRAINING_PROMPTS)] for k in range(SIZES[-1])]
        breasts = np.stack([one.pixels for one in Mame.load("fused").generate(asked, seed=PAINT)])
        save(painted(inpainter, breasts, breasts), "synthetic")
        print("synthetic cases", flush=True)
    if not (BUILD / "in true breasts.npz").exists():
        save(painted(inpainter, load("ground").images), "in true breasts")
        print("masses in true breasts", flush=True)


def painted(inpainter: Mame, breasts: np.ndarray, healthy: np.ndarray | None = None) -> Cases:
    """A mass in each breast [N, n, n], then the `healthy` pictures, or the same boxes filled with healthy tissue."""
    count = len(breasts)
    boxes = list(places(list(breasts), PAINT, range(count), area=AREA))

    def fill(prompt: str | list[str], guidance: float) -> np.ndarray:
        made = inpainter.inpaint(list(breasts), box=boxes, prompt=prompt, seed=PAINT, guidance_scale=guidance)
        return np.stack([one.pixels for one in made])

    ill = fill(prompts_of(count), 4.0)
    well = fill(CONSTANT_PROMPT, 1.0) if healthy is None else healthy  # guidance would darken healthy tissue
    return Cases(np.concatenate([ill, well]), [[box] for box in boxes] + [[]] * count, np.tile(np.arange(count), 2))


def cases_of(arm: Arm, seed: int) -> Cases:
    """What a detector of this arm and seed is trained on."""
    own, most = load(f"true-{seed}"), SIZES[-1]
    ill, well = np.flatnonzero(own.ill), np.flatnonzero(~own.ill)
    cases = own.take(np.concatenate([ill[:FEW], well[:HEALTHY]]))
    if not arm.count:
        return cases
    if arm.source == "true":
        return cases + own.take(np.concatenate([ill[FEW:][: arm.count], well[HEALTHY:][: arm.count]]))
    pool = load(arm.source)
    chosen = np.random.default_rng([PAINT, seed]).permutation(most)[: arm.count]  # the larger hold the smaller
    return cases + pool.take(np.concatenate([chosen, chosen + most]) if arm.twins else chosen)


def trained(job: tuple[Arm, int]) -> Run:
    """Train the detector of an arm and seed, and let it read the test set."""
    arm, seed = job
    torch.set_num_threads(1)
    cases, test = cases_of(arm, seed), load("test")
    detector = train_detector(
        cases.images, cases.boxes, steps=STEPS, batch_size=BATCH, seed=seed, augment=arm.classical
    )
    best, alarms = [], []
    for marks, some in zip(find(detector, test.images, least=0.02, most=6), test.boxes, strict=True):
        best.append(max((m.score for box in some for m in marks if hits(m, box)), default=0.0))
        alarms.append([m.score for m in marks if not any(hits(m, box) for box in some)])
    return Run(arm.name, seed, test.ill, score(detector, test.images), np.array(best), alarms)


def train(workers: int, seeds: int) -> None:
    """All arms and seeds, one file a run in build/augmentation/runs."""
    folder = BUILD / "runs"
    folder.mkdir(parents=True, exist_ok=True)
    jobs = [(arm, seed) for seed in range(seeds) for arm in ARMS]
    jobs = [(arm, seed) for arm, seed in jobs if not (folder / f"{arm.name}-{seed}.csv.gz").exists()]
    started = time.perf_counter()
    for k, ((arm, seed), run) in enumerate(each(trained, jobs, workers=workers, seconds=900), start=1):
        if isinstance(run, Lost):
            print(f"{arm.name}, seed {seed}: {run.reason}", flush=True)
            continue
        write_rows([run], folder / f"{arm.name}-{seed}.csv.gz")
        print(f"{k}/{len(jobs)}  {time.perf_counter() - started:.0f} s  {arm.name}, seed {seed}", flush=True)


def measure(out: Path) -> None:
    """One row a test case, and the table of arms with its intervals."""
    paths = [BUILD / "runs" / f"{arm.name}-{seed}.csv.gz" for arm in ARMS for seed in range(SEEDS)]
    runs = [run for path in paths if path.exists() for run in read_rows(path)]
    write_rows(runs, out / ROWS)
    started = time.process_time()
    result = {
        "few": FEW, "healthy": HEALTHY, "sizes": SIZES, "steps": STEPS, "batch": BATCH,
        "tested": {"ill": TESTED, "healthy": TESTED},
        "arms": table(runs, Arm().name),
    }  # fmt: skip
    seconds = round(time.process_time() - started)
    report(
        result, out / "augmentation.json", "torch", "diffusers", seconds_of_statistics=seconds,
        seeds={"test": TEST, "detector": TRAIN, "ground": GROUND, "sampling": PAINT, "generators": TRAINING},
    )  # fmt: skip


def main(words: Sequence[str] | None = None) -> None:
    """Draw, paint, train or measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("draw", "paint", "train", "measure"))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(words)
    if options.what == "draw":
        draw(options.workers)
    elif options.what == "paint":
        paint()
    elif options.what == "train":
        train(options.workers, options.seeds)
    else:
        measure(options.out)


if __name__ == "__main__":
    main()
