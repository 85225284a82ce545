"""The notebooks beside the chapters: in step, whole, without a trace of MyST, and with the book's own numbers."""

from __future__ import annotations

import functools
import json
import re
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]
BOOK, HTML = ROOT / "book", ROOT / "_build" / "html" / "book"
sys.path.insert(0, str(ROOT / "tools"))

import chapters  # noqa: E402
import notebooks  # noqa: E402
import numbering  # noqa: E402

PAGES = [page for page in numbering.pages().values() if page.has_code]
REPOSITORY = "https://github.com/someone/mam-e"
MYST = re.compile(r"^\s*(?:`{3,}|:{3,})\{|\{[\w:]+\}`|^:{3,}|^\([\w-]+\)=", flags=re.M)
pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


@functools.cache
def _made(name: str, repository: str | None) -> nbformat.NotebookNode:
    return notebooks.notebook(numbering.pages()[name], repository)


def prose(cell: nbformat.NotebookNode) -> str:
    """A Markdown cell without the code in it."""
    return re.sub(r"^```\w*\n.*?^```", "", cell.source, flags=re.S | re.M)


def made(page: numbering.Page, repository: str | None = None) -> nbformat.NotebookNode:
    return _made(page.name, repository)


@pages
def test_the_notebook_is_in_step_with_its_chapter(page: numbering.Page) -> None:
    assert notebooks.in_step(page), f"{page.name}: run python tools/notebooks.py --write"


@pages
def test_nothing_of_myst_is_left_and_nothing_was_executed(page: numbering.Page) -> None:
    for cell in made(page).cells:
        if cell.cell_type == "markdown":
            assert not MYST.search(prose(cell)), cell.source
        else:
            assert cell.outputs == [] and cell.execution_count is None


@pages
def test_code_is_that_of_the_chapter_byte_by_byte_and_in_order(page: numbering.Page) -> None:
    source = chapters.read_notebook(BOOK / f"{page.name}.md")
    assert source is not None
    wanted = [cell.source for cell in source.cells if cell.cell_type == "code"]
    found: list[str] = []
    for cell in made(page).cells:
        if cell.cell_type == "code" and "mame-setup" not in cell.metadata.get("tags", []):
            found.append(cell.source)
        elif cell.source.startswith("<details>"):
            found += re.findall(r"^```python\n(.*?)\n```$", cell.source, flags=re.S | re.M)
    assert found == wanted


@pages
def test_solutions_are_folded_and_no_stub_is_solved(page: numbering.Page) -> None:
    source = chapters.read_notebook(BOOK / f"{page.name}.md")
    assert source is not None
    solutions = [c.source for c in source.cells if "exercise-solution" in c.metadata.get("tags", [])]
    cells = made(page).cells
    assert not {c.source for c in cells if c.cell_type == "code"} & set(solutions)
    folds = [c.source for c in cells if c.source.startswith("<details>")]
    assert all(fold.endswith("</details>") for fold in folds)
    assert len(folds) == (BOOK / f"{page.name}.md").read_text(encoding="utf8").count("```{solution-start}")


@pages
def test_it_begins_with_title_setup_and_doctor(page: numbering.Page) -> None:
    head, setup, doctor = made(page).cells[:3]
    assert head.source.startswith("# ") and page.title in head.source and "not for diagnosis" in head.source
    assert setup.metadata["cellView"] == "form" and "--no-deps" in setup.source
    assert doctor.source.endswith("mame_lib.doctor();")


@pages
def test_what_colab_lacks_is_installed_where_it_is_needed(page: numbering.Page) -> None:
    setup, code = made(page).cells[1].source, "\n".join(c.source for c in made(page).cells if c.cell_type == "code")
    for package, sign in {"pydicom": r"^import pydicom", "captum": r"\bheatmaps\b"}.items():
        assert (f'"{package}"' in setup) == bool(re.search(sign, code, flags=re.M)), f"{page.name}: {package}"
    assert '"pebble"' in setup


@pages
def test_links_lead_to_files_that_are_there(page: numbering.Page) -> None:
    for cell in made(page).cells:
        if cell.cell_type == "markdown":
            for target in re.findall(r"\]\(([\w./-]+)(?:#[\w-]+)?\)", prose(cell)):
                assert (BOOK / target).exists(), f"{page.name}: {target}"


@pages
def test_buttons_name_their_own_notebook_and_are_left_out_without_an_address(page: numbering.Page) -> None:
    head, setup = made(page, REPOSITORY).cells[:2]
    for start in ("https://colab.research.google.com/github/someone/mam-e/blob/main/",
                  "https://mybinder.org/v2/gh/someone/mam-e/main?urlpath=lab/tree/"):  # fmt: skip
        assert f"{start}book/{page.name}.ipynb)" in head.source
    assert f"git+{REPOSITORY}" in setup.source
    plain = json.dumps(made(page))
    assert "colab.research" not in plain and "no address on the web" in plain


@pages
def test_the_same_text_gives_the_same_bytes(page: numbering.Page) -> None:
    assert notebooks.text_of(made(page)) == notebooks.text_of(notebooks.notebook(page))
    identifiers = [cell.id for cell in made(page).cells]
    assert len(set(identifiers)) == len(identifiers)


def test_an_unknown_directive_is_refused_by_name() -> None:
    writer = notebooks.Writer(PAGES[0], None)
    with pytest.raises(ValueError, match="sidebar"):
        writer.markdown(":::{sidebar} Aside\nwords\n:::")


def test_a_stale_notebook_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = PAGES[0]
    for suffix in (".md", ".ipynb"):
        (tmp_path / f"{page.name}{suffix}").write_bytes((BOOK / f"{page.name}{suffix}").read_bytes())
    monkeypatch.setattr(notebooks, "BOOK", tmp_path)
    assert notebooks.in_step(page)
    text = (tmp_path / f"{page.name}.md").read_text()
    (tmp_path / f"{page.name}.md").write_text(text.replace("seed=5", "seed=6"))
    assert not notebooks.in_step(page)


@pytest.mark.browser  # needs the built pages
@pytest.mark.parametrize("page", list(numbering.pages().values()), ids=lambda page: page.name)
def test_numbers_are_those_of_the_built_pages(page: numbering.Page) -> None:
    path = HTML / f"{page.name}.html"
    if not path.exists():
        pytest.skip("the book is not built: make book")
    text = path.read_text(encoding="utf8")
    eqs = dict(re.findall(r'id="equation-([\w-]+)">\s*<span class="eqno">\(([\d.]+)\)', text))
    assert eqs == {k: v.number for k, v in page.labels.items() if k.startswith("eq-")}
    built = re.findall(r'<span class="caption-number">Fig\. ([\d.]+) </span>', text)
    assert built == page.figures
    exercises = re.findall(r'<span class="caption-number">Exercise ([\d.]+) </span>', text)
    assert exercises == [v.number for v in page.labels.values() if v.kind == "Exercise"]
