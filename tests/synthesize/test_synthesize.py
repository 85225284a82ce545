"""A population as a folder: complete, readable, the same however it was made, and nothing else is touched."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from mame_lib.data import manifest
from mame_lib.errors import InputError
from mame_lib.synthesize import run, spec_from, synthesize
from mame_lib.synthesize.folder import Folder
from mame_lib.synthesize.plan import BLOCK, plan
from mame_lib.synthesize.studio import Studio


def sums(root) -> str:
    return (root / "checksums.sha256").read_text()


def rows(root) -> list[dict]:
    return [json.loads(line) for line in (root / "recipes.jsonl").read_text().splitlines()]


def gray(path) -> np.ndarray:
    with Image.open(path) as picture:
        assert picture.mode == "L"
        return np.asarray(picture)


def test_the_folder_is_a_data_set(made, small) -> None:
    data = manifest.load(made)
    assert [case.id for case in data.cases] == [f"{index:06d}" for index in range(12)]
    assert len({case.patient for case in data.cases}) == 12
    for index, case in enumerate(data.cases):
        one = plan(small, index)
        assert case.attributes == one.attributes and case.split == one.split
        assert case.prompt == (one.lesion_prompt or one.prompt)
        assert (case.lesion is None) == (one.lesion_prompt is None) == (not case.boxes)
        assert data.image(case).shape == (128, 128)
    assert {path.name for path in made.iterdir()} == {
        "images", "masks", "lesions", "twins", "metadata.jsonl", "dataset.json", "recipes.jsonl", "synthesis.json",
        "README.md", "checksums.sha256",
    }  # fmt: skip


def test_a_lesion_lies_in_its_box_and_nowhere_else(made) -> None:
    data = manifest.load(made)
    ill = [case for case in data.cases if case.boxes]
    assert 3 <= len(ill) <= 9
    for case in ill:
        (x0, y0, x1, y1), mask = case.boxes[0], data.lesion(case)
        assert mask[y0:y1, x0:x1].all() and mask.sum() == (y1 - y0) * (x1 - x0)
        assert (gray(made / case.mask) > 0)[mask].all(), "the box lies in the breast"
        twin = gray(made / "twins" / f"{case.id}.png")
        assert np.array_equal(data.image(case)[~mask], twin[~mask]) and not np.array_equal(data.image(case), twin)


def test_each_image_says_that_it_is_synthetic_and_how_it_was_made(made, small) -> None:
    for row in rows(made):
        with Image.open(made / row["case"]["file_name"]) as picture:
            said = picture.text
        assert "synthetic" in said["Disclaimer"] and json.loads(said["Weights"]) == row["weights"]
        recipe = json.loads(said["mame"])
        assert recipe["seed"] == small.seed and recipe["index"] == row["index"]
    assert "not for diagnosis" in (made / "README.md").read_text()


@pytest.mark.slow
def test_an_image_is_that_of_one_call(made, small) -> None:
    """Alone and not in its block, so but for rounding."""
    studio = Studio(small, "cpu")
    row = next(row for row in rows(made) if row.get("lesion"))
    words = {"seed": small.seed, "start_index": row["index"], "steps": small.steps}
    lesion = studio.model.generate_with_lesion(
        row["prompt"], inpainter=studio.inpainter, lesion_prompt=row["lesion"]["prompt"], **words
    )[0]
    kept = gray(made / row["case"]["file_name"])
    assert list(lesion.box) == row["lesion"]["box"]
    assert np.abs(lesion.pixels.astype(int) - kept).max() <= 1


def test_checksums_can_be_checked(made) -> None:
    if shutil.which("sha256sum") is None:
        pytest.skip("there is no sha256sum here")
    done = subprocess.run(["sha256sum", "-c", "--quiet", "checksums.sha256"], cwd=made, capture_output=True)
    assert done.returncode == 0, done.stderr
    named = {line.split("  ")[1] for line in sums(made).splitlines()}
    there = {path.relative_to(made).as_posix() for path in made.rglob("*") if path.is_file()}
    assert there - named == {"checksums.sha256"}


def test_more_images_begin_with_the_same_ones(made, small, tmp_path) -> None:
    """A folder of five grows to twelve; the part of a block that it had is made again, and is the same."""
    out, seen = tmp_path / "data", []
    synthesize(small, 5, out)
    assert not (out / "blocks").exists() and len(rows(out)) == 5
    grown = synthesize(small, 12, out, progress=lambda there, total: seen.append((there, total)))
    assert sums(out) == sums(made) and grown is not None and grown.new == 12 and seen[-1] == (16, 16)
    again = synthesize(small, 12, out)
    assert sums(out) == sums(made) and again is not None and again.new == 0
    with pytest.raises(InputError, match="holds 12 images already; use --count 12 or more"):
        synthesize(small, 11, out)


@pytest.mark.slow
def test_a_killed_block_is_made_again(made, small, tmp_path, monkeypatch) -> None:
    """Killed between two pictures of the second block: its scraps go, nothing is made twice."""
    out = tmp_path / "data"

    def die(self, number, place, rows):
        keep(self, number, place, rows[: 8 if number == 0 else 2])
        if number == 1:
            (self.root / "blocks" / "000001.jsonl").unlink()
            (self.root / "blocks" / "000001.99.tmp" / "images").mkdir(parents=True)
            (self.root / "README.md.99.tmp").write_text("half")
            raise KeyboardInterrupt

    keep = Folder.keep
    monkeypatch.setattr(Folder, "keep", die)
    with pytest.raises(KeyboardInterrupt):
        synthesize(small, 12, out)
    monkeypatch.undo()
    assert not manifest.is_manifest(out) and len(list((out / "images").iterdir())) == 10
    assert not (out / ".lock-0").exists()
    made_again = []
    make = Studio.make
    monkeypatch.setattr(Studio, "make", lambda self, number: made_again.append(number) or make(self, number))
    synthesize(small, 12, out)
    assert made_again == [1] and sums(out) == sums(made)


@pytest.mark.slow
def test_a_picture_that_is_gone_or_changed(made, small, tmp_path) -> None:
    out = tmp_path / "data"
    shutil.copytree(made, out)
    picture = out / "images" / "000003.png"
    picture.write_bytes(picture.read_bytes() + b"x")
    with pytest.raises(InputError, match=r"000003.png was changed since it was made; remove it and run this again"):
        synthesize(small, 12, out)
    picture.unlink()
    again = synthesize(small, 12, out)
    assert sums(out) == sums(made) and again is not None and again.new == BLOCK


def test_other_folders_are_refused(made, small, tmp_path) -> None:
    before = sums(made)
    with pytest.raises(InputError, match=r"holds a population with another seed \(5\); give that again"):
        synthesize(replace(small, seed=6), 12, made)
    other = spec_from({**small.to_dict(), "view": {"CC": 1.0}})
    with pytest.raises(InputError, match="another view"):
        synthesize(other, 12, made)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("x")
    with pytest.raises(InputError, match="is not empty and holds no population"):
        synthesize(small, 12, tmp_path / "full")
    with pytest.raises(InputError, match="is not a folder"):
        synthesize(small, 12, tmp_path / "full" / "x")
    for count in (0, 1_000_001):
        with pytest.raises(InputError, match="count is"):
            synthesize(small, count, tmp_path / "new")
    assert not (tmp_path / "new").exists() and sums(made) == before


def test_other_weights_are_refused(made, small, monkeypatch) -> None:
    monkeypatch.setattr(run.Studio, "__init__", lambda self, spec, device: setattr(self, "weights", {"model": "no"}))
    with pytest.raises(InputError, match="other weights of the model"):
        synthesize(small, 12, made)


@pytest.mark.slow
def test_wrong_models_are_refused(small, tmp_path) -> None:
    for changes, words in (
        ({"model": "inpaint"}, "inpaint is the wrong kind of model here; name a text-to-image model"),
        ({"inpainter": "fused"}, "fused is the wrong kind of model here; name an inpainting model"),
        ({"model": "nothing"}, "there is no model 'nothing'"),
    ):
        with pytest.raises(InputError, match=words):
            synthesize(replace(small, **changes), 4, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_two_runs_at_once(made, small) -> None:
    fcntl = pytest.importorskip("fcntl")
    for rank in (0, 1):  # the first process of another run, or one that outlived the rest of its run
        path = made / f".lock-{rank}"
        with open(path, "w") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            with pytest.raises(InputError, match="another `mame synthesize` is at work"):
                synthesize(small, 12, made)
        path.unlink()


@pytest.mark.slow
def test_no_room_for_a_lesion(small, tmp_path, monkeypatch) -> None:
    from mame_lib.synthesize import studio

    def full(*arguments, **options):
        raise InputError("none fits.")

    monkeypatch.setattr(studio, "sample_box", full)
    done = synthesize(small, 4, tmp_path / "data")
    data = manifest.load(tmp_path / "data")
    assert done is not None and done.lesions == 0 and all(case.attributes.finding is None for case in data.cases)
    crowded = sum("lesion" in row for row in rows(tmp_path / "data"))
    assert crowded and f"In {crowded} breasts there was no room" in (tmp_path / "data" / "README.md").read_text()


@pytest.mark.slow
def test_screening_is_counted(tmp_path) -> None:
    spec = spec_from({"steps": 1, "most_tries": 2, "density": {"very high": 1.0}, "order": {"only density": 1.0}})
    done = synthesize(spec, 4, tmp_path / "data")
    again = rows(tmp_path / "data")
    assert done is not None and done.redrawn == sum(row["redrawn"] > 0 for row in again) > 0
    assert done.bad == sum(row["badness"] > 1 for row in again)
    assert f"{done.redrawn} of 4 images needed more than one draw" in (tmp_path / "data" / "README.md").read_text()
