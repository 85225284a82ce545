"""What a sweep goes through: the grid of models, sentences and settings, in a fixed order."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any, NamedTuple

from mame_lib.data.case import AREAS, DENSITIES, VENDORS, VIEWS, Attributes
from mame_lib.data.prompts import compose
from mame_lib.diffusion.samplers import SAMPLERS
from mame_lib.errors import InputError

LARGEST = 1_000_000  # images
_SEED_LIMIT = 2**63  # torch takes seeds of 64 bits, signed


class Cell(NamedTuple):
    """One combination of the grid; every cell gets the same seeds and so the same noise."""

    model: str
    negative_prompt: str
    sampler: str
    prompt: str
    guidance_scale: float
    steps: int


@dataclass(frozen=True)
class Grid:
    """All combinations. `models` are names; each seed gives `count` images, of indices 0 to count - 1."""

    models: tuple[str, ...]
    prompts: tuple[str, ...]
    negative_prompt: tuple[str, ...]
    guidance_scale: tuple[float, ...]
    steps: tuple[int, ...]
    sampler: tuple[str, ...]
    seeds: tuple[int, ...]
    count: int

    @property
    def size(self) -> int:
        """Number of images."""
        sides = (self.models, self.prompts, self.negative_prompt, self.guidance_scale, self.steps, self.sampler)
        return math.prod(map(len, sides)) * len(self.seeds) * self.count

    def cells(self) -> Iterator[Cell]:
        """The combinations in their order: all of one model first."""
        axes = (self.models, self.negative_prompt, self.sampler, self.prompts, self.guidance_scale, self.steps)
        return (Cell(*values) for values in product(*axes))

    def settings(self) -> dict[str, Any]:
        """The grid as JSON knows it."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    def command(self, out: str, keep_images: bool) -> str:
        """The command line that makes this sweep, in a folder named `out`."""
        options = [("--model", name) for name in self.models]
        if self.prompts == grammar():
            options.append(("--prompts", "grammar"))
        else:
            options += [("--prompt", prompt) for prompt in self.prompts]
        if self.negative_prompt != ("",):
            options += [("--negative-prompt", prompt) for prompt in self.negative_prompt]
        scales = _joined(repr(value).removesuffix(".0") for value in self.guidance_scale)
        options += [("--guidance", scales), ("--steps", _joined(self.steps)), ("--sampler", _joined(self.sampler))]
        options += [("--seeds", _range(self.seeds)), ("--count", str(self.count))]
        words = ["mame", "sweep", *(word for option in options for word in _words(*option))]
        words += [*([] if keep_images else ["--no-images"]), *_words("--out", out)]
        return shlex.join(words)


def grammar() -> tuple[str, ...]:
    """Every sentence that asks what a sweep can measure: 288, from "a mammogram" to both looks in both orders."""
    names = (None, *VENDORS), (None, *VIEWS), (None, *AREAS), (None, *DENSITIES)
    said = [Attributes(*values) for values in product(*names)]
    return tuple(dict.fromkeys(compose(one, order) for one in said for order in ("area", "density")))


def make_grid(models: Sequence[str], prompts: str | Iterable[str], **axes: Any) -> Grid:
    """A grid from single values or sequences, each value once. Raises `InputError` for what no model could draw."""
    count = axes.pop("count")
    sides: dict[str, tuple[Any, ...]] = {name: _several(value) for name, value in axes.items()}
    sides["prompts"] = _several(prompts)
    for name, side in sides.items():
        if not side:
            raise InputError(f"there is nothing in {name}; give one value at least.")
    for sentence in (*sides["prompts"], *sides["negative_prompt"]):
        _check_sentence(sentence)
    for sampler in sides["sampler"]:
        if sampler not in SAMPLERS:
            raise InputError(f"sampler {sampler!r} is unknown; choose {', '.join(SAMPLERS)}.")
    sides["guidance_scale"] = tuple(dict.fromkeys(map(_scale, sides["guidance_scale"])))
    for name, low in (("steps", 1), ("seeds", 0)):
        sides[name] = tuple(_whole(name, value, low) for value in sides[name])
    grid = Grid(models=tuple(models), count=_whole("count", count, 1), **sides)
    if grid.size > LARGEST:
        raise InputError(f"the grid has {grid.size:,} images; at most {LARGEST:,} fit into one sweep.")
    return grid


def _several(value: Any) -> tuple[Any, ...]:
    return (value,) if isinstance(value, str | int | float) else tuple(dict.fromkeys(value))


def _check_sentence(sentence: Any) -> None:
    if not isinstance(sentence, str):
        raise InputError(f"a prompt is a sentence (str), not {type(sentence).__name__}.")
    try:
        sentence.encode()
    except UnicodeError:
        raise InputError(f"the prompt {sentence!a} is not valid Unicode; type it again.") from None


def _scale(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InputError(f"guidance_scale is {value}, but must be a finite number; the paper uses 4.")
    return float(value)


def _whole(name: str, value: Any, low: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value < _SEED_LIMIT:
        raise InputError(f"{name} has {value!r}, but must be a whole number of {low} or more.")
    return value


def _joined(values: Iterable[Any]) -> str:
    return ",".join(map(str, values))


def _words(option: str, value: str) -> list[str]:
    """A value that begins with a dash must hang on its option."""
    return [f"{option}={value}"] if value.startswith("-") else [option, value]


def _range(values: Sequence[int]) -> str:
    """0,1,2 -> "0:3"."""
    first, beyond = values[0], values[-1] + 1
    run = len(values) > 1 and tuple(values) == tuple(range(first, beyond))
    return f"{first}:{beyond}" if run else _joined(values)
