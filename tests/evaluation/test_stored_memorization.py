"""The stored measurement of memorization: sums agree with rows, promises hold, and rows are made again."""

from __future__ import annotations

import csv
import gzip
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mame_lib.data.sources import phantom_source
from mame_lib.evaluation import memorization as m
from mame_lib.teaching.stored import stored, stored_images

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(str(BENCHMARKS))
    import memorization as script
    import memorization_models as models


@cache
def cells() -> dict[str, list[dict[str, Any]]]:
    text = gzip.decompress((BENCHMARKS / "results" / "memorization.csv.gz").read_bytes()).decode()
    found: dict[str, list[dict[str, Any]]] = {}
    for row in csv.DictReader(text.splitlines()):
        numbers = {key: value if key in ("cell", "flip") else float(value) for key, value in row.items() if value != ""}
        numbers.setdefault("flip", "")
        numbers |= {key: int(value) for key, value in numbers.items() if key.endswith("index")}
        found.setdefault(row["cell"], []).append(numbers)
    return found


def calibration_of(cell: str) -> m.Calibration:
    return m.calibrate(None, script.matches_of(cells()[cell]))


def test_planted_copies_are_found_and_strangers_are_left_alone() -> None:
    """At least 99 % of the copies, and at most 1 % of phantoms of another seed than the calibration's."""
    told = stored("memorization")["planted"]
    copies = {name: one for name, one in told["planted"].items() if name != "held-out"}
    assert len(copies) == 12 and told["training_images"] > 3500
    assert told["planted"]["held-out"]["found"][0] <= 0.01
    for name, one in copies.items():
        assert one["found"][0] >= 0.99 and one["right_image"][0] >= 0.99, name
    for name in ("mirrored", "all at once"):  # without the search they pass unseen
        for test in ("nndr_of_32_pixels_without_search", "nndr_of_gray_levels_without_search"):
            assert copies[name][test] < 0.5, (name, test)


def test_overfitted_models_are_caught_and_shipped_ones_are_cleared() -> None:
    told = stored("memorization")
    last, first = script.STEPS[-1], script.COUNTS[0]
    rates = {name: one["rate"][0] for name, one in told["overfitted"]["models"].items()}
    assert set(rates) == {f"{count}-{steps}" for count in script.COUNTS for steps in script.STEPS}
    assert rates[f"{first}-{last}"] > 0.9 and told["overfitted"]["models"][f"{first}-{last}"]["copies_found"]
    assert rates[f"{first}-{script.STEPS[0]}"] < rates[f"{first}-{last}"]
    assert rates[f"{script.COUNTS[-1]}-{last}"] < 0.1 * rates[f"{first}-{last}"]
    for name, one in told["shipped"].items():
        assert not one["guidance 4"]["copies_found"] and one["guidance 4"]["images"] == script.SHIPPED, name
    assert told["overfitted"]["extraction"][str(first)]["most frequent"]["of_that_caption"] >= 1


def test_sums_are_those_of_the_rows() -> None:
    told = stored("memorization")
    fused = calibration_of("fused, calibration")
    assert script.summary(fused) == told["planted"]["calibration"] == told["shipped"]["fused"]["calibration"]
    for name, one in told["planted"]["planted"].items():
        matches = script.matches_of(cells()[f"fused, {name}"])
        suspicion = fused.of(matches)
        assert script.share(suspicion > fused.threshold) == one["found"]
        assert one["least_suspicion"] == pytest.approx(suspicion.min(), abs=1e-3)
    for count in script.COUNTS:
        calibration = calibration_of(f"{count}, calibration")
        assert script.summary(calibration) == told["overfitted"]["sets"][str(count)]["calibration"]
        for part in ("models", "arms"):
            for name, one in told["overfitted"][part].items():
                if name.startswith(f"{count}-"):
                    assert script.cell_summary(cells()[name], calibration) == one, name
    for name, one in told["shipped"].items():
        calibration = calibration_of(f"{name}, calibration")
        for arm in [key for key in one if key.startswith("guidance")]:
            assert script.cell_summary(cells()[f"{name}, samples, {arm}"], calibration) == one[arm]


def test_rows_are_made_again() -> None:
    """Held-out phantoms against the 20 of the smallest training set, in the forms that need no network."""
    count = script.COUNTS[0]
    training = np.stack([item.image for item in phantom_source(count=count, seed=models.SEED)])
    wanted = script.SETS["held-out"]
    some = [item.image for item, _ in zip(phantom_source(count=4, seed=wanted["seed"]), range(4), strict=True)]
    again = m.nearest(np.stack(some), training)
    rows = cells()[f"{count}, held-out"]
    assert len(rows) == script.JUDGED["models"]
    for form in ("pixel", "detail"):
        for k, row in enumerate(rows[: len(some)]):
            assert again.spaces[form].index[k] == row[f"{form} index"]
            for part in ("distance", "second", "others"):
                assert getattr(again.spaces[form], part)[k] == pytest.approx(row[f"{form} {part}"], abs=5e-4)


def test_the_picture_holds_six_pairs() -> None:
    tiles = np.stack(stored_images("memorization")).reshape(6, 4, 128, 128).astype(float)
    alike = [np.corrcoef(generated.ravel(), training.ravel())[0, 1] for generated, training, _, _ in tiles]
    assert min(alike[:3]) > 0.95  # the model of 20 phantoms
    assert (BENCHMARKS / "results" / "memorization.png").stat().st_size <= 300_000
