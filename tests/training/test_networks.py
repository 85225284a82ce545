"""What learns and what does not: full fine-tuning, the UNet alone, low-rank updates; and what the optimizer decays."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mame_lib.errors import InputError
from mame_lib.models.components import Components
from mame_lib.models.text import encode_tokens, tokenize
from mame_lib.training.data import batch_of_step
from mame_lib.training.loop import start, train_step
from mame_lib.training.networks import CachedText, groups, trainable
from mame_lib.training.setup import Prepared, load_base, prepare
from tests.training.support import config_of, random_batch, random_set, run_to

NETWORKS = ("unet", "text_encoder", "vae")
MOVES = {"full": {"unet", "text_encoder"}, "unet": {"unet"}, "lora": {"unet"}}


def state_of(components: Components) -> dict[str, dict[str, Tensor]]:
    return {n: {k: v.clone() for k, v in getattr(components, n).state_dict().items()} for n in NETWORKS}


@pytest.mark.parametrize("method", MOVES)
def test_what_moves_and_what_does_not(method) -> None:
    config, components = config_of(method=method, lora_rank=2), Components.load("tiny")
    state = start(config, components)
    before = state_of(components)
    train_step(state, random_batch(config), config)
    after = state_of(components)
    moved = {n: {k for k in after[n] if not torch.equal(after[n][k], before[n][k])} for n in NETWORKS}
    assert {name for name in NETWORKS if moved[name]} == MOVES[method]
    if method == "lora":
        assert all("lora_" in key for key in moved["unet"]), "the base weights stay"
        assert any(key.startswith("down_blocks") and "attn2.to_k" in key for key in moved["unet"])
    else:
        assert len(moved["unet"]) > 0.95 * len(after["unet"])
    assert components.unet.training and components.text_encoder.training == (method == "full")
    assert not components.vae.training


def test_a_text_factor_of_zero_freezes_the_text_encoder() -> None:
    config = config_of(text_learning_rate_factor=0.0)
    assert not config.trains_text
    components = Components.load("tiny")
    trained = trainable(config, components)
    assert not any(p.requires_grad for p in components.text_encoder.parameters())
    assert len(trained) == len(list(components.unet.parameters()))


@pytest.mark.parametrize("method", ["unet", "lora"])
def test_a_frozen_text_encoder_is_a_table_with_equal_states(method) -> None:
    """The step is the same with the encoder and with the table of its states, and the encoder is not called."""
    config = config_of(method=method, caption_dropout=0.5)
    data, prior = random_set(), random_set(5, seed=4)
    batch = batch_of_step(data, config, 0, prior)
    live = start(config, Components.load("tiny"))
    prepared = Prepared(data, random_set(3, seed=9), prior, (), {})
    tabled = start(config, Components.load("tiny"), prepared=prepared)
    table = tabled.components.text_encoder
    assert isinstance(table, CachedText) and table.states.dtype == torch.float32
    assert len(table.ids) == 10 + 5 + 3 + 1, "every caption once, and the empty one"
    states = encode_tokens(live.components.text_encoder, batch.input_ids)
    torch.testing.assert_close(encode_tokens(table, batch.input_ids), states, rtol=1e-5, atol=1e-6)
    losses = [train_step(state, batch, config)[0] for state in (live, tabled)]
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-5, atol=1e-6)
    with pytest.raises(AssertionError, match="not in the table"):
        table(torch.full((1, 32), 3))


def test_a_trained_text_encoder_is_no_table() -> None:
    prepared = Prepared(random_set(), None, None, (), {})
    state = start(config_of(), Components.load("tiny"), prepared=prepared)
    assert not isinstance(state.components.text_encoder, CachedText)


@pytest.mark.parametrize("method", MOVES)
def test_norms_biases_and_embeddings_are_not_decayed(method) -> None:
    config, components = config_of(method=method, weight_decay=0.1), Components.load("tiny")
    trained = trainable(config, components)
    made = groups(config, components)
    decay = {id(p): group["weight_decay"] for group in made for p in group["params"]}
    factor = {id(p): group["factor"] for group in made for p in group["params"]}
    assert set(decay) == {id(p) for p in trained} and sum(len(g["params"]) for g in made) == len(trained)
    spared = 0
    for network, share in ((components.unet, 1.0), (components.text_encoder, 0.3)):
        for module in network.modules():
            for name, parameter in module.named_parameters(recurse=False):
                if id(parameter) in decay:
                    plain = isinstance(module, nn.Linear | nn.Conv2d) and name == "weight"
                    # the linear layers of `time_embedding` are no embeddings, whatever their names say
                    assert decay[id(parameter)] == (0.1 if plain else 0.0), (type(module), name)
                    assert factor[id(parameter)] == share
                    spared += not plain
    assert spared > 20 or method == "lora"


def test_low_rank_updates_cannot_teach_a_widened_network(lesions) -> None:
    """Its new input weights would stay zero for ever; a base with nine channels is fine."""
    config = config_of(data=lesions, preset="tiny-inpaint", method="lora")
    with pytest.raises(InputError, match="can't teach tiny-inpaint to see a mask"):
        load_base(config)
    assert load_base(config.with_changes(base="inpaint")).inpainting


def test_a_step_decays_weights_and_spares_norms() -> None:
    """With gradients of zero only decay moves: by rate * decay of the weight, and not a bit of a norm."""
    config = config_of(weight_decay=0.5, warmup=1, learning_rate=1e-2, rate_schedule="constant", ema_decay=0.0)
    state = start(config, Components.load("tiny"))
    unet = state.components.unet
    norm, weight = unet.conv_norm_out.weight, unet.conv_out.weight
    before = norm.detach().clone(), weight.detach().clone()
    for group in state.optimizer.param_groups:
        group["lr"] = 1e-2 * group["factor"]
    for parameter in state.trained:
        parameter.grad = torch.zeros_like(parameter)
    state.optimizer.step()
    assert torch.equal(norm.detach(), before[0])
    torch.testing.assert_close(weight.detach(), before[1] * (1 - 1e-2 * 0.5))


def test_masters_are_float32_or_nothing() -> None:
    components = Components.load("tiny")
    components.unet.half()
    with pytest.raises(InputError, match=r"must be float32, but some are torch\.float16"):
        start(config_of(), components)


def test_the_first_factors_of_low_rank_updates_come_from_the_seed() -> None:
    def factors(seed: int) -> list[Tensor]:
        torch.manual_seed(77)
        before = torch.random.get_rng_state()
        made = trainable(config_of(method="lora", seed=seed), Components.load("tiny"))
        assert torch.equal(before, torch.random.get_rng_state()), "nobody else's randomness is used up"
        return [p.detach() for p in made]

    one, again, other = factors(1), factors(1), factors(2)
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_missing_peft_is_one_sentence(monkeypatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(InputError, match="method lora needs the package peft"):
        trainable(config_of(method="lora"), Components.load("tiny"))


def test_saved_low_rank_updates_load_in_diffusers_and_give_the_merged_model(phantoms, tmp_path) -> None:
    """`lora/` on the base equals `model/`, whose weights have the updates merged in (half precision aside)."""
    from diffusers import StableDiffusionPipeline

    config = config_of(data=phantoms, out=tmp_path / "run", method="lora", lora_rank=4, learning_rate=5e-2, warmup=0)
    run_to(config)
    merged = Components.load(config.out / "model")
    assert not any("lora" in key for key in merged.unet.state_dict())
    Components.load("tiny").save(tmp_path / "base", dtype=torch.float32)
    pipeline = StableDiffusionPipeline.from_pretrained(tmp_path / "base", torch_dtype=torch.float32)
    x, t = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0)), torch.tensor([400, 900])
    ids = tokenize(merged.tokenizer, ["a mammogram", ""])
    with torch.no_grad():
        context = merged.text_encoder(ids).last_hidden_state
        plain = pipeline.unet(x, t, encoder_hidden_states=context).sample
        pipeline.load_lora_weights(config.out / "lora")
        theirs = pipeline.unet(x, t, encoder_hidden_states=context).sample
        ours = merged.unet(x, t, encoder_hidden_states=context).sample
    learned = float((theirs - plain).abs().max())
    assert learned > 0.02, "four steps at this rate leave a mark"
    assert float((ours - theirs).abs().max()) < 0.05 * learned
    facts = json.loads((config.out / "model" / "mame.json").read_text())
    assert facts["training"]["method"] == "lora" and facts["base"] == "tiny"


def test_low_rank_updates_begin_as_nothing() -> None:
    components, x = Components.load("tiny"), torch.randn(1, 4, 16, 16)
    context = torch.randn(1, 32, 96)
    with torch.no_grad():
        before = components.unet(x, 500, encoder_hidden_states=context).sample
        trainable(config_of(method="lora"), components)
        after = components.unet(x, 500, encoder_hidden_states=context).sample
    torch.testing.assert_close(after, before, rtol=0, atol=1e-6)


def test_preparing_leaves_networks_frozen_and_says_what_the_data_hold(phantoms, tmp_path) -> None:
    components, prepared = prepare(config_of(data=phantoms, out=tmp_path / "run", constant_prompt="a mammogram"))
    assert prepared.prompts == ("a mammogram",)
    assert prepared.facts["captions"] == {"a mammogram": len(prepared.training_set)}
    assert prepared.held_out is not None and len(prepared.held_out) == prepared.facts["held_out"] > 0
    assert prepared.prior is None and prepared.training_set.masks is None
    assert not any(p.requires_grad for n in NETWORKS for p in getattr(components, n).parameters())
    assert components.start_mean is not None
    assert np.allclose(components.start_mean.numpy(), prepared.training_set.mean_latent().numpy())
    other = replace(components, start_mean=None)
    noise = torch.randn(2, 4, 16, 16)
    assert torch.equal(other.start_from(noise, 999), noise)
