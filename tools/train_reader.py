"""Train the network behind `mame_lib.evaluation.attributes` on phantoms and write its weights.

    python tools/train_reader.py [--work build/reader] [--out mame_lib/weights/reader/reader.safetensors]

Draws the phantoms once (8 minutes on one core; kept in --work), trains for 9 minutes, calibrates on phantoms of another
seed. No real image is used.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from mame_lib.data.case import VENDORS, VIEWS, Attributes
from mame_lib.data.masks import breast_mask
from mame_lib.data.phantom import Phantom, draw
from mame_lib.evaluation import degradations
from mame_lib.evaluation.attributes import DENSITY_CUTS
from mame_lib.evaluation.reader import INPUT, MAP, WEIGHTS, Frame, Reader, Reading, network_input
from mame_lib.generation import Mame

TRAIN, CALIBRATE = 3_000_000, 3_100_000  # seeds of the phantoms
COUNTS = {TRAIN: {128: 4000, 64: 320, 256: 320, 512: 200}, CALIBRATE: {128: 500, 64: 60, 256: 60, 512: 40}}
EPOCHS, BATCH, RATE = 32, 64, 2e-3
CUTS = torch.tensor(DENSITY_CUTS).sqrt()


class Samples(NamedTuple):
    """Network inputs and truth of N pictures; several may show one phantom.

    inputs: [N, 2, INPUT, INPUT] uint8. muscle: [N, MAP, MAP] share of muscle in each cell, uint8 0..255.
    truth: [N, 3] is MLO, is Siemens, sqrt(glandular fraction). phantom: [N] which phantom.
    """

    inputs: Tensor
    muscle: Tensor
    truth: Tensor
    phantom: Tensor

    def at(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Inputs and muscle as float32 0..1, and truth, of some rows."""
        return self.inputs[rows].float() / 255, self.muscle[rows].float() / 255, self.truth[rows]


def draw_one(seed: int, index: int, size: int) -> Phantom:
    """Phantom `index`: every third with a lesion, every fourth noisy, every fifth with a marker; half of the areas
    uniform in the words, half from the paper's wider distribution."""
    density = ("very low", "low", "high", "very high")[index % 4]
    said = Attributes(density=density, finding="lesion" if index % 3 == 0 else None)
    priors = "paper" if index % 8 >= 4 else "uniform"
    noise = float(index % 4 == 1) * (0.5 + (index % 7) / 4)
    return draw(said, size=size, seed=seed, index=index, priors=priors, noise=noise, marker=index % 5 == 0)


def degraded(phantom: Phantom, rng: np.random.Generator) -> NDArray[np.uint8]:
    """The image after two to four mishaps drawn at random, in the order in which they happen."""
    image = phantom.image
    if rng.random() < 0.4:
        image = degradations.blurred(image, rng.uniform(0.3, 1.2) * len(image) / 128)
    if rng.random() < 0.4:
        image = degradations.gray_background(image, phantom.mask, rng.uniform(3, 60))
    if rng.random() < 0.4:
        image = degradations.noisy(image, rng.uniform(0.5, 6), rng)
    if rng.random() < 0.7:
        image = degradations.jpeg(image, int(rng.integers(30, 95)))
    return image


