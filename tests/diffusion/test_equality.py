"""Every sampler equals diffusers' scheduler: the grid of benchmarks/equality.py, with fewer numbers of steps."""

from __future__ import annotations

import importlib
import math
from pathlib import Path
from typing import Any

import pytest
import torch

# diffusers hands NumPy 2 an array method without `copy`; harmless, and not ours to mend.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(str(BENCHMARKS))
    equality: Any = importlib.import_module("equality")
STEPS = (1, 2, 5, 24, 50)


@pytest.mark.parametrize("case", equality.CASES, ids=lambda case: case.name)
def test_a_sampler_equals_the_scheduler_of_diffusers(case: Any) -> None:
    compared = list(equality.settings(case, STEPS))
    assert {kind for _, _, kind in compared} == set(case.predictions)
    for spacing, steps, kind in compared:
        found = equality.difference(case, spacing, steps, kind)
        assert math.isfinite(found) and found <= equality.LIMIT, (spacing, steps, kind, found)


def test_the_grid_covers_every_sampler_and_leaves_only_the_gaps_it_names() -> None:
    assert {case.sampler for case in equality.CASES} == set(equality.SAMPLERS)
    missing = {c.name: {s for s in equality.SPACINGS if not any(c.fair(s, n) for n in STEPS)} for c in equality.CASES}
    assert {name: gaps for name, gaps in missing.items() if gaps} == {
        "DDPM, large variance": {"trailing", "leading"},
        **{f"DDIM, eta {eta}": {"linspace"} for eta in ("0", "0.5", "1")},
    }


def test_the_gaps_are_of_diffusers_and_real() -> None:
    """Where the grid leaves a setting out, the scheduler really ends elsewhere; else the exception would be ours."""
    by_name = {case.name: case for case in equality.CASES}
    assert equality.difference(by_name["DDIM, eta 0"], "trailing", 24, "epsilon") > 1e-3
    assert equality.difference(by_name["DDIM, eta 0"], "linspace", 24, "epsilon") > 1e-3
    assert equality.difference(by_name["DDPM, large variance"], "trailing", 24, "epsilon") > 1e-2


def test_a_wrong_sampler_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sampler that is wrong by one part in ten thousand of a step fails the grid."""

    def off(model: Any, x: torch.Tensor, *rest: Any, **more: Any) -> Any:
        more.pop("generators")
        yield from true(lambda y, t: model(y, t) * 1.0001, x, *rest, **more)

    true = equality.SAMPLERS["euler"]
    monkeypatch.setitem(equality.SAMPLERS, "euler", off)
    case = next(case for case in equality.CASES if case.sampler == "euler")
    assert equality.difference(case, "trailing", 24, "epsilon") > equality.LIMIT
