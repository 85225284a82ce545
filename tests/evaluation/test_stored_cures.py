"""The stored failures and cures of chapter 12: sums agree with rows, and rows are made again from their recipe."""

from __future__ import annotations

import csv
import gzip
import io
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mame_lib.data.prompts import NEGATIVE_PROMPTS
from mame_lib.evaluation.failures import FAILURES, examine
from mame_lib.evaluation.sweep_models import weights_hash
from mame_lib.teaching.stored import stored, stored_images

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(str(BENCHMARKS))
    import cures


@cache
def rows() -> dict[str, list[dict[str, Any]]]:
    """The rows of each arm, in the order of their indices."""
    text = gzip.decompress((BENCHMARKS / "results" / "cures.csv.gz").read_bytes()).decode()
    tables: dict[str, list[dict[str, Any]]] = {}
    for row in csv.DictReader(io.StringIO(text)):
        tables.setdefault(row["arm"], []).append({**row, "index": int(row["index"])})
    return tables


def test_every_cure_has_the_same_images_and_the_four_have_at_least_200() -> None:
    assert list(stored("cures")["cures"]) == list(cures.CURES)
    for name, arm in cures.CURES.items():
        table = rows()[arm.name]
        assert [row["index"] for row in table] == list(range(arm.count)), name
        assert arm.count >= 200 or ":" in name  # other wordings of the negative prompt are tried on fewer
    assert {arm.negative for arm in cures.CURES.values()} == {"", *NEGATIVE_PROMPTS}


def test_every_setting_of_the_rates_is_there() -> None:
    found = {(row["start"], row["steps"], row["guidance"]) for row in stored("failure_rates")["rates"]}
    assert found == {(arm.start, arm.steps, arm.guidance) for arm in cures.RATES}
    assert stored("failure_rates")["images"] == cures.RATED >= 100


@pytest.mark.parametrize("name", FAILURES)
def test_shares_are_those_of_the_rows(name: str) -> None:
    baseline = rows()[cures.BASELINE.name]
    for cure, arm in cures.CURES.items():
        table, told = rows()[arm.name], stored("cures")["cures"][cure]
        before = baseline[: arm.count]
        assert told["rates"][name] == cures.share(cures.failed(table, name))
        assert told["failed"][name] == list(np.flatnonzero(cures.failed(table, name)))
        gap = told["differences"][name]
        assert gap["mended"] - gap["spoiled"] == cures.failed(before, name).sum() - cures.failed(table, name).sum()
        assert gap["interval"][0] <= gap["mean"] <= gap["interval"][1]
    for told, arm in zip(stored("failure_rates")["rates"], cures.RATES, strict=True):
        assert told["all"][name] == cures.share(cures.failed(rows()[arm.name][: cures.RATED], name))


@pytest.mark.slow
def test_the_shipped_weights_are_those_of_the_measurement() -> None:
    weights = stored("cures")["provenance"]["weights"]
    for start in ("noise", "mean", "leak"):
        assert weights_hash(cures.model(start).components) == weights[start]


@pytest.mark.slow
def test_the_sheet_shows_what_its_rows_say() -> None:
    sheet, images = stored("cures")["sheet"], stored_images("cures")
    assert len(images) == len(sheet["rows"]) * len(sheet["images"])
    for r, cure in enumerate(sheet["rows"]):
        some = images[r * len(sheet["images"]) : (r + 1) * len(sheet["images"])]
        table = rows()[cures.CURES[cure].name]
        for k, seen in zip(sheet["images"], examine(some, sheet["prompts"]), strict=True):
            assert " ".join(seen.failures) == table[k]["failed"]


def test_the_gallery_takes_the_first_of_each_failure() -> None:
    gallery = [one for one in stored("failure_rates")["gallery"] if one["arm"]]
    for one in gallery:
        assert one["failure"] in rows()[one["arm"]][one["index"]]["failed"].split()
    for name in FAILURES:
        told = [one["index"] for one in gallery if one["failure"] == name and one["arm"] == cures.BASELINE.name]
        assert told == list(np.flatnonzero(cures.failed(rows()[cures.BASELINE.name], name)))[: len(told)]


@pytest.mark.slow
def test_some_rows_are_made_again() -> None:
    """A dozen at random of arms with shipped weights and at most 50 steps."""
    able = [arm for arm in cures.arms() if arm.start != "zero SNR" and arm.steps <= 50]
    rng = np.random.default_rng(20)
    for arm in (able[k] for k in rng.permutation(len(able))[:12]):
        k = int(rng.integers(arm.count))
        images = np.stack([one.pixels for one in cures.images_of(cures.model(arm.start), arm, range(k, k + 1))])
        [again] = cures.rows(arm, images, first=k)
        kept = rows()[arm.name][k]
        for name in (*FAILURES, "area_ratio", "density_index"):
            assert again[name] == pytest.approx(float(kept[name]), rel=0.05, abs=0.21, nan_ok=True), (arm.name, k, name)
        assert again["area_ratio"] == pytest.approx(float(kept["area_ratio"]), abs=2e-3)
