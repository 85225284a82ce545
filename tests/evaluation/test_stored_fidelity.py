"""The stored results on fidelity: they follow from each other, and what must be shown is shown."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from mame_lib.data.phantom import draw
from mame_lib.evaluation import fidelity
from mame_lib.evaluation.adherence import wilson
from mame_lib.evaluation.damages import DAMAGES, WORSE, seen, steps
from mame_lib.evaluation.degradations import blurred
from mame_lib.evaluation.features import phantom_features
from mame_lib.teaching.stored import RESULTS, stored

NAMES = ("phantom features", "radiomics")
FILE = Path(__file__).parents[2] / RESULTS / "fidelity_features.safetensors"
MODELS = ("fused", "hologic", "siemens")


def table() -> list[dict[str, Any]]:
    return list(stored("fidelity_sensitivity")["rows"])


def rows(model: str, kind: str) -> list[dict[str, Any]]:
    return [row for row in stored("fidelity_models")["models"][model] if row["set"] == kind]


def test_the_table_has_every_damage_at_three_strengths_in_both_feature_sets() -> None:
    found = table()
    assert len(found) == 2 * (1 + 3 * len(DAMAGES)) and stored("fidelity_sensitivity")["count"] == 300
    for name in NAMES:
        for damage in DAMAGES:
            assert all(len(steps(found, damage, name, measure)) == 4 for measure in WORSE)


@pytest.mark.parametrize("damage", DAMAGES)
def test_every_damage_moves_the_measures_that_should_see_it_at_each_step(damage: str) -> None:
    """Must be shown: monotonically, at three strengths, in both feature sets."""
    said = stored("fidelity_sensitivity")["seen"][damage]
    for name in NAMES:
        for measure in DAMAGES[damage].sees:
            assert seen(table(), damage, name, measure), (name, measure, steps(table(), damage, name, measure))
            assert said[name][measure] is True


def test_what_the_measures_do_not_see() -> None:
    """The chapter's lessons: precision misses a missing vendor, and copies of the reals are the best set of all."""
    found = table()
    for name in NAMES:
        for damage in ("no siemens", "no MLO", "dense"):
            assert min(steps(found, damage, name, "precision")) > 0.9
        copies = {measure: steps(found, "copies", name, measure)[-1] for measure in WORSE}
        assert copies["frechet"] < 1e-6 and copies["precision"] == copies["recall"] == copies["coverage"] == 1
        assert copies["authenticity"] == 0
        assert steps(found, "scrambled", name, "similarity")[-1] < steps(found, "scrambled", name, "similarity")[0]


def test_stored_features_give_the_rows_of_the_table() -> None:
    features = load_file(FILE)
    assert FILE.stat().st_size < 600_000
    for key, fake in features.items():
        if key == "real":
            continue
        damage, _, strength = key.rpartition(" ")
        which = (None, 0.0) if key == "fake" else (damage, float(strength))
        mine = (row for row in table() if row["features"] == NAMES[0])
        row = next(row for row in mine if (row["damage"], row["strength"]) == which)
        found = fidelity.prdc(features["real"], fake)
        assert found == fidelity.PRDC(*(pytest.approx(row[name], rel=1e-5) for name in
                                        ("precision", "recall", "density", "coverage")))  # fmt: skip
        assert fidelity.frechet(features["real"], fake) == pytest.approx(row["frechet"], rel=1e-4, abs=1e-6)
        kernel = fidelity.kernel_distance(features["real"], fake)
        assert kernel.value == pytest.approx(row["kernel"], rel=1e-4, abs=1e-5)


def test_a_small_part_made_again() -> None:
    """Three phantoms of the table, as they are and blurred: their features are the stored ones."""
    features, extract = load_file(FILE), phantom_features()
    images = np.stack([draw(seed=44_000_000, index=k).image for k in range(3)])
    assert np.abs(extract(images) - features["fake"][:3]).max() < 1e-3
    soft = np.stack([blurred(image, 1.0) for image in images])
    assert np.abs(extract(soft) - features["blur 1"][:3]).max() < 1e-3


def test_few_images_are_far_from_anything_and_the_extrapolation_is_not() -> None:
    found = stored("fidelity_bias")["sets"]
    for name, curve in found["phantoms"].items():  # the truth is 0
        means = {row["n"]: row["mean"] for row in curve}
        assert all(before > after for before, after in pairwise(means.values())), name
        assert means[60] > 5 * means[1000]
        far = {row["n"]: row for row in curve if "value" in row}
        assert all(row["low"] < 0 < row["high"] and row["value"] < row["mean"] for row in far.values())
        assert abs(far[300]["value"]) < 0.5 * means[300]
    near = found["fused"][NAMES[0]]
    assert all(before["mean"] > after["mean"] for before, after in pairwise(near))
    assert all(row["value"] < row["mean"] for row in near if "value" in row)
    # Where the distance is large, the bias is lost in it.
    large = [row["mean"] for row in found["fused"][NAMES[1]]]
    assert max(large) < 1.1 * min(large)


