"""What a population is made of: `Spec`, read from a TOML file by `read_spec`. Standard library and the grammar alone.

    model = "fused"          # settings come first, then a table for each attribute
    seed = 2023

    [density]                # shares of its words; they add up to 1
    "very low" = 0.1
    low = 0.4
    high = 0.4
    "very high" = 0.1

    [finding]
    none = 0.7
    mass = 0.3

A word that a table leaves out has the share 0. Where a table is missing all words of an attribute are equally
likely; nobody has a finding, every image is for training, and every sentence has the order "training": it names the
area for Hologic and the density for Siemens, as the captions that the shipped models have learned. Other orders
(those of the paper's interface) ask for both, which is often not obeyed: screening then draws most images again.
"""

from __future__ import annotations

import difflib
import math
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from mame_lib.data.case import AREAS, DENSITIES, FINDINGS, LATERALITIES, VENDORS, VIEWS
from mame_lib.data.manifest import SPLITS
from mame_lib.errors import InputError

NONE = "none"  # an attribute that the sentence does not say; no finding
ORDERS = ("area", "density", "only area", "only density", "training", "constant")
# Words of each table, in the order in which a draw goes through them.
TABLES: dict[str, tuple[str, ...]] = {
    "vendor": (*VENDORS, NONE),
    "view": (*VIEWS, NONE),
    "area": (*AREAS, NONE),
    "density": (*DENSITIES, NONE),
    "laterality": LATERALITIES,
    "finding": (NONE, *FINDINGS),
    "order": ORDERS,
    "split": SPLITS,
}
SAID = ("vendor", "view", "area", "density")  # what a sentence can say
TOLERANCE = 1e-6  # of the sum of a table

_SEEDS = 2**63
_LIMITS: dict[str, tuple[float, float]] = {
    "seed": (0, _SEEDS - 1),
    "steps": (1, 1000),
    "guidance_scale": (0, 50),
    "lesion_guidance_scale": (0, 50),
    "most_tries": (1, 100),
}


def _even(words: Iterable[str]) -> dict[str, float]:
    words = [word for word in words if word != NONE]
    return {word: 1 / len(words) for word in words}


def _defaults() -> dict[str, dict[str, float]]:
    single = {"finding": {NONE: 1.0}, "order": {"training": 1.0}, "split": {"train": 1.0}}
    return {name: single.get(name) or _even(words) for name, words in TABLES.items()}


@dataclass(frozen=True)
class Spec:
    """A population. Everything in it decides what the images are; how many are made of it is said elsewhere.

    model, inpainter : shipped name, folder or Hub id, for breasts and for the lesions in them.
    seed : every image is a function of it and of the image's own number.
    steps : of the sampler, for both models. guidance_scale, lesion_guidance_scale : 1 is no guidance.
    screen : draw again, `most_tries` times in all, what shows one of the paper's four failures.
    keep_twins : keep the breast as it was before the lesion, in `twins/`.
    dicom : write each image as a DICOM file too.
    shares : for each of `TABLES` the shares of its words, 0 to 1.
    """

    model: str = "fused"
    inpainter: str = "inpaint"
    seed: int = 0
    steps: int = 24
    guidance_scale: float = 4.0
    lesion_guidance_scale: float = 4.0
    screen: bool = True
    most_tries: int = 8
    keep_twins: bool = False
    dicom: bool = False
    shares: Mapping[str, Mapping[str, float]] = field(default_factory=_defaults)

    @property
    def has_lesions(self) -> bool:
        """Whether any image is to have a finding."""
        return self.shares["finding"].get(NONE, 0.0) < 1

    def to_dict(self) -> dict[str, Any]:
        """Settings and tables, as in the file; words without a share are left out."""
        settings = {name: getattr(self, name) for name in SETTINGS}
        tables = {
            name: {word: float(share) for word in words if (share := self.shares[name].get(word, 0.0)) > 0}
            for name, words in TABLES.items()
        }
        return settings | tables

    def to_toml(self) -> str:
        """The file that says all this, with the defaults spelled out."""
        values = self.to_dict()
        lines = [f"{name} = {_toml(values[name])}" for name in SETTINGS]
        for name in TABLES:
            lines += ["", f"[{name}]", *(f"{_key(word)} = {share!r}" for word, share in values[name].items())]
        return "\n".join(lines) + "\n"


