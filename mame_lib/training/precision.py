"""One function decides the compute dtype, one the optimizer, and both say why."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from mame_lib.errors import InputError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def pick_dtype(device: torch.device, asked: str = "auto") -> tuple[torch.dtype, str]:
    """The dtype of the network's forward pass on `device`, and the reason in words.

    Weights, noising, targets and loss stay float32 whatever this returns.
    """
    if asked != "auto":
        return DTYPES[asked], f"{asked}: as asked"
    if device.type != "cuda":
        return torch.float32, "float32: no CUDA GPU"
    major, minor = torch.cuda.get_device_capability(device)
    if major >= 8:
        return torch.bfloat16, f"bfloat16: compute capability {major}.{minor} has it in hardware"
    return torch.float16, f"float16 with a gradient scaler: compute capability {major}.{minor} only emulates bfloat16"


def pick_optimizer(device: torch.device, asked: str = "auto") -> tuple[str, str]:
    """`adamw8bit` or `adamw`, and the reason in words. 8-bit states save 6 bytes a weight, on CUDA at no cost of time.

    Raises `InputError` when 8 bits are asked for and bitsandbytes is missing.
    """
    have = importlib.util.find_spec("bitsandbytes") is not None
    if asked == "adamw8bit" and not have:
        raise InputError("optimizer adamw8bit needs the package bitsandbytes; install it, or use optimizer adamw.")
    if asked != "auto":
        return asked, f"{asked}: as asked"
    if device.type != "cuda":
        return "adamw", "adamw, fused: no CUDA GPU"
    if have:
        return "adamw8bit", "adamw8bit: moments in 8 bits save 6 bytes a weight"
    return "adamw", "adamw, fused: bitsandbytes is not installed (it would save 6 bytes a weight)"


def build_optimizer(name: str, groups: list[dict[str, Any]], rate: float) -> torch.optim.Optimizer:
    """AdamW over parameter groups; in 8 bits, tensors below 4096 elements keep 32-bit states."""
    if name == "adamw":
        return torch.optim.AdamW(groups, lr=rate, fused=True)
    import bitsandbytes

    optimizer: torch.optim.Optimizer = bitsandbytes.optim.AdamW8bit(groups, lr=rate)
    return optimizer


def assert_masters(parameters: Iterable[nn.Parameter]) -> None:
    """Trained weights are float32: an update of 1e-6 would vanish in half precision."""
    wrong = {str(p.dtype) for p in parameters if p.dtype != torch.float32}
    if wrong:
        raise InputError(f"trained weights must be float32, but some are {', '.join(sorted(wrong))}.")
