"""Shares with intervals: against published numbers, against counting, and against what is known of simulated trials."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit
from scipy.stats import binomtest

from mame_lib.data.case import Attributes
from mame_lib.data.phantom import draw
from mame_lib.data.prompts import compose
from mame_lib.errors import InputError
from mame_lib.evaluation.adherence import (
    confusion,
    effective_size,
    explained,
    hit,
    rate,
    rates,
    shift,
    spread,
    wilson,
)
from mame_lib.evaluation.attributes import measure
from mame_lib.evaluation.logistic import logistic
from mame_lib.evaluation.sweep_rows import UNKNOWN, Row, row_of
from mame_lib.generation import Generated


@cache
def _template() -> Row:
    pixels = draw(Attributes("hologic", "CC", "big"), seed=3).image
    recipe: dict[str, Any] = dict(
        prompt=compose(Attributes("hologic", "CC", "big")), negative_prompt="", guidance_scale=4.0,
        guidance_rescale=0.0, guidance_interval=None, steps=24, sampler="dpm_solver_pp", seed=0, index=0, model="none",
    )  # fmt: skip
    return row_of(Generated(pixels=pixels, **recipe), measure(pixels), weights="0")


def _row(asked: str, area: str, index: int = 0, **changes: Any) -> Row:
    return replace(_template(), asked_area=asked, area=area, index=index, **changes)


@pytest.mark.parametrize(("yes", "n"), [(0, 40), (1, 40), (13, 40), (39, 40), (40, 40), (2400, 4800)])
def test_wilson_is_scipys(yes: int, n: int) -> None:
    known = binomtest(yes, n).proportion_ci(method="wilson")
    assert wilson(yes, n) == pytest.approx((known.low, known.high), abs=1e-12)


def test_wilson_at_the_ends() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(0, 10)[0] == 0 and wilson(10, 10)[1] == 1
    assert wilson(5, 10, 0.5)[0] > wilson(5, 10, 0.99)[0]
    for bad in ((-1, 3), (4, 3)):
        with pytest.raises(InputError, match="impossible"):
            wilson(*bad)
    with pytest.raises(InputError, match="level"):
        wilson(1, 2, 1.0)


def test_hit_compares_classes_and_an_image_without_a_breast_obeys_nothing() -> None:
    assert hit(_row("big", "big"), "area") and hit(_row("big", "small"), "area") is False
    assert hit(_row("", "big"), "area") is None
    assert hit(_row("small", "small", area_ratio=0.0), "area") is False
    assert hit(_row("big", "big", obeyed_area=UNKNOWN), "area", sure=True) is None
    assert hit(_row("big", "big", obeyed_area="no"), "area", sure=True) is False
    with pytest.raises(InputError, match="choose vendor"):
        hit(_template(), "laterality")


def test_rates_of_groups() -> None:
    rows = [_row(asked, "big", index, view=view) for asked in ("big", "small") for index, view in enumerate("ABCD")]
    rows += [_row("", "big", 9, view="E")]
    found = rates(rows, "area", ("asked_area",))
    assert list(found) == [("big",), ("small",)]
    assert [one.share for one in found.values()] == [1, 0]
    assert found["big",].low == wilson(4, 4)[0]
    assert rates(rows, "area", lambda row: row.view in "AB")[True].n == 4
    assert str(rate(rows, "area")) == f"50% [{rate(rows, 'area').low:.0%}, {rate(rows, 'area').high:.0%}]"
    assert str(rate([], "area")) == "-" and math.isnan(rate([], "area").share)


def test_effective_size_of_copies_is_the_number_of_originals() -> None:
    originals = np.arange(40) % 3 == 0
    hits, clusters = np.repeat(originals, 10), np.repeat(np.arange(40), 10)
    assert effective_size(hits, clusters.tolist()) == pytest.approx(39)  # one is lost, as in any sample variance
    assert effective_size(hits, list(range(400))) == 400
    assert effective_size(np.ones(400), clusters.tolist()) == 40
    assert effective_size([], []) == 0
    balanced = np.tile([0, 1], 200)  # every cluster has the same share: better than independent, counted as such
    assert effective_size(balanced, clusters.tolist()) == 400
    with pytest.raises(InputError, match="one for each"):
        effective_size([1, 0], [0])


def test_the_interval_of_clustered_trials_covers() -> None:
    """Trials of one cluster are alike: the plain interval misses the truth often, that of the effective size seldom."""
    g = np.random.default_rng(0)
    covered, plain = 0, 0
    for _ in range(300):
        chances = g.beta(1.0, 1.0, 40)  # mean 0.5
        hits = (g.random((40, 12)) < chances[:, None]).astype(int)
        size = effective_size(hits.ravel(), np.repeat(np.arange(40), 12).tolist())
        low, high = wilson(hits.mean() * size, size)
        covered += low <= 0.5 <= high
        low, high = wilson(hits.sum(), hits.size)
        plain += low <= 0.5 <= high
    assert covered / 300 > 0.92 and plain / 300 < 0.8


def test_confusion_of_one_attribute_and_of_two() -> None:
    rows = [_row("small", "big", density="low"), _row("small", "small", density="low"), _row("", "big")]
    assert confusion(rows, "area").tolist() == [[1, 0, 1], [0, 0, 0], [0, 0, 0]]
    assert confusion(rows, "area", "density").tolist() == [[0, 2, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert spread(rows, "area").tolist() == pytest.approx([1 / 3, 0, 2 / 3])


def test_shift_uses_that_two_images_have_the_same_noise() -> None:
    g = np.random.default_rng(1)
    noise = g.normal(size=40)
    rows = [
        _row(word, word, k, area_ratio=float(noise[k] + rise + 0.01 * g.normal()))
        for word, rise in (("small", 0.0), ("big", 0.3))
        for k in range(40)
    ]
    mean, low, high = shift(rows, "area_ratio", "area", ("small", "big"))
    assert mean == pytest.approx(0.3, abs=0.01) and low < mean < high and high - low < 0.02
    unpaired = [replace(row, index=row.index + 100 * (row.asked_area == "big")) for row in rows]
    _, low, high = shift(unpaired, "area_ratio", "area", ("small", "big"))
    assert high - low > 0.3
    with pytest.raises(InputError, match="no row asks"):
        shift(rows, "area_ratio", "area", ("small", "medium"))


def test_explained_is_0_for_idle_words_and_1_for_words_that_decide() -> None:
    values = {"small": 0.2, "medium": 0.5, "big": 0.7}
    decided = [_row(word, word, k, area_ratio=value) for word, value in values.items() for k in range(20)]
    idle = [_row(word, word, k, area_ratio=0.01 * k) for word in values for k in range(20)]
    assert explained(decided, "area_ratio", "area")[0] == pytest.approx(1)
    assert explained(idle, "area_ratio", "area")[0] == pytest.approx(0, abs=1e-12)
    mixed = [replace(row, area_ratio=row.area_ratio + 0.01 * row.index) for row in decided]
    numbers = np.array([row.area_ratio for row in mixed]).reshape(3, 20)
    known = 20 * ((numbers.mean(1) - numbers.mean()) ** 2).sum() / ((numbers - numbers.mean()) ** 2).sum()
    mean, low, high = explained(mixed, "area_ratio", "area")
    assert mean == pytest.approx(known) and low <= mean <= high
    with pytest.raises(InputError, match="no row asks"):
        explained([_row("", "big")], "area_ratio", "area")


def test_logistic_of_two_groups_is_known_in_closed_form() -> None:
    """With a column for each group Firth's estimate is the log of (yes + 1/2) / (no + 1/2), even for 10 of 10."""
    x = np.repeat(np.eye(2), (10, 40), axis=0)
    hits = np.r_[np.ones(10), np.ones(13), np.zeros(27)]
    fitted = logistic(x, hits, draws=0)
    assert fitted.estimate == pytest.approx([math.log(10.5 / 0.5), math.log(13.5 / 27.5)], abs=1e-8)
    assert fitted.chance(np.eye(2)) == pytest.approx([10.5 / 11, 13.5 / 41])


