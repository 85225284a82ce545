"""What is recorded is what the UNet did: rows sum to one, outputs stay, processors come back, words are found."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import UNet2DConditionModel, UNet2DModel
from torch import Tensor

from mame_lib.data.prompts import TRAINING_PROMPTS
from mame_lib.errors import InputError
from mame_lib.generation import Mame
from mame_lib.models.attention import AttentionMap, record_cross_attention, token_positions, word_share
from mame_lib.models.components import Components
from mame_lib.models.text import encode_prompts, tokenize
from mame_lib.models.tiny import tiny_tokenizer

PROMPT = "a siemens mammogram in MLO view with high density"
LAYER = "up_blocks.1.attentions.1.transformer_blocks.0.attn2"


@pytest.fixture(scope="module")
def fused() -> Components:
    return Components.load("fused")


@pytest.fixture(scope="module")
def inputs(fused: Components) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(0)
    states = encode_prompts(fused.tokenizer, fused.text_encoder, [PROMPT, "a mammogram"])  # [2, 32, 96]
    return {
        "sample": torch.randn(2, 4, 16, 16, generator=g), "timestep": torch.tensor([700, 700]),
        "encoder_hidden_states": states,
    }  # fmt: skip


def test_rows_sum_to_one_and_each_layer_is_there_once_a_call(fused: Components, inputs: dict[str, Tensor]) -> None:
    with torch.no_grad(), record_cross_attention(fused.unet) as maps:
        fused.unet(**inputs)
        fused.unet(inputs["sample"], 3, encoder_hidden_states=inputs["encoder_hidden_states"])
    assert [(one.call, one.timestep) for one in maps] == [(0, 700)] * 4 + [(1, 3)] * 4
    assert sorted(one.grid for one in maps[:4]) == [(4, 4), (8, 8), (8, 8), (8, 8)]
    assert len({one.layer for one in maps}) == 4
    for one in maps:
        assert one.weights.shape == (2, 4, one.grid[0] * one.grid[1], 32)
        assert one.weights.min() >= 0
        torch.testing.assert_close(one.weights.sum(-1), torch.ones(one.weights.shape[:-1]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("masked", [False, True])
def test_output_is_that_of_the_fused_kernel(fused: Components, inputs: dict[str, Tensor], masked: bool) -> None:
    keep = torch.ones(2, 32, dtype=torch.bool)
    keep[:, 20:] = not masked
    with torch.no_grad():
        plain = fused.unet(**inputs, encoder_attention_mask=keep).sample
        with record_cross_attention(fused.unet) as maps:
            open_ = fused.unet(**inputs, encoder_attention_mask=keep).sample
        again = fused.unet(**inputs, encoder_attention_mask=keep).sample
    torch.testing.assert_close(open_, plain, rtol=0, atol=1e-5)
    assert torch.equal(again, plain)
    unread = max(float(one.weights[..., 20:].max()) for one in maps)
    assert (unread == 0.0) is masked


def test_weights_are_the_softmax_of_queries_and_keys(fused: Components, inputs: dict[str, Tensor]) -> None:
    """One head of one layer by hand, from the layer's own input."""
    layer = fused.unet.get_submodule(LAYER)
    seen: list[Tensor] = []
    hook = layer.register_forward_pre_hook(lambda _, args, kwargs: seen.append(args[0]), with_kwargs=True)
    with torch.no_grad(), record_cross_attention(fused.unet) as maps:
        fused.unet(**inputs)
        hook.remove()
        query = layer.to_q(seen[0])[..., 20:40].double()  # head 1 of 4, 20 numbers each
        key = layer.to_k(inputs["encoder_hidden_states"])[..., 20:40].double()
    score = (query @ key.mT / math.sqrt(20)).exp()
    [mine] = [one.weights[:, 1] for one in maps if one.layer == LAYER]
    torch.testing.assert_close(mine.double(), score / score.sum(-1, keepdim=True), rtol=1e-4, atol=1e-6)


def test_own_processors_come_back_even_after_an_error(fused: Components, inputs: dict[str, Tensor]) -> None:
    before = dict(fused.unet.attn_processors)
    hooks = len(fused.unet._forward_pre_hooks)
    with pytest.raises(RuntimeError, match="midway"), record_cross_attention(fused.unet):
        assert dict(fused.unet.attn_processors) != before
        raise RuntimeError("midway")
    assert dict(fused.unet.attn_processors) == before
    assert len(fused.unet._forward_pre_hooks) == hooks


