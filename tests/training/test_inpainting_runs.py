"""Learning to inpaint: nothing changes at step 0, then it learns; saved models work in plain diffusers."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from mame_lib.data import manifest
from mame_lib.data.prompts import CONSTANT_PROMPT
from mame_lib.data.sources import phantom_source
from mame_lib.errors import InputError
from mame_lib.models.components import Components
from mame_lib.models.inpainting import blank, box_mask, latent_mask, snap
from mame_lib.models.latents import decode, encode_moments
from mame_lib.models.sampling import sample_states
from mame_lib.models.text import encode_prompts, tokenize
from mame_lib.training.data import batch_of_step
from mame_lib.training.loop import diffusion_loss, start, train_step
from mame_lib.training.setup import GROWTHS, load_base, prepare
from tests.training.support import config_of, random_batch, run_to

GRAY_LEVEL = 1  # the most that two programs may differ in a pixel


def furthest(ours: Components, latents: torch.Tensor, theirs: np.ndarray) -> float:
    """The largest difference in gray levels between our latents, decoded, and the library's picture, color and gray."""
    with torch.no_grad():
        rgb = ours.vae.decode(latents / ours.vae.config.scaling_factor).sample  # [B, 3, n, n]
    mine = ((rgb + 1) / 2).clamp(0, 1).permute(0, 2, 3, 1).numpy()  # [B, n, n, 3]
    assert mine.std() > 0.05, "not a flat picture"
    gray = np.abs(decode(ours.vae, latents).astype(float) - np.round(theirs * 255).mean(-1)).max()
    return float(max(gray, np.abs(np.round(mine * 255) - np.round(theirs * 255)).max()))


def test_a_widened_model_begins_where_the_base_ends() -> None:
    """The first loss of the inpainting run is that of the base model at the same latents, noise and timesteps."""
    config = config_of(preset="tiny-inpaint")
    batch = random_batch(config, masks=True)
    assert batch.extra is not None
    wide, base = load_base(config), Components.load("tiny")
    with torch.no_grad():
        losses = diffusion_loss(wide, batch, wide.schedule, torch.float32)
        plain = diffusion_loss(base, batch._replace(extra=None), base.schedule, torch.float32)
    torch.testing.assert_close(losses, plain, rtol=1e-6, atol=1e-6)


def test_the_new_channels_learn_from_the_first_step() -> None:
    config = config_of(preset="tiny-inpaint", warmup=0, learning_rate=1e-3)
    state = start(config, load_base(config))
    new = state.components.unet.conv_in.weight[:, 4:]
    assert not bool(new.any())
    train_step(state, random_batch(config, masks=True), config)
    assert bool((new != 0).any((0, 2, 3)).all()), "mask and all four channels of the surroundings"


