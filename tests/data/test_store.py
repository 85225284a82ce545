"""`prepare`: the same folder whatever interrupts it, and nothing of the source but pixels and words."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mame_lib.data import store
from mame_lib.data.manifest import load
from mame_lib.data.pool import Lost, each
from mame_lib.data.preparation import Options
from mame_lib.data.sources.base import Quarantined, SourceCase
from mame_lib.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = Options(salt=b"test", size=64)


def breast(height=160, width=120, reach=1.6):
    y, x = np.mgrid[0:height, 0:width]
    radius = np.hypot((y - height / 2) / (height / 2.4), x / (width / reach))
    return np.where(radius < 1, (1.2 - radius) / 1.2 * 255, 0).astype(np.uint8)


def make_source(folder, count, bad=()):
    """PNG files, each with a breast of its own; `bad` ones are no pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    cases = []
    for number in range(count):
        path = folder / f"p{number:03d}_{'LR'[number % 2]}_{('CC', 'MLO')[number % 3 > 0]}.png"
        if number in bad:
            path.write_bytes(b"no picture")
        else:
            Image.fromarray(breast(reach=1.3 + number % 7 / 7)).save(path)
        cases.append(SourceCase(path.name, path, patient=f"p{number // 4}"))
    return cases


def digest(folder):
    """Every file below a folder with a hash of its bytes."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A source, and what an uninterrupted run makes of it."""
    folder = tmp_path_factory.mktemp("whole")
    cases = make_source(folder / "source", 12, bad={5})
    store.prepare(cases, folder / "out", OPTIONS, source="folder")
    return cases, digest(folder / "out")


def test_prepare_writes_a_manifest(whole, tmp_path):
    cases, expected = whole
    prepared = store.prepare(cases, tmp_path / "deep" / "out", OPTIONS, source="folder")
    data = load(tmp_path / "deep" / "out")
    assert len(data.cases) == prepared.new == 11 and data.info == prepared.manifest.info
    assert [entry.key for entry in prepared.refused] == [cases[5].key]
    assert data.info["quarantined"][0]["reason"] == prepared.refused[0].reason
    assert digest(tmp_path / "deep" / "out") == expected
    assert os.listdir(tmp_path / "deep") == ["out"]
    by_patient = {}
    for case in data.cases:
        by_patient.setdefault(case.patient, set()).add(case.split)
    assert all(len(splits) == 1 for splits in by_patient.values())


def test_processes_make_the_same_folder(whole, tmp_path):
    cases, expected = whole
    store.prepare(cases, tmp_path / "out", OPTIONS, source="folder", workers=2)
    assert digest(tmp_path / "out") == expected


@pytest.mark.parametrize("after", [0, 1, 7])
def test_an_interrupted_run_goes_on(whole, tmp_path, after, monkeypatch):
    cases, expected = whole

    def cut(finished, total):
        for number, result in enumerate(finished):
            if number == after:
                raise KeyboardInterrupt
            yield result

    with pytest.raises(KeyboardInterrupt):
        store.prepare(cases, tmp_path / "out", OPTIONS, source="folder", progress=cut)
    assert not (tmp_path / "out").exists()
    work = tmp_path / ".out.partial"
    with open(work / store.JOURNAL, "a") as journal:
        journal.write('{"id": "torn')
    (work / "images" / "half.png.1.tmp").write_bytes(b"half")
    (work / "images" / "stray.png").write_bytes(b"of a worker that outlived its run")
    seen = []
    real = store.prepare_case
    monkeypatch.setattr(store, "prepare_case", lambda case, *rest: (seen.append(case), real(case, *rest))[1])
    store.prepare(cases, tmp_path / "out", OPTIONS, source="folder")
    assert digest(tmp_path / "out") == expected and not work.exists()
    assert len(seen) == len(cases) - after


