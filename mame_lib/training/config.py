"""`TrainConfig`: everything that decides a training run, frozen, checked, and echoed to the run folder."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mame_lib.errors import InputError
from mame_lib.models.presets import Preset, get_preset

# Settings that a resumed run may change without becoming another experiment.
FREE = frozenset({"data", "out", "steps", "resume", "validation_every", "checkpoint_every"})


@dataclass(frozen=True)
class TrainConfig:
    """One fine-tuning run. The defaults are the paper's recipe (section 2.4.2) where the tiny model allows.

    Parameters
    ----------
    data, out : manifest folder to learn from; run folder to write (must not exist, unless `resume`).
    preset : base model, `tiny` or `sd15`.
    base : start from this model instead of the preset's own base (shipped name, folder or Hub id).
    steps : optimizer steps in all.
    batch_size, learning_rate : `None` takes the preset's default.
    text_learning_rate_factor : the text encoder learns at this share of the rate; 0 freezes it.
    constant_prompt : one caption for every image, such as "a mammogram" (paper, Fig. 12); `None` uses the data's.
    caption_dropout : share of captions replaced by the empty one, so that guidance has an unconditional branch of
        its own domain (the paper used 0).
    ema_decay : largest decay of the exponential moving average that is validated and saved.
    warmup : steps over which the learning rate rises; it then falls to a tenth along a half cosine.
    clip : largest norm of the gradient over UNet and text encoder together.
    validation_prompts : one image each, always from the same noise; `None` takes three prompts of the data.
    validation_every, checkpoint_every : in steps; 0 switches them off (a checkpoint is always written at the end).
    """

    data: Path
    out: Path
    preset: str = "tiny"
    base: str | None = None
    steps: int = 300
    batch_size: int | None = None
    learning_rate: float | None = None
    text_learning_rate_factor: float = 0.3
    weight_decay: float = 0.01
    constant_prompt: str | None = None
    caption_dropout: float = 0.1
    ema_decay: float = 0.99
    warmup: int = 20
    clip: float = 1.0
    seed: int = 1337
    validation_prompts: tuple[str, ...] | None = None
    validation_every: int = 100
    validation_guidance_scale: float = 4.0
    validation_steps: int = 24
    checkpoint_every: int = 0
    resume: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "data", Path(self.data))
        object.__setattr__(self, "out", Path(self.out))
        preset = get_preset(self.preset)
        for name in ("batch_size", "learning_rate"):
            if getattr(self, name) is None:
                object.__setattr__(self, name, getattr(preset, name))
        self._check("steps", self.steps >= 1, "at least 1")
        self._check("batch_size", self.rows >= 1, "at least 1")
        self._check("learning_rate", math.isfinite(self.peak_rate) and self.peak_rate > 0, "a positive number")
        self._check("caption_dropout", 0 <= self.caption_dropout <= 1, "between 0 and 1")
        self._check("ema_decay", 0 <= self.ema_decay < 1, "at least 0 and below 1")
        self._check("clip", math.isfinite(self.clip) and self.clip > 0, "a positive number")
        self._check("text_learning_rate_factor", self.text_learning_rate_factor >= 0, "at least 0")
        self._check("validation_steps", self.validation_steps >= 1, "at least 1")
        self._check("validation_guidance_scale", math.isfinite(self.validation_guidance_scale), "a finite number")

    def _check(self, name: str, good: bool, rule: str) -> None:
        if not good:
            raise InputError(f"{name} is {getattr(self, name)}, but must be {rule}.")

    @property
    def rows(self) -> int:
        """Images a step."""
        assert self.batch_size is not None
        return self.batch_size

    @property
    def peak_rate(self) -> float:
        """The learning rate after warm-up."""
        assert self.learning_rate is not None
        return self.learning_rate

    @property
    def base_model(self) -> str:
        """What the run starts from: shipped name, folder or Hub id."""
        return self.base or self.preset_settings.name

    @property
    def preset_settings(self) -> Preset:
        """The settings of `preset`."""
        return get_preset(self.preset)

    def learning_rate_at(self, step: int) -> float:
        """Learning rate of 0-based optimizer step `step`: linear warm-up, then a half cosine to one tenth."""
        rise = min(1.0, (step + 1) / max(1, self.warmup))
        fall = 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * min(1.0, step / self.steps)))
        return self.peak_rate * rise * fall

    def to_dict(self) -> dict[str, Any]:
        """Plain values for `config.json`."""
        return {key: str(value) if isinstance(value, Path) else value for key, value in asdict(self).items()}

    def check_resumes(self, saved: dict[str, Any]) -> None:
        """Refuse to resume when a setting that changes the mathematics differs, and name it."""
        mine = self.to_dict()
        for key in sorted(set(mine) - FREE):
            before = tuple(saved[key]) if isinstance(saved.get(key), list) else saved.get(key)
            if mine[key] != before:
                raise InputError(
                    f"cannot resume {self.out}: {key} was {before!r} and is now {mine[key]!r}; "
                    "use the old value, or another run folder."
                )

    def with_changes(self, **changes: Any) -> TrainConfig:
        """A copy with some settings changed."""
        return replace(self, **changes)