def test_masks_are_the_boxes_of_the_data_in_the_geometry_of_the_images(lesions, tmp_path) -> None:
    config = config_of(data=lesions, out=tmp_path / "run", preset="tiny-inpaint")
    components, prepared = prepare(config)
    data, masks = manifest.load(lesions), prepared.training_set.masks
    assert masks is not None and masks.latent.shape[1:] == (len(GROWTHS), 16, 16)
    cases = {case.id: case for case in data.cases}
    for row, name in enumerate(prepared.training_set.ids):
        case = cases[name]
        with Image.open(lesions / case.image) as image:
            pixels = np.asarray(image.convert("L"))
        for variant, grow in enumerate(GROWTHS):
            mask = snap(box_mask(case.boxes, 128, grow), 8)
            assert np.array_equal(masks.latent[row, variant], mask[::8, ::8]) and mask.any()
            if row < 2:
                hidden = encode_moments(components.vae, blank(pixels[None], mask[None])).mean[0]
                cached = torch.from_numpy(np.array(masks.moments[row, variant, 0])).float()
                torch.testing.assert_close(cached, hidden, rtol=1e-2, atol=1e-2)
        x0, y0, x1, y1 = case.boxes[0]
        center = int((y0 + y1) / 2), int((x0 + x1) / 2)
        assert masks.latent[row, :, center[0] // 8, center[1] // 8].all(), "the lesion's center is masked"
    assert bool((np.diff(masks.latent.sum((2, 3)).astype(int), axis=1) >= 0).all()), "larger variants are larger"


def test_boxes_scale_with_the_size_of_the_images(tmp_path) -> None:
    """Images of 256 pixels and a model of 128: boxes are halved with their images, not cut off."""
    from mame_lib.data.sources import phantom_source

    manifest.write(tmp_path / "data", phantom_source(4, 256, 5, lesions=1.0), source="phantom", settings={})
    config = config_of(tmp_path, preset="tiny-inpaint")
    _, prepared = prepare(config)
    masks, cases = prepared.training_set.masks, {c.id: c for c in manifest.load(tmp_path / "data").cases}
    assert masks is not None
    for row, name in enumerate(prepared.training_set.ids):
        half = [tuple(value / 2 for value in box) for box in cases[name].boxes]
        wanted = snap(box_mask(half, 128), 8)[::8, ::8]  # type: ignore[arg-type]
        assert np.array_equal(masks.latent[row, 0], wanted)


def test_only_images_with_boxes_are_learned_from(phantoms, tmp_path) -> None:
    with pytest.raises(InputError, match="no lesion box in its training split"):
        prepare(config_of(data=phantoms, out=tmp_path / "run", preset="tiny-inpaint"))
    manifest.write(tmp_path / "data", phantom_source(12, 128, 3, lesions=0.5), source="phantom", settings={})
    _, prepared = prepare(config_of(tmp_path, preset="tiny-inpaint"))
    ill = {case.id for case in manifest.load(tmp_path / "data").split("train") if case.boxes}
    assert set(prepared.training_set.ids) == ill and 0 < len(ill) < 9


def test_healthy_images_are_learned_too_with_a_box_of_their_own(tmp_path) -> None:
    manifest.write(tmp_path / "data", phantom_source(16, 128, 3, lesions=0.5), source="phantom", settings={})
    config = config_of(tmp_path, preset="tiny-inpaint", healthy_boxes=True)
    _, prepared = prepare(config)
    cases = {case.id: case for case in manifest.load(tmp_path / "data").split("train")}
    found = prepared.training_set
    assert set(found.ids) == set(cases) and prepared.facts["captions"][CONSTANT_PROMPT] > 2
    ill = [bool(cases[name].boxes) for name in found.ids]
    assert ill == sorted(ill, reverse=True)  # healthy ones come last
    assert found.masks is not None and found.masks.latent.any((2, 3)).all()  # every image has something to fill
    empty = tokenize(load_base(config).tokenizer, [CONSTANT_PROMPT])[0]
    assert [bool((ids == empty).all()) for ids in found.input_ids] == [not one for one in ill]
    _, again = prepare(config)
    assert np.array_equal(found.masks.latent, again.training_set.masks.latent)
    _, without = prepare(config_of(tmp_path, preset="tiny-inpaint"))
    assert len(without.training_set) == sum(ill)


def test_an_inpainting_model_is_no_base_for_text_to_image(lesions, tmp_path) -> None:
    wide = load_base(config_of(preset="tiny-inpaint"))
    wide.save(tmp_path / "wide")
    with pytest.raises(InputError, match="is an inpainting model; choose a preset that ends in -inpaint"):
        load_base(config_of(base=str(tmp_path / "wide")))
    again = load_base(config_of(base=str(tmp_path / "wide"), preset="tiny-inpaint"))
    assert again.unet.conv_in.in_channels == 9


@pytest.mark.slow
def test_inpainting_is_learned(lesions, tmp_path) -> None:
    """After some steps the loss with the true surroundings is lower than with those of other images.

    So the model looks at them; a base model, whose new weights are zero, cannot tell the two apart.
    """
    config = config_of(
        data=lesions, out=tmp_path / "run", preset="tiny-inpaint", steps=30, batch_size=8, learning_rate=2e-3,
        mask_dropout=0.0, text_learning_rate_factor=0.0,
    )  # fmt: skip
    components, prepared = prepare(config)
    state = start(config, components, prepared=prepared)
    for step in range(30):
        train_step(state, batch_of_step(prepared.training_set, config, step), config)
    batch = batch_of_step(prepared.training_set, config.with_changes(batch_size=16, seed=7, caption_dropout=0.0), 0)
    assert batch.extra is not None
    with torch.no_grad():
        true = diffusion_loss(state.components, batch, state.schedule, torch.float32).mean()
        swapped = batch._replace(extra=batch.extra.roll(1, 0))
        other = diffusion_loss(state.components, swapped, state.schedule, torch.float32).mean()
    assert float(true) < 0.97 * float(other)


def test_a_saved_text_to_image_model_gives_the_same_picture_in_diffusers(phantoms, tmp_path) -> None:
    """From the same latents, within one gray level: with the scheduler that was saved, and the start that ours adds."""
    from diffusers import StableDiffusionPipeline

    config = config_of(data=phantoms, out=tmp_path / "run", batch_size=2, learning_rate=1e-3)
    ours = Components.load(run_to(config)[-1].model)
    pipeline = StableDiffusionPipeline.from_pretrained(config.out / "model", dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    noise, prompts = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0)), ["a mammogram", "a circle"]
    states = encode_prompts(ours.tokenizer, ours.text_encoder, [*prompts, ""])
    with torch.no_grad():
        for state in sample_states(ours, noise, states[:2], states[2:], guidance_scale=4.0, steps=8):
            mine = state.sample
    theirs = pipeline(
        prompts, latents=ours.start_from(noise, 999), guidance_scale=4.0, num_inference_steps=8, output_type="np"
    ).images
    assert furthest(ours, mine, theirs) <= GRAY_LEVEL


