"""Diffusion models taught by rebuilding MAM-E; see the book. Names are loaded when they are first used."""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"
__all__ = ["Attributes", "Mame", "__version__", "doctor"]

_PLACES = {"Mame": "mame_lib.generation", "Attributes": "mame_lib.data.case", "doctor": "mame_lib.doctor"}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'mame_lib' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_PLACES[name]), name)
    globals()[name] = value  # importing the module `doctor` has put the module here: the function it is
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