SETTINGS = tuple(one.name for one in fields(Spec) if one.name != "shares")
_KINDS = {name: type(getattr(Spec(), name)) for name in SETTINGS}


def read_spec(path: str | Path) -> Spec:
    """Read a population from a TOML file.

    Raises
    ------
    InputError
        If the file cannot be read or is not TOML; if a key or a word is unknown (the sentence names the nearest);
        if a value is of the wrong kind or out of its limits; if the shares of a table do not add up to 1.
    """
    try:
        with open(path, "rb") as stream:
            values = tomllib.load(stream)
    except OSError as error:
        raise InputError(f"cannot read the population {path} ({error.strerror or error}).") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"the population {path} is not TOML: {error}.") from error
    return spec_from(values, str(path))


def spec_from(values: Mapping[str, Any], where: str = "the population") -> Spec:
    """The population that a dictionary like `Spec.to_dict()` describes. Errors as `read_spec`; `where` names it."""
    settings: dict[str, Any] = {}
    shares = _defaults()
    for key, value in values.items():
        if key in TABLES:
            shares[key] = _table(key, value, where)
        elif key in _KINDS:
            settings[key] = _setting(key, value, where)
        else:
            raise InputError(f"{where}: the key {key!r} is unknown; {_nearest(key, (*SETTINGS, *TABLES))}.")
    return Spec(**settings, shares=shares)


def _setting(name: str, value: Any, where: str) -> Any:
    kind = _KINDS[name]
    if kind is bool or kind is str:
        if type(value) is not kind or value == "":
            wanted = "true or false" if kind is bool else "the name of a model, in quotes"
            raise InputError(f"{where}: {name} is {value!r}, but must be {wanted}.")
        return value
    low, high = _LIMITS[name]
    whole = kind is int
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float) or not low <= value <= high:
        noun = "a whole number" if whole else "a number"
        limit = f"{low} to 2**63 - 1" if high == _SEEDS - 1 else f"{low} to {high}"
        raise InputError(f"{where}: {name} is {value!r}, but must be {noun} from {limit}.")
    return kind(value)


def _table(name: str, value: Any, where: str) -> dict[str, float]:
    words = TABLES[name]
    if not isinstance(value, Mapping):
        raise InputError(f"{where}: {name} is {value!r}, but must be a table [{name}] with the shares of its words.")
    for word, share in value.items():
        if word not in words:
            raise InputError(f"{where}: [{name}] has no word {word!r}; {_nearest(word, words)}.")
        number = isinstance(share, int | float) and not isinstance(share, bool)
        if not number or not math.isfinite(share) or not 0 <= share <= 1:
            raise InputError(f"{where}: [{name}] gives {word!r} the share {share!r}; use a number from 0 to 1.")
    total = math.fsum(value.values())
    if abs(total - 1) > TOLERANCE:
        raise InputError(f"{where}: the shares of [{name}] add up to {total:.6g}, but must add up to 1.")
    return {word: float(value[word]) for word in words if value.get(word, 0) > 0}


def _nearest(word: str, words: Iterable[str]) -> str:
    """The right word for a wrong one, or all of them."""
    lower = {one.lower(): one for one in words}
    close = difflib.get_close_matches(word.lower(), lower, n=1)
    return f"the nearest is {lower[close[0]]!r}" if close else f"use one of {', '.join(lower.values())}"


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return _quoted(value) if isinstance(value, str) else repr(value)


def _quoted(text: str) -> str:
    escaped = "".join(f"\\u{ord(c):04x}" if ord(c) < 32 or c in '"\\\x7f' else c for c in text)
    return f'"{escaped}"'


def _key(word: str) -> str:
    return word if word.isalnum() else _quoted(word)
