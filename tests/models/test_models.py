"""The tiny model's parts: any text is accepted, shapes hold, a saved folder is an ordinary diffusers pipeline."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mame_lib.errors import InputError
from mame_lib.models.components import Components, name_of
from mame_lib.models.latents import decode, encode_moments, sample_latents, to_tensor
from mame_lib.models.presets import get_preset, resolve
from mame_lib.models.sampling import sample_states
from mame_lib.models.text import PromptStates, encode_prompts, encode_tokens, is_cut, tokenize
from mame_lib.models.tiny import tiny_tokenizer


@pytest.fixture(scope="module")
def tiny() -> Components:
    return Components.load("tiny")


@given(st.text(max_size=80))
@settings(max_examples=60, deadline=None)
def test_any_text_becomes_32_tokens_of_the_vocabulary(text: str) -> None:
    tokenizer = tiny_tokenizer()
    ids = tokenize(tokenizer, [text])
    assert ids.shape == (1, 32)
    assert int(ids.min()) >= 0 and int(ids.max()) < len(tokenizer)
    assert int(ids[0, 0]) == tokenizer.bos_token_id


def test_longest_prompt_of_the_grammar_is_not_cut(tiny: Components) -> None:
    sentence = "a hologic mammogram in MLO view with very high density and medium area"
    assert not is_cut(tiny.tokenizer, sentence)
    assert is_cut(tiny.tokenizer, sentence * 2)
    assert torch.equal(tokenize(tiny.tokenizer, [sentence]), tokenize(tiny.tokenizer, [sentence.upper()]))


def test_asking_whether_a_prompt_is_cut_prints_nothing(caplog: pytest.LogCaptureFixture) -> None:
    loggers = [logging.getLogger(name) for name in ("transformers", "transformers.tokenization_utils_base")]
    for logger in loggers:
        logger.addHandler(caplog.handler)
    try:
        assert is_cut(tiny_tokenizer(), "a very long sentence " * 20)
    finally:
        for logger in loggers:
            logger.removeHandler(caplog.handler)
    assert not caplog.records


def test_each_sentence_is_encoded_once_and_the_oldest_is_forgotten(
    tiny: Components, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[int] = []
    own = tiny.text_encoder.forward
    monkeypatch.setattr(tiny.text_encoder, "forward", lambda ids: rows.append(len(ids)) or own(ids))
    states = PromptStates(tiny.tokenizer, tiny.text_encoder, most=2)
    first = states(["a circle", "a star", "a circle"])
    assert rows == [2] and torch.equal(first[0], first[2])
    assert torch.equal(states(["a star", "a circle"]), first[[1, 0]]) and rows == [2]
    assert len(states(["a ring", "a star", "a circle"])) == 3 and rows == [2, 1]  # more at once than are kept
    states(["a ring"])  # kept, "a circle" was the oldest
    assert rows == [2, 1]
    again = states(["a circle"])
    assert rows == [2, 1, 1]
    torch.testing.assert_close(again[0], first[0], rtol=1e-5, atol=1e-5)


def test_shipped_tokenizer_is_the_built_one(tiny: Components) -> None:
    text = ["no black background", "a siemens mammogram, zebra 9!"]
    assert torch.equal(tokenize(tiny.tokenizer, text), tokenize(tiny_tokenizer(), text))


def test_equal_rows_are_encoded_once_and_alike(tiny: Components) -> None:
    ids = tokenize(tiny.tokenizer, ["a circle", "a big star", "a circle"])
    states = encode_tokens(tiny.text_encoder, ids)
    assert states.shape == (3, 32, 96)
    assert torch.equal(states[0], states[2])
    alone = tiny.text_encoder(ids[1:2]).last_hidden_state
    torch.testing.assert_close(states[1:2], alone, rtol=1e-5, atol=1e-5)


def test_latents_go_there_and_back(tiny: Components) -> None:
    y, x = np.mgrid[0:128, 0:128]
    images = np.stack([x, 255 - y]).astype(np.uint8)
    assert to_tensor(images).shape == (2, 3, 128, 128)
    moments = encode_moments(tiny.vae, images)
    assert moments.mean.shape == (2, 4, 16, 16) == tuple([2, *tiny.latent_shape])
    assert bool((moments.std > 0).all())
    latents = sample_latents(moments, torch.zeros_like(moments.mean), tiny.vae.config.scaling_factor)
    back = decode(tiny.vae, latents)
    assert back.shape == images.shape and back.dtype == np.uint8
    error = np.abs(back.astype(float) - images).mean()
    assert error < 8, "a smooth gradient must survive the autoencoder"


def test_saved_folder_is_a_diffusers_pipeline_and_comes_back_equal(tiny: Components, tmp_path) -> None:
    from diffusers import StableDiffusionPipeline

    tiny.save(tmp_path / "model", dtype=torch.float32)
    again = Components.load(tmp_path / "model")
    for name in ("unet", "vae", "text_encoder"):
        mine, theirs = getattr(tiny, name).state_dict(), getattr(again, name).state_dict()
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[key], theirs[key]) for key in mine)
    pipeline = StableDiffusionPipeline.from_pretrained(tmp_path / "model", torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    theirs = pipeline(
        "a big white circle", latents=noise, guidance_scale=4.0, num_inference_steps=6, output_type="latent"
    )
    states = encode_prompts(tiny.tokenizer, tiny.text_encoder, ["a big white circle", ""])
    for state in sample_states(tiny, noise, states[:1], states[1:], guidance_scale=4.0, steps=6):
        mine = state.sample
    torch.testing.assert_close(mine, theirs.images, rtol=1e-3, atol=1e-4)


def test_a_saved_folder_does_not_tell_where_it_came_from(tiny: Components, tmp_path) -> None:
    tiny.save(tmp_path / "first")
    again = Components.load(str(tmp_path / "first"))
    again.save(tmp_path / "second")
    for path in (tmp_path / "second").rglob("*.json"):
        assert str(tmp_path) not in path.read_text() and "_name_or_path" not in path.read_text()


def test_a_base_is_named_without_its_place(tmp_path) -> None:
    assert name_of("tiny") == "tiny" and name_of("owner/model") == "owner/model"
    assert name_of(str(tmp_path / "run-3" / "model")) == "run-3/model"


def test_bad_names_are_explained(tmp_path) -> None:
    with pytest.raises(InputError, match="preset 'huge' is unknown"):
        get_preset("huge")
    with pytest.raises(InputError, match="there is no model 'fusedd'"):
        resolve("fusedd")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model_index.json").write_text("{}")
    with pytest.raises(InputError, match="did you mean"):
        resolve(tmp_path)
    with pytest.raises(InputError, match="cannot load the model"):
        Components.load(tmp_path / "model")