def make_samples(seed: int) -> Samples:
    """Each phantom as drawn and degraded; every second one also twice through the tiny autoencoder."""
    vae = Mame.load("tiny").components.vae
    rng = np.random.default_rng(seed)
    rows: list[tuple[NDArray[np.uint8], NDArray[np.uint8], tuple[float, float, float], int]] = []
    first = 0
    for size, count in COUNTS[seed].items():
        for start in range(first, first + count, 16):
            drawn = [draw_one(seed, index, size) for index in range(start, min(start + 16, first + count))]
            images = np.stack([p.image for p in drawn])
            pictures = [(i, image) for i, image in enumerate(images)]
            pictures += [(i, degraded(p, rng)) for i, p in enumerate(drawn)]
            if size <= 256:
                half = np.arange(start // 16 % 2, len(drawn), 2)
                for noise in (0.0, float(rng.uniform(0.05, 0.5))):
                    back = degradations.round_trip(images[half], vae, latent_noise=noise, seed=start)
                    pictures += list(zip(half.tolist(), back, strict=True))
            rows += [_sample(drawn[i], image, start + i) for i, image in pictures]
            print(f"\rphantoms {start + len(drawn)}", end="", flush=True)
        first += count
    print()
    inputs, muscle, truth, phantom = (np.array(column) for column in zip(*rows, strict=True))
    return Samples(
        torch.from_numpy(inputs), torch.from_numpy(muscle), torch.from_numpy(truth).float(), torch.from_numpy(phantom)
    )


def _sample(
    phantom: Phantom, image: NDArray[np.uint8], index: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], tuple[float, float, float], int]:
    """One row of `Samples`; an image in which no breast is found is framed by the true mask."""
    mask = breast_mask(image)
    mask = mask if mask.any() else phantom.mask
    frame = Frame.around(mask)
    muscle = frame.average(phantom.pectoral.astype(np.float32))  # [INPUT, INPUT]
    cells = muscle.reshape(MAP, INPUT // MAP, MAP, INPUT // MAP).mean((1, 3))
    said = phantom.attributes
    truth = (float(said.view == "MLO"), float(said.vendor == "siemens"), phantom.glandular_fraction**0.5)
    return _bytes(network_input(image, mask, frame)), _bytes(cells), truth, index


def _bytes(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.asarray(np.rint(255 * np.clip(values, 0, 1)), np.uint8)


def tuned(x: Tensor, generator: torch.Generator) -> Tensor:
    """Small changes of gain and gamma that leave the vendor's look recognizable."""
    gray = x[:, :1] / x[:, 1:].clamp(min=1e-3)
    gain = _between(0.97, 1.03, len(x), generator)
    gamma = _between(0.97, 1.03, len(x), generator)
    return torch.cat([gain * gray.clamp(0, 1) ** gamma * x[:, 1:], x[:, 1:]], 1)


def estranged(x: Tensor, muscle: Tensor, is_mlo: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Pictures of the same views from elsewhere: another tone, framing and outline. Only view and muscle survive.

    x: [N, 2, s, s]; muscle: [N, m, m]; is_mlo: [N]. Returns the like of x and muscle.
    """
    cover, mlo = x[:, 1:], is_mlo.view(-1, 1, 1, 1)
    wide = F.interpolate(muscle[:, None], INPUT, mode="bilinear", align_corners=False)  # [N, 1, s, s]
    gray = strange_tone((x[:, :1] / cover.clamp(min=1e-3)).clamp(0, 1), wide, mlo, generator)
    moved = F.grid_sample(torch.cat([gray * cover, cover, wide], 1), strange_frame(mlo, generator), align_corners=False)
    return moved[:, :2].clamp(0, 1), F.avg_pool2d(moved[:, 2:], INPUT // MAP)[:, 0]


def strange_tone(gray: Tensor, muscle: Tensor, mlo: Tensor, generator: torch.Generator) -> Tensor:
    """Gray values [N, 1, s, s] through another tone curve, with muscle from brighter to barely visible.

    In about a third of real CC views a crescent of muscle shows at the chest wall, which is no sign of an MLO view;
    so it does here. In a quarter of the pictures nothing but the outline is left.
    """
    count = len(gray)
    down, across = _axes()
    gray = gray * (1 - _between(-0.3, 0.45, count, generator) * muscle)
    reach, middle, height = (_between(*ends, count, generator) for ends in ((0.05, 0.35), (-0.4, 0.4), (0.4, 1.0)))
    crescent = across + 1 < reach * (1 - ((down - middle) / height) ** 2)  # [N, 1, s, s]
    shows = (1 - mlo) * (torch.rand(count, 1, 1, 1, generator=generator) < 0.35)
    gray = gray + _between(0.05, 0.45, count, generator) * F.avg_pool2d(shows * crescent, 5, 1, 2)
    light = F.interpolate(torch.randn(count, 1, 4, 4, generator=generator), INPUT, mode="bicubic")
    gray = (gray * (0.25 * light).exp()).clamp(min=0) ** _between(0.6, 1.7, count, generator)
    gray = _between(0.6, 1.5, count, generator) * gray + _between(-0.05, 0.15, count, generator)
    flat = (torch.rand(count, 1, 1, 1, generator=generator) < 0.25).float()
    return gray * (1 - flat) + 0.4 * flat


def strange_frame(mlo: Tensor, generator: torch.Generator) -> Tensor:
    """Where each pixel of another picture looks, [N, s, s, 2] in -1..1: scaled, moved, MLO views drawn in on top."""
    count = len(mlo)
    down, across = _axes()
    top = 0.5 - 0.5 * down  # 1 at the top, 0 at the bottom
    narrow = 1 + _between(-0.12, 0.12, count, generator) * down
    narrow = (narrow + mlo * _between(-0.1, 1.6, count, generator) * top**2) * _between(0.85, 1.3, count, generator)
    x = (across + 1) * narrow - 1 + _between(0, 0.12, count, generator)  # [N, 1, s, s]
    y = down * _between(0.75, 1.1, count, generator) + _between(-0.1, 0.1, count, generator)
    return torch.stack([x, y.expand_as(x)], -1)[:, 0]


def _axes() -> tuple[Tensor, Tensor]:
    """Row and column of each pixel of the frame in -1..1, [s, s] each."""
    down, across = torch.meshgrid(*[torch.linspace(-1, 1, INPUT)] * 2, indexing="ij")
    return down, across


def _between(low: float, high: float, count: int, generator: torch.Generator) -> Tensor:
    """Uniform in low..high, [N, 1, 1, 1]."""
    return low + (high - low) * torch.rand(count, 1, 1, 1, generator=generator)


def view_loss(said: Reading, x: Tensor, muscle: Tensor, is_mlo: Tensor) -> Tensor:
    """Cross-entropies of the view and of the muscle's map inside the breast."""
    inside = F.avg_pool2d(x[:, 1:], INPUT // MAP)[:, 0]
    cells = F.binary_cross_entropy_with_logits(said.muscle, muscle, reduction="none")
    return F.binary_cross_entropy_with_logits(said.view, is_mlo) + 5 * (cells * inside).sum() / inside.sum()


def tone_loss(said: Reading, truth: Tensor) -> Tensor:
    """Cross-entropy of the vendor; Gaussian log-likelihood of sqrt(glandular fraction) with its own variance."""
    off = (said.root - truth[:, 2]) / said.root_sd
    return F.binary_cross_entropy_with_logits(said.vendor, truth[:, 1]) + (0.5 * off**2 + said.root_sd.log()).mean()


def train(samples: Samples, seed: int = 1) -> Reader:
    """One picture of each phantom an epoch, shown as it is (all heads) and estranged (view and muscle)."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    reader = Reader()
    order = torch.argsort(samples.phantom, stable=True)
    first = torch.cat([torch.tensor([0]), torch.bincount(samples.phantom).cumsum(0)])  # [P + 1]
    steps = EPOCHS * ((len(first) - 1) // BATCH)
    optimizer = torch.optim.AdamW(reader.parameters(), lr=RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps, pct_start=0.1)
    started, sums = time.perf_counter(), np.zeros(2)
    for step in range(steps):
        place = step % ((len(first) - 1) // BATCH)
        if place == 0:
            shuffled = torch.randperm(len(first) - 1, generator=generator)
        which = shuffled[place * BATCH : (place + 1) * BATCH]
        spare = torch.rand(len(which), generator=generator) * (first[which + 1] - first[which])
        x, muscle, truth = samples.at(order[first[which] + spare.long()])
        strange, cells = estranged(x, muscle, truth[:, 0], generator)
        x = tuned(x, generator)
        said = reader(torch.cat([x, strange]))
        tone = tone_loss(Reading(*(field[: len(x)] for field in said)), truth)
        both = torch.cat([x, strange]), torch.cat([muscle, cells]), truth[:, 0].repeat(2)
        view = view_loss(said, *both)
        optimizer.zero_grad()
        (tone + view).backward()
        torch.nn.utils.clip_grad_norm_(reader.parameters(), 2.0)
        optimizer.step()
        schedule.step()
        sums += tone.item(), view.item()
        if step % 500 == 499:
            print(f"step {step + 1}/{steps}  tone {sums[0] / 500:.3f}  view {sums[1] / 500:.3f}"
                  f"  {time.perf_counter() - started:.0f} s", flush=True)  # fmt: skip
            sums[:] = 0
    return reader.eval()


@torch.no_grad()
def calibrate(reader: Reader, samples: Samples) -> None:
    """Set `reader.scale` to what makes the truth of `samples` likeliest: four factors, each on its own."""
    said = Reading(*map(torch.cat, zip(*(reader(samples.at(rows)[0])
                   for rows in torch.arange(len(samples.truth)).split(256)), strict=True)))  # fmt: skip
    is_mlo, is_siemens, root = samples.truth.unbind(1)
    factors = torch.logspace(-1, 1, 201)
    kind = torch.bucketize(root.contiguous(), CUTS)
    borders = torch.cat([torch.tensor([-9.0]), CUTS, torch.tensor([9.0])])

    def words(k: Tensor) -> Tensor:
        below = torch.special.ndtr((borders - said.root[:, None]) / (k * said.root_sd[:, None]))  # [N, 5]
        return -below.diff(dim=1).gather(1, kind[:, None]).clamp(min=1e-6).log().mean()

    losses: tuple[Callable[[Tensor], Tensor], ...] = (
        lambda k: F.binary_cross_entropy_with_logits(k * said.view, is_mlo),
        lambda k: F.binary_cross_entropy_with_logits(k * said.vendor, is_siemens),
        lambda k: (0.5 * ((said.root - root) / (k * said.root_sd)) ** 2 + k.log()).mean(),
        words,
    )
    for place, loss in enumerate(losses):
        reader.scale[place] = factors[torch.stack([loss(k) for k in factors]).argmin()]
    reader.scale[3] /= reader.scale[2]  # it is applied on top of the third


def main() -> None:
    """Draw what is not drawn yet, train, calibrate, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/reader"))
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.work.mkdir(parents=True, exist_ok=True)
    pools = []
    for seed in (TRAIN, CALIBRATE):
        stored = options.work / f"samples-{seed}.npz"
        if not stored.exists():
            np.savez(stored, **{name: value.numpy() for name, value in make_samples(seed)._asdict().items()})
        with np.load(stored) as arrays:
            pools.append(Samples(*(torch.from_numpy(arrays[name]) for name in Samples._fields)))
    reader = train(pools[0])
    calibrate(reader, pools[1])
    print("scale", [round(float(v), 3) for v in reader.scale])
    words = {"views": " ".join(VIEWS), "vendors": " ".join(VENDORS), "seed": str(TRAIN)}
    save_file(reader.state_dict(), options.out, metadata=words)


if __name__ == "__main__":
    main()
