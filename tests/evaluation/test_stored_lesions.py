"""The stored measurement of inpainted lesions: sums agree with rows, and rows are made again from their recipe."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mame_lib.evaluation.findings import READ
from mame_lib.evaluation.sweep_models import weights_hash
from mame_lib.generation import Mame
from mame_lib.teaching.stored import stored

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(str(BENCHMARKS))
    import lesion_statistics as statistics
    import lesions


@cache
def rows() -> list[dict[str, Any]]:
    return statistics.read_rows(BENCHMARKS / "results" / "lesions.csv.gz")


def test_every_cell_has_every_breast() -> None:
    count = stored("lesions")["settings"]["images"]
    assert count >= 48
    cells = statistics.groups([{"arm": "", "prompt": "", "guidance": 0, "steps": 0, **row} for row in rows()],
                              "part", "arm", "prompt", "world", "guidance", "steps")  # fmt: skip
    for key, cell in cells.items():
        assert sorted(row["index"] for row in cell) == list(range(count)), key
    assert {key[2] for key in cells if key[0] == "words"} == set(lesions.PROMPTS.values())
    grid = {(key[4], key[5]) for key in cells if key[0] == "sweep"}
    assert grid == {(g, s) for g in lesions.SCALES for s in lesions.STEP_COUNTS}


def test_means_are_those_of_the_rows() -> None:
    told = stored("lesions")
    parts = statistics.groups(rows(), "part")
    arms = statistics.groups(parts["arms"], "world", "arm")
    for (world, arm), cell in arms.items():
        for name in statistics.MEASURES:
            values = statistics.column(cell, name)
            values = values[np.isfinite(values)]
            mean = np.exp(np.log(values).mean()) if name == "seam" else values.mean()
            said = told["arms"][world][arm][name]
            assert said["mean"] == pytest.approx(mean, abs=2e-3, rel=1e-3) and said["images"] == len(values)
            assert said["interval"][0] <= said["mean"] <= said["interval"][1]
        apart = statistics.column(cell, "contrast") - statistics.column(arms[world, "true lesion"], "contrast")
        assert told["arms"][world][arm]["to true"]["contrast"]["mean"] == pytest.approx(apart.mean(), abs=2e-3)


def test_words_read_are_those_of_the_rows() -> None:
    told = stored("lesions")["words"]
    asked = statistics.groups(statistics.groups(rows(), "part")["words"], "prompt")
    for prompt, cell in asked.items():
        chances = np.stack([statistics.column(cell, name) for name in statistics.CHANCES], axis=1)
        for k, word in enumerate(READ):
            assert told[prompt]["read"][word]["images"] == (chances.argmax(1) == k).sum()
            assert told[prompt]["chance"][word]["mean"] == pytest.approx(chances[:, k].mean(), abs=2e-3)


def test_means_by_hand() -> None:
    values = np.array([1.0, 4.0, np.nan])
    assert statistics.mean(values)["mean"] == 2.5 and statistics.mean(values)["images"] == 2
    assert statistics.mean(values, ratio=True)["mean"] == pytest.approx(2.0)
    assert statistics.mean(np.array([np.nan]))["mean"] is None


@pytest.mark.slow
def test_the_shipped_model_is_the_one_that_was_measured() -> None:
    assert stored("lesions")["provenance"]["weights"] == weights_hash(Mame.load("inpaint").components)


@pytest.mark.slow
def test_some_rows_are_made_again() -> None:
    """Two breasts at random: as drawn, pasted, and filled under one of the prompts."""
    k = int(np.random.default_rng(11).integers(40))
    bench = lesions.Bench(Mame.load("inpaint"), range(k, k + 2))
    prompt = lesions.FINDING_PROMPTS["spiculated mass"]
    again = [{"part": "arms", **row} for row in bench.arms()] + [{"part": "truth", **row} for row in bench.truth()]
    again += [{"part": "words", **row} for row in bench.cell(prompt)]
    names = ("part", "arm", "prompt", "world", "index")
    kept = {tuple(row.get(name, "") for name in names): row for row in rows()}
    filled = set()
    for row in again:
        before = kept[tuple(row.get(name, "") for name in names)]
        for name in (*statistics.MEASURES, *statistics.CHANCES):
            if name in before:
                made = "filled" in row.get("arm", "") or "prompt" in row
                filled.add(made)
                # what was sampled in another batch differs in the last bits, and so in a gray level here and there
                slack = {"rel": 0.1, "abs": 0.5} if made else {"rel": 1e-3, "abs": 0.01}
                wanted = pytest.approx(before[name], nan_ok=True, **slack)
                assert row[name] == wanted, (row["part"], row.get("arm"), name)
    assert filled == {True, False}
