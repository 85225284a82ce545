"""The map of the paper: book/paper_map.toml, with its numbers put in and its places resolved, as a MyST table."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "book" / "paper_map.toml"
RESULTS = ROOT / "benchmarks" / "results"
NUMBER = re.compile(r"\{(?P<file>\w+):(?P<path>[^{}:]+?)(?::(?P<format>[^{}]*))?\}")
GROUPS = {
    "Equations": r"Eq\.|§", "Figures": r"Fig\.", "Tables": r"Table", "Contributions": r"C\d", "Claims": r"K\d",
    "Limitations": r"L\d", "Plans": r"W\d",
}  # fmt: skip


@dataclass(frozen=True)
class Item:
    """One item of the paper. Either `ours` or `lacks` says what became of it."""

    id: str
    paper: str
    where: list[str]
    ours: str = ""
    lacks: str = ""
    errata: list[int] = field(default_factory=list)


@cache
def items() -> list[Item]:
    """The table, in its order. Raises `ValueError` for an item that says neither what there is nor what lacks."""
    found = [Item(**entry) for entry in tomllib.loads(TABLE.read_text(encoding="utf8"))["item"]]
    for item in found:
        if bool(item.ours) == bool(item.lacks):
            raise ValueError(f"{item.id}: say either what is ours or what lacks")
    return found


def number(file: str, path: str, form: str = "") -> str:
    """A number of benchmarks/results/`file`.json by the keys of `path`, dots between; `|sum` adds MiB up to GiB.

    Keys may hold dots and spaces: the longest key that fits is taken. Raises `LookupError` if there is none.
    """
    path, _, how = path.partition("|")
    value: Any = json.loads((RESULTS / f"{file}.json").read_text(encoding="utf8"))
    rest = path
    while rest:
        keys = [key for key in value if rest == key or rest.startswith(f"{key}.")] if isinstance(value, dict) else []
        if not keys:
            raise LookupError(f"{file}.json has nothing at {path!r} (looked for {rest!r})")
        key = max(keys, key=len)
        value, rest = value[key], rest[len(key) + 1 :]
    if how == "sum":
        value = sum(value.values()) / 1024
    return format(value, form)


def filled(text: str) -> str:
    """A sentence with its numbers."""
    return NUMBER.sub(lambda found: number(found["file"], found["path"], found["format"] or ""), text)


def place(target: str) -> str:
    """A MyST link to a label or a page."""
    if target.startswith("eq-"):
        return f"{{eq}}`{target}`"
    if target.startswith("fig-"):
        return f"{{numref}}`{target}`"
    if target.startswith("alg-"):
        return f"{{prf:ref}}`{target}`"
    if target.startswith("sec-"):
        return f"{{ref}}`{target}`"
    return f"{{doc}}`{target}`"


def table() -> list[str]:
    """The whole map in MyST: one table a group."""
    lines: list[str] = []
    for title, pattern in GROUPS.items():
        lines += ["", f"## {title}", "", "| paper | what it says | here | what we found |", "|---|---|---|---|"]
        for item in items():
            if re.match(pattern, item.id):
                errata = ", ".join(f"[E{n}](#e{n})" for n in item.errata)
                said = filled(item.ours) if item.ours else f"*{item.lacks}*"
                where = ", ".join(place(target) for target in item.where) or "–"
                lines.append(f"| {item.id} | {item.paper} | {where} | {said}{f' ({errata})' if errata else ''} |")
    return lines
