"""Checkpoints are whole or absent: full disks, torn files, and a machine that goes down between two renames."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
from pathlib import Path

import pytest
import torch

import mame_lib.training.checkpoint as checkpoint
from mame_lib.errors import InputError
from mame_lib.training.checkpoint import (
    complete_checkpoints,
    is_complete,
    optimizer_tensors,
    read_checkpoint,
    restore_optimizer,
    write_checkpoint,
)
from mame_lib.training.loop import fit
from tests.training.support import config_of, files_of, run_to, same

PARTS = {"weights": {"a": torch.arange(6.0).reshape(2, 3)}, "optimizer": {"0.step": torch.tensor(3.0)}, "ema": {}}


def test_what_is_written_comes_back(tmp_path) -> None:
    write_checkpoint(tmp_path / "step-000003", PARTS, {"step": 3, "more": [1, 2]})
    files, info = read_checkpoint(tmp_path / "step-000003")
    assert torch.equal(files["weights"]["a"], PARTS["weights"]["a"]) and files["ema"] == {}
    assert info["step"] == 3 and info["more"] == [1, 2] and set(info["files"]) == set(PARTS)
    assert sorted(os.listdir(tmp_path)) == ["step-000003"]


def test_views_and_gradients_are_written_too(tmp_path) -> None:
    wide = torch.nn.Parameter(torch.arange(12.0).reshape(3, 4))
    write_checkpoint(tmp_path / "step-1", {"weights": {"t": wide.T, "row": wide[1]}}, {})
    files, _ = read_checkpoint(tmp_path / "step-1")
    assert torch.equal(files["weights"]["t"], wide.detach().T)


def test_no_pickle_is_ever_written_or_read(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("torch.load was called"))
    monkeypatch.setattr(torch, "save", lambda *_, **__: pytest.fail("torch.save was called"))
    write_checkpoint(tmp_path / "step-1", PARTS, {})
    read_checkpoint(tmp_path / "step-1")
    assert {p.suffix for p in (tmp_path / "step-1").iterdir()} == {".safetensors", ".json"}


@pytest.mark.parametrize("damage", ["cut", "missing", "no manifest", "torn manifest", "empty manifest"])
def test_damaged_checkpoints_are_passed_over(tmp_path, damage) -> None:
    for step in (1, 2):
        write_checkpoint(tmp_path / f"step-{step}", PARTS, {"step": step})
    newest = tmp_path / "step-2"
    match damage:
        case "cut":
            (newest / "weights.safetensors").write_bytes((newest / "weights.safetensors").read_bytes()[:-1])
        case "missing":
            (newest / "optimizer.safetensors").unlink()
        case "no manifest":
            (newest / "state.json").unlink()
        case "torn manifest":
            (newest / "state.json").write_text((newest / "state.json").read_text()[:-5])
        case "empty manifest":
            (newest / "state.json").write_text("[]")
    assert not is_complete(newest) and complete_checkpoints(tmp_path) == [tmp_path / "step-1"]


def test_checkpoints_are_ordered_by_number_not_by_name(tmp_path) -> None:
    for step in (900000, 1000000, 8):
        write_checkpoint(tmp_path / f"step-{step:06d}", PARTS, {})
    for junk in ("step-12.partial", "step-x", ".step-13", "notes"):
        (tmp_path / junk).mkdir()
    assert [p.name for p in complete_checkpoints(tmp_path)] == ["step-000008", "step-900000", "step-1000000"]
    assert complete_checkpoints(tmp_path / "none") == []


def test_a_crash_between_the_two_renames_loses_nothing(tmp_path, monkeypatch) -> None:
    folder, real = tmp_path / "step-000004", os.replace
    write_checkpoint(folder, PARTS, {"take": 1})

    class PowerCut(BaseException):
        pass

    def cut(source, destination):
        if Path(destination) == folder:
            raise PowerCut
        real(source, destination)

    monkeypatch.setattr(checkpoint.os, "replace", cut)
    with pytest.raises(PowerCut):
        write_checkpoint(folder, PARTS, {"take": 2})
    monkeypatch.setattr(checkpoint.os, "replace", real)
    assert not folder.exists() and (tmp_path / "step-000004.old").is_dir()
    assert complete_checkpoints(tmp_path) == [folder]
    assert read_checkpoint(folder)[1]["take"] == 1
    write_checkpoint(folder, PARTS, {"take": 3})
    assert read_checkpoint(folder)[1]["take"] == 3 and os.listdir(tmp_path) == ["step-000004"]


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="this system has no limit on the size of files")
def test_a_full_disk_is_one_sentence_and_leaves_the_old_checkpoint(tmp_path) -> None:
    """The system itself refuses to make the file longer, in the middle of writing it."""
    write_checkpoint(tmp_path / "step-1", PARTS, {})
    before, big = files_of(tmp_path), {"weights": {"a": torch.zeros(500_000)}}
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
    try:
        with pytest.raises(InputError, match=r"cannot write the checkpoint .*; make room on the disk, then resume"):
            write_checkpoint(tmp_path / "step-2", big, {})
        with pytest.raises(InputError, match="cannot write the checkpoint"):
            write_checkpoint(tmp_path / "step-1", big, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert files_of(tmp_path) == before and os.listdir(tmp_path) == ["step-1"]


def test_a_mistake_in_the_program_is_not_called_a_full_disk(tmp_path) -> None:
    with pytest.raises(AttributeError):
        write_checkpoint(tmp_path / "step-1", {"weights": {"a": "no tensor"}}, {})  # type: ignore[dict-item]
    assert os.listdir(tmp_path) == []


def test_a_disk_that_fills_up_in_a_run_ends_it_and_the_run_goes_on_later(phantoms, tmp_path, monkeypatch) -> None:
    """The checkpoint of step 2 fails in its second file; that of step 1 is left, and resuming gives the same model."""
    settings = dict(data=phantoms, method="lora", lora_rank=4, steps=3, batch_size=2, checkpoint_every=1)
    run_to(config_of(out=tmp_path / "straight", **settings))
    config, real, calls = config_of(out=tmp_path / "run", **settings), checkpoint.save_file, []

    def full(tensors, path):
        calls.append(path)
        if len(calls) == 5:  # three files a checkpoint
            Path(path).write_bytes(b"half of it")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        real(tensors, path)

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(InputError, match=r"No space left on device.*then resume the run"):
        list(fit(config))
    assert os.listdir(config.out / "checkpoints") == ["step-000001"]
    monkeypatch.setattr(checkpoint, "save_file", real)
    run_to(config.with_changes(resume=True))
    assert files_of(config.out / "model") == files_of(tmp_path / "straight" / "model")


def test_optimizer_state_goes_there_and_back() -> None:
    def made() -> tuple[list[torch.nn.Parameter], torch.optim.Optimizer]:
        weights = [torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(2, 2))]
        return weights, torch.optim.AdamW([{"params": weights[:1]}, {"params": weights[1:], "lr": 0.5}], fused=True)

    def step(weights, optimizer) -> None:
        for weight in weights:
            weight.grad = weight.detach() * 0.3
        optimizer.step()

    weights, optimizer = made()
    step(weights, optimizer)
    others, other = made()
    with torch.no_grad():
        for one, two in zip(others, weights, strict=True):
            one.copy_(two)
    restore_optimizer(other, {k: v.clone() for k, v in optimizer_tensors(optimizer).items()})
    assert other.param_groups[1]["lr"] == 0.5
    step(weights, optimizer)
    step(others, other)
    assert same([w.detach() for w in weights], [w.detach() for w in others])


@pytest.mark.parametrize("content", [None, b"", b"\xff" * 300])
def test_an_unreadable_checkpoint_is_one_sentence(tmp_path, content) -> None:
    """A missing file, an empty one, and one of the right size that a bad disk has filled with rubbish."""
    (tmp_path / "step-1").mkdir()
    (tmp_path / "step-1" / "state.json").write_text(json.dumps({"files": {"weights": 300}}))
    if content is not None:
        (tmp_path / "step-1" / "weights.safetensors").write_bytes(content)
    with pytest.raises(InputError, match="is not a complete checkpoint"):
        read_checkpoint(tmp_path / "step-1")
