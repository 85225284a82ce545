"""The book's own Sphinx extension: the chapter box, code from the library, a table of measurements, and a tidy build.

Directives
----------
``{chapter-box}``      what a chapter needs and teaches, from its front matter and book/measured.json
``{library} name``     the source of mame_lib.<module>.<function or class>, as it is shipped
``{measured-table}``   time and memory of every chapter, and where they were measured
``{paper-map}``        every item of the paper, and where the book takes it up
"""

from __future__ import annotations

import ast
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import yaml
from docutils import nodes
from docutils.parsers.rst import directives
from docutils.statemachine import StringList
from PIL import Image
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective
from sphinx.util.nodes import nested_parse_with_titles

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import paper_map  # noqa: E402

MEASURED = ROOT / "book" / "measured.json"
PRESETS = {"tiny": "128-pixel images, weights included, any laptop", "sd15": "512-pixel images, a CUDA card"}
LOSSLESS_LIMIT = 120_000  # bytes; a heavier figure is stored as WebP of quality 95
logger = logging.getLogger(__name__)


def front_matter(text: str) -> dict[str, Any]:
    """The YAML block at the head of a page, or an empty dictionary."""
    found = re.match(r"---\n(.*?)\n---\n", text, flags=re.S)
    return yaml.safe_load(found[1]) if found else {}


def measurements() -> dict[str, Any]:
    """book/measured.json, or an empty dictionary before the first measurement."""
    return json.loads(MEASURED.read_text()) if MEASURED.exists() else {}


def minutes(seconds: float) -> str:
    """A duration as a reader thinks of it."""
    if seconds < 90:
        return f"{max(10, round(seconds / 10) * 10):.0f} seconds"
    return f"{seconds / 60:.0f} minutes"


class MystDirective(SphinxDirective):
    """A directive that writes MyST and lets the parser do the rest."""

    def render(self, lines: list[str], parent: nodes.Element) -> nodes.Element:
        source, _ = self.get_source_info()
        self.state.nested_parse(StringList(lines, source=source), self.content_offset, parent)
        return parent


class ChapterBox(MystDirective):
    """Objectives linked to their exercises, prerequisites, measured time and memory."""

    def run(self) -> list[nodes.Node]:
        self.env.note_dependency(str(MEASURED))  # even before it exists: the page is then always read again
        try:
            lines = header_lines(Path(self.env.doc2path(self.env.docname)))
        except LookupError as error:
            raise self.error(str(error)) from error
        box = nodes.container(classes=["mame-box"])
        return [self.render(lines, box)]


def header_lines(page: Path) -> list[str]:
    """The box of a chapter in MyST: machine, objectives with their exercises, prerequisites."""
    text = page.read_text(encoding="utf8")
    info = front_matter(text).get("mame")
    if not info:
        return []
    lines = [f"**Runs on** {machine(page.stem, info.get('preset', 'tiny'))}", ""]
    if info.get("objectives"):
        lines += ["**You will learn to**", ""]
        lines += [objective(o, text) for o in info["objectives"]] + [""]
    if info.get("prerequisites"):
        lines += ["**You need** " + " · ".join(map(prerequisite, info["prerequisites"])), ""]
    return lines


def prerequisite(link: str) -> str:
    """A Markdown link; to a chapter that is not written yet, its title alone."""
    found = re.fullmatch(r"\[(.+)\]\(([\w./-]+\.md)(#.*)?\)", link.strip())
    if found and not (ROOT / "book" / found[2]).exists():
        return f"{found[1]} (chapter to come)"
    return link


def machine(stem: str, preset: str) -> str:
    """Preset, measured time and memory of a chapter."""
    told = measurements()
    entry = told.get("chapters", {}).get(stem)
    words = f"preset `{preset}` ({PRESETS[preset]})" if preset in PRESETS else f"preset `{preset}`"
    if entry is None:
        return f"{words}. CPU: not measured yet. T4: not measured yet."
    cpus = told["machine"]["cpus"]
    return (
        f"{words}. CPU: about {minutes(entry['seconds'])} on {cpus} cores, "
        f"peak memory {entry['peak_mb'] / 1000:.1f} GB (measured {told['date']}). T4: not measured yet."
    )


