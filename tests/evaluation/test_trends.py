"""Slopes and correlations: right by hand, intervals that hold the truth, and the paper's table as data."""

from __future__ import annotations

import numpy as np
import pytest

from mame_lib.errors import InputError
from mame_lib.evaluation.diversity import diversity
from mame_lib.evaluation.trends import diversity_trend, line, pearson, slope
from mame_lib.teaching.paper_tables import PINAYA, table_3

AT = (1.0, 2.0, 4.0)


def _matrices(rng: np.random.Generator, rise: float, count: int = 20) -> list[np.ndarray]:
    """Similarities exp(-|x - y|² / 2) of points that draw together as the setting grows."""
    points = rng.normal(size=(count, 2))
    found = []
    for g in AT:
        moved = points * (1 - rise * g) + 0.1 * rng.normal(size=points.shape)
        found.append(np.exp(-((moved[:, None] - moved) ** 2).sum(2) / 2))
    return found


def test_slope_by_hand() -> None:
    assert slope([1.0, 3.0, 7.0], AT) == pytest.approx(2.0)
    assert slope([[1, 3, 7], [0, 0, 0]], AT) == pytest.approx([2.0, 0.0])
    with pytest.raises(InputError, match="one value at each"):
        slope([1, 2], AT)
    with pytest.raises(InputError, match="one value at each"):
        slope([1, 2], [3, 3])


def test_line_is_ordinary_least_squares() -> None:
    scipy = pytest.importorskip("scipy.stats")
    y, x = [0.29, 0.34, 0.38, 0.38, 0.43, 0.42], range(4, 10)
    theirs = scipy.linregress(list(x), y)
    ours = line(y, list(x))
    half = scipy.t.ppf(0.975, 4) * theirs.stderr
    assert (ours.value, ours.low, ours.high) == pytest.approx(
        (theirs.slope, theirs.slope - half, theirs.slope + half)
    )
    with pytest.raises(InputError, match="three values"):
        line([1, 2], [1, 2])


def test_pearson_and_fishers_interval_of_the_papers_table() -> None:
    """Numbers that were derived from the paper's table by hand when it was read (erratum E17)."""
    expected = {"hologic": (0.93, 0.75, 0.98), "siemens": (0.57, -0.04, 0.87), "fused": (0.39, -0.27, 0.80)}
    for name, cells in table_3().items():
        found = pearson(list(cells), [cell.mean for cell in cells.values()])
        assert (found.value, found.low, found.high) == pytest.approx(expected[name], abs=0.006)
    assert pearson([1, 2, 3, 4], [2, 4, 6, 8]).low == 1
    for x, y in (([1, 2, 3], [1, 2, 3]), ([1, 2, 3, 4], [1, 1, 1, 1]), ([1, 2, 3, 4], [1, 2, 3])):
        with pytest.raises(InputError, match="four values"):
            pearson(x, y)


def test_the_papers_table_is_whole() -> None:
    table = table_3()
    assert [list(cells) for cells in table.values()] == [list(range(4, 15))] * 3
    above = [(name, g) for name, cells in table.items() for g, cell in cells.items() if cell.mean > PINAYA]
    assert above == [("fused", 10)]  # erratum E18
    assert (table["hologic"][4].mean, table["siemens"][8].sd, table["fused"][14].mean) == (0.29, 0.20, 0.47)


def test_the_trend_is_the_slope_of_the_means() -> None:
    scores = _matrices(np.random.default_rng(0), 0.1)
    found = diversity_trend(scores, AT, seed=0)
    assert found.value == pytest.approx(slope([diversity(one, seed=0).mean for one in scores], AT))
    assert 0 < found.low < found.value < found.high
    assert diversity_trend(scores, AT, seed=0) == found
    flat = diversity_trend([scores[0]] * 3, AT, seed=0)
    assert flat.low == pytest.approx(0, abs=1e-12) and flat.high == pytest.approx(0, abs=1e-12)


def test_images_of_one_noise_stay_together() -> None:
    """What the noises have in common cancels: shuffling the rows of each matrix apart widens the interval."""
    rng = np.random.default_rng(1)
    scores = _matrices(rng, 0.1, 40)
    paired = diversity_trend(scores, AT, seed=0)
    shuffled = [one[np.ix_(order, order)] for one in scores if len(order := rng.permutation(40))]
    apart = diversity_trend(shuffled, AT, seed=0)
    assert apart.value == pytest.approx(paired.value)
    assert apart.high - apart.low > 1.2 * (paired.high - paired.low)


def test_the_interval_of_a_flat_trend_holds_zero_as_often_as_it_says() -> None:
    """100 sets without a trend: zero is outside of at most 12 intervals (chance 0.002 if it covers 95 %)."""
    rng = np.random.default_rng(2)
    found = [diversity_trend(_matrices(rng, 0.0), AT, seed=k, draws=400) for k in range(100)]
    assert sum(not one.low <= 0 <= one.high for one in found) <= 12


def test_bad_input_gets_one_sentence() -> None:
    scores = _matrices(np.random.default_rng(0), 0.1)
    for wrong in ([], [scores[0], scores[1][:5, :5], scores[2]], [one[:3, :3] for one in scores]):
        with pytest.raises(InputError, match="one matrix"):
            diversity_trend(wrong, AT, seed=0)
    with pytest.raises(InputError, match="one value at each"):
        diversity_trend(scores, AT[:2], seed=0)
