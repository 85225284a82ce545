"""Write a clean notebook beside each chapter, for Colab, JupyterLab and VS Code.

    python tools/notebooks.py --write [NAME…]     # book/02_forward.ipynb, …
    python tools/notebooks.py --check [NAME…]     # is what lies there what would be written?

A chapter is written in MyST, which no notebook program shows. Here directives and roles become plain Markdown, with the
book's own numbers; code cells stay as they are, in their order. Solutions fold up. Nothing is executed.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

import chapters
import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from numbering import BOOK, Page, pages, references
from plain_markdown import Writer

from book import remote_url

sys.path.insert(0, str(BOOK / "_ext"))
from mame_book import front_matter, header_lines

HIDDEN = {"hide-input", "hide-cell", "remove-input"}
SETUP = '''\
#@title Set up (on a laptop nothing happens here)
import importlib.util
import os

# On Colab the library comes from {where}. Its own packages stay as they are.
source = os.environ.get("MAME_SOURCE", "{source}")
missing = [name for name in {extras} if importlib.util.find_spec(name) is None]
if importlib.util.find_spec("mame_lib") is None:
    %pip install -q --no-deps "{{source}}"
if missing:
    %pip install -q {{" ".join(missing)}}'''
ALWAYS = ("pebble",)  # what the library needs and Colab does not have


def site_of(repository: str | None) -> str | None:
    """Where the pages of a repository on GitHub are read."""
    if repository is None:
        return None
    owner, name = repository.split("/")[-2:]
    return f"https://{owner}.github.io/{name}/"


def repository_of(path: Path) -> str | None:
    """The repository that a notebook was written for."""
    found = re.search(r"git\+(https://github\.com/[\w.-]+/[\w.-]+)", path.read_text(encoding="utf8"))
    return found[1] if found else None


def in_step(page: Page) -> bool:
    """Whether the notebook that lies beside a page is what would be written, for the repository it names."""
    path = BOOK / f"{page.name}.ipynb"
    return path.exists() and path.read_text(encoding="utf8") == text_of(notebook(page, repository_of(path)))


def badges(page: str, repository: str | None) -> str:
    """Links that open this notebook elsewhere; a sentence where the copy has no address."""
    if repository is None:
        return "This copy of the book has no address on the web yet, so there is no button to open it on Colab."
    path = "/".join(repository.split("/")[-2:])
    return (
        f"[Open in Colab](https://colab.research.google.com/github/{path}/blob/main/book/{page}.ipynb) · "
        f"[Open in Binder](https://mybinder.org/v2/gh/{path}/main?urlpath=lab/tree/book/{page}.ipynb) · "
        f"[Read on the web]({site_of(repository)}book/{page}.html)"
    )


def notebook(page: Page, repository: str | None = None) -> NotebookNode:
    """The page as a notebook without outputs; the same text gives the same bytes."""
    source = BOOK / f"{page.name}.md"
    read = chapters.read_notebook(source)
    assert read is not None, f"{page.name} has no code cells"
    info = front_matter(source.read_text(encoding="utf8")).get("mame") or {}
    writer = Writer(page, site_of(repository))
    cells = [new_markdown_cell(head(writer, repository)), setup(repository, info.get("extras", [])), doctor()]
    folded: list[str] | None = None  # what stands in the solution that is open
    figures = iter(page.figures)
    for cell in read.cells:
        if cell.cell_type == "code":
            caption = ((cell.metadata.get("mystnb") or {}).get("figure") or {}).get("caption")
            words = writer.caption(next(figures), caption) if caption else ""
            if folded is not None:
                folded += [f"```python\n{cell.source}\n```", words]
            else:
                cells.append(code(cell, page))
                cells += [new_markdown_cell(words)] if words else []
            continue
        for text, gate in gates(cell.source):
            plain = writer.markdown(without_title(text))
            if folded is not None:
                folded.append(plain)
            elif plain:
                cells.append(new_markdown_cell(plain))
            if gate == "solution-start":
                folded = []
            elif gate == "solution-end" and folded is not None:
                inner = "\n\n".join(part for part in folded if part)
                cells.append(new_markdown_cell(f"<details><summary>Solution</summary>\n\n{inner}\n\n</details>"))
                folded = None
    if writer.cited:
        lines = [f"- {references()[key].line}" for key in sorted(writer.cited)]
        cells.append(new_markdown_cell("\n".join(["## References", "", *lines])))
    for k, cell in enumerate(cells):
        cell.id = f"{page.name.replace('_', '-')}-{k:03d}"
    made = new_notebook(cells=cells, metadata=METADATA)
    nbformat.validate(made)
    return made


METADATA: dict[str, Any] = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
    "colab": {"provenance": [], "toc_visible": True},
}


def head(writer: Writer, repository: str | None) -> str:
    """Title, buttons, and the box of the chapter."""
    page = writer.page
    title = f"# {page.number + '. ' if page.number else ''}{page.title}"
    lines = header_lines(BOOK / f"{page.name}.md")
    box = [writer.markdown("\n".join(lines))] if lines else []
    notice = "*Every image in this book is synthetic: not for diagnosis.*"
    return "\n\n".join([title, badges(page.name, repository), *box, notice])


def setup(repository: str | None, extras: list[str]) -> NotebookNode:
    """The cell that installs the library where it is missing."""
    source = f"git+{repository}" if repository else "/content/mam-e"
    where = "its repository" if repository else "the folder that you uploaded, /content/mam-e"
    wanted = json.dumps([*ALWAYS, *extras])
    text = SETUP.format(where=where, source=source, extras=wanted)
    return new_code_cell(text, metadata={"cellView": "form", "tags": ["mame-setup"]})


def doctor() -> NotebookNode:
    return new_code_cell("import mame_lib\n\nmame_lib.doctor();", metadata={"tags": ["mame-setup"]})


def code(cell: NotebookNode, page: Page) -> NotebookNode:
    """A code cell as it is; hidden ones become forms on Colab and are folded in JupyterLab."""
    tags = list(cell.metadata.get("tags", []))
    metadata: dict[str, Any] = {"tags": tags} if tags else {}
    if HIDDEN & set(tags):
        metadata |= {"cellView": "form", "jupyter": {"source_hidden": True}}
    return new_code_cell(cell.source, metadata=metadata)


def gates(text: str) -> list[tuple[str, str]]:
    """Markdown cut at the gates of solutions: (text before, name of the gate), the last with an empty name."""
    found, rest = [], text
    pattern = re.compile(r"^```\{(solution-start|solution-end)\}.*?^```[ \t]*$", flags=re.S | re.M)
    while gate := pattern.search(rest):
        found.append((rest[: gate.start()], gate[1]))
        rest = rest[gate.end() :]
    return [*found, (rest, "")]


def without_title(text: str) -> str:
    return re.sub(r"\A\s*# .+\n?", "", text)


def text_of(made: NotebookNode) -> str:
    """What is written to the file."""
    return json.dumps(made, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def main() -> int:
    """Write the notebooks, or say which are not what they should be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--write", action="store_true")
    what.add_argument("--check", action="store_true")
    parser.add_argument("names", nargs="*", metavar="NAME", help="chapters (default: all)")
    options = parser.parse_args()
    chosen = [page for page in pages().values() if page.has_code]
    chosen = [page for page in chosen if not options.names or page.name in options.names]
    for page in chosen if options.write else ():
        path = BOOK / f"{page.name}.ipynb"
        temporary = path.with_suffix(".partial")
        temporary.write_text(text_of(notebook(page, remote_url())), encoding="utf8")
        temporary.replace(path)
    stale = [page.name for page in chosen if not in_step(page)]
    if stale:
        print(f"not in step with their chapters: {', '.join(stale)}; run python tools/notebooks.py --write",
              file=sys.stderr)  # fmt: skip
    return 1 if stale else 0


if __name__ == "__main__":
    raise SystemExit(main())
