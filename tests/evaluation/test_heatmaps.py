"""The three maps of a detector whose answers are known, and the scores of maps, by hand."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
import torch
from torch import nn

from mame_lib.errors import InputError
from mame_lib.evaluation import heatmaps
from mame_lib.evaluation.cad import Detector

pytest.importorskip("captum")


class Bright(Detector):
    """Says how bright each cell of 4 pixels is, and no more."""

    def __init__(self) -> None:
        super().__init__()
        self.merge = nn.Sequential(nn.AvgPool2d(4))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return 10 * self.merge(images)


def scene(size: int = 64) -> tuple[np.ndarray, list[tuple[int, int, int, int]]]:
    """Gray images with one bright square of 8 pixels, on the cells' grid."""
    images = np.full((3, size, size), 60, np.uint8)
    boxes = [(20, 16, 28, 24), (40, 40, 48, 48), (24, 28, 32, 36)]  # away from the border, where few squares average
    for image, (x0, y0, x1, y1) in zip(images, boxes, strict=True):
        image[y0:y1, x0:x1] = 180
    return images, boxes


@pytest.mark.parametrize("method", heatmaps.METHODS)
def test_maps_point_at_what_the_score_depends_on(method: str) -> None:
    images, boxes = scene()
    found = heatmaps.maps(Bright().eval(), images, method)
    assert found.shape == images.shape and found.dtype == np.float32 and (found >= 0).all()
    rate = heatmaps.pointing_game(found, boxes)
    assert rate.yes == rate.n == 3 and rate.low == pytest.approx(3 / (3 + 1.959964**2), abs=1e-6)
    assert (heatmaps.energy_inside(found, boxes) > heatmaps.chance(boxes, np.ones_like(images, bool))).all()


def test_saliency_is_the_gradient_of_the_largest_cell() -> None:
    images, boxes = scene()
    found = heatmaps.maps(Bright().eval(), images, "saliency")
    assert np.unique(found).tolist() == pytest.approx([0, 10 / 16 / 4])  # four cells of a square are equal, and share
    assert (found > 0).sum((1, 2)).tolist() == [64, 64, 64]
    assert heatmaps.energy_inside(found, boxes) == pytest.approx(1)


def test_occlusion_is_the_fall_of_the_score() -> None:
    """Nothing falls where the square is not touched, for another cell is not larger."""
    images, boxes = scene()
    found = heatmaps.maps(Bright().eval(), images, "occlusion", window=16, stride=8)
    for one, (x0, y0, _, _) in zip(found, boxes, strict=True):
        assert one[y0, x0] > 0
        far = np.ones_like(one, bool)
        far[max(0, y0 - 16) : y0 + 24, max(0, x0 - 16) : x0 + 24] = False
        assert one[far].max() == pytest.approx(0, abs=1e-5)


def test_points_of_plateaus_are_in_their_middle() -> None:
    flat = np.zeros((1, 16, 16))
    flat[0, 4:8, 8:16] = 1
    x, y = heatmaps.points(flat)[0]
    assert 10 <= x <= 13 and 5 <= y <= 6


def test_scores_of_maps_by_hand() -> None:
    heat = np.zeros((3, 10, 10))
    heat[0, 2, 3], heat[1, 8, 8], heat[1, 2, 3] = 2.0, 3.0, 1.0
    boxes = [(3, 2, 5, 4)] * 3
    assert heatmaps.pointed(heat, boxes).tolist() == [True, False, False]  # an empty map points nowhere
    assert heatmaps.pointed(heat[1:2], [(4, 4, 6, 7)], slack=3).tolist() == [True]
    inside = heatmaps.energy_inside(heat, boxes)
    assert inside[:2] == pytest.approx([1, 0.25]) and math.isnan(inside[2])
    breast = np.zeros((1, 10, 10), bool)
    breast[0, :, :5] = True
    assert heatmaps.chance([(3, 2, 7, 4)], breast)[0] == pytest.approx(4 / 50)


def test_what_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    images, boxes = scene()
    detector = Bright().eval()
    with pytest.raises(InputError, match="unknown"):
        heatmaps.maps(detector, images, "attention")
    with pytest.raises(InputError, match="gaps"):
        heatmaps.maps(detector, images, "occlusion", window=4, stride=8)
    for function in (heatmaps.pointed, heatmaps.energy_inside):
        with pytest.raises(InputError, match="one box a map"):
            function(images.astype(float), boxes[:2])
    with pytest.raises(InputError, match="negative"):
        heatmaps.energy_inside(-images.astype(float), boxes)
    with pytest.raises(InputError, match="empty"):
        heatmaps.chance(boxes, np.zeros((3, 64, 64), bool))
    monkeypatch.setitem(sys.modules, "captum", None)
    with pytest.raises(InputError, match="explain"):
        heatmaps.maps(detector, images, "saliency")
