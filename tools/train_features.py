"""Train the network of `mame_lib.evaluation.features` on phantoms and write its weights.

    python tools/train_features.py [--out mame_lib/weights/features/features.safetensors]

Draws phantoms, sends a half of them through the tiny autoencoder, damages them anew each time they are shown, and
teaches the network to say what was drawn and what was done to it. No real image is used. Some ten minutes of one core;
the phantoms are kept in build/features.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from mame_lib.data.case import Attributes
from mame_lib.data.phantom import draw
from mame_lib.evaluation import degradations
from mame_lib.evaluation.features import BATCH, BINARY, SIZE, TARGETS, UNITS, WEIGHTS, PhantomNetwork
from mame_lib.models.components import Components

TRAIN, TEST = 41_000_000, 42_000_000  # seeds of the phantoms; no other script draws them
COUNTS = {TRAIN: 1600, TEST: 160}
STEPS, RATE = 1300, 3e-3


class Phantoms(NamedTuple):
    """Images [N, n, n], twice (as drawn, and through the autoencoder), their masks, and what is known of them.

    said: [N, 4], MLO, Siemens, area ratio, square root of the glandular fraction.
    """

    images: NDArray[np.uint8]
    decoded: NDArray[np.uint8]
    masks: NDArray[np.bool_]
    said: NDArray[np.float32]


def phantoms(seed: int, work: Path) -> Phantoms:
    """The phantoms of a seed, drawn or read from `work`."""
    file = work / f"phantoms-{seed}.safetensors"
    if not file.exists():
        drawn = [draw(Attributes(), size=SIZE, seed=seed, index=k) for k in range(COUNTS[seed])]
        images = np.stack([one.image for one in drawn])
        said = [
            (one.attributes.view == "MLO", one.attributes.vendor == "siemens", one.area_ratio,
             one.glandular_fraction**0.5) for one in drawn
        ]  # fmt: skip
        vae = Components.load("tiny").vae
        half = len(images) // 2
        decoded = np.concatenate([
            degradations.round_trip(images[:half], vae),
            degradations.round_trip(images[half:], vae, latent_noise=0.25, seed=seed),
        ])  # fmt: skip
        file.parent.mkdir(parents=True, exist_ok=True)
        kept = {"images": images, "decoded": decoded, "masks": np.stack([one.mask for one in drawn]).astype(np.uint8),
                "said": np.array(said, np.float32)}  # fmt: skip
        save_arrays(kept, file.with_suffix(".partial"))
        file.with_suffix(".partial").rename(file)
    read = load_arrays(file)
    return Phantoms(read["images"], read["decoded"], read["masks"].astype(bool), read["said"])


def shown(some: Phantoms, k: int, rng: np.random.Generator) -> tuple[NDArray[np.uint8], list[float]]:
    """Phantom k, a quarter of the time as it is, otherwise after mishaps drawn at random; and its `TARGETS`."""
    mlo, siemens, area, root = (float(value) for value in some.said[k])
    gain, blur, gray, noise, quality = 1.0, 0.0, 0.0, 0.0, 100
    image = some.decoded[k] if rng.random() < 0.35 else some.images[k]
    if rng.random() < 0.75:
        if rng.random() < 0.25:
            gain = float(rng.uniform(0.7, 1.3))
            image = np.asarray(np.clip(np.rint(gain * image.astype(np.float32)), 0, 255), np.uint8)
        if rng.random() < 0.35:
            blur = float(rng.uniform(0.3, 2.5))
            image = degradations.blurred(image, blur)
        if rng.random() < 0.35:
            gray = float(np.exp(rng.uniform(np.log(2), np.log(90))))
            image = degradations.gray_background(image, some.masks[k], gray)
        if rng.random() < 0.35:
            noise = float(np.exp(rng.uniform(np.log(0.5), np.log(12))))
            image = degradations.noisy(image, noise, rng)
        if rng.random() < 0.35:
            quality = int(rng.integers(8, 96))
            image = degradations.jpeg(image, quality)
    right = bool(rng.random() < 0.5)
    image = image[:, ::-1] if right else image
    truth = {
        "view": mlo, "vendor": siemens, "side": float(right), "area": area - 0.45, "gland": root - 0.45,
        "noise": np.log1p(noise) - 0.5, "blur": blur - 0.4, "gray": np.log1p(gray) - 0.8, "jpeg": (100 - quality) / 100,
        "gain": gain - 1,
    }  # fmt: skip
    return image, [truth[name] / UNITS.get(name, 1.0) for name in TARGETS]


def batch(some: Phantoms, rows: NDArray[np.int64], rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Images [B, 1, n, n], gray 0..1, and targets [B, T]."""
    pairs = [shown(some, int(k), rng) for k in rows]
    pixels = torch.from_numpy(np.stack([image for image, _ in pairs])).float() / 255
    return pixels[:, None], torch.tensor([truth for _, truth in pairs], dtype=torch.float32)


