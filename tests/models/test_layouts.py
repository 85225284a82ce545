"""Both layouts of Stable Diffusion load, sample and save; what we save is what diffusers makes of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from mame_lib.errors import InputError
from mame_lib.models.components import Components
from mame_lib.models.inpainting import latent_mask, widen
from mame_lib.models.latents import decode
from mame_lib.models.sampling import sample_states
from mame_lib.models.text import encode_prompts

PROMPT = "a big white circle"


def draw(parts: Components, noise: torch.Tensor, **options) -> torch.Tensor:
    states = encode_prompts(parts.tokenizer, parts.text_encoder, [PROMPT, ""])
    *_, last = sample_states(parts, noise, states[:1], states[1:], guidance_scale=3.0, steps=5, **options)
    return last.sample


def noise_for(parts: Components) -> torch.Tensor:
    return torch.randn(1, *parts.latent_shape, generator=torch.Generator().manual_seed(0))


# With zero terminal SNR, diffusers keeps a signal of 2 ** -12 at the last timestep, so as not to divide by 0; we don't.
@pytest.mark.parametrize("layout, size, apart", [("sd15", 64, 1e-3), ("sd2", 96, 1e-3), ("sd2-zero", 96, 2e-2)])
def test_a_layout_goes_through_us_and_back_to_diffusers(
    miniatures: dict[str, Path], layout: str, size: int, apart: float, tmp_path: Path
) -> None:
    from diffusers import StableDiffusionPipeline

    parts = Components.load(miniatures[layout])
    assert parts.image_size == size and not parts.inpainting
    assert {p.dtype for n in (parts.unet, parts.vae, parts.text_encoder) for p in n.parameters()} == {torch.float32}
    mine = draw(parts, noise_for(parts))
    parts.save(tmp_path / "model", dtype=torch.float32)
    again = Components.load(tmp_path / "model")
    assert torch.equal(mine, draw(again, noise_for(again)))
    assert again.scheduler_config == parts.scheduler_config

    pipeline = StableDiffusionPipeline.from_pretrained(tmp_path / "model", torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    options = {"latents": noise_for(parts), "guidance_scale": 3.0, "num_inference_steps": 5}
    theirs = pipeline(PROMPT, output_type="latent", **options).images
    torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=apart)
    image = pipeline(PROMPT, output_type="np", **options).images.mean(-1) * 255  # [1, n, n]
    assert np.abs(image - decode(parts.vae, mine)).max() <= 1


@pytest.mark.parametrize("sampler", ["euler", "heun"])
def test_a_sampler_that_cannot_start_from_zero_signal_says_so(miniatures: dict[str, Path], sampler: str) -> None:
    parts = Components.load(miniatures["sd2-zero"])
    with pytest.raises(InputError, match="zero terminal SNR"):
        draw(parts, noise_for(parts), sampler=sampler)


def test_the_scheduler_is_saved_as_models_are_validated(miniatures: dict[str, Path], tmp_path: Path) -> None:
    for layout, prediction, rescaled in (
        ("sd15", "epsilon", False), ("sd2", "v_prediction", False), ("sd2-zero", "v_prediction", True),
    ):  # fmt: skip
        parts = Components.load(miniatures[layout])
        assert parts.prediction_type == prediction
        assert (float(parts.schedule.signal[-1]) == 0) is rescaled
        parts.save(tmp_path / layout)
        saved = json.loads((tmp_path / layout / "scheduler" / "scheduler_config.json").read_text())
        assert saved["_class_name"] == "DPMSolverMultistepScheduler"
        assert (saved["timestep_spacing"], saved["final_sigmas_type"]) == ("trailing", "zero")
        assert (saved["prediction_type"], saved["rescale_betas_zero_snr"]) == (prediction, rescaled)


def test_an_inpainting_model_is_saved_as_one_and_paints_as_diffusers_does(tmp_path: Path) -> None:
    from diffusers import StableDiffusionInpaintPipeline

    parts = Components.load("tiny")
    widen(parts.unet)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():  # as if trained: the mask and the surroundings count
        parts.unet.conv_in.weight[:, 4:] = 0.05 * torch.randn(48, 5, 3, 3, generator=generator)
    parts.save(tmp_path / "model", dtype=torch.float32)
    assert parts.inpainting and Components.load(tmp_path / "model").inpainting

    pipeline = StableDiffusionInpaintPipeline.from_pretrained(tmp_path / "model", torch_dtype=torch.float32)
    assert json.loads((tmp_path / "model" / "model_index.json").read_text())["_class_name"] == type(pipeline).__name__
    pipeline.set_progress_bar_config(disable=True)
    mask = np.zeros((1, 128, 128), bool)
    mask[:, 32:72, 40:96] = True
    around = torch.randn(1, 4, 16, 16, generator=generator)
    mine = draw(parts, noise_for(parts), extra=torch.cat([latent_mask(mask, 16), around], dim=1))
    options = {"latents": noise_for(parts), "guidance_scale": 3.0, "num_inference_steps": 5, "strength": 1.0}
    theirs = pipeline(
        PROMPT, image=torch.zeros(1, 3, 128, 128), mask_image=torch.from_numpy(mask).float()[:, None],
        masked_image_latents=around, height=128, width=128, output_type="latent", **options,
    ).images  # fmt: skip
    torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(mine, draw(parts, noise_for(parts), extra=torch.zeros(1, 5, 16, 16)), atol=1e-2)


def test_the_old_way_of_naming_text_weights_is_written_and_read(miniatures: dict[str, Path], tmp_path: Path) -> None:
    parts = Components.load(miniatures["sd15"])
    parts.save(tmp_path / "model")
    assert all(name.startswith("text_model.") for name in load_file(tmp_path / "model/text_encoder/model.safetensors"))
    again = Components.load(tmp_path / "model").text_encoder.state_dict()
    for name, tensor in parts.text_encoder.state_dict().items():
        assert torch.equal(tensor.half().float(), again[name])


def test_a_model_in_half_precision_files_only(miniature: Path) -> None:
    weights = miniature / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = {name: tensor.half() for name, tensor in load_file(weights).items()}
    save_file(tensors, weights.with_name("diffusion_pytorch_model.fp16.safetensors"), metadata={"format": "pt"})
    weights.unlink()
    parts = Components.load(miniature)
    assert parts.unet.dtype == torch.float32 and torch.equal(parts.unet.conv_in.bias.half(), tensors["conv_in.bias"])


def test_what_does_not_fit_is_refused_in_a_sentence(miniature: Path) -> None:
    def refuses(words: str) -> None:
        with pytest.raises(InputError, match=words) as caught:
            Components.load(miniature)
        assert str(caught.value).startswith("cannot load") and "\n" not in str(caught.value)

    index = miniature / "model_index.json"
    good = index.read_text()
    for change, words in (
        ({"_class_name": "StableDiffusionXLPipeline", "text_encoder_2": ["transformers", "CLIPTextModel"]}, "XL"),
        ({"_class_name": "DDPMPipeline", "unet": ["diffusers", "UNet2DModel"]}, "DDPMPipeline.*without text"),
        ({"text_encoder": ["transformers", "T5EncoderModel"]}, "no CLIPTextModel"),
    ):
        index.write_text(json.dumps({**json.loads(good), **change}))
        refuses(words)
    index.write_text("{")
    refuses("not valid JSON")
    index.write_text("[]")
    refuses("no JSON object")
    index.write_text(good)

    weights = miniature / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    lost = tensors.pop("conv_out.bias")
    save_file(tensors, weights)
    refuses("lacks 1 weights, among them conv_out.bias")
    save_file({**tensors, "conv_out.bias": lost[:2].clone()}, weights)
    refuses("conv_out.bias|size|shape")
    weights.write_bytes(weights.read_bytes()[:1000])
    refuses("cannot load the model")
    weights.unlink()
    refuses("unet has no safetensors file")
    (miniature / "scheduler" / "scheduler_config.json").unlink()
    (miniature / "scheduler").rmdir()
    refuses("no folder scheduler")


def test_a_unet_that_wants_more_than_a_sentence_is_refused(miniature: Path) -> None:
    from diffusers import UNet2DConditionModel

    config = {**UNet2DConditionModel.load_config(miniature, subfolder="unet"), "in_channels": 7}
    UNet2DConditionModel.from_config(config).save_pretrained(miniature / "unet")
    with pytest.raises(InputError, match="7 input channels"):
        Components.load(miniature)


def test_an_unknown_schedule_is_refused(miniature: Path) -> None:
    path = miniature / "scheduler" / "scheduler_config.json"
    saved = json.loads(path.read_text())
    for change, words in (({"beta_schedule": "sigmoid"}, "sigmoid"), ({"prediction_type": "flow"}, "'flow'")):
        path.write_text(json.dumps({**saved, **change}))
        with pytest.raises(InputError, match=words):
            Components.load(miniature)


def test_the_memory_layout_of_the_autoencoder_does_not_change_the_image() -> None:
    parts = Components.load("tiny")
    latents = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(3))
    assert parts.vae.decoder.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
    last = decode(parts.vae, latents).astype(int)
    parts.vae.to(memory_format=torch.contiguous_format)
    assert np.abs(last - decode(parts.vae, latents)).max() <= 1
