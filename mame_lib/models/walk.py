"""Our own walk through the UNet of Stable Diffusion: diffusers' modules and weights in the same order, less work.

Guidance asks the UNet twice, with the prompt and without, about one and the same noisy image. Three savings follow, all
exact but for the order of float sums:

The trunk. Until the first cross-attention nothing has read the text, so both halves of the doubled batch are equal.
They are computed once and doubled there. In the tiny UNet the trunk holds the first block, at the finest resolution.

Skips of the trunk. Up blocks join what comes from below with a skip `s`, and convolve: W * [h, s] = W_h * h + W_s * s.
A skip that left the trunk is the same for both halves, so its part is computed once. (GroupNorm before it allows this
when no group holds channels of both.)

Upsamplers are folded, see `mame_lib.models.folding`.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, group_norm, scaled_dot_product_attention, silu

from mame_lib.models.folding import can_fold, hooked, upsamplers

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel

_BLOCKS = {"DownBlock2D", "CrossAttnDownBlock2D", "UpBlock2D", "CrossAttnUpBlock2D", "UNetMidBlock2DCrossAttn"}
_EXTRAS = ("class_embedding", "add_embedding", "encoder_hid_proj", "time_embed_act")  # not in Stable Diffusion 1 and 2


class Walk:
    """One run's way through a UNet: x `[B, c, h, w]`, t `[B]`, context `[B or 2B, L, D]` to `[B or 2B, 4, h, w]`.

    A context of twice as many rows asks about each image twice: rows k and B + k of the answer belong to image k. Make
    a new one when weights have changed, for the folded kernels are computed here. A UNet in training, with other
    parts than Stable Diffusion 1 and 2 have, or watched by hooks is called as diffusers does.
    """

    def __init__(self, unet: UNet2DConditionModel) -> None:
        self.unet: Any = unet
        self.known = _known(unet)
        self.upsamplers = [upsamplers(block) for block in unet.up_blocks] if self.known else []

    def __call__(self, x: Tensor, t: Tensor, context: Tensor) -> Tensor:
        unet = self.unet
        halved = 2 ** (len(unet.up_blocks) - 1)  # the coarsest pixel
        watched = unet._forward_pre_hooks or unet._forward_hooks
        if not self.known or unet.training or watched or x.shape[2] % halved or x.shape[3] % halved:
            times = len(context) // len(x)
            answer = unet(x.repeat(times, 1, 1, 1), t.repeat(times), encoder_hidden_states=context)
            return cast(Tensor, answer.sample)
        with torch.inference_mode():  # a little cheaper than no_grad; the copy is an ordinary tensor again
            ours = self._ours(x, t, context)
        return ours.clone()

    def _ours(self, x: Tensor, t: Tensor, context: Tensor) -> Tensor:
        unet = self.unet
        emb = silu(unet.time_embedding(unet.time_proj(t).to(x.dtype)))  # [B, E]
        h = unet.conv_in(x)  # [B, C, h, w]; from the first attention on every h is [B or 2B, ...]
        skips = [h]
        for block in unet.down_blocks:
            for resnet, transformer in _layers(block):
                h = _resnet(resnet, h, emb)
                if transformer is not None:
                    h = _transformer(transformer, h, context)
                skips.append(h)
            for downsampler in block.downsamplers or ():
                h = downsampler(h)  # [., C, h / 2, w / 2]
                skips.append(h)
        h = _resnet(unet.mid_block.resnets[0], h, emb)
        for transformer, resnet in zip(unet.mid_block.attentions, unet.mid_block.resnets[1:], strict=True):
            h = _resnet(resnet, _transformer(transformer, h, context), emb)
        for block, doubling in zip(unet.up_blocks, self.upsamplers, strict=True):
            for resnet, transformer in _layers(block):
                h = _joined(resnet, h, skips.pop(), emb)
                if transformer is not None:
                    h = _transformer(transformer, h, context)
            for upsampler in doubling:
                h = upsampler(h)  # [., C, 2h, 2w]
        return cast(Tensor, unet.conv_out(unet.conv_act(unet.conv_norm_out(h))))


def _layers(block: Any) -> Iterator[tuple[Any, Any]]:
    """Pairs of a residual block and the transformer after it, or None."""
    return zip_longest(block.resnets, getattr(block, "attentions", ()))


def _twice(small: Tensor, rows: int) -> Tensor:
    """`[B, ...]` repeated to `rows`, which is B or 2B."""
    return small if len(small) == rows else torch.cat([small, small])


def _resnet(layer: Any, x: Tensor, emb: Tensor) -> Tensor:
    """norm, SiLU, convolution, plus time; norm, SiLU, convolution; plus x itself: `[., C, h, w]`."""
    h = layer.conv1(silu(layer.norm1(x))) + _time(layer, emb, len(x))
    h = layer.conv2(silu(layer.norm2(h)))
    return h + (x if layer.conv_shortcut is None else layer.conv_shortcut(x))


def _time(layer: Any, emb: Tensor, rows: int) -> Tensor:
    """What the timestep adds to each channel, `[B, E]` to `[rows, C, 1, 1]`."""
    return _twice(layer.time_emb_proj(emb), rows)[:, :, None, None]


def _joined(layer: Any, h: Tensor, skip: Tensor, emb: Tensor) -> Tensor:
    """The residual block for [h, skip], joined along the channels; a skip `[B, ...]` beside h `[2B, ...]` only once."""
    channels = h.shape[1]
    size = (channels + skip.shape[1]) // layer.norm1.num_groups  # channels of a group
    plain = type(layer.conv1) is type(layer.conv_shortcut) is nn.Conv2d  # no adapter around it
    if len(skip) == len(h) or channels % size or not plain:
        return _resnet(layer, torch.cat([h, _twice(skip, len(h))], dim=1), emb)  # [., C, h, w]
    norm, conv, shortcut = layer.norm1, layer.conv1, layer.conv_shortcut
    parts = []
    for x, part in ((h, slice(None, channels)), (skip, slice(channels, None))):
        y = silu(group_norm(x, x.shape[1] // size, norm.weight[part], norm.bias[part], norm.eps))
        parts.append((conv2d(y, conv.weight[:, part], padding=1), conv2d(x, shortcut.weight[:, part])))
    (once, straight), (shared, straight_shared) = parts  # of h: [2B, C, h, w]; of the skip: [B, C, h, w]
    shared = shared + conv.bias[:, None, None] + _time(layer, emb, len(skip))
    y = layer.conv2(silu(layer.norm2(once + _twice(shared, len(h)))))
    return cast(Tensor, y + straight + _twice(straight_shared + shortcut.bias[:, None, None], len(h)))


def _transformer(layer: Any, h: Tensor, context: Tensor) -> Tensor:
    """Self-attention, cross-attention to the text and a feed-forward net at every place: `[B or 2B, C, h, w]`.

    Here the trunk ends: h takes as many rows as the context `[B or 2B, L, D]` has.
    """
    h = _twice(h, len(context))
    x, linear = layer.norm(h), layer.use_linear_projection
    x = layer.proj_in(x.flatten(2).transpose(1, 2)) if linear else layer.proj_in(x).flatten(2).transpose(1, 2)
    for block in layer.transformer_blocks:  # x [., h * w, C]
        y = block.norm1(x)
        x = x + _attention(block.attn1, y, y)
        x = x + _attention(block.attn2, block.norm2(x), context)
        x = x + block.ff(block.norm3(x))
    x = layer.proj_out(x).transpose(1, 2) if linear else x.transpose(1, 2)
    x = x.unflatten(2, h.shape[2:])  # [., C, h, w]
    return cast(Tensor, h + (x if linear else layer.proj_out(x)))


def _attention(layer: Any, x: Tensor, context: Tensor) -> Tensor:
    """softmax(Q K^T / sqrt(d)) V: places x `[., P, C]` read the tokens of context `[., L, D]`."""
    projections = ((layer.to_q, x), (layer.to_k, context), (layer.to_v, context))
    q, k, v = (project(rows).unflatten(2, (layer.heads, -1)).transpose(1, 2) for project, rows in projections)
    mixed = scaled_dot_product_attention(q, k, v)  # [., heads, P, d]
    return cast(Tensor, layer.to_out[0](mixed.transpose(1, 2).flatten(2)))  # [., P, C]


def _known(unet: Any) -> bool:
    """Whether `unet` has the parts that our walk visits, set as in Stable Diffusion, and no other."""
    from diffusers import UNet2DConditionModel

    if type(unet) is not UNet2DConditionModel or hooked(unet):
        return False
    kinds: dict[str, list[Any]] = {}
    for part in unet.modules():
        kinds.setdefault(type(part).__name__, []).append(part)
    blocks = [*unet.down_blocks, unet.mid_block, *unet.up_blocks]
    return (
        all(getattr(unet, name, None) is None for name in _EXTRAS)
        and not unet.config.center_input_sample and unet.conv_norm_out is not None
        and {type(block).__name__ for block in blocks} <= _BLOCKS
        and not any(getattr(block, "s1", None) for block in unet.up_blocks)  # FreeU
        and can_fold(unet.up_blocks)
        and all(_known_resnet(part) for part in kinds["ResnetBlock2D"])
        and all(part.norm_type == "layer_norm" and part.pos_embed is None for part in kinds["BasicTransformerBlock"])
        and all(_known_attention(part) for part in kinds["Attention"])
    )  # fmt: skip


def _known_resnet(layer: Any) -> bool:
    return (
        layer.time_embedding_norm == "default" and layer.time_emb_proj is not None and not layer.skip_time_act
        and layer.upsample is None and layer.downsample is None and layer.output_scale_factor == 1.0
        and isinstance(layer.nonlinearity, nn.SiLU)
    )  # fmt: skip


def _known_attention(layer: Any) -> bool:
    extras = ("group_norm", "spatial_norm", "norm_cross", "norm_q", "norm_k", "add_k_proj")
    return (
        type(layer.processor).__name__ == "AttnProcessor2_0" and all(getattr(layer, e, None) is None for e in extras)
        and not layer.residual_connection and layer.rescale_output_factor == 1.0
    )  # fmt: skip
