"""The map of the paper is whole: every item once, every place there, every number from a stored result."""

from __future__ import annotations

import re
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))

import numbering  # noqa: E402
import paper_map  # noqa: E402

ERRATA = (ROOT / "book" / "errata.md").read_text(encoding="utf8")
WANTED = [
    *(f"Eq. {n}" for n in range(1, 10)), "§2.3.5, six steps", *(f"Fig. {n}" for n in range(1, 21)),
    *(f"Table {n}" for n in range(1, 4)), *(f"C{n}" for n in range(1, 5)), *(f"K{n}" for n in range(1, 10)),
    *(f"L{n}" for n in range(1, 5)), *(f"W{n}" for n in range(1, 7)),
]  # fmt: skip
items = pytest.mark.parametrize("item", paper_map.items(), ids=lambda item: item.id)


def test_every_item_of_the_paper_is_there_once() -> None:
    assert Counter(item.id for item in paper_map.items()) == Counter(WANTED)


def test_every_item_has_a_row() -> None:
    rows = [line for line in paper_map.table() if re.match(r"\| (?!paper|---)", line)]
    assert [row.split(" | ")[0][2:] for row in rows] == WANTED


@items
def test_places_exist(item: paper_map.Item) -> None:
    for target in item.where:
        assert target in numbering.labels() or target in numbering.pages(), f"{item.id}: {target}"
    assert item.where or item.lacks


@items
def test_numbers_come_from_stored_results(item: paper_map.Item) -> None:
    said = paper_map.filled(item.ours)
    assert "{" not in said
    typed = re.sub(r"`[^`]*`", "", paper_map.NUMBER.sub("", item.ours))
    assert not re.search(r"\d\.\d|\d ?%", typed), f"{item.id} has a typed number: {typed}"


@items
def test_errata_know_the_item(item: paper_map.Item) -> None:
    for number in item.errata:
        entry = re.search(rf"^\*\*E{number}\*\* · (.+)$", ERRATA, flags=re.M)
        assert entry, f"{item.id}: E{number} does not exist"


def test_a_figure_or_equation_named_by_an_erratum_names_it_back() -> None:
    for number, where in re.findall(r"^\*\*E(\d+)\*\* · (.+?) · ", ERRATA, flags=re.M):
        named = re.findall(r"(?:Eq\.|Fig\.|Table) \d+", where)
        known = {item.id for item in paper_map.items() if int(number) in item.errata}
        assert set(named) <= known, f"E{number} is about {named}, the map says {known}"


def test_an_unknown_number_is_refused_with_its_path() -> None:
    with pytest.raises(LookupError, match="nowhere"):
        paper_map.number("tiny_models", "nowhere.at all")
