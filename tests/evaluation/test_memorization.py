"""The audit calls copies copies, and strangers no more often than it promises."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from mame_lib.data.phantom import draw
from mame_lib.errors import InputError
from mame_lib.evaluation import memorization as m
from mame_lib.evaluation.copies import Transform
from mame_lib.evaluation.degradations import blurred, jpeg, noisy
from mame_lib.evaluation.nearest import matched_gain

TRAINING, OUTSIDE = 14, 14
LENIENT = 0.25  # false alarms that so few held-out phantoms can promise


def corners(images):
    """A space of its own: means of 16 x 16 pixels."""
    return images.reshape(len(images), 8, 16, 8, 16).mean((2, 4)).reshape(len(images), -1)


@cache
def phantoms():
    return np.stack([draw(size=128, seed=33_000_001, index=k).image for k in range(TRAINING + OUTSIDE)])


@cache
def training() -> m.TrainingSet:
    return m.TrainingSet(phantoms()[:TRAINING], spaces={"corners": corners})


@cache
def held_out() -> m.Matches:
    return m.nearest(phantoms()[TRAINING:], training())


@cache
def calibration() -> m.Calibration:
    return m.calibrate(training(), held_out(), false_alarms=LENIENT)


def matches_of(distances, others=None) -> m.Matches:
    """Matches in one space with these distances, to try rules on."""
    distances = np.asarray(distances, float)
    around = np.full(len(distances), 1.0) if others is None else np.asarray(others, float)
    space = m.Neighbors(np.zeros(len(distances), np.int64), distances, around, around)
    return m.Matches({"detail": space}, (Transform(),) * len(distances))


def test_another_space_is_searched_by_brute_force() -> None:
    space = held_out().spaces["corners"]
    known = corners(phantoms()[:TRAINING])
    for k in range(4):
        image = phantoms()[TRAINING + k]
        on_top = int(held_out().spaces["detail"].index[k])
        moved = matched_gain(held_out().transform[k].apply(image), phantoms()[on_top])
        views = corners(np.stack([image, moved]))
        apart = np.sort(np.linalg.norm(views[:, None] - known[None], axis=2).min(0))
        assert space.distance[k] == pytest.approx(apart[0]) and space.second[k] == pytest.approx(apart[1])
        assert space.others[k] == pytest.approx(apart[1:51].mean())
        assert space.ratio[k] == pytest.approx(apart[0] / apart[1:].mean()) and space.nndr[k] <= 1


def test_the_nearest_of_a_training_image_is_itself_or_that_of_another_patient() -> None:
    own = m.nearest(training().images[:3], training())
    assert all(space.index.tolist() == [0, 1, 2] and space.ratio.max() < 0.01 for space in own.spaces.values())
    other = m.nearest(training().images[:3], training(), patients=training().patients[:3])
    assert all((space.index != np.arange(3)).all() and space.distance.min() > 0.05 for space in other.spaces.values())


def test_neighbors_of_the_ratio_can_be_fewer() -> None:
    found = m.nearest(phantoms()[TRAINING : TRAINING + 2], training(), neighbors=1)
    for space in found.spaces.values():
        assert space.others == pytest.approx(space.second)


def test_a_part_of_a_training_set_is_that_part() -> None:
    part = m.nearest(phantoms()[-2:], training().first(5))
    again = m.nearest(phantoms()[-2:], m.TrainingSet(phantoms()[:5], spaces={"corners": corners}))
    assert len(training().first(5)) == 5 and len(training()) == TRAINING
    for name, space in part.spaces.items():
        assert np.array_equal(space.index, again.spaces[name].index)
        assert space.distance == pytest.approx(again.spaces[name].distance)


def test_gain_is_matched_where_it_helps() -> None:
    image = phantoms()[0]
    assert np.abs(matched_gain(np.rint(image * 0.5 + 20).astype(np.uint8), image).astype(int) - image).max() <= 2
    assert np.array_equal(matched_gain(255 - image, image), 255 - image)


def test_how_many_held_out_patients_a_promise_needs() -> None:
    assert m.fewest() == 299 and 0.99**299 < 0.05 < 0.99**298
    assert m.fewest(0.1) == 29 and m.fewest(0.01, 0.5) == 69
    with pytest.raises(InputError, match=r"need 299 held-out patients, not 298; give more, or allow 0\.011"):
        m.calibrate(None, matches_of(np.ones(298)))
    assert m.calibrate(None, matches_of(np.linspace(1, 2, 299))).allowed == 1


def test_the_threshold_keeps_its_promise_in_19_of_20_calibrations() -> None:
    rng = np.random.default_rng(0)
    rates, mean = [], []
    for _ in range(300):
        calibration = m.calibrate(None, matches_of(np.exp(rng.standard_normal(700))))
        strangers = matches_of(np.exp(rng.standard_normal(4000)))
        rates.append((calibration.of(strangers) > calibration.threshold).mean())
        mean.append(calibration.allowed)
    assert set(mean) == {3}  # of 700: binomial (700, 1 %) is below 3 with 2.9 %, below 4 with 8 %
    assert np.mean(np.array(rates) > 0.01) < 0.08 and 0.002 < np.mean(rates) < 0.006


def test_the_most_suspicious_image_of_a_patient_counts() -> None:
    found = matches_of(np.linspace(1, 2, 120))  # falling suspicion
    alone = m.calibrate(None, found, false_alarms=0.1)
    paired = m.calibrate(None, found, false_alarms=0.1, patients=[f"p{k // 2}" for k in range(120)])
    assert (alone.units, alone.allowed, paired.units, paired.allowed) == (120, 7, 60, 2)
    assert alone.threshold == alone.of(found)[6] and paired.threshold == paired.of(found)[2]


def test_two_weak_scores_do_not_add_up_to_more_false_alarms() -> None:
    rng = np.random.default_rng(1)
    pair = lambda n: matches_of(np.exp(rng.standard_normal(n)), np.exp(rng.standard_normal(n)))  # noqa: E731
    rates = []
    for _ in range(60):
        calibration = m.calibrate(None, pair(400))
        rates.append((calibration.of(pair(3000)) > calibration.threshold).mean())
    assert np.mean(rates) < 0.008


def test_planted_copies_are_flagged_and_strangers_are_not() -> None:
    rng = np.random.default_rng(0)
    sources = np.arange(8)
    disguises = [
        lambda x: x, lambda x: noisy(x, 10, rng), lambda x: blurred(x, 1.2), lambda x: jpeg(x, 25),
        lambda x: np.rint(x * 0.7 + 20).astype(np.uint8), lambda x: x[:, ::-1],
        lambda x: Transform("", 5, 0.02, -0.02).apply(x), lambda x: Transform("v", -4, -0.02, 0.01).apply(x),
    ]  # fmt: skip
    copies = np.stack([change(phantoms()[k]) for k, change in zip(sources, disguises, strict=True)])
    said = m.audit(copies, training(), calibration())
    assert said.flagged.all() and said.plain.all() and said.match.tolist() == sources.tolist()
    assert said.rate == 1 and said.interval[0] > 0.6 and said.copies_found
    assert np.array_equal(said.originals, phantoms()[sources]) and set(said.space) <= {"pixel", "detail", "corners"}
    strangers = m.audit(phantoms()[TRAINING:], training(), calibration(), matches=held_out())
    assert strangers.flagged.sum() < calibration().allowed and not strangers.copies_found and not strangers.plain.any()


def test_copies_are_found_if_they_are_more_than_chance_or_plain() -> None:
    calibration = m.calibrate(None, matches_of(np.linspace(1, 2, 400)))
    strange, close = [1.5] * 198, float(np.exp(calibration.center["detail distance"] - 1.1 * calibration.threshold
                                               * calibration.scale["detail distance"]))  # fmt: skip
    blank = np.zeros((200, 64, 64), np.uint8)
    known = m.TrainingSet(phantoms()[:3])

    def verdict(distances) -> bool:
        return m.audit(blank, known, calibration, matches=matches_of(distances)).copies_found

    assert not verdict([*strange, close, close])  # 2 of 200 are what 1 % of false alarms makes
    assert verdict([*strange[:-5], *[close] * 7])
    assert verdict([*strange, 1.5, 0.01])  # one is enough, where it is plain


def test_what_a_model_repeats_is_extracted_by_prompt() -> None:
    rng = np.random.default_rng(0)
    again = [noisy(phantoms()[2], 6, rng) for _ in range(4)]
    own = [noisy(phantoms()[-1], 6, rng) for _ in range(3)]  # repeated, but no training image
    others = list(phantoms()[TRAINING : TRAINING + 4])
    found = m.extract(np.stack([*others, *again, *own]), training(), calibration())
    assert [one.members for one in found] == [(4, 5, 6, 7), (8, 9, 10)]
    assert found[0].training == 2 and found[0].middle in found[0].members and found[1].training is None
    assert m.extract(np.stack(others), training(), calibration()) == []


def test_the_picture_shows_the_worst_pairs_first() -> None:
    images = np.stack([phantoms()[-1], phantoms()[3][:, ::-1]])
    said = m.audit(images, training(), calibration())
    assert said.order.tolist() == [1, 0]
    sheet = np.asarray(m.worst_pairs(said, 2))
    tiles = [sheet[24 : 24 + 128, 6 + 134 * k : 6 + 134 * k + 128] for k in range(4)]
    assert np.array_equal(tiles[0], images[1]) and np.array_equal(tiles[1], phantoms()[3])
    assert np.abs(tiles[2].astype(int) - phantoms()[3]).mean() < 1.5  # mirrored back
    assert np.abs(tiles[3].astype(int) - 128).mean() < 1


def test_mistakes_are_one_sentence() -> None:
    with pytest.raises(InputError, match="3 or more"):
        m.TrainingSet(phantoms()[:2])
    with pytest.raises(InputError, match="14 training images, but 1 patients"):
        m.TrainingSet(phantoms()[:TRAINING], patients=["a"])
    with pytest.raises(InputError, match="not \\[N, d\\]"):
        m.TrainingSet(phantoms()[:3], spaces={"bad": lambda images: np.zeros(len(images))})
    with pytest.raises(InputError, match="bring both to one size"):
        m.nearest(np.zeros((1, 64, 64), np.uint8), training())
    with pytest.raises(InputError, match="fewer than 2 training images of other patients"):
        m.nearest(phantoms()[:1], m.TrainingSet(phantoms()[:3], patients=["a", "a", "b"]), patients=["a"])
    with pytest.raises(InputError, match="other spaces"):
        calibration().of(matches_of([1.0]))
    with pytest.raises(InputError, match="between 0 and 1"):
        m.calibrate(None, matches_of(np.ones(300)), false_alarms=1.5)
    with pytest.raises(InputError, match="needs the training images"):
        m.calibrate(None, phantoms(), false_alarms=LENIENT)
