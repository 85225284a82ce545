"""Every labelled equation of chapter 15 on another road: loops, finite differences, all thresholds, all hypotheses."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

from mame_lib.evaluation import cad, heatmaps
from mame_lib.evaluation.froc import Detection, auc, froc, judge

SIZE = 64


def detector() -> cad.Detector:
    """A small random detector with something to say: its head begins at zero otherwise."""
    torch.manual_seed(0)
    one = cad.Detector()
    nn.init.normal_(one.head.weight, std=0.3)
    return one.eval()


def test_eq_15_target() -> None:
    """Product of two normal densities of the middle's distance, scaled to a peak of 1; 0.14 amid an edge."""
    box = (12.0, 20.0, 44.0, 36.0)
    cells = cad.targets([[box]], SIZE)[0].double().numpy()
    centers = np.arange(16) * 4 + 2.0

    def density(x: float, middle: float, side: float) -> float:
        return math.exp(-((x - middle) ** 2) / (2 * (side / 4) ** 2)) / (side / 4)

    printed = np.array([[density(x, 28, 32) * density(y, 28, 16) for x in centers] for y in centers])
    assert cells == pytest.approx(printed / printed.max(), abs=1e-6)
    assert density(12, 28, 32) / density(28, 28, 32) == pytest.approx(math.exp(-2)) == pytest.approx(0.135, abs=1e-3)


def test_eq_15_loss() -> None:
    """By logarithms of chances in double precision; and no other answer than the target itself is better."""
    rng = np.random.default_rng(0)
    z, y = rng.normal(0, 2, (2, 4, 4)), rng.random((2, 4, 4))
    said = 1 / (1 + np.exp(-z))
    printed = np.mean((1 + 20 * y) * -(y * np.log(said) + (1 - y) * np.log(1 - said)))
    assert float(cad.detection_loss(torch.tensor(z), torch.tensor(y))) == pytest.approx(float(printed), rel=1e-9)
    best = torch.tensor(np.log(y / (1 - y)), requires_grad=True)
    cad.detection_loss(best, torch.tensor(y)).backward()
    assert best.grad is not None and float(best.grad.abs().max()) < 1e-12


def test_eq_15_score() -> None:
    """Of the largest log-odds or of the largest chance: the same order of images, so the same AUC."""
    images = np.random.default_rng(1).integers(0, 255, (6, SIZE, SIZE), dtype=np.uint8)
    scores = cad.score(detector(), images)
    cells = cad.logits(detector(), images).double().flatten(1)
    assert scores == pytest.approx([max(1 / (1 + math.exp(-float(z))) for z in row) for row in cells], rel=1e-9)
    ill = np.arange(6) % 2
    assert auc(scores, ill) == auc(cells.amax(1).numpy(), ill)


def test_eq_15_ranks() -> None:
    """The area below the curve that all thresholds draw, by trapezoids, equals the sum of ranks."""
    rng = np.random.default_rng(2)
    scores, ill = rng.integers(0, 9, 60), rng.integers(0, 2, 60)
    limits = np.arange(10, -2, -1)
    hit = [(scores[ill == 1] >= limit).mean() for limit in limits]
    alarm = [(scores[ill == 0] >= limit).mean() for limit in limits]
    ranks = np.array([(scores < s).sum() + ((scores == s).sum() + 1) / 2 for s in scores])
    n, m = int(ill.sum()), int((1 - ill).sum())
    printed = (ranks[ill == 1].sum() - n * (n + 1) / 2) / (n * m)
    assert printed == pytest.approx(float(np.trapezoid(hit, alarm)), rel=1e-12)
    assert auc(scores, ill) == pytest.approx(printed, rel=1e-12)


def test_eq_15_froc() -> None:
    """Count hits and false alarms anew at each threshold; the library's curve has every such point."""
    rng = np.random.default_rng(3)
    boxes = [[(10, 10, 30, 30)] if k % 2 else [] for k in range(20)]
    found = [
        [Detection(*rng.uniform(0, SIZE, 2), float(rng.random())) for _ in range(rng.integers(0, 5))] for _ in range(20)
    ]
    curve = froc(judge(found, boxes, slack=0))
    for limit in np.linspace(0, 1, 23):
        shown = [[m for m in marks if m.score > limit] for marks in found]
        inside = [
            [any(x0 <= m.x <= x1 and y0 <= m.y <= y1 for x0, y0, x1, y1 in some) for m in marks]
            for marks, some in zip(shown, boxes, strict=True)
        ]
        sensitivity = sum(any(row) for row, some in zip(inside, boxes, strict=True) if some) / 10
        alarms = sum(not one for row in inside for one in row) / 20
        at = np.flatnonzero(np.isclose(curve.alarms, alarms))
        assert at.size and curve.sensitivity[at].max() >= sensitivity  # the library stops at the best place
    assert np.all(np.diff(curve.sensitivity) >= 0) and np.all(np.diff(curve.alarms) >= 0)


