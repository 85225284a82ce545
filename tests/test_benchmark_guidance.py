"""The stored table of chapter 09: made of the stored sweep, and of phantoms that can be drawn again."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mame_lib.data.case import Attributes
from mame_lib.data.prompts import parse
from mame_lib.evaluation.diversity import paper_protocol
from mame_lib.evaluation.trends import slope
from mame_lib.teaching.stored import stored, stored_rows

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(str(BENCHMARKS))
    guidance_table: Any = importlib.import_module("guidance_table")

PLANS = guidance_table.PLANS["guidance"]
MODELS = stored("guidance_table")["models"]


@pytest.mark.parametrize("name", MODELS)
def test_the_table_belongs_to_the_stored_rows(name: str) -> None:
    """Counted from the rows: who obeys, and how large the breasts are."""
    rows = [row for row in stored_rows("guidance") if row.model == name]
    assert {f"{row.guidance_scale:g}" for row in rows} == set(MODELS[name]["cells"]) == {str(g) for g in range(1, 15)}
    assert {row.prompt for row in rows} == {MODELS[name]["prompt"]}
    for g, cell in MODELS[name]["cells"].items():
        some = [row for row in rows if f"{row.guidance_scale:g}" == g]
        assert cell["area"] == pytest.approx(np.mean([row.area_ratio for row in some]), abs=1e-4)
        assert cell["whole"]["obedient"]["images"] == sum(map(guidance_table.as_asked, some))
        for kind in guidance_table.KINDS:
            found = cell[kind]["pairs"]
            assert found["images"] == len(some) == 40 and found["low"] < found["mean"] < found["high"]
            assert abs(cell[kind]["paper"]["mean"] - found["mean"]) < 4 * cell[kind]["paper"]["sd"] / 20**0.5


@pytest.mark.parametrize("name", MODELS)
def test_the_trend_is_the_slope_of_the_table(name: str) -> None:
    for kind, trend in MODELS[name]["trend"].items():
        means = [MODELS[name]["cells"][f"{g:g}"][kind]["pairs"]["mean"] for g in guidance_table.TREND]
        assert trend["value"] == pytest.approx(slope(means, guidance_table.TREND), abs=1e-5)
        assert trend["low"] < trend["value"] < trend["high"]


def test_a_model_of_one_vendor_is_compared_with_that_vendors_phantoms() -> None:
    asked = {plan.model: guidance_table.asked_of(plan) for plan in PLANS}
    assert asked["hologic"] == Attributes("hologic", "MLO", area="small")
    assert asked["siemens"] == Attributes("siemens", "CC", density="high")
    assert asked["fused"] == parse(MODELS["fused"]["prompt"])


@pytest.mark.slow
@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.model)
def test_the_baseline_can_be_drawn_again(plan: Any) -> None:
    images = guidance_table.baseline(guidance_table.asked_of(plan))
    kept = MODELS[plan.model]["phantoms"]
    for kind, matrix in guidance_table.matrices(images).items():
        mean, sd = paper_protocol(matrix)
        assert (mean, sd) == pytest.approx((kept[kind]["paper"]["mean"], kept[kind]["paper"]["sd"]), abs=2e-4)
