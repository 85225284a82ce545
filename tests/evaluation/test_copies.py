"""Copies are found wherever they lie, and the distances are what they are said to be."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from mame_lib.data.phantom import draw
from mame_lib.errors import InputError
from mame_lib.evaluation.copies import FLIPS, FORMS, Prepared, Transform, prepare, search
from mame_lib.evaluation.degradations import noisy

COUNT = 12


@cache
def phantoms():
    return np.stack([draw(size=128, seed=33_000_000, index=k).image for k in range(COUNT)])


@cache
def prepared() -> Prepared:
    return prepare(phantoms())


def test_a_transform_mirrors_turns_and_shifts() -> None:
    image = phantoms()[0]
    assert np.array_equal(Transform().apply(image), image) and Transform().apply(image) is not image
    assert np.array_equal(Transform("h").apply(image), image[:, ::-1])
    assert np.array_equal(Transform("v").apply(image), image[::-1])
    assert np.array_equal(Transform("hv").apply(image), image[::-1, ::-1])
    assert np.array_equal(Transform(angle=90).apply(image), np.rot90(image))  # counterclockwise
    moved = Transform(dx=3 / 128, dy=-2 / 128).apply(image)
    assert np.array_equal(moved[:-2, 3:], image[2:, :-3])
    assert np.array_equal(moved[:-2, :3], np.repeat(image[2:, :1], 3, 1))  # the border goes on
    both = Transform("h", 90, dx=1 / 128).apply(image)  # in this order
    assert np.array_equal(both[:, 1:], np.rot90(image[:, ::-1])[:, :-1])
    assert str(Transform()) == "as it is" and "mirrored" in str(Transform("h"))
    assert "+5.0 degrees" in str(Transform("", 5))


@pytest.mark.parametrize(
    "how",
    [Transform(), Transform("h"), Transform("v", 2.5), Transform("", -5, 0.02, -0.02), Transform("hv", 4, -0.01, 0.02)],
    ids=str,
)
def test_a_copy_is_found_and_laid_upon_its_original(how: Transform) -> None:
    rng = np.random.default_rng(0)
    chosen = [1, 4, 7]
    copies = np.stack([noisy(how.apply(phantoms()[k]), 4, rng) for k in chosen])
    found = search(prepare(copies), prepared())
    for form, least in {"pixel": 0.88, "detail": 0.94}.items():
        one = found[form]
        assert one.index[:, 0].tolist() == chosen, form
        assert (one.distance[:, 0] < 0.5 * one.distance[:, 1]).all(), form
        for k, (copy, back) in enumerate(zip(copies, one.transform, strict=True)):
            inner = (slice(8, -8),) * 2
            original = phantoms()[chosen[k]][inner].astype(float)
            assert np.corrcoef(back.apply(copy)[inner].ravel(), original.ravel())[0, 1] > least, (form, k, back)


def test_a_pixel_distance_is_that_of_a_correlation() -> None:
    small = phantoms().reshape(COUNT, 32, 4, 32, 4).mean((2, 4)).reshape(COUNT, -1)
    found = search(prepared()[:3], prepared(), flips=("",))["pixel"]
    correlation = np.corrcoef(small)
    assert np.abs(found.distance[:, 0]).max() < 2e-3  # themselves, in single precision
    for k in range(3):
        for index, distance in zip(found.index[k], found.distance[k], strict=True):
            assert distance <= np.sqrt(2 - 2 * correlation[k, index]) + 2e-3  # as they lie, or nearer when moved
        assert (np.diff(found.distance[k]) >= 0).all() and sorted(found.index[k]) == list(range(COUNT))


def test_gain_and_offset_do_not_matter() -> None:
    images = phantoms()[:3]
    changed = np.rint(images * 0.6 + 30).astype(np.uint8)
    found = search(prepare(changed), prepared(), flips=("",))
    assert found["pixel"].distance[:, 0].max() < 0.02 and found["detail"].distance[:, 0].max() < 0.25


def test_flips_are_looked_for_only_where_they_are_asked_for() -> None:
    mirrored = prepare(phantoms()[:3, ::-1])
    with_flips, without = (search(mirrored, prepared(), flips=some)["detail"].distance[:, 0] for some in (FLIPS, ("",)))
    assert with_flips.max() < 0.2 and without.min() > 0.6


def test_images_of_the_own_group_are_left_out() -> None:
    names = [f"patient {k // 2}" for k in range(COUNT)]
    found = search(prepared()[:4], prepared(), groups=(names[:4], names))
    for form in FORMS:
        there = np.isfinite(found[form].distance)
        assert (~there).sum(1).tolist() == [2] * 4
        for k in range(4):
            assert not {2 * (k // 2), 2 * (k // 2) + 1} & set(found[form].index[k][there[k]].tolist())


def test_few_candidates_find_the_copy_too() -> None:
    found = search(prepared()[:4], prepared(), candidates=4)
    assert found["detail"].index.shape == (4, 4)
    assert found["detail"].index[:, 0].tolist() == found["pixel"].index[:, 0].tolist() == [0, 1, 2, 3]


def test_prepared_images_can_be_taken_apart_and_joined() -> None:
    joined = Prepared.joined([prepared()[:5], prepared()[5:]])
    assert len(joined) == COUNT
    for name in ("pixel", "detail", "rough"):
        assert bool((getattr(joined, name) == getattr(prepared(), name)).all())


def test_an_empty_image_is_like_nothing() -> None:
    found = search(prepare(np.zeros((1, 128, 128), np.uint8)), prepared())
    assert all(np.isfinite(found[form].distance).all() and found[form].distance.min() > 1 for form in FORMS)


@pytest.mark.parametrize(
    "images, words",
    [
        (np.zeros((2, 32, 32), np.uint8), "at least 64"),
        (np.zeros((2, 64, 80), np.uint8), "squares"),
        (np.zeros((2, 64, 64)), "float64"),
        (np.zeros((0, 64, 64), np.uint8), "no image"),
    ],
)
def test_other_images_are_refused(images, words: str) -> None:
    with pytest.raises(InputError, match=words):
        prepare(images)


def test_a_search_needs_images_and_their_groups() -> None:
    with pytest.raises(InputError, match="2 images or more"):
        search(prepared()[:1], prepared()[:1])
    with pytest.raises(InputError, match="one group an image"):
        search(prepared()[:2], prepared(), groups=(["a"], ["b"] * COUNT))
