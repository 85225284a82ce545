"""Digests: short names for the state of files, so that nothing runs twice for the same inputs.

    python tools/digest.py            # print the digest of the library (sources, weights, pins)
    python tools/digest.py freeze     # print constraints/cpu-py311.txt anew from this environment
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable
from importlib.metadata import distributions
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CONSTRAINTS = ROOT / "constraints" / "cpu-py311.txt"
IGNORED = {"__pycache__", ".ipynb_checkpoints", ".DS_Store"}


def files_under(paths: Iterable[Path]) -> list[Path]:
    """All files of the given files and folders, sorted, without caches and compiled code."""
    found: set[Path] = set()
    for path in paths:
        candidates = path.rglob("*") if path.is_dir() else [path]
        found.update(p for p in candidates if p.is_file() and not IGNORED & set(p.parts) and p.suffix != ".pyc")
    return sorted(found)


def digest(paths: Iterable[Path], extra: str = "") -> str:
    """First 16 hex digits of the SHA-256 over names and contents, and over `extra`."""
    state = hashlib.sha256(extra.encode())
    for path in files_under(paths):
        name = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
        state.update(f"\n{name.as_posix()}\n".encode())
        state.update(hashlib.sha256(path.read_bytes()).digest())
    return state.hexdigest()[:16]


def library_digest() -> str:
    """What the output of a chapter depends on besides its own cells: mame_lib, stored measurements, and the pins.

    jupyter-cache compares notebook text only and does not see a changed library: the execution cache is
    therefore kept in a folder named after this digest.
    """
    paths = [ROOT / "mame_lib", ROOT / "benchmarks" / "results", CONSTRAINTS]
    return digest(paths, extra=f"python {sys.version_info[0]}.{sys.version_info[1]}")


def frozen() -> str:
    """The text of the constraints file for the packages installed here, without mame-lib, pip and setuptools."""
    head = [line for line in CONSTRAINTS.read_text().splitlines() if line.startswith("#")]
    pins = {
        d.metadata["Name"]: d.version.split("+")[0]  # torch "2.13.0+cpu" -> "2.13.0"
        for d in distributions()
        if d.metadata["Name"] not in {"mame-lib", "pip", "setuptools", "wheel"}
    }
    return "\n".join(head + [f"{name}=={pins[name]}" for name in sorted(pins, key=str.lower)]) + "\n"


if __name__ == "__main__":
    print(frozen() if sys.argv[1:] == ["freeze"] else library_digest(), end="" if sys.argv[1:] else "\n")
