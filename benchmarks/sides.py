"""What both sides of a training benchmark start from and are told: the same model, pictures, and settings."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from mame_lib.data import manifest
from mame_lib.data.sources import phantom_source
from mame_lib.models.components import Components

PROMPT = "a mammogram"


@dataclass(frozen=True)
class Case:
    """A race: what both do, our settings, and the peer's flags, besides paths, batch, size, rate, steps and seed."""

    about: str
    ours: dict[str, Any]
    peer: tuple[str, ...]
    script: str = "dreambooth"
    batch: int = 16
    size: int = 128
    rate: float = 1e-3


@dataclass(frozen=True)
class Folders:
    """What both sides start from: pipeline folder, manifest, pictures with and without captions."""

    root: Path
    base: Path = field(init=False)
    data: Path = field(init=False)
    pictures: Path = field(init=False)
    captioned: Path = field(init=False)

    def __post_init__(self) -> None:
        for name in ("base", "data", "pictures", "captioned"):
            object.__setattr__(self, name, self.root / name)


def lay_out(root: Path, base: Components, count: int, size: int) -> Folders:
    """Write the base model and the pictures."""
    root.mkdir(parents=True)
    folders = Folders(root)
    base.save(folders.base, dtype=torch.float32)
    items = (replace(item, split="train") for item in phantom_source(count, size=size, seed=7))
    data = manifest.write(folders.data, items, source="phantom", settings={"count": count, "seed": 7})
    for place in (folders.pictures, folders.captioned):
        place.mkdir()
        for case in data.cases:
            os.link(data.root / case.image, place / Path(case.image).name)
    lines = [json.dumps({"file_name": Path(case.image).name, "text": case.prompt}) for case in data.cases]
    (folders.captioned / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    return folders


def our_settings(case: Case, folders: Folders, out: Path, steps: int, seed: int) -> dict[str, Any]:
    """`TrainConfig` of our side, as plain values."""
    return {
        "data": str(folders.data), "out": str(out), "base": str(folders.base), "batch_size": case.batch,
        "learning_rate": case.rate, "steps": steps, "seed": seed, **case.ours,
    }  # fmt: skip


def peer_flags(case: Case, folders: Folders, out: Path, steps: int, seed: int) -> list[str]:
    """Flags of the peer's side. `--report_to all` means every tracker that is installed, and none where none is."""
    here = (
        ["--instance_data_dir", str(folders.pictures), "--instance_prompt", PROMPT]
        if case.script == "dreambooth"
        else ["--train_data_dir", str(folders.captioned), "--cache_dir", str(folders.root / "datasets")]
    )
    return [
        "--pretrained_model_name_or_path", str(folders.base), *here, "--output_dir", str(out),
        "--resolution", str(case.size), "--train_batch_size", str(case.batch), "--max_train_steps", str(steps),
        "--learning_rate", str(case.rate), "--seed", str(seed), "--report_to", "all", *case.peer,
    ]  # fmt: skip
