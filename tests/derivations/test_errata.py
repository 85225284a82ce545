"""The page of errata is whole: every number once, every link alive, and no chapter names an erratum that is missing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

BOOK = Path(__file__).resolve().parents[2] / "book"
TEXT = (BOOK / "errata.md").read_text(encoding="utf8")
COUNT = 33  # the list that was made when the paper was read, and what the chapters found since
ENTRY = re.compile(r"^\(e(\d+)\)=\n\*\*E(\d+)\*\* · (.+?) · (.+)\n((?:[: ] .+\n?)+)", flags=re.M)
OTHERS = sorted(path for path in BOOK.glob("*.md") if path.name != "errata.md")


def test_every_number_occurs_once_and_its_link_target_is_its_own() -> None:
    entries = ENTRY.findall(TEXT)
    assert [int(target) for target, *_ in entries] == list(range(1, COUNT + 1))
    assert all(target == number for target, number, *_ in entries)
    assert len(re.findall(r"^\(\w+\)=", TEXT, flags=re.M)) == COUNT


def test_every_entry_says_what_is_printed_what_is_right_and_how_we_know() -> None:
    for _, number, where, _, body in ENTRY.findall(TEXT):
        parts = re.findall(r"^: \*(\w+):\* .{5,}", body, flags=re.M)
        assert where and parts == ["Printed", "Correct", "Evidence"], number


def test_linked_chapters_exist_and_the_others_are_to_come() -> None:
    for _, number, _, chapters, _ in ENTRY.findall(TEXT):
        for chapter in chapters.split(", "):
            linked = re.fullmatch(r"\{doc\}`([\w]+)`", chapter)
            if linked:
                assert (BOOK / f"{linked[1]}.md").exists(), f"E{number} leads to {linked[1]}, which does not exist"
            else:
                plain = re.fullmatch(r"chapter (\d\d)", chapter)
                assert plain, f"E{number}: {chapter}"
                assert not list(BOOK.glob(f"{plain[1]}_*.md")), f"E{number}: link chapter {plain[1]}, which now exists"


@pytest.mark.parametrize("path", OTHERS, ids=lambda path: path.stem)
def test_errata_that_a_page_names_are_on_the_list_and_linked(path: Path) -> None:
    text = re.sub(r"^(`{3,})\{code-cell\}.*?^\1\s*$", "", path.read_text(encoding="utf8"), flags=re.S | re.M)
    for words, target in re.findall(r"\[([^\[\]]*)\]\(#(e\d+)\)", text):
        assert words.upper() == target.upper() and 1 <= int(target[1:]) <= COUNT, f"[{words}](#{target})"
    named = re.findall(r"(?<![\[\w$\\])E(\d+)\b(?![\]\w$])", text)
    assert not named, f"write [E{named[0]}](#e{named[0]}), so that it can be followed"


def test_links_within_the_page_lead_somewhere() -> None:
    targets = set(re.findall(r"^\((e\d+)\)=", TEXT, flags=re.M))
    assert set(re.findall(r"\(#(e\d+)\)", TEXT)) <= targets
