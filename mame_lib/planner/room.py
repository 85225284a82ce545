"""How much memory this machine has."""

from __future__ import annotations

import os
import sys

GIB = 2**30


def room(device_kind: str) -> float | None:
    """Memory in GiB: of the present GPU, or of the computer; None when it can't be told."""
    if device_kind == "cuda":
        import torch

        return torch.cuda.get_device_properties(0).total_memory / GIB if torch.cuda.is_available() else None
    if sys.platform == "win32":
        return None
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
