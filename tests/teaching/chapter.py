"""A tiny reader of the chapters, for the tests: front matter, exercises and code cells by tag."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
BOOK = ROOT / "book"
_CELL = re.compile(r"^(`{3,})\{code-cell\}.*?\n(.*?)^\1\s*$", flags=re.S | re.M)


@dataclass(frozen=True)
class Cell:
    """One code cell: its tags, its other options, its source and where it begins."""

    source: str
    options: dict[str, Any] = field(default_factory=dict)
    line: int = 0

    @property
    def tags(self) -> list[str]:
        return list(self.options.get("tags", []))


def numbered_chapters() -> list[Path]:
    """book/02_forward.md and its like."""
    return sorted(BOOK.glob("[0-9][0-9]_*.md"))


def pages() -> list[Path]:
    """Every page of the table of contents that exists."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    names = [toc["root"]] + [c["file"] for part in toc["parts"] for c in part["chapters"]]
    return [ROOT / f"{name}.md" for name in names]


def front_matter(path: Path) -> dict[str, Any]:
    found = re.match(r"---\n(.*?)\n---\n", path.read_text(encoding="utf8"), flags=re.S)
    return yaml.safe_load(found[1]) if found else {}


def exercise_ids(path: Path) -> list[str]:
    """Ids that the chapter grades, in order: what its stubs hand to `check`."""
    return [i for cell in cells(path, "exercise-stub") for i in re.findall(r'check\(\s*"([^"]+)"', cell.source)]


def cells(path: Path, tag: str | None = None) -> list[Cell]:
    """Code cells of a page, all or those with a tag."""
    text, found = path.read_text(encoding="utf8"), []
    for match in _CELL.finditer(text):
        options, source = _split(match[2])
        found.append(Cell(source, options, text.count("\n", 0, match.start()) + 1))
    return [cell for cell in found if tag is None or tag in cell.tags]


def _split(body: str) -> tuple[dict[str, Any], str]:
    """Options of a cell (either notation) and its source."""
    if body.startswith("---\n"):
        head, _, source = body[4:].partition("\n---\n")
        return yaml.safe_load(head) or {}, source.strip("\n") + "\n"
    lines, head = body.split("\n"), []
    while lines and re.match(r":[\w.-]+:", lines[0]):
        key, _, value = lines.pop(0)[1:].partition(":")
        head.append(f"{key}: {value.strip()}")
    return yaml.safe_load("\n".join(head)) or {}, "\n".join(lines).strip("\n") + "\n"


def until_check(source: str, exercise_id: str) -> str:
    """The statements of a cell up to and with its `check("id", …)`: what follows is illustration."""
    tree = ast.parse(source)
    for index, statement in enumerate(tree.body):
        for node in ast.walk(statement):
            if (
                isinstance(node, ast.Call)
                and getattr(node.func, "id", "") == "check"
                and isinstance(node.args[0], ast.Constant)
                and node.args[0].value == exercise_id
            ):
                return ast.unparse(ast.Module(body=tree.body[: index + 1], type_ignores=[]))
    raise AssertionError(f"no check({exercise_id!r}, …) in this cell:\n{source}")
