"""Copies are found: equal images, and images that are one of the training data with a little noise."""

from __future__ import annotations

import json

import numpy as np
import pytest

from mame_lib.data import manifest
from mame_lib.data.sources import phantom_source
from mame_lib.errors import InputError
from mame_lib.synthesize import synthesize
from mame_lib.synthesize.checks import Training, equal_images, thumbnails


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    out = tmp_path_factory.mktemp("phantoms") / "data"
    manifest.write(out, phantom_source(24, size=64, seed=3), source="phantom", settings={})
    return out


def test_equal_images_are_named() -> None:
    found = [{"index": k, "pixels": p} for k, p in enumerate("abcab")]
    assert equal_images(found) == [[0, 3], [1, 4]] and equal_images(found[:3]) == []


def test_a_copy_is_flagged_and_another_phantom_is_not(phantoms) -> None:
    data, rng = manifest.load(phantoms), np.random.default_rng(0)
    noisy = np.clip(data.image(data.cases[4]) + rng.normal(0, 4, (64, 64)), 0, 255).astype(np.uint8)
    others = [item.image for item in phantom_source(3, size=64, seed=77)]
    flat = np.zeros((64, 64), np.uint8)
    said = Training([phantoms]).check(["copy", "a", "b", "c", "flat"], [noisy, *others, flat])
    assert [one.image for one in said.flagged][:1] == ["copy"] and said.largest.image == "copy"
    assert said.largest.training == f"data/{data.cases[4].image}" and said.largest.correlation > 0.99
    assert said.threshold < said.largest.correlation and not {"flat"} & {one.image for one in said.flagged}


def test_correlations_are_those_of_numpy(phantoms) -> None:
    data = manifest.load(phantoms)
    rows = thumbnails([data.image(case) for case in data.cases[:5]])
    small = [data.image(case).reshape(32, 2, 32, 2).mean((1, 3)).ravel() for case in data.cases[:5]]
    assert np.abs(rows @ rows.T - np.corrcoef(small)).max() < 1e-5


def test_the_check_is_part_of_the_card(phantoms, small, made, tmp_path) -> None:
    done = synthesize(small, 3, tmp_path / "data", training_data=[phantoms])
    stored = json.loads((tmp_path / "data" / "training_check.json").read_text())
    assert done is not None and done.training is not None
    assert stored == json.loads(json.dumps(done.training.to_dict())) and stored["training_images"] >= 20
    assert "most similar pair" in (tmp_path / "data" / "README.md").read_text()
    assert "training_check.json" in (tmp_path / "data" / "checksums.sha256").read_text()
    assert "not compared" in (made / "README.md").read_text()


def test_too_few_training_images(phantoms, tmp_path, small) -> None:
    manifest.write(tmp_path / "few", phantom_source(3, size=64), source="phantom", settings={})
    with pytest.raises(InputError, match="few has 3 training images; the check needs 10"):
        Training([tmp_path / "few"])
    with pytest.raises(InputError, match="does not exist"):
        synthesize(small, 3, tmp_path / "data", training_data=[tmp_path / "nothing"])
    assert not (tmp_path / "data").exists()
