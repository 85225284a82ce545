"""Sweeps: tidy rows that say what was asked and seen, survive any kill, and can be made again."""

from __future__ import annotations

import copy
import csv
import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mame_lib.arguments import build_parser
from mame_lib.cli import main
from mame_lib.data.case import Attributes
from mame_lib.data.phantom import draw, population
from mame_lib.data.prompts import compose, parse
from mame_lib.errors import InputError
from mame_lib.evaluation.attributes import measure
from mame_lib.evaluation.sweep import pixels, read, sweep, verify
from mame_lib.evaluation.sweep_grid import grammar, make_grid
from mame_lib.evaluation.sweep_models import weights_hash
from mame_lib.evaluation.sweep_rows import ASKABLE, COLUMNS, NO, UNKNOWN, YES, obeyed, row_of
from mame_lib.evaluation.sweep_sheet import MOST_ROWS, contact_sheet
from mame_lib.generation import Generated, Mame

BOTH = "a siemens mammogram in MLO view with high density and small area"
CC = "a hologic mammogram in CC view with big area"
GRID: dict[str, Any] = {"prompts": (BOTH, CC), "guidance_scale": (1, 4), "steps": (2, 3), "seeds": (5,), "count": 3}
SMALL: dict[str, Any] = {"prompts": BOTH, "steps": 1, "seeds": (5, 6), "count": 3, "batch_size": 2}  # 6 images


@pytest.fixture(scope="module")
def fused() -> Mame:
    return Mame.load("fused")


