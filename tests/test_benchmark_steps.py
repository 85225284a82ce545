"""The measures of benchmarks/steps.py on sets whose answer is known."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(str(BENCHMARKS))
    steps: Any = importlib.import_module("steps")


def test_energy_distance_of_two_points_each_by_hand() -> None:
    places = np.array([0.0, 1.0, 4.0, 6.0])  # two sets: {0, 1} and {4, 6}
    gaps = np.abs(places[:, None] - places[None])
    across = (4 + 6 + 3 + 5) / 4
    found = steps.energy_distance(gaps, np.array([True, True, False, False]))
    assert found == pytest.approx(2 * across - 1 - 2)


def test_energy_distance_tells_a_shift_from_luck() -> None:
    g = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 28, 6, generator=g)
    same, shifted = steps.against(first, second), steps.against(first, second + 1.5)
    assert same["luck_low"] <= same["energy"] <= same["luck_high"]
    assert shifted["energy"] > shifted["luck_high"] > shifted["luck_low"]


def test_looks_reads_phantoms_as_asked() -> None:
    drawn = [steps.draw(one, size=128, seed=3, index=k).image for k, one in enumerate(steps.SENTENCES)]
    found = steps.looks(np.stack(drawn))
    assert found["view"] == 1.0 and found["area"] == 1.0 and found["density"] >= 0.75
    flat = steps.looks(np.stack(drawn) // 2)
    assert flat["local_sd"] < 0.7 * found["local_sd"]


def test_apart_is_the_mean_of_root_mean_squares() -> None:
    assert steps.apart(np.array([[3.0, 3.0], [0.0, 0.0]]), np.array([[0.0, 0.0], [1.0, 1.0]])) == pytest.approx(2.0)
