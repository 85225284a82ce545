"""The explorer's first frame says and draws what the library computes, and it needs nothing but the page."""

from __future__ import annotations

import re

import pytest
import torch

from mame_lib.diffusion.schedule import cosine_schedule, for_name, linear_schedule, scaled_linear_schedule
from mame_lib.teaching.beta_explorer import HEIGHT, SHAPES, SLIDERS, WIDTH, explorer, sentence

TEXT = explorer()._repr_html_()


def _points(name: str) -> torch.Tensor:
    """The points of a curve [n, 2], from 0..1 at the left bottom to the right top."""
    path = re.search(rf'<path class="{name}" d="M([^"]+)"', TEXT)
    assert path
    pairs = torch.tensor([[float(n) for n in pair.split(",")] for pair in path[1].split("L")], dtype=torch.float64)
    return torch.stack([pairs[:, 0] / WIDTH, 1 - pairs[:, 1] / HEIGHT], dim=1)


@pytest.mark.parametrize("name", ["beta", "signal", "sigma", "log_snr"])
def test_the_first_frame_is_the_schedule_of_stable_diffusion(name: str) -> None:
    schedule = scaled_linear_schedule()
    curve = {"beta": schedule.betas / 0.012, "signal": schedule.signal, "sigma": schedule.sigma,
             "log_snr": (schedule.snr.log10() + 3) / 7}[name].double()  # fmt: skip
    drawn = _points(name)
    assert len(drawn) > 100 and drawn[0, 0] == 0 and drawn[-1, 0] == 1
    wanted = curve[(drawn[:, 0] * 999).round().long()]
    torch.testing.assert_close(drawn[:, 1], wanted, atol=0.03 if name == "log_snr" else 0.01, rtol=0)


def test_the_sentence_is_in_the_page_and_tells_the_numbers_of_the_library() -> None:
    schedule = scaled_linear_schedule()
    said = sentence(schedule)
    assert said.replace("<", "&lt;") in TEXT
    snr, left, first = re.search(r"SNR ([\d.e+-]+), ([\d.]+) % .* from t = (\d+)", said).groups()  # type: ignore[union-attr]
    assert float(snr) == pytest.approx(float(schedule.snr[-1]), rel=5e-3)
    assert float(left) == pytest.approx(100 * float(schedule.signal[-1]), rel=1e-2)
    assert schedule.snr[int(first)] < 1 <= schedule.snr[int(first) - 1]


def test_the_sentence_at_the_ends_of_the_sliders() -> None:
    assert "The noise never wins." in sentence(linear_schedule(1e-4, 0.01, 50))
    assert "less than 0.01 %" in sentence(cosine_schedule(1000))


def test_controls_are_native_and_named_and_the_ends_never_cross() -> None:
    assert TEXT.count('type="range"') == len(SLIDERS) == 3 and TEXT.count("<select>") == 1
    assert TEXT.count("<label>") == 4 and 'aria-live="polite"' in TEXT
    for shape in SHAPES:
        assert f'value="{shape}"' in TEXT and len(for_name(shape)) == 1000, "a choice that the library does not know"
    for least, most, step, first in (values for _, *values in SLIDERS.values()):
        assert least <= first <= most
        assert (first - least) / step == pytest.approx(round((first - least) / step))
    assert SLIDERS["beta_start"][2] <= SLIDERS["beta_end"][1]


def test_nothing_comes_from_outside_the_page() -> None:
    assert not re.search(r"https?://|src=|@import", TEXT)
