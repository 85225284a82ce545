"""`mame readers`: from a new study to its score, and mistakes that leave nothing behind."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mame_lib.cli import main
from mame_lib.evaluation.readers.ratings import Rating, read_key, to_csv, write_ratings
from mame_lib.evaluation.readers.study import Study, load_study


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for k, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (6, 64, 64)).astype(np.uint8)):
        Image.fromarray(pixels).save(folder / f"{k}.png")
    return folder


@pytest.fixture
def study(tmp_path: Path, pictures: Path, capsys: pytest.CaptureFixture[str]) -> Study:
    line = f"readers new {tmp_path / 's'} --images {pictures} --cases 4 --practice 1 --repeats 2 --seed 3"
    assert main(line.split()) == 0
    capsys.readouterr()
    return load_study(tmp_path / "s")


def rate(study: Study, reader: str, good: bool) -> list[Rating]:
    key = read_key(study.root / "key.csv")
    return [Rating(study.id, reader, case, (3 if key[case] == "real" else 1) if good else k % 5, 2.0, k + 1)
            for k, case in enumerate(study.order(reader))]  # fmt: skip


def test_from_new_to_score(study: Study, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["readers", "score", str(study.root)]) == 2
    assert "holds no ratings yet" in capsys.readouterr().err
    for reader, good in (("anna", True), ("bob", False)):
        write_ratings(study.root / "ratings" / f"{reader}.csv", rate(study, reader, good))
    assert main(["readers", "score", str(study.root), "--json", str(tmp_path / "x" / "score.json")]) == 0
    text = capsys.readouterr().out
    assert "anna" in text and "bob" in text and max(map(len, text.splitlines())) <= 88
    found = json.loads((tmp_path / "x" / "score.json").read_text())
    anna = found["readers"][0]
    assert anna["auc"]["value"] == 1 and anna["right"] == 8 and anna["again"]["n"] == 4
    assert main(["readers", "score", str(study.root), "--ratings", str(study.root / "ratings" / "anna.csv")]) == 0
    assert "bob" not in capsys.readouterr().out


def test_without_a_seed_every_study_is_another(pictures: Path, tmp_path: Path) -> None:
    ids = []
    for name in "ab":
        assert main(f"readers new {tmp_path / name} --images {pictures} --cases 2".split()) == 0
        ids.append(load_study(tmp_path / name).id)
    seed = json.loads((tmp_path / "b" / "recipe.json").read_text())["seed"]
    assert main(f"readers new {tmp_path / 'c'} --images {pictures} --cases 2 --seed {seed}".split()) == 0
    assert load_study(tmp_path / "c").id == ids[1] != ids[0]


@pytest.mark.slow
def test_what_the_model_makes_is_balanced_and_the_tells_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "s"
    line = f"readers new {out} --cases 3 --practice 0 --steps 1 --through-autoencoder"
    assert main(line.split()) == 0
    told = capsys.readouterr()
    assert "6 cases, 0 to practice" in told.out and "sharpness in the breast" in told.out and str(tmp_path) in told.out
    study = load_study(out)
    strata = json.loads((out / "recipe.json").read_text())["strata"]
    key = read_key(out / "key.csv")
    for prompt in set(strata.values()):
        kinds = [key[case] for case in strata if strata[case] == prompt]
        assert prompt.startswith("a ") and kinds.count("real") == kinds.count("synthetic")
    assert study.about.startswith("No patient is shown") and str(tmp_path) not in (out / "recipe.json").read_text()


def test_images_with_prompts_get_phantoms_of_the_same_prompts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(f"phantom --out {tmp_path / 'made'} --count 5 --size 64 --seed 9".split()) == 0
    assert main(f"readers new {tmp_path / 's'} --images {tmp_path / 'made'} --cases 3 --practice 1".split()) == 0
    assert "balanced in number alone" not in capsys.readouterr().err
    strata = json.loads((tmp_path / "s" / "recipe.json").read_text())["strata"]
    assert all(strata.values())
    # A data set as the real class has other prompts: said, and balanced in number alone.
    assert main(f"phantom --out {tmp_path / 'data'} --count 30 --size 64 --seed 8".split()) == 0
    line = f"readers new {tmp_path / 't'} --images {tmp_path / 'made'} --data {tmp_path / 'data'}"
    line += " --cases 4 --practice 0"
    assert main(line.split()) == 0
    assert load_study(tmp_path / "t").about == ""
    assert list(read_key(tmp_path / "t" / "key.csv").values()).count("real") == 4


@pytest.mark.parametrize(
    "line, words",
    [
        ("readers", "STEP"),
        ("readers fly", "'fly'"),
        ("readers new", "DIR"),
        ("readers new {p}", "exists already"),
        ("readers new a --cases 0", "--cases: 0 is out of range"),
        ("readers new a --cases 2 --repeats 3", "--repeats 3 is more than the 2 cases"),
        ("readers new a --images {p}/none", "there is no PNG file"),
        ("readers new a --images {p} --cases 6", "8 images of each class are needed"),
        ("readers new a --images {p} --data none", "does not exist"),
        ("readers new a --model none --cases 1", "none"),
        ("readers new {p}/0.png/a", "is not a folder"),
        ("readers serve none", "is no reader study"),
        ("readers serve {p} --port 70000", "--port: 70000 is out of range"),
        ("readers score none", "is no reader study"),
    ],
)
def test_mistakes(
    line: str, words: str, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main(line.format(p=pictures).split()) == 2
    told = capsys.readouterr()
    assert words in told.err and told.err.count("\n") == 1 + told.err.count("mame: note:") and not told.out
    assert [path.name for path in tmp_path.iterdir()] == ["pictures"]


def test_ratings_of_another_study_are_not_scored(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    other = [Rating("study-other", "anna", study.cases[0], 1, 1.0, 1)]
    write_ratings(study.root / "ratings" / "anna.csv", other)
    assert main(["readers", "score", str(study.root)]) == 2
    assert "anna rated study-other, not study-" in capsys.readouterr().err


@pytest.mark.slow
def test_serve_until_interrupted(study: Study) -> None:
    command = [sys.executable, "-m", "mame_lib", "readers", "serve", str(study.root), "--port", "0"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as run:
        assert run.stdout
        first = run.stdout.readline()
        port = int(first.split("//127.0.0.1:")[1].split("/")[0])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        connection.request("POST", "/ratings/anna", to_csv(rate(study, "anna", True)), {"X-Mame-Token": "c" * 32})
        assert connection.getresponse().status == 200
        run.send_signal(signal.SIGINT)
        rest, errors = run.communicate(timeout=60)
    assert "1 readers have rated" in rest and not errors and run.returncode == 0
    assert (study.root / "ratings" / "anna.csv").exists()
