"""Marks, FROC curves and AUC, each against counting by hand."""

from __future__ import annotations

import numpy as np
import pytest

from mame_lib.errors import InputError
from mame_lib.evaluation.froc import (
    Detection,
    Froc,
    auc,
    auc_interval,
    froc,
    froc_interval,
    hits,
    judge,
    peaks,
    redrawn,
)


def bump(size: int, *places: tuple[float, float, float], width: float = 3.0) -> np.ndarray:
    """A map with bells at (x, y) of the given heights."""
    y, x = np.indices((size, size)) + 0.5
    bells = [h * np.exp(-((x - u) ** 2 + (y - v) ** 2) / (2 * width**2)) for u, v, h in places]
    return np.max(bells, axis=0)


def test_peaks_are_where_the_bells_are() -> None:
    found = peaks(bump(64, (20.5, 10.5, 0.4), (40.5, 50.5, 0.9)))
    assert [(m.x, m.y) for m in found] == [(40.5, 50.5), (20.5, 10.5)]
    assert [m.score for m in found] == pytest.approx([0.9, 0.4])


def test_peaks_keep_apart_and_stay_few() -> None:
    heat = bump(64, (20.5, 20.5, 0.9), (26.5, 20.5, 0.8), (50.5, 50.5, 0.7), width=1.5)
    assert len(peaks(heat, apart=4)) == 3
    assert [round(m.score, 1) for m in peaks(heat, apart=8)] == [0.9, 0.7]
    assert len(peaks(heat, apart=4, most=1)) == 1
    assert peaks(heat, least=0.95) == []
    assert peaks(np.zeros((8, 8))) == []


def test_the_mark_of_a_plateau_is_at_its_middle() -> None:
    heat = np.zeros((32, 32))
    heat[8:12, 20:24] = 0.5
    assert peaks(heat) == [Detection(22.0, 10.0, 0.5)]


@pytest.mark.parametrize("heat", [np.zeros((2, 4, 4)), np.zeros((0, 0))])
def test_peaks_refuse_what_is_no_map(heat: np.ndarray) -> None:
    with pytest.raises(InputError, match="one map"):
        peaks(heat)


def test_a_hit_may_miss_by_the_slack() -> None:
    box = (10, 10, 20, 30)
    assert hits(Detection(15, 12, 1), box, 0) and hits(Detection(20, 30, 1), box, 0)
    assert not hits(Detection(21.5, 12, 1), box, 0) and hits(Detection(21.5, 12, 1), box, 2)


def test_judging_counts_each_lesion_once() -> None:
    boxes = [[(0, 0, 10, 10)], [], [(0, 0, 10, 10), (30, 30, 40, 40)]]
    marks = [
        [Detection(5, 5, 0.9), Detection(6, 6, 0.8), Detection(30, 5, 0.7)],
        [Detection(1, 1, 0.6)],
        [Detection(35, 35, 0.5)],
    ]
    told = judge(marks, boxes)
    assert told.lesions.tolist() == [0.9, -np.inf, 0.5] and told.lesion_image.tolist() == [0, 2, 2]
    assert told.alarms.tolist() == [0.7, 0.6] and told.alarm_image.tolist() == [0, 1]
    curve = froc(told)
    assert curve.alarms.tolist() == pytest.approx([0, 1 / 3, 2 / 3])
    assert curve.sensitivity.tolist() == pytest.approx([1 / 3, 1 / 3, 2 / 3])
    assert curve.at(0.3) == pytest.approx(1 / 3) and curve.at(1) == pytest.approx(2 / 3)
    assert curve.area(1.0) == pytest.approx((1 / 3) * (2 / 3) + (2 / 3) * (1 / 3))
    with pytest.raises(InputError, match="one list of each"):
        judge(marks, boxes[:2])


def random_case(seed: int) -> tuple[list[list[Detection]], list[list[tuple[int, int, int, int]]]]:
    rng = np.random.default_rng(seed)
    boxes = [[(10, 10, 30, 30)] if rng.random() < 0.5 else [] for _ in range(15)]
    boxes[0] = [(10, 10, 30, 30)]
    marks = [
        [Detection(*rng.uniform(0, 64, 2), float(rng.integers(1, 9)) / 10) for _ in range(rng.integers(0, 6))]
        for _ in range(15)
    ]
    return marks, boxes


