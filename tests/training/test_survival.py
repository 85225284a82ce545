"""Runs that survive: SIGTERM to the command line, Ctrl-C, and kill -9 at random moments."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from mame_lib.cli import main
from mame_lib.training.checkpoint import complete_checkpoints
from mame_lib.training.config import TrainConfig
from mame_lib.training.loop import fit
from mame_lib.training.run import read_log
from tests.training.support import config_of, files_of, log_of, mame, options_of, run_to, train

pytestmark = pytest.mark.skipif(os.name == "nt", reason="POSIX signals")


@pytest.fixture(autouse=True)
def ctrl_c_is_heard():
    """A shell that starts the tests in the background tells them to ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def logged(run: Path) -> int:
    """The last step in the log, 0 before there is one."""
    try:
        lines = read_log(run)
    except OSError:
        return 0
    return lines[-1]["step"] if lines else 0


def wait_for(run: Path, step: int, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while logged(run) < step:
        assert time.monotonic() < end, f"{run} did not come to step {step}"
        time.sleep(0.02)


@pytest.mark.slow
def test_sigterm_saves_the_step_and_leaves_with_143(phantoms, tmp_path) -> None:
    """What a scheduler sends before it takes the machine away; the run then goes on to the bit."""
    config = config_of(
        data=phantoms, out=tmp_path / "run", steps=2000, rate_schedule="constant", log_every=1, batch_size=2
    )
    process = mame(config)
    wait_for(config.out, 3)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143, errors
    assert "Traceback" not in errors
    kept = complete_checkpoints(config.out / "checkpoints")
    step = logged(config.out)
    assert [p.name for p in kept] == [f"step-{step:06d}"], "the very step that was done last"
    assert not list(config.out.rglob("*.partial"))

    end = step + 2
    for changes in ({"resume": True}, {"out": tmp_path / "straight"}):
        process = mame(config.with_changes(steps=end, **changes))
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors
    assert files_of(config.out / "model") == files_of(tmp_path / "straight" / "model")
    assert log_of(config.out) == log_of(tmp_path / "straight")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_in_a_step_waits_until_the_step_is_whole(phantoms, tmp_path, monkeypatch, number) -> None:
    """The signal falls into the second step's forward pass; steps 1 and 2 are in the log, step 2 in the checkpoint."""
    import mame_lib.training.loop as loop

    real, calls = loop.train_step, []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 2:
            signal.raise_signal(number)
        return real(*arguments)

    monkeypatch.setattr(loop, "train_step", interrupted)
    config = config_of(data=phantoms, out=tmp_path / "run", steps=5, log_every=1, batch_size=2)
    before = signal.getsignal(number)
    status = main(["train", *options_of(config)])
    assert status == {signal.SIGTERM: 143, signal.SIGINT: 130}[number]
    assert signal.getsignal(number) == before, "handlers are put back"
    assert [p.name for p in complete_checkpoints(config.out / "checkpoints")] == ["step-000002"]
    assert [line["step"] for line in log_of(config.out)] == [1, 2]


@pytest.mark.parametrize("request_to_stop", [SystemExit(143), KeyboardInterrupt()])
def test_a_request_to_stop_between_two_steps_keeps_the_first(phantoms, tmp_path, monkeypatch, request_to_stop) -> None:
    """It comes while the third batch is waited for: two steps are done, and the second is saved."""
    import mame_lib.training.loop as loop

    real = loop.batch_of_step

    def interrupted(data, config, step, *more):
        if step == 2:
            raise request_to_stop
        return real(data, config, step, *more)

    monkeypatch.setattr(loop, "batch_of_step", interrupted)
    config = config_of(data=phantoms, out=tmp_path / "run", steps=5, log_every=1, batch_size=2)
    with pytest.raises(type(request_to_stop)):
        list(fit(config))
    assert [p.name for p in complete_checkpoints(config.out / "checkpoints")] == ["step-000002"]
    assert [line["step"] for line in log_of(config.out)] == [1, 2]


def test_a_second_signal_is_obeyed_at_once(phantoms, tmp_path, monkeypatch) -> None:
    import mame_lib.training.loop as loop

    def impatient(*_):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        pytest.fail("the second Ctrl-C was held back too")

    monkeypatch.setattr(loop, "train_step", impatient)
    config = config_of(data=phantoms, out=tmp_path / "run", batch_size=2)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        list(fit(config))
    assert complete_checkpoints(config.out / "checkpoints") == [], "a half step is not saved"
    assert signal.getsignal(signal.SIGINT) == before


def test_a_run_in_a_thread_leaves_signals_alone(phantoms, tmp_path) -> None:
    """A web app trains in a thread, where Python does not let anybody set handlers."""
    config = config_of(data=phantoms, out=tmp_path / "run", steps=1, batch_size=2)
    results: list = []
    thread = threading.Thread(target=lambda: results.extend(run_to(config)))
    thread.start()
    thread.join()
    assert [r.step for r in results] == [1] and results[-1].model is not None


def test_an_error_of_the_caller_keeps_the_steps_that_were_done(phantoms, tmp_path) -> None:
    config = config_of(data=phantoms, out=tmp_path / "run", batch_size=2)

    def study() -> None:
        for result in fit(config):
            if result.step == 2:
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        study()
    assert [p.name for p in complete_checkpoints(config.out / "checkpoints")] == ["step-000002"]


def attempt(warm, config: TrainConfig, patience: float | None = None) -> int | None:
    """`mame train`, fresh or resumed as a user would, killed after `patience` seconds; its exit code."""
    process = warm.Process(target=train, args=(config.with_changes(resume=(config.out / "config.json").is_file()),))
    process.start()
    process.join(patience)
    if process.is_alive():
        process.kill()
        process.join()
    return process.exitcode


@pytest.mark.slow
def test_kill_9_at_50_random_moments(phantoms, tmp_path, warm) -> None:
    """Killed while encoding, stepping, validating, saving checkpoints or the model: the bytes at the end are the same.

    The moments are uniform over the time a run still needs, so they fall everywhere; the seed is fixed, the clock of
    the machine is not. A run that ends before its moment comes starts anew elsewhere, until 50 kills have hit.
    """
    def config(run: str) -> TrainConfig:
        data = tmp_path / f"data-{run}"
        if not data.exists():  # each run encodes its own copy
            shutil.copytree(phantoms, data, ignore=shutil.ignore_patterns(".cache"))
        return config_of(data=data, out=tmp_path / run, steps=6, batch_size=2, checkpoint_every=1, log_every=1,
                         validation_every=3, validation_steps=1, min_snr_gamma=5.0, caption_dropout=0.5)  # fmt: skip

    assert attempt(warm, config("first")) == 0  # the machine's caches are warm then
    began = time.monotonic()
    assert attempt(warm, config("calm")) == 0
    whole = time.monotonic() - began
    wanted, log = files_of(tmp_path / "calm" / "model"), log_of(tmp_path / "calm")
    random, kills, runs, reached = np.random.default_rng(50), 0, 0, []
    while kills < 50:
        runs += 1
        here = config(f"run-{runs}")
        for _ in range(40):
            code = attempt(warm, here, whole * random.random() if kills < 50 else None)
            if code == 0:
                break
            assert code == -signal.SIGKILL, f"the command failed by itself, with exit code {code}"
            kills += 1
            reached.append(logged(here.out))
        else:
            assert attempt(warm, here) == 0
        assert files_of(here.out / "model") == wanted, f"run {runs} differs"
        assert log_of(here.out) == log
        shutil.rmtree(here.out)
        shutil.rmtree(here.data)
    assert set(reached) >= {0, 3} and len(set(reached)) >= 4, f"the kills fell at few places only: {sorted(reached)}"
