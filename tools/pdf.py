"""The whole book as one PDF, printed by headless Chromium from the built pages, and the site as one ZIP file.

    python tools/pdf.py [--out _build/mam-e.pdf] [NAME…]     # after make book; NAME: some pages alone
    python tools/pdf.py --zip [--out _build/mam-e-book.zip]  # the pages, to be read without a network

Cover, every page in its order with an entry in the outline, and the solutions as an appendix: in the chapters they are
left out. Links between the pages become links within the document.
"""

from __future__ import annotations

import argparse
import html
import io
import os
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Any

from numbering import Page, pages
from pypdf import PdfReader, PdfWriter
from pypdf.generic import ArrayObject, Fit, NameObject
from tqdm import tqdm

from mame_lib import __version__

ROOT = Path(__file__).resolve().parents[1]
HTML = ROOT / "_build" / "html"
PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ELSEWHERE = "https://page.invalid/"  # stands for another page of the book until all are in one document
PREPARE = """
(elsewhere) => {
  document.documentElement.dataset.theme = "light";
  for (const image of document.images) image.loading = "eager";
  for (const details of document.querySelectorAll("details")) details.open = false;
  const here = location.pathname.split("/").pop();
  for (const link of document.querySelectorAll("a[href]")) {
    const to = new URL(link.href, location.href), name = to.pathname.split("/").pop();
    if (to.protocol !== location.protocol || (name === here && to.hash)) continue;
    if (name.endsWith(".html")) link.href = elsewhere + name; else link.removeAttribute("href");
  }
}
"""
# The appendix: of each exercise its title and its solution, nothing else.
SOLUTIONS_ALONE = """
() => {
  const article = document.querySelector("article.bd-article"), title = article.querySelector("h1");
  const found = [...article.querySelectorAll("div.solution")];
  if (!found.length) return false;
  const kept = document.createElement("section");
  title.firstChild.textContent = "Solutions, chapter " + title.firstChild.textContent;
  kept.append(title);
  for (const one of found) {
    const exercise = article.querySelector("#" + one.id.replace(/^sol-/, "ex-") + " .admonition-title");
    const head = document.createElement("h3");
    head.textContent = exercise ? exercise.textContent : one.id;
    kept.append(head, ...one.querySelectorAll(":scope > section"));
  }
  article.replaceChildren(kept);
  return true;
}
"""
CHAPTER_STYLE = "div.solution { display: none !important; }"
STYLE = """
.bd-header, .bd-header-article, .bd-sidebar-primary, .bd-sidebar-secondary, .prev-next-footer, footer, .headerlink,
button, .skip-link, #jb-print-docs-body, details.hide { display: none !important; }
#main-content, article.bd-article, article.bd-article h1 { display: block !important; }
.toggle-hidden { visibility: visible !important; opacity: 1 !important; height: auto !important; }
"""
COVER = """<!doctype html><html lang="en"><meta charset="utf-8"><title>MAM-E, from noise to mammogram</title>
<style>body {{ font-family: system-ui, sans-serif; margin: 40mm 8mm; }} h1 {{ font-size: 34pt; margin-bottom: 4mm; }}
img {{ width: 100%; margin: 14mm 0; }} p {{ font-size: 13pt; line-height: 1.5; }}</style>
<h1>From noise to mammogram</h1><p>Diffusion models, taught by rebuilding MAM-E</p><img src="{hero}" alt="">
<p>Version {version}. Every image in this book is synthetic: not for diagnosis.</p>
<p>Text and figures: CC BY 4.0. Code: Apache 2.0.</p></html>"""


class Printer:
    """A browser that prints pages."""

    def __init__(self, browser: Any) -> None:
        self.page = browser.new_page(color_scheme="light", viewport={"width": 1000, "height": 1200})
        self.page.set_default_timeout(120_000)  # a busy machine

    def chapter(self, page: Page, *, solutions: bool = False) -> bytes | None:
        """One page of the book as PDF; its solutions alone, or None where it has none."""
        self.page.goto((HTML / "book" / f"{page.name}.html").as_uri(), wait_until="load")
        self.page.evaluate("() => window.MathJax && MathJax.startup && MathJax.startup.promise.then(() => true)")
        self.page.evaluate(PREPARE, ELSEWHERE)
        if solutions and not self.page.evaluate(SOLUTIONS_ALONE):
            return None
        self.page.add_style_tag(content=STYLE if solutions else STYLE + CHAPTER_STYLE)
        self.page.wait_for_function("[...document.images].every(image => image.complete)")
        return self.pdf(("Solutions: " if solutions else "") + page.title)

    def cover(self) -> bytes:
        file = HTML / "cover.html"  # beside the picture, so that the browser may read it
        try:
            hero = (ROOT / "book" / "_static" / "hero.png").as_uri()
            file.write_text(COVER.format(hero=hero, version=__version__), encoding="utf8")
            self.page.goto(file.as_uri(), wait_until="load")
            return self.pdf("")
        finally:
            file.unlink(missing_ok=True)

    def pdf(self, footer: str) -> bytes:
        style = "font-size: 7pt; width: 100%; padding: 0 16mm; color: #555; display: flex"
        number = '<span class="pageNumber" style="margin-left: auto"></span>'
        words = f'<div style="{style}"><span>{html.escape(footer)}</span>{number}</div>'
        made: bytes = self.page.pdf(
            format="A4", scale=0.85, print_background=True, tagged=True, display_header_footer=bool(footer),
            header_template="<span></span>", footer_template=words,
            margin={"top": "16mm", "bottom": "18mm", "left": "15mm", "right": "15mm"},
        )  # fmt: skip
        return made


