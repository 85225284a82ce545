"""Our own walk through UNet and VAE: diffusers' modules and weights in the same order, with fewer multiplications.

Two savings. Both are exact: only the order of float sums changes, so results differ by rounding.

The shared trunk. Guidance asks the UNet twice, with the prompt and without, about one and the same noisy image. Until
the first cross-attention nothing has read the text, so both halves of the doubled batch are equal; they are computed
once and doubled there. In the tiny UNet the trunk holds the first block, at the finest resolution.

Folded upsampling. An upsampler makes every pixel a square of 2 x 2 equal pixels and then convolves 3 x 3. Many of its
nine products share a pixel; adding their weights beforehand leaves a transposed convolution, 4 x 4 with stride 2, that
multiplies four times for every output pixel instead of nine. This pays on a CPU, so only there it is done.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, UNet2DConditionModel

Layer = Callable[[Tensor], Tensor]

_DOWN = {"DownBlock2D", "CrossAttnDownBlock2D"}
_UP = {"UpBlock2D", "CrossAttnUpBlock2D"}
_EXTRAS = ("class_embedding", "add_embedding", "encoder_hid_proj", "time_embed_act")  # not in Stable Diffusion 1 and 2


def fold(weight: Tensor) -> Tensor:
    """Kernel `[O, I, 3, 3]` of a convolution after doubling to one `[I, O, 4, 4]` of a transposed convolution.

    conv(double(x)) = conv_transpose(x, fold(weight), stride=2, padding=1), zeros around the image included: doubling
    is a transposed convolution with 2 x 2 ones, and two convolutions in a row are one, with the convolved kernel.
    """
    out_channels, in_channels = weight.shape[:2]
    ones = weight.new_ones(1, 1, 2, 2)
    spread = functional.conv2d(weight.reshape(-1, 1, 3, 3), ones, padding=1)  # [O * I, 1, 4, 4]
    return spread.reshape(out_channels, in_channels, 4, 4).flip(2, 3).transpose(0, 1).contiguous()  # [I, O, 4, 4]


def _folded(upsampler: Any) -> Layer:
    """A diffusers `Upsample2D` as one transposed convolution; on other devices than a CPU as it is."""
    conv = upsampler.conv
    if conv.weight.device.type != "cpu":
        return upsampler  # type: ignore[no-any-return]
    kernel = fold(conv.weight.detach())  # [I, O, 4, 4]
    if conv.weight.is_contiguous(memory_format=torch.channels_last):
        kernel = kernel.to(memory_format=torch.channels_last)
    return lambda h: functional.conv_transpose2d(h, kernel, conv.bias, stride=2, padding=1)


def _upsamplers(block: Any) -> list[Layer]:
    return [_folded(layer) for layer in block.upsamplers or ()]


def _plain_upsamplers(blocks: Any) -> bool:
    """Whether every upsampler doubles, then convolves 3 x 3, and does nothing else."""
    return all(
        layer.use_conv and not layer.use_conv_transpose and layer.interpolate and layer.norm is None
        and type(getattr(layer, "conv", None)) is nn.Conv2d and layer.conv.kernel_size == (3, 3)
        for block in blocks for layer in block.upsamplers or ()
    )  # fmt: skip


def _watched(network: nn.Module) -> bool:
    """Whether someone hooked the network's own call, which our walk would pass by."""
    return bool(network._forward_pre_hooks or network._forward_hooks)


