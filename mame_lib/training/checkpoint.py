"""Checkpoints that are whole or absent: safetensors in a temporary folder, then one rename. No pickle."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mame_lib.errors import InputError


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state as flat tensors, named `index.key` by parameter position."""
    state = optimizer.state_dict()["state"]
    return {f"{i}.{key}": torch.as_tensor(value) for i, slot in state.items() for key, value in slot.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` took; hyperparameters stay those of `optimizer`."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def write_checkpoint(
    folder: Path,
    modules: dict[str, nn.Module | dict[str, Tensor]],
    optimizer: torch.optim.Optimizer,
    info: dict[str, Any],
) -> None:
    """Write `folder` (one safetensors file a module, the optimizer, `state.json`) atomically.

    `modules` maps a file name to a network or to a plain dictionary of tensors (an EMA, say).
    """
    temporary = folder.with_name(folder.name + ".partial")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    for name, module in modules.items():
        tensors = module if isinstance(module, dict) else module.state_dict()
        save_file(
            {key: value.detach().contiguous().clone() for key, value in tensors.items()},
            temporary / f"{name}.safetensors",
        )
    save_file(optimizer_tensors(optimizer), temporary / "optimizer.safetensors")
    (temporary / "state.json").write_text(json.dumps({**info, "files": sorted(modules)}, indent=2))
    old = folder.with_name(folder.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.replace(folder, old)
    os.replace(temporary, folder)
    shutil.rmtree(old, ignore_errors=True)


def read_checkpoint(folder: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """The tensors by file name (`optimizer` among them) and the information of a checkpoint.

    Raises `InputError` when the folder is not a complete checkpoint.
    """
    try:
        info = json.loads((folder / "state.json").read_text())
        names = [*info["files"], "optimizer"]
        return {name: load_file(folder / f"{name}.safetensors") for name in names}, info
    except (OSError, KeyError, ValueError) as error:
        raise InputError(
            f"{folder} is not a complete checkpoint ({error}); start the run again without --resume."
        ) from error
