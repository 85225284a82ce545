"""The beta explorer in a browser: what its script computes is what `mame_lib.diffusion.schedule` computes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from mame_lib.diffusion.schedule import for_name
from mame_lib.teaching.beta_explorer import explorer, sentence

pytestmark = pytest.mark.browser

SETTINGS = [
    ("scaled_linear", 0.00085, 0.012, 1000),
    ("scaled_linear", 0.0015, 0.0195, 1000),
    ("linear", 0.0001, 0.02, 1000),
    ("linear", 0.0001, 0.01, 50),  # the noise never wins
    ("scaled_linear", 0.01, 0.01, 150),  # both ends alike
    ("cosine", 0.0001, 0.02, 1000),
    ("cosine", 0.0001, 0.02, 50),
    ("linear", 0.0001, 0.03, 2000),
]


@pytest.fixture
def page(visit: Any, tmp_path: Path) -> Any:
    """The explorer alone on a page, nothing built."""
    path = tmp_path / "explorer.html"
    path.write_text(f'<!doctype html><html lang="en"><meta charset="utf-8">{explorer()._repr_html_()}', encoding="utf8")
    seen = visit(path.as_uri(), scroll=False)
    yield seen.page
    assert not seen.complaints and not seen.foreign


def _set(page: Any, shape: str, *values: float) -> None:
    """Move the controls as a reader does, each with its event."""
    page.select_option(".mame-beta select", shape)
    for name, value in zip(("beta_start", "beta_end", "timesteps"), values, strict=True):
        page.evaluate(
            "([name, value]) => { const s = document.querySelector(`.mame-beta input[name=${name}]`);"
            " s.value = value; s.dispatchEvent(new Event('input')); }",
            [name, value],
        )


def _tables(page: Any) -> dict[str, list[float]]:
    return page.evaluate("document.querySelector('.mame-beta').tables")


@pytest.mark.parametrize(("shape", "start", "end", "timesteps"), SETTINGS)
def test_script_and_library_agree(page: Any, shape: str, start: float, end: float, timesteps: int) -> None:
    _set(page, shape, start, end, timesteps)
    schedule = for_name(shape, beta_start=start, beta_end=end, timesteps=timesteps)
    computed = _tables(page)
    wanted = {"beta": schedule.betas, "signal": schedule.signal, "sigma": schedule.sigma, "snr": schedule.snr}
    for name, table in wanted.items():
        torch.testing.assert_close(torch.tensor(computed[name], dtype=torch.float64), table.double(), rtol=1e-6, atol=0)
    torch.testing.assert_close(
        torch.tensor(computed["log_snr"], dtype=torch.float64), schedule.snr.double().log10(), rtol=1e-6, atol=1e-6
    )
    assert page.inner_text(".mame-beta output") == sentence(schedule)


def test_the_script_draws_the_frame_that_lies_in_the_page(page: Any) -> None:
    read = r'<path class="(\w+)" d="([^"]+)"'
    before = dict(re.findall(read, explorer()._repr_html_()))
    after = dict(re.findall(read, page.evaluate("document.querySelector('.mame-beta .panels').innerHTML")))
    assert before.keys() == after.keys() and len(after) == 4
    for name, path in before.items():
        ours, theirs = ([float(n) for n in re.findall(r"[\d.]+", text)] for text in (path, after[name]))
        assert ours == pytest.approx(theirs, abs=0.11), name  # a tenth is the last digit drawn


def test_it_answers_the_keyboard(page: Any) -> None:
    before = _tables(page)
    page.locator(".mame-beta input[name=beta_end]").focus()
    page.keyboard.press("ArrowRight")
    after, schedule = _tables(page), for_name("scaled_linear", beta_end=0.0125)
    assert after["snr"][-1] < before["snr"][-1]
    assert page.inner_text(".mame-beta output") == sentence(schedule)
    assert page.inner_text(".mame-beta label:has([name=beta_end]) b") == "0.0125"
    page.locator(".mame-beta select").focus()
    page.keyboard.press("c")  # the word that begins with it
    page.wait_for_function("document.querySelector('.mame-beta select').value === 'cosine'")
    assert page.locator(".mame-beta input:disabled").count() == 2, "the cosine has no ends to move"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_lies_in_chapter_02_and_can_be_read_there(scheme: str, site: Path, visit: Any) -> None:
    seen = visit((site / "book" / "02_forward.html").as_uri(), scheme=scheme)
    assert seen.page.locator(".mame-beta").count() == 1
    ink, ground, line = seen.page.evaluate(
        "() => { const look = (name, what) => getComputedStyle(document.querySelector('.mame-beta' + name))[what];"
        " return [look(' output', 'color'), look('', 'backgroundColor'), look(' path', 'stroke')]; }"
    )
    light = [sum(int(n) for n in re.findall(r"\d+", color)[:3]) / 765 for color in (ink, ground, line)]
    assert abs(light[0] - light[1]) > 0.5 and abs(light[2] - light[1]) > 0.2
    assert not seen.complaints and not seen.foreign
