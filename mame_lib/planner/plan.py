"""`plan`: predicted peak memory of a run, phase by phase and part by part, and advice."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from mame_lib.errors import InputError
from mame_lib.models.latents import images_at_once
from mame_lib.planner.trace import ACTIVATIONS, COPIES, GRADIENTS
from mame_lib.planner.traced import Resting, learning, resting, shape_of
from mame_lib.training.config import TrainConfig

GIB = 2**30
WEIGHTS, OPTIMIZER, AVERAGE, REST = "weights", "optimizer", "average (EMA)", "rest (estimate)"
PARTS = (WEIGHTS, GRADIENTS, OPTIMIZER, AVERAGE, COPIES, ACTIVATIONS, REST)
KINDS = ("cpu", "cuda")
SMALL = 4096  # bitsandbytes keeps 32-bit states for tensors with fewer elements
BLOCK = 256  # and one float32 scale for so many 8-bit numbers
# What no tensor holds: on a CPU Python and the libraries, on a GPU the CUDA context and cuDNN's working space.
OVERHEAD = {"cpu": int(0.55 * GIB), "cuda": int(0.6 * GIB)}
ROUNDING = {"cpu": 0.02, "cuda": 0.05}  # share of all tensors that the allocator loses between them
CLASSES = 8  # class images drawn at once, see training/images.py


@dataclass(frozen=True)
class Phase:
    """One phase of a run: encoding, class images, step or validation. `parts` in bytes, by the names in `PARTS`."""

    name: str
    parts: Mapping[str, int]

    @property
    def total(self) -> int:
        """Bytes in all."""
        return sum(self.parts.values())

    @property
    def certain(self) -> int:
        """Bytes of tensors alone, without the estimated rest."""
        return self.total - self.parts[REST]


@dataclass(frozen=True)
class Advice:
    """A change of settings, what it saves on top of those before it, and the peak with all of them, in bytes."""

    change: str
    saves: int
    peak: int
    price: str

    def __str__(self) -> str:
        return f"{self.change} saves {_size(self.saves)} ({self.price}): {_size(self.peak)}"


@dataclass(frozen=True)
class Plan:
    """What a run will need. A prediction: on a GPU it has not been compared with a measurement.

    `phases` in the order in which they come; `precision` and `optimizer` are what `auto` becomes; `gib` is the room
    that was asked about, if any.
    """

    config: TrainConfig
    device_kind: str
    precision: str
    optimizer: str
    phases: tuple[Phase, ...]
    gib: float | None = None

    @property
    def peak(self) -> Phase:
        """The phase that needs most."""
        return max(self.phases, key=lambda phase: phase.total)

    def phase(self, name: str) -> Phase:
        """The phase of that name."""
        return next(phase for phase in self.phases if phase.name == name)

    def fits(self, gib: float) -> bool:
        """Whether the predicted peak stays within `gib` GiB."""
        return self.peak.total <= gib * GIB

    @cached_property
    def advice(self) -> tuple[Advice, ...]:
        """Changes that save memory, each on top of those before it, those that cost nothing first.

        They end as soon as the run fits into `gib`; without that number all that help are listed.
        """
        return tuple(_advise(self))

    def refusal(self, gib: float) -> str | None:
        """Why this run can't work in `gib` GiB and what to change, in a sentence; None when its tensors do fit."""
        if self.peak.certain <= gib * GIB:
            return None
        there = plan(self.config, device_kind=self.device_kind, gib=gib)
        changes = ", ".join(one.change for one in there.advice)
        return (
            f"this run needs about {_size(self.peak.total)} (phase {self.peak.name}) and there are {gib:.1f} GiB; "
            f"try --set with {changes} (`mame train --plan` shows the numbers)."
        )

    def __str__(self) -> str:
        """A small table, whether it fits, and what to change."""
        width, count = max(map(len, PARTS)), _micro_rows(self.config)
        unit, size = ("GiB", GIB) if self.peak.certain > GIB else ("MiB", 2**20)
        lines = [
            f"predicted memory in {unit} on {self.device_kind}: {self.precision}, {self.optimizer}, "
            f"{count} image{'s' * (count > 1)} at once",
            " " * width + "".join(f"{phase.name:>14}" for phase in self.phases),
        ]
        for part in PARTS:
            if any(phase.parts[part] for phase in self.phases):
                lines.append(f"{part:{width}}" + "".join(f"{phase.parts[part] / size:14.2f}" for phase in self.phases))
        lines.append(f"{'in all':{width}}" + "".join(f"{phase.total / size:14.2f}" for phase in self.phases))
        if self.gib is not None:
            word = "fits" if self.fits(self.gib) else "does not fit"
            lines.append(f"{word} into {self.gib:.1f} GiB")
        if self.gib is None or not self.fits(self.gib):
            lines += [f"  {one}" for one in self.advice]
        return "\n".join(lines)


def plan(config: TrainConfig, *, device_kind: str = "cpu", gib: float | None = None) -> Plan:
    """Predict the peak memory of a run, before anything big is allocated.

    config : the run; its data and run folder need not exist. One process is assumed, and captions that all differ.
    device_kind : `cpu` counts all memory of the process, `cuda` that of the GPU. The machine needs no GPU.
    gib : the room there is, for `Plan.advice` and the printed table.

    Raises `InputError` for another kind of device, and for a base model whose configuration can't be read.
    """
    if device_kind not in KINDS:
        raise InputError(f"device_kind is {device_kind!r}, but must be {' or '.join(KINDS)}.")
    precision = config.precision if config.precision != "auto" else {"cpu": "float32", "cuda": "float16"}[device_kind]
    optimizer = config.optimizer
    if optimizer == "auto":
        eight = device_kind == "cuda" and importlib.util.find_spec("bitsandbytes") is not None
        optimizer = "adamw8bit" if eight else "adamw"
    phases = tuple(Phase(name, _with_rest(parts, device_kind)) for name, parts in _phases(
        config, device_kind, precision, optimizer))  # fmt: skip
    return Plan(config, device_kind, precision, optimizer, phases, gib)


