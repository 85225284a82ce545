"""Every stepper of the book: by keyboard, without a kernel, light and dark, and as a picture without a script."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
CHAPTERS = sorted((ROOT / "book").glob("[0-9][0-9]_*.md"))
PAGES = [path.stem for path in CHAPTERS if re.search(r"^stepper\(", path.read_text(encoding="utf8"), flags=re.M)]

pytestmark = pytest.mark.browser


def test_the_mathematics_chapters_have_one() -> None:
    assert {"02", "03", "04", "05", "06", "09", "10", "11", "12", "13", "14", "15"} <= {name[:2] for name in PAGES}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_each_slider_changes_the_picture_and_the_sentence(name: str, scheme: str, site: Path, visit: Any) -> None:
    seen = visit((site / "book" / f"{name}.html").as_uri(), scheme=scheme)
    page = seen.page
    for box in page.query_selector_all(".mame-steps"):
        sliders, image, said = box.query_selector_all("input"), box.query_selector("img"), box.query_selector("output")
        for slider in reversed(sliders):  # some differ only from the second step on
            before = (image.get_attribute("src"), said.inner_text(), slider.get_attribute("aria-valuetext"))
            slider.focus()
            page.keyboard.press("ArrowRight")
            after = (image.get_attribute("src"), said.inner_text(), slider.get_attribute("aria-valuetext"))
            assert all(a != b for a, b in zip(before, after, strict=True)), slider.get_attribute("aria-label")
            assert image.get_attribute("alt") == said.inner_text()
        ground = box.evaluate("b => getComputedStyle(b.parentElement).backgroundColor")
        assert scheme == "light" or ground == "rgba(0, 0, 0, 0)", "a light frame around a dark control"
        if "curves" in (image.get_attribute("class") or ""):  # dark lines need paper
            paper = image.evaluate("i => getComputedStyle(i).backgroundColor")
            assert min(map(int, re.findall(r"\d+", paper)[:3])) > 220, paper
        assert image.evaluate("i => i.complete && i.naturalWidth > 0")
        assert image.bounding_box()["width"] <= box.bounding_box()["width"]
    assert not seen.complaints and not seen.foreign


@pytest.mark.parametrize("name", PAGES)
def test_without_a_script_a_picture_and_its_sentence_stay(name: str, site: Path) -> None:
    text = (site / "book" / f"{name}.html").read_text(encoding="utf8")
    boxes = re.findall(r'<div class="mame-steps">.*?</output>', text, flags=re.S)
    assert boxes
    for box in boxes:
        alt = re.search(r'<img [^>]*alt="([^"]{20,})"', box)
        assert alt and f'aria-live="polite">{alt[1]}<' in box
        assert len(box) < 420_000  # in bytes of the page, before compression
