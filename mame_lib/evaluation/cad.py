"""A small computer-aided detector of masses: `Detector`, its training, and what it says of images.

One fully convolutional network answers two questions. Where is a lesion? Each cell of a grid says so for its own
patch (`heat`, `find`). Is there one at all? The largest cell says so for the image (`score`). It knows what the
images that it is trained on know, and nothing of patients: a measuring instrument for this book, not for diagnosis.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from mame_lib.errors import InputError
from mame_lib.evaluation.froc import Box, Detection, peaks
from mame_lib.evaluation.weights import loaded

WEIGHTS = Path(__file__).resolve().parent.parent / "weights" / "cad" / "cad.safetensors"
CELL = 4  # pixels a side of a cell of the grid
MULTIPLE = 8  # sides of images must be multiples of it
_WIDTHS = (12, 24, 40)

Gray = NDArray[np.uint8]
F32 = NDArray[np.float32]


class Detector(nn.Module):
    """Images [B, 1, n, n], gray 0..1, to log-odds of "a lesion lies here" [B, 1, n / 4, n / 4]; 75,000 parameters.

    A small U-Net: down to an eighth of the size, where dilated convolutions see 150 pixels wide, and up again to a
    quarter, where fine detail joins. `merge` is the last convolution before the heads of the cells: the layer that
    Grad-CAM looks at. n is any multiple of 8.
    """

    def __init__(self) -> None:
        super().__init__()
        first, second, third = _WIDTHS
        self.fine = nn.Sequential(  # [B, 2, n, n] -> [B, 24, n / 4, n / 4]
            *_block(2, first, kernel=5, stride=2), *_block(first, second, stride=2), *_block(second, second)
        )
        self.coarse = nn.Sequential(  # -> [B, 40, n / 8, n / 8]
            *_block(second, third, stride=2), *_block(third, third), *_block(third, third, dilation=2),
            *_block(third, third, dilation=4),
        )  # fmt: skip
        self.merge = nn.Sequential(*_block(second + third, second))  # -> [B, 24, n / 4, n / 4]
        self.head = nn.Conv2d(second, 1, 1)
        nn.init.zeros_(self.head.weight)
        assert self.head.bias is not None
        nn.init.constant_(self.head.bias, -4.0)  # before it has learned anything, a lesion is rare
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a third faster on a CPU

    def forward(self, images: Tensor) -> Tensor:
        """[B, 1, n, n] -> [B, 1, n / 4, n / 4]."""
        quarter = F.avg_pool2d(images, CELL)  # [B, 1, n / 4, n / 4]; the mean of 28 pixels around costs less there
        around = F.avg_pool2d(quarter, 7, stride=1, padding=3)
        around = F.interpolate(around, scale_factor=CELL, mode="bilinear", align_corners=False)  # [B, 1, n, n]
        x = torch.cat([2 * images - 1, 6 * (images - around)], 1)  # [B, 2, n, n]
        fine = self.fine(x)
        wide = F.interpolate(self.coarse(fine), scale_factor=2, mode="bilinear", align_corners=False)
        logits: Tensor = self.head(self.merge(torch.cat([fine, wide], 1)))
        return logits


def _block(inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1, dilation: int = 1) -> list[nn.Module]:
    pad = dilation * (kernel // 2)
    return [
        nn.Conv2d(inputs, outputs, kernel, stride, pad, dilation, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(),
    ]  # fmt: skip


@lru_cache(maxsize=2)
def load_cad(path: Path = WEIGHTS) -> Detector:
    """The trained detector of the library, on the CPU in float32, read once; `tools/train_cad.py` makes it.

    Raises
    ------
    InputError
        If the file is missing, or not the weights of a `Detector`.
    """
    return loaded(Detector(), path, "detector", "tools/train_cad.py")


def to_input(images: Gray | Sequence[Gray]) -> Tensor:
    """uint8 images [N, n, n], or a list of [n, n], to what `Detector` takes: float32 [N, 1, n, n], 0..1.

    Raises
    ------
    InputError
        If they are not 8-bit gray squares of one size that is a multiple of 8.
    """
    try:
        pixels = np.asarray(images)
    except ValueError as error:
        raise InputError("the detector's images are of several sizes; bring them to one.") from error
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[1] != pixels.shape[2]:
        raise InputError(f"the detector takes uint8 images [N, n, n], not {pixels.dtype} {list(pixels.shape)}.")
    if not len(pixels) or pixels.shape[1] % MULTIPLE or not pixels.shape[1]:
        raise InputError(
            f"the detector takes one or more images whose side is a multiple of {MULTIPLE}, not {list(pixels.shape)}."
        )
    return torch.from_numpy(np.ascontiguousarray(pixels)).float().div(255)[:, None]


@torch.no_grad()
def logits(detector: Detector, images: Gray | Sequence[Gray], *, batch_size: int = 32) -> Tensor:
    """Log-odds of every cell, float32 [N, n / 4, n / 4]; images as `to_input` takes them."""
    detector.eval()
    return torch.cat([detector(batch)[:, 0] for batch in to_input(images).split(batch_size)])


def heat(detector: Detector, images: Gray | Sequence[Gray], *, batch_size: int = 32) -> F32:
    """How strongly each pixel looks like a lesion, float32 [N, n, n], 0..1: the cells' scores, interpolated.

    The score of a cell is no calibrated probability: training weighs lesions more than they occur.
    """
    cells = logits(detector, images, batch_size=batch_size).sigmoid()[:, None]  # [N, 1, n / 4, n / 4]
    fine = F.interpolate(cells, scale_factor=CELL, mode="bilinear", align_corners=False)
    return np.asarray(fine[:, 0].numpy(), np.float32)


def score(detector: Detector, images: Gray | Sequence[Gray], *, batch_size: int = 32) -> NDArray[np.float64]:
    """Score of each image, [N], 0..1: that of its largest cell. This makes the detector a classifier of images."""
    cells = logits(detector, images, batch_size=batch_size).double().sigmoid()
    return np.asarray(cells.amax((1, 2)).numpy())


def score_inside(
    detector: Detector, images: Gray | Sequence[Gray], boxes: Sequence[Box], *, batch_size: int = 32
) -> NDArray[np.float64]:
    """Largest heat within one box an image, [N], 0..1; boxes (x0, y0, x1, y1), half-open pixels.

    Raises
    ------
    InputError
        If there is not one box an image, or a box holds no pixel of its image.
    """
    fine = heat(detector, images, batch_size=batch_size)
    if len(boxes) != len(fine):
        raise InputError(f"there are {len(fine)} images and {len(boxes)} boxes; give one box an image.")
    return np.array([float(inside(one, box).max()) for one, box in zip(fine, boxes, strict=True)])


def inside(values: NDArray, box: Box) -> NDArray:
    """The part of `values` [n, n] within a box, half-open pixels (x0, y0, x1, y1)."""
    x0, y0, x1, y1 = (max(0, round(float(edge))) for edge in box)
    part = values[y0:y1, x0:x1]
    if not part.size:
        raise InputError(f"the box {tuple(box)} holds no pixel of an image of {values.shape[1]} x {values.shape[0]}.")
    return part


def find(
    detector: Detector, images: Gray | Sequence[Gray], *, least: float = 0.01, apart: float = 8.0, most: int = 12
) -> list[list[Detection]]:
    """The marks that the detector sets on each image: peaks of `heat`, strongest first; see `froc.peaks`."""
    return [peaks(one, least=least, apart=apart, most=most) for one in heat(detector, images)]


def targets(boxes: Sequence[Sequence[Box]], size: int) -> Tensor:
    """What the cells should say, float32 [N, size / 4, size / 4]: 1 at the middle of a box, falling off like a bell.

    The bell's standard deviation is a quarter of the box in each direction, so it is 0.14 at the middle of an edge.
    """
    centers = (np.arange(size // CELL) + 0.5) * CELL
    goal = np.zeros((len(boxes), size // CELL, size // CELL), np.float32)
    for cells, some in zip(goal, boxes, strict=True):
        for x0, y0, x1, y1 in some:
            across = (centers - (x0 + x1) / 2) / (max(x1 - x0, CELL) / 4)
            down = (centers - (y0 + y1) / 2) / (max(y1 - y0, CELL) / 4)
            bell = np.exp(-0.5 * (across[None] ** 2 + down[:, None] ** 2))
            np.maximum(cells, bell / bell.max(), out=cells)  # a box between two centers peaks at 1, too
    return torch.from_numpy(goal)


def detection_loss(said: Tensor, goal: Tensor, *, weight: float = 20.0) -> Tensor:
    """Cross-entropy of the cells, averaged over all, [B, h, w] each; a cell amid a lesion counts `weight` + 1 times.

    Lesions cover one cell in a hundred. Without the weight, silence would be a good answer for long.
    """
    each = F.binary_cross_entropy_with_logits(said, goal, reduction="none")
    return (each * (1 + weight * goal)).mean()


def train_detector(
    images: Gray,
    boxes: Sequence[Sequence[Box]],
    *,
    steps: int = 400,
    batch_size: int = 32,
    rate: float = 4e-3,
    seed: int = 0,
    augment: bool = True,
    share: float = 0.5,
) -> Detector:
    """Train a detector from scratch: uint8 images [N, n, n], and the lesion boxes of each (an empty list is healthy).

    steps: updates of the weights, each on `batch_size` images, of which the share `share` have a lesion, however many
    of either kind there are (where there are none, the others fill up). augment: show them changed, see `changed`.
    The same arguments and number of threads give the same weights.

    Raises
    ------
    InputError
        If images and boxes do not match, or a number is out of range.
    """
    if len(images) != len(boxes):
        raise InputError(f"there are {len(images)} images and {len(boxes)} lists of boxes; give one list an image.")
    if steps < 1 or batch_size < 2 or not 0 < share < 1:
        raise InputError("training needs 1 or more steps, batches of 2 or more images, and a share between 0 and 1.")
    x, goal = to_input(images), targets(boxes, images.shape[1])[:, None]  # [N, 1, n, n], [N, 1, h, h]
    ill = torch.tensor([len(some) > 0 for some in boxes])
    kinds = [rows for rows in (ill.nonzero()[:, 0], (~ill).nonzero()[:, 0]) if len(rows)]
    sizes = [round(share * batch_size), batch_size - round(share * batch_size)] if len(kinds) == 2 else [batch_size]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # for the weights
        detector = Detector()
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(detector.parameters(), lr=rate, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.2)
    decks = [_deck(rows, generator) for rows in kinds]
    detector.train()
    for _ in range(steps):
        rows = torch.cat([next(deck)[None] for deck, n in zip(decks, sizes, strict=True) for _ in range(n)])
        shown, wanted = x[rows], goal[rows]
        if augment:
            shown, wanted = changed(shown, wanted, generator)
        loss = detection_loss(detector(shown), wanted)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(detector.parameters(), 2.0)
        optimizer.step()
        schedule.step()
    return detector.eval().requires_grad_(False)


def _deck(rows: Tensor, generator: torch.Generator) -> Iterator[Tensor]:
    """Rows without end, each once before any comes again, in an order of its own each time."""
    while True:
        yield from rows[torch.randperm(len(rows), generator=generator)]


def changed(x: Tensor, goal: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Classical augmentation: half of the images upside down, all moved by up to two cells, another gain, some noise.

    x: [B, 1, n, n], 0..1; goal: [B, 1, h, h]. What is moved out is gone, what comes in is black.
    """
    count = len(x)
    flip = torch.rand(count, 1, 1, 1, generator=generator) < 0.5
    x, goal = torch.where(flip, x.flip(2), x), torch.where(flip, goal.flip(2), goal)
    down, across = (int(k) for k in torch.randint(-2, 3, (2,), generator=generator))
    x, goal = _moved(x, CELL * down, CELL * across), _moved(goal, down, across)
    gain = 1 + 0.15 * torch.randn(count, 1, 1, 1, generator=generator).clamp(-2, 2)
    noise = 0.012 * torch.rand(count, 1, 1, 1, generator=generator) * torch.randn(x.shape, generator=generator)
    return (gain * x + noise * (x > 0)).clamp(0, 1), goal


def _moved(x: Tensor, down: int, across: int) -> Tensor:
    """[B, C, h, w] moved by whole pixels, zeros coming in."""
    return F.pad(x, (across, -across, down, -down))