@pytest.mark.parametrize("model", MODELS)
def test_models_lie_between_floor_and_nothing(model: str) -> None:
    """Held-out phantoms are nearest, then those through the autoencoder; every sampled set is farther."""
    for name in NAMES:
        order = [row["against"][name] for kind in ("floor", "ceiling", "sampled") for row in rows(model, kind)]
        assert all(one["real"] == one["fake"] == 300 for one in order)
        distances = [one["extrapolated"]["value"] for one in order]
        assert distances[0] < distances[1] < min(distances[2:]), (name, distances)
        floor = order[0]
        assert floor["extrapolated"]["low"] < 0 < floor["extrapolated"]["high"]
        assert abs(floor["kernel"]["value"]) < 3 * floor["kernel"]["error"]
        assert floor["prdc"]["coverage"] > 0.9 and 0.3 < floor["authenticity"] < 0.7
        for one in order:
            assert all(low <= one["prdc"][key] <= high for key, (low, high) in one["intervals"].items())


@pytest.mark.parametrize("model", MODELS)
def test_rows_of_the_models_have_their_adherence_and_similarity(model: str) -> None:
    every = stored("fidelity_models")["models"][model]
    assert [row["set"] for row in every[:3]] == ["reference", "floor", "ceiling"] and len(every) == 10
    for row in every:
        for one in row["adherence"].values():
            assert one["interval"] == pytest.approx(wilson(one["yes"], one["n"]), abs=1e-5)
        for one in row["similarity"]["mixed"].values():
            assert 0 < one["low"] < one["mean"] < one["high"] < 1 and one["images"] <= 100
        assert all(0 < one["mean"] < 1 for one in row["similarity"]["caption"].values())
    assert rows(model, "reference")[0]["adherence"]["all"]["yes"] > 280, "phantoms show what their captions say"


def test_the_two_feature_sets_disagree_about_the_autoencoder() -> None:
    """The network was taught to overlook it, the radiomics were not: to them it is most of every model's distance."""
    for model in MODELS:
        decoded, best = rows(model, "ceiling")[0], min(
            rows(model, "sampled"), key=lambda row: row["against"]["radiomics"]["frechet"]
        )  # fmt: skip
        assert decoded["against"]["phantom features"]["prdc"]["precision"] > 0.7
        assert decoded["against"]["radiomics"]["prdc"]["precision"] < 0.1
        assert decoded["against"]["radiomics"]["frechet"] > 0.5 * best["against"]["radiomics"]["frechet"]
        for row in (decoded, best):  # decoded against decoded, it is gone
            assert row["against decoded"]["radiomics"]["frechet"] < 0.7 * row["against"]["radiomics"]["frechet"]


def test_guidance_costs_fidelity() -> None:
    """From guidance 2 on, in every model and both feature sets; what it buys is in `adherence`."""
    for model in MODELS:
        at_12 = {row["guidance"]: row for row in rows(model, "sampled") if row["steps"] == 12}
        for name in NAMES:
            for which in ("against", "against decoded"):
                found = [at_12[g][which][name]["frechet"] for g in (2.0, 4.0, 8.0)]
                assert all(before < after for before, after in pairwise(found)), (model, name, which)
            least = [at_12[g]["against decoded"][name]["prdc"]["coverage"] for g in (2.0, 8.0)]
            assert least[0] > least[1]  # against phantoms as drawn, radiomics have no coverage at all
    fused = {row["guidance"]: row for row in rows("fused", "sampled") if row["steps"] == 12}
    assert fused[4.0]["adherence"]["all"]["yes"] > fused[1.0]["adherence"]["all"]["yes"]


def test_guidance_makes_images_of_one_sentence_alike_and_those_of_several_not() -> None:
    """Which pairs are compared decides the sign: why "diversity rises with guidance" can be read off a table."""
    for model in MODELS:
        at_12 = {row["guidance"]: row["similarity"] for row in rows(model, "sampled") if row["steps"] == 12}
        same = [at_12[g]["caption"]["whole"]["mean"] for g in (1, 2, 4, 8)]
        assert all(before < after for before, after in pairwise(same))
        assert at_12[8]["mixed"]["whole"]["mean"] < at_12[1]["mixed"]["whole"]["mean"]
