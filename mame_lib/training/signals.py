"""A request to stop (SIGTERM from a scheduler, Ctrl-C) waits until the step that it falls into is whole."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from mame_lib.training.world import World


@contextmanager
def whole_steps(world: World, device: torch.device) -> Iterator[Callable[[], bool]]:
    """Hold back SIGTERM and SIGINT inside the block; a second one of the same kind is obeyed at once.

    Gives a function that tells whether a stop was asked for, of any process. At the end of the block the signal is
    delivered to whoever would have had it.
    """
    pending: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: world.any(False, device)
        return

    def note(number: int, frame: Any) -> None:
        pending.append(number)
        signal.signal(number, before[number])

    before: dict[int, Any] = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    for number in before:
        signal.signal(number, note)
    stopping = False

    def asked() -> bool:
        nonlocal stopping
        stopping = world.any(bool(pending), device)
        return stopping

    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if pending:
        signal.raise_signal(pending[0])
    elif stopping:  # another process was told to stop
        raise SystemExit(128 + signal.SIGTERM)