def test_a_saved_inpainting_model_gives_the_same_picture_in_diffusers(lesions, tmp_path) -> None:
    """The image, the mask and the start latents go into `StableDiffusionInpaintPipeline` as they are."""
    from diffusers import StableDiffusionInpaintPipeline
    from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

    config = config_of(
        data=lesions, out=tmp_path / "run", preset="tiny-inpaint", batch_size=2, steps=6, learning_rate=2e-3
    )
    ours = Components.load(run_to(config)[-1].model)
    assert json.loads((config.out / "model" / "model_index.json").read_text())["_class_name"] == (
        "StableDiffusionInpaintPipeline"
    )
    pipeline = StableDiffusionInpaintPipeline.from_pretrained(config.out / "model", dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)

    case = next(case for case in manifest.load(lesions).cases if case.boxes)
    with Image.open(lesions / case.image) as image:
        pixels = np.asarray(image.convert("L"))
    mask = snap(box_mask(case.boxes, 128, 0.25), 8)
    around = encode_moments(ours.vae, blank(pixels[None], mask[None])).mean * ours.vae.config.scaling_factor
    extra = torch.cat([latent_mask(mask[None], 16), around], dim=1)
    noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    states = encode_prompts(ours.tokenizer, ours.text_encoder, [case.prompt, ""])
    with torch.no_grad():
        for state in sample_states(ours, noise, states[:1], states[1:], guidance_scale=4.0, steps=8, extra=extra):
            mine = state.sample

    tensor = torch.from_numpy(pixels.copy()).float()[None, None].expand(1, 3, -1, -1) / 127.5 - 1
    with pytest.MonkeyPatch.context() as patch:
        # The pipeline samples the posterior of the surroundings; ours takes its mean.
        patch.setattr(DiagonalGaussianDistribution, "sample", lambda self, generator=None: self.mean)
        theirs = pipeline(
            case.prompt, image=tensor, mask_image=torch.from_numpy(mask.copy()).float()[None, None], strength=1.0,
            latents=ours.start_from(noise, 999), guidance_scale=4.0, num_inference_steps=8, output_type="np",
            height=128, width=128,
        ).images  # fmt: skip
    assert furthest(ours, mine, theirs) <= GRAY_LEVEL


def test_inpainting_wants_masks_and_text_to_image_wants_none() -> None:
    wide = load_base(config_of(preset="tiny-inpaint"))
    noise, states = torch.zeros(1, 4, 16, 16), torch.zeros(1, 32, 96)
    with pytest.raises(InputError, match="needs an image and a mask"):
        next(sample_states(wide, noise, states, states, steps=2))
    with pytest.raises(InputError, match="can't inpaint"):
        next(sample_states(Components.load("tiny"), noise, states, states, steps=2, extra=torch.zeros(1, 5, 16, 16)))