def test_maps_may_be_dropped_on_the_way(fused: Components) -> None:
    mame, seen = Mame(fused, "fused"), []
    with record_cross_attention(fused.unet) as maps:
        for state in mame.trajectory([PROMPT], indices=[0], steps=3):
            assert {one.timestep for one in maps} == {state.timestep}
            seen.append((maps[0].call, len(maps), len(maps[0].weights)))
            maps.clear()
    assert seen == [(0, 4, 2), (1, 4, 2), (2, 4, 2)]  # guidance: two rows for one image


def test_latents_that_are_not_square() -> None:
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8, block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=8, cross_attention_dim=12,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=[2, 4], use_linear_projection=True,
    )  # fmt: skip
    with torch.no_grad(), record_cross_attention(unet) as maps:
        unet(torch.randn(1, 4, 6, 14), 5, encoder_hidden_states=torch.randn(1, 7, 12))
    assert {one.grid for one in maps} == {(6, 14), (3, 7)}
    assert {one.weights.shape[1] for one in maps} == {2, 4}  # heads of each resolution


def test_a_unet_without_text_is_refused() -> None:
    unet = UNet2DModel(
        sample_size=8, block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    with pytest.raises(InputError, match="does not read text"), record_cross_attention(unet):  # type: ignore[arg-type]
        pass


def test_an_unknown_kind_of_attention_is_refused() -> None:
    unet = UNet2DConditionModel(
        sample_size=8, block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4, cross_attention_dim=8,
        down_block_types=("SimpleCrossAttnDownBlock2D", "DownBlock2D"), mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        up_block_types=("UpBlock2D", "SimpleCrossAttnUpBlock2D"), attention_head_dim=4,
    )  # fmt: skip
    with pytest.raises(InputError, match="cannot record"), record_cross_attention(unet):
        pass


def _map(weights: list[list[float]], grid: tuple[int, int], **options: object) -> AttentionMap:
    """One head; each list is an image's share of token 1 at every place, the rest goes to tokens 0 and 2."""
    share = torch.tensor(weights)[:, None, :, None]  # [B, 1, P, 1]
    return AttentionMap("layer", 0, 0, grid, torch.cat([(1 - share) / 4, share, (1 - share) * 3 / 4], dim=-1))


def test_share_of_a_word_is_a_sum_over_tokens_and_a_mean_over_the_rest() -> None:
    maps = [_map([[0.2, 0.4], [0.6, 0.0]], (1, 2)), _map([[0.0, 0.4], [0.0, 0.4]], (1, 2)), _map([[0.9]] * 2, (1, 1))]
    torch.testing.assert_close(word_share(maps, [1]), torch.tensor([[0.2, 0.3]]))
    torch.testing.assert_close(word_share(maps, [0, 2]), torch.tensor([[0.8, 0.7]]))
    torch.testing.assert_close(word_share(maps, [1], rows=slice(1, None)), torch.tensor([[0.3, 0.2]]))
    torch.testing.assert_close(word_share(maps, [1], grid=(1, 1)), torch.tensor([[0.9]]))
    torch.testing.assert_close(word_share(maps, [0, 1, 2]), torch.ones(1, 2))


def test_share_without_maps_or_tokens_is_refused() -> None:
    with pytest.raises(InputError, match="no attention map"):
        word_share([], [1])
    with pytest.raises(InputError, match=r"grid \(2, 2\)"):
        word_share([_map([[0.5]], (1, 1))], [1], grid=(2, 2))
    with pytest.raises(InputError, match="at least one token"):
        word_share([_map([[0.5]], (1, 1))], [])


@pytest.mark.parametrize("prompt", TRAINING_PROMPTS)
def test_every_word_of_the_grammar_is_found_where_it_stands(prompt: str) -> None:
    tokenizer, reached = tiny_tokenizer(), 1
    ids = tokenize(tokenizer, [prompt])[0]
    for word in prompt.split():
        places = token_positions(tokenizer, prompt, word)
        assert places == list(range(reached, reached + len(places)))  # no word twice in these sentences
        assert tokenizer.decode(ids[places]).strip() == word.lower()
        reached = places[-1] + 1
    assert int(ids[reached]) == tokenizer.eos_token_id


def test_words_are_whole_and_phrases_hold_together() -> None:
    tokenizer = tiny_tokenizer()
    prompt = "a lava mammogram with very low density"
    whole = tokenizer(prompt).input_ids
    assert token_positions(tokenizer, prompt, "a") == [1]  # not the last letter of lava
    low = token_positions(tokenizer, prompt, "very low")
    assert whole[low[0] : low[-1] + 1] == tokenizer("VERY LOW").input_ids[1:-1]
    for phrase in ("va", "low very", "", "high"):
        with pytest.raises(InputError, match="whole"):
            token_positions(tokenizer, prompt, phrase)
    with pytest.raises(InputError):  # the end of a sentence that is too long is not read
        token_positions(tokenizer, "a big " * 20 + "star", "star")
