"""The calculator of chapter 08 in a browser: by keyboard, without a kernel, with the numbers of the stored plans."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = "book/08_resources"

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_calculator_answers_the_keyboard(scheme: str, site: Path, visit: Any) -> None:
    seen = visit((site / f"{PAGE}.html").as_uri(), scheme=scheme)
    page, grid = seen.page, json.loads((ROOT / "benchmarks" / "results" / "memory.json").read_text())["grid"]
    before = page.inner_text("#mame-fit output")
    page.locator("#mame-fit select").nth(2).focus()  # images at once
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    after = page.inner_text("#mame-fit output")
    assert after != before
    chosen = next(
        e for e in grid
        if (e["method"], e["micro_batch_size"], e["gradient_checkpointing"], e["optimizer"], e["ema_decay"])
        == ("full", 4, True, "adamw8bit", 0.0)
    )  # fmt: skip
    assert f"{sum(chosen['parts'].values()) / 1024:.1f} GiB predicted at the peak ({chosen['phase']})" in after
    page.select_option("#mame-fit select >> nth=0", "A100 or H100, 80 GB")
    page.select_option("#mame-fit select >> nth=4", "adamw")
    assert page.inner_text("#mame-fit output").startswith("Fits")
    ink, ground = (
        page.evaluate(f"getComputedStyle(document.querySelector('#mame-fit select')).{name}")
        for name in ("color", "backgroundColor")
    )
    assert ink != ground
    assert not seen.complaints and not seen.foreign
