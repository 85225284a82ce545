"""`mame synthesize`: mistakes are one sentence, several processes share the work, and a killed run goes on."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from mame_lib.cli import main
from mame_lib.data import manifest

ROOT = Path(__file__).resolve().parents[2]
SLOWER = 'steps = 3\nseed = 5\nmost_tries = 2\n[finding]\nnone = 0.6\n"spiculated mass" = 0.4\n'


@pytest.fixture
def spec(tmp_path, small) -> Path:
    path = tmp_path / "population.toml"
    path.write_text(small.to_toml())
    return path


def start(spec: Path, out: Path, count: int, size: int = 1) -> list[subprocess.Popen]:
    """Play the launcher: `size` processes that know of each other."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    listen = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    started = []
    for rank in range(size):
        said = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_PORT": port, "MASTER_ADDR": "127.0.0.1"}
        words = {name: str(value) for name, value in said.items()} if size > 1 else {}
        started.append(subprocess.Popen(
            [sys.executable, "-m", "mame_lib", "synthesize", str(spec), "--count", str(count), "--out", str(out)],
            env={**os.environ, "PYTHONPATH": str(ROOT), **words}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, preexec_fn=listen,
        ))  # fmt: skip
    return started


def wait_for_blocks(out: Path, number: int, processes: list[subprocess.Popen]) -> None:
    end = time.monotonic() + 120
    while len(list((out / "blocks").glob("*.jsonl"))) < number:
        assert time.monotonic() < end and all(process.poll() is None for process in processes)
        time.sleep(0.01)


@pytest.mark.parametrize(
    "line, words",
    [
        ("", "SPEC"),
        ("nothing.toml --count 3 --out a", "cannot read the population nothing.toml"),
        ("population.toml --out a", "--count"),
        ("population.toml --count 0 --out a", "--count: 0 is out of range"),
        ("population.toml --count 1000001 --out a", "--count"),
        ("population.toml --count 3", "--out"),
        ("population.toml --count 3 --out population.toml/a", "is not a folder"),
        ("population.toml --count 3 --out population.toml", "is not a folder"),
        ("population.toml --count 3 --out .", "is not empty and holds no population"),
        ("population.toml --count 3 --out a --training-data nothing", "nothing does not exist"),
        ("bad.toml --count 3 --out a", "[view] add up to 0.5"),
    ],
)
def test_a_mistake_is_one_sentence_and_leaves_nothing(spec, tmp_path, monkeypatch, capsys, line, words) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.toml").write_text("[view]\nCC = 0.5\n")
    before = sorted(tmp_path.rglob("*"))
    assert main(["synthesize", *line.split()]) == 2
    said = capsys.readouterr().err
    assert said.startswith("mame: error: ") and said.count("\n") == 1 and words in said
    assert sorted(tmp_path.rglob("*")) == before


def test_the_last_line_says_what_was_made(spec, made, tmp_path, capsys) -> None:
    assert main(["synthesize", str(spec), "--count", "5", "--out", str(tmp_path / "data")]) == 0
    first = capsys.readouterr().out
    assert "data: 5 images, " in first and "5 new (" in first and first.count("\n") == 1, "it was not screened"
    assert main(["synthesize", str(spec), "--count", "12", "--out", str(made)]) == 0
    assert "12 images" in (said := capsys.readouterr().out) and "0 new" in said


@pytest.mark.slow
def test_two_processes_killed_twice_make_what_one_makes(tmp_path) -> None:
    """The first time all die at once; the second time one is told to stop, and the other notices."""
    spec, broken, whole = (tmp_path / name for name in ("population.toml", "broken", "whole"))
    spec.write_text(SLOWER)
    processes = start(spec, broken, 48, size=2)
    wait_for_blocks(broken, 2, processes)
    for process in processes:
        process.kill()
        process.communicate()
    assert not manifest.is_manifest(broken)
    there = len(list((broken / "blocks").glob("*.jsonl")))
    processes = start(spec, broken, 48, size=2)
    wait_for_blocks(broken, there + 2, processes)
    processes[1].send_signal(signal.SIGTERM)
    said = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [2, 143]
    assert "another process ended before its images were made; the same command goes on" in said[0][1]
    processes = start(spec, broken, 48, size=3)
    said = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], said
    assert [out.count("48 images") for out, _ in said] == [1, 0, 0], "one process speaks"
    alone = start(spec, whole, 48)[0]
    alone.communicate(timeout=240)
    assert (whole / "checksums.sha256").read_bytes() == (broken / "checksums.sha256").read_bytes()
    assert len(manifest.load(whole).cases) == 48
    assert not [path for path in broken.rglob("*") if ".tmp" in path.name or ".lock" in path.name]


@pytest.mark.slow
def test_a_polite_stop_goes_on(tmp_path) -> None:
    spec, out = tmp_path / "population.toml", tmp_path / "data"
    spec.write_text(SLOWER)
    for number in (signal.SIGINT, signal.SIGTERM):
        before = len(list((out / "blocks").glob("*.jsonl")))
        process = start(spec, out, 60)[0]
        wait_for_blocks(out, before + 1, [process])
        process.send_signal(number)
        said = process.communicate(timeout=60)[1]
        assert process.returncode == (130 if number == signal.SIGINT else 143)
        assert "the same command goes on from here" in said and "Traceback" not in said
        assert not [path for path in out.rglob("*") if ".tmp" in path.name or ".lock" in path.name]
    process = start(spec, out, 60)[0]
    assert "60 images" in process.communicate(timeout=240)[0] and process.returncode == 0


@pytest.mark.slow
def test_other_processes_leave_with_the_first(spec, made) -> None:
    """What the first process finds wrong ends all, and is said once."""
    processes = start(spec, made, 3, size=2)
    said = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [2, 2]
    assert "use --count 12 or more" in said[0] and "mame: error" not in said[1]
