"""Run the sweeps behind chapters 09 and 10, and store one row an image.

    python benchmarks/sweeps.py guidance                # Table 3's twin: three models, guidance 1 to 14
    python benchmarks/sweeps.py extrapolation           # every vendor x view x area x density, and the controls
    python benchmarks/sweeps.py dropout                 # what caption dropout in training changes
    python benchmarks/sweeps.py NAME --shipped          # without the variants of tools/train_tiny_models.py

The rows go to benchmarks/results/NAME.csv.gz, where they come from to NAME.json. Images and unfinished sweeps lie in
build/sweeps; the same command goes on where it was stopped. `extrapolation` and `dropout` need the variants
fused-short, fused-frozen-text and fused-no-dropout in build/.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import torch
from provenance import provenance
from tqdm import tqdm

from mame_lib.data.case import AREAS, DENSITIES, VENDORS, VIEWS, Attributes
from mame_lib.data.prompts import PAPER_PROMPTS, TRAINING_PROMPTS, compose
from mame_lib.evaluation.sweep import sweep
from mame_lib.evaluation.sweep_models import weights_hash
from mame_lib.evaluation.sweep_rows import Row, write_csv
from mame_lib.generation import Mame
from mame_lib.models.components import Components
from mame_lib.models.presets import WEIGHTS

RESULTS = Path(__file__).parent / "results"
BUILD = Path("build")
IMAGES = 40  # a cell: indices 0 to 39 of seed 0, so every cell starts from the same noise


@dataclass(frozen=True)
class Plan:
    """One sweep: a model, its sentences, its settings. count: images a cell."""

    model: str
    prompts: tuple[str, ...]
    guidance_scale: tuple[float, ...] = (4.0,)
    steps: int = 12
    count: int = IMAGES
    images: bool = False  # kept in build/, for measures that need more than a row


def one_look(vendors: Sequence[str | None] = VENDORS, views: Sequence[str] = VIEWS) -> tuple[str, ...]:
    """Sentences that say vendor, view, and either area or density."""
    looks = [{"area": area} for area in AREAS] + [{"density": density} for density in DENSITIES]
    return tuple(compose(Attributes(v, w, **look)) for v, w, look in product(vendors, views, looks))


def both_looks(order: str, views: Sequence[str] = VIEWS) -> tuple[str, ...]:
    """Sentences that say vendor, view, area and density, the look `order` first."""
    return tuple(compose(Attributes(*words), order) for words in product(VENDORS, views, AREAS, DENSITIES))


SCALES = tuple(float(g) for g in range(1, 15))
MLO = ("MLO",)
VARIANTS = ("fused-short", "fused-frozen-text", "fused-no-dropout")
PLANS = {
    "guidance": (
        Plan("fused", (PAPER_PROMPTS["figure 15, table 3"],), SCALES, 24, images=True),
        Plan("hologic", (PAPER_PROMPTS["figure 13"],), SCALES, 24, images=True),
        Plan("siemens", (PAPER_PROMPTS["figure 14"],), SCALES, 24, images=True),
    ),
    # The design is complete for the shipped model; controls are measured in one view.
    "extrapolation": (
        Plan("fused", one_look() + both_looks("area")),
        Plan("fused", both_looks("density", MLO)),
        Plan("fused", one_look(views=MLO), (1.0, 2.0, 8.0)),
        Plan("fused", one_look(views=MLO), steps=24, count=16),  # does it matter that the others take 12 steps?
        Plan("hologic", one_look([None], MLO)),
        Plan("siemens", one_look([None], MLO)),
        *(Plan(name, one_look(views=MLO)) for name in VARIANTS),
    ),
    "dropout": tuple(
        Plan(name, TRAINING_PROMPTS, (1.0, 2.0, 4.0, 8.0), count=8) for name in ("fused-short", "fused-no-dropout")
    ),
}


def load(name: str) -> Mame:
    """A shipped model, or a variant from the last round of its training in build/."""
    if (WEIGHTS / name).is_dir():
        return Mame.load(name)
    folder = max((BUILD / name).glob("round-*/model"), default=None)
    if folder is None:
        raise SystemExit(f"{name} is not in {BUILD}/; make it with: python tools/train_tiny_models.py {name}")
    return Mame(Components.load(folder), name)


def run(name: str, plans: Sequence[Plan]) -> Iterator[tuple[Plan, str, list[Row], float]]:
    """Each plan with the hash of its model, its rows and its seconds, made in build/sweeps unless it is there."""
    for plan in plans:
        folder, mame = folder_of(name, plan), load(plan.model)
        rows = sweep(
            mame, plan.prompts, guidance_scale=plan.guidance_scale, steps=plan.steps, count=plan.count,
            out=folder, keep_images=plan.images, progress=lambda made, total: tqdm(made, total=total, unit="image"),
        )  # fmt: skip
        seconds = json.loads((folder / "sweep.json").read_text())["provenance"]["seconds"]
        yield plan, weights_hash(mame.components), rows, seconds


def folder_of(name: str, plan: Plan) -> Path:
    """Where the sweep of a plan lies."""
    return BUILD / "sweeps" / f"{name}-{PLANS[name].index(plan)}-{plan.model}"


def main() -> None:
    """Run what is asked for and store its rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=PLANS)
    parser.add_argument("--shipped", action="store_true", help="make the sweeps of shipped models only, store nothing")
    options = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    plans = [plan for plan in PLANS[options.name] if not options.shipped or (WEIGHTS / plan.model).is_dir()]
    done = list(run(options.name, plans))
    if options.shipped:
        return
    rows = [replace(row, file="") for _, _, made, _ in done for row in made]
    write_csv(rows, RESULTS / f"{options.name}.csv.gz")
    result: dict[str, Any] = {
        "rows": len(rows),
        "weights": {plan.model: digest for plan, digest, _, _ in done},
        "plans": [{**asdict(plan), "prompts": len(plan.prompts)} for plan, _, _, _ in done],
        "provenance": provenance("torch", seconds=round(sum(seconds for *_, seconds in done), 1)),
    }
    (RESULTS / f"{options.name}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
