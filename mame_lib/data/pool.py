"""Many files, several processes, and no file that can stop the others: `each`."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from itertools import islice
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")
SECONDS = 60.0  # for one file, its decoder's start included
IN_FLIGHT = 4  # tasks a worker: enough to keep it busy, few enough to keep memory flat


class Lost:
    """In place of a result: the process of a task died or took too long. `reason` says which."""

    def __init__(self, reason: str) -> None:
        self.reason = reason


def each(
    function: Callable[[T], R], items: Iterable[T], *, workers: int, seconds: float = SECONDS
) -> Iterator[tuple[T, R | Lost]]:
    """Yield (item, function(item)) in the order in which they finish.

    workers: processes; 0 runs in this one, without protection. A task that kills its process (a native decoder
    may) or runs longer than `seconds` yields `Lost`, and a fresh process goes on with the rest. `function` and
    the items must be picklable. An exception that `function` raises is raised here.
    """
    if workers == 0:
        for item in items:
            yield item, function(item)
        return
    from pebble import ProcessPool

    # spawn: a forked child would inherit the locks of this process's threads, possibly taken
    context = multiprocessing.get_context("spawn")
    pool = ProcessPool(max_workers=workers, initializer=_silence, context=context)
    source = iter(items)
    pending: dict[Future[Any], T] = {}
    try:
        while True:
            for item in islice(source, IN_FLIGHT * workers - len(pending)):
                pending[pool.schedule(function, args=(item,), timeout=seconds)] = item
            if not pending:
                break
            done, _ = wait(pending, return_when=FIRST_COMPLETED)
            for future in done:
                yield pending.pop(future), _result(future, seconds)
        pool.close()
    except BaseException:
        pool.stop()
        raise
    finally:
        pool.join()


def _result(future: Future[Any], seconds: float) -> Any:
    from pebble import ProcessExpired

    try:
        return future.result()
    except TimeoutError:
        return Lost(f"it took longer than {seconds:g} s to read")
    except ProcessExpired:
        return Lost("its decoder crashed; the file is damaged")


def _silence() -> None:
    """Native decoders print to the terminal whatever Python does: give a worker none."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
