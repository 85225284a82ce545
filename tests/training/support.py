"""What the tests of the trainer share: random training sets, short runs, and what a run leaves behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import mame_lib
from mame_lib.cli import main
from mame_lib.models.components import Components
from mame_lib.training.config import TrainConfig
from mame_lib.training.data import Batch, Masks, TrainingSet, batch_of_step
from mame_lib.training.loop import StepResult, TrainState, fit, start, train_step

TOKENS, VARIANTS = 32, 3
TIMINGS = {"images_per_second", "peak_memory"}  # what two equal runs may tell differently


def random_set(count: int = 10, *, masks: bool = False, std: float = 0.1, seed: int = 0) -> TrainingSet:
    """Moments, captions and (for inpainting) masks that are told apart by their values."""
    generator = torch.Generator().manual_seed(seed)
    mean = torch.randn(count, 4, 16, 16, generator=generator)
    moments = torch.stack([mean, torch.full_like(mean, std)], dim=1).half().numpy()  # [N, 2, 4, 16, 16]
    made = None
    if masks:
        around = torch.randn(count, VARIANTS, 4, 16, 16, generator=generator)
        made = Masks(
            latent=(torch.rand(count, VARIANTS, 16, 16, generator=generator) < 0.5).numpy(),
            moments=torch.stack([around, torch.full_like(around, 1e-3)], dim=2).half().numpy(),
            gray=torch.stack([torch.full((4, 16, 16), 7.0), torch.zeros(4, 16, 16)]),
        )
    return TrainingSet(
        moments=moments,
        input_ids=torch.randint(1, 500, (count, TOKENS), generator=generator),
        empty_ids=torch.zeros(TOKENS, dtype=torch.long),
        scaling_factor=0.5,
        masks=made,
        ids=tuple(f"image-{seed}-{index}" for index in range(count)),
    )


def config_of(folder: Path = Path("unused"), **changes: Any) -> TrainConfig:
    """Settings of a run of a few small steps, without pictures of validation."""
    settings: dict[str, Any] = {
        "data": folder / "data", "out": folder / "run", "steps": 4, "batch_size": 4, "validation_every": 0, "warmup": 2,
    }  # fmt: skip
    return TrainConfig(**{**settings, **changes})


def gradients(config: TrainConfig, batch: Batch) -> tuple[Tensor, Tensor, float, TrainState]:
    """Of one step from the shipped tiny model: the losses `[B]`, all gradients in one vector, their norm, the state.

    The vector is what the optimizer was given, times what clipping had taken away.
    """
    state = start(config, Components.load("tiny"))
    seen: list[Tensor] = []
    state.optimizer.register_step_pre_hook(
        lambda *_: seen.append(torch.cat([torch.zeros(p.numel()) if p.grad is None else p.grad.flatten().clone()
                                          for p in state.trained]))
    )  # fmt: skip
    losses, norm = train_step(state, batch, config)
    clipped = min(1.0, config.clip / (float(norm) + 1e-6))
    return losses, seen[0] / clipped, float(norm), state


def relative(one: Tensor, other: Tensor) -> float:
    """The length of the difference of two vectors, as a share of the second."""
    return float((one.double() - other.double()).norm() / other.double().norm())


def random_batch(config: TrainConfig, step: int = 0, **options: Any) -> Batch:
    """A step of a random training set."""
    return batch_of_step(random_set(**options), config, step)


def copies(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Detached copies, to be compared later."""
    return [tensor.detach().clone() for tensor in tensors]


def same(one: Sequence[Tensor], other: Sequence[Tensor]) -> bool:
    """Whether two lists of tensors are equal bit for bit."""
    return len(one) == len(other) and all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def run_to(config: TrainConfig, last: int | None = None) -> list[StepResult]:
    """Run to the end, or walk out of the loop after step `last`."""
    results = []
    steps: Iterator[StepResult] = fit(config)
    for result in steps:
        results.append(result)
        if result.step == last:
            break
    steps.close()  # type: ignore[attr-defined]
    return results


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by its name; a folder without any is an error."""
    found = {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    assert found, f"{folder} is empty"
    return found


def log_of(run: Path) -> list[dict[str, Any]]:
    """The lines of a log without what a clock or a memory meter says."""
    lines = [json.loads(text) for text in (run / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in TIMINGS} for line in lines]


def assert_same_runs(one: Path, other: Path) -> None:
    """Model, last checkpoint (weights, average, optimizer) and log of two runs are equal bit for bit."""
    for name in ("model", "checkpoints"):
        mine, theirs = files_of(one / name), files_of(other / name)
        assert mine.keys() == theirs.keys()
        assert [key for key in mine if mine[key] != theirs[key]] == [], f"{name} differs"
    assert log_of(one) == log_of(other)


def environment(**more: str) -> dict[str, str]:
    """That of a process which imports the same library as these tests, on as many threads, without a GPU."""
    root = str(Path(mame_lib.__file__).parents[1])
    threads = str(torch.get_num_threads())
    return {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": threads, "CUDA_VISIBLE_DEVICES": "", **more}


def options_of(config: TrainConfig) -> list[str]:
    """The words of the command line that stand for a configuration."""
    words = []
    for name, value in config.to_dict().items():
        if value is not None:
            words += ["--set", f"{name}={json.dumps(value)}"]
    return words


def mame(config: TrainConfig, **more: str) -> subprocess.Popen[str]:
    """Start `mame train` in a process of its own."""
    command = [sys.executable, "-m", "mame_lib", "train", *options_of(config)]
    return subprocess.Popen(
        command, env=environment(**more), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        cwd=environment()["PYTHONPATH"],
    )  # fmt: skip


def train(config: TrainConfig, **variables: str) -> None:
    """`mame train` as the whole life of this process, with some environment variables: exits with its status."""
    os.environ.update(variables)
    sys.exit(main(["train", *options_of(config)]))


def images_of(results: Sequence[StepResult]) -> dict[int, np.ndarray]:
    """The validation images by step."""
    return {result.step: result.images for result in results if result.images is not None}