def losses(said: Tensor, truth: Tensor) -> Tensor:
    """Loss of each target, [T]: cross-entropy of the binary ones, squared error of the others (Huber)."""
    first = len(BINARY)
    binary = F.binary_cross_entropy_with_logits(said[:, :first], truth[:, :first], reduction="none")
    other = F.huber_loss(said[:, first:], truth[:, first:], reduction="none")
    return torch.cat([binary, other], 1).mean(0)


def train(some: Phantoms, seed: int = 1) -> PhantomNetwork:
    """Each phantom once before any comes again, otherwise than before."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    network = PhantomNetwork()
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=STEPS, pct_start=0.15)
    began, total, deck = time.perf_counter(), torch.zeros(len(TARGETS)), np.zeros(0, np.int64)
    network.train()
    for step in range(1, STEPS + 1):
        if len(deck) < BATCH:
            deck = rng.permutation(len(some.images))
        rows, deck = deck[:BATCH], deck[BATCH:]
        pixels, truth = batch(some, rows, rng)
        each = losses(network.head(network.raw(pixels)), truth)
        optimizer.zero_grad()
        each.sum().backward()
        nn.utils.clip_grad_norm_(network.parameters(), 2.0)
        optimizer.step()
        schedule.step()
        total += each.detach()
        if step % 100 == 0:
            told = "  ".join(f"{name} {value / 100:.3f}" for name, value in zip(TARGETS, total.tolist(), strict=True))
            print(f"step {step}/{STEPS}  {told}  {time.perf_counter() - began:.0f} s", flush=True)
            total.zero_()
    return network.eval().requires_grad_(False)


@torch.no_grad()
def calibrate(network: PhantomNetwork, some: Phantoms) -> None:
    """Center and scale the features by those of the phantoms as they were drawn."""
    pixels = torch.from_numpy(some.images).float()[:, None] / 255
    features = torch.cat([network.raw(part) for part in pixels.split(BATCH)])
    network.center.copy_(features.mean(0))
    network.spread.copy_(features.std(0))


@torch.no_grad()
def examined(network: PhantomNetwork, some: Phantoms) -> dict[str, float]:
    """What the head is worth on phantoms that it has not seen, damaged at random: accuracy, or correlation."""
    rng = np.random.default_rng(5)
    parts = [batch(some, rows, rng) for _ in range(3) for rows in np.arange(len(some.images)).reshape(-1, BATCH)]
    said = torch.cat([network.head(network.raw(pixels)) for pixels, _ in parts]).double().numpy()
    truth = torch.cat([wanted for _, wanted in parts]).double().numpy()
    return {
        name: float(((s > 0) == (t > 0.5)).mean() if name in BINARY else np.corrcoef(s, t)[0, 1])
        for name, s, t in zip(TARGETS, said.T, truth.T, strict=True)
    }


def main() -> None:
    """Draw what is not drawn yet, train, calibrate, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/features"))
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    began = time.perf_counter()
    some, others = (phantoms(seed, options.work) for seed in (TRAIN, TEST))
    print(f"{len(some.images)} phantoms after {time.perf_counter() - began:.0f} s", flush=True)
    network = train(some)
    calibrate(network, some)
    worth = {name: round(value, 3) for name, value in examined(network, others).items()}
    print("on other phantoms:", worth)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    words = {"seed": str(TRAIN), "steps": str(STEPS), **{f"worth_{name}": str(value) for name, value in worth.items()}}
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, options.out, metadata=words)


if __name__ == "__main__":
    main()
