"""Listing of training runs: what is true of each, whatever its folder has been through, and the two pictures."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mame_lib.cli import main
from mame_lib.data import manifest
from mame_lib.data.sources import phantom_source
from mame_lib.errors import InputError
from mame_lib.evaluation.runs import BROKEN, FINISHED, RESUMABLE, Run, curves, evolution, runs, table
from mame_lib.training.config import TrainConfig
from mame_lib.training.loop import fit


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real run of four steps, validated at 0, 2 and 4, whose model is cut down to its index to make copies cheap."""
    root = tmp_path_factory.mktemp("runs")
    phantoms = phantom_source(20, size=128, seed=3, vendor="hologic")
    manifest.write(root / "data", phantoms, source="phantom", settings={})
    config = TrainConfig(
        data=root / "data", out=root / "kept", steps=4, batch_size=2, validation_every=2, validation_steps=2,
        validation_prompts=("a mammogram", "a mammogram in MLO view with small area"), log_every=1, held_out_images=2,
        warmup=1,
    )  # fmt: skip
    assert [result.step for result in fit(config)] == [0, 1, 2, 3, 4]
    for heavy in ("unet", "text_encoder", "vae"):
        shutil.rmtree(root / "kept" / "model" / heavy)
    shutil.rmtree(root / "data")
    return root / "kept"


