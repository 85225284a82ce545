"""`TrainConfig`: everything that decides a training run, frozen, checked, and echoed to the run folder."""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

from mame_lib.errors import InputError
from mame_lib.models.presets import Preset, get_preset

# Settings that do not touch the mathematics, so a resumed run may change them.
FREE = frozenset({
    "data", "out", "resume", "steps", "micro_batch_size", "gradient_checkpointing", "compile", "checkpoint_every",
    "keep_checkpoints", "log_every", "tensorboard", "validation_every", "validation_prompts",
    "validation_guidance_scale", "validation_steps", "held_out_images", "max_bad_steps",
})  # fmt: skip
TOML_VALUE = re.compile(r"""[-+]?[\d._]+(e[-+]?\d+)?|true|false|nan|inf|["'\[].*""")
CHOICES = {
    "method": ("full", "unet", "lora"),
    "prediction_type": ("epsilon", "v_prediction", "sample"),
    "rate_schedule": ("cosine", "constant"),
    "optimizer": ("auto", "adamw", "adamw8bit"),
    "precision": ("auto", "float32", "bfloat16", "float16"),
}


@dataclass(frozen=True)
class TrainConfig:
    """One fine-tuning run. The defaults are the paper's recipe (section 2.4.2) where the tiny model allows.

    Parameters
    ----------
    data, out : manifest folder to learn from; run folder to write (must not exist, unless `resume`).
    preset : `tiny`, `sd15`, or one that ends in `-inpaint`, which learns lesions inside the boxes of the data.
    base : start from this model instead of the preset's own (shipped name, folder or Hub id).
    method : `full` trains UNet and text encoder (the paper), `unet` the UNet, `lora` low-rank updates of its attention.
    lora_rank : rank of those updates.

    steps : optimizer steps in all.
    batch_size : images of one optimizer step, over all micro-batches and processes; `None` takes the preset's.
    micro_batch_size : images of one forward pass on one device; smaller ones save memory and change nothing else.
    learning_rate : `None` takes the preset's. `text_learning_rate_factor` : the text encoder learns at this share.
    rate_schedule, warmup : after a linear rise over `warmup` steps, `cosine` falls to a tenth, `constant` stays.
    weight_decay, clip : of AdamW; largest norm of the gradient over all trained networks together.
    ema_decay : largest decay of the averaged weights that are validated and saved; 0 saves the raw ones.

    constant_prompt : one caption for every image, such as "a mammogram" (paper, Fig. 12); `None` uses the data's.
    caption_dropout : share of captions replaced by the empty one (the paper used 0).
    mask_dropout : inpainting only, share of images that are masked as a whole.
    healthy_boxes : inpainting only, images without a lesion are used too, under "a mammogram" and with a box of the
        size of another image's lesion somewhere in the breast: what fills a box then depends on the caption.
    mask_loss_weight : inpainting only, how often the error inside the mask counts; 1 counts all alike (the paper).
    prior_prompt : prior preservation (Ruiz et al. 2023): the base model draws `prior_images` of this sentence, and as
        many of them as of our images join each step, with weight `prior_weight`. `None` is off, as in the paper.
    prediction_type : what the UNet learns to say; `None` keeps the base model's. A change needs thousands of steps.
    zero_terminal_snr : no signal at the last timestep, v-prediction, guidance rescaled (Lin et al. 2024).
    min_snr_gamma : weight each timestep by min(snr, gamma) / snr (Hang et al. 2023); `None` weights them alike.
    offset_noise : standard deviation of one extra random number a channel, added to the noise; 0 is off.

    precision, optimizer : `auto` picks by device and says why.
    gradient_checkpointing : recompute activations in the backward pass instead of keeping them.
    compile : compile the UNet with torch; pays off on a GPU after some hundred steps.
    seed : everything random is a function of it: images, noise, timesteps, dropout, first low-rank factors.
    validation_prompts : one image each, always from the same noise; `None` takes three prompts of the data.
    validation_guidance_scale, validation_steps : guidance and sampler steps of those images.
    validation_every, checkpoint_every, log_every : in steps; 0 is never (a checkpoint is written at the end anyway).
    keep_checkpoints : so many of the newest stay. `tensorboard` : write the log for that program too.
    held_out_images : images of the validation split whose loss at fixed noise is logged with each validation.
    max_bad_steps : so many steps in a row without a finite loss end the run.
    resume : go on from the newest checkpoint of `out`; only settings that do not touch the mathematics may differ.
    """

    data: Path
    out: Path
    preset: str = "tiny"
    base: str | None = None
    method: str = "full"
    lora_rank: int = 16
    steps: int = 300
    batch_size: int | None = None
    micro_batch_size: int | None = None
    learning_rate: float | None = None
    text_learning_rate_factor: float = 0.3
    rate_schedule: str = "cosine"
    warmup: int = 20
    weight_decay: float = 0.01
    clip: float = 1.0
    ema_decay: float = 0.99
    constant_prompt: str | None = None
    caption_dropout: float = 0.1
    mask_dropout: float = 0.1
    healthy_boxes: bool = False
    mask_loss_weight: float = 1.0
    prior_prompt: str | None = None
    prior_weight: float = 1.0
    prior_images: int = 100
    prediction_type: str | None = None
    zero_terminal_snr: bool = False
    min_snr_gamma: float | None = None
    offset_noise: float = 0.0
    precision: str = "auto"
    optimizer: str = "auto"
    gradient_checkpointing: bool = False
    compile: bool = False
    seed: int = 1337
    validation_prompts: tuple[str, ...] | None = None
    validation_every: int = 100
    validation_guidance_scale: float = 4.0
    validation_steps: int = 24
    held_out_images: int = 16
    log_every: int = 10
    tensorboard: bool = False
    checkpoint_every: int = 0
    keep_checkpoints: int = 1
    max_bad_steps: int = 5
    resume: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "data", Path(self.data))
        object.__setattr__(self, "out", Path(self.out))
        preset = get_preset(self.preset)
        for name in ("batch_size", "learning_rate"):
            if getattr(self, name) is None:
                object.__setattr__(self, name, getattr(preset, name))
        if self.micro_batch_size is None:
            object.__setattr__(self, "micro_batch_size", self.batch_size)
        if self.prediction_type is None and self.zero_terminal_snr:
            object.__setattr__(self, "prediction_type", "v_prediction")
        if self.validation_prompts is not None:
            object.__setattr__(self, "validation_prompts", tuple(self.validation_prompts))
        self._check_numbers()
        for name, words in CHOICES.items():
            value = getattr(self, name)
            self._check(name, value in words or (value is None and name == "prediction_type"), " or ".join(words))
        if self.zero_terminal_snr and self.prediction_type == "epsilon":
            raise InputError(
                "zero_terminal_snr cannot go with prediction_type epsilon: pure noise says nothing about the image; "
                "use v_prediction."
            )
        if self.inpainting and self.prior_prompt is not None:
            raise InputError("prior_prompt is for text-to-image; an inpainting run has no class images, leave it out.")

    def _check_numbers(self) -> None:
        for name in ("steps", "batch_size", "micro_batch_size", "validation_steps", "lora_rank", "prior_images",
                     "keep_checkpoints", "max_bad_steps"):  # fmt: skip
            self._check(name, getattr(self, name) >= 1, "at least 1")
        for name in ("warmup", "validation_every", "checkpoint_every", "log_every", "held_out_images", "seed",
                     "weight_decay", "text_learning_rate_factor", "prior_weight", "offset_noise"):  # fmt: skip
            self._check(name, math.isfinite(getattr(self, name)) and getattr(self, name) >= 0, "at least 0")
        for name in ("learning_rate", "clip", "min_snr_gamma", "mask_loss_weight"):
            value = getattr(self, name)
            self._check(name, value is None or (math.isfinite(value) and value > 0), "a positive number")
        for name in ("caption_dropout", "mask_dropout"):
            self._check(name, 0 <= getattr(self, name) <= 1, "between 0 and 1")
        self._check("ema_decay", 0 <= self.ema_decay < 1, "at least 0 and below 1")
        self._check("validation_guidance_scale", math.isfinite(self.validation_guidance_scale), "a finite number")

    def _check(self, name: str, good: bool, rule: str) -> None:
        if not good:
            raise InputError(f"{name} is {getattr(self, name)}, but must be {rule}.")

    @property
    def rows(self) -> int:
        """Images of one optimizer step, class images not counted."""
        assert self.batch_size is not None
        return self.batch_size

    @property
    def micro_rows(self) -> int:
        """Images of one forward pass on one device."""
        assert self.micro_batch_size is not None
        return self.micro_batch_size

    @property
    def peak_rate(self) -> float:
        """The learning rate after warm-up."""
        assert self.learning_rate is not None
        return self.learning_rate

    @property
    def trains_text(self) -> bool:
        """Whether the text encoder learns too."""
        return self.method == "full" and self.text_learning_rate_factor > 0

    @property
    def inpainting(self) -> bool:
        """Whether this run learns to fill masks."""
        return self.preset_settings.task == "inpainting"

    @property
    def base_model(self) -> str:
        """What the run starts from: shipped name, folder or Hub id."""
        return self.base or self.preset_settings.name

    @property
    def preset_settings(self) -> Preset:
        """The settings of `preset`."""
        return get_preset(self.preset)

    def learning_rate_at(self, step: int) -> float:
        """Learning rate of 0-based optimizer step `step`."""
        rise = min(1.0, (step + 1) / max(1, self.warmup))
        if self.rate_schedule == "constant":
            return self.peak_rate * rise
        return self.peak_rate * rise * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * min(1.0, step / self.steps))))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for `config.json`."""
        return {key: str(value) if isinstance(value, Path) else value for key, value in asdict(self).items()}

    @classmethod
    def read(cls, path: str | Path | None, settings: Sequence[str] = (), **changes: Any) -> TrainConfig:
        """Settings from a TOML file (a flat table of the names above), then lines `name=value`, then `changes`.

        Raises `InputError` for a file that is no TOML, an unknown name, a missing or a wrong kind of value.
        """
        values: dict[str, Any] = {}
        if path is not None:
            try:
                text = Path(path).read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise InputError(f"cannot read the settings {path} ({error}).") from error
            values |= _table(text, str(path))
        for line in settings:
            name, sign, value = line.partition("=")
            bare = sign and not TOML_VALUE.fullmatch(value.strip())  # a word: the shell has eaten its quotes
            values |= _table(f"{name} = {json.dumps(value.strip())}" if bare else line, line)
        values |= changes
        for name in ("data", "out"):
            if name not in values:
                raise InputError(f"the setting {name} is missing; give it in the file, or as --{name}.")
        return cls(**values)

    def check_resumes(self, saved: dict[str, Any]) -> None:
        """Refuse to resume when a setting that changes the mathematics differs, and name it."""
        mine = self.to_dict()
        free = FREE if self.rate_schedule == "constant" else FREE - {"steps"}  # a cosine depends on its end
        for key in sorted(set(mine) - free):
            before = tuple(saved[key]) if isinstance(saved.get(key), list) else saved.get(key)
            if mine[key] != before:
                raise InputError(
                    f"cannot resume {self.out}: {key} was {before!r} and is now {mine[key]!r}; "
                    "use the old value, or another run folder."
                )

    def with_changes(self, **changes: Any) -> TrainConfig:
        """A copy with some settings changed."""
        return replace(self, **changes)


def _table(text: str, where: str) -> dict[str, Any]:
    """The settings in some TOML, each known and of its kind."""
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{where} is not TOML ({error}); write lines such as steps = 300.") from error
    kinds = get_type_hints(TrainConfig)
    for name, value in values.items():
        if name not in kinds:
            raise InputError(f"{where}: {name!r} is not a setting; the known ones are {', '.join(kinds)}.")
        _check_kind(where, name, value, kinds[name])
    return values


def _check_kind(where: str, name: str, value: Any, kind: Any) -> None:
    """Raise `InputError` unless a TOML value fits a field: its type, or one of the types of a union."""
    if name == "validation_prompts":
        fits = isinstance(value, list) and all(isinstance(one, str) for one in value)
    elif isinstance(value, bool):
        fits = kind is bool
    else:
        accepted: dict[Any, Any] = {float: (int, float), Path: str}
        fits = any(isinstance(value, accepted.get(k, k)) for k in get_args(kind) or (kind,))
    if not fits:
        raise InputError(f"{where}: {name} is {value!r}, which is not of its kind.")

