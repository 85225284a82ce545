"""The manifest folder: whole or absent, and clear words when it is damaged."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from mame_lib.data.case import Attributes
from mame_lib.data.manifest import Item, load, split_of, write
from mame_lib.errors import InputError


def item(number, patient=None, **changes):
    image = np.full((64, 64), number % 256, np.uint8)
    attributes = Attributes(view="CC", area="small")
    made = Item(
        image, patient or f"patient-{number}", "a mammogram in CC view with small area", attributes, "test"
    )
    return replace(made, **changes)


def write_some(folder, count=3, **options):
    return write(folder, (item(k) for k in range(count)), source="test", settings={"count": count}, **options)


def test_write_and_load(tmp_path):
    box = ((1, 2, 3, 4),)
    mask = np.eye(64, dtype=bool)
    items = [
        item(0),
        item(1, mask=mask, lesion=~mask, boxes=box, kept=(0.75,), truth={"area_ratio": 0.5}, split="test"),
    ]
    written = write(tmp_path / "a" / "set", items, source="test", settings={"x": 1})
    read = load(tmp_path / "a" / "set")
    assert read == written
    assert read.cases[1].boxes == box and read.cases[1].truth == {"area_ratio": 0.5}
    assert read.cases[0].mask is None and read.cases[1].mask == "masks/000001.png"
    assert read.cases[1].kept == (0.75,) and read.cases[1].lesion == "lesions/000001.png"
    assert np.array_equal(read.lesion(read.cases[1]), ~mask) and not read.lesion(read.cases[0]).any()
    assert read.split("test") == [read.cases[1]] and read.info["counts"]["split"]["test"] == 1
    assert read.info["quarantined"] == read.info["dropped_boxes"] == []
    assert read.info["counts"]["view"] == {"CC": 2} and read.info["counts"]["vendor"] == {"not said": 2}
    assert read.info["settings"] == {"x": 1} and read.info["cases"] == 2 and read.info["library_version"]
    assert np.array_equal(read.image(read.cases[1]), np.full((64, 64), 1, np.uint8))
    with Image.open(read.root / "masks/000001.png") as picture:
        assert picture.mode == "L" and np.array_equal(np.asarray(picture) == 255, mask)
    line = json.loads((read.root / "metadata.jsonl").read_text().splitlines()[0])
    assert next(iter(line)) == "file_name" and line["prompt"].startswith("a mammogram")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["set"]


def test_same_items_give_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        write_some(tmp_path / name)
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert len(files) == 5
    assert all((tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes() for file in files)


def test_splits_go_by_patient(tmp_path):
    items = [item(k, patient=f"p{k // 4}") for k in range(400)]
    cases = write(tmp_path / "set", items, source="test", settings={}).cases
    splits = {
        case.patient: {other.split for other in cases if other.patient == case.patient} for case in cases
    }
    assert all(len(found) == 1 for found in splits.values())
    validation = sum(split_of(f"patient {k}") == "validation" for k in range(5000))
    assert 400 < validation < 600
    assert load(tmp_path / "set").split("validation") == [
        case for case in cases if case.split == "validation"
    ]
    with pytest.raises(InputError, match="train, validation, test"):
        load(tmp_path / "set").split("all")


def test_there_is_always_a_training_case(tmp_path):
    patient = next(f"p{k}" for k in range(1000) if split_of(f"p{k}") == "validation")
    written = write(tmp_path / "set", [item(0, patient)], source="test", settings={})
    assert load(tmp_path / "set").cases[0].split == written.cases[0].split == "train"


@pytest.mark.parametrize("error", [RuntimeError("bad"), KeyboardInterrupt(), InputError("bad")])
def test_an_interrupted_run_leaves_nothing(tmp_path, error):
    def items():
        yield item(0)
        raise error

    with pytest.raises(type(error)):
        write(tmp_path / "new" / "set", items(), source="test", settings={})
    assert not list(tmp_path.iterdir())


def test_an_empty_data_set_is_refused(tmp_path):
    with pytest.raises(InputError, match="no image"):
        write(tmp_path / "set", [], source="test", settings={})
    assert not list(tmp_path.iterdir())


def test_existing_folders(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    write_some(folder)  # an empty folder may be used
    with pytest.raises(InputError, match="not empty"):
        write_some(folder)
    assert len(write_some(folder, 2, overwrite=True).cases) == len(load(folder).cases) == 2
    with pytest.raises(RuntimeError):
        write(folder, _failing(), source="test", settings={}, overwrite=True)
    assert len(load(folder).cases) == 2  # a failed run does not harm the old one
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def _failing():
    yield item(0)
    raise RuntimeError


def test_overwrite_spares_what_is_no_manifest(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "me.png").write_bytes(b"precious")
    (tmp_path / "file").write_text("precious")
    for name in ("photos", "file"):
        with pytest.raises(InputError):
            write_some(tmp_path / name, overwrite=True)
    assert (tmp_path / "photos" / "me.png").read_bytes() == b"precious"


def test_a_hand_made_image_folder_can_be_loaded(tmp_path):
    Image.new("L", (64, 64)).save(tmp_path / "x.png")
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "x.png", "prompt": "a mammogram"}\n\n')
    case = load(tmp_path).cases[0]
    assert (case.id, case.patient, case.split, case.attributes) == ("x", "x", "train", Attributes())


@pytest.mark.parametrize(
    "damage, words",
    [
        (lambda root: (root / "metadata.jsonl").unlink(), "no metadata.jsonl"),
        (lambda root: (root / "metadata.jsonl").write_text(""), "empty"),
        (lambda root: (root / "metadata.jsonl").write_bytes(b"\xff\xfe\x00"), "UTF-8"),
        (lambda root: edit(root, 1, lambda line: line[:20]), "line 2 is damaged"),
        (lambda root: edit(root, 1, lambda line: "[1]"), "line 2 is damaged"),
        (lambda root: edit(root, 2, lambda line: line.replace("prompt", "text")), "line 3: the key 'prompt'"),
        (
            lambda root: edit(root, 0, lambda line: line.replace("small", "tiny", 2)),
            "line 1 is damaged: area 'tiny'",
        ),
        (
            lambda root: edit(root, 0, lambda line: line.replace('"boxes": []', '"boxes": [[1]]')),
            "line 1 is damaged",
        ),
        (lambda root: edit(root, 0, lambda line: line.replace("images/", "../")), "outside"),
        (lambda root: edit(root, 0, lambda line: line.replace('"train"', '"exam"')), "split 'exam'"),
        (
            lambda root: (root / "images" / "000001.png").unlink(),
            r"000001.png is missing, but metadata.jsonl, line 2",
        ),
        (lambda root: (root / "dataset.json").write_text("{"), "dataset.json is damaged"),
        (lambda root: (root / "dataset.json").write_text("3"), "dataset.json is damaged"),
    ],
)
def test_damage_is_named(tmp_path, damage, words):
    patients = [f"p{k}" for k in range(100) if split_of(f"p{k}") == "train"]
    write(tmp_path / "set", [item(k, patients[k]) for k in range(3)], source="test", settings={})
    damage(tmp_path / "set")
    with pytest.raises(InputError, match=words):
        load(tmp_path / "set")


def edit(root, number, change):
    path = root / "metadata.jsonl"
    lines = path.read_text().splitlines()
    lines[number] = change(lines[number])
    path.write_text("\n".join(lines) + "\n")


def test_missing_folder(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        load(tmp_path / "nothing")