def objective(objective: dict[str, str], text: str) -> str:
    """An objective with a link to its exercise. Raises `LookupError` where the chapter has no such exercise."""
    exercise = objective.get("exercise", "")
    start = r"^`{3,}\{exercise(?:-start)?\}.*\n(?::.*\n)*?:label:\s*"
    label = re.search(rf"{start}(\S*{re.escape(exercise)})\s*$", text, flags=re.M) if exercise else None
    if label is None:
        raise LookupError(f"objective {objective['text']!r} names no exercise of this chapter: {exercise!r}")
    return f"- {objective['text']} ({{ref}}`exercise <{label[1]}>`)"


class Library(SphinxDirective):
    """Show a function, method or class of mame_lib: the text that runs is the text that is printed."""

    required_arguments = 1
    option_spec = {"no-docstring": directives.flag}  # noqa: RUF012

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        try:
            code, where = excerpt(name, docstring="no-docstring" not in self.options)
        except LookupError as error:
            raise self.error(str(error)) from error
        self.env.note_dependency(str(_locate(name)[0]))
        block = nodes.literal_block(code, code, language="python", classes=["mame-source"])
        caption = nodes.caption("", "", nodes.literal("", name), nodes.Text(f" ({where})"))
        classes = ["literal-block-wrapper", "mame-library"]
        return [nodes.container("", caption, block, literal_block=True, classes=classes)]


def excerpt(name: str, *, docstring: bool = True) -> tuple[str, str]:
    """Source of mame_lib.<module>.<function or class>, and "path, line N". Raises `LookupError` if there is none."""
    path, inside = _locate(name)
    source = path.read_text(encoding="utf8")
    node: Any = ast.parse(source)
    for part in inside:
        node = next((n for n in node.body if getattr(n, "name", None) == part), None)
        if node is None:
            raise LookupError(f"{name!r} is not in the library (looked for {part!r})")
    first = min([node.lineno] + [d.lineno for d in getattr(node, "decorator_list", [])])
    lines = source.splitlines()[first - 1 : node.end_lineno]
    if not docstring and ast.get_docstring(node) is not None:
        body = node.body[0]
        lines = lines[: body.lineno - first] + lines[body.end_lineno - first + 1 :]
    return "\n".join(lines), f"{path.relative_to(ROOT).as_posix()}, line {first}"


def _locate(name: str) -> tuple[Path, list[str]]:
    """File and the names inside it of a dotted name."""
    parts = name.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        stem = ROOT.joinpath(*parts[:cut])
        for path in (stem.with_suffix(".py"), stem / "__init__.py"):
            if path.exists():
                return path, parts[cut:]
    raise LookupError(f"no module of the library holds {name!r}")


class PaperMap(MystDirective):
    """Every item of the paper and where the book takes it up, from book/paper_map.toml and the stored results."""

    def run(self) -> list[nodes.Node]:
        self.env.note_dependency(str(paper_map.TABLE))
        for item in paper_map.items():
            for file in re.findall(r"\{(\w+):", item.ours):
                self.env.note_dependency(str(paper_map.RESULTS / f"{file}.json"))
        try:
            lines = paper_map.table()
        except LookupError as error:
            raise self.error(str(error)) from error
        section = nodes.section()
        section.document = self.state.document
        nested_parse_with_titles(self.state, StringList(lines, source=str(paper_map.TABLE)), section)
        return list(section.children)


class MeasuredTable(MystDirective):
    """Measured time and memory of each chapter, with the machine and the versions."""

    def run(self) -> list[nodes.Node]:
        self.env.note_dependency(str(MEASURED))
        told = measurements()
        if not told:
            return [nodes.paragraph("", "Nothing has been measured yet.")]
        machine = told["machine"]
        lines = [
            f"Measured on {told['date']} on {machine['cpus']} cores ({machine['processor']}), no GPU, "
            f"Python {told['python']}.",
            "",
            "| chapter | seconds | slowest cell (s) | peak memory (MB) |",
            "|---|---|---|---|",
        ]
        for name, entry in told["chapters"].items():
            lines.append(
                f"| [{name}]({name}.md) | {entry['seconds']:.0f} | {entry['slowest_cell_seconds']:.0f} "
                f"| {entry['peak_mb']:.0f} |"
            )
        lines += ["", "| package | version |", "|---|---|"]
        lines += [f"| {name} | {number} |" for name, number in told["versions"].items()]
        return list(self.render(lines, nodes.container(classes=["mame-measured"])).children)


# ---------------------------------------------------------------------------------------------------------
# After the build


