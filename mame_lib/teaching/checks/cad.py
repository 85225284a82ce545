"""Checks of chapter 15, CAD. Truth is counted by loops: cell by cell, pair by pair, mark by mark."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mame_lib.teaching.checks import Hint, exercise, number, two_numbers

F64 = NDArray[np.float64]


@exercise("15-target")
def bell(answer: Any) -> None:
    centers = (np.arange(16) + 0.5) * 4
    for box in ((12, 20, 40, 36), (20, 8, 36, 44), (9, 30, 22, 61)):
        x0, y0, x1, y1 = box

        def build(sd: float = 0.25, power: int = 2, sides: Any = (box[:2], box[2:])) -> F64:
            """The bell by loops, with what students change: its width, its power, its sides."""
            (a0, b0), (a1, b1) = sides
            cells = np.zeros((16, 16))
            for row, column in itertools.product(range(16), repeat=2):
                u = (centers[column] - (a0 + a1) / 2) / (sd * (a1 - a0))
                v = (centers[row] - (b0 + b1) / 2) / (sd * (b1 - b0))
                cells[row, column] = math.exp(-(abs(u) ** power + abs(v) ** power) / 2)
            return cells

        truth = build()
        value = _array(answer(box, centers.copy()), (16, 16))
        if np.allclose(value, truth / truth.max(), atol=1e-6):
            continue
        turned = build(sides=((y0, x0), (y1, x1)))
        if any(np.allclose(value, one, atol=1e-6) for one in (turned, turned / turned.max())):
            raise Hint("x and y are exchanged: rows go with y, columns with x.")
        if np.allclose(value, truth, atol=1e-6):
            raise Hint("no cell says 1 for a box between two centers: divide by the largest value.")
        wide = [build(sd) for sd in (0.5, 1.0)]
        if any(np.allclose(value, k, atol=1e-6) for one in wide for k in (one, one / one.max())):
            raise Hint("your bell is too wide: its standard deviation is a quarter of the box's side.")
        flat = build(power=1)
        if any(np.allclose(value, k, atol=1e-6) for k in (flat, flat / flat.max())):
            raise Hint("square the distances, in standard deviations, before you add them.")
        if set(np.unique(value)) <= {0.0, 1.0}:
            raise Hint("this is the box itself, 0 or 1; the target falls off like a bell from the middle.")
        raise Hint(f"for the box {box} some cells are off: is the bell's middle that of the box?")


@exercise("15-ranks")
def by_ranks(answer: Any) -> None:
    rng = np.random.default_rng(0)
    cases = [
        ([0.9, 0.2, 0.7], [1, 0, 0]), ([0.1, 0.5, 0.9, 0.3], [1, 1, 0, 0]), ([2.0] * 5, [1, 0, 0, 1, 0]),
        (rng.integers(0, 5, 30).tolist(), rng.integers(0, 2, 30).tolist()),
    ]  # fmt: skip
    for scores, ill in cases:
        value = number(answer(np.array(scores, float), np.array(ill, bool)))
        told = list(zip(scores, ill, strict=True))
        pairs = [(a, b) for a, i in told if i for b, j in told if not j]
        wins, ties = sum(a > b for a, b in pairs), sum(a == b for a, b in pairs)
        truth = (wins + ties / 2) / len(pairs)
        if abs(value - truth) < 1e-9:
            continue
        n, m = sum(ill), len(ill) - sum(ill)
        if abs(value - (truth + (n + 1) / (2 * m))) < 1e-9:
            raise Hint("ill images also outrank each other: take off n (n + 1) / 2, their ranks among themselves.")
        if abs(value - truth * n * m) < 1e-9:
            raise Hint("divide by the number of pairs, n times m.")
        if abs(value - (1 - truth)) < 1e-9:
            raise Hint("the ranks run the wrong way: the lowest score has rank 1.")
        if abs(value - (truth * n * m - n) / (n * m)) < 1e-9 or abs(value - (truth - 1 / m)) < 1e-9:
            raise Hint("ranks are counted from 1, not from 0.")
        if ties:
            raise Hint("equal scores share the mean of their ranks; argsort ranks them by their place in the file.")
        raise Hint(f"for scores {scores[:4]} and truth {ill[:4]} you got {value:.3f} instead of {truth:.3f}.")


@exercise("15-froc")
def one_point(answer: Any) -> None:
    box, other = (10, 10, 20, 20), (40, 40, 60, 50)
    cases: list[tuple[str, Any, Any, float]] = [
        ("a lesion found", [[(15, 15, 0.9)]], [[box]], 0.5),
        ("a mark on a healthy image", [[(15, 15, 0.9)], [(30, 30, 0.8)]], [[box], []], 0.5),
        ("two marks in one box", [[(15, 15, 0.9), (18, 12, 0.8)], []], [[box], []], 0.5),
        ("a mark below the threshold", [[(15, 15, 0.4), (70, 70, 0.3)]], [[box]], 0.5),
        ("two lesions in one image", [[(15, 15, 0.9), (70, 70, 0.7)], []], [[box, other], []], 0.5),
        ("a mark just at the threshold", [[(15, 15, 0.5)]], [[box]], 0.5),
        ("nothing found", [[], []], [[box], []], 0.5),
        ("a mark on the far edge", [[(20, 15, 0.9)]], [[box]], 0.5),
    ]
    for name, marks, boxes, least in cases:
        told = answer([list(one) for one in marks], [list(one) for one in boxes], least)
        found, alarms = two_numbers(told, "(sensitivity, false alarms an image)")
        true_found, true_alarms = _judge(marks, boxes, least)
        if abs(found - true_found) < 1e-9 and abs(alarms - true_alarms) < 1e-9:
            continue
        if name == "two marks in one box":
            if found > 1:
                raise Hint("a lesion is found once, however many marks lie in its box.")
            raise Hint("a second mark in the same box is no false alarm: it lies in a lesion.")
        if name == "a mark just at the threshold":
            raise Hint("a mark whose score equals the threshold is shown: compare with >=.")
        if name == "a mark on the far edge":
            raise Hint("boxes are half-open: x1 and y1 do not belong to the box.")
        if name == "a mark below the threshold":
            raise Hint("marks below the threshold are not shown: they neither find nor alarm.")
        if len(boxes) > 1 and abs(alarms - true_alarms * len(boxes)) < 1e-9 and alarms > 0:
            raise Hint("false alarms are counted per image: divide by the number of images, healthy ones included.")
        if name == "two lesions in one image" and found in (0.0, 1.0):
            raise Hint("sensitivity is the share of lesions, not of images: one image may hold several.")
        told = f"({found:.2f}, {alarms:.2f}) instead of ({true_found:.2f}, {true_alarms:.2f})"
        raise Hint(f"{name}: {told}. Go through the marks, then through the boxes.")


def _judge(marks: Any, boxes: Any, least: float) -> tuple[float, float]:
    found = lesions = alarms = 0
    for some, here in zip(marks, boxes, strict=True):
        shown = [(x, y) for x, y, score in some if score >= least]
        hit = [[b[0] <= x < b[2] and b[1] <= y < b[3] for b in here] for x, y in shown]
        lesions += len(here)
        found += sum(any(row[k] for row in hit) for k in range(len(here)))
        alarms += sum(not any(row) for row in hit)
    return found / lesions, alarms / len(marks)


@exercise("15-cam")
def grad_cam(answer: Any) -> None:
    rng = np.random.default_rng(3)
    for shape in ((3, 4, 5), (6, 2, 2)):
        features, slopes = rng.normal(size=(2, *shape))
        value = _array(answer(features.copy(), slopes.copy()), shape[1:])
        cells = list(itertools.product(range(shape[1]), range(shape[2])))
        weights = [sum(float(slope[cell]) for cell in cells) / len(cells) for slope in slopes]
        plain = np.array([[sum(w * f[i, j] for w, f in zip(weights, features, strict=True)) for j in range(shape[2])]
                          for i in range(shape[1])])  # fmt: skip
        if np.allclose(value, np.maximum(plain, 0), atol=1e-9):
            continue
        if np.allclose(value, plain, atol=1e-9):
            raise Hint("cut off what is negative: it speaks against a lesion, and the map shows what speaks for one.")
        if np.allclose(value, np.maximum(plain, 0) * len(cells), atol=1e-9):
            raise Hint("the weight of a feature is the mean of its gradient, not the sum; only the scale is off.")
        if np.allclose(value, np.maximum((features * slopes).sum(0), 0), atol=1e-9):
            raise Hint("average the gradient over the places first: a feature has one weight, the same everywhere.")
        if np.allclose(value, np.maximum(plain, 0) / len(features), atol=1e-9):
            raise Hint("add the weighted features up; you took their mean.")
        if np.allclose(value, np.abs(plain), atol=1e-9):
            raise Hint("what is negative becomes zero; its absolute value would turn a *no* into a *yes*.")
        raise Hint("the map is off: one weight a feature, its mean gradient; then a weighted sum; then cut at zero.")


@exercise("15-pointing")
def pointing(answer: Any) -> None:
    rng = np.random.default_rng(5)
    boxes = [(2, 5, 6, 9), (0, 0, 3, 12), (7, 1, 11, 4), (4, 4, 8, 8)]
    maps = rng.random((4, 12, 12))
    maps[0, 6, 3], maps[1, 10, 2], maps[2, 8, 2], maps[3, 8, 7] = 2.0, 3.0, 2.5, 2.2  # the last two outside
    hits, energy = two_numbers(answer(maps.copy(), list(boxes)), "(share of hits, mean energy)")
    true_hits, shares, turned, sums = 0, [], 0, []
    for heat, (x0, y0, x1, y1) in zip(maps, boxes, strict=True):
        y, x = max(itertools.product(range(12), repeat=2), key=lambda at: heat[at])
        true_hits += x0 <= x < x1 and y0 <= y < y1
        turned += x0 <= y < x1 and y0 <= x < y1
        inside = sum(heat[j, i] for j in range(y0, y1) for i in range(x0, x1))
        shares.append(inside / heat.sum())
        sums.append(inside)
    swapped = [heat[x0:x1, y0:y1].sum() / heat.sum() for heat, (x0, y0, x1, y1) in zip(maps, boxes, strict=True)]
    if abs(energy - np.mean(swapped)) < 1e-9 or (abs(hits - turned / 4) < 1e-9 and turned != true_hits):
        raise Hint("rows are y: the part of a map inside a box is map[y0:y1, x0:x1].")
    if abs(hits - true_hits / 4) > 1e-9:
        if hits == true_hits:
            raise Hint("return the share of the maps that hit, not their number.")
        if abs(hits - (true_hits + 1) / 4) < 1e-9:
            raise Hint("boxes are half-open: the row y1 and the column x1 lie outside.")
        raise Hint(f"{true_hits} of these 4 maps are largest inside their box; you say {4 * hits:.1f}.")
    if abs(energy - np.mean(shares)) > 1e-9:
        if abs(energy - np.mean(sums)) < 1e-9:
            raise Hint("energy is a share: divide what lies inside by the sum of the whole map.")
        if abs(energy - sum(sums) / maps.sum()) < 1e-9:
            raise Hint("divide map by map, then average: else the map with the largest units speaks loudest.")
        raise Hint(f"the mean energy inside is {np.mean(shares):.3f} here, you got {energy:.3f}.")


@exercise("15-holm")
def holm(answer: Any) -> None:
    for values in ([0.01, 0.04, 0.03], [0.2], [0.5, 0.001, 0.02, 0.02], [0.9, 0.8, 0.7], [0.03, 0.031, 0.032]):
        adjusted = _array(answer(list(values)), (len(values),))
        truth = _closed(values)
        if np.allclose(adjusted, truth, atol=1e-12):
            continue
        m, order = len(values), sorted(range(len(values)), key=lambda k: values[k])
        steps = [(m - rank) * values[k] for rank, k in enumerate(order)]
        if np.allclose(sorted(adjusted), sorted(truth), atol=1e-12):
            raise Hint("the right numbers in the wrong places: return them in the order of the question.")
        if np.allclose(adjusted, [min(1.0, m * p) for p in values], atol=1e-12):
            raise Hint("that is Bonferroni's correction: only the smallest p is multiplied by m, the next by m - 1 …")
        if max(adjusted) > 1:
            raise Hint("an adjusted p is a chance: cut it at 1.")
        loose = [min(1.0, steps[order.index(k)]) for k in range(m)]
        if np.allclose(adjusted, loose, atol=1e-12):
            raise Hint("a larger p may never end below a smaller one: carry the largest value so far along.")
        if np.allclose(adjusted, values, atol=1e-12):
            raise Hint("nothing is corrected yet: with many questions a small p comes by chance.")
        raise Hint(f"for {values} the adjusted values are {[round(p, 4) for p in truth]}, not {adjusted.round(4)}.")


def _closed(values: list[float]) -> list[float]:
    """By the closure principle: the worst Bonferroni p over all sets of questions that hold this one."""
    everything = [s for r in range(1, len(values) + 1) for s in itertools.combinations(range(len(values)), r)]
    return [max(min(1.0, len(s) * min(values[k] for k in s)) for s in everything if i in s) for i in range(len(values))]


def _array(value: Any, shape: tuple[int, ...]) -> F64:
    try:
        found = np.asarray(value, np.float64)
    except (TypeError, ValueError):
        raise Hint(f"return an array of shape {list(shape)}, not {type(value).__name__}.") from None
    if found.shape != shape:
        raise Hint(f"return an array of shape {list(shape)}, not {list(found.shape)}.")
    return found
