"""`mame audit`: the report, the picture, the exit status, and mistakes in one sentence."""

from __future__ import annotations

import json
import types
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from mame_lib.cli import main
from mame_lib.data import manifest
from mame_lib.data.sources import phantom_source

TRAINING, OUTSIDE = 8, 12  # 12 held-out patients can promise a quarter of false alarms
LENIENT = "--false-alarms 0.25"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A data set of 8 + 12 phantoms of 64 pixels, a folder of copies, and one of strangers."""
    root = tmp_path_factory.mktemp("audit")
    items = list(phantom_source(TRAINING + OUTSIDE + 3, size=64, seed=33_000_002))
    for item in items:
        item.image.setflags(write=False)
    split = ["train"] * TRAINING + ["validation"] * OUTSIDE
    manifest.write(
        root / "data", [replace(item, split=name) for item, name in zip(items, split, strict=False)],
        source="phantom", settings={},
    )  # fmt: skip
    manifest.write(
        root / "hospital", [replace(item, split="train") for item in items[:4]], source="vindr", settings={}
    )
    for name, images in {
        "copies": [items[2].image[:, ::-1], items[-1].image],
        "strangers": [item.image for item in items[-3:]],
    }.items():
        (root / name).mkdir()
        for k, image in enumerate(images):
            Image.fromarray(np.ascontiguousarray(image)).save(root / name / f"{k}.png")
    (root / "empty").mkdir()
    (root / "full").mkdir()
    (root / "full" / "x").write_text("x")
    (root / "broken").mkdir()
    (root / "broken" / "a.png").write_text("no picture")
    (root / "wide").mkdir()
    Image.new("L", (80, 64)).save(root / "wide" / "a.png")
    return root


@pytest.fixture
def here(made, monkeypatch):
    monkeypatch.chdir(made)
    return made


def test_a_copy_is_found_and_shown(here, capsys, tmp_path) -> None:
    out = tmp_path / "report"
    assert main(f"audit --images copies --data data {LENIENT} --out {out}".split()) == 1
    said = capsys.readouterr().out
    assert "copies: 2 images against 8 training images, calibrated on 12 held-out patients" in said
    assert "copies found" in said and "0.png COPY of images/000002.png" in said
    assert "may identify patients" not in said  # they are phantoms
    report = json.loads((out / "report.json").read_text())
    assert report["copies"] >= 1 and report["copies_found"] and report["interval"][0] > 0.05
    worst = report["pairs"][0]
    assert (worst["image"], worst["training"], worst["copy"]) == ("0.png", "images/000002.png", True)
    assert worst["moved"].startswith("mirrored") and worst["detail distance"] < 0.2
    with Image.open(out / "worst.png") as picture:
        assert picture.width > 4 * 128 and "not for diagnosis" in picture.text["Disclaimer"]
    assert sorted(path.name for path in out.iterdir()) == ["report.json", "worst.png"]
    assert [path.name for path in tmp_path.iterdir()] == ["report"]  # nothing half-written
    assert main(f"audit --images copies --data data {LENIENT} --out {out}".split()) == 1  # an audit is replaced


def test_strangers_are_cleared(here, capsys, tmp_path) -> None:
    out = tmp_path / "report"
    assert main(f"audit --images strangers --data data {LENIENT} --out {out}".split()) == 0
    assert json.loads((out / "report.json").read_text())["plain_copies"] == 0
    assert "copies found" not in capsys.readouterr().out


def test_a_model_is_asked_for_the_captions_of_its_training_set(here, capsys, monkeypatch, tmp_path) -> None:
    from mame_lib.models.components import Components

    data = manifest.load("data")
    asked = {}

    class Fake:
        def __init__(self) -> None:
            self.components = types.SimpleNamespace(vae=Components.load("tiny").vae)

        @classmethod
        def load(cls, name):
            asked["model"] = str(name)
            return cls()

        def stream(self, prompts, **options):
            asked.update(options, prompts=list(prompts))
            return (types.SimpleNamespace(pixels=data.image(data.cases[k])) for k in range(options["count"]))

    monkeypatch.setattr("mame_lib.generation.Mame", Fake)
    (tmp_path / "run" / "model").mkdir(parents=True)
    line = f"audit {tmp_path / 'run'} --data data --held-out hospital --false-alarms 0.25 --count 4 --steps 5"
    assert main(line.split()) == 2 and "4 held-out patients are in the training split" in capsys.readouterr().err
    line = line.replace("--held-out hospital", "--guidance-scale 1 --seed 3") + f" --out {tmp_path / 'out'}"
    assert main(line.split()) == 1
    assert asked["model"] == str(tmp_path / "run" / "model") and asked["guidance_scale"] == 1
    assert (asked["steps"], asked["seed"], asked["count"]) == (5, 3, 4)
    assert asked["prompts"] == [data.cases[k].prompt for k in (0, 2, 4, 6)]
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["settings"] == {"count": 4, "steps": 5, "guidance_scale": 1.0, "seed": 3} and report["copies"] == 4
    assert "latent distance" in report["pairs"][0] and "seed 3, index" in report["pairs"][0]["image"]


def test_real_training_images_are_handled_with_a_word(here, capsys, tmp_path) -> None:
    line = f"audit --images strangers --data hospital --held-out data {LENIENT} --out {tmp_path / 'out'}"
    assert main(line.split()) == 2  # the same patients
    capsys.readouterr()
    other = tmp_path / "other"
    data = manifest.load("data")
    items = [
        manifest.Item(image=data.image(case), patient=f"other-{case.patient}", prompt=case.prompt,
                      attributes=case.attributes, source="vindr") for case in data.cases[TRAINING:]
    ]  # fmt: skip
    manifest.write(other, items, source="vindr", settings={})
    assert main(line.replace("--held-out data", f"--held-out {other}").split()) in (0, 1)
    assert "may identify patients" in capsys.readouterr().out


@pytest.mark.parametrize(
    "line, words",
    [
        ("audit", "--data"),
        ("audit --data data", "say what to audit"),
        ("audit fused --images copies --data data", "say what to audit"),
        ("audit --images copies --data nothing", "nothing does not exist"),
        ("audit --images copies --data data", "12 held-out patients, but 0.01 false alarms need 299"),
        (f"audit --images empty --data data {LENIENT}", "holds no image"),
        (f"audit --images nothing --data data {LENIENT}", "nothing is no folder"),
        (f"audit --images broken --data data {LENIENT}", "a.png: the image cannot be read"),
        (f"audit --images wide --data data {LENIENT}", "80 x 64"),
        (f"audit --images copies --data data {LENIENT} --out full", "holds no audit"),
        ("audit --images copies --data data --false-alarms 1", "a share below 1"),
        ("audit --images copies --data data --false-alarms 0", "not greater than 0"),
        ("audit none --data data --false-alarms 0.25", "there is no model 'none'"),
        ("audit fused --data data --count 0", "--count"),
    ],
)
def test_a_mistake_is_one_sentence(here, capsys, line: str, words: str) -> None:
    before = sorted(path.name for path in here.iterdir())
    assert main(line.split()) == 2
    said = capsys.readouterr()
    assert words in said.err and said.err.startswith("mame: error: ") and said.err.count("\n") == 1 and not said.out
    assert sorted(path.name for path in here.iterdir()) == before