@pytest.fixture
def zoo(kept: Path, tmp_path: Path) -> Path:
    """Copies of the run, each harmed in another way."""

    def copy(name: str) -> Path:
        shutil.copytree(kept, tmp_path / "zoo" / name, ignore=shutil.ignore_patterns("*.safetensors"))
        for file in kept.glob("checkpoints/*/*.safetensors"):
            os.link(file, tmp_path / "zoo" / name / file.relative_to(kept))
        return tmp_path / "zoo" / name

    copy("whole")
    shutil.rmtree(copy("stopped") / "model")
    bare = copy("deeper/bare")
    shutil.rmtree(bare / "model")
    for file in bare.glob("checkpoints/*/ema.safetensors"):
        file.unlink()
    (copy("no-config") / "config.json").unlink()
    (copy("cut-config") / "config.json").write_text('{"config": {"preset"')
    (copy("list-config") / "config.json").write_text("[1, 2]")
    (copy("binary-log") / "log.jsonl").write_bytes(b"\x00\xff\xfe\n" * 50)
    (copy("foreign-log") / "log.jsonl").write_text('[1]\n"word"\n{"step": "three"}\n{"step": 2, "loss": null}\n')
    (copy("cut-sample") / "samples" / "step-000002.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    (copy("no-log") / "log.jsonl").unlink()
    return tmp_path / "zoo"


def test_every_run_is_listed_with_its_state(zoo: Path) -> None:
    found = {run.name: run for run in runs(zoo)}
    states = {name: run.state for name, run in found.items()}
    assert states == {
        "whole": FINISHED, "stopped": RESUMABLE, "deeper/bare": BROKEN, "no-config": BROKEN, "cut-config": BROKEN,
        "list-config": BROKEN, "binary-log": FINISHED, "foreign-log": FINISHED, "cut-sample": FINISHED,
        "no-log": FINISHED,
    }  # fmt: skip
    assert "checkpoint" in found["deeper/bare"].reason
    assert "config.json" in found["cut-config"].reason
    assert all(bool(run.reason) == (run.state == BROKEN) for run in found.values())
    assert str(zoo) not in table(list(found.values()))


def test_the_table_says_what_the_log_says(kept: Path) -> None:
    [run] = runs(kept)
    log = [json.loads(line) for line in (kept / "log.jsonl").read_text().splitlines()]
    head, line = table([run]).splitlines()
    assert head.split()[:4] == ["run", "preset", "method", "images"]
    cells = line.split()
    assert cells[:2] == ["kept", "tiny"] and "4/4" in cells and cells[-1] == "finished"
    assert f"{log[-1]['loss']:.4f}" in cells and f"{run.series('held_out_loss')[1][-1]:.4f}" in cells
    assert f"{max(one['peak_memory'] for one in log) / 2**30:.2f}" in cells
    assert run.series("loss")[0] == [1, 2, 3, 4] and run.series("held_out_loss")[0] == [2, 4]


def test_columns_of_the_table_stand_below_each_other(zoo: Path) -> None:
    lines = table(runs(zoo)).splitlines()
    start = lines[0].index("state")
    assert all(line[start:].split(":")[0] in (FINISHED, RESUMABLE, BROKEN) for line in lines[1:])


def test_evolution_shows_the_samples_gray_level_for_gray_level(kept: Path, tmp_path: Path) -> None:
    [run] = runs(kept)
    sheet = np.asarray(Image.open(evolution(run, tmp_path / "evolution.png")))
    assert sheet.dtype == np.uint8 and sheet.ndim == 2
    bottom = len(sheet)
    for step in (4, 2, 0):
        sample = np.asarray(Image.open(kept / "samples" / f"step-{step:06d}.png"))
        assert np.array_equal(sheet[bottom - 4 - len(sample) : bottom - 4, -sample.shape[1] :], sample)
        bottom -= len(sample) + 4
    assert "not for diagnosis" in Image.open(tmp_path / "evolution.png").text["Disclaimer"]


def test_evolution_keeps_first_and_last_of_many_and_shrinks_large_images(tmp_path: Path) -> None:
    samples = tmp_path / "run" / "samples"
    samples.mkdir(parents=True)
    for step in range(21):
        Image.new("L", (1024, 512), 10 * step).save(samples / f"step-{step:06d}.png")
    (samples / "step-none.png").write_bytes(b"")
    sheet = np.asarray(Image.open(evolution(Run(tmp_path / "run", "run", BROKEN), tmp_path / "e.png")))
    levels = [int(v) for v in sheet[:, -1] if v != 36]
    assert sheet.shape[1] < 700 and set(levels) >= {0, 200} and len(set(levels)) == 8


def test_curves_are_drawn_without_a_path(zoo: Path) -> None:
    run = next(run for run in runs(zoo) if run.name == "whole")
    picture = Image.open(curves(run, zoo / "whole" / "curves.png"))
    assert picture.size == (1000, 640) and len(np.unique(np.asarray(picture.convert("L")))) > 20
    assert str(zoo.parent).encode() not in (zoo / "whole" / "curves.png").read_bytes()
    before = sorted(path.name for path in (zoo / "whole").iterdir())
    assert not [name for name in before if "partial" in name]


@pytest.mark.parametrize("name", ["binary-log", "foreign-log", "no-log"])
def test_no_curve_without_a_loss(zoo: Path, name: str) -> None:
    run = next(run for run in runs(zoo) if run.name == name)
    with pytest.raises(InputError, match="no loss in its log"):
        curves(run, zoo / "curves.png")
    assert not (zoo / "curves.png").exists()


def test_curves_without_matplotlib_are_one_sentence(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(InputError, match=r"matplotlib; install it"):
        curves(runs(kept)[0], kept.parent / "curves.png")


def test_a_picture_that_cannot_be_written_leaves_nothing(kept: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        evolution(runs(kept)[0], tmp_path / "file" / "evolution.png")


@pytest.mark.slow
def test_command_draws_what_it_can_and_notes_the_rest(zoo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", str(zoo), "--out", str(zoo.parent / "pictures")]) == 0
    said = capsys.readouterr()
    assert len(said.out.splitlines()) == 11
    drawn = {str(path.relative_to(zoo.parent / "pictures")) for path in (zoo.parent / "pictures").rglob("*.png")}
    assert {"whole/curves.png", "deeper/bare/evolution.png", "cut-sample/evolution.png"} <= drawn
    assert "no-log/curves.png" not in drawn and not list((zoo / "whole").glob("*.png"))
    assert said.err.count("mame: note:") == len(said.err.splitlines()) == 3  # the logs without a loss
    assert main(["runs", str(zoo / "whole")]) == 0
    assert {path.name for path in (zoo / "whole").glob("*.png")} == {"curves.png", "evolution.png"}


def test_listing_changes_nothing(zoo: Path) -> None:
    old = next((zoo / "stopped" / "checkpoints").iterdir())
    old.rename(old.with_name(old.name + ".old"))  # what a crash between two renames leaves; only a resume may mend it
    before = sorted(str(path) for path in zoo.rglob("*"))
    assert {run.name: run.state for run in runs(zoo)}["stopped"] == RESUMABLE
    assert sorted(str(path) for path in zoo.rglob("*")) == before


def test_strange_names_do_not_move_the_cursor(kept: Path, tmp_path: Path) -> None:
    shutil.copytree(kept, tmp_path / "a\x1b[2J\nb", ignore=shutil.ignore_patterns("*.safetensors"))
    assert len(table(runs(tmp_path)).splitlines()) == 2 and "\x1b" not in table(runs(tmp_path))


def test_a_folder_without_runs_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "model" / "unet").mkdir(parents=True)
    (tmp_path / "model" / "unet" / "config.json").write_text('{"_class_name": "UNet2DConditionModel"}')
    with pytest.raises(InputError, match="no training run"):
        runs(tmp_path)
    with pytest.raises(InputError, match="not a folder"):
        runs(tmp_path / "nowhere")
