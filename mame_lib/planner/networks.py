"""The networks of a planned run, from their configurations alone: right shapes, no numbers, no memory, no network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from mame_lib.errors import InputError
from mame_lib.models.components import Components, quiet
from mame_lib.models.hub import fetch, places, read_json
from mame_lib.models.inpainting import widen
from mame_lib.models.presets import PRESETS, resolve
from mame_lib.training.config import TrainConfig

# Stable Diffusion 1.5 and its inpainting model, as their configuration files on the Hub have it.
SD15: dict[str, dict[str, Any]] = {
    "unet": {
        "sample_size": 64, "in_channels": 4, "out_channels": 4, "block_out_channels": [320, 640, 1280, 1280],
        "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
        "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
        "layers_per_block": 2, "cross_attention_dim": 768, "attention_head_dim": 8, "norm_num_groups": 32,
    },
    "text_encoder": {
        "vocab_size": 49408, "hidden_size": 768, "intermediate_size": 3072, "projection_dim": 768,
        "num_hidden_layers": 12, "num_attention_heads": 12, "max_position_embeddings": 77,
        "hidden_act": "quick_gelu", "bos_token_id": 49406, "eos_token_id": 49407, "pad_token_id": 1,
    },
    "vae": {
        "sample_size": 512, "block_out_channels": [128, 256, 512, 512], "latent_channels": 4,
        "down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4,
        "layers_per_block": 2, "norm_num_groups": 32, "scaling_factor": 0.18215,
    },
}  # fmt: skip


def bare_components(config: TrainConfig) -> Components:
    """UNet, autoencoder and text encoder of the base model of `config` on the meta device, frozen, ready for the task.

    The tokenizer is missing. SD 1.5 is known by heart; another Hub id needs the network, or a copy in the Hub's cache.

    Raises `InputError` when the configurations can't be read.
    """
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    told = {name: _configuration(config.base_model, name) for name in SD15}
    with torch.device("meta"), quiet():
        made = Components(
            unet=UNet2DConditionModel.from_config(told["unet"]),
            vae=AutoencoderKL.from_config(told["vae"]),
            text_encoder=CLIPTextModel(CLIPTextConfig(**told["text_encoder"])),
            tokenizer=None,  # type: ignore[arg-type]
        )
        if config.inpainting:
            widen(made.unet)
    for network in (made.unet, made.vae, made.text_encoder):
        network.requires_grad_(False).eval()
    return made


def _configuration(model: str, part: str) -> dict[str, Any]:
    """`config.json` of one network of a model."""
    source = resolve(model)
    known = {PRESETS[name].source for name in ("sd15", "sd15-inpaint")}
    if source in known and not Path(source).is_dir():
        return SD15[part] | ({"in_channels": 9} if part == "unet" and "inpaint" in source else {})
    home = places(Path(source))[part] if Path(source).is_dir() else fetch(source, weights=False) / part
    told = read_json(home / "config.json")
    if not told:
        raise InputError(f"cannot plan with {model!r}: its {part} has no config.json; fetch the model again.")
    return told