def test_logistic_is_the_maximum_of_firths_likelihood() -> None:
    g = np.random.default_rng(2)
    x = np.column_stack([np.ones(300), g.integers(0, 2, 300), g.integers(0, 4, 300)])
    hits = (g.random(300) < expit(x @ [-0.5, 1.0, 0.4])).astype(float)

    def loss(b: Any) -> float:
        p = expit(x @ b)
        information = (x.T * (p * (1 - p))) @ x
        return float(-(hits * np.log(p) + (1 - hits) * np.log(1 - p)).sum() - np.linalg.slogdet(information)[1] / 2)

    fitted = logistic(x, hits, draws=200)
    best = minimize(loss, np.zeros(3), method="BFGS", options={"gtol": 1e-6})
    assert fitted.estimate == pytest.approx(best.x, abs=1e-4)
    assert (fitted.low < fitted.estimate).all() and (fitted.estimate < fitted.high).all()
    independent = 1.96 * np.sqrt(np.diag(fitted.covariance))
    assert (fitted.high - fitted.low) / 2 == pytest.approx(independent, rel=0.2)


def test_logistic_with_copies_is_as_unsure_as_with_the_originals() -> None:
    g = np.random.default_rng(3)
    x = np.column_stack([np.ones(60), g.integers(0, 2, 60)])
    hits = (g.random(60) < expit(x @ [0.0, 1.0])).astype(float)
    once = logistic(x, hits, draws=200)
    copies = logistic(np.repeat(x, 8, axis=0), np.repeat(hits, 8), np.repeat(np.arange(60), 8).tolist(), draws=200)
    assert copies.high - copies.low == pytest.approx(once.high - once.low, rel=0.25)


def test_logistic_refuses_what_it_cannot_fit() -> None:
    with pytest.raises(InputError, match="leave one out"):
        logistic(np.ones((4, 2)), [0, 1, 0, 1])
    with pytest.raises(InputError, match="0 or 1"):
        logistic(np.ones((2, 1)), [0, 2])
    with pytest.raises(InputError, match="one row a trial"):
        logistic(np.ones((2, 1)), [0, 1, 1])