def test_a_lost_picture_is_made_again(whole, tmp_path):
    cases, expected = whole

    def cut(finished, total):
        yield from [next(finished) for _ in range(4)]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.prepare(cases, tmp_path / "out", OPTIONS, source="folder", progress=cut)
    next((tmp_path / ".out.partial" / "images").iterdir()).unlink()
    store.prepare(cases, tmp_path / "out", OPTIONS, source="folder")
    assert digest(tmp_path / "out") == expected


@pytest.mark.parametrize("moment", ["before the renames", "between the renames", "before the old one is gone"])
def test_a_kill_at_the_very_end(whole, tmp_path, moment):
    """The last two renames, stopped at each place, on a data set that replaces another one."""
    cases, expected = whole
    out, work, old = tmp_path / "out", tmp_path / ".out.partial", tmp_path / ".out.old"
    store.prepare(cases[:3], tmp_path / "three", OPTIONS, source="folder")
    store.prepare(cases, out, OPTIONS, source="folder")
    if moment == "before the renames":
        out.rename(work)
        (tmp_path / "three").rename(out)
        (work / store.JOURNAL).write_text("")
    else:
        (tmp_path / "three").rename(old)
        if moment == "between the renames":
            out.rename(work)
    store.prepare(cases, out, OPTIONS, source="folder")
    assert digest(out) == expected and os.listdir(tmp_path) == ["out"]


def test_a_second_run_adds_what_is_new_and_tries_again_what_was_refused(tmp_path):
    cases = make_source(tmp_path / "source", 9, bad={2})
    out = tmp_path / "out"
    store.prepare(cases[:6], out, OPTIONS, source="folder")
    before = digest(out)
    again = store.prepare(cases[:6], out, OPTIONS, source="folder")
    assert again.new == 0 and digest(out) == before and len(again.refused) == 1
    make_source(tmp_path / "source", 9)  # now all are good
    grown = store.prepare(cases, out, OPTIONS, source="folder")
    assert grown.new == 4 and len(grown.manifest.cases) == 9 and not grown.refused
    store.prepare(cases, tmp_path / "at once", OPTIONS, source="folder")
    assert digest(out) == digest(tmp_path / "at once")
    shrunk = store.prepare(cases[:2], out, OPTIONS, source="folder")
    assert shrunk.new == 0 and len(shrunk.manifest.cases) == 9  # nothing is ever lost


def test_other_settings_are_refused_by_name(whole, tmp_path):
    cases, expected = whole
    out = tmp_path / "out"
    store.prepare(cases, out, OPTIONS, source="folder")
    for options, word in (
        (Options(salt=b"test", size=72), r"size \(64\)"),
        (Options(salt=b"test", size=64, fit="pad"), r"fit \(crop\)"),
        (Options(salt=b"other", size=64), "salt"),
    ):
        with pytest.raises(InputError, match=f"made with another {word}"):
            store.prepare(cases, out, options, source="folder")
    with pytest.raises(InputError, match=r"another source \(folder\)"):
        store.prepare(cases, out, OPTIONS, source="vindr")
    assert digest(out) == expected and os.listdir(tmp_path) == ["out"]
    store.prepare(cases, out, Options(salt=b"test", size=72), source="folder", overwrite=True)
    assert load(out).image(load(out).cases[0]).shape == (72, 72)


def test_an_unfinished_run_with_other_settings_is_kept(whole, tmp_path):
    cases, expected = whole

    def cut(finished, total):
        yield next(finished)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.prepare(cases, tmp_path / "out", OPTIONS, source="folder", progress=cut)
    with pytest.raises(InputError, match=r"unfinished run with another size \(64\)"):
        store.prepare(cases, tmp_path / "out", Options(salt=b"test", size=72), source="folder")
    store.prepare(cases, tmp_path / "out", OPTIONS, source="folder")
    assert digest(tmp_path / "out") == expected


def test_nothing_usable_leaves_nothing(tmp_path):
    cases = make_source(tmp_path / "source", 2, bad={0, 1})
    with pytest.raises(InputError, match=r"all files were refused \(2\)"):
        store.prepare(cases, tmp_path / "a" / "out", OPTIONS, source="folder")
    with pytest.raises(InputError, match="no image"):
        store.prepare([], tmp_path / "a" / "out", OPTIONS, source="folder")
    assert os.listdir(tmp_path) == ["source"]