def bound(cover: bytes, chapters: dict[str, bytes], solutions: dict[str, bytes]) -> PdfWriter:
    """One document of all parts, with an outline; links to another page of the book lead to its first sheet."""
    book = PdfWriter()
    book.add_metadata({"/Title": "MAM-E, from noise to mammogram", "/Author": "The MAM-E book authors"})
    first: dict[str, int] = {}

    def append(part: bytes, title: str, parent: Any = None) -> Any:
        start = len(book.pages)
        for sheet in PdfReader(io.BytesIO(part)).pages:
            book.add_page(sheet)
        return book.add_outline_item(title=title, page_number=start, parent=parent)

    append(cover, "Cover")
    for name, part in chapters.items():
        first[f"{name}.html"] = len(book.pages)
        number = pages()[name].number
        append(part, f"{number}. {pages()[name].title}" if number else pages()[name].title)
    parent = None
    for name, part in solutions.items():
        if parent is None:
            parent = book.add_outline_item(title="Solutions", page_number=len(book.pages))
        append(part, pages()[name].title, parent)
    for sheet in book.pages:
        for reference in sheet.get("/Annots") or ():
            link = reference.get_object()
            address = str((link.get("/A") or {}).get("/URI", ""))
            target = first.get(address.removeprefix(ELSEWHERE))
            if address.startswith(ELSEWHERE):
                del link[NameObject("/A")]
                if target is not None:
                    goal = ArrayObject([book.pages[target].indirect_reference, NameObject(Fit.fit().fit_type)])
                    link[NameObject("/Dest")] = goal
    return book


def print_book(out: Path, names: list[str]) -> int:
    """Print the named pages, or all; returns the number of sheets."""
    from playwright.sync_api import sync_playwright

    program = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        raise SystemExit("pdf: no Chromium: install it (apt-get install chromium) or set CHROMIUM=/path/to/it")
    chosen = [page for page in pages().values() if not names or page.name in names]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        printer = Printer(browser)
        cover, chapters, solutions = printer.cover(), {}, {}
        for page in tqdm(chosen, unit="page", disable=not sys.stderr.isatty()):
            chapters[page.name] = printer.chapter(page) or b""
            if "solution-start" in (ROOT / "book" / f"{page.name}.md").read_text(encoding="utf8"):
                solutions[page.name] = printer.chapter(page, solutions=True) or b""
        browser.close()
    book = bound(cover, chapters, solutions)
    temporary = out.with_suffix(".partial")
    book.write(temporary)
    temporary.replace(out)
    return len(book.pages)


def zip_site(out: Path) -> int:
    """The site in one file, the same bytes for the same pages; returns the number of files."""
    files = sorted(path for path in HTML.rglob("*") if path.is_file() and path.name != ".buildinfo")
    temporary = out.with_suffix(".partial")
    with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in files:
            entry = zipfile.ZipInfo((Path("mam-e-book") / path.relative_to(HTML)).as_posix(), (2026, 1, 1, 0, 0, 0))
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            archive.writestr(entry, path.read_bytes())
    temporary.replace(out)
    return len(files)


def main() -> None:
    """Print or pack."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zip", action="store_true")
    parser.add_argument("--out", type=Path)
    parser.add_argument("names", nargs="*", metavar="NAME")
    options = parser.parse_args()
    if not (HTML / "index.html").exists():
        raise SystemExit("pdf: the book is not built; run make book first")
    if options.zip:
        out = options.out or ROOT / "_build" / "mam-e-book.zip"
        print(f"{out}: {zip_site(out)} files")
    else:
        out = options.out or ROOT / "_build" / "mam-e.pdf"
        print(f"{out}: {print_book(out, options.names)} sheets")


if __name__ == "__main__":
    main()