def _size(count: int) -> str:
    """Bytes in a unit that suits them."""
    return f"{count / GIB:.1f} GiB" if count >= GIB / 2 else f"{count / 2**20:.0f} MiB"


def _with_rest(parts: Mapping[str, int], kind: str) -> dict[str, int]:
    whole = {part: parts.get(part, 0) for part in PARTS}
    whole[REST] = OVERHEAD[kind] + int(ROUNDING[kind] * sum(whole.values()))
    return whole


def _micro_rows(config: TrainConfig) -> int:
    """Images of a forward pass: never more than a step has, class images included."""
    return min(config.micro_rows, _rows(config))


def _rows(config: TrainConfig) -> int:
    return config.rows * (1 if config.prior_prompt is None else 2)


def _phases(config: TrainConfig, kind: str, precision: str, optimizer: str) -> Iterator[tuple[str, dict[str, int]]]:
    """Name and parts of each phase; on a GPU a network counts only while it works (see `training.images.placed`)."""
    shape = shape_of(config)
    found, accumulates = resting(shape), _rows(config) > _micro_rows(config)
    size, everything, cpu = found.weights, sum(found.weights.values()), kind == "cpu"
    encoding = found.encoding(images_at_once(found.image_size))
    yield "encoding", {WEIGHTS: everything if cpu else size["vae"], ACTIVATIONS: encoding}
    if config.prior_prompt is not None:
        yield "class images", {WEIGHTS: everything, ACTIVATIONS: _drawing(found, CLASSES, 2)}
    step, elements = learning(shape, kind, precision, _micro_rows(config), accumulates)
    learned = 4 * sum(elements)
    lasting = {
        WEIGHTS: everything if cpu else size["unet"] + size["text_encoder"] * config.trains_text,
        OPTIMIZER: sum(_optimizer_bytes(count, optimizer) for count in elements),
        AVERAGE: learned if config.ema_decay > 0 else 0,
    }
    yield "step", lasting | dict(step) | {GRADIENTS: step.get(GRADIENTS, 0) + learned * accumulates}
    if config.validation_every:
        images = len(config.validation_prompts or "123")
        asked = 1 + (config.validation_guidance_scale != 1)
        yield "validation", lasting | {WEIGHTS: everything, ACTIVATIONS: _drawing(found, images, asked)}


def _drawing(found: Resting, images: int, asked: int) -> int:
    """Activations while images are drawn: guidance asks the UNet twice, images are decoded a few at a time."""
    return max(found.denoising(asked * images), found.decoding(min(images, images_at_once(found.image_size, most=8))))


def _optimizer_bytes(count: int, optimizer: str) -> int:
    """Two moments of a weight tensor: float32, or 8 bits and a share of the scales."""
    if optimizer == "adamw" or count < SMALL:
        return 8 * count
    return 2 * (count + 4 * -(-count // BLOCK))


def _advise(before: Plan) -> Iterator[Advice]:
    """Each change that helps, on top of those before it, until the run fits."""
    for changes, price in _changes(before):
        if before.gib is not None and before.fits(before.gib):
            return
        after = plan(before.config.with_changes(**changes), device_kind=before.device_kind, gib=before.gib)
        saves = before.peak.total - after.peak.total
        if saves > 0:
            text = ", ".join(f"{name} = {_toml(value)}" for name, value in changes.items())
            yield Advice(text, saves, after.peak.total, price)
            before = after


def _changes(first: Plan) -> Iterator[tuple[dict[str, object], str]]:
    """What may be changed, cheapest first, with the price."""
    config = first.config
    if _micro_rows(config) > 1:
        yield {"micro_batch_size": _fewer_rows(first)}, "the same result, in more passes"
    if first.device_kind == "cuda" and first.optimizer == "adamw":
        yield {"optimizer": "adamw8bit"}, "about the same result; needs bitsandbytes"
    if not config.gradient_checkpointing:
        yield {"gradient_checkpointing": True}, "the same result, about a fifth to a third slower"
    if first.device_kind == "cuda" and first.precision == "float32":
        yield {"precision": "auto"}, "half precision inside the networks"
    if len(config.validation_prompts or "123") > 1 and config.validation_every:
        yield {"validation_every": 0}, "no pictures on the way"
    if config.ema_decay > 0:
        yield {"ema_decay": 0.0}, "the last weights are saved, not their average"
    if config.method == "full":
        yield {"method": "unet"}, "the text encoder stays as it is"
    if config.method != "lora":
        yield {"method": "lora"}, "low-rank updates only"


def _fewer_rows(first: Plan) -> int:
    """Half the images at once; or the largest half, quarter … that fits the room, judged from a line through two."""
    rows = _micro_rows(first.config)
    if first.gib is None:
        return -(-rows // 2)
    one = plan(first.config.with_changes(micro_batch_size=1), device_kind=first.device_kind).peak.total
    each = (first.peak.total - one) / (rows - 1)
    while rows > 1 and one + each * (rows - 1) > first.gib * GIB:
        rows = -(-rows // 2)
    return rows


def _toml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value).replace("'", '"')
