"""The rating page of a reader study, and the test on a page of the book, in headless Chromium: by keyboard alone."""

from __future__ import annotations

import io
import random
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mame_lib.data.phantom import draw
from mame_lib.evaluation.readers import roc
from mame_lib.evaluation.readers.ratings import SCALE, read_ratings
from mame_lib.evaluation.readers.server import StudyServer
from mame_lib.evaluation.readers.study import Study, make_study
from mame_lib.teaching.reader_test import reader_test

pytestmark = pytest.mark.browser

IMAGES = [draw(size=64, seed=77, index=k).image for k in range(24)]
# What a screen reader would miss, and what overflows.
FAULTS = """() => {
  const seen = (e) => e.getClientRects().length > 0, name = (e) => (e.getAttribute("aria-label") || "").trim() ||
    [...(e.labels || [])].map((l) => l.textContent.trim()).join("") ||
    (e.matches("button, summary") ? e.textContent : "");
  const faults = [];
  for (const e of document.querySelectorAll("button, input, textarea, progress, [role=region], [role=group], summary"))
    if (seen(e) && !name(e)) faults.push("no name: " + e.outerHTML.slice(0, 80));
  for (const e of document.querySelectorAll("img")) if (seen(e) && !e.hasAttribute("alt")) faults.push("no alt");
  const ids = [...document.querySelectorAll("[id]")].map((e) => e.id);
  if (new Set(ids).size < ids.length) faults.push("an id twice");
  for (const e of document.querySelectorAll("[aria-labelledby], [aria-describedby], label[for]"))
    for (const id of ["aria-labelledby", "aria-describedby", "for"].map((a) => e.getAttribute(a)))
      if (id && !document.getElementById(id)) faults.push("nothing has the id " + id);
  if (document.documentElement.scrollWidth > innerWidth) faults.push("wider than the screen");
  for (const e of document.querySelectorAll("button"))
    if (seen(e) && e.getBoundingClientRect().height < 24) faults.push("too small: " + e.textContent);
  return faults;
}"""
# Contrast of every text against the nearest ground, WCAG; disabled controls are excepted there too.
CONTRAST = """() => {
  const rgb = (text) => text.match(/[\\d.]+/g).map(Number), light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4).reduce((s, v, i) => s + v *
    [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (e) => { for (; e; e = e.parentElement) {
    const color = rgb(getComputedStyle(e).backgroundColor);
    if (color.length < 4 || color[3] > 0) return color; } return [255, 255, 255]; };
  const worst = [];
  for (const e of document.querySelectorAll("body *")) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || !e.getClientRects().length || e.closest("[aria-disabled=true], :disabled, svg")) continue;
    const [a, b] = [light(rgb(getComputedStyle(e).color)), light(ground(e))].sort((x, y) => y - x);
    worst.push([(a + 0.05) / (b + 0.05), e.textContent.trim().slice(0, 30)]);
  }
  return worst.sort((x, y) => x[0] - y[0])[0];
}"""


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    out = tmp_path_factory.mktemp("readers") / "study"
    return make_study(out, IMAGES[:11], IMAGES[11:22], cases_each=9, seed=4, practice=2, repeats=1, about="Phantoms.")


def address(study: Study) -> str:
    return (study.root / "share" / "rate.html").as_uri()


def begin(page: Any, reader: str) -> None:
    page.focus("#code")
    page.keyboard.type(reader)
    page.keyboard.press("Enter")


def said(page: Any, where: str, words: str) -> None:
    """Wait until an element says something, from outside: the page's policy forbids to evaluate strings in it."""
    page.locator(where).filter(has_text=words).first.wait_for(timeout=60_000)


def press(page: Any, keys: list[int], then: str = "Enter") -> None:
    for key in keys:
        page.keyboard.press(str(key))
        page.keyboard.press(then)


def saved(page: Any, target: Path) -> Path:
    """The file that the reader saves, by the button on the screen."""
    with page.expect_download() as waiting:
        page.locator("button.download:visible").press("Enter")
    waiting.value.save_as(target)
    assert waiting.value.suggested_filename.endswith(".csv")
    return target


