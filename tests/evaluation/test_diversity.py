"""The diversity of a set: its interval holds the truth as often as it says, and images, not pairs, are drawn again."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from mame_lib.data.phantom import draw
from mame_lib.errors import InputError
from mame_lib.evaluation.diversity import PAPER_PAIRS, diversity, paper_protocol, resampled_means
from mame_lib.evaluation.similarity import pairwise_ms_ssim

SPREAD, DIMENSIONS = 0.6, 2
TRUTH = (1 + 2 * SPREAD**2) ** (-DIMENSIONS / 2)  # E exp(-|x - y|² / 2), x and y normal with sd SPREAD


def _matrices(count: int, sets: int) -> Iterator[np.ndarray]:
    """Similarities exp(-|x - y|² / 2) of `count` points each, whose expectation is known."""
    rng = np.random.default_rng(11)
    for _ in range(sets):
        points = rng.normal(0, SPREAD, (count, DIMENSIONS))
        yield np.exp(-((points[:, None] - points) ** 2).sum(2) / 2)


def test_the_interval_covers_and_one_over_pairs_does_not() -> None:
    """400 sets of 20: the interval holds the truth in 364 to 394 of them, 91 to 98.5 %.

    Binomial chance of another count: 0.0003 if it covers 95 %, 0.002 if it covers 94.4 %, 0.5 if 91 %. Drawing
    the 190 pairs again as if they were independent holds the truth in less than 65 %.
    """
    sets, images, pairs = 400, 0, 0
    rng = np.random.default_rng(12)
    for matrix in _matrices(20, sets):
        found = diversity(matrix, seed=1, draws=500)
        images += found.low <= TRUTH <= found.high
        values = matrix[np.triu_indices(20, 1)]
        low, high = np.quantile(rng.choice(values, (200, len(values))).mean(1), [0.025, 0.975])
        pairs += low <= TRUTH <= high
    assert 364 <= images <= 394
    assert pairs < 0.65 * sets


def test_the_interval_shrinks_with_the_number_of_images() -> None:
    widths = []
    for count in (10, 40, 160):
        found = [diversity(matrix, seed=0, draws=300) for matrix in _matrices(count, 20)]
        widths.append(np.mean([one.high - one.low for one in found]))
    assert 1.7 < widths[0] / widths[1] < 3.2 and 1.7 < widths[1] / widths[2] < 2.4  # about 2: the root of 4


def test_a_resampled_set_by_hand() -> None:
    """Each mean is that of the pairs of the drawn images, without those of an image with itself."""
    (matrix,) = _matrices(5, 1)
    ours = resampled_means(matrix, np.random.default_rng(3), 40)
    drawn = np.random.default_rng(3).multinomial(5, np.full(5, 0.2), size=40)
    for mean, counts in zip(ours, drawn, strict=True):
        members = np.repeat(np.arange(5), counts)
        values = [matrix[i, j] for n, i in enumerate(members) for j in members[n + 1 :] if i != j]
        assert mean == pytest.approx(np.mean(values))


def test_sets_of_one_image_are_left_out() -> None:
    (matrix,) = _matrices(2, 1)
    means = resampled_means(matrix, np.random.default_rng(0), 400)
    assert means == pytest.approx(matrix[0, 1]) and 140 < len(means) < 260  # half of them have two images


def test_equal_similarities_have_no_width_and_the_diagonal_does_not_matter() -> None:
    flat = np.full((8, 8), 0.4)
    found = diversity(flat, seed=0)
    assert (found.mean, found.low, found.high) == pytest.approx((0.4, 0.4, 0.4)) and found.images == 8
    np.fill_diagonal(flat, 1)
    assert diversity(flat, seed=0) == found


def test_a_seed_repeats_and_the_mean_lies_inside() -> None:
    (matrix,) = _matrices(12, 1)
    first = diversity(matrix, seed=5)
    assert first == diversity(matrix, seed=5) != diversity(matrix, seed=6)
    assert first.low < first.mean < first.high


def test_the_paper_s_pairs() -> None:
    assert len({image for pair in PAPER_PAIRS for image in pair}) == 40
    (matrix,) = _matrices(45, 1)
    values = [matrix[k, k + 1] for k in range(0, 40, 2)]
    mean, sd = paper_protocol(matrix)
    assert mean == pytest.approx(np.mean(values))
    assert sd == pytest.approx(np.sqrt(np.mean((np.array(values) - mean) ** 2)))


def test_images_or_their_similarities() -> None:
    images = np.stack([draw(size=64, seed=2, index=k % 8).image for k in range(40)])
    matrix = pairwise_ms_ssim(images)
    assert diversity(images, seed=0, draws=50) == diversity(matrix, seed=0, draws=50)
    assert paper_protocol(images) == pytest.approx(paper_protocol(matrix))


def test_what_has_no_interval_is_refused() -> None:
    (matrix,) = _matrices(6, 1)
    lopsided, holey = matrix.copy(), matrix.copy()
    lopsided[0, 1] = 0
    holey[1, 2] = holey[2, 1] = np.nan
    for wrong, fragment in (
        (matrix[:3, :3], "at least 4"),
        (matrix[:5], "scores are finite"),
        (holey, "scores are finite"),
        (lopsided, "symmetric"),
    ):
        with pytest.raises(InputError, match=fragment):
            diversity(wrong, seed=0)
    with pytest.raises(InputError, match="40 images, not 6"):
        paper_protocol(matrix)
