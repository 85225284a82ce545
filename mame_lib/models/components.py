"""The parts of a latent diffusion model, and how they are read from and written to a diffusers pipeline folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from mame_lib.diffusion.process import add_noise
from mame_lib.diffusion.schedule import Schedule, from_config
from mame_lib.diffusion.start import SignalLeak
from mame_lib.errors import InputError
from mame_lib.models.hub import OURS, fetch, listing, pickles_only, places, read_json, weight_files
from mame_lib.models.presets import resolve
from mame_lib.models.saving import NOTICE, START, name_of, quiet, write_folder, write_shipped
from mame_lib.models.tiny import SCHEDULER_CONFIG

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer

__all__ = ["NOTICE", "Components", "name_of", "quiet", "write_shipped"]

_OF_A_FOLDER = ("shared", "notice")  # of `mame.json`: what is said of one folder, not of the model


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
    start_factor: torch.Tensor | None = None  # [4 * k * k, r] how they differ at large, see `SignalLeak`

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

    def start_from(
        self, noise: torch.Tensor, timestep: int, generators: Sequence[torch.Generator] | None = None
    ) -> torch.Tensor:
        """Where sampling starts, `[B, 4, h, w]`: the noise plus what training still saw of the data at `timestep`.

        The last training step of SD's schedule keeps 7 % of the signal. Starting without it makes dark backgrounds
        gray; adding the mean of the training latents mends that (signal leak, Everaert et al. 2024). A model
        that does not know its mean starts from the noise alone; one that knows `start_factor` too adds to the mean
        a random difference at large, drawn from `generators`, one per image.

        Raises ValueError when generators are needed and are not one per image.
        """
        if self.start_mean is None:
            return noise
        if self.start_factor is None:
            signal = self.start_mean.expand_as(noise)  # [B, 4, h, w]
        elif generators is not None and len(generators) == len(noise):
            signal = SignalLeak(self.start_mean, self.start_factor).draw(generators)
        else:
            raise ValueError(f"this model's start is drawn: pass {len(noise)} generators, one for each image.")
        return add_noise(self.schedule, signal.to(noise.device), noise, timestep)

    def to(self, device: str | torch.device) -> Components:
        """Move the three networks to `device`, in place."""
        for network in (self.unet, self.vae, self.text_encoder):
            network.to(device)
        return self

    @property
    def inpainting(self) -> bool:
        """Whether the UNet sees a mask and what lies around it: 9 input channels instead of 4."""
        return int(self.unet.config.in_channels) == 9

    @classmethod
    def load(cls, model: str | Path) -> Components:
        """Read a model: a shipped name, a preset, a folder, or a Hub id.

        Safetensors only. The dtype is explicit because the two libraries disagree: diffusers reads half-precision
        files as float32, transformers as float16. The VAE's weights lie channels last, which a CPU likes better.

        Raises
        ------
        InputError
            If the model is unknown, incomplete, of another kind, stored as pickles only, or on the Hub while there is
            no network.
        """
        source = resolve(model)
        folder = Path(source) if Path(source).is_dir() else fetch(source)
        found = places(folder)
        from diffusers import AutoencoderKL, UNet2DConditionModel
        from diffusers.utils import is_accelerate_available
        from transformers import CLIPTextModel, CLIPTokenizer

        # With accelerate a network is not filled with random numbers first, at twice the memory.
        ours = {"torch_dtype": torch.float32, "low_cpu_mem_usage": is_accelerate_available()}
        try:
            with quiet():
                parts = cls(
                    unet=_network(UNet2DConditionModel, found, "unet", model, **ours),
                    vae=_network(AutoencoderKL, found, "vae", model, **ours),
                    text_encoder=_network(CLIPTextModel, found, "text_encoder", model, dtype=torch.float32),
                    tokenizer=CLIPTokenizer.from_pretrained(found["tokenizer"], local_files_only=True),
                    scheduler_config=_read_scheduler(found["scheduler"]),
                    info={key: value for key, value in read_json(folder / OURS).items() if key not in _OF_A_FOLDER},
                    **_read_start(folder / START),
                )
            _check(parts)
        except InputError:
            raise
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise InputError(
                f"cannot load the model {str(model)!r} ({reason}); check the name, the folder's files, or the network."
            ) from error
        for network in (parts.unet, parts.vae, parts.text_encoder):
            network.requires_grad_(False).eval()
        parts.vae.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return parts

    def save(self, folder: Path, *, dtype: torch.dtype = torch.float16) -> None:
        """Write an ordinary diffusers pipeline folder plus `mame.json`, whole or not at all.

        The networks themselves are left alone; of each, one after the other, a copy in `dtype` is made and written.
        Raises `InputError` when it cannot be written, or a weight is too large for `dtype`.
        """
        write_folder(self, folder, dtype)


def _read_start(file: Path) -> dict[str, torch.Tensor]:
    """What the model knows of the signal at the start: the mean, the factor if there is one, or nothing."""
    known = load_file(file) if file.is_file() else {}
    return {f"start_{name}": known[name].float() for name in known if name in ("mean", "factor")}


def _network(kind: Any, found: dict[str, Path], part: str, model: str | Path, **options: Any) -> Any:
    """One network from its safetensors file; half precision where there is nothing else.

    Raises `InputError` if it is stored in other files only, and `ValueError` if a weight is missing: the libraries
    would go on with random numbers.
    """
    files = weight_files((f"{part}/{name}" for name in listing(found[part])), part)
    if not files:
        raise InputError(f"cannot load the model {str(model)!r}: its {part} has no safetensors file; fetch it again.")
    if ".bin" in files[-1]:
        raise pickles_only(str(model), part)
    network, told = kind.from_pretrained(
        found[part], variant="fp16" if ".fp16" in files[0] else None, use_safetensors=True, local_files_only=True,
        output_loading_info=True, **options,
    )  # fmt: skip
    if missing := sorted(told["missing_keys"]):
        raise ValueError(f"its {part} lacks {len(missing)} weights, among them {missing[0]}")
    return network


def _check(parts: Components) -> None:
    """Raise `ValueError` for a model that loads, but is made for something else than a sentence or a mask."""
    unet = parts.unet.config
    if unet.in_channels not in (4, 9) or unet.get("class_embed_type") or unet.get("addition_embed_type"):
        raise ValueError(f"its UNet of {unet.in_channels} input channels wants more than a sentence and a mask")
    if unet.cross_attention_dim != parts.text_encoder.config.hidden_size:
        raise ValueError("its UNet and its text encoder do not belong together")
    if parts.prediction_type not in ("epsilon", "v_prediction", "sample"):
        raise ValueError(f"its prediction type {parts.prediction_type!r} is not epsilon, v_prediction or sample")
    _ = parts.schedule  # raises for a schedule that we do not know


def _read_scheduler(place: Path) -> dict[str, Any]:
    """The saved scheduler configuration, with every setting that decides pixels made explicit.

    From the file comes what the weights were trained with; the sampler is ours, as we validate models with it.
    """
    saved = read_json(place / "scheduler_config.json")
    trained = (
        "num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "prediction_type",
        "rescale_betas_zero_snr",
    )  # fmt: skip
    return {**SCHEDULER_CONFIG, **{key: saved[key] for key in trained if saved.get(key) is not None}}