def test_eq_15_saliency() -> None:
    """Finite differences of the score, pixel by pixel, in double precision."""
    model = heatmaps.ImageScore(detector().double())
    x = torch.rand(1, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    x.requires_grad_()
    model(x).sum().backward()
    assert x.grad is not None
    for y, column in ((20, 20), (33, 40), (50, 9)):
        step = torch.zeros_like(x)
        step[0, 0, y, column] = 1e-6
        with torch.no_grad():
            slope = float(model(x + step) - model(x - step)) / 2e-6
        assert abs(float(x.grad[0, 0, y, column])) == pytest.approx(abs(slope), abs=1e-7)


def test_eq_15_gradcam() -> None:
    """Where the score is a weighted mean of the features, Grad-CAM shows those weights: the older class map (CAM)."""
    rng = np.random.default_rng(5)
    features = torch.tensor(rng.normal(size=(3, 4, 5)), requires_grad=True)
    weights = torch.tensor([1.5, -2.0, 0.5], dtype=torch.float64)
    score = (weights * features.mean((1, 2))).sum()
    [slopes] = torch.autograd.grad(score, features)
    printed = torch.relu((slopes.mean((1, 2))[:, None, None] * features).sum(0))
    by_hand = torch.relu(sum(w * f for w, f in zip(weights, features, strict=True))) / 20  # type: ignore[arg-type]
    assert torch.allclose(printed, by_hand)


def test_eq_15_occlusion() -> None:
    """For a linear score the fall is what the hidden pixels had added, so the map can be written down."""
    rng = np.random.default_rng(6)
    weights, x = rng.normal(size=(2, 12, 12))
    squares = [(slice(i, i + 4), slice(j, j + 4)) for i in range(0, 9, 2) for j in range(0, 9, 2)]
    printed, covers = np.zeros((12, 12)), np.zeros((12, 12))
    for square in squares:
        hidden = x.copy()
        hidden[square] = 0
        printed[square] += (weights * x).sum() - (weights * hidden).sum()
        covers[square] += 1
    share = np.zeros((12, 12))
    for i, j in itertools.product(range(12), repeat=2):
        mine = [s for s in squares if s[0].start <= i < s[0].stop and s[1].start <= j < s[1].stop]
        share[i, j] = sum((weights * x)[s].sum() for s in mine) / len(mine)
    assert printed / covers == pytest.approx(share)


def test_eq_15_energy() -> None:
    """A map that knows only the breast has, inside the box, what chance says; a map inside the box has 1."""
    breast = np.zeros((1, SIZE, SIZE), bool)
    breast[0, 8:56, :40] = True
    boxes = [(10, 12, 26, 24)]
    printed = 16 * 12 / (48 * 40)
    assert heatmaps.energy_inside(breast.astype(float), boxes)[0] == pytest.approx(printed)
    assert heatmaps.chance(boxes, breast)[0] == pytest.approx(printed)
    rng = np.random.default_rng(7)  # a point thrown onto the breast lies in the box as often
    y, x = (rng.integers(low, high, 100_000) for low, high in ((8, 56), (0, 40)))
    assert np.mean((x >= 10) & (x < 26) & (y >= 12) & (y < 24)) == pytest.approx(printed, abs=0.005)


def test_eq_15_holm() -> None:
    """By the closure principle: reject what every set of hypotheses with it rejects by Bonferroni."""
    rng = np.random.default_rng(8)
    for m in (1, 3, 5):
        p = rng.random(m) ** 3
        order = np.argsort(p)
        steps = np.maximum.accumulate(np.minimum((m - np.arange(m)) * p[order], 1))
        sets = [s for r in range(1, m + 1) for s in itertools.combinations(range(m), r)]
        for rank, i in enumerate(order):
            worst = max(min(1.0, len(s) * min(p[list(s)])) for s in sets if i in s)
            assert steps[rank] == pytest.approx(worst)
