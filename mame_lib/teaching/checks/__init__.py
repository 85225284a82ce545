"""Self-checks of the exercises: they say which property fails and what to look at, never the solution.

A chapter calls `check("02-snr", my_function)`. The check of that exercise is a function registered with
`exercise("02-snr")` in the chapter's module (`forward` for chapter 02, …), loaded when it is first needed.
"""

from __future__ import annotations

import importlib
import textwrap
from collections.abc import Callable
from typing import Any

__all__ = ["Hint", "MODULES", "check", "exercise", "registry"]  # noqa: RUF022

Verify = Callable[[Any], None]

# Chapter number -> module of this package that holds its checks.
MODULES = {
    "01": "mammograms", "02": "forward", "03": "reverse", "04": "samplers", "05": "latents", "06": "conditioning",
    "07": "dreambooth", "08": "resources", "09": "guidance", "10": "extrapolation", "11": "lesions",
    "12": "failures", "13": "fidelity", "14": "readers", "15": "cad",
}  # fmt: skip

_REGISTRY: dict[str, Verify] = {}


class Hint(Exception):
    """Raised by a check: one or two sentences on the property that fails and where to look."""


def exercise(exercise_id: str) -> Callable[[Verify], Verify]:
    """Decorator: register `verify(answer) -> None` as the check of `exercise_id` (e.g. ``"02-snr"``).

    `verify` returns when the answer is right and raises `Hint` when it is not.
    """

    def register(verify: Verify) -> Verify:
        _REGISTRY[exercise_id] = verify
        return verify

    return register


def registry(chapter: str | None = None) -> dict[str, Verify]:
    """All registered checks, or those of one chapter (``"02"``), in the order of the source."""
    for number, module in MODULES.items():
        if chapter in (None, number):
            _load(module)
    return {key: v for key, v in _REGISTRY.items() if chapter is None or key.startswith(f"{chapter}-")}


def check(exercise_id: str, answer: Any) -> bool:
    """Grade an answer and print one sentence, two at most, folded to the width of a page.

    Parameters
    ----------
    exercise_id : the id printed with the exercise, such as ``"02-snr"``
    answer : what the exercise asks for: usually a function, sometimes a value

    Returns
    -------
    bool
        True if the answer passes. Nothing is raised, whatever the answer does.
    """
    passed, message = grade(exercise_id, answer)
    line = f"{'✓' if passed else '✗'} {exercise_id}: {message}"
    print(textwrap.fill(line, 74, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False))
    return passed


def grade(exercise_id: str, answer: Any) -> tuple[bool, str]:
    """What `check` prints, without printing: (passed, message)."""
    verify = _verifier(exercise_id)
    if verify is None:
        return False, f"no such exercise; this chapter has {', '.join(registry(exercise_id[:2])) or 'none'}."
    unanswered = "not answered yet: write the body of the stub, then run it again."
    if answer is None:
        return False, unanswered
    watched, returned = _watch(answer)
    try:
        verify(watched)
    except NotImplementedError:
        return False, unanswered
    except Hint as hint:
        if returned and all(value is None for value in returned):
            return False, unanswered
        return False, str(hint)
    except Exception as error:  # an answer may fail in any way; the reader gets a sentence, not a traceback
        if returned and all(value is None for value in returned):
            return False, unanswered
        return False, f"your answer raised {type(error).__name__}: {error}"
    return True, "passed."


def _watch(answer: Any) -> tuple[Any, list[Any]]:
    """The answer, and a list that fills with what it returns (to tell a stub from a wrong answer)."""
    returned: list[Any] = []
    if not callable(answer) or isinstance(answer, type):
        return answer, returned

    def watched(*args: Any, **kwargs: Any) -> Any:
        value = answer(*args, **kwargs)
        returned.append(value)
        return value

    return watched, returned


def number(value: Any) -> float:
    """An answer that must be one number; `Hint` if it is none."""
    try:
        return float(value)
    except (TypeError, ValueError):
        raise Hint(f"return one number, not {type(value).__name__}.") from None


def two_numbers(value: Any, names: str) -> tuple[float, float]:
    """An answer that must be two numbers, called `names`; `Hint` if it is not."""
    try:
        first, second = value
        return float(first), float(second)
    except (TypeError, ValueError):
        raise Hint(f"return two numbers, {names}.") from None


def _verifier(exercise_id: str) -> Verify | None:
    module = MODULES.get(exercise_id[:2])
    if module:
        _load(module)
    return _REGISTRY.get(exercise_id)


def _load(module: str) -> None:
    """Import the checks of a chapter; a chapter that is not written yet has none."""
    name = f"{__name__}.{module}"
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
