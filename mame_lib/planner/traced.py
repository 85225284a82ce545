"""One training step, one encoding and one drawing of a planned run, traced on fake networks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F

from mame_lib.models.components import Components
from mame_lib.planner.networks import bare_components
from mame_lib.planner.trace import Ledger, autocast_of
from mame_lib.training.config import TrainConfig
from mame_lib.training.networks import trainable
from mame_lib.training.precision import DTYPES


@dataclass(frozen=True)
class Line:
    """Bytes that grow with the number of images: `fixed + each * count`."""

    fixed: int
    each: int

    def __call__(self, count: int) -> int:
        return self.fixed + self.each * count


@dataclass(frozen=True)
class Resting:
    """What does not depend on how a model is trained, in bytes.

    weights : of each network, in float32. image_size : side of the images in pixels.
    encoding, denoising, decoding : largest activations of a pass without gradients, for a number of images.
    """

    weights: Mapping[str, int]
    image_size: int
    encoding: Line
    denoising: Line
    decoding: Line


@lru_cache(maxsize=16)
def resting(config: TrainConfig) -> Resting:
    """Sizes of the networks and of their passes without gradients."""
    parts = bare_components(config)
    weights = {
        name: sum(t.numel() * t.element_size() for t in _tensors(network))
        for name, network in _networks(parts).items()
    }
    with _filled(parts):
        return Resting(weights, parts.image_size, *(_line(parts, run) for run in (_encode, _denoise, _decode)))


@lru_cache(maxsize=64)
def learning(
    config: TrainConfig, device_kind: str, precision: str, rows: int, accumulates: bool
) -> tuple[Mapping[str, int], tuple[int, ...]]:
    """One forward and backward pass with `rows` images: bytes by kind at the peak, and elements of each trained tensor.

    Weights are not counted, nor, when it `accumulates`, the gradient that is there before.
    """
    parts = bare_components(config)
    trainable(config, parts)
    with _filled(parts):
        learned = [p for n in _networks(parts).values() for p in n.parameters() if p.requires_grad]
        step = _step(parts, learned, rows, device_kind, DTYPES[precision], accumulates)
        return step, tuple(p.numel() for p in learned)


def shape_of(config: TrainConfig) -> TrainConfig:
    """The configuration with everything left out that does not change the networks: a key for the caches above."""
    return TrainConfig(
        data=Path(), out=Path(), preset=config.preset, base=config.base, method=config.method,
        lora_rank=config.lora_rank, text_learning_rate_factor=float(config.trains_text),
        gradient_checkpointing=config.gradient_checkpointing,
    )  # fmt: skip


def _networks(parts: Components) -> dict[str, nn.Module]:
    return {"unet": parts.unet, "text_encoder": parts.text_encoder, "vae": parts.vae}


def _tensors(network: nn.Module) -> list[Tensor]:
    return [*network.parameters(), *network.buffers()]


@contextmanager
def _filled(parts: Components) -> Iterator[None]:
    """Inside the block the networks hold fake tensors of the CPU, so that its kernels are the ones that are chosen."""
    with FakeTensorMode():
        for network in _networks(parts).values():
            network._apply(lambda t: torch.empty(t.shape, dtype=t.dtype))
        yield


def _line(parts: Components, run: Callable[[Components, int], Tensor]) -> Line:
    """Largest activations of a pass without gradients, from one image and from two."""
    peaks = []
    for count in (1, 2):
        with torch.no_grad(), Ledger(_weights(parts)) as ledger:
            run(parts, count)
        peaks.append(ledger.peak.total())
    return Line(2 * peaks[0] - peaks[1], peaks[1] - peaks[0])


def _weights(parts: Components) -> list[Tensor]:
    return [t for network in _networks(parts).values() for t in _tensors(network)]


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
    parts: Components, learned: list[nn.Parameter], rows: int, device_kind: str, dtype: torch.dtype, accumulates: bool
) -> dict[str, int]:
    """The kinds of memory at the peak of one forward and backward pass, besides the weights and old gradients.

    The worst case is assumed for captions: all different, so each is encoded for itself.
    """
    old = [torch.empty_like(p) if accumulates else None for p in learned]
    for parameter, gradient in zip(learned, old, strict=True):
        parameter.grad = gradient
    known = [*_weights(parts), *(g for g in old if g is not None)]
    with Ledger(known, learned) as ledger, autocast_of(device_kind, dtype, ledger):
        answer = _denoise(parts, rows).float()  # [B, 4, h, w]
        F.mse_loss(answer, torch.empty_like(answer)).backward()
    for parameter in learned:
        parameter.grad = None
    return dict(ledger.peak)
