"""One function decides the compute dtype, and says why."""

from __future__ import annotations

import torch


def pick_dtype(device: torch.device) -> tuple[torch.dtype, str]:
    """The dtype of the network's forward pass on `device`, and the reason in words.

    Weights, noising, targets and loss stay float32 whatever this returns.
    """
    if device.type != "cuda":
        return torch.float32, "float32: no CUDA GPU"
    major, minor = torch.cuda.get_device_capability(device)
    if major >= 8:
        return torch.bfloat16, f"bfloat16: compute capability {major}.{minor} has it in hardware"
    return torch.float16, f"float16 with a gradient scaler: compute capability {major}.{minor} only emulates bfloat16"
