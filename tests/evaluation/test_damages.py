"""Damaged sets: each is what its name says, and the measures that should see it do, on a small part made here."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest

from mame_lib.data.phantom import draw
from mame_lib.errors import InputError
from mame_lib.evaluation.damages import DAMAGES, WORSE, Phantoms, draw_phantoms, seen, sensitivity, steps
from mame_lib.evaluation.features import phantom_features


@lru_cache(maxsize=2)
def some(seed: int) -> Phantoms:
    return draw_phantoms(8, seed)


def test_phantoms_are_those_of_the_seed() -> None:
    one = draw(seed=44_900_000, index=3)
    drawn = some(44_900_000)
    assert len(drawn) == 8 and np.array_equal(drawn.images[3], one.image)
    assert np.array_equal(drawn.masks[3], one.mask) and drawn.attributes[3] == one.attributes


@pytest.mark.parametrize("name", DAMAGES)
def test_every_damage_keeps_the_number_and_repeats_itself(name: str) -> None:
    damage, fake, real = DAMAGES[name], some(44_900_000), some(43_900_000)
    before = fake.images.copy()
    strength = damage.strengths[-1]
    images = damage(fake, real, strength)
    assert images.shape == fake.images.shape and images.dtype == np.uint8
    assert np.array_equal(images, damage(fake, real, strength)) and np.array_equal(fake.images, before)
    assert not np.array_equal(images, fake.images) and set(damage.sees) <= WORSE.keys()


def test_a_weaker_damage_spoils_a_part_of_what_a_stronger_one_does() -> None:
    fake, real = some(44_900_000), some(43_900_000)
    for name in ("mirrored", "scrambled", "dense", "copies"):
        changed = [(DAMAGES[name](fake, real, share) != fake.images).any((1, 2)) for share in (0.25, 0.5, 1.0)]
        assert (changed[0] <= changed[1]).all() and (changed[1] <= changed[2]).all(), name
        assert changed[0].sum() <= 2


def test_damages_of_the_set_leave_good_images() -> None:
    fake, real = some(44_900_000), some(43_900_000)
    gone = DAMAGES["no MLO"](fake, real, 1.0)
    for k, said in enumerate(fake.attributes):
        kept = np.array_equal(gone[k], fake.images[k])
        assert kept == (said.view == "CC"), "CC views stay, MLO views are drawn again as CC"
    k = next(k for k, said in enumerate(fake.attributes) if said.vendor == "siemens")
    other = draw(type(fake.attributes[0])(vendor="hologic"), seed=44_900_000, index=k)
    assert np.array_equal(DAMAGES["no siemens"](fake, real, 1.0)[k], other.image)
    assert other.attributes.area == fake.attributes[k].area, "only the vendor is another"
    assert len(np.unique(DAMAGES["repeated"](fake, real, 0.25), axis=0)) == 2
    assert {one.tobytes() for one in DAMAGES["copies"](fake, real, 1.0)} <= {one.tobytes() for one in real.images}


@pytest.mark.slow
def test_a_part_of_the_table_made_here() -> None:
    """Eight phantoms, each shown 16 times with another gain: enough to be measured, and quick to draw."""
    rng = np.random.default_rng(0)

    def spread(few: Phantoms) -> Phantoms:
        rows = np.repeat(np.arange(len(few)), 16)
        images = (rng.uniform(0.9, 1.1, (len(rows), 1, 1)) * few.images[rows]).clip(0, 255).astype(np.uint8)
        return Phantoms(images, few.masks[rows], tuple(few.attributes[k] for k in rows), few.seed)

    fake, real = spread(some(44_900_000)), spread(some(44_900_000))
    wanted = [DAMAGES["blur"]]
    rows = list(sensitivity(fake, real, [phantom_features()], wanted))
    assert len(rows) == 4 and rows[0]["damage"] is None
    for damage in wanted:
        for name in ("frechet", "extrapolated", "kernel"):
            assert seen(rows, damage.name, "phantom features", name), (damage.name, name, rows)
    assert len(steps(rows, "blur", "phantom features", "frechet")) == 4


def test_seen_means_worse_at_each_step() -> None:
    def table(values: list[float]) -> list[dict]:
        keys = [(None, 0.0), *(("blur", s) for s in DAMAGES["blur"].strengths)]
        return [
            {"damage": d, "strength": s, "features": "f", "frechet": v, "precision": -v}
            for (d, s), v in zip(keys, values, strict=True)
        ]

    for name in ("frechet", "precision"):
        assert seen(table([1, 2, 3, 4]), "blur", "f", name)
        assert not seen(table([1, 2, 2, 4]), "blur", "f", name)
        assert not seen(table([4, 3, 2, 1]), "blur", "f", name)
    assert seen(table([-1, -0.5, 0, 0]), "blur", "f", "precision"), "a share of 0 can get no worse"
    assert not seen(table([-1, -0.5, 0, 0]), "blur", "f", "frechet")
    assert not seen(table([-1, 0, 0, -0.5]), "blur", "f", "precision")


def test_too_few_images_for_the_table() -> None:
    few = Phantoms(np.zeros((24, 128, 128), np.uint8), np.zeros((24, 128, 128), bool), (), 0)
    with pytest.raises(InputError, match="24 images are too few for 32 phantom features"):
        next(sensitivity(few, few, [phantom_features()], []))
