"""Our walk through UNet and VAE gives what diffusers gives, for every layout, and steps aside where it must."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn
from torch.nn import functional

from mame_lib.models.attention import record_cross_attention
from mame_lib.models.folding import decoder, fold
from mame_lib.models.inpainting import widen
from mame_lib.models.tiny import tiny_unet, tiny_vae
from mame_lib.models.walk import Walk

CROSS = ("CrossAttnDownBlock2D", "DownBlock2D"), ("UpBlock2D", "CrossAttnUpBlock2D")


def _small(**changes: Any) -> UNet2DConditionModel:
    """As SD 1.5: cross-attention at the finest resolution, two layers a block, its number of heads."""
    settings: dict[str, Any] = {
        "sample_size": 16, "block_out_channels": (16, 32), "layers_per_block": 2, "norm_num_groups": 8,
        "down_block_types": CROSS[0], "up_block_types": CROSS[1], "cross_attention_dim": 96, "attention_head_dim": 8,
    }  # fmt: skip
    return UNet2DConditionModel(**settings | changes)


def _wide() -> UNet2DConditionModel:
    unet = tiny_unet()
    widen(unet)
    nn.init.normal_(unet.conv_in.weight, std=0.1)  # so that mask and surroundings count
    return unet


LAYOUTS = {
    "tiny": tiny_unet,
    "tiny-inpaint": _wide,
    "sd15": _small,
    "sd2": lambda: _small(use_linear_projection=True, attention_head_dim=[2, 4]),
    "two transformers": lambda: _small(transformer_layers_per_block=2),
    # a group of 20 channels would hold some of both the 24 from below and the trunk's 16
    "groups across the seam": lambda: _small(
        block_out_channels=(16, 24),
        norm_num_groups=2,
        layers_per_block=1,
        down_block_types=CROSS[0][::-1],
        up_block_types=CROSS[1][::-1],
    ),
}


@pytest.fixture(params=LAYOUTS)
def unet(request: pytest.FixtureRequest) -> UNet2DConditionModel:
    torch.manual_seed(0)
    made = LAYOUTS[request.param]().eval().requires_grad_(False)
    for part in made.modules():  # norms that do something, else a mixed-up channel would not show
        if isinstance(part, nn.GroupNorm | nn.LayerNorm):
            nn.init.normal_(part.weight, 1.0, 0.3)
            nn.init.normal_(part.bias, 0.0, 0.3)
    return made


def _inputs(unet: UNet2DConditionModel, rows: int = 3, side: int = 16) -> tuple[Tensor, Tensor, Tensor]:
    make = torch.Generator().manual_seed(1)
    x = torch.randn(rows, unet.config.in_channels, side, side, generator=make)  # [B, c, h, w]
    return x, torch.tensor([900, 20, 500][:rows]), torch.randn(2 * rows, 12, 96, generator=make)


@torch.no_grad()
def _plain(unet: UNet2DConditionModel, x: Tensor, t: Tensor, context: Tensor) -> Tensor:
    times = len(context) // len(x)
    return unet(torch.cat([x] * times), torch.cat([t] * times), encoder_hidden_states=context).sample


def test_same_answer_with_and_without_guidance(unet: UNet2DConditionModel) -> None:
    x, t, context = _inputs(unet)
    walk = Walk(unet)
    assert walk.known
    for some in (context, context[:3]):
        wanted = _plain(unet, x, t, some)
        torch.testing.assert_close(walk(x, t, some), wanted, rtol=0, atol=5e-6)
    unet.double()
    exact = _plain(unet, x.double(), t, context.double())  # in float64 nothing can hide behind rounding
    torch.testing.assert_close(Walk(unet)(x.double(), t, context.double()), exact, rtol=0, atol=1e-12)


def test_the_trunk_is_computed_once(unet: UNet2DConditionModel, monkeypatch: pytest.MonkeyPatch) -> None:
    x, t, context = _inputs(unet)
    walk, seen = Walk(unet), []
    own = unet.conv_in.forward
    monkeypatch.setattr(unet.conv_in, "forward", lambda h: seen.append(len(h)) or own(h))
    first = unet.down_blocks[0].resnets[0].conv1
    below = first.forward
    monkeypatch.setattr(first, "forward", lambda h: seen.append(len(h)) or below(h))
    assert walk(x, t, context).shape == (6, 4, 16, 16)
    assert seen == [3, 3]


@pytest.mark.parametrize("size", [(5, 7), (4, 4), (1, 1)])
def test_a_folded_kernel_is_doubling_and_convolving(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(2, 3, *size).double(), torch.randn(4, 3, 3, 3).double()
    doubled = functional.conv2d(functional.interpolate(x, scale_factor=2.0, mode="nearest"), weight, padding=1)
    folded = functional.conv_transpose2d(x, fold(weight), stride=2, padding=1)
    torch.testing.assert_close(folded, doubled, rtol=0, atol=1e-12)


def test_watchers_see_the_doubled_batch_as_diffusers_makes_it() -> None:
    unet = tiny_unet().eval().requires_grad_(False)
    x, t, context = _inputs(unet)
    walk = Walk(unet)
    with record_cross_attention(unet) as maps:  # begun after the walk was made
        walk(x, t, context)
    assert {len(one.weights) for one in maps} == {6}
    seen: list[int] = []
    hook = unet.mid_block.register_forward_hook(lambda _, args, out: seen.append(len(out)))
    Walk(unet)(x, t, context)
    hook.remove()
    assert seen == [6]


@pytest.mark.parametrize(
    "changes",
    [{"resnet_time_scale_shift": "scale_shift"}, {"num_class_embeds": None, "time_embedding_act_fn": "silu"},
     {"mid_block_type": "UNetMidBlock2DSimpleCrossAttn"}],
)  # fmt: skip
def test_other_networks_are_left_to_diffusers(changes: dict[str, Any]) -> None:
    torch.manual_seed(0)
    unet = _small(**changes).eval().requires_grad_(False)
    x, t, context = _inputs(unet)
    walk = Walk(unet)
    assert not walk.known
    assert torch.equal(walk(x, t, context), _plain(unet, x, t, context))


def test_a_low_rank_adapter_counts() -> None:
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    unet = tiny_unet().eval().requires_grad_(False)
    x, t, context = _inputs(unet)
    bare = _plain(unet, x, t, context)
    unet.add_adapter(peft.LoraConfig(r=2, target_modules=["to_q", "to_v", "conv1", "conv_shortcut"],
                                     init_lora_weights=False))  # fmt: skip
    unet.eval()
    wanted = _plain(unet, x, t, context)
    assert float((wanted - bare).abs().max()) > 1e-3
    torch.testing.assert_close(Walk(unet)(x, t, context), wanted, rtol=0, atol=1e-5)


def test_odd_sizes_training_and_ordinary_tensors() -> None:
    torch.manual_seed(0)
    unet = tiny_unet().eval().requires_grad_(False)
    x, t, context = _inputs(unet, side=10)  # 10 is halved to 5, then to 3
    assert torch.equal(Walk(unet)(x, t, context), _plain(unet, x, t, context))
    x, t, context = _inputs(unet)
    unet.requires_grad_(True).train()
    Walk(unet)(x, t, context).sum().backward()
    assert unet.conv_in.weight.grad is not None
    unet.requires_grad_(False).eval()
    answer = Walk(unet)(x, t, context)
    weight = torch.ones(1, requires_grad=True)
    (answer * weight).sum().backward()  # an inference tensor would refuse
    assert weight.grad is not None


@pytest.mark.parametrize("attention", [False, True])
def test_the_decoder_decodes_as_diffusers_does(attention: bool) -> None:
    torch.manual_seed(0)
    if attention:
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3,
            block_out_channels=(8, 8, 16), norm_num_groups=4, sample_size=32, use_post_quant_conv=False,
        )  # fmt: skip
    else:
        vae = tiny_vae()
    vae.eval().requires_grad_(False)
    z = torch.randn(2, 4, 6, 5)
    wanted = vae.decode(z).sample
    torch.testing.assert_close(decoder(vae)(z), wanted, rtol=1e-5, atol=1e-5)
    lasting = vae.to(memory_format=torch.channels_last)
    torch.testing.assert_close(decoder(lasting)(z), wanted, rtol=1e-5, atol=1e-5)
    exact = vae.double().decode(z.double()).sample  # rounding aside it is the same to the last digits
    torch.testing.assert_close(decoder(vae)(z.double()), exact, rtol=0, atol=1e-12)
    vae.float()
    seen: list[int] = []
    vae.decoder.mid_block.register_forward_hook(lambda *_: seen.append(1))
    vae.decoder.register_forward_hook(lambda *_: seen.append(2))
    decoder(vae)(z)
    assert seen == [1, 2]
