"""Predicted memory of SD 1.5 runs on a GPU, for chapter 08: every setting of its calculator, and some recipes.

    python benchmarks/memory.py --out benchmarks/results/memory.json

Nothing is measured here: `mame_lib.planner` traces the networks without data. A minute or two, no GPU.
"""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path
from typing import Any

from provenance import report

from mame_lib.planner import Plan, plan
from mame_lib.training.config import TrainConfig

METHODS = ("full", "unet", "lora")
MICRO = (1, 2, 4, 8, 16)
RECIPES: dict[str, dict[str, Any]] = {
    "as it comes": {"precision": "float32", "batch_size": 16},
    "+ half precision": {"batch_size": 16},
    "+ 8-bit Adam": {"batch_size": 16, "optimizer": "adamw8bit"},
    "+ checkpointing": {"batch_size": 16, "optimizer": "adamw8bit", "gradient_checkpointing": True},
    "the paper's 16 x 16": {"batch_size": 256, "micro_batch_size": 16, "optimizer": "adamw8bit",
                            "gradient_checkpointing": True},
    "256 x 1, for a T4": {"batch_size": 256, "micro_batch_size": 1, "optimizer": "adamw8bit",
                          "gradient_checkpointing": True},
    "256 x 1, low rank": {"batch_size": 256, "micro_batch_size": 1, "optimizer": "adamw8bit", "method": "lora",
                          "gradient_checkpointing": True},
}  # fmt: skip


def settings(**changes: Any) -> TrainConfig:
    """A run of SD 1.5 in half precision without average, as the paper had it."""
    plain = {"data": "data", "out": "run", "preset": "sd15", "precision": "float16", "optimizer": "adamw"}
    return TrainConfig(**{**plain, "ema_decay": 0.0, **changes})


def row(found: Plan) -> dict[str, Any]:
    """The phase that needs most, and its parts in MiB."""
    peak = found.peak
    return {"phase": peak.name, "parts": {name: round(size / 2**20) for name, size in peak.parts.items()}}


def grid() -> list[dict[str, Any]]:
    """All settings of the calculator. The effective batch is larger than what goes through at once, as in the paper."""
    rows = []
    for method, micro, checkpointing, optimizer, ema in product(
        METHODS, MICRO, (True, False), ("adamw8bit", "adamw"), (False, True)
    ):
        chosen: dict[str, Any] = {
            "method": method, "micro_batch_size": micro, "gradient_checkpointing": checkpointing,
            "optimizer": optimizer, "ema_decay": 0.99 if ema else 0.0,
        }  # fmt: skip
        rows.append(chosen | row(plan(settings(batch_size=256, **chosen), device_kind="cuda")))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    recipes = {name: row(plan(settings(**changes), device_kind="cuda")) for name, changes in RECIPES.items()}
    result = {"about": "predicted, not measured; MiB", "recipes": recipes, "grid": grid()}
    report(result, options.out, "torch", "diffusers", "transformers")


if __name__ == "__main__":
    main()
