"""Miniature pipelines with random weights in the layouts of Stable Diffusion 1.5 and 2.1, saved by plain diffusers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from mame_lib.models.saving import quiet
from mame_lib.models.tiny import tiny_tokenizer

LAYOUTS = ("sd15", "sd2", "sd2-zero")
SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def build(layout: str) -> StableDiffusionPipeline:
    """sd15: 8 heads in every block, convolutions as projections. sd2: heads by block, wide text, v prediction.

    sd2-zero: the same with zero terminal SNR.
    """
    new = layout != "sd15"
    width = 32 if new else 16
    tokenizer = tiny_tokenizer()
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=12 if new else 8, block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=8,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=width, attention_head_dim=[2, 4] if new else 8, use_linear_projection=new,
    )  # fmt: skip
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 8, 16), norm_num_groups=4, sample_size=96 if new else 64,
    )  # fmt: skip
    with torch.no_grad():
        vae.decoder.conv_out.weight *= 0.1  # no channel leaves its range: a pipeline cuts each, we cut their mean
    text = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=width, intermediate_size=32, num_attention_heads=2,
        num_hidden_layers=2, projection_dim=8, max_position_embeddings=32, hidden_act="gelu" if new else "quick_gelu",
        eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    if new:
        scheduler = DDIMScheduler(
            **SCHEDULE, prediction_type="v_prediction", clip_sample=False, steps_offset=1,
            rescale_betas_zero_snr=layout == "sd2-zero",
        )  # fmt: skip
    else:
        scheduler = PNDMScheduler(**SCHEDULE, skip_prk_steps=True, steps_offset=1)
    return StableDiffusionPipeline(
        unet=unet, vae=vae, text_encoder=CLIPTextModel(text), tokenizer=tokenizer, scheduler=scheduler,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def age(folder: Path) -> None:
    """Make a folder look as if saved in 2023: two files for the tokenizer, no spacing, a class that is gone."""
    tokenizer = folder / "tokenizer"
    model = json.loads((tokenizer / "tokenizer.json").read_text())["model"]
    shutil.rmtree(tokenizer)
    tokenizer.mkdir()
    (tokenizer / "vocab.json").write_text(json.dumps(model["vocab"]))
    pairs = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    (tokenizer / "merges.txt").write_text("\n".join(["#version: 0.2", *pairs]) + "\n")
    end = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
    special = {**end, "pad_token": "<|endoftext|>"}
    (tokenizer / "special_tokens_map.json").write_text(json.dumps(special))
    config = {**special, "model_max_length": 32, "tokenizer_class": "CLIPTokenizer", "do_lower_case": True}
    (tokenizer / "tokenizer_config.json").write_text(json.dumps(config))
    path = folder / "scheduler" / "scheduler_config.json"
    scheduler = json.loads(path.read_text())
    scheduler.pop("timestep_spacing")
    path.write_text(json.dumps(scheduler))
    path = folder / "model_index.json"
    index = json.loads(path.read_text())
    index["feature_extractor"] = ["transformers", "CLIPFeatureExtractor"]
    index["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    path.write_text(json.dumps(index))


@pytest.fixture(scope="session")
def miniatures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders by layout; read only."""
    root = tmp_path_factory.mktemp("miniatures")
    with quiet():
        for layout in LAYOUTS:
            build(layout).save_pretrained(root / layout)
            age(root / layout)
    return {layout: root / layout for layout in LAYOUTS}


@pytest.fixture
def miniature(miniatures: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of the SD 1.5 miniature, to be spoiled."""
    shutil.copytree(miniatures["sd15"], tmp_path / "miniature")
    return tmp_path / "miniature"
