"""Doubling and convolving in one: the upsamplers of UNet and VAE with less than half of the multiplications.

An upsampler makes every pixel a square of 2 x 2 equal pixels and then convolves 3 x 3. Several of the nine products of
an output pixel share a pixel; adding their weights beforehand leaves a transposed convolution, 4 x 4 with stride 2,
that multiplies four times for an output pixel. The result is the same but for the order of float sums. It pays on a
CPU, so only there it is done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

Layer = Callable[[Tensor], Tensor]


def fold(weight: Tensor) -> Tensor:
    """Kernel `[O, I, 3, 3]` of a convolution after doubling to one `[I, O, 4, 4]` of a transposed convolution.

    conv(double(x)) = conv_transpose(x, fold(weight), stride=2, padding=1), zeros around the image included: doubling
    is a transposed convolution with 2 x 2 ones, and two convolutions in a row are one, with the convolved kernel.
    """
    outputs, inputs = weight.shape[:2]
    ones = weight.new_ones(1, 1, 2, 2)
    spread = functional.conv2d(weight.reshape(-1, 1, 3, 3), ones, padding=1)  # [O * I, 1, 4, 4]
    return spread.reshape(outputs, inputs, 4, 4).flip(2, 3).transpose(0, 1).contiguous()  # [I, O, 4, 4]


def upsamplers(block: Any) -> list[Layer]:
    """The upsamplers of an up block, folded with the weights of this moment."""
    return [_folded(layer) for layer in block.upsamplers or ()]


def _folded(upsampler: Any) -> Layer:
    conv, as_it_is = upsampler.conv, cast(Layer, upsampler)
    if conv.weight.device.type != "cpu":
        return as_it_is
    kernel = fold(conv.weight.detach())  # [I, O, 4, 4]
    if conv.weight.is_contiguous(memory_format=torch.channels_last):
        kernel = kernel.to(memory_format=torch.channels_last)
    return lambda h: functional.conv_transpose2d(h, kernel, conv.bias, stride=2, padding=1)  # [B, C, 2h, 2w]


def can_fold(blocks: Iterable[Any]) -> bool:
    """Whether every upsampler of the up blocks doubles, then convolves 3 x 3, and does nothing else."""
    return all(
        layer.use_conv and not layer.use_conv_transpose and layer.interpolate and layer.norm is None
        and type(getattr(layer, "conv", None)) is nn.Conv2d and layer.conv.kernel_size == (3, 3)
        for block in blocks for layer in block.upsamplers or ()
    )  # fmt: skip


def hooked(network: nn.Module) -> bool:
    """Whether someone watches the calls of a part of `network`, which we would pass by."""
    return any(part._forward_pre_hooks or part._forward_hooks for part in network.modules())


def decoder(vae: AutoencoderKL) -> Layer:
    """The VAE's decoder with folded upsamplers: unscaled latents `[B, 4, h, w]` to `[B, 3, H, W]`.

    Make a new one when weights have changed. An autoencoder with other parts than Stable Diffusion's, with hooks, or
    one that works in tiles or slices decodes as diffusers does.
    """
    known = (
        type(vae).__name__ == "AutoencoderKL" and not (vae.use_tiling or vae.use_slicing or hooked(vae))
        and {type(block).__name__ for block in vae.decoder.up_blocks} == {"UpDecoderBlock2D"}
        and can_fold(vae.decoder.up_blocks)
    )  # fmt: skip
    if not known:
        return lambda z: cast(Tensor, vae.decode(z).sample)
    net: Any = vae.decoder
    folded = [upsamplers(block) for block in net.up_blocks]

    def decode(z: Tensor) -> Tensor:
        h = net.conv_in(z if vae.post_quant_conv is None else vae.post_quant_conv(z))  # [B, C, h, w]
        h = net.mid_block(h, None)
        for block, doubling in zip(net.up_blocks, folded, strict=True):
            for layer in block.resnets:
                h = layer(h, temb=None)
            for layer in doubling:
                h = layer(h)  # [B, C, 2h, 2w]
        return cast(Tensor, net.conv_out(net.conv_act(net.conv_norm_out(h))))  # [B, 3, H, W]

    return decode
