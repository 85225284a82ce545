"""`doctor`: is everything installed that the library needs, and if not, which command mends it?"""

from __future__ import annotations

import re
import sys
import tomllib
import types
from importlib import metadata
from pathlib import Path

from mame_lib.models.presets import SHIPPED, WEIGHTS

_REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)\s*([^;\[]*)")


def doctor() -> bool:
    """Print what is found against what is required, and the exact repair; True if the library can run.

    Optional packages (extras) and a missing GPU are told but are no fault.
    """
    required, optional = _requirements()
    print(f"{'package':<20} {'found':<16} {'required':<16}")
    good = _row("python", ".".join(map(str, sys.version_info[:3])), ">=3.11,<3.14")
    if not good:
        print("  -> install Python 3.11, 3.12 or 3.13, for example: conda create -n mame python=3.12")
    faults = [text for text in required if not _row(*_found(text))]
    lacking = {
        extra: [t for t in texts if not _meets(*_found(t)[1:])] for extra, texts in sorted(optional.items())
    }
    for extra, texts in lacking.items():
        state = "optional; lacks " + ", ".join(map(_name, texts)) if texts else "complete"
        print(f"extra {extra + ':':<14} {state}")
    working = _machine() if not any(_name(text) == "torch" for text in faults) else False
    models = _models()
    if faults:
        print("Repair: pip install " + " ".join(f'"{text}"' for text in faults))
    if not required:
        print("Repair: the package is not installed here; in its folder run: pip install -e .")
    good = good and working and models and not faults and bool(required)
    print("All is well." if good else "Something needs repair; see above.")
    return good


def _requirements() -> tuple[list[str], dict[str, list[str]]]:
    """What the library needs and each extra needs except "dev", from its source or the installed package."""
    source = Path(__file__).resolve().parent.parent / "pyproject.toml"
    if source.is_file():  # a checkout knows best: its installed metadata may be older
        project = tomllib.loads(source.read_text(encoding="utf-8"))["project"]
        extras = {
            name: texts for name, texts in project.get("optional-dependencies", {}).items() if name != "dev"
        }
        return [_plain(text) for text in project["dependencies"]], {
            n: list(map(_plain, t)) for n, t in extras.items()
        }
    try:
        texts = metadata.requires("mame-lib") or []
    except metadata.PackageNotFoundError:
        return [], {}
    optional: dict[str, list[str]] = {}
    for text in texts:
        if (extra := re.search(r"extra\s*==\s*['\"](\w+)", text)) and extra[1] != "dev":
            optional.setdefault(extra[1], []).append(_plain(text))
    return [_plain(text) for text in texts if "extra" not in text], optional


def _plain(text: str) -> str:
    """A requirement without its environment marker and without spaces."""
    return text.split(";")[0].replace(" ", "")


def _name(text: str) -> str:
    match = _REQUIREMENT.match(text)
    return match[1] if match else text


def _found(text: str) -> tuple[str, str, str]:
    """(name, version found or "missing", versions required) of a requirement such as "numpy>=2.0"."""
    name = _name(text)
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        version = "missing"
    return name, version, text[len(name) :]


def _row(name: str, version: str, required: str) -> bool:
    good = _meets(version, required)
    print(f"{name:<20} {version:<16} {required:<16} {'ok' if good else 'WRONG'}")
    return good


def _meets(version: str, required: str) -> bool:
    """Whether a version satisfies bounds such as ">=2.6,<3"; letters behind the numbers do not count."""
    if version == "missing":
        return False
    mine = _numbers(version)
    for operator, bound in re.findall(r"(>=|<=|==|!=|~=|<|>)([^,]+)", required):
        theirs = _numbers(bound)
        width = max(len(mine), len(theirs))
        a, b = ((*numbers, *(0,) * (width - len(numbers))) for numbers in (mine, theirs))
        holds = {">=": a >= b, "<=": a <= b, "==": a == b, "!=": a != b, "~=": a >= b, "<": a < b, ">": a > b}
        if not holds[operator]:
            return False
    return True


def _numbers(version: str) -> tuple[int, ...]:
    release = re.match(r"\d+(?:\.\d+)*", version.strip())
    return tuple(int(part) for part in release[0].split(".")) if release else ()


def _machine() -> bool:
    """Say what torch can compute on; False if torch is installed but does not load."""
    try:
        import torch
    except Exception as error:
        print(f"torch is installed but does not load ({type(error).__name__}: {error}).")
        print("Repair: pip install --force-reinstall torch")
        return False
    device = (
        f"CUDA, {torch.cuda.get_device_name()}"
        if torch.cuda.is_available()
        else "CPU only (enough for `tiny`)"
    )
    print(f"{'device':<20} {device}")
    return True


def _models() -> bool:
    """Whether the weights that ship with the library are there."""
    names = [name for name in SHIPPED if (WEIGHTS / name / "model_index.json").is_file()]
    missing = sorted(set(SHIPPED) - set(names))
    print(f"{'models':<20} {', '.join(names) or 'none'}")
    if missing:
        print(
            f"Repair: {', '.join(missing)} not in {WEIGHTS}; install again: pip install --force-reinstall ."
        )
    return not missing


class _CallableModule(types.ModuleType):
    """`mame_lib.doctor` names this module and its function alike; calling either must work."""

    def __call__(self) -> bool:
        return doctor()


sys.modules[__name__].__class__ = _CallableModule
