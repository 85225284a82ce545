"""Execute the chapters, each alone from a fresh kernel, and each only when something it depends on changed.

    python tools/chapters.py [--force] [NAME…]     # NAME: 02_forward, intro, …

A chapter is read by the book's own reader (myst-nb) into a notebook without outputs, nbmake runs the
notebooks two at a time, and what they produced goes into the execution cache that the book build reads.
So `make test` and `make book` execute a chapter once between them. Seconds and peak memory of each run are
kept in _build/measured/ for tools/measure.py.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import nbformat
import yaml
from digest import ROOT, library_digest
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from myst_nb.core.config import NbParserConfig
from myst_nb.core.read import create_nb_reader
from myst_parser.config.main import MdParserConfig
from nbformat import NotebookNode

BUILD = ROOT / "_build"
NOTEBOOKS = ROOT / ".cache" / "notebooks"  # not below _build: nbmake does not look there
MATPLOTLIB = ROOT / ".cache" / "matplotlib"  # the chapters' own: no settings and no list of fonts of another program
MEASURED = BUILD / "measured"
SILENT = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "DIFFUSERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
    "PYDEVD_DISABLE_FILE_VALIDATION": "1",
}


@dataclass(frozen=True)
class Chapter:
    """One page of the book that has code cells."""

    source: Path
    notebook: NotebookNode  # without outputs
    key: str  # digest of its code cells and of the library

    @property
    def name(self) -> str:
        return self.source.stem

    @property
    def executed(self) -> Path:
        return NOTEBOOKS / f"{self.name}.ipynb"

    @property
    def record(self) -> Path:
        return MEASURED / f"{self.name}.json"


def toc_pages() -> list[Path]:
    """Source files of the table of contents, in reading order."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    names = [toc["root"]] + [c["file"] for part in toc.get("parts", []) for c in part["chapters"]]
    return [ROOT / f"{name}.md" for name in names]


def read_notebook(source: Path) -> NotebookNode | None:
    """The page as the book build reads it, or None for a page without code cells."""
    text = source.read_text(encoding="utf8")
    reader = create_nb_reader(str(source), MdParserConfig(), NbParserConfig(), text)
    if reader is None:  # plain Markdown: no jupytext header
        return None
    notebook = reader.read(text)
    return notebook if any(cell.cell_type == "code" for cell in notebook.cells) else None


def chapters() -> list[Chapter]:
    """The pages that must be executed."""
    library, found = library_digest(), []
    for source in toc_pages():
        notebook = read_notebook(source)
        if notebook is not None:
            cells = [[c.source, c.metadata] for c in notebook.cells if c.cell_type == "code"]
            text = json.dumps([library, notebook.metadata.get("kernelspec"), cells], sort_keys=True)
            found.append(Chapter(source, notebook, hashlib.sha256(text.encode()).hexdigest()[:16]))
    return found


def has_passed(chapter: Chapter) -> bool:
    """True if this text was executed with this library and what it produced is still here."""
    if not (chapter.record.exists() and chapter.executed.exists()):
        return False
    return json.loads(chapter.record.read_text()).get("key") == chapter.key


def execute(todo: list[Chapter], workers: int = 2) -> int:
    """Run the notebooks with nbmake; returns pytest's exit status."""
    NOTEBOOKS.mkdir(parents=True, exist_ok=True)
    MEASURED.mkdir(parents=True, exist_ok=True)
    for chapter in todo:
        chapter.record.unlink(missing_ok=True)
        nbformat.write(chapter.notebook, chapter.executed)
    (NOTEBOOKS / "pytest.ini").write_text("[pytest]\n")  # not the settings of the tests
    workers = max(1, min(workers, len(todo)))
    command = [
        sys.executable, "-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider", "-p", "nbmemory",
        "--rootdir", str(NOTEBOOKS), "-c", str(NOTEBOOKS / "pytest.ini"),
        "--nbmake", "--overwrite", "--nbmake-timeout=600", "-n", str(workers),
        *[str(chapter.executed) for chapter in todo],
    ]  # fmt: skip
    threads = max(1, (os.cpu_count() or 1) // workers)
    environment = {
        **os.environ, **SILENT,
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads)),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT / "tools"), os.environ.get("PYTHONPATH")])),
        "MAME_MEASURED": str(MEASURED),
        "MPLCONFIGDIR": str(MATPLOTLIB),
    }  # fmt: skip
    # The list of fonts is made before two kernels want it at once: a slow machine would be told of it in a chapter.
    fonts = [sys.executable, "-c", "import matplotlib.font_manager"]
    subprocess.run(fonts, env=environment, capture_output=True, check=True)
    done = subprocess.run(command, cwd=NOTEBOOKS, env=environment, capture_output=True, text=True)
    if done.returncode:
        print(done.stdout + done.stderr, file=sys.stderr)
    return done.returncode


