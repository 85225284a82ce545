"""The stored simulations of chapter 14: some are made again, and what must be shown is shown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mame_lib.evaluation.adherence import wilson
from mame_lib.evaluation.readers import panel, power, roc
from mame_lib.teaching.stored import stored

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(str(BENCHMARKS))
    import readers

FOUND = stored("readers")


def test_the_table_is_whole_and_its_intervals_are_those_of_its_shares() -> None:
    assert FOUND["trials"] >= 1000 and FOUND["margin"] == power.MARGIN
    methods = ("normal", "logit", "Hanley-McNeil", "bootstrap")
    assert len(FOUND["intervals"]) == len(readers.SIZES) * len(readers.AUCS) * len(methods)
    assert len(FOUND["panels"]) == 2 * len(readers.SKILLS) * len(readers.READERS) * 4
    for row in FOUND["intervals"] + FOUND["panels"] + [one["equal"] for one in FOUND["equality"]]:
        hits = round(row["share"] * FOUND["trials"])
        assert row["interval"] == pytest.approx(wilson(hits, FOUND["trials"]), abs=1e-4)


def test_the_logit_interval_and_that_of_readers_and_cases_keep_their_word() -> None:
    logit = [row["share"] for row in FOUND["intervals"] if row["method"] == "logit"]
    both = [row["share"] for row in FOUND["panels"] if row["method"] == "readers and cases"]
    assert min(logit) > 0.93 and min(both) > 0.915
    assert min(row["share"] for row in FOUND["panels"] if row["method"] == "pooled") < 0.75


def test_equality_is_shown_as_often_as_planned() -> None:
    for row in FOUND["equality"]:
        if row["auc"] == 0.5 and row["planned"] > 0:
            assert row["equal"]["share"] == pytest.approx(row["planned"], abs=0.05)
        if row["auc"] == 0.55:
            assert row["equal"]["interval"][0] < 0.055  # no more than the 5 % that the tests allow
    assert FOUND["equality"][0]["each"] == power.for_equivalence()
    small = next(row for row in FOUND["equality"] if row["each"] == 25)
    assert small["equal"]["share"] == 0


def test_half_widths_are_as_planned() -> None:
    for row in FOUND["widths"]:
        assert row["planned"] == pytest.approx(power.Design(each=row["each"]).half_width, abs=1e-4)
        assert 0.94 < row["measured"] / row["planned"] <= 1.0  # ties make the error somewhat smaller


def test_the_first_trials_come_out_the_same() -> None:
    row = next(one for one in FOUND["intervals"] if one["method"] == "logit" and one["synthetic"] == 50
               and one["auc"] == 0.7)  # fmt: skip
    hits = 0
    for seed in range(FOUND["first"]):
        one = panel.ReaderModel(auc=0.7).simulate(1, 50, 50, seed=seed)
        span = roc.delong(one.scores[0], one.synthetic).logit()
        hits += span.low <= one.true_aucs[0] <= span.high
    assert hits == row["of the first"]
    same = [one for one in FOUND["panels"] if (one["readers"], one["auc"], one["reader_sd"]) == (3, 0.7, 0.06)]
    cells = {one["method"]: one for one in same}
    hits_of = dict.fromkeys(cells, 0)
    for seed in range(FOUND["first"]):
        one = panel.ReaderModel(auc=0.7, reader_sd=0.06).simulate(3, 50, 50, seed=seed)
        for name, (low, high) in readers.spans_of_panel(one).items():
            hits_of[name] += low <= cells[name]["truth"] <= high
    assert hits_of == {name: one["of the first"] for name, one in cells.items()}


def test_counting_draws_the_bootstrap_of_the_library() -> None:
    one = panel.ReaderModel(auc=0.6).simulate(1, 25, 28, seed=3)
    low, high = readers.resampled(one.scores[0], one.synthetic, 4000, np.random.default_rng(0))
    theirs = roc.bootstrap(one.scores[0], one.synthetic, seed=0, draws=4000)
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=0.012)
