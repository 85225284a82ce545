"""Run a command once for each state of its inputs.

    python tools/once.py NAME PATH… -- COMMAND…

The digest of the paths is kept in _build/passed/NAME when the command succeeds; while it is the same the
command is not run again. FORCE=1 in the environment runs it anyway.
"""

from __future__ import annotations

import os
import subprocess
import sys

from digest import ROOT, digest


def main(arguments: list[str]) -> int:
    split = arguments.index("--")
    name, *inputs = arguments[:split]
    command = arguments[split + 1 :]
    stamp = ROOT / "_build" / "passed" / name
    state = digest((ROOT / path for path in inputs), extra=" ".join(command))
    if not os.environ.get("FORCE") and stamp.exists() and stamp.read_text() == state:
        print(f"{name}: passed before with the same inputs, not repeated (make test FORCE=1 repeats it).")
        return 0
    status = subprocess.call(command, cwd=ROOT)
    if status == 0:
        stamp.parent.mkdir(parents=True, exist_ok=True)
        stamp.write_text(state)
    return status


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
