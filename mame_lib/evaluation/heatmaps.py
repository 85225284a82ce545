"""Where does a detector look? Saliency, Grad-CAM and occlusion maps (paper, Fig. 18), and scores of such maps.

The three maps are captum's (pip install "mame-lib[explain]"), of the score of the image: the log-odds of the largest
cell. A map is a picture, and pictures persuade. So each map is scored: does its largest value lie in the lesion's box
(`pointing_game`), and how much of it lies there (`energy_inside`)? Both have a level that chance gives (`chance`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor, nn

from mame_lib.errors import InputError
from mame_lib.evaluation.adherence import Rate, wilson
from mame_lib.evaluation.cad import Detector, Gray, inside, to_input
from mame_lib.evaluation.froc import Box

METHODS = ("saliency", "grad_cam", "occlusion")
WINDOW, STRIDE = 18, 6  # pixels of the square that occlusion hides, and of its steps
_HIDDEN_BLUR = 16.0  # pixels: standard deviation of the blur that a hidden square shows in place of the image

F32 = NDArray[np.float32]


class ImageScore(nn.Module):
    """Images [B, 1, n, n] to the log-odds of their largest cell, [B]: the one number that the maps explain."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: Tensor) -> Tensor:
        """[B, 1, n, n] -> [B]."""
        return self.detector(images).amax((1, 2, 3))


def maps(
    detector: Detector,
    images: Gray | Sequence[Gray],
    method: str,
    *,
    window: int = WINDOW,
    stride: int = STRIDE,
    batch_size: int = 16,
) -> F32:
    """How much each pixel speaks for a lesion, float32 [N, n, n], 0 or more; the units differ by method.

    saliency: absolute gradient of the score by the pixel (Simonyan et al., 2014). grad_cam: the features of the last
    convolution, weighted by their mean gradient, positive part (Selvaraju et al., 2017). occlusion: by how much the
    score falls where a square of `window` pixels is hidden, averaged over the squares that cover a pixel, every
    `stride` pixels (Zeiler and Fergus, 2014). A hidden square shows the strongly blurred image: a black one would be
    something new to see, and its edges count as signs.

    Raises
    ------
    InputError
        If the method is unknown, captum is not installed, or as `cad.to_input`.
    """
    if method not in METHODS:
        raise InputError(f"the heat map {method!r} is unknown; use one of {', '.join(METHODS)}.")
    if not 1 <= stride <= window:
        raise InputError(f"occlusion in steps of {stride} with a window of {window} leaves gaps; take shorter steps.")
    captum = _captum()
    x = to_input(images)  # [N, 1, n, n]
    model = ImageScore(detector.eval())
    found = []
    for batch in x.split(batch_size):
        if method == "saliency":
            one = captum.Saliency(model).attribute(batch.clone().requires_grad_(), abs=True)  # [B, 1, n, n]
        elif method == "grad_cam":
            layer = captum.LayerGradCam(model, detector.merge)
            cells = layer.attribute(batch.clone().requires_grad_(), relu_attributions=True)  # [B, 1, n / 4, n / 4]
            one = nn.functional.interpolate(cells, size=batch.shape[2:], mode="bilinear", align_corners=False)
        else:
            one = captum.Occlusion(model).attribute(
                batch, sliding_window_shapes=(1, window, window), strides=(1, stride, stride), baselines=_hidden(batch),
                perturbations_per_eval=8,
            ).clamp(min=0)  # fmt: skip
        found.append(one.detach()[:, 0])
    return np.asarray(torch.cat(found).numpy(), np.float32)


def _captum() -> Any:
    try:
        from captum import attr
    except ImportError as error:
        raise InputError('heat maps need captum; install it with `pip install "mame-lib[explain]"`.') from error
    return attr


def _hidden(x: Tensor) -> Tensor:
    """What a hidden square shows: [B, 1, n, n] blurred so far that no lesion is left."""
    blurred = ndimage.gaussian_filter(x.numpy(), (0, 0, _HIDDEN_BLUR, _HIDDEN_BLUR), mode="nearest")
    return torch.from_numpy(np.where(x.numpy() > 0, blurred, 0).astype(np.float32))


def points(heat: NDArray) -> NDArray[np.int64]:
    """Where each map [N, n, n] is largest, [N, 2] pixels (x, y); of equal ones the nearest to their middle.

    Occlusion makes steps: the largest value fills a square, whose corner would be no fair answer.
    """
    found = []
    for values in np.asarray(heat):
        equal = np.argwhere(values == values.max())  # [K, 2], (y, x)
        y, x = equal[((equal - equal.mean(0)) ** 2).sum(1).argmin()]
        found.append((x, y))
    return np.array(found, np.int64).reshape(-1, 2)


def pointed(heat: NDArray, boxes: Sequence[Box], *, slack: int = 0) -> NDArray[np.bool_]:
    """Whether the largest value of each map [N, n, n] lies in its box, or outside it by up to `slack` pixels, [N].

    A map that is the same everywhere points nowhere: a miss. Raises `InputError` if there is not one box a map.
    """
    values = np.asarray(heat)
    if values.ndim != 3 or len(boxes) != len(values):
        raise InputError(f"maps {list(values.shape)} and {len(boxes)} boxes do not match; give one box a map [n, n].")
    within = [
        x0 - slack <= x < x1 + slack and y0 - slack <= y < y1 + slack
        for (x, y), (x0, y0, x1, y1) in zip(points(values), boxes, strict=True)
    ]
    return np.array(within, bool) & (np.ptp(values.reshape(len(values), -1), axis=1) > 0)


def pointing_game(heat: NDArray, boxes: Sequence[Box], *, slack: int = 0) -> Rate:
    """Share of the maps that point into their box, with Wilson's 95 % interval; see `pointed`.

    Zhang et al., International Journal of Computer Vision 126 (2018) 1084.
    """
    hits = pointed(heat, boxes, slack=slack)
    low, high = wilson(int(hits.sum()), len(hits))
    return Rate(int(hits.sum()), len(hits), float(len(hits)), low, high)


def energy_inside(heat: NDArray, boxes: Sequence[Box]) -> NDArray[np.float64]:
    """Share of each map's sum that lies in its box, [N], 0..1; NaN for a map of zeros.

    The energy-based pointing game of Wang et al. (Score-CAM, CVPR Workshops 2020).
    """
    values = np.asarray(heat, np.float64)
    if values.ndim != 3 or len(boxes) != len(values):
        raise InputError(f"maps {list(values.shape)} and {len(boxes)} boxes do not match; give one box a map [n, n].")
    if (values < 0).any():
        raise InputError("the energy of a map with negative values means nothing; cut it off at 0.")
    whole = values.sum((1, 2))
    parts = np.array([inside(one, box).sum() for one, box in zip(values, boxes, strict=True)])
    return np.divide(parts, whole, out=np.full(len(values), np.nan), where=whole > 0)


def chance(boxes: Sequence[Box], breasts: NDArray[np.bool_]) -> NDArray[np.float64]:
    """What both scores are on average for a map that knows only the breast, [N]: its share in the box.

    breasts: bool [N, n, n]. Raises `InputError` if a breast is empty.
    """
    masks = np.asarray(breasts, bool)
    if len(boxes) != len(masks) or not masks.any((1, 2)).all():
        raise InputError("give one box for each breast mask [N, n, n], none of them empty.")
    return np.array([inside(mask, box).sum() / mask.sum() for mask, box in zip(masks, boxes, strict=True)])
