"""What Sphinx calls everything in the book: numbers of equations, figures, listings and exercises, titles, citations.

Read off the sources alone, so that the notebooks can be written without a build; a test compares with the built pages.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import chapters
import yaml
from digest import ROOT
from pybtex.database import Person, parse_file

BOOK = ROOT / "book"
HEAD = re.compile(r"\A---\n(.*?)\n---\n", flags=re.S)
OPEN = re.compile(r"^(?P<fence>`{3,}|:{3,})\{(?P<name>[\w:-]+)\}[ \t]*(?P<argument>.*)$")
OPTION = re.compile(r"^:([\w-]+):[ \t]*(.*)$")
DOLLARS = re.compile(r"^\$\$ \(([\w-]+)\)$")  # the end of a labeled formula between dollars
TARGET = re.compile(r"^\(([\w-]+)\)=$")
OTHERS = "others"  # BibTeX's word for authors who are not listed
KINDS = {"figure": "Fig.", "library": "Listing", "exercise-start": "Exercise", "prf:algorithm": "Algorithm"}


@dataclass(frozen=True)
class Directive:
    """A fenced MyST directive: ``` or :::, its name, argument, options and body lines."""

    name: str
    argument: str
    options: dict[str, str]
    body: list[str]


@dataclass(frozen=True)
class Label:
    """Where a label is and what it is called: `number` such as "13.2", `kind` such as "Fig." or "" for an equation."""

    page: str
    kind: str
    number: str
    title: str = ""


@dataclass
class Page:
    """One page of the table of contents."""

    name: str
    title: str
    number: str  # of the chapter; "" where chapters are not numbered
    labels: dict[str, Label] = field(default_factory=dict)
    figures: list[str] = field(default_factory=list)  # numbers of the figures in order, those without a name too
    has_code: bool = False


def pieces(text: str) -> Iterator[str | Directive]:
    """Text without front matter, cut into plain parts and top-level directives; fenced code belongs to the plain."""
    lines = HEAD.sub("", text).split("\n")
    plain: list[str] = []
    at = 0
    while at < len(lines):
        line = lines[at]
        opened = OPEN.match(line)
        fence = re.match(r"^(`{3,})", line)
        if not (opened or fence):
            plain.append(line)
            at += 1
            continue
        mark = opened["fence"] if opened else fence[1]  # type: ignore[index]
        end = next(k for k in range(at + 1, len(lines)) if lines[k].strip() == mark)
        inside = lines[at + 1 : end]
        if opened:
            if "\n".join(plain).strip():
                yield "\n".join(plain)
            plain = []
            yield _directive(opened, inside)
        else:
            plain += lines[at : end + 1]
        at = end + 1
    if "\n".join(plain).strip():
        yield "\n".join(plain)


def _directive(opened: re.Match[str], inside: list[str]) -> Directive:
    options = {}
    while inside and (found := OPTION.match(inside[0])):
        options[found[1]] = found[2].strip()
        inside = inside[1:]
    return Directive(opened["name"], opened["argument"].strip(), options, inside)


@cache
def pages() -> dict[str, Page]:
    """Every page by its name, with the numbers of what is on it, in reading order."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    numbered = [c["file"] for part in toc["parts"] if part.get("numbered") for c in part["chapters"]]
    found, loose = {}, Counter[str]()
    for path in chapters.toc_pages():
        file = path.relative_to(ROOT).with_suffix("").as_posix()
        number = str(numbered.index(file) + 1) if file in numbered else ""
        found[path.stem] = _page(path, number, Counter() if number else loose)
    return found


def _page(path: Path, number: str, counts: Counter[str]) -> Page:
    text = path.read_text(encoding="utf8")
    title = re.search(r"^# (.+)$", text, flags=re.M)
    page = Page(path.stem, title[1] if title else path.stem, number)

    def called(kind: str) -> str:
        counts[kind] += 1
        return f"{number}.{counts[kind]}" if number else str(counts[kind])

    def walk(part: str) -> None:
        for piece in pieces(part):
            if isinstance(piece, str):
                for line in piece.split("\n"):
                    if target := TARGET.match(line):
                        page.labels[target[1]] = Label(page.name, "", "")
                    elif equation := DOLLARS.match(line):
                        page.labels[equation[1]] = Label(page.name, "", called("math"))
                continue
            if piece.name == "code-cell":
                page.has_code = True
                options = _figure(piece)
                if options:
                    page.figures.append(called("figure"))
                    if options.get("name"):
                        page.labels[options["name"]] = Label(page.name, "Fig.", page.figures[-1])
            elif piece.name == "math" and "label" in piece.options:
                page.labels[piece.options["label"]] = Label(page.name, "", called("math"))
            elif piece.name in KINDS:
                label = Label(page.name, KINDS[piece.name], called(piece.name), piece.argument)
                page.labels[piece.options.get("label", f"{piece.name} {label.number}")] = label
            elif piece.name not in {"math", "code-cell"}:
                walk("\n".join(piece.body))

    walk(text)
    return page


def _figure(cell: Directive) -> dict[str, str]:
    """Options of the figure that a code cell makes; empty without a caption."""
    if not cell.body or cell.body[0] != "---":
        return {}
    head = "\n".join(cell.body[1 : cell.body.index("---", 1)])
    return ((yaml.safe_load(head) or {}).get("mystnb") or {}).get("figure") or {}


@cache
def labels() -> dict[str, Label]:
    """Every label of the book."""
    return {name: label for page in pages().values() for name, label in page.labels.items()}


@dataclass(frozen=True)
class Reference:
    """An entry of references.bib: "Ho et al.", "2020", and one line with its address."""

    authors: str
    year: str
    line: str


@cache
def references() -> dict[str, Reference]:
    """Every entry of references.bib by its key."""
    found = {}
    for key, entry in parse_file(str(BOOK / "references.bib")).entries.items():
        people = entry.persons.get("author") or entry.persons.get("editor") or []
        get = {name: _plain(value) for name, value in entry.fields.items()}.get
        place = get("journal") or get("booktitle") or get("howpublished") or get("publisher") or ""
        address = f"https://doi.org/{get('doi')}" if get("doi") else get("url", "")
        names = ", ".join(_name(person) for person in people).replace(f", {OTHERS}", " et al.")
        line = f"{names} ({get('year')}). {get('title')}. {place}. {address}"
        found[key] = Reference(_short(people), get("year", ""), re.sub(r"\.\s+\.", ".", line).strip())
    return found


def _plain(text: str) -> str:
    """A BibTeX field without braces and TeX accents."""
    from pybtex.richtext import Text

    return str(Text.from_latex(text))


def _name(person: Person) -> str:
    return _plain(" ".join(person.prelast_names + person.last_names))


def _short(people: list[Person]) -> str:
    names = [_name(person) for person in people]
    if len(names) > 2 or OTHERS in names:
        return f"{names[0]} et al."
    return " and ".join(names)
