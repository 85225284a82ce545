"""The stored results of chapter 15: sums agree with their rows, and what must be shown is shown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mame_lib.evaluation.adherence import wilson
from mame_lib.evaluation.froc import auc
from mame_lib.teaching.stored import stored

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(str(BENCHMARKS))
    import augmentation
    import heatmaps
    from augmentation_statistics import MEASURES, ROWS, read_rows


def test_the_rises_are_those_of_the_stored_scores() -> None:
    found = stored("heatmaps")
    assert found["seeds"] >= 64
    assert list(found["sets"]) == [*(one.name for one in heatmaps.SETTINGS), "true masses", "true masses, decoded"]
    for one in found["sets"].values():
        for twin in one["scores"]["twins"].values():
            scores = np.array(twin["scores"])
            assert scores.shape == (found["seeds"], 2)
            rises = int((scores[:, 0] > scores[:, 1]).sum())
            assert abs(rises / len(scores) - twin["rises"]["share"]) < 0.05  # four digits may tie
            said = round(twin["rises"]["share"] * len(scores))
            assert twin["rises"]["interval"] == pytest.approx(wilson(said, len(scores)), abs=1e-4)


def test_the_detector_believes_masses_at_guidance_8() -> None:
    """What must be shown: in 90 % of 64 seeds or more the score rises, against both twins.

    The paper's word at its guidance does not reach that. Of six settings these two did, so they were measured again on
    seeds that nobody had looked at, and it is those that count.
    """
    confirmed = stored("heatmaps_confirmed")
    first, last = confirmed["seeds"]
    assert first >= stored("heatmaps")["seeds"] and last - first >= 64
    assert list(confirmed["sets"]) == [one.name for one in heatmaps.CONFIRMED]
    for one in confirmed["sets"].values():
        for twin in one["scores"]["twins"].values():
            assert twin["rises"]["images"] == last - first and twin["rises"]["share"] >= 0.9


def test_maps_have_their_pointing_rates() -> None:
    found = stored("heatmaps")
    for name, one in found["sets"].items():
        for maps in (one["maps"], *one["maps of twins"].values()):
            assert set(maps) == {"saliency", "grad_cam", "occlusion"}
            for scored in maps.values():
                low, high = scored["pointing"]["interval"]
                assert low <= scored["pointing"]["share"] <= high and scored["pointing"]["images"] == found["seeds"]
        assert bool(one["maps of twins"]) == (name in heatmaps.TWINS)


def test_the_augmentation_table_agrees_with_its_rows() -> None:
    found = stored("augmentation")
    runs = list(read_rows(BENCHMARKS / "results" / ROWS))
    assert list(found["arms"]) == [arm.name for arm in augmentation.ARMS]
    for name, arm in found["arms"].items():
        mine = [run for run in runs if run.arm == name]
        assert len(mine) >= 5
        assert [round(auc(run.scores, run.ill), 4) for run in mine] == arm["auc"]["by seed"]
        for measure in MEASURES:
            low, high = arm[measure]["interval"]
            assert low <= arm[measure]["value"] <= high
            assert ("difference" in arm[measure]) == (name != augmentation.Arm().name)
    seeds = found["provenance"]["seeds"]
    assert seeds["test"] not in (seeds["detector"], seeds["ground"], seeds["sampling"], *seeds["generators"])
