"""No printed equation goes unchecked: each label of these chapters has a test that derives it again."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
BOOK = HERE.parents[1] / "book"
NUMBERS = ("02", "03", "04", "05", "06", "09", "10", "11", "12", "13", "14", "15")
CHAPTERS = sorted(path for path in BOOK.glob("[0-9][0-9]_*.md") if path.stem[:2] in NUMBERS)


def labels(path: Path) -> set[str]:
    """Labels of equations, in either notation: `:label: eq-02-step` and `$$ ... $$ (eq-02-step)`."""
    return set(re.findall(r"(?:^:label: |^\$\$ \()(eq-[\w-]+)", path.read_text(encoding="utf8"), flags=re.M))


def functions_in(path: Path) -> set[str]:
    functions = [node for node in ast.parse(path.read_text(encoding="utf8")).body if isinstance(node, ast.FunctionDef)]
    return {function.name for function in functions}


def test_these_chapters_exist() -> None:
    assert tuple(path.stem[:2] for path in CHAPTERS) == NUMBERS


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_every_equation_of_a_chapter_is_derived_again(path: Path) -> None:
    wanted = {f"test_{label}".replace("-", "_") for label in labels(path)}
    found = functions_in(HERE / f"test_{path.stem}.py")
    assert len(wanted) >= 4
    assert wanted <= found, f"no test for {sorted(wanted - found)}"
    stale = {name for name in found if name.startswith("test_eq_")} - wanted
    assert not stale, f"tests of equations that are not printed: {sorted(stale)}"
