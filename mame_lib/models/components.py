"""The parts of a latent diffusion model, and how they are read from and written to a diffusers pipeline folder."""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file

from mame_lib.diffusion.schedule import Schedule, from_config
from mame_lib.errors import InputError
from mame_lib.models.presets import resolve
from mame_lib.models.tiny import SCHEDULER_CONFIG

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer

NOTICE = "synthetic, not for diagnosis"
START = "start.safetensors"


@dataclass
class Components:
    """UNet, VAE, text encoder, tokenizer, the scheduler's configuration, and what `mame.json` says.

    Networks are float32 in evaluation mode. `info` holds preset, prompt grammar, sampler and training summary.
    """

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer
    scheduler_config: dict[str, Any] = field(default_factory=lambda: dict(SCHEDULER_CONFIG))
    info: dict[str, Any] = field(default_factory=dict)
    start_mean: torch.Tensor | None = None  # [4, h, w] mean of the training latents, for `start_from`

    @property
    def schedule(self) -> Schedule:
        """The noise schedule the weights were trained with."""
        return from_config(self.scheduler_config)

    @property
    def prediction_type(self) -> str:
        """`epsilon` or `v_prediction`: what the UNet's output means."""
        return str(self.scheduler_config.get("prediction_type", "epsilon"))

    @property
    def device(self) -> torch.device:
        """Where the UNet lies."""
        return self.unet.device

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of one latent."""
        side = int(self.unet.config.sample_size)
        return int(self.vae.config.latent_channels), side, side

    @property
    def image_size(self) -> int:
        """Side of the images in pixels."""
        return self.latent_shape[1] * 2 ** (len(self.vae.config.block_out_channels) - 1)

    def start_from(self, noise: torch.Tensor, timestep: int) -> torch.Tensor:
        """Where sampling starts, `[B, 4, h, w]`: the noise plus what training still saw of the data at `timestep`.

        The last training step of SD's schedule keeps 7 % of the signal. Starting without it makes dark backgrounds
        gray; adding the mean of the training latents mends that (signal leak, Everaert et al. 2024). A model
        that does not know its mean starts from the noise alone.
        """
        if self.start_mean is None:
            return noise
        schedule = self.schedule
        return schedule.signal[timestep] * self.start_mean.to(noise.device) + schedule.sigma[timestep] * noise

    def to(self, device: str | torch.device) -> Components:
        """Move the three networks to `device`, in place."""
        for network in (self.unet, self.vae, self.text_encoder):
            network.to(device)
        return self

    @classmethod
    def load(cls, model: str | Path) -> Components:
        """Read a model: a shipped name, a preset, a folder, or a Hub id.

        Safetensors only. The dtype is explicit because the two libraries disagree: diffusers reads half-precision
        files as float32, transformers as float16.

        Raises
        ------
        InputError
            If the model is unknown, incomplete, or on the Hub while there is no network.
        """
        source = resolve(model)
        from diffusers import AutoencoderKL, UNet2DConditionModel
        from transformers import CLIPTextModel, CLIPTokenizer

        safe: dict[str, Any] = {"use_safetensors": True}
        ours: dict[str, Any] = {**safe, "torch_dtype": torch.float32, "low_cpu_mem_usage": False}
        try:
            with quiet():
                parts = cls(
                    unet=UNet2DConditionModel.from_pretrained(source, subfolder="unet", **ours),
                    vae=AutoencoderKL.from_pretrained(source, subfolder="vae", **ours),
                    text_encoder=CLIPTextModel.from_pretrained(
                        source, subfolder="text_encoder", dtype=torch.float32, **safe
                    ),
                    tokenizer=CLIPTokenizer.from_pretrained(source, subfolder="tokenizer"),
                    scheduler_config=_read_scheduler(source),
                    info=_read_info(source),
                    start_mean=_read_start(source),
                )
        except (OSError, ValueError, KeyError) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise InputError(
                f"cannot load the model {str(model)!r} ({reason}); check the name, the folder's files, or the network."
            ) from error
        for network in (parts.unet, parts.vae, parts.text_encoder):
            network.requires_grad_(False).eval()
        return parts

    def save(self, folder: Path, *, dtype: torch.dtype = torch.float16) -> None:
        """Write an ordinary diffusers pipeline folder plus `mame.json`, whole or not at all.

        The networks themselves are left alone; half precision is taken of copies.
        """
        temporary = folder.with_name(folder.name + ".partial")
        shutil.rmtree(temporary, ignore_errors=True)
        with quiet():
            from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline

            pipeline = StableDiffusionPipeline(
                **{name: copy.deepcopy(getattr(self, name)).to(dtype) for name in ("unet", "vae", "text_encoder")},
                tokenizer=self.tokenizer,
                scheduler=DPMSolverMultistepScheduler.from_config(self.scheduler_config),
                safety_checker=None,
                feature_extractor=None,
                requires_safety_checker=False,
            )
            pipeline.save_pretrained(temporary, safe_serialization=True)
        for name in ("unet", "vae", "text_encoder"):
            _forget_origin(temporary / name / "config.json")
        if self.start_mean is not None:
            save_file({"mean": self.start_mean.half().contiguous()}, temporary / START)
        (temporary / "mame.json").write_text(json.dumps({**self.info, "notice": NOTICE}, indent=2) + "\n")
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(temporary, folder)


def name_of(model: str) -> str:
    """What may be said of a base model in a file: a shipped name or Hub id as it is, of a folder its last two names.

    A folder's whole path would tell about the machine, and perhaps whose it is.
    """
    path = Path(model)
    return "/".join(path.parts[-2:]) if path.is_absolute() or path.is_dir() else model


def _forget_origin(config: Path) -> None:
    """Drop the folder that a network was loaded from, which diffusers writes into its configuration."""
    values = json.loads(config.read_text())
    values.pop("_name_or_path", None)
    config.write_text(json.dumps(values, indent=2) + "\n")


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the chatter and progress bars of diffusers and transformers inside the block, and restore them."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    both = (diffusers_logging, transformers_logging)
    before = [(log.get_verbosity(), log.is_progress_bar_enabled()) for log in both]
    for log in both:
        log.set_verbosity_error()
        log.disable_progress_bar()
    try:
        yield
    finally:
        for log, (verbosity, bars) in zip(both, before, strict=True):
            log.set_verbosity(verbosity)
            if bars:
                log.enable_progress_bar()


def _read_scheduler(source: str) -> dict[str, Any]:
    """The saved scheduler configuration, with every setting that decides pixels made explicit."""
    if Path(source).is_dir():
        saved = json.loads((Path(source) / "scheduler" / "scheduler_config.json").read_text())
    else:
        from diffusers import DPMSolverMultistepScheduler

        saved = dict(DPMSolverMultistepScheduler.load_config(source, subfolder="scheduler"))
    trained = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "prediction_type")
    return {**SCHEDULER_CONFIG, **{key: saved[key] for key in trained if saved.get(key) is not None}}


def _read_start(source: str) -> torch.Tensor | None:
    """The mean latent beside the networks, float32 `[4, h, w]`; None for a model that has none."""
    path = Path(source) / START
    return load_file(path)["mean"].float() if path.is_file() else None


def _read_info(source: str) -> dict[str, Any]:
    """`mame.json` of a folder; empty for a model that is not ours."""
    path = Path(source) / "mame.json"
    return json.loads(path.read_text()) if path.is_file() else {}
