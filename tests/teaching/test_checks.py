"""The exercises keep their promises: stub fails, solution passes, typical mistakes earn their own hint."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

from mame_lib.teaching import checks

HERE = Path(__file__).resolve().parent


def _module(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)
    spec.loader.exec_module(module)
    return module


chapter = _module(HERE / "chapter.py")
CHAPTERS = {path.stem[:2]: path for path in chapter.numbered_chapters()}
EXERCISES = [(number, i) for number, path in CHAPTERS.items() for i in chapter.exercise_ids(path)]


def _answer(number: str, exercise_id: str, tag: str) -> list[tuple[bool, str]]:
    """Run the setup cell and one exercise cell in a fresh namespace; what its checks said."""
    path, said = CHAPTERS[number], []
    cell = next(c for c in chapter.cells(path, tag) if f'"{exercise_id}"' in c.source)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for setup in chapter.cells(path, "setup"):
        exec(compile(setup.source, f"{path.name}:{setup.line}", "exec"), namespace)
    namespace["check"] = lambda i, answer: said.append(checks.grade(i, answer))
    source = chapter.until_check(cell.source, exercise_id)
    exec(compile(source, f"{path.name}:{cell.line}", "exec"), namespace)
    return said


@pytest.mark.parametrize(("number", "exercise_id"), EXERCISES)
def test_stub_is_told_it_is_not_answered(number: str, exercise_id: str) -> None:
    [(passed, message)] = _answer(number, exercise_id, "exercise-stub")
    assert not passed
    assert "not answered yet" in message


@pytest.mark.parametrize(("number", "exercise_id"), EXERCISES)
def test_solution_passes(number: str, exercise_id: str) -> None:
    [(passed, message)] = _answer(number, exercise_id, "exercise-solution")
    assert passed, message


WRONG = {
    exercise_id: answers
    for path in sorted((HERE / "wrong_answers").glob("[a-z]*.py"))
    for exercise_id, answers in _module(path).WRONG.items()
}


@pytest.mark.parametrize(
    ("exercise_id", "answer", "fragment"),
    [(i, a, f) for i, answers in WRONG.items() for a, f in answers],
)
def test_wrong_answer_earns_its_hint(exercise_id: str, answer: Any, fragment: str) -> None:
    passed, message = checks.grade(exercise_id, answer)
    assert not passed
    assert fragment in message


@pytest.mark.parametrize("number", CHAPTERS)
def test_every_exercise_has_a_check_and_two_wrong_answers_with_different_hints(number: str) -> None:
    printed = chapter.exercise_ids(CHAPTERS[number])
    assert len(printed) >= 3
    assert len(set(printed)) == len(printed)
    assert set(printed) == set(checks.registry(number))
    for exercise_id in printed:
        fragments = [fragment for _, fragment in WRONG.get(exercise_id, [])]
        assert len(set(fragments)) >= 2, exercise_id


@pytest.mark.parametrize("number", CHAPTERS)
def test_every_objective_is_practiced(number: str) -> None:
    objectives = chapter.front_matter(CHAPTERS[number])["mame"]["objectives"]
    assert objectives
    for objective in objectives:
        assert objective["exercise"] in chapter.exercise_ids(CHAPTERS[number]), objective["text"]


def test_check_prints_one_line_and_never_raises(capsys: pytest.CaptureFixture[str]) -> None:
    @checks.exercise("99-two")
    def verify(answer: Any) -> None:
        if answer() != 2:
            raise checks.Hint("it should be two: count again.")

    def broken() -> int:
        raise ZeroDivisionError("oh")

    assert checks.check("99-two", lambda: 2)
    for answer in (None, lambda: None, lambda: 3, broken):
        assert not checks.check("99-two", answer)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert lines[0] == "✓ 99-two: passed."
    assert "not answered yet" in lines[1] and "not answered yet" in lines[2]
    assert "count again" in lines[3]
    assert "ZeroDivisionError" in lines[4]
    assert not checks.check("99-none", lambda: 1)
