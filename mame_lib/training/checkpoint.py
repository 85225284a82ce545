"""Checkpoints that are whole or absent: safetensors in a temporary folder, a manifest last, then one rename.

No pickle. A machine may go down, or the disk fill up, between any two lines of this module: the newest complete
checkpoint stays.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from mame_lib.errors import InputError
from mame_lib.models.saving import sync

MANIFEST = "state.json"


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


def write_checkpoint(folder: Path, parts: Mapping[str, Mapping[str, Tensor]], info: dict[str, Any]) -> None:
    """Write `folder`: one safetensors file a part, then `state.json` with `info` and the size of each file.

    An incomplete folder of the same name is replaced, and a complete one only once the new one is.

    Raises
    ------
    InputError
        If the disk is full or not writable; what was there before is untouched.
    """
    temporary, old = folder.with_name(folder.name + ".partial"), folder.with_name(folder.name + ".old")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        for name, tensors in parts.items():
            path = temporary / f"{name}.safetensors"
            save_file({key: value.detach().contiguous() for key, value in tensors.items()}, path)
            sync(path)
        sizes = {name: (temporary / f"{name}.safetensors").stat().st_size for name in sorted(parts)}
        (temporary / MANIFEST).write_text(json.dumps({**info, "files": sizes}, indent=2) + "\n")
        sync(temporary / MANIFEST)
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            os.replace(folder, old)
        os.replace(temporary, folder)
        sync(folder.parent, deep=False)
    except Exception as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if not isinstance(error, OSError | SafetensorError):  # the latter tells of a full disk too
            raise
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(
            f"cannot write the checkpoint {folder} ({reason}); make room on the disk, then resume the run."
        ) from error
    shutil.rmtree(old, ignore_errors=True)


def is_complete(folder: Path) -> bool:
    """Whether a folder holds a checkpoint with every file at its full size."""
    try:
        sizes = json.loads((folder / MANIFEST).read_text())["files"]
        return all((folder / f"{name}.safetensors").stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def complete_checkpoints(folder: Path) -> list[Path]:
    """The complete checkpoints `step-N` in a folder, oldest first; what a crash left half-written is passed over."""
    found = [p for p in folder.glob("step-*") if p.name[5:].isdigit() and is_complete(p)]
    for kept in folder.glob("step-*.old"):  # the machine went down between two renames
        if not kept.with_suffix("").exists() and is_complete(kept):
            os.replace(kept, kept.with_suffix(""))
            found.append(kept.with_suffix(""))
    return sorted(found, key=lambda p: int(p.name[5:]))


def read_checkpoint(folder: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """The tensors by file name and the information of a checkpoint.

    Raises `InputError` when the folder is not a complete checkpoint.
    """
    try:
        info = json.loads((folder / MANIFEST).read_text())
        return {name: load_file(folder / f"{name}.safetensors") for name in info["files"]}, info
    except (OSError, KeyError, TypeError, ValueError, SafetensorError) as error:
        raise InputError(
            f"{folder} is not a complete checkpoint ({error}); start the run again without --resume."
        ) from error