def test_twenty_cases_by_keyboard_closed_half_way(study: Study, visit: Any, tmp_path: Path) -> None:
    keys = random.Random(1).choices(range(5), k=len(study.cases))
    assert len(keys) == 20
    seen = visit(address(study), scroll=False)
    page, asked = seen.page, []
    page.context.on("request", lambda request: asked.append(request.url))
    begin(page, "anna")
    assert page.inner_text("#title") == "Practice 1 of 4"
    for truth in study.practice.values():
        page.keyboard.press("2")
        assert f"This practice image is {truth}." in page.inner_text("#said")
        page.keyboard.press(" ")
    assert page.inner_text("#title") == "Case 1 of 20"
    page.keyboard.press("Enter")  # no rating yet: nothing happens but a sentence
    assert "Rate this image first" in page.inner_text("#said") and page.inner_text("#title") == "Case 1 of 20"
    press(page, [0, *keys[1:5]])
    for _ in range(5):
        page.keyboard.press("Backspace")
    assert page.get_attribute("#scale button >> nth=0", "aria-pressed") == "true"
    page.keyboard.press(str(keys[0]))  # a second thought
    assert page.get_attribute("#scale button >> nth=0", "aria-pressed") == str(keys[0] == 0).lower()
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    press(page, keys[5:10], " ")
    page.close()

    page = visit_again(seen, address(study))
    begin(page, "anna")
    assert page.inner_text("#title") == "Case 11 of 20" and "10 of 20 are rated already" in page.inner_text("#said")
    press(page, keys[10:])
    assert "all 20 cases are rated" in page.inner_text("#thanks")
    found = read_ratings(saved(page, tmp_path / "anna.csv"))
    assert [one.rating for one in found] == keys
    assert [one.case for one in found] == study.order("anna") and [one.position for one in found] == list(range(1, 21))
    assert {(one.study, one.reader) for one in found} == {(study.id, "anna")}
    assert all(0 <= one.seconds < 60 for one in found) and sum(one.seconds for one in found) > 0
    assert page.input_value("#csv") == (tmp_path / "anna.csv").read_text()
    begin_other = visit_again(seen, address(study))
    begin(begin_other, "bob")
    assert begin_other.inner_text("#title") == "Practice 1 of 4"  # another code, another reader
    assert set(asked) <= {address(study)} | {url for url in asked if url.startswith(("data:", "blob:"))}
    assert not seen.complaints and not seen.foreign


def visit_again(seen: Any, where: str) -> Any:
    """A new page in the same browser, which remembers what the closed one kept."""
    page = seen.page.context.new_page()
    page.goto(where, wait_until="load")
    return page


def test_where_nothing_is_kept_the_file_does(study: Study, visit: Any, tmp_path: Path) -> None:
    blocked = "for (const name of ['getItem', 'setItem']) Storage.prototype[name] = () => { throw new Error('no'); };"
    seen = visit(address(study), scroll=False)
    seen.page.context.add_init_script(blocked)
    page = visit_again(seen, address(study))
    begin(page, "carla")
    press(page, [2] * 4 + [1, 3, 4])
    assert "keeps nothing" in page.locator("#rate .saved").inner_text()
    page.locator("summary").press("Enter")
    half = saved(page, tmp_path / "half.csv")
    page.close()
    page = visit_again(seen, address(study))
    (tmp_path / "other.csv").write_text(half.read_text().replace(study.id, "study-other"))
    page.set_input_files("#file", tmp_path / "other.csv")
    said(page, "#wrong", "no file of ratings of this study")
    page.set_input_files("#file", half)
    page.wait_for_selector("#rate:visible")
    assert page.inner_text("#title") == "Case 4 of 20"
    press(page, [0] * 17)
    whole = read_ratings([half, saved(page, tmp_path / "whole.csv")])
    assert [one.rating for one in whole] == [1, 3, 4] + [0] * 17


@pytest.mark.parametrize("code", ["=HYPERLINK(1)", "a b", "", "a,b", "ä", "x" * 41])
def test_a_code_that_a_spreadsheet_could_run_is_refused(code: str, study: Study, visit: Any) -> None:
    page = visit(address(study), scroll=False).page
    page.evaluate("(code) => { document.getElementById('code').maxLength = 99; }")
    page.fill("#code", code)
    page.keyboard.press("Enter")
    assert page.is_visible("#start") and "letters, digits" in page.inner_text("#wrong")


def test_leaving_with_unsaved_ratings_is_warned_of(study: Study, visit: Any, tmp_path: Path) -> None:
    page = visit(address(study), scroll=False).page
    warned: list[str] = []
    page.on("dialog", lambda dialog: (warned.append(dialog.type), dialog.accept()))
    begin(page, "dora")
    press(page, [2] * 4)
    page.reload()
    assert not warned  # practice alone is no loss
    begin(page, "dora")
    press(page, [3])
    page.reload()
    assert warned == ["beforeunload"]
    begin(page, "dora")
    page.locator("summary").press("Enter")
    saved(page, tmp_path / "dora.csv")
    page.reload()
    assert warned == ["beforeunload"]


