"""Time and memory of the chapters, as the header boxes print them: book/measured.json.

    python tools/measure.py            # compare what is promised with what was measured last
    python tools/measure.py --write    # promise what was measured last
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

from chapters import MEASURED, chapters, has_passed
from digest import ROOT

PROMISES = ROOT / "book" / "measured.json"
PACKAGES = ("torch", "diffusers", "transformers", "numpy", "scipy", "pillow", "matplotlib", "jupyter-book")


def processor() -> str:
    """Name of the CPU, as well as the system tells it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def measured(promised: dict[str, Any]) -> dict[str, Any]:
    """Provenance and one entry a chapter, from the records in _build/measured/."""
    entries = dict(promised)  # a chapter that has not run with the present library keeps its promise
    for chapter in chapters():
        if has_passed(chapter):
            record = json.loads((MEASURED / f"{chapter.name}.json").read_text())
            entries[chapter.name] = {k: record[k] for k in ("seconds", "slowest_cell_seconds", "peak_mb")}
    return {
        "machine": {"processor": processor(), "cpus": os.cpu_count(), "gpu": None},
        "date": date.today().isoformat(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
        "chapters": entries,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="Time and memory of the chapters.")
    parser.add_argument("--write", action="store_true", help="write book/measured.json")
    options = parser.parse_args()
    promised = json.loads(PROMISES.read_text())["chapters"] if PROMISES.exists() else {}
    now = measured(promised)
    for name, entry in now["chapters"].items():
        before = promised.get(name, {}).get("seconds", "-")
        print(f"{name:16} {entry['seconds']:7.1f} s (promised {before}), peak {entry['peak_mb']:5.0f} MB")
    if options.write:
        temporary = PROMISES.with_suffix(".tmp")
        temporary.write_text(json.dumps(now, indent=1) + "\n")
        os.replace(temporary, PROMISES)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
