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
def held_back() -> Iterator[list[int]]:
    """Note SIGTERM and SIGINT in the list, instead of obeying; a second one of the same kind is obeyed at once."""
    noted: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # signals come to the main thread only
        yield noted
        return

    def note(number: int, frame: Any) -> None:
        noted.append(number)
        signal.signal(number, before[number])

    before: dict[int, Any] = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    for number in before:
        signal.signal(number, note)
    try:
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def whole_steps(world: World, device: torch.device, noted: list[int]) -> Iterator[Callable[[], bool]]:
    """Hold back a request to stop inside the block; gives a function that tells whether there was one.

    One process delivers the signal at the end of the block to whoever would have had it. Several must leave at the
    same step, or the last one waits for ever: they ask each other, so all call the function once in every block, and
    what comes too late for this block, or between two, stays in `noted` (see `held_back`) for the next.
    """
    if world.size > 1:
        stop = False

        def agreed() -> bool:
            nonlocal stop
            stop = world.any(bool(noted), device)
            return stop

        yield agreed
        if stop:
            raise SystemExit(128 + (noted[0] if noted else signal.SIGTERM))
        return
    with held_back() as mine:
        yield lambda: bool(mine)
    if mine:
        signal.raise_signal(mine[0])
