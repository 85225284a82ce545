"""The small networks that ship with the library, read from their safetensors."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from safetensors.torch import load_file
from torch import nn

from mame_lib.errors import InputError

Network = TypeVar("Network", bound=nn.Module)


def loaded(network: Network, path: Path, name: str, tool: str) -> Network:
    """`network` with the weights at `path`, ready to be used, on the CPU in float32, never trained.

    name, tool: what it is called, and the script that makes its weights, for the message. Raises `InputError` if the
    file is missing, or not the weights of this network.
    """
    try:
        network.load_state_dict(load_file(path))
    except Exception as error:  # a missing, damaged or foreign file fails in many ways
        raise InputError(
            f"the {name}'s weights {path} cannot be loaded ({type(error).__name__}); make them with "
            f"`python {tool}`, or reinstall mame-lib."
        ) from error
    return network.eval().requires_grad_(False)