def test_two_runs_at_once_are_refused(whole, tmp_path):
    cases, _ = whole
    pytest.importorskip("fcntl")

    def second(finished, total):
        with pytest.raises(InputError, match="at work"):
            store.prepare(cases, tmp_path / "out", OPTIONS, source="folder")
        return finished

    store.prepare(cases, tmp_path / "out", OPTIONS, source="folder", progress=second)


def test_what_the_source_refused_and_what_it_lists_twice(whole, tmp_path):
    cases, _ = whole
    listed = [*cases[:3], Quarantined("row 7", "its file is missing"), cases[0]]
    prepared = store.prepare(listed, tmp_path / "out", OPTIONS, source="folder")
    assert len(prepared.manifest.cases) == 2 + 1
    assert {entry.key for entry in prepared.refused} == {"row 7"}
    copy = SourceCase(cases[0].key, cases[1].path)
    again = store.prepare([*cases[:3], copy], tmp_path / "two", OPTIONS, source="folder")
    assert [entry.reason for entry in again.refused] == ["the source lists it twice; the first entry counts"]


def test_a_source_without_validation_gets_one_out_of_its_training_patients(tmp_path):
    cases = [replace(case, patient=f"p{k}", split="test" if k < 3 else "train")
             for k, case in enumerate(make_source(tmp_path / "source", 40))]  # fmt: skip
    data = store.prepare(cases, tmp_path / "out", OPTIONS, source="vindr").manifest
    assert len(data.split("test")) == 3 and 0 < len(data.split("validation")) < 15
    own = [replace(case, split="validation" if k == 5 else case.split) for k, case in enumerate(cases)]
    data = store.prepare(own, tmp_path / "own", OPTIONS, source="vindr").manifest
    assert len(data.split("validation")) == 1 and len(data.split("train")) == 36


def _misbehave(word):
    if word == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if word == "hang":
        time.sleep(60)
    return word.upper()


@pytest.mark.slow
def test_a_crash_and_a_hang_cost_one_file_each():
    words = ["a", "crash", "b", "hang", "c", "d"]
    results = dict(each(_misbehave, words, workers=2, seconds=4))
    assert {word: results[word] for word in "abcd"} == {word: word.upper() for word in "abcd"}
    assert isinstance(results["crash"], Lost) and "crashed" in results["crash"].reason
    assert isinstance(results["hang"], Lost) and "longer than 4 s" in results["hang"].reason


@pytest.mark.slow
def test_kill_9_at_random_moments(tmp_path):
    """Killed anywhere, run again: the same folder. MAME_KILLS=30 is the full check."""
    make_source(tmp_path / "source", 300, bad={17, 200})
    command = [sys.executable, "-m", "mame_lib", "prepare", "folder", str(tmp_path / "source")]
    options = ["--size", "64", "--salt", "test", "--workers", "2", "--out"]

    def run(out):
        return subprocess.Popen(
            [*command, *options, str(out)], cwd=ROOT, start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip

    start = time.monotonic()
    assert run(tmp_path / "whole").wait() == 0
    seconds = time.monotonic() - start
    expected = digest(tmp_path / "whole")
    assert len(json.loads((tmp_path / "whole" / "dataset.json").read_text())["quarantined"]) == 2
    moments = random.Random(2026)
    cut = 0
    for number in range(int(os.environ.get("MAME_KILLS", "4"))):
        out = tmp_path / f"out{number}"
        process = run(out)
        try:
            process.wait(timeout=moments.uniform(0.2, 1.05) * seconds)
        except subprocess.TimeoutExpired:
            cut += 1
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if out.exists():
            assert digest(out) == expected  # there whole or not at all
        again = run(out)
        assert again.wait() == 0, again.stderr.read()
        assert digest(out) == expected, f"kill {number}"
        assert not (tmp_path / f".out{number}.partial").exists()
    assert cut
