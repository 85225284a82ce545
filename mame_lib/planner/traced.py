"""One training step, one encoding and one drawing of a planned run, traced on fake networks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F

from mame_lib.models.components import Components
from mame_lib.planner.networks import bare_components
from mame_lib.planner.trace import Ledger, cuda_autocast
from mame_lib.training.config import TrainConfig
from mame_lib.training.networks import trainable
from mame_lib.training.precision import DTYPES


@dataclass(frozen=True)
class Line:
    """A number of bytes that grows with the images: `fixed + each * count`."""

    fixed: int
    each: int

    def __call__(self, count: int) -> int:
        return self.fixed + self.each * count

    @classmethod
    def through(cls, one: int, two: int) -> Line:
        """The line through the bytes of one image and of two."""
        return cls(2 * one - two, two - one)


@dataclass(frozen=True)
class Traced:
    """What the parts of a run hold, in bytes.

    weights : of each network, float32. trained : numbers of elements of each trained tensor.
    step : activations, gradients and autocast copies at the peak of one forward and backward pass.
    encoding, denoising, decoding : largest activations without gradients, for a number of images.
    """

    weights: Mapping[str, int]
    trained: tuple[int, ...]
    step: Mapping[str, int]
    encoding: Line
    denoising: Line
    decoding: Line


@lru_cache(maxsize=64)
def traced(
    base: str, preset: str, method: str, trains_text: bool, checkpointing: bool, lora_rank: int, precision: str,
    rows: int, accumulates: bool,
) -> Traced:  # fmt: skip
    """Trace a run of these settings with `rows` images at once; `accumulates` when the gradient is there before."""
    config = TrainConfig(
        data="", out="", base=base, preset=preset, method=method, gradient_checkpointing=checkpointing,  # type: ignore[arg-type]
        text_learning_rate_factor=float(trains_text), lora_rank=lora_rank,
    )  # fmt: skip
    parts = bare_components(config)
    trainable(config, parts)
    networks = {"unet": parts.unet, "text_encoder": parts.text_encoder, "vae": parts.vae}
    weights = {
        name: sum(t.numel() * t.element_size() for t in (*network.parameters(), *network.buffers()))
        for name, network in networks.items()
    }
    with FakeTensorMode():  # from meta to a device with kernels to choose from
        for network in networks.values():
            network._apply(lambda t: torch.empty(t.shape, dtype=t.dtype))
        learned = [p for network in networks.values() for p in network.parameters() if p.requires_grad]
        forward = [_line(parts, run) for run in (_encode, _denoise, _decode)]
        step = _step(parts, learned, rows, DTYPES[precision], accumulates)
    return Traced(weights, tuple(p.numel() for p in learned), step, *forward)


def _line(parts: Components, run: Callable[[Components, int], Tensor]) -> Line:
    """Largest activations of a pass without gradients, from one image and from two."""
    peaks = []
    for count in (1, 2):
        with torch.no_grad(), Ledger(_weights(parts)) as ledger:
            run(parts, count)
        peaks.append(ledger.peak.total())
    return Line(2 * peaks[0] - peaks[1], peaks[1] - peaks[0])


def _weights(parts: Components) -> list[Tensor]:
    networks = (parts.unet, parts.text_encoder, parts.vae)
    return [t for network in networks for t in (*network.parameters(), *network.buffers())]


def _encode(parts: Components, count: int) -> Tensor:
    latents: Tensor = parts.vae.encode(torch.empty(count, 3, parts.image_size, parts.image_size)).latent_dist.std
    return latents  # [B, 4, h, w]


def _decode(parts: Components, count: int) -> Tensor:
    images: Tensor = parts.vae.decode(torch.empty(count, *parts.latent_shape)).sample.float().mean(1)
    return images  # [B, n, n]


def _denoise(parts: Components, count: int) -> Tensor:
    """The UNet's answer for `count` noisy latents, with a caption each."""
    _, side, _ = parts.latent_shape
    tokens = int(parts.text_encoder.config.max_position_embeddings)
    context = parts.text_encoder(torch.zeros(count, tokens, dtype=torch.long)).last_hidden_state  # [B, L, D]
    noisy = torch.empty(count, int(parts.unet.config.in_channels), side, side)  # [B, 4 or 9, h, w]
    answer: Tensor = parts.unet(noisy, torch.zeros(count, dtype=torch.long), encoder_hidden_states=context).sample
    return answer  # [B, 4, h, w]


def _step(
    parts: Components, learned: list[nn.Parameter], rows: int, dtype: torch.dtype, accumulates: bool
) -> dict[str, int]:
    """The kinds of memory at the peak of one forward and backward pass, besides the weights and old gradients.

    The worst case is assumed for captions: all different, so each is encoded for itself.
    """
    old = [torch.empty_like(p) if accumulates else None for p in learned]
    for parameter, gradient in zip(learned, old, strict=True):
        parameter.grad = gradient
    known = [*_weights(parts), *(g for g in old if g is not None)]
    with Ledger(known, learned) as ledger, cuda_autocast(dtype, ledger) as end_forward:
        answer = _denoise(parts, rows).float()  # [B, 4, h, w]
        end_forward()
        F.mse_loss(answer, torch.empty_like(answer)).backward()
    for parameter in learned:
        parameter.grad = None
    return dict(ledger.peak)
