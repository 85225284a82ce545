"""The small network that reads view, muscle, density and vendor look: `Reader`, its input, and how it is loaded.

Trained on phantoms alone by tools/train_reader.py; `mame_lib.evaluation.attributes` is the way to use it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from mame_lib.data.masks import Mask
from mame_lib.evaluation.weights import loaded

F32 = NDArray[np.float32]

WEIGHTS = Path(__file__).resolve().parent.parent / "weights" / "reader" / "reader.safetensors"
INPUT = 64  # side of what the network sees
MAP = 16  # side of its map of the muscle


@dataclass(frozen=True)
class Frame:
    """The square of an n x n image that the network looks at: the breast's bounding box, chest wall at the left.

    `top` and `left` are its corner and `side` its length, in pixels; it may reach beyond the image. Framing takes
    out how large the breast is and where it lies, so that images cropped in any way look alike.
    """

    size: int
    top: float
    left: float
    side: float

    @classmethod
    def around(cls, mask: Mask) -> Frame:
        """The frame of a left-facing breast, bool [n, n], which must not be empty."""
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        height, width = int(rows[-1] - rows[0] + 1), int(columns[-1] - columns[0] + 1)
        side = 1.03 * max(height, width)
        return cls(len(mask), 0.5 * float(rows[0] + rows[-1] + 1) - 0.5 * side, float(columns[0]), side)

    def average(self, values: F32) -> F32:
        """[n, n] -> [INPUT, INPUT]: exact area averages over the cells of the frame, 0 beyond the image."""
        down = _area_weights(self.size, self.top, self.side)
        across = _area_weights(self.size, self.left, self.side)
        return _product(down, values, across.T)

    def spread(self, values: F32) -> F32:
        """[MAP, MAP] on the frame -> [n, n] by linear interpolation; the outermost cells go on beyond it."""
        down, across = (_linear_weights(self.size, start, self.side) for start in (self.top, self.left))
        return _product(down, values, across.T)


def _product(first: F32, second: F32, third: F32) -> F32:
    """Their matrix product, by torch: it keeps to the number of threads it is told, on which the last bits depend."""
    a, b, c = (torch.from_numpy(np.ascontiguousarray(factor)) for factor in (first, second, third))
    return np.asarray((a @ b @ c).numpy(), np.float32)


def _area_weights(size: int, start: float, side: float) -> F32:
    """[INPUT, size]: share of each cell of [start, start + side) that each of `size` pixels covers."""
    edges = start + side / INPUT * np.arange(INPUT + 1)
    pixels = np.arange(size)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return np.asarray(np.clip(overlap, 0, None) * (INPUT / side), np.float32)


def _linear_weights(size: int, start: float, side: float) -> F32:
    """[size, MAP]: linear interpolation from the centers of MAP cells on [start, start + side) to pixel centers."""
    place = np.clip((np.arange(size) + 0.5 - start) * (MAP / side) - 0.5, 0, MAP - 1)
    return np.asarray(np.clip(1 - np.abs(place[:, None] - np.arange(MAP)), 0, None), np.float32)


def network_input(image: NDArray[np.uint8], mask: Mask, frame: Frame) -> F32:
    """float32 [2, INPUT, INPUT]: gray 0..1 inside the breast (0 outside, whatever the background) and its mask."""
    inside = image.astype(np.float32) * mask / np.float32(255)
    return np.stack([frame.average(inside), frame.average(mask.astype(np.float32))])


class Reading(NamedTuple):
    """What the network says of N images, calibrated.

    view, vendor: log-odds of MLO and of Siemens, [N]. root, root_sd: square root of the glandular fraction and
    its standard deviation, [N]. muscle: log-odds of pectoral muscle on the frame, [N, MAP, MAP].
    """

    view: Tensor
    vendor: Tensor
    root: Tensor
    root_sd: Tensor
    muscle: Tensor


class Reader(nn.Module):
    """Two trunks of five convolutions, for shape and for tone, and their heads; 97,000 parameters.

    The view is read from gray values standardized inside the breast, so that no vendor's tone decides it; density
    and vendor look are read from the plain ones. `scale` holds the calibration found on phantoms that were not
    trained on: factors for the log-odds of view and vendor, for `root_sd`, and for `root_sd` in class probabilities.
    """

    scale: Tensor
    place: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.shape = _trunk(4)  # standardized gray, mask, x, y
        self.tone = _trunk(4)  # gray, mask, x, y
        self.muscle = nn.Sequential(
            nn.Conv2d(_WIDTHS[1] + _WIDTHS[2], 24, 3, padding=1), nn.SiLU(), nn.Conv2d(24, 1, 1)
        )
        self.view = _head(1)
        self.look = _head(3)  # vendor, root, log of root's variance
        self.register_buffer("scale", torch.ones(4))
        axis = torch.linspace(-1, 1, INPUT)
        self.register_buffer("place", torch.stack(torch.meshgrid(axis, axis, indexing="ij")), persistent=False)

    def forward(self, x: Tensor) -> Reading:
        """[N, 2, INPUT, INPUT] as `network_input` makes it -> `Reading`."""
        gray, cover = x[:, :1], x[:, 1:]  # [N, 1, s, s] each
        area = cover.sum((2, 3), keepdim=True) + 1e-3
        mean = gray.sum((2, 3), keepdim=True) / area
        spread = (((gray - mean * cover) ** 2).sum((2, 3), keepdim=True) / area).sqrt() + 0.02
        place = self.place.expand(len(x), -1, -1, -1)  # [N, 2, s, s]
        middle = self.shape[0](torch.cat([(gray - mean * cover) / spread, cover, place], 1))  # [N, c, 16, 16]
        tone = self.tone[1](self.tone[0](torch.cat([4 * gray - cover, cover, place], 1)))
        whole = self.shape[1](middle)  # [N, d, 8, 8]
        context = F.interpolate(whole, MAP, mode="bilinear", align_corners=False)  # [N, d, 16, 16]
        view = self.view(whole)[:, 0]
        vendor, root, log_variance = self.look(tone).unbind(1)
        return Reading(
            view * self.scale[0],
            vendor * self.scale[1],
            0.45 + 0.15 * root,
            0.15 * self.scale[2] * (0.5 * log_variance.clamp(-10, 2)).exp(),
            self.muscle(torch.cat([middle, context], 1))[:, 0],
        )


_WIDTHS = (16, 24, 32)


def _trunk(channels: int) -> nn.Sequential:
    """Two parts: [N, channels, 64, 64] -> [N, 24, 16, 16] -> [N, 32, 8, 8]."""
    first, second, third = _WIDTHS
    return nn.Sequential(
        nn.Sequential(
            nn.Conv2d(channels, first, 5, stride=2, padding=2), nn.SiLU(),
            nn.Conv2d(first, second, 3, stride=2, padding=1), nn.SiLU(),
            nn.Conv2d(second, second, 3, padding=1), nn.SiLU(),
        ),
        nn.Sequential(
            nn.Conv2d(second, third, 3, stride=2, padding=1), nn.SiLU(),
            nn.Conv2d(third, third, 3, padding=1), nn.SiLU(),
        ),
    )  # fmt: skip


def _head(outputs: int) -> nn.Sequential:
    """[N, 32, 8, 8] -> [N, outputs], with the place on a 4 x 4 grid kept."""
    return nn.Sequential(
        nn.AvgPool2d(2), nn.Flatten(), nn.Linear(16 * _WIDTHS[2], 32), nn.SiLU(), nn.Linear(32, outputs)
    )  # fmt: skip


@lru_cache(maxsize=2)
def load_reader(path: Path = WEIGHTS) -> Reader:
    """The trained reader on the CPU in float32, read once.

    Raises
    ------
    InputError
        If the file is missing, or not the weights of a `Reader`.
    """
    return loaded(Reader(), path, "reader", "tools/train_reader.py")


@torch.no_grad()
def read(inputs: F32, reader: Reader | None = None, batch_size: int = 64) -> dict[str, NDArray[np.float64]]:
    """[N, 2, INPUT, INPUT] -> the fields of `Reading` as float64 arrays."""
    model = reader or load_reader()
    parts = [model(batch) for batch in torch.from_numpy(inputs).split(batch_size)]
    return {name: torch.cat([getattr(p, name) for p in parts]).double().numpy() for name in Reading._fields}
