"""A pytest plugin: peak memory and seconds of every notebook that nbmake runs and that passes.

nbmake starts the kernel as a child of the pytest worker; a thread adds up the resident memory of the
children four times a second. The result goes to $MAME_MEASURED/<notebook>.json.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import psutil
import pytest

_runs: dict[str, dict[str, float]] = {}


def _resident(parent: psutil.Process) -> int:
    total = 0
    for child in parent.children(recursive=True):
        try:
            total += child.memory_info().rss
        except psutil.Error:  # it ended while we looked
            continue
    return total


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item: Any) -> Generator[None, None, None]:
    peak, done, me = [0], threading.Event(), psutil.Process()

    def watch() -> None:
        while not done.wait(0.25):
            peak[0] = max(peak[0], _resident(me))

    thread = threading.Thread(target=watch, daemon=True)
    start = time.monotonic()
    thread.start()
    yield
    done.set()
    thread.join()
    _runs[item.nodeid] = {"seconds": round(time.monotonic() - start, 1), "peak_mb": round(peak[0] / 1e6)}


def pytest_runtest_logreport(report: Any) -> None:
    folder = os.environ.get("MAME_MEASURED")
    if report.when == "call" and report.passed and folder and report.nodeid in _runs:
        target = Path(folder) / f"{Path(str(report.fspath)).stem}.json"
        target.write_text(json.dumps(_runs[report.nodeid]))
