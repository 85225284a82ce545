"""Two processes (gloo, on the CPU) train what one does with the same batch, save together, and leave together."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time

import pytest
import torch

from mame_lib.models.components import Components
from mame_lib.training.checkpoint import complete_checkpoints, read_checkpoint
from mame_lib.training.config import TrainConfig
from mame_lib.training.run import read_log
from mame_lib.training.world import World
from tests.training.support import (
    assert_same_runs,
    config_of,
    environment,
    files_of,
    log_of,
    options_of,
    relative,
    train,
)

BOUND = 1e-4  # of the length of the update after four steps of Adam: float32 sums in another order; measured 1e-5


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def start(warm, config: TrainConfig, size: int = 2) -> list:
    """Play the launcher: `size` processes that know of each other."""
    port, started = free_port(), []
    for rank in range(size):
        variables = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_PORT": port}
        words = {name: str(value) for name, value in variables.items()} | {"MASTER_ADDR": "127.0.0.1"}
        started.append(warm.Process(target=train, args=(config,), kwargs=words))
        started[-1].start()
    return started


def finish(processes: list, seconds: float = 180.0) -> list[int | None]:
    """Their exit codes; a process that hangs is killed and fails the test."""
    end = time.monotonic() + seconds
    for process in processes:
        process.join(max(0.0, end - time.monotonic()))
    hanging = [process for process in processes if process.is_alive()]
    for process in hanging:
        process.kill()
        process.join()
    assert not hanging, "the processes wait for each other for ever"
    return [process.exitcode for process in processes]


def last_step(config: TrainConfig) -> int:
    lines = read_log(config.out) if (config.out / "log.jsonl").is_file() else []
    return lines[-1]["step"] if lines else 0


def wait_for(config: TrainConfig, step: int, processes: list) -> None:
    end = time.monotonic() + 120
    while last_step(config) < step:
        assert time.monotonic() < end and all(process.is_alive() for process in processes)
        time.sleep(0.01)


def weights_of(config: TrainConfig, part: str = "weights") -> torch.Tensor:
    files, _ = read_checkpoint(complete_checkpoints(config.out / "checkpoints")[-1])
    return torch.cat([files[part][key].flatten() for key in sorted(files[part])])


def first_weights(config: TrainConfig) -> torch.Tensor:
    base = Components.load(config.base_model)
    named = {f"{n}.{k}": p for n in ("unet", "text_encoder") for k, p in getattr(base, n).named_parameters()}
    return torch.cat([named[key].flatten() for key in sorted(named)])


@pytest.mark.slow
def test_two_processes_equal_one_with_the_same_batch(warm, phantoms, tmp_path) -> None:
    """Five rows on two processes, in micro-batches of two, with class images, Min-SNR, dropout and validation."""
    settings = dict(
        data=phantoms, batch_size=5, min_snr_gamma=5.0, caption_dropout=0.5, offset_noise=0.1, log_every=1,
        prior_prompt="a circle", prior_images=2, micro_batch_size=2, validation_every=9, validation_steps=1,
        validation_prompts=("a circle",), held_out_images=2, checkpoint_every=2, keep_checkpoints=3,
    )  # fmt: skip
    one, two = config_of(out=tmp_path / "one", **settings), config_of(out=tmp_path / "two", **settings)
    assert finish([*start(warm, one, size=1)]) == [0] and finish(start(warm, two)) == [0, 0]
    alone, together, begun = weights_of(one), weights_of(two), first_weights(one)
    assert float((alone - begun).norm()) > 0
    assert relative(together - begun, alone - begun) < BOUND
    assert relative(weights_of(two, "ema"), weights_of(one, "ema")) < BOUND
    lines = log_of(one.out), log_of(two.out)
    assert [line["step"] for line in lines[1]] == [1, 2, 3, 4], "one process writes the log"
    for mine, theirs in zip(*lines, strict=True):
        assert mine.keys() == theirs.keys() and mine["images"] == theirs["images"]
        for key in ("loss", "prior_loss", "grad_norm"):
            assert theirs[key] == pytest.approx(mine[key], rel=1e-3), key
        assert [x is None for x in mine["loss_by_decile"]] == [x is None for x in theirs["loss_by_decile"]]
    assert lines[1][-1]["held_out_loss"] == pytest.approx(lines[0][-1]["held_out_loss"], rel=1e-3)
    assert files_of(one.out).keys() == files_of(two.out).keys()


def test_two_processes_resume_to_the_bit_and_stop_together(warm, phantoms, tmp_path) -> None:
    """Only one of the two is told to stop, in mid-run; both leave at the same step, with what is needed to go on."""
    settings = dict(data=phantoms, method="lora", lora_rank=4, batch_size=3, log_every=1, rate_schedule="constant")
    config = config_of(out=tmp_path / "run", steps=3000, checkpoint_every=7, **settings)
    processes = start(warm, config)
    wait_for(config, 3, processes)
    os.kill(processes[1].pid, signal.SIGTERM)
    assert finish(processes) == [143, 143]
    kept, steps = complete_checkpoints(config.out / "checkpoints"), read_log(config.out)[-1]["step"]
    assert [p.name for p in kept] == [f"step-{steps:06d}"]
    config = config.with_changes(steps=steps + 2, checkpoint_every=0, resume=True)
    straight = config_of(out=tmp_path / "straight", steps=steps + 2, **settings)
    assert finish(start(warm, config)) == [0, 0] and finish(start(warm, straight)) == [0, 0]
    assert_same_runs(straight.out, config.out)


@pytest.mark.slow
def test_signals_to_both_at_any_moment_do_not_hang(warm, phantoms, tmp_path) -> None:
    """As a launcher sends them: to both, a moment apart, at moments that differ each time."""
    config = config_of(
        data=phantoms, out=tmp_path / "run", steps=100_000, rate_schedule="constant", method="lora", batch_size=2,
        log_every=1, checkpoint_every=2,
    )  # fmt: skip
    for attempt in range(6):
        processes = start(warm, config.with_changes(resume=attempt > 0))
        before = last_step(config) if attempt else 0
        wait_for(config, before + 2, processes)
        for process in processes[:: 1 if attempt % 2 else -1]:
            os.kill(process.pid, signal.SIGTERM)
            time.sleep(0.013 * attempt)
        assert finish(processes, 60) == [143, 143]


def test_more_processes_than_images_are_refused(warm, phantoms, tmp_path) -> None:
    config = config_of(data=phantoms, out=tmp_path / "run", batch_size=1)
    assert finish(start(warm, config), 60) == [2, 2] and not config.out.exists()


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["accelerate", "torchrun"])
def test_the_usual_launchers_work(phantoms, tmp_path, launcher) -> None:
    pytest.importorskip("accelerate")
    config = config_of(data=phantoms, out=tmp_path / "run", steps=2, batch_size=3, method="lora", log_every=1)
    if launcher == "accelerate":  # with --cpu it would start one process only, unless there is MPI
        command = ["accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1",
                   "--mixed_precision", "no", "--dynamo_backend", "no",
                   "--main_process_port", str(free_port())]  # fmt: skip
    else:
        command = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [sys.executable, "-m", *command, "-m", "mame_lib", "train", *options_of(config)],
        env=environment(), capture_output=True, text=True, timeout=180, cwd=environment()["PYTHONPATH"],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (config.out / "model" / "model_index.json").is_file()
    assert '"processes": 2' in (config.out / "config.json").read_text()
    assert [line["step"] for line in log_of(config.out)] == [1, 2]
    assert done.stdout.count("model in") == 1, "one process speaks"


def test_shares_of_a_batch() -> None:
    for size in (1, 2, 3, 7):
        for count in (size, 2 * size + 1, 16):
            parts = [World(rank, size).share(count) for rank in range(size)]
            rows = [row for part in parts for row in range(count)[part]]
            assert rows == list(range(count)) and max(p.stop - p.start for p in parts) - min(
                p.stop - p.start for p in parts
            ) <= 1
    assert World(0, 1).device() in ("cpu", "cuda") and World(0, 2).main and not World(1, 2).main
