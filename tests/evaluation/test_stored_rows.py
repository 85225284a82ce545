"""The stored rows of chapters 09 and 10 are what their command makes: a few, drawn at random, are made again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mame_lib.evaluation.sweep import verify_rows
from mame_lib.evaluation.sweep_models import weights_hash
from mame_lib.evaluation.sweep_rows import read_csv, write_csv
from mame_lib.generation import Mame
from mame_lib.models.presets import WEIGHTS
from mame_lib.teaching.stored import stored, stored_rows

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
NAMES = ("guidance", "extrapolation", "dropout")
with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(str(BENCHMARKS))
    import sweeps


@pytest.mark.parametrize("name", NAMES)
def test_rows_are_those_of_the_command(name: str) -> None:
    said, rows = stored(name), stored_rows(name)
    assert said["provenance"]["command"] == f"python benchmarks/sweeps.py {name}"
    assert said["plans"] == [{**vars(plan), "guidance_scale": list(plan.guidance_scale), "prompts": len(plan.prompts)}
                             for plan in sweeps.PLANS[name]]  # fmt: skip
    wanted = [
        (plan.model, g, prompt, index)
        for plan in sweeps.PLANS[name]
        for prompt in plan.prompts
        for g in plan.guidance_scale
        for index in range(plan.count)
    ]
    assert sorted(wanted) == sorted((row.model, row.guidance_scale, row.prompt, row.index) for row in rows)
    assert {row.model: row.weights for row in rows} == said["weights"]


@pytest.mark.parametrize("name", ("fused", "hologic", "siemens"))
def test_shipped_models_are_those_that_made_the_rows(name: str) -> None:
    weights = weights_hash(Mame.load(name).components)
    assert all(stored(one)["weights"].get(name, weights) == weights for one in NAMES)


@pytest.mark.slow
@pytest.mark.parametrize("name", ("guidance", "extrapolation"))
def test_random_rows_are_made_again(name: str) -> None:
    shipped = [row for row in stored_rows(name) if (WEIGHTS / row.model).is_dir()]
    checks = verify_rows(shipped, rows=4, seed=2026)
    assert len(checks) == 4 and all(check.same for check in checks), checks


def test_a_row_that_was_changed_is_found() -> None:
    row = stored_rows("guidance")[0]
    (check,) = verify_rows([replace(row, area_ratio=row.area_ratio + 0.01)], rows=1)
    assert not check.same and check.drift == pytest.approx(0.01, abs=1e-3)


def test_compressed_rows_come_back(tmp_path: Path) -> None:
    rows = stored_rows("dropout")[:5]
    for name in ("rows.csv", "rows.csv.gz"):
        write_csv(rows, tmp_path / name)
        assert read_csv(tmp_path / name) == rows
    before = (tmp_path / "rows.csv.gz").read_bytes()
    write_csv(rows, tmp_path / "rows.csv.gz")
    assert (tmp_path / "rows.csv.gz").read_bytes() == before