@pytest.fixture(scope="module")
def stored(fused: Mame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sweep") / "stored"
    sweep(fused, **GRID, out=root)
    return root


@pytest.fixture(scope="module")
def unbroken(fused: Mame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sweep") / "unbroken"
    sweep(fused, **SMALL, out=root)
    return root


@pytest.fixture
def copied(stored: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(stored, tmp_path / "copy"))


def contents(root: Path) -> dict[str, bytes]:
    """Every file but sweep.json, which tells the time it took."""
    files = (path for path in root.rglob("*") if path.is_file() and path.name != "sweep.json")
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


def test_every_combination_is_one_row_of_the_table(stored: Path, fused: Mame) -> None:
    rows = read(stored)
    found = [(row.prompt, row.guidance_scale, row.steps, row.seed, row.index) for row in rows]
    assert found == [(p, g, s, 5, k) for p in (BOTH, CC) for g in (1.0, 4.0) for s in (2, 3) for k in range(3)]
    with open(stored / "sweep.csv", encoding="utf-8", newline="") as stream:
        lines = list(csv.DictReader(stream))
    assert len(lines) == 24 and tuple(lines[0]) == COLUMNS
    assert lines[0]["asked_density"] == "high" and lines[-1]["asked_density"] == "" == lines[-1]["obeyed_density"]
    assert {line["model"] for line in lines} == {"fused"}
    assert {line["weights"] for line in lines} == {weights_hash(fused.components)}
    wanted = {"sweep.csv", "sweep.json", "sheet.png", *(row.file for row in rows)}
    assert {path.relative_to(stored).as_posix() for path in stored.rglob("*") if path.is_file()} == wanted


def test_the_folder_says_where_it_comes_from(stored: Path) -> None:
    header = json.loads((stored / "sweep.json").read_text())
    made = header["provenance"]
    assert header["complete"] and header["rows"] == 24 and made["seconds"] > 0
    assert made["versions"]["torch"] and made["date"] and made["notice"] == "synthetic, not for diagnosis"
    with Image.open(stored / "sheet.png") as sheet:
        assert sheet.text["Disclaimer"] == "synthetic, not for diagnosis"
        assert sheet.width > 4 * 128 and sheet.height > 2 * 128
    with Image.open(stored / read(stored)[4].file) as image:
        recipe = json.loads(image.text["mame"])
    assert (recipe["prompt"], recipe["guidance_scale"], recipe["steps"], recipe["seed"]) == (BOTH, 1.0, 3, 5)
    assert recipe["index"] == 1 and recipe["model"] == "fused"


def test_a_row_holds_what_generate_makes_and_measure_sees(stored: Path, fused: Mame) -> None:
    for row in random.Random(3).sample(read(stored), 4):
        recipe = {"guidance_scale": row.guidance_scale, "steps": row.steps, "seed": row.seed}
        (made,) = fused.generate(row.prompt, start_index=row.index, count=1, sampler=row.sampler, **recipe)
        image = pixels(stored, row)
        assert np.abs(image.astype(int) - made.pixels.astype(int)).max() <= 1
        said = measure(image)
        assert (row.view, row.vendor, row.area, row.density) == (said.view, said.vendor, said.area, said.density)
        for name in ("view_score", "area_ratio", "area_ratio_sd", "density_index", "density_index_sd"):
            assert getattr(row, name) == pytest.approx(getattr(said, name), abs=1e-6)


def test_pixels_depend_on_neither_order_nor_batch_nor_folder(stored: Path, fused: Mame) -> None:
    there = {row.key: pixels(stored, row) for row in read(stored)}
    other = {**GRID, "prompts": (CC, BOTH), "guidance_scale": (4, 1), "steps": 3}
    rows = sweep(fused, **other, batch_size=2)
    assert len(rows) == 12 and rows[0].prompt == CC and not rows[0].file
    for row in rows:
        assert row.image is not None
        assert np.abs(row.image.astype(int) - there[row.key].astype(int)).max() <= 1


def test_several_models_by_name() -> None:
    rows = sweep(["hologic", "siemens"], CC, steps=1, seeds=3)
    assert [row.model for row in rows] == ["hologic", "siemens"] and rows[0].weights != rows[1].weights
    assert not np.array_equal(rows[0].image, rows[1].image)


def of_pixels(image: np.ndarray, prompt: str) -> Any:
    made = Generated(
        pixels=image, prompt=prompt, negative_prompt="", guidance_scale=4.0, guidance_rescale=0.0,
        guidance_interval=None, steps=24, sampler="dpm_solver_pp", seed=0, index=0, model="m",
    )  # fmt: skip
    return row_of(made, measure(image), weights="w")


def test_obedience_on_phantoms_whose_truth_is_known() -> None:
    counts = dict.fromkeys((YES, NO, UNKNOWN), 0)
    opposite = {"CC": "MLO", "MLO": "CC", "small": "big", "big": "small"}
    for phantom in population(24, seed=77):
        truth = phantom.attributes
        row = of_pixels(phantom.image, compose(truth))
        for name in ASKABLE:
            counts[getattr(row, f"obeyed_{name}")] += 1
        assert truth.view and truth.area
        wrong = Attributes(view=opposite[truth.view], area=opposite.get(truth.area))
        row = of_pixels(phantom.image, compose(wrong))
        assert row.obeyed_view == NO and row.obeyed_area == (NO if wrong.area else "")
        assert row.obeyed_vendor == row.obeyed_density == "" and row.chance_vendor is None
        assert row.chance_view is not None and row.chance_view < 0.25
    assert counts[YES] > 80 and counts[NO] <= 5  # of 96


def test_what_cannot_be_known_is_said_to_be_unknown() -> None:
    black = of_pixels(np.zeros((128, 128), np.uint8), "a siemens mammogram in CC view with small area and low density")
    assert {getattr(black, f"obeyed_{name}") for name in ASKABLE} == {UNKNOWN}
    breast = draw(seed=1).image
    strange = of_pixels(breast, "a purple mammogram")
    assert {getattr(strange, f"obeyed_{name}") for name in ASKABLE} == {UNKNOWN}
    assert strange.asked_view == "" and strange.chance_view is None and strange.view_score >= 0
    silent = of_pixels(breast, "a mammogram")
    assert {getattr(silent, f"obeyed_{name}") for name in ASKABLE} == {""}
    assert obeyed([black, strange, silent], "view") == (0, 0, 2)


class Killed(Exception):
    """What stops a sweep in these tests."""


def stopping(after: int) -> Any:
    """A progress that stops the work when so many rows are done."""

    def progress(rows: Iterator[Any], total: int) -> Iterator[Any]:
        for number, row in enumerate(rows):
            if number == after:
                raise Killed
            yield row

    return progress


@pytest.mark.parametrize("after", [0, 1, 4])
def test_a_stopped_sweep_goes_on_to_the_same_bytes(fused: Mame, unbroken: Path, tmp_path: Path, after: int) -> None:
    root = tmp_path / "a"
    with pytest.raises(Killed):
        sweep(fused, **SMALL, out=root, progress=stopping(after))
    with pytest.raises(InputError, match="not complete"):
        read(root)
    with pytest.raises(Killed):  # and once more
        sweep(fused, **SMALL, out=root, progress=stopping(1))
    totals: list[int] = []
    rows = sweep(fused, **SMALL, out=root, progress=lambda rows, total: totals.append(total) or rows)
    assert totals == [6 - after - 1]
    assert contents(root) == contents(unbroken) and rows == read(root) == read(unbroken)


@pytest.mark.parametrize("harm", ["torn line", "torn to nothing", "image lost", "scraps", "no header"])
def test_a_sweep_that_was_killed_amid_a_write_goes_on(fused: Mame, unbroken: Path, tmp_path: Path, harm: str) -> None:
    root = tmp_path / "a"
    with pytest.raises(Killed):
        sweep(fused, **SMALL, out=root, progress=stopping(4))
    journal = root / "journal.jsonl"
    text = journal.read_bytes()
    if harm == "torn line":
        journal.write_bytes(text[: len(text) - 40])
    elif harm == "torn to nothing":
        journal.write_bytes(text[:7])
    elif harm == "image lost":
        next((root / "images" / "0000").glob("*.png")).unlink()
    elif harm == "scraps":
        (root / "images" / "0000" / ".seed-5-2.png.partial").write_bytes(b"half")
        (root / "sweep.csv.tmp").write_text("half")
        (root / ".lock").touch()
    else:  # killed between making the folder and saying what it is
        shutil.rmtree(root)
        root.mkdir()
        (root / ".lock").touch()
        (root / "sweep.json.tmp").write_text('{"comp')
    with pytest.raises(Killed):  # a second kill: what the first left must not spoil the rows after it
        sweep(fused, **SMALL, out=root, progress=stopping(1))
    sweep(fused, **SMALL, out=root)
    assert contents(root) == contents(unbroken)


@pytest.mark.parametrize("name", ["sweep.json", "sweep.csv", "sheet.png", "journal.jsonl"])
def test_a_kill_while_finishing_loses_nothing(fused: Mame, unbroken: Path, tmp_path: Path, monkeypatch, name) -> None:
    """Stopped just before a file of the end takes its name, or before the journal goes."""
    root = tmp_path / "a"
    with pytest.raises(Killed):
        sweep(fused, **SMALL, out=root, progress=stopping(5))
    real = os.replace, Path.unlink

    def kill(path: Any) -> None:
        if Path(path).name == name:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lambda a, b: (kill(b), real[0](a, b)))
        patch.setattr(Path, "unlink", lambda path, missing_ok=False: (kill(path), real[1](path, missing_ok)))
        with pytest.raises(Killed):
            sweep(fused, **SMALL, out=root)
    sweep(fused, **SMALL, out=root)
    assert contents(root) == contents(unbroken)


def test_a_complete_sweep_is_left_alone_and_mended(fused: Mame, copied: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in copied.rglob("*") if path.is_file()}
    rows = sweep(fused, **GRID, out=copied, progress=stopping(0))  # there is nothing to do
    assert rows == read(copied)
    assert {path: path.stat().st_mtime_ns for path in copied.rglob("*") if path.is_file()} == before
    kept = contents(copied)
    (copied / rows[7].file).unlink()
    totals: list[int] = []
    sweep(fused, **GRID, out=copied, progress=lambda rows, total: totals.append(total) or rows)
    assert totals == [1] and contents(copied) == kept


@pytest.mark.parametrize(
    "change, words",
    [
        ({"guidance_scale": (1, 5)}, r"another guidance_scale \(1.0, 4.0\)"),
        ({"seeds": (5, 6)}, "another seeds"),
        ({"prompts": (CC, BOTH)}, "another prompts"),
        ({"count": 4}, r"another count \(3\)"),
        ({"keep_images": False}, "another images_kept"),
        ({"sampler": "ddim"}, "another sampler"),
        ({"negative_prompt": "low quality"}, "another negative_prompt"),
    ],
)
def test_another_sweep_is_refused(fused: Mame, stored: Path, change, words) -> None:
    before = contents(stored)
    with pytest.raises(InputError, match=words):
        sweep(fused, **{**GRID, **change}, out=stored)
    assert contents(stored) == before


def changed(model: Mame) -> Mame:
    """A model of the same name with one other number in it."""
    parts = copy.copy(model.components)
    parts.unet = copy.deepcopy(parts.unet)
    weight = next(iter(parts.unet.parameters()))
    weight.view(-1)[0] += 0.5
    return Mame(parts, model.name)


def test_other_weights_are_refused(fused: Mame, stored: Path, copied: Path) -> None:
    other = changed(fused)
    with pytest.raises(InputError, match="other weights of fused"):
        sweep(other, **GRID, out=copied)
    with pytest.raises(InputError, match="no model with the weights"):
        verify(copied, 2, models=[other])
    assert contents(copied) == contents(stored)


def test_hash_sees_everything_that_decides_pixels(fused: Mame) -> None:
    first = weights_hash(fused.components)
    assert first == weights_hash(copy.deepcopy(fused.components)) and len(first) == 16
    parts = copy.copy(fused.components)
    parts.start_mean = None
    assert weights_hash(parts) != first
    parts = copy.copy(fused.components)
    parts.scheduler_config = {**parts.scheduler_config, "prediction_type": "sample"}
    assert weights_hash(parts) != first


def test_folders_of_others_are_refused_untouched(fused: Mame, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("x")
    (tmp_path / "file").write_text("x")
    before = contents(tmp_path)
    for place, words in (("full", "holds no sweep"), ("file", "not a folder"), ("file/a", "cannot make the folder")):
        with pytest.raises(InputError, match=words):
            sweep(fused, CC, steps=1, out=tmp_path / place)
    assert contents(tmp_path) == before
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "sweep.json").write_text("{")
    with pytest.raises(InputError, match="damaged"):
        sweep(fused, CC, steps=1, out=tmp_path / "bad")


def test_one_process_at_a_time(fused: Mame, tmp_path: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    with pytest.raises(Killed):
        sweep(fused, CC, steps=1, out=tmp_path / "a", progress=stopping(0))
    with open(tmp_path / "a" / ".lock", "w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another `mame sweep` is at work"):
            sweep(fused, CC, steps=1, out=tmp_path / "a")


def test_the_table_alone_for_large_grids(fused: Mame, unbroken: Path, tmp_path: Path) -> None:
    root = tmp_path / "t"
    rows = sweep(fused, **SMALL, out=root, keep_images=False)
    assert sorted(path.name for path in root.iterdir()) == ["sweep.csv", "sweep.json"]
    assert rows == [replace(row, file="") for row in read(unbroken)]
    assert all(check.same and check.largest is None for check in verify(root, 3, models=[fused]))
    with pytest.raises(InputError, match="kept no images"):
        pixels(root, rows[0])
    text = (root / "sweep.csv").read_text()
    (root / "sweep.csv").write_text(text.replace(f",{rows[2].density_index},", f",{rows[2].density_index + 0.01},"))
    assert [check.same for check in verify(root, 99, models=[fused])] == [True, True, False, True, True, True]


def test_a_random_part_of_a_stored_sweep_is_made_again(stored: Path, copied: Path, fused: Mame) -> None:
    checks = verify(stored, 5, seed=2, models=[fused])
    assert len(checks) == 5 and all(check.same and check.largest is not None for check in checks)
    assert [check.row for check in checks] == [row for row in read(stored) if row in [c.row for c in checks]]
    others = [check.row for check in verify(stored, 5, seed=3, models=[fused])]
    assert others != [check.row for check in checks]
    victim = checks[2].row
    image = pixels(copied, victim).copy()
    image[60, 3] ^= 64
    Image.fromarray(image).save(copied / victim.file)
    again = verify(copied, 5, seed=2, models=[fused])
    assert [check.same for check in again] == [True, True, False, True, True] and again[2].largest == 64
    (copied / victim.file).unlink()
    with pytest.raises(InputError, match="cannot read"):
        verify(copied, 5, seed=2, models=[fused])
    with pytest.raises(InputError, match="rows is 0"):
        verify(stored, 0)


def test_a_folder_is_named_without_its_place(fused: Mame, tmp_path: Path, monkeypatch) -> None:
    place = tmp_path / "somebody" / "run" / "model"
    fused.save(place)
    sweep(place, CC, steps=1, out=tmp_path / "s")
    (row,) = read(tmp_path / "s")
    assert row.model == "run/model" and not any(b"somebody" in data for data in contents(tmp_path / "s").values())
    assert "somebody" not in (tmp_path / "s" / "sweep.json").read_text()
    with pytest.raises(InputError, match="was a folder; say where it lies with --model"):
        verify(tmp_path / "s")
    assert verify(tmp_path / "s", models=[place])[0].same
    fused.save(tmp_path / "else" / "run" / "model")
    with pytest.raises(InputError, match="the same name"):
        sweep([place, tmp_path / "else" / "run" / "model"], CC, steps=1)


def test_a_damaged_table_is_noticed(copied: Path) -> None:
    text = (copied / "sweep.csv").read_text()
    lines = text.splitlines(keepends=True)
    for damage in (lines[:-1], [*lines[:-1], lines[-1][:50] + "\n"], [lines[0].replace("seed", "sead"), *lines[1:]]):
        (copied / "sweep.csv").write_text("".join(damage))
        with pytest.raises(InputError, match="run the sweep again"):
            read(copied)


def test_sentences_of_any_kind_survive_the_table(fused: Mame, tmp_path: Path) -> None:
    odd = ['a "quoted", comma\nand line', "  ", "émoji 🩻;\ttab", "=1+1", "a" * 3000]
    rows = sweep(fused, odd, steps=1, out=tmp_path / "odd")
    assert [row.prompt for row in read(tmp_path / "odd")] == odd and read(tmp_path / "odd") == rows


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"models": []}, "no model"),
        ({"prompts": []}, "nothing in prompts"),
        ({"prompts": [3]}, "a prompt is a sentence"),
        ({"prompts": "\udc80"}, "not valid Unicode"),
        ({"steps": 0}, "steps has 0"),
        ({"steps": 1001}, "steps is 1001"),
        ({"steps": 2.5}, "steps has 2.5"),
        ({"guidance_scale": [1, float("nan")]}, "guidance_scale is nan"),
        ({"seeds": -1}, "seeds has -1"),
        ({"seeds": 2**63}, "seeds has"),
        ({"seeds": ()}, "nothing in seeds"),
        ({"count": 0}, "count has 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"sampler": "magic"}, "sampler 'magic' is unknown"),
        ({"count": 2_000_000}, "at most 1,000,000"),
        ({"models": "inpaint"}, "inpainting model"),
    ],
)
def test_bad_arguments_are_one_sentence_and_leave_nothing(fused: Mame, tmp_path: Path, arguments, words) -> None:
    given = {"models": fused, "prompts": CC, **arguments, "out": tmp_path / "a"}
    with pytest.raises(InputError, match=words):
        sweep(**given)
    assert not list(tmp_path.iterdir())