def complaints(chapter: Chapter) -> list[str]:
    """What the cells of an executed chapter wrote to stderr, which must be nothing."""
    notebook = nbformat.read(chapter.executed, as_version=4)
    return [
        f"{chapter.name}, a cell that begins {cell.source.strip().splitlines()[0]!r}, wrote to stderr:\n{output.text}"
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if output.output_type == "stream" and output.name == "stderr"
    ]


def keep(chapter: Chapter) -> None:
    """Seal the record of a chapter that passed: its key, its seconds, its slowest cell."""
    notebook = nbformat.read(chapter.executed, as_version=4)
    record = json.loads(chapter.record.read_text())
    seconds = [_cell_seconds(cell) for cell in notebook.cells if cell.cell_type == "code"]
    record |= {"key": chapter.key, "slowest_cell_seconds": round(max(seconds, default=0.0), 1)}
    chapter.record.write_text(json.dumps(record, indent=1))


def _cell_seconds(cell: NotebookNode) -> float:
    """Duration of one cell from the times nbclient notes."""
    times = cell.metadata.get("execution", {})
    start, end = times.get("iopub.execute_input"), times.get("iopub.status.idle")
    if not (start and end):
        return 0.0
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()


def cache_path() -> Path:
    """Where the book build looks for executed chapters of this library."""
    return BUILD / f".jupyter_cache-{library_digest()}"


def feed_cache(passed: list[Chapter]) -> None:
    """Put the executed chapters where myst-nb finds them: its cells, our outputs."""
    cache = get_cache(cache_path())
    for chapter in passed:
        executed = nbformat.read(chapter.executed, as_version=4)
        notebook = nbformat.from_dict(chapter.notebook)
        for cell, run in zip(notebook.cells, executed.cells, strict=True):
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = run.outputs, run.execution_count
        seconds = json.loads(chapter.record.read_text())["seconds"]
        bundle = CacheBundleIn(notebook, str(chapter.source), data={"execution_seconds": seconds})
        cache.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Execute the chapters that changed.")
    parser.add_argument("names", nargs="*", help="only these chapters, e.g. 02_forward")
    parser.add_argument("--force", action="store_true", help="execute even what has passed")
    options = parser.parse_args(arguments)
    force = options.force or bool(os.environ.get("FORCE"))
    every = [c for c in chapters() if not options.names or c.name in options.names]
    todo = [c for c in every if force or not has_passed(c)]
    status, start = 0, time.monotonic()
    if todo:
        print(f"Executing {', '.join(c.name for c in todo)}.", flush=True)
        status = execute(todo)
        for chapter in todo:
            if not chapter.record.exists():  # nbmemory writes it for the notebooks that passed
                continue
            if told := complaints(chapter):
                status = 1
                print("\n".join(told), file=sys.stderr)
            else:
                keep(chapter)
        print(f"Chapters executed in {time.monotonic() - start:.0f} s.", flush=True)
    else:
        print(f"Chapters: all {len(every)} passed before with this text and this library.", flush=True)
    feed_cache([c for c in every if has_passed(c)])
    return status


if __name__ == "__main__":
    raise SystemExit(main())
