"""Every page, as a reader's browser sees it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
_TOC = yaml.safe_load((ROOT / "_toc.yml").read_text())
PAGES = [_TOC["root"]] + [c["file"] for part in _TOC["parts"] for c in part["chapters"]]
# The theme's `.bd-content` holds the article and what stands beside it.
CONTENT = "document.querySelector('article.bd-article')"

pytestmark = pytest.mark.browser


def _has_formulas(name: str) -> bool:
    text = re.sub(r"^(`{3,})\{code-cell\}.*?^\1$", "", (ROOT / f"{name}.md").read_text(), flags=re.S | re.M)
    return bool(re.search(r"\$[^$\n]+\$|^\$\$|\{math\}", text, flags=re.M))


@pytest.mark.parametrize("way", ["server", "folder"])
@pytest.mark.parametrize("name", PAGES)
def test_a_page_loads_without_a_complaint_and_without_a_network(
    name: str, way: str, site: Path, server: str, visit: Any
) -> None:
    address = f"{server}/{name}.html" if way == "server" else (site / f"{name}.html").as_uri()
    seen = visit(address)
    assert not seen.foreign
    assert not seen.complaints
    formulas = seen.ask("document.querySelectorAll('mjx-container').length")
    assert bool(formulas) == _has_formulas(name), f"{formulas} formulas"
    assert seen.ask("document.querySelectorAll('mjx-merror').length") == 0
    assert seen.ask("document.querySelectorAll('article h1').length") == 1
    assert seen.ask("document.documentElement.lang") == "en"
    assert seen.ask("[...document.images].filter(i => !i.alt || i.naturalWidth === 0).map(i => i.src)") == []
    assert "not for diagnosis" in seen.page.inner_text(".mame-notice")


@pytest.mark.parametrize("name", PAGES)
def test_a_dark_phone_shows_true_grays_and_does_not_scroll_sideways(name: str, server: str, visit: Any) -> None:
    seen = visit(f"{server}/{name}.html", scheme="dark", width=390)
    assert seen.ask("document.documentElement.dataset.theme") == "dark"
    filters = seen.ask(f"[...{CONTENT}.querySelectorAll('img')].map(i => getComputedStyle(i).filter)")
    assert set(filters) <= {"none"}
    assert seen.ask("document.documentElement.scrollWidth") <= 391


@pytest.mark.parametrize("name", PAGES)
def test_images_wait_until_they_are_needed_and_keep_their_place(name: str, site: Path) -> None:
    for tag in re.findall(r"<img [^>]*_images/[^>]*>", (site / f"{name}.html").read_text(encoding="utf8")):
        assert 'loading="lazy"' in tag
        assert tag.count(" width=") == 1 and tag.count(" height=") == 1
        assert len(re.search(r'alt="([^"]*)"', tag)[1]) >= 20  # type: ignore[index]


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_light(name: str, site: Path) -> None:
    text = (site / f"{name}.html").read_text(encoding="utf8")
    assert "fontawesome.js" not in text
    assert not re.search(r'(?:src|href)="(?:https?:)?//[^"]+\.(?:js|css|woff2?)"', text)
    images = {site / "_images" / i for i in re.findall(r'_images/([^"]+)"', text)}
    assert all(i.stat().st_size <= 400_000 for i in images)
    assert sum(i.stat().st_size for i in images) < 3e6


def test_the_first_page_leads_to_the_introduction(server: str, visit: Any) -> None:
    seen = visit(f"{server}/index.html", scroll=False)
    seen.page.wait_for_url("**/book/intro.html")
    assert not seen.foreign


def test_search_works_from_a_folder(site: Path, visit: Any) -> None:
    seen = visit((site / "search.html").as_uri() + "?q=guidance")
    seen.page.wait_for_selector("#search-results li", timeout=15_000)
    assert seen.page.locator("#search-results li").count() >= 2


def test_solutions_are_closed_until_they_are_asked_for(site: Path) -> None:
    for name in [name for name in PAGES if re.search(r"/\d\d_", name)]:
        boxes = re.findall(r'<div class="(solution [^"]*)"', (site / f"{name}.html").read_text(encoding="utf8"))
        assert len(boxes) >= 3
        assert all("dropdown" in classes for classes in boxes)


def test_a_gray_patch_on_the_page_is_the_gray_that_was_computed(site: Path, visit: Any, tmp_path: Path) -> None:
    import io

    import numpy as np
    from PIL import Image

    from mame_lib.teaching.figures import image_grid

    style = next((site / "_static").glob("mame.css")).read_text()
    picture = tmp_path / "patch.png"
    picture.write_bytes(image_grid([np.full((64, 64), 100, np.uint8)], scale=2).png())
    page = tmp_path / "page.html"
    page.write_text(
        f'<html lang="en" data-theme="dark"><style>html[data-theme="dark"] .bd-content img'
        f"{{filter: brightness(.8) contrast(1.2)}} {style}</style>"
        f'<div class="bd-content"><div class="cell_output"><img id="p" alt="patch" src="{picture.name}"></div></div>'
    )
    seen = visit(page.as_uri(), scheme="dark")
    shot = Image.open(io.BytesIO(seen.page.locator("#p").screenshot())).convert("L")
    assert shot.getpixel((shot.width // 2, shot.height // 2)) == 100
