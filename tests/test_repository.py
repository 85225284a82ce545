"""Promises of the repository as a whole: pins, sizes, layers, no hidden network."""

from __future__ import annotations

import ast
import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LIBRARY = sorted((ROOT / "mame_lib").rglob("*.py"))
CONSTRAINTS = (ROOT / "constraints" / "cpu-py311.txt").read_text()

# Each layer may import from itself and from what stands below it.
LAYERS = [
    {
        "cli", "app", "__main__", "doctor", "arguments", "audit_command", "inpaint_command", "readers_command",
        "sweep_command", "synthesize_command",
    },
    {"teaching"},
    {"synthesize"},
    {"evaluation"},
    {"generation", "inpaint", "planner", "redraw", "synthetic"},
    {"training"},
    {"models"},
    {"data"},
    {"diffusion"},
    {"argument_types", "terminal"},
    {"errors", "__init__"},
]


def _sources() -> list[Path]:
    """Text files that people wrote, as git sees them; everything in the tree where git is missing."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    names = listing.stdout.splitlines()
    suffixes = {".py", ".md", ".yml", ".yaml", ".toml", ".css", ".js", ".sh", ".txt", ".bib"}
    found = [ROOT / name for name in names] or [p for p in ROOT.rglob("*") if not {".venv", "_build"} & set(p.parts)]
    found = [p for p in found if p.suffix in suffixes or p.name == "Makefile"]
    return [p for p in found if p.is_file() and "vendor" not in p.parts]


def _imports(path: Path) -> set[str]:
    """Modules imported when `path` is imported: imports inside functions and for type checkers do not count."""
    names: set[str] = set()

    def visit(body: list[ast.stmt]) -> None:
        for node in body:
            if isinstance(node, ast.Import):
                names.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                module = node.module or ""
                if node.level:
                    base = path.relative_to(ROOT).with_suffix("").parts[: -node.level]
                    module = ".".join([*base, module]).rstrip(".")
                names.add(module)
                if module == "mame_lib":  # `from mame_lib import models`
                    names.update(f"mame_lib.{alias.name}" for alias in node.names)
            elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
                visit(node.orelse)
            else:
                for part in ("body", "orelse", "finalbody"):
                    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                        visit(getattr(node, part, []))
                for handler in getattr(node, "handlers", []):
                    visit(handler.body)

    visit(ast.parse(path.read_text(encoding="utf8")).body)
    return names


def _layer(name: str) -> int:
    return next((i for i, layer in enumerate(LAYERS) if name in layer), -1)


@pytest.mark.parametrize("path", LIBRARY, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_run_downhill(path: Path) -> None:
    here = path.relative_to(ROOT / "mame_lib").with_suffix("").parts[0]
    assert _layer(here) >= 0, f"{here} has no place in the house: add it to LAYERS"
    for name in _imports(path):
        parts = name.split(".")
        if parts[0] == "mame_lib" and len(parts) > 1 and parts[1] != "__version__":
            assert _layer(parts[1]) >= _layer(here), f"{path.name} in {here}/ imports {name}, which stands above it"


def test_the_diffusion_package_stands_on_torch_alone() -> None:
    allowed = {"torch", *sys.stdlib_module_names}
    for path in (ROOT / "mame_lib" / "diffusion").glob("*.py"):
        for name in _imports(path):
            assert name.split(".")[0] in allowed or name.startswith("mame_lib.diffusion"), f"{path.name}: {name}"


@pytest.mark.parametrize("path", LIBRARY, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_module_is_read_in_ten_minutes(path: Path) -> None:
    assert len(path.read_text(encoding="utf8").splitlines()) <= 320


def test_weights_stay_small() -> None:
    weights = ROOT / "mame_lib" / "weights"
    assert sum(p.stat().st_size for p in weights.rglob("*") if p.is_file()) < 40e6
    assert not [p for p in weights.rglob("*") if p.suffix in {".bin", ".pt", ".pth", ".ckpt", ".pkl"}]


def test_environment_file_is_in_step_with_the_project() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    dependencies = environment["dependencies"]
    assert "python=3.11" in dependencies
    pip = next(d for d in dependencies if isinstance(d, dict))["pip"]
    extras = re.search(r"-e \.\[([\w,]+)\]", " ".join(pip))
    assert extras and set(extras[1].split(",")) <= set(PROJECT["optional-dependencies"])
    makefile = re.search(r"^EXTRAS := (\S+)$", (ROOT / "Makefile").read_text(), flags=re.M)
    assert makefile and makefile[1] == extras[1]
    constraints = [line.split()[1] for line in pip if line.startswith("-c")]
    assert constraints and all((ROOT / name).exists() for name in constraints)


def test_jupyter_book_is_bound_below_two_wherever_it_is_installed() -> None:
    assert any(d == "jupyter-book>=1.0.4.post1,<2" for d in PROJECT["optional-dependencies"]["book"])
    assert re.search(r"^jupyter-book==1\.0\.", CONSTRAINTS, flags=re.M)
    for path in _sources():
        for line in path.read_text(encoding="utf8").splitlines():
            if re.search(r"pip3? install[^#]*jupyter-book", line):
                assert "<2" in line, f"{path.relative_to(ROOT)}: {line}"


def test_requirements_with_bounds_are_quoted() -> None:
    for path in _sources():
        for line in path.read_text(encoding="utf8").splitlines():
            found = re.search(r"pip3? install[^#`]*?\s([\w-]+[<>]=?[\d.]+)", line)
            assert not found, f"{path.relative_to(ROOT)}: quote the bound, or the shell makes a file of it: {line}"


def test_pins_hold_the_cpu_build_and_nothing_of_cuda() -> None:
    assert re.search(r"^torch==2\.13\.0$", CONSTRAINTS, flags=re.M)
    for line in CONSTRAINTS.splitlines():
        assert not re.match(r"(nvidia|cuda|triton|cupy)", line, flags=re.I), line
        assert line.startswith("#") or "==" in line


def test_every_requirement_of_the_tested_environment_is_pinned() -> None:
    def plain(name: str) -> str:
        return re.sub(r"[-_.]+", "-", name).lower()

    pinned = {plain(line.split("==")[0]) for line in CONSTRAINTS.splitlines() if "==" in line}
    extras = PROJECT["optional-dependencies"]
    wanted = PROJECT["dependencies"] + extras["book"] + extras["dicom"] + extras["train"] + extras["dev"]
    missing = [w for w in wanted if plain(re.match(r"[\w.-]+", w)[0]) not in pinned]  # type: ignore[index]
    assert not missing


def test_pages_ask_no_foreign_server_for_scripts_styles_or_fonts() -> None:
    foreign = re.compile(
        r"(cdn\.jsdelivr|unpkg\.com|cdnjs\.|googleapis\.com|fonts\.gstatic|gravatar\.com|mybinder\.org/static)"
    )
    for path in _sources():
        if path.relative_to(ROOT).parts[0] in {"book", "mame_lib"} or path.name == "_config.yml":
            assert not foreign.search(path.read_text(encoding="utf8")), path.relative_to(ROOT)


def test_no_pickle_in_the_library() -> None:
    for path in LIBRARY:
        text = path.read_text(encoding="utf8")
        assert not re.search(r"^\s*(import|from) pickle|torch\.load\((?!.*weights_only=True)", text, flags=re.M), path


def test_no_tracked_file_tells_a_path_of_somebodys_machine() -> None:
    listing = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.splitlines()
    configurations = [ROOT / name for name in listing if name.endswith((".json", ".jsonl", ".toml", ".yml"))]
    for path in configurations or (ROOT / "mame_lib" / "weights").rglob("*.json"):
        found = re.search(r'"/(?:tmp|home|root|work|Users|mnt|var)/[^"]*"', path.read_text(encoding="utf8"))
        assert not found, f"{path.relative_to(ROOT)}: {found[0] if found else ''}"


def test_vendored_files_are_complete() -> None:
    subprocess.run([sys.executable, str(ROOT / "tools" / "vendor.py")], check=True)


def test_versions_agree() -> None:
    from mame_lib import __version__

    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert __version__ == PROJECT["version"] == citation["version"]
    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text()


# ---------------------------------------------------------------------------------------------------------
# The sources of the book


PAGES = sorted((ROOT / "book").glob("*.md"))


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.stem)
def test_a_page_introduces_itself(path: Path) -> None:
    text = path.read_text(encoding="utf8")
    assert re.search(r"html_meta:\n\s+description: .{40,}", text), "front matter needs myst.html_meta.description"
    body = re.sub(r"^(`{3,}).*?^\1\s*$", "", text, flags=re.S | re.M)
    assert len(re.findall(r"^# ", body, flags=re.M)) == 1


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.stem)
def test_code_cells_fit_the_page(path: Path) -> None:
    for match in re.finditer(r"^```\{code-cell\}.*?\n(.*?)^```$", path.read_text(encoding="utf8"), flags=re.S | re.M):
        source = re.sub(r"\A---\n.*?\n---\n", "", match[1], flags=re.S)
        for line in source.splitlines():
            assert len(line) <= 78, line


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.stem)
def test_figures_have_alt_text_and_a_caption(path: Path) -> None:
    text = path.read_text(encoding="utf8")
    for match in re.finditer(r"^```\{code-cell\}[^\n]*\n---\n(.*?)\n---\n", text, flags=re.S | re.M):
        options = yaml.safe_load(match[1])
        figure = options.get("mystnb", {}).get("figure")
        if figure:
            assert figure.get("caption") and figure.get("name")
            assert len(options["mystnb"].get("image", {}).get("alt", "")) >= 20


CHAPTERS = sorted((ROOT / "book").glob("[0-9][0-9]_*.md"))
ROOMS = ["The question", "Our few lines, then the library", "The paper's experiment", "What goes wrong", "Exercises",
         "Summary", "Where in the paper"]  # fmt: skip


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_a_chapter_has_its_rooms_in_order(path: Path) -> None:
    text = path.read_text(encoding="utf8")
    titles = [t.replace("’", "'").strip() for t in re.findall(r"^## (.+)$", text, flags=re.M)]
    places = [titles.index(room) for room in ROOMS if room in titles]
    assert places == sorted(places)
    assert not {"The question", "Exercises", "Summary", "Where in the paper"} - set(titles)
    assert re.search(r"^# .+\n\n```\{chapter-box\}\n```$", text, flags=re.M), "the box follows the title"


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_promises_of_the_chapter_are_measured(path: Path) -> None:
    measured = json.loads((ROOT / "book" / "measured.json").read_text())["chapters"]
    assert path.stem in measured, "not measured yet: run `make measure`"
    entry = measured[path.stem]
    assert entry["seconds"] < 300
    assert entry["slowest_cell_seconds"] <= 120, "no cell may take more than two minutes without asking"


def test_commands_printed_for_readers_are_accepted() -> None:
    from mame_lib.arguments import build_parser

    printed = 0
    for path in [ROOT / "README.md", *PAGES]:
        for block in re.findall(r"^```bash\n(.*?)^```$", path.read_text(encoding="utf8"), flags=re.S | re.M):
            for line in block.splitlines():
                words = shlex.split(line, comments=True)
                if words[:1] == ["mame"] and "--help" not in words:
                    build_parser().parse_args(words[1:])
                    printed += 1
    assert printed >= 5


@pytest.mark.parametrize("path", [ROOT / "README.md", *PAGES], ids=lambda p: p.stem)
def test_make_targets_printed_for_readers_exist(path: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.M))
    for target in re.findall(r"(?:^|`)make (?:[A-Z]+=\S+ )?([a-z]+)", path.read_text(encoding="utf8"), flags=re.M):
        assert target in targets