@pytest.mark.parametrize("seed", range(6))
def test_froc_against_counting_at_every_threshold(seed: int) -> None:
    """The largest sensitivity that any threshold reaches with no more than so many alarms, ties included."""
    marks, boxes = random_case(seed)
    curve = froc(judge(marks, boxes, slack=0))
    points = []
    for limit in np.arange(0.05, 1.1, 0.1):
        shown = [[m for m in some if m.score > limit] for some in marks]
        wrong = sum(not any(hits(m, b, 0) for b in bs) for some, bs in zip(shown, boxes, strict=True) for m in some)
        found = sum(any(hits(m, b, 0) for m in some) for some, bs in zip(shown, boxes, strict=True) for b in bs)
        points.append((wrong / len(boxes), found / sum(map(len, boxes))))
    for alarms in np.linspace(0, 4, 41):
        assert curve.at(alarms) == pytest.approx(max(s for a, s in points if a <= alarms + 1e-12))


@pytest.mark.parametrize("seed", range(3))
def test_weights_count_images_as_if_they_were_there_twice(seed: int) -> None:
    marks, boxes = random_case(seed)
    weights = np.random.default_rng(seed).integers(0, 3, len(boxes))
    weights[0] = 1
    often = np.repeat(np.arange(len(boxes)), weights)
    again = froc(judge([marks[k] for k in often], [boxes[k] for k in often]))
    heavy = froc(judge(marks, boxes), weights)
    for alarms in np.linspace(0, 4, 41):
        assert heavy.at(alarms) == pytest.approx(again.at(alarms))
    assert heavy.area(1.0) == pytest.approx(again.area(1.0))


def test_froc_without_alarms_or_lesions() -> None:
    perfect = froc(judge([[Detection(5, 5, 0.5)], []], [[(0, 0, 10, 10)], []]))
    assert isinstance(perfect, Froc) and perfect.at(0) == 1 and perfect.area() == 1
    silent = froc(judge([[], []], [[(0, 0, 10, 10)], []]))
    assert silent.at(5) == 0
    with pytest.raises(InputError, match="no lesion"):
        froc(judge([[]], [[]]))
    with pytest.raises(InputError, match="weights"):
        froc(judge([[]], [[(0, 0, 1, 1)]]), [1, 2])


@pytest.mark.parametrize("seed", range(5))
def test_auc_against_counting_pairs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores, ill = rng.integers(0, 7, 40), rng.random(40) < 0.4
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[ill] for b in scores[~ill]]
    assert auc(scores, ill) == pytest.approx(np.mean(pairs), abs=1e-12)
    assert auc(-scores, ill) == pytest.approx(1 - np.mean(pairs), abs=1e-12)


@pytest.mark.parametrize(
    ("scores", "ill"), [([1, 2], [1, 1]), ([1, 2], [0, 0]), ([1, np.nan], [0, 1]), ([1, 2, 3], [0, 1])]
)
def test_auc_refuses_what_has_none(scores: list[float], ill: list[int]) -> None:
    with pytest.raises(InputError):
        auc(scores, ill)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    """Normal scores one standard deviation apart have an AUC of 0.760."""
    rng = np.random.default_rng(0)
    ill = np.arange(80) < 40
    found = [auc_interval(rng.normal(ill, 1.0), ill, draws=200, seed=k) for k in range(60)]
    covered = [one.low <= 0.760 <= one.high for one in found]
    assert np.mean(covered) > 0.85
    assert all(one.low <= one.value <= one.high for one in found)


def test_patients_are_drawn_whole() -> None:
    ill, patients = np.tile([1, 0], 10), np.repeat(np.arange(10), 2)
    for rows in redrawn(ill, patients, 20, np.random.default_rng(0)):
        counts = np.bincount(rows, minlength=20).reshape(10, 2)
        assert (counts[:, 0] == counts[:, 1]).all() and counts.sum() == 20
    paired = np.repeat(np.random.default_rng(1).normal(size=10), 2) + 0.01 * ill  # twins differ by next to nothing
    assert auc_interval(paired, ill, patients, draws=300).high - auc_interval(paired, ill, patients, draws=300).low < (
        auc_interval(paired, ill, draws=300).high - auc_interval(paired, ill, draws=300).low
    )


def test_froc_intervals_hold_their_value() -> None:
    marks, boxes = random_case(1)
    told = judge(marks, boxes)
    for area in (False, True):
        one = froc_interval(told, 1.0, area=area, draws=200)
        assert 0 <= one.low <= one.value <= one.high <= 1
    assert "[" in str(one)
