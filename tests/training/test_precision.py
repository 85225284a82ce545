"""The compute dtype and the optimizer are picked by device, each with its reason."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from mame_lib.errors import InputError
from mame_lib.training.precision import build_optimizer, pick_dtype, pick_optimizer

CUDA, CPU = torch.device("cuda"), torch.device("cpu")


@pytest.mark.parametrize(
    ("capability", "dtype", "words"),
    [
        ((7, 5), torch.float16, "float16 with a gradient scaler: compute capability 7.5 only emulates bfloat16"),
        ((7, 0), torch.float16, "capability 7.0"),
        ((8, 0), torch.bfloat16, "bfloat16: compute capability 8.0 has it in hardware"),
        ((9, 0), torch.bfloat16, "capability 9.0"),
        ((12, 0), torch.bfloat16, "capability 12.0"),
    ],
)
def test_the_dtype_follows_the_compute_capability(monkeypatch, capability, dtype, words) -> None:
    """Never what `is_bf16_supported` says, which is true on a T4 by emulation."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_, **__: True)
    picked, reason = pick_dtype(CUDA)
    assert picked == dtype and words in reason


def test_the_cpu_computes_in_float32() -> None:
    assert pick_dtype(CPU) == (torch.float32, "float32: no CUDA GPU")


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float16"])
def test_the_dtype_may_be_asked_for(name) -> None:
    assert pick_dtype(CPU, name) == (getattr(torch, name), f"{name}: as asked")


@pytest.mark.parametrize(
    ("device", "installed", "asked", "name", "words"),
    [
        (CPU, True, "auto", "adamw", "no CUDA GPU"),
        (CUDA, True, "auto", "adamw8bit", "8 bits save 6 bytes a weight"),
        (CUDA, False, "auto", "adamw", "bitsandbytes is not installed"),
        (CUDA, True, "adamw", "adamw", "as asked"),
        (CPU, True, "adamw8bit", "adamw8bit", "as asked"),
    ],
)
def test_the_optimizer_and_its_reason(monkeypatch, device, installed, asked, name, words) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec",
        lambda package, *rest: (object() if installed else None) if package == "bitsandbytes" else real(package, *rest),
    )  # fmt: skip
    picked, reason = pick_optimizer(device, asked)
    assert picked == name and words in reason


def test_eight_bits_without_the_package_are_refused(monkeypatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda *_: None)
    with pytest.raises(InputError, match="adamw8bit needs the package bitsandbytes"):
        pick_optimizer(CUDA, "adamw8bit")


def test_adamw_is_fused() -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = build_optimizer("adamw", [{"params": [weight], "factor": 1.0, "weight_decay": 0.5}], 0.1)
    assert optimizer.defaults["fused"] is True and optimizer.param_groups[0]["weight_decay"] == 0.5