def test_no_request_leaves_the_page(study: Study, visit: Any) -> None:
    with StudyServer(study.root) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page = visit(address(study), scroll=False).page
        for where in (server.address, "https://example.org/"):
            tried = "(where) => fetch(where, {mode: 'no-cors'}).then(() => 'went out', () => 'refused')"
            assert page.evaluate(tried, where) == "refused"
        image = "(where) => new Promise((done) => Object.assign(new Image(), {onload: () => done('went out'), " \
                "onerror: () => done('refused'), src: where}))"  # fmt: skip
        assert page.evaluate(image, f"{server.address}images/{study.cases[0]}.png") == "refused"
        server.shutdown()


def test_served_to_a_class(study: Study, visit: Any) -> None:
    with StudyServer(study.root) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        seen = visit(server.address, scroll=False)
        page, file = seen.page, study.root / "ratings" / "eva.csv"
        begin(page, "eva")
        page.wait_for_selector("#rate:visible")
        press(page, [2] * 4 + [4, 0, 1])
        said(page, ".saved >> visible=true", "Saved on the server.")
        page.wait_for_timeout(300)
        assert [one.rating for one in read_ratings(file)] == [4, 0, 1]
        other = visit(server.address, scroll=False)  # another browser, the same code
        begin(other.page, "eva")
        said(other.page, "#wrong", "is taken")
        assert other.page.is_visible("#start") and [one.rating for one in read_ratings(file)] == [4, 0, 1]
        again = visit_again(seen, server.address)  # the same browser goes on
        begin(again, "eva")
        again.wait_for_selector("#rate:visible")
        assert again.inner_text("#title") == "Case 4 of 20"
        server.shutdown()
    press(again, [3])
    said(again, ".saved >> visible=true", "Not saved on the server")
    assert not seen.foreign


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_names_contrast_and_room(scheme: str, width: int, study: Study, visit: Any) -> None:
    page = visit(address(study), scheme=scheme, width=width, scroll=False).page

    def check(where: str) -> None:
        assert page.evaluate(FAULTS) == [], where
        ratio, text = page.evaluate(CONTRAST)
        assert ratio >= 4.5, f"{where}: {text!r} has a contrast of {ratio:.2f}"

    check("start")
    begin(page, "f")
    assert page.evaluate("document.activeElement.id") == "title"
    page.keyboard.press("3")
    check("practice")
    assert page.evaluate("document.activeElement.id") == "next"
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    page.locator("summary").press("Enter")
    check("details")
    page.keyboard.press("Escape")
    page.focus("#next")
    page.keyboard.press("Enter")
    press(page, [1] * 23)
    check("end")


def test_gray_levels_on_the_screen_are_those_of_the_file(study: Study, visit: Any) -> None:
    page = visit(address(study), scheme="dark", scroll=False).page
    begin(page, "g")
    press(page, [2] * 4)
    case = study.order("g")[0]
    for key in "-++":
        page.keyboard.press(key)
        times = int(page.inner_text("#scaled").split()[0])
        box = page.locator("#image").bounding_box()
        x, y, side = round(box["x"]), round(box["y"]), times * study.size
        with Image.open(io.BytesIO(page.screenshot(full_page=True))) as shot:
            pixels = np.asarray(shot.convert("RGB"))[y : y + side, x : x + side]
        expected = np.kron(study.image(case), np.ones((times, times), np.uint8))
        assert pixels.shape[:2] == expected.shape
        assert all(np.array_equal(pixels[..., channel], expected) for channel in range(3))


