"""What the log tells: means over all rows since the last line, by tenths of the timesteps, class images apart."""

from __future__ import annotations

import math

import pytest
import torch

from mame_lib.training.data import Batch
from mame_lib.training.meter import Meter, peak_memory
from mame_lib.training.world import ALONE

CPU = torch.device("cpu")


def batch(timesteps: list[int], rows: list[int] | None = None) -> Batch:
    count, nothing = len(timesteps), torch.zeros(len(timesteps), 1)
    own = None if rows is None else torch.tensor(rows)
    return Batch(nothing, nothing, torch.tensor(timesteps), torch.zeros(count, 1), rows=own)


def test_losses_are_means_over_rows_and_by_deciles() -> None:
    meter = Meter(1000, CPU)
    meter.add(batch([0, 99, 100]), torch.tensor([1.0, 3.0, 5.0]), torch.tensor(2.0))
    meter.add(batch([999]), torch.tensor([7.0]), torch.tensor(4.0))
    line = meter.line(ALONE)
    assert line["loss"] == pytest.approx(4.0) and line["grad_norm"] == pytest.approx(3.0)
    assert line["loss_by_decile"] == [2.0, 5.0, *[None] * 7, 7.0]
    assert line["steps_averaged"] == 2 and line["images_per_second"] > 0 and "prior_loss" not in line
    fresh = meter.line(ALONE)
    assert fresh["loss"] is None and fresh["loss_by_decile"] == [None] * 10 and fresh["steps_averaged"] == 0


def test_class_images_are_counted_apart() -> None:
    meter = Meter(1000, CPU)
    meter.add(batch([0, 500, 999], rows=[3, -1, -5]), torch.tensor([1.0, 8.0, 10.0]), torch.tensor(1.0))
    line = meter.line(ALONE)
    assert line["loss"] == 1.0 and line["prior_loss"] == 9.0
    assert line["loss_by_decile"] == [1.0, *[None] * 9]


def test_what_is_not_finite_is_left_out() -> None:
    meter = Meter(1000, CPU)
    meter.add(batch([0, 0]), torch.tensor([math.nan, 3.0]), torch.tensor(math.inf))
    meter.add(batch([0]), torch.tensor([5.0]), torch.tensor(1.0))
    line = meter.line(ALONE)
    assert line["loss"] == 4.0 and math.isfinite(line["grad_norm"])


def test_memory_is_told_in_bytes() -> None:
    pytest.importorskip("resource")
    peak = peak_memory(CPU)["peak_memory"]
    assert 50e6 < peak < 1e12
