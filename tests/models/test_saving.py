"""A saved model is there whole or not at all, and shipped models share what is the same."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

from mame_lib.errors import InputError
from mame_lib.models import saving
from mame_lib.models.components import Components, write_shipped


@pytest.fixture
def tiny() -> Components:
    return Components.load("tiny")


class Crash(BaseException):
    """The machine goes down: no handler of errors runs to its end."""


@pytest.mark.parametrize("survived", range(2))
def test_a_crash_between_the_renames_loses_nothing(
    tiny: Components, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, survived: int
) -> None:
    folder = tmp_path / "model"
    tiny.info = {"round": 1}
    tiny.save(folder)
    tiny.info = {"round": 2}
    calls = []

    def replace(source: object, target: object, real=os.replace) -> None:
        if len(calls) == survived:
            raise Crash
        calls.append(target)
        real(source, target)

    with monkeypatch.context() as patch, pytest.raises(Crash):
        patch.setattr(os, "replace", replace)
        tiny.save(folder)
    assert folder.exists() is (survived == 0)
    assert Components.load(folder).info == {"round": 1}
    tiny.save(folder)
    assert Components.load(folder).info == {"round": 2}
    assert os.listdir(tmp_path) == ["model"]


def test_files_are_on_the_disk_before_the_rename(
    tiny: Components, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    real_sync, real_replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda number: (events.append("sync"), real_sync(number))[1])
    monkeypatch.setattr(os, "replace", lambda a, b: (events.append("rename"), real_replace(a, b))[1])
    tiny.save(tmp_path / "model")
    files = [path for path in (tmp_path / "model").rglob("*") if path.is_file()]
    assert events.index("rename") > len(files) and events[-1] == "sync"


def test_a_full_disk_is_told_in_a_sentence(
    tiny: Components, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.info = {"round": 1}
    tiny.save(tmp_path / "model")

    def full(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(saving, "save_file", full)
    with pytest.raises(InputError, match=r"cannot write the model .*No space left on device"):
        tiny.save(tmp_path / "model")
    assert Components.load(tmp_path / "model").info == {"round": 1}
    assert os.listdir(tmp_path) == ["model"]


def test_a_weight_that_half_precision_cannot_hold_is_not_made_infinite(tiny: Components, tmp_path: Path) -> None:
    with torch.no_grad():
        tiny.unet.conv_out.bias[0] = 1e6
    with pytest.raises(InputError, match=r"conv_out\.bias is too large for torch\.float16"):
        tiny.save(tmp_path / "model")
    assert os.listdir(tmp_path) == []
    tiny.save(tmp_path / "model", dtype=torch.float32)
    with torch.no_grad():
        tiny.unet.conv_out.bias[0] = float("nan")
    with pytest.raises(InputError, match="is not a number"):
        tiny.save(tmp_path / "model", dtype=torch.float32)
    assert float(Components.load(tmp_path / "model").unet.conv_out.bias[0]) == 1e6


def test_saving_changes_nothing_in_memory(tiny: Components, tmp_path: Path) -> None:
    tiny.save(tmp_path / "model")
    assert {n.dtype for n in (tiny.unet, tiny.vae, tiny.text_encoder)} == {torch.float32}
    assert tiny.text_encoder.config.dtype == torch.float32
    assert json.loads((tmp_path / "model" / "text_encoder" / "config.json").read_text())["dtype"] == "float16"


def test_a_slim_folder_comes_back_whole(tiny: Components, tmp_path: Path) -> None:
    folder = tmp_path / "hologic"
    folder.mkdir()
    (folder / "README.md").write_text("the card")
    with torch.no_grad():
        tiny.unet.conv_out.bias += 0.25
    tiny.info, tiny.start_mean = {"training": {"steps": 3}}, torch.full((4, 16, 16), 0.5)
    write_shipped(tiny, folder)
    assert (folder / "README.md").read_text() == "the card"
    assert not (folder / "vae").exists() and not (folder / "tokenizer").exists()
    assert json.loads((folder / "mame.json").read_text())["shared"] == {"vae": "tiny", "tokenizer": "tiny"}
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 7e6
    again = Components.load(folder)
    assert again.info == tiny.info and float(again.start_mean.mean()) == 0.5  # type: ignore[union-attr]
    assert torch.equal(again.unet.conv_out.bias, tiny.unet.conv_out.bias.half().float())
    assert all(torch.equal(a, b) for a, b in zip(again.vae.parameters(), tiny.vae.parameters(), strict=True))
    again.save(tmp_path / "whole")
    assert (tmp_path / "whole" / "vae").is_dir() and "shared" not in (tmp_path / "whole" / "mame.json").read_text()


def test_only_the_same_parts_are_shared(tiny: Components, tmp_path: Path) -> None:
    with torch.no_grad():
        tiny.vae.decoder.conv_out.bias += 1
    with pytest.raises(InputError, match="its own differ"):
        write_shipped(tiny, tmp_path / "model")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["../tiny", "/etc", "sd15", "fussed", 3])
def test_parts_are_shared_with_shipped_models_only(tiny: Components, tmp_path: Path, name: object) -> None:
    write_shipped(tiny, tmp_path / "model")
    told = json.loads((tmp_path / "model" / "mame.json").read_text())
    (tmp_path / "model" / "mame.json").write_text(json.dumps({**told, "shared": {"vae": name}}))
    with pytest.raises(InputError, match="which is unknown"):
        Components.load(tmp_path / "model")