THEMES = {
    "light": "--pst-color-background:#fff;--pst-color-text-base:#222832;--pst-color-surface:#f3f4f5;"
             "--pst-color-border:#d1d5da;--pst-color-primary:#0a7d91",
    "dark": "--pst-color-background:#14181e;--pst-color-text-base:#ced6dd;--pst-color-surface:#29313d;"
            "--pst-color-border:#48566b;--pst-color-primary:#3fb1c5",
}  # fmt: skip


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A page with the test in it, in the colors of the theme, as the book has it."""
    text = reader_test(IMAGES[:10], IMAGES[10:20], seed=3).text
    pages = {}
    for name, colors in THEMES.items():
        path = tmp_path_factory.mktemp("book") / f"{name}.html"
        path.write_text(
            f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
            f'<link rel="icon" href="data:,"><style>:root {{{colors}}} body {{background: '
            f'var(--pst-color-background); color: var(--pst-color-text-base); font-family: sans-serif}}</style>'
            f'<h1>Page</h1>{text}',
            encoding="utf-8",
        )  # fmt: skip
        pages[name] = path.as_uri()
    return pages


@pytest.mark.parametrize("scheme, width", [("light", 1280), ("dark", 390)])
def test_take_the_test_yourself(scheme: str, width: int, embedded: dict[str, str], visit: Any) -> None:
    seen = visit(embedded[scheme], scheme=scheme, width=width)
    page, keys = seen.page, random.Random(width).choices(range(5), k=20)
    page.locator(".mame-test .which").focus()
    for number, key in enumerate(keys, 1):
        assert page.inner_text(".mame-test .which") == f"Image {number} of 20"
        page.keyboard.press(str((key + 1) % 5))
        page.keyboard.press(str(key))
        assert page.evaluate(FAULTS) == [] and page.evaluate(CONTRAST)[0] >= 4.5
        page.keyboard.press("Enter")
        if number == 7:
            page.keyboard.press("ArrowLeft")
            assert f"You say: {SCALE[key]}." in page.inner_text(".mame-test output")
            page.keyboard.press("ArrowRight")
    told = page.evaluate("document.querySelector('.mame-test').result")
    assert told["ratings"] == keys and sum(told["truth"]) == 10
    expected = roc.delong(4 - np.array(keys), told["truth"])
    interval = expected.logit()
    values = [told[name] for name in ("auc", "se", "low", "high")]
    assert values == pytest.approx([expected.value, expected.se, interval.low, interval.high], abs=1e-12)
    assert f"Your AUC: {interval.value:.2f}, 95 % interval {interval.low:.2f} to {interval.high:.2f}" \
        in page.inner_text(".mame-test h4")  # fmt: skip
    counts = page.locator(".mame-test tbody td").all_inner_texts()
    assert sum(map(int, counts)) == 20 and len(counts) == 10
    corners = page.get_attribute(".mame-test svg path", "d").split("L")
    points = roc.operating_points(4 - np.array(keys), told["truth"])
    places = {tuple(np.round([100 * x, 100 - 100 * y], 2)) for x, y in
              zip(points.false_positive, points.true_positive, strict=True)}  # fmt: skip
    assert {tuple(map(float, one.removeprefix("M").split(","))) for one in corners} == places
    assert page.locator(".mame-test li").count() == 20 and page.evaluate("document.activeElement.tagName") == "H4"
    assert page.evaluate(FAULTS) == [] and page.evaluate(CONTRAST)[0] >= 4.5
    assert not seen.complaints and not seen.foreign


def test_the_arithmetic_of_the_page_is_that_of_the_library(embedded: dict[str, str], visit: Any) -> None:
    page = visit(embedded["light"], scroll=False).page
    rng = np.random.default_rng(0)
    tables = [(rng.integers(0, 5, n + m), np.repeat([1, 0], [n, m])) for n, m in rng.integers(2, 30, (60, 2))]
    truth = np.repeat([1, 0], 10)
    tables += [(4 * truth, truth), (4 - 4 * truth, truth), (np.full(20, 2), truth)]  # all right, all wrong, no idea
    for scores, kinds in tables:
        told = page.evaluate("([s, k]) => document.querySelector('.mame-test').areaOf(s, k)",
                             [scores.tolist(), kinds.tolist()])  # fmt: skip
        expected = roc.delong(scores, kinds)
        interval = expected.logit()
        values = [told[name] for name in ("auc", "se", "low", "high")]
        assert values == pytest.approx([expected.value, expected.se, interval.low, interval.high], abs=1e-12)


@pytest.mark.parametrize("scheme, width", [("light", 1280), ("dark", 390)])
def test_the_test_in_its_chapter(scheme: str, width: int, site: Path, visit: Any) -> None:
    chapter = site / "book" / "14_readers.html"
    text = chapter.read_text(encoding="utf8")
    box = text[text.index('<div class="mame-test"') : text.index("What was what, and your rating")]
    assert len(box) < 400_000 and "not for diagnosis" in box
    seen = visit(chapter.as_uri(), scheme=scheme, width=width)
    page = seen.page
    page.locator(".mame-test .which").focus()
    total = page.locator(".mame-test .scale button").count() and int(page.inner_text(".mame-test .which").split()[-1])
    for number in range(total):
        assert page.locator(".mame-test .case img").evaluate("i => i.complete && i.naturalWidth > 0")
        press(page, [number % 5])
    assert "Your AUC: 0." in page.inner_text(".mame-test h4")
    assert page.locator(".mame-test").bounding_box()["width"] <= width
    ground = page.evaluate("getComputedStyle(document.querySelector('.mame-test').parentElement).backgroundColor")
    assert scheme == "light" or ground == "rgba(0, 0, 0, 0)", "a light frame around a dark test"
    worst = page.evaluate(CONTRAST.replace('"body *"', '".mame-test *"'))
    assert worst[0] >= 4.5, worst
    assert not seen.complaints and not seen.foreign