def test_grammar_has_every_sentence_once() -> None:
    sentences = grammar()
    assert len(sentences) == len(set(sentences)) == 3 * 3 * (1 + 3 + 4 + 2 * 3 * 4)
    asked = {tuple(getattr(parse(one), name) for name in ASKABLE) for one in sentences}
    assert len(asked) == 3 * 3 * 4 * 5 and {"a mammogram", BOTH, CC} <= set(sentences)


def test_the_noted_command_makes_the_same_grid() -> None:
    axes: dict[str, Any] = {
        "guidance_scale": (-1.5, 0.1234567, 4), "steps": (10, 24), "seeds": (0, 1, 2), "count": 4, "sampler": ("ddim",),
        "negative_prompt": ("", "low quality"),
    }  # fmt: skip
    for prompts, seeds in ((("-x", "it's a \"test\""), (0, 1, 2)), (grammar(), (7, 3))):
        grid = make_grid(["fused", "run/model"], prompts, **{**axes, "seeds": seeds})
        words = shlex.split(grid.command("my folder", keep_images=False))
        said = build_parser().parse_args(words[1:])
        sentences = grammar() if said.prompts else said.prompt
        again = make_grid(
            said.model, sentences, guidance_scale=said.guidance, steps=said.steps, seeds=said.seeds, count=said.count,
            sampler=said.sampler, negative_prompt=said.negative_prompt,
        )  # fmt: skip
        assert again == grid and said.no_images and said.out == Path("my folder")


