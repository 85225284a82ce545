"""Converters of the command line: text of an argument to its value, or one clause that says what is wrong with it."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import Any

SEED_LIMIT = 2**63  # torch takes seeds of 64 bits, signed
MOST_SEEDS = 1_000_000


def whole(low: int, high: int | None = None) -> Callable[[str], int]:
    """A converter for whole numbers from `low` to `high`, both included."""

    def convert(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
        if value < low or (high is not None and value > high):
            limit = f"{low} or more" if high is None else f"{low} to {high}"
            raise argparse.ArgumentTypeError(f"{value} is out of range; use {limit}")
        return value

    return convert


def real(text: str) -> float:
    """A finite number."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text} is not a finite number")
    return value


def positive(text: str) -> float:
    """A number above 0."""
    value = real(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{text} is not greater than 0")
    return value


def pairs(text: str) -> dict[str, str]:
    """ "a=B,c=D" -> {"a": "B", "c": "D"}."""
    parts = [part.partition("=") for part in text.split(",")]
    if not all(name.strip() and sign and column.strip() for name, sign, column in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NAME=COLUMN,NAME=COLUMN")
    return {name.strip(): column.strip() for name, _, column in parts}


def words(text: str) -> tuple[str, ...]:
    """ "a, b" -> "a", "b"."""
    found = tuple(word.strip() for word in text.split(",") if word.strip())
    if not found:
        raise argparse.ArgumentTypeError("no name is given")
    return found


seed = whole(0, SEED_LIMIT - 1)


def listed(convert: Callable[[str], Any]) -> Callable[[str], tuple[Any, ...]]:
    """A converter for values with commas between them; an empty place is a value that `convert` refuses."""
    return lambda text: tuple(convert(word.strip()) for word in text.split(","))


def seeds(text: str) -> tuple[int, ...]:
    """ "0:3" -> 0, 1, 2, without the last as in Python; or "0,5,9"."""
    if ":" not in text:
        return tuple(seed(word.strip()) for word in text.split(","))
    first, _, beyond = text.partition(":")
    low, high = seed(first), seed(beyond)
    if not low < high <= low + MOST_SEEDS:
        raise argparse.ArgumentTypeError(f"{text} is not a range of 1 to {MOST_SEEDS:,} seeds; 0:40 is one of 40")
    return tuple(range(low, high))


def box(text: str) -> tuple[int, ...]:
    """ "10,20,30,45" -> 10, 20, 30, 45."""
    edges = listed(whole(0))(text)
    if len(edges) != 4:
        raise argparse.ArgumentTypeError(f"{text!r} has {len(edges)} numbers, but a box has four: x0,y0,x1,y1")
    return edges