class Walk:
    """One run's way through a UNet: x `[B, c, h, w]`, t `[B]`, context `[B or 2B, L, D]` to `[B or 2B, 4, h, w]`.

    A context of twice as many rows asks about each image twice: rows k and B + k of the answer belong to image k. Make
    a new one when weights have changed, for the folded kernels are computed here. A UNet with other parts than
    Stable Diffusion 1 and 2 have, or with hooks on it, is called as diffusers does.
    """

    def __init__(self, unet: UNet2DConditionModel) -> None:
        self.unet = unet
        self.plain = not _known(unet)
        self.upsamplers = [] if self.plain else [_upsamplers(block) for block in unet.up_blocks]

    def __call__(self, x: Tensor, t: Tensor, context: Tensor) -> Tensor:
        unet: Any = self.unet
        halvings = len(unet.up_blocks) - 1
        if self.plain or _watched(unet) or any(side % 2**halvings for side in x.shape[2:]):
            times = len(context) // len(x)
            return unet(x.repeat(times, 1, 1, 1), t.repeat(times), encoder_hidden_states=context).sample
        emb = unet.time_embedding(unet.time_proj(t).to(x.dtype))  # [B, E]
        h = unet.conv_in(x)  # [B, C, h, w]
        skips = [h]
        for block in unet.down_blocks:
            for resnet, attention in _layers(block):
                h = resnet(h, emb)
                if attention is not None:
                    h, emb, skips = _doubled(h, emb, skips, len(context))  # the trunk ends here
                    h = attention(h, encoder_hidden_states=context, return_dict=False)[0]
                skips.append(h)
            for downsampler in block.downsamplers or ():
                h = downsampler(h)
                skips.append(h)
        h = unet.mid_block.resnets[0](h, emb)
        h, emb, skips = _doubled(h, emb, skips, len(context))
        for attention, resnet in zip(unet.mid_block.attentions, unet.mid_block.resnets[1:], strict=True):
            h = resnet(attention(h, encoder_hidden_states=context, return_dict=False)[0], emb)
        for block, upsamplers in zip(unet.up_blocks, self.upsamplers, strict=True):
            for resnet, attention in _layers(block):
                h = resnet(torch.cat([h, skips.pop()], dim=1), emb)  # [B or 2B, C, h, w]
                if attention is not None:
                    h = attention(h, encoder_hidden_states=context, return_dict=False)[0]
            for upsampler in upsamplers:
                h = upsampler(h)
        return unet.conv_out(unet.conv_act(unet.conv_norm_out(h)))  # [B or 2B, 4, h, w]


def _layers(block: Any) -> Any:
    """Pairs of a residual block and the attention after it, or None."""
    return zip_longest(block.resnets, getattr(block, "attentions", ()))


def _doubled(h: Tensor, emb: Tensor, skips: list[Tensor], rows: int) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Repeat what is still `[B, ...]` to `rows`; what is already there stays."""
    times = rows // len(h)
    if times == 1:
        return h, emb, skips
    double = (torch.cat([one] * times) for one in (h, emb, *skips))
    return next(double), next(double), list(double)


def _known(unet: Any) -> bool:
    """Whether `unet` has the parts that our walk visits, and no other."""
    from diffusers import UNet2DConditionModel

    return (
        type(unet) is UNet2DConditionModel
        and all(getattr(unet, name, None) is None for name in _EXTRAS)
        and not unet.config.center_input_sample
        and unet.conv_norm_out is not None
        and type(unet.mid_block).__name__ == "UNetMidBlock2DCrossAttn"
        and {type(block).__name__ for block in unet.down_blocks} <= _DOWN
        and {type(block).__name__ for block in unet.up_blocks} <= _UP
        and not any(getattr(block, "s1", None) for block in unet.up_blocks)  # FreeU
        and _plain_upsamplers(unet.up_blocks)
    )


def decoder(vae: AutoencoderKL) -> Layer:
    """The VAE's decoder with folded upsampling: unscaled latents `[B, 4, h, w]` to `[B, 3, H, W]`.

    An autoencoder with other parts than Stable Diffusion's, or one that works in tiles or slices, decodes as it is.
    """
    known = (
        type(vae).__name__ == "AutoencoderKL" and not (vae.use_tiling or vae.use_slicing or _watched(vae.decoder))
        and {type(block).__name__ for block in vae.decoder.up_blocks} == {"UpDecoderBlock2D"}
        and _plain_upsamplers(vae.decoder.up_blocks)
    )  # fmt: skip
    if not known:
        return lambda z: vae.decode(z).sample
    net: Any = vae.decoder
    upsamplers = [_upsamplers(block) for block in net.up_blocks]

    def decode(z: Tensor) -> Tensor:
        h = net.conv_in(z if vae.post_quant_conv is None else vae.post_quant_conv(z))  # [B, C, h, w]
        h = net.mid_block(h, None)
        for block, ups in zip(net.up_blocks, upsamplers, strict=True):
            for resnet in block.resnets:
                h = resnet(h, temb=None)
            for upsampler in ups:
                h = upsampler(h)  # [B, C, 2h, 2w]
        return net.conv_out(net.conv_act(net.conv_norm_out(h)))  # [B, 3, H, W]

    return decode
