"""The calculator holds every plan, says what the stored plans say, and these are what the planner still says."""

from __future__ import annotations

import json
import re

import pytest

from mame_lib.planner import plan
from mame_lib.teaching.stored import stored
from mame_lib.teaching.widgets import CARDS, QUESTIONS, calculator
from mame_lib.training.config import TrainConfig

GRID = stored("memory")["grid"]


def test_the_calculator_holds_every_plan() -> None:
    text = calculator(GRID)._repr_html_()
    data = json.loads(re.search(r'<script type="application/json">(.*?)</script>', text, flags=re.S)[1])  # type: ignore[index]
    assert len(data["rows"]) == len(GRID)
    for entry in GRID[:: len(GRID) // 7]:
        answers = [entry[name] for name in QUESTIONS]
        key = "|".join(str(a).lower() if isinstance(a, bool) else str(a) for a in answers)
        assert data["rows"][key] == [entry["phase"], *entry["parts"].values()]
        for answer in key.split("|"):
            assert f'value="{answer}"' in text
    assert data["cards"] == CARDS


def test_without_a_script_the_first_answers_are_shown() -> None:
    text = calculator(GRID)._repr_html_()
    first = next(e for e in GRID if all(e[n] == next(iter(answers)) for n, (_, answers) in QUESTIONS.items()))
    total = sum(first["parts"].values()) / 1024
    assert f"{total:.1f} GiB predicted at the peak ({first['phase']})" in text
    assert ("Fits" in text.split("<output")[1]) == (total <= next(iter(CARDS.values())))


def test_a_missing_plan_is_told() -> None:
    with pytest.raises(ValueError, match="needs 120 plans, got 119"):
        calculator(GRID[1:])


def test_nothing_comes_from_outside_the_page() -> None:
    assert not re.search(r"https?://|src=|@import", calculator(GRID)._repr_html_())


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 50, -1])
def test_stored_plans_are_still_the_planners(number: int) -> None:
    entry = GRID[number]
    settings = {name: entry[name] for name in QUESTIONS}
    config = TrainConfig(data="d", out="o", preset="sd15", precision="float16", batch_size=256, **settings)  # type: ignore[arg-type]
    now = plan(config, device_kind="cuda").peak
    assert now.name == entry["phase"]
    assert sum(now.parts.values()) / 2**20 == pytest.approx(sum(entry["parts"].values()), rel=0.01)