def smaller_images(folder: Path) -> None:
    """Every PNG becomes a lossless WebP, or one of quality 95 if that is still heavy; the smaller file stays."""
    for png in folder.glob("*.png"):
        webp = png.with_suffix(".webp")
        with Image.open(png) as image:
            image.save(webp, lossless=True, quality=100, method=4)
            if webp.stat().st_size > LOSSLESS_LIMIT:
                image.save(webp, quality=95, method=4)
        if webp.stat().st_size < png.stat().st_size:
            png.unlink()
        else:
            webp.unlink()


def _size(path: Path) -> tuple[int, ...] | None:
    """Width and height of a picture in CSS pixels."""
    if path.suffix == ".svg":
        head = path.read_text(encoding="utf8", errors="ignore")[:3000]
        root = re.search(r"<svg[^>]*>", head, flags=re.S)
        found = [re.search(rf'\b{side}="([\d.]+)(pt)?', root[0]) if root else None for side in ("width", "height")]
        if not (found[0] and found[1]):
            return None
        return tuple(round(float(f[1]) * (4 / 3 if f[2] else 1)) for f in found if f)
    with Image.open(path) as image:
        return image.size


def tidy_page(page: Path, images: Path) -> None:
    """No Font Awesome script (the style sheet draws the icons); sized, lazy images; WebP addresses."""
    text = before = page.read_text(encoding="utf8")
    text = re.sub(r"<script[^>]*scripts/fontawesome\.js[^>]*></script>\s*", "", text)
    text = re.sub(r"<link[^>]*rel=\"preload\"[^>]*fontawesome[^>]*/?>\s*", "", text)

    def image(found: re.Match[str]) -> str:
        tag = found[0]
        source = re.search(r'src="([^"]*_images/([^"]+))"', tag)
        if not source or "loading=" in tag:
            return tag
        name = source[2]
        webp = re.sub(r"\.png$", ".webp", name)
        if webp != name and (images / webp).exists():
            tag, name = tag.replace(name, webp), webp
        size = _size(images / name) if (images / name).exists() else None
        if size and "width=" not in tag and "style=" not in tag:
            tag = tag.replace("<img ", f'<img width="{size[0]}" height="{size[1]}" ', 1)
        return tag.replace("<img ", '<img loading="lazy" decoding="async" ', 1)

    text = re.sub(r"<img [^>]*>", image, text)
    # A link to the full picture, around an image or on its own, must follow the file.
    for name in set(re.findall(r'_images/([^"]+)\.png"', text)):
        if (images / f"{name}.webp").exists():
            text = text.replace(f'_images/{name}.png"', f'_images/{name}.webp"')
    if text != before:
        page.write_text(text, encoding="utf8")


def offer_notebook(page: Path, out: Path) -> None:
    """The clean notebook of a page beside its source, and a line for it in the menu of downloads."""
    notebook = ROOT / "book" / f"{page.stem}.ipynb"
    text = page.read_text(encoding="utf8")
    source = f'_sources/book/{page.stem}.md"'
    entry = re.search(rf'<li><a href="[^"]*{re.escape(source)}.*?</li>', text, flags=re.S)
    if not notebook.exists() or entry is None or f"_sources/book/{notebook.name}" in text:
        return
    shutil.copy(notebook, out / "_sources" / "book" / notebook.name)
    line = entry[0].replace(f"{page.stem}.md", notebook.name).replace(">.md<", ">.ipynb<")
    line = line.replace("Download source file", "Download the notebook").replace("fa-file", "fa-book")
    page.write_text(text.replace(entry[0], f"{line}\n      {entry[0]}", 1), encoding="utf8")


def tidy(app: Sphinx, exception: Exception | None) -> None:
    """On `build-finished`: smaller images, repaired pages, no source maps."""
    if exception is not None or app.builder.format != "html":
        return
    out = Path(app.outdir)
    smaller_images(out / "_images")
    for page in out.rglob("*.html"):
        tidy_page(page, out / "_images")
    for page in (out / "book").glob("*.html"):
        offer_notebook(page, out)
    for leftover in out.rglob("*.map"):
        leftover.unlink()


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("chapter-box", ChapterBox)
    app.add_directive("library", Library)
    app.add_directive("measured-table", MeasuredTable)
    app.add_directive("paper-map", PaperMap)
    app.connect("build-finished", tidy)
    return {"version": "0.1", "parallel_read_safe": True, "parallel_write_safe": True}
