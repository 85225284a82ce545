"""From images to the numbers that are compared: `phantom_features`, `module_features`, `load_features`.

A distance between sets of images is a distance between sets of features, and sees no more than they do. A set of
features is any function from uint8 images [N, n, n] to float32 [N, d]. Here are those that a network makes:
`mame_lib.evaluation.radiomics` has some that need none, and `mame_lib.evaluation.fidelity` compares.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from mame_lib.errors import InputError
from mame_lib.evaluation.weights import loaded

Gray = NDArray[np.uint8]
F32 = NDArray[np.float32]
Features = Callable[[Any], F32]  # uint8 [N, n, n] to float32 [N, d]

WEIGHTS = Path(__file__).resolve().parent.parent / "weights" / "features" / "features.safetensors"
SIZE = 128  # side of what the shipped network sees
DIMENSIONS = 32
BATCH = 32  # images at once, always: the last bits of a convolution may depend on how many there are
# What the network was trained to say of an image. The binary ones are log-odds, the others are in these units.
BINARY = ("view", "vendor", "side")
UNITS = {"area": 0.18, "gland": 0.17, "noise": 1.0, "blur": 0.8, "gray": 1.5, "jpeg": 0.3, "gain": 0.2}
TARGETS = (*BINARY, *UNITS)


class PhantomNetwork(nn.Module):
    """Images [B, 1, 128, 128], gray 0..1, to features [B, 32]; 90,000 parameters.

    It looks at the whole image, four times: as it is, without its local mean, at its darkest tenth (a background that
    should be black), and at how strong its finest detail is around each pixel (noise, blur). Means and spreads of the
    last maps say how the image looks, a coarse grid where. `head` reads `TARGETS` off the features and is used in
    training alone. Features of the phantoms that it was trained on, as they are drawn, have mean 0 and standard
    deviation 1 each: `center` and `spread`.
    """

    center: Tensor
    spread: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_block(4, 16, kernel=5, stride=2), *_block(16, 24, stride=2), *_block(24, 24),  # -> [B, 24, 32, 32]
            *_block(24, 32, stride=2), *_block(32, 32), *_block(32, 48, stride=2), *_block(48, 48),  # -> [B, 48, 8, 8]
        )  # fmt: skip
        self.place = nn.Conv2d(48, 8, 1)
        self.bottleneck = nn.Sequential(nn.Linear(2 * 48 + 8 * 16, 64), nn.SiLU(), nn.Linear(64, DIMENSIONS))
        self.head = nn.Sequential(nn.SiLU(), nn.Linear(DIMENSIONS, len(TARGETS)))
        self.register_buffer("center", torch.zeros(DIMENSIONS))
        self.register_buffer("spread", torch.ones(DIMENSIONS))
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a third faster on a CPU

    def raw(self, images: Tensor) -> Tensor:
        """The features before they are centered and scaled, [B, 32]: what `head` reads."""
        around = F.avg_pool2d(images, 5, stride=1, padding=2, count_include_pad=False)
        # the diagonal Haar coefficients, the finest detail there is
        haar = F.pad(images, (0, 1, 0, 1), mode="replicate")
        haar = haar[..., :-1, :-1] - haar[..., 1:, :-1] - haar[..., :-1, 1:] + haar[..., 1:, 1:]
        strength = F.avg_pool2d(haar**2, 7, stride=1, padding=3).add(1e-6).log().div(4) + 2
        x = torch.cat([2 * images - 1, 8 * (images - around), (10 * images).clamp(max=1), strength], 1)  # [B, 4, n, n]
        x = self.body(x.contiguous(memory_format=torch.channels_last))
        mean = x.mean((2, 3))  # [B, 48]
        deviation = ((x - mean[:, :, None, None]) ** 2).mean((2, 3)).add(1e-4).sqrt()
        where = F.avg_pool2d(self.place(x), 2).flatten(1)  # [B, 8 * 16]
        features: Tensor = self.bottleneck(torch.cat([mean, deviation, where], 1))
        return features

    def forward(self, images: Tensor) -> Tensor:
        """[B, 1, 128, 128] -> [B, 32]."""
        return (self.raw(images) - self.center) / self.spread


def _block(inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(outputs), nn.SiLU(),
    ]  # fmt: skip


class NetworkFeatures:
    """A network as a function from uint8 images [N, n, n] to float32 [N, d]; `name` says which.

    Images are brought to `size` pixels (averaged down, or bilinear up), to gray 0..1, to `channels` equal channels,
    and to (x - mean) / std. They go in fixed batches, the last filled up with black, so that the numbers of an image do
    not depend on the others. An output [B, d, h, w] is averaged over h and w; of tokens [B, L, d] the mean is taken;
    what transformers wrap in an object is its `pooler_output`, or else the mean of its last tokens.
    """

    def __init__(
        self, module: nn.Module, name: str, *, size: int, channels: int = 1, mean: Sequence[float] | float = 0.0,
        std: Sequence[float] | float = 1.0, batch_size: int = BATCH,
    ) -> None:  # fmt: skip
        self.module, self.name, self.size, self.batch_size = module.eval(), name, size, batch_size
        self.mean, self.std = (
            torch.as_tensor(value, dtype=torch.float32).expand(channels).reshape(1, channels, 1, 1)
            for value in (mean, std)
        )

    @torch.no_grad()
    def __call__(self, images: Gray) -> F32:
        """uint8 [N, n, n] -> float32 [N, d]. Raises `InputError` for other images, or an output without features."""
        pixels = _checked(images)
        device = next((p.device for p in self.module.parameters()), torch.device("cpu"))
        parts = []
        for start in range(0, len(pixels), self.batch_size):
            batch = torch.from_numpy(pixels[start : start + self.batch_size]).float()[:, None] / 255
            if batch.shape[-1] != self.size:
                batch = F.interpolate(batch, (self.size,) * 2, mode="bilinear", antialias=True, align_corners=False)
            batch = ((batch - self.mean) / self.std).contiguous()
            full = F.pad(batch, (0, 0, 0, 0, 0, 0, 0, self.batch_size - len(batch)))
            parts.append(_vectors(self.module(full.to(device)), self.name)[: len(batch)].float().cpu())
        return np.asarray(torch.cat(parts).numpy(), np.float32)


def _checked(images: Any) -> Gray:
    try:
        pixels = np.ascontiguousarray(images)
    except ValueError as error:
        raise InputError("features are made of images of one size; bring them to one.") from error
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[1] != pixels.shape[2] or not pixels.size:
        raise InputError(f"features are made of uint8 images [N, n, n], not of {pixels.dtype} {list(pixels.shape)}.")
    return pixels


def _vectors(output: Any, name: str) -> Tensor:
    """[B, d] of whatever a network gives back."""
    if not isinstance(output, Tensor):
        pooled = getattr(output, "pooler_output", None)
        output = pooled if isinstance(pooled, Tensor) else getattr(output, "last_hidden_state", output)
    if isinstance(output, Tensor) and output.ndim == 4:
        return output.mean((2, 3))
    if isinstance(output, Tensor) and output.ndim == 3:
        return output.mean(1)
    if not isinstance(output, Tensor) or output.ndim != 2:
        shape = list(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise InputError(f"{name} gives {shape}; features are a tensor [B, d], [B, L, d] or [B, d, h, w].")
    return output


@lru_cache(maxsize=2)
def phantom_features(path: Path = WEIGHTS) -> NetworkFeatures:
    """The 32 features of the shipped `PhantomNetwork`, on the CPU; some 3 ms an image. `tools/train_features.py`.

    It knows what phantoms know: view, vendor look, area, gland, side, and noise, blur, background, JPEG and gain.
    What else may be wrong with an image it sees by chance. A third of what it was shown had been through the tiny
    autoencoder, and counted as neither blurred nor noisy: so it judges what an image shows and what was done to it,
    and overlooks the fine texture that every model of latents loses. `radiomics` do not.

    Raises
    ------
    InputError
        If the weights are missing, or not those of a `PhantomNetwork`.
    """
    network = loaded(PhantomNetwork(), path, "feature network", "tools/train_features.py")
    return NetworkFeatures(network, "phantom features", size=SIZE)


def module_features(
    module: nn.Module, *, size: int, channels: int = 3, mean: Sequence[float] | float = 0.5,
    std: Sequence[float] | float = 0.5, weights: str | Path | None = None, name: str | None = None,
    batch_size: int = BATCH,
) -> NetworkFeatures:  # fmt: skip
    """Any torch module as features: it takes [B, channels, size, size] and gives [B, d], [B, L, d] or [B, d, h, w].

    mean, std: of its normalization, on gray 0..1 (0.5 and 0.5 make -1..1). weights: a safetensors file to load into
    it first; what the file has beyond the module is left out. Take the layer before the last, with
    `torch.nn.Identity()` in the classifier's place: an Inception then gives the 2048 features of FID.

        net = torchvision.models.inception_v3(init_weights=False)    # or a ResNet-50 for RadImageNet
        net.fc = torch.nn.Identity()
        features = module_features(net, size=299, weights="weights.safetensors", name="Inception")

    FID as published wants Inception's weights of 2015 (the "pt_inception" file) and its own resizing: values of others
    are not comparable with papers.

    Raises
    ------
    InputError
        If the file cannot be read, or does not have all the weights of the module in their shapes.
    """
    if weights is not None:
        _fill(module, Path(weights))
    return NetworkFeatures(
        module, name or type(module).__name__, size=size, channels=channels, mean=mean, std=std, batch_size=batch_size
    )


def _fill(module: nn.Module, file: Path) -> None:
    """Weights from a file; none of the module's own may stay random."""
    try:
        there = load_file(file)
        missing = module.load_state_dict(there, strict=False).missing_keys
    except Exception as error:  # a missing, damaged or foreign file fails in many ways
        raise InputError(
            f"the weights {file} cannot be loaded into {type(module).__name__} ({type(error).__name__}); give a "
            "safetensors file of this architecture."
        ) from error
    if missing:
        raise InputError(
            f"the weights {file} have no {missing[0]!r} ({len(missing)} are missing); "
            f"give a safetensors file of {type(module).__name__}, its names as they are in the module."
        )


