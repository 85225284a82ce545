"""What this machine offers a run, and whether that is enough."""

from __future__ import annotations

import os
import sys

from mame_lib.errors import InputError
from mame_lib.planner.plan import GIB, Plan, plan
from mame_lib.training.config import TrainConfig


def room(device_kind: str) -> float | None:
    """Memory in GiB: of the present GPU (`cuda`), or of the computer (`cpu`); None when it can't be told."""
    if device_kind == "cuda":
        import torch

        return torch.cuda.get_device_properties(0).total_memory / GIB if torch.cuda.is_available() else None
    if sys.platform == "win32":
        return None
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB


def here(config: TrainConfig, gib: float | None = None) -> Plan:
    """The plan of a run on this machine, with the room there is; or on a GPU of `gib` GiB."""
    kind = "cuda" if gib is not None or room("cuda") is not None else "cpu"
    return plan(config, device_kind=kind, gib=gib if gib is not None else room(kind))


def check_room(config: TrainConfig) -> None:
    """Raise `InputError` when there is a GPU and the tensors of a run can't fit into it: better now than in an hour."""
    gib = room("cuda")
    reason = None if gib is None else plan(config, device_kind="cuda").refusal(gib)
    if reason is not None:
        raise InputError(reason)