def test_a_tall_sheet_shows_a_part_and_says_so(fused: Mame) -> None:
    (row,) = sweep(fused, CC, steps=1)
    sheet = contact_sheet([replace(row, prompt=sentence) for sentence in grammar()])
    assert sheet.height == pytest.approx(MOST_ROWS * 132, abs=60)
    small = contact_sheet([row])
    shown = np.asarray(small)[22:150, 190:318]
    assert np.array_equal(shown, row.image)


def test_command_line(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.txt").write_text(f"# what we ask\n{BOTH}\n\n{CC}\n")
    line = ["sweep", "--prompts", "p.txt", "--prompt", "a purple mammogram", "--guidance", "1,4", "--steps", "1"]
    line += ["--seeds", "0:2", "--out", "d/s"]
    assert main(line) == 0
    out, err = capsys.readouterr()
    assert out.startswith("d/s: 12 images, 12 new\n") and "view     obeyed" in out and "4 unknown" in out
    assert err.startswith("mame: note: ") and err.count("\n") == 1
    rows = read(tmp_path / "d" / "s")
    assert {row.seed for row in rows} == {0, 1} and rows[0].prompt == "a purple mammogram"
    assert main(line) == 0 and "12 images, 0 new" in capsys.readouterr().out
    assert main([*line, "--count", "2"]) == 2 and "another count (1)" in capsys.readouterr().err
    assert main(["sweep", "d/s", "--verify", "2"]) == 0
    out = capsys.readouterr().out
    assert out.count("same: fused") == 2 and out.count("\n") == 2
    for row in rows:
        (tmp_path / "d" / "s" / row.file).write_bytes((tmp_path / "d" / "s" / rows[0].file).read_bytes())
    assert main(["sweep", "d/s", "--verify", "12"]) == 1
    assert capsys.readouterr().out.count("DIFFERENT: fused") == 11


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="POSIX signals")
def test_kill_9_at_random_moments(tmp_path: Path) -> None:
    """The same bytes after any number of kills; a polite one says how to go on."""
    options = ["--prompt", BOTH, "--prompt", CC, "--steps", "2", "--seeds", "0:30", "--out"]
    command = [sys.executable, "-m", "mame_lib", "sweep", *options]
    here = Path(__file__).resolve().parents[2]
    subprocess.run([*command, str(tmp_path / "whole" / "s")], check=True, cwd=here, capture_output=True)
    chance, target = random.Random(4), tmp_path / "killed" / "s"
    journal = target / "journal.jsonl"
    for kill in (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM):
        had = journal.read_bytes().count(b"\n") if journal.exists() else 0
        process = subprocess.Popen([*command, str(target)], cwd=here, stderr=subprocess.PIPE, stdout=subprocess.PIPE)
        deadline = time.monotonic() + 100
        while not (journal.exists() and journal.read_bytes().count(b"\n") > had + 2):
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.3))
        process.send_signal(kill)
        _, err = process.communicate(timeout=50)
        assert process.returncode == (-9 if kill == signal.SIGKILL else 143)
        assert (b"goes on from here" in err) == (kill == signal.SIGTERM)
    subprocess.run([*command, str(target)], check=True, cwd=here, capture_output=True)
    assert contents(target) == contents(tmp_path / "whole" / "s") and len(read(target)) == 60