def load_features(source: str | Path, *, size: int | None = None, batch_size: int = 8) -> NetworkFeatures:
    """Features of a vision model of transformers (DINOv2, RAD-DINO, ViT, ResNet): a folder, or a name on the Hub.

    "phantom" is the shipped network. Weights are read from safetensors alone and no code of the repository is run.
    size and normalization are those of the model's preprocessor_config.json, where it has one; otherwise those
    of its configuration and of ImageNet. `size` overrides.

        features = load_features("facebook/dinov2-small")       # 384 features
        features = load_features("microsoft/rad-dino")          # 768, learned from chest radiographs

    Raises
    ------
    InputError
        If there is no such model here and the Hub cannot be reached, or it is no vision model in safetensors.
    """
    if str(source) == "phantom":
        return phantom_features()
    from transformers import AutoModel

    try:
        module = cast(
            nn.Module,
            AutoModel.from_pretrained(str(source), use_safetensors=True, trust_remote_code=False, dtype=torch.float32),
        )
    except Exception as error:  # the client of the Hub and the loader fail in many ways
        raise InputError(
            f"the features {str(source)!r} cannot be loaded ({type(error).__name__}); give a folder with config.json "
            "and model.safetensors of a vision model of transformers, or its name on the Hub where there is network."
        ) from error
    if getattr(module, "main_input_name", "") != "pixel_values":
        raise InputError(f"{str(source)!r} is no vision model; give one that takes pixel_values, such as DINOv2.")
    said = _preprocessing(source)
    side = size or _side(said) or getattr(module.config, "image_size", None) or 224
    mean, std = said.get("image_mean", (0.485, 0.456, 0.406)), said.get("image_std", (0.229, 0.224, 0.225))
    channels = int(getattr(module.config, "num_channels", 3))
    if len(mean) != channels:
        mean, std = [sum(mean) / len(mean)] * channels, [sum(std) / len(std)] * channels
    return NetworkFeatures(
        module, Path(source).name, size=int(side), channels=channels, mean=mean, std=std, batch_size=batch_size
    )


def _preprocessing(source: str | Path) -> dict[str, Any]:
    """What preprocessor_config.json says; nothing where there is none."""
    from transformers.image_processing_base import ImageProcessingMixin

    try:
        return dict(ImageProcessingMixin.get_image_processor_dict(str(source))[0])
    except (OSError, ValueError):
        return {}


def _side(said: dict[str, Any]) -> int | None:
    """The side that images are cropped to, else that they are brought to."""
    for key in ("crop_size", "size"):
        value = said.get(key)
        if isinstance(value, int):
            return value
        if isinstance(value, dict) and (side := value.get("height") or value.get("shortest_edge")):
            return int(side)
    return None
