"""Statistics of benchmarks/lesions.py: means with intervals over images, paired differences, words read.

A row is one image of one cell: its part and arm or setting, the measures of `evaluation.realism`, `added` (how much
brighter the box's ellipse is than in the same breast without a lesion, in gray levels), and the chances of the words.
"""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mame_lib.evaluation.adherence import bootstrap, wilson
from mame_lib.evaluation.findings import READ

MEASURES = ("contrast", "to_noise", "added", "margin", "slope", "coarse", "middle", "fine", "seam")
CHANCES = tuple(f"chance_{word}" for word in READ)
NUMBERS = ("guidance", "steps", "index", *MEASURES, *CHANCES)
COLUMNS = ("part", "arm", "prompt", "world", *NUMBERS)
DIGITS = 4

Row = dict[str, Any]
F64 = NDArray[np.float64]


def write_rows(rows: Iterable[Row], path: Path) -> None:
    """Rows as compressed CSV; numbers are rounded, what a row does not have stays empty."""
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, COLUMNS, lineterminator="\n", restval="")
    table.writeheader()
    for row in rows:
        table.writerow({k: round(v, DIGITS) if isinstance(v, float) else v for k, v in row.items()})
    path.write_bytes(gzip.compress(text.getvalue().encode(), mtime=0))  # no date: same rows, same file


def read_rows(path: Path) -> list[Row]:
    """The inverse of `write_rows`; what is empty is left out."""
    lines = csv.DictReader(io.StringIO(gzip.decompress(path.read_bytes()).decode(), newline=""))
    return [{k: float(v) if k in NUMBERS else v for k, v in line.items() if v != ""} for line in lines]


def column(rows: Sequence[Row], name: str) -> F64:
    """One number of each image, [N], in the order of the images; nan where it could not be measured."""
    ordered = sorted(rows, key=lambda row: row["index"])
    return np.array([row.get(name, np.nan) for row in ordered], np.float64)


def mean(values: F64, *, ratio: bool = False) -> dict[str, Any]:
    """Mean of what could be measured, its 95 % bootstrap interval over images, and of how many of them.

    ratio: the values are ratios, their mean is the geometric one.
    """
    seen = np.isfinite(values)
    if not seen.any():
        return {"mean": None, "interval": [None, None], "images": 0}
    kept = np.where(seen, np.log(np.where(seen, values, 1)) if ratio else values, 0)

    def weighted(weights: F64) -> F64:
        count = weights @ seen
        middle = np.divide(weights @ kept, count, out=np.full(len(count), np.nan), where=count > 0)
        return np.exp(middle) if ratio else middle

    middle, low, high = bootstrap(weighted, len(values))
    return {"mean": _short(middle), "interval": [_short(low), _short(high)], "images": int(seen.sum())}


def _short(value: float) -> float:
    return round(float(value), DIGITS)


def measured(rows: Sequence[Row], true: Sequence[Row] | None = None) -> dict[str, Any]:
    """Every measure of one cell, and its difference to the true lesions in the same boxes (of the seam: the ratio)."""
    result: dict[str, Any] = {name: mean(column(rows, name), ratio=name == "seam") for name in MEASURES}
    if true:
        result["to true"] = {}
        for name in MEASURES:
            own, other = column(rows, name), column(true, name)
            apart = own / other if name == "seam" else own - other
            result["to true"][name] = mean(apart, ratio=name == "seam")
    return result


def words(rows: Sequence[Row]) -> dict[str, Any]:
    """How often each word was read (the one with the largest chance), with Wilson intervals, and the mean chances."""
    chances = np.stack([column(rows, name) for name in CHANCES], axis=1)  # [N, 4]
    read = np.bincount(chances.argmax(1), minlength=len(READ))
    shares = {}
    for word, count in zip(READ, read, strict=True):
        low, high = wilson(int(count), len(chances))
        share = _short(count / len(chances))
        shares[word] = {"images": int(count), "share": share, "interval": [_short(low), _short(high)]}
    return {
        "images": len(chances),
        "read": shares,
        "chance": {word: mean(chances[:, k]) for k, word in enumerate(READ)},
    }


def chance_gained(rows: Sequence[Row], before: Sequence[Row]) -> dict[str, Any]:
    """How much more likely each word is than in other fillings of the same boxes from the same noise."""
    return {word: mean(column(rows, name) - column(before, name)) for word, name in zip(READ, CHANCES, strict=True)}


def groups(rows: Iterable[Row], *names: str) -> dict[Any, list[Row]]:
    """Rows by the values of some columns, in the order in which they first appear."""
    found: dict[Any, list[Row]] = {}
    for row in rows:
        key = tuple(row[name] for name in names)
        found.setdefault(key[0] if len(names) == 1 else key, []).append(row)
    return found


def summary(rows: Sequence[Row]) -> dict[str, Any]:
    """All parts of the benchmark; see there."""
    part = groups(rows, "part")
    arms = groups(part["arms"], "world", "arm")
    true = arms["decoded", "true lesion"]
    asked = groups(part["words"], "prompt")
    plain = asked["a mammogram"]
    settings = {
        name: [
            {"guidance": g, "steps": int(s), **measured(some, true)}
            for (g, s), some in groups(part[name], "guidance", "steps").items()
        ]
        for name in ("sweep", "paper")
    }
    return {
        "arms": {
            world: {arm: measured(some, arms[world, "true lesion"]) for (w, arm), some in arms.items() if w == world}
            for world in ("drawn", "decoded")
        },
        **settings,
        "words": {
            prompt: {**measured(some, true), **words(some), "more than healthy": chance_gained(some, plain)}
            for prompt, some in asked.items()
        },
        "truth": {
            world: {arm: words(some) for (w, arm), some in groups(part["truth"], "world", "arm").items() if w == world}
            for world in ("drawn", "decoded")
        },
        "spiculated against mass": chance_gained(
            asked["a mammogram with a spiculated mass"], asked["a mammogram with a mass"]
        ),
        "removal": {arm: {**measured(some), **words(some)} for arm, some in groups(part["removal"], "arm").items()},
    }
