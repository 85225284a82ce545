"""What image number i shows is a function of the population and i; the shares hold within their intervals."""

from __future__ import annotations

from collections import Counter

import pytest

from mame_lib.data.prompts import FINDING_PROMPTS, parse
from mame_lib.evaluation.adherence import wilson
from mame_lib.synthesize import spec_from
from mame_lib.synthesize.plan import BLOCK, block, draws, plan, unit
from mame_lib.synthesize.spec import TABLES

SHARES = {
    "seed": 11,
    "vendor": {"hologic": 0.5, "siemens": 0.3, "none": 0.2},
    "density": {"very low": 0.1, "low": 0.4, "high": 0.4, "very high": 0.1},
    "area": {"small": 1.0},
    "finding": {"none": 0.7, "mass": 0.2, "calcification cluster": 0.1},
    "order": {"area": 0.4, "density": 0.3, "training": 0.2, "constant": 0.1},
    "split": {"train": 0.8, "test": 0.2},
}


def test_shares_of_four_thousand_images() -> None:
    spec, n = spec_from(SHARES), 4000
    drawn = [draws(spec, index) for index in range(n)]
    for name, words in TABLES.items():
        found = Counter(one[name] for one in drawn)
        for word in words:
            low, high = wilson(found[word], n, 0.9999)
            assert low <= spec.shares[name].get(word, 0.0) <= high, (name, word)
            assert (found[word] > 0) == (spec.shares[name].get(word, 0.0) > 0)


def test_attributes_are_independent() -> None:
    spec = spec_from({"finding": {"none": 0.5, "mass": 0.5}})
    pairs = Counter((one["vendor"], one["finding"]) for one in (draws(spec, index) for index in range(4000)))
    assert all(900 < number < 1100 for number in pairs.values()) and len(pairs) == 4


@pytest.mark.parametrize("index", range(60))
def test_the_sentence_says_the_attributes(index) -> None:
    spec = spec_from(SHARES)
    one = plan(spec, index)
    said = {name: word for name, word in one.attributes.to_dict().items() if name not in ("laterality", "finding")}
    assert parse(one.prompt).to_dict() == said
    drawn = draws(spec, index)
    assert all(drawn[name] == word for name, word in said.items())
    finding = one.attributes.finding
    assert one.lesion_prompt == (FINDING_PROMPTS[finding] if finding else None)
    assert one.attributes.laterality in ("L", "R") and one.split in ("train", "test")


def test_another_seed_is_another_population_and_blocks_follow_each_other() -> None:
    spec, other = spec_from(SHARES), spec_from({**SHARES, "seed": 12})
    assert [plan(spec, i) for i in range(40)] != [plan(other, i) for i in range(40)]
    assert [one.index for number in (0, 1) for one in block(spec, number)] == list(range(2 * BLOCK))
    values = [unit(3, "x", index) for index in range(2000)]
    assert 0 <= min(values) < 0.01 and 0.99 < max(values) < 1 and abs(sum(values) / 2000 - 0.5) < 0.03
    assert unit(1, "x", 0) != unit(0, "x", 1)
