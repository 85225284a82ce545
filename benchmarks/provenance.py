"""Where a stored measurement comes from: the same block in every file of benchmarks/results."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mame_lib import __version__


def provenance(*packages: str, **more: Any) -> dict[str, Any]:
    """Command, date, machine and versions; `packages` besides numpy, `more` such as seeds.

    Paths of the command are cut to their last part: where data lie on a disk is nobody's business.
    """
    words = [Path(word).name if os.sep in word else word for word in sys.argv[1:]]
    return {
        "command": " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *words]),
        "date": time.strftime("%Y-%m-%d"),
        "library": __version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "versions": {name: version(name) for name in ("numpy", *packages)},
        **more,
    }


def report(result: dict[str, Any], out: Path | None, *packages: str, **more: Any) -> None:
    """Print the result with its provenance as JSON, and store it at `out` if there is one."""
    text = json.dumps({**result, "provenance": provenance(*packages, **more)}, indent=1)
    print(text)
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text + "\n", encoding="utf-8")
