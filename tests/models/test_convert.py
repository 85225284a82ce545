"""`mame convert`: old pickled folders become safe ones with the same numbers; a pickle that is a program never runs."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mame_lib.errors import InputError
from mame_lib.models.components import Components
from mame_lib.models.convert import convert, read_pickled
from mame_lib.models.hub import NETWORKS

OLD_NAMES = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def to_bin(folder: Path, *, zipped: bool = True) -> None:
    """Pickle the weights as programs of 2023 did, under the names of their time."""
    for part, (_, stem) in NETWORKS.items():
        safe = folder / part / f"{stem}.safetensors"
        tensors = load_file(safe)
        if part == "text_encoder":
            tensors = {f"text_model.{name.removeprefix('text_model.')}": tensor for name, tensor in tensors.items()}
            tensors["text_model.embeddings.position_ids"] = torch.arange(32)[None]
            stem = "pytorch_model"
        if part == "vae":
            for new, old in OLD_NAMES.items():
                tensors = {k.replace(f"attentions.0.{new}.", f"attentions.0.{old}."): t for k, t in tensors.items()}
        torch.save(tensors, folder / part / f"{stem}.bin", _use_new_zipfile_serialization=zipped)
        safe.unlink()


@pytest.mark.parametrize("zipped", [True, False])
def test_an_old_folder_gives_the_same_numbers(
    miniatures: dict[str, Path], miniature: Path, tmp_path: Path, zipped: bool
) -> None:
    to_bin(miniature, zipped=zipped)
    assert any("proj_attn" in name for name in read_pickled(miniature / "vae" / "diffusion_pytorch_model.bin"))
    with pytest.raises(InputError, match=r"pickled \.bin files.*mame convert"):
        Components.load(miniature)
    out = convert(miniature, tmp_path / "deep" / "safe", torch.float32)
    assert not [path for path in out.rglob("*") if path.suffix == ".bin"]
    assert sorted(os.listdir(out.parent)) == ["safe"]
    old, new = Components.load(miniatures["sd15"]), Components.load(out)
    for part in ("unet", "vae", "text_encoder"):
        mine, theirs = getattr(new, part).state_dict(), getattr(old, part).state_dict()
        assert mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine), part
    said = json.loads((out / "mame.json").read_text())
    name = "unet/diffusion_pytorch_model.bin"
    digest = hashlib.sha256((miniature / name).read_bytes()).hexdigest()
    assert said["converted"]["sources"][name] == digest and len(said["converted"]["sources"]) == 3
    assert said["converted"]["dtype"] == "float32"
    assert all(str(tmp_path) not in path.read_text() for path in out.rglob("*.json"))


def test_a_converted_folder_is_one_for_diffusers(miniature: Path, tmp_path: Path) -> None:
    from diffusers import StableDiffusionPipeline

    to_bin(miniature)
    convert(miniature, tmp_path / "safe")
    pipeline = StableDiffusionPipeline.from_pretrained(tmp_path / "safe", torch_dtype=torch.float16)
    assert pipeline.unet.dtype == pipeline.text_encoder.dtype == torch.float16 and pipeline.safety_checker is None


class Program:
    """A pickle that creates a file when it is opened."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_is_a_program_never_runs(miniature: Path, tmp_path: Path, zipped: bool) -> None:
    to_bin(miniature)
    bad, trace = miniature / "unet" / "diffusion_pytorch_model.bin", tmp_path / "trace"
    torch.save({"conv_in.bias": Program(trace)}, bad, _use_new_zipfile_serialization=zipped)
    with pytest.raises(InputError, match=r"diffusion_pytorch_model\.bin was not opened.*do not use it"):
        convert(miniature, tmp_path / "safe")
    assert not trace.exists() and sorted(os.listdir(tmp_path)) == ["miniature"]
    bad.write_bytes(pickle.dumps(Program(trace)))
    with pytest.raises(InputError, match="was not opened"):
        convert(miniature, tmp_path / "safe")
    assert not trace.exists()
    pickle.loads(bad.read_bytes())  # what it would have done
    assert trace.exists()


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04", b"PK\x03\x04" + bytes(200), b"version https://git-lfs.github.com/spec/v1", b"\x80"]
)
def test_what_is_no_file_of_weights_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.bin").write_bytes(content)
    with pytest.raises(InputError, match=r"^model\.bin (is|was) "):
        read_pickled(tmp_path / "model.bin")


@pytest.mark.parametrize("content", [[torch.zeros(1)], {"state_dict": {"a": torch.zeros(1)}}, {"step": 3}])
def test_other_contents_are_told(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "model.bin")
    with pytest.raises(InputError, match="no named tensors"):
        read_pickled(tmp_path / "model.bin")


def test_weights_in_several_pickles(miniature: Path, tmp_path: Path) -> None:
    to_bin(miniature)
    whole = miniature / "unet" / "diffusion_pytorch_model.bin"
    tensors = list(read_pickled(whole).items())
    whole.unlink()
    half = len(tensors) // 2
    for number, some in enumerate((tensors[:half], tensors[half:]), start=1):
        torch.save(dict(some), whole.with_name(f"diffusion_pytorch_model-0000{number}-of-00002.bin"))
    whole.with_name("diffusion_pytorch_model.bin.index.json").write_text("{}")
    parts = Components.load(convert(miniature, tmp_path / "safe", torch.float32))
    assert torch.equal(parts.unet.conv_in.bias, dict(tensors)["conv_in.bias"])


def test_a_shipped_model_becomes_a_folder_for_other_programs(tmp_path: Path) -> None:
    from diffusers import StableDiffusionPipeline

    out = convert("fused", tmp_path / "fused")
    pipeline = StableDiffusionPipeline.from_pretrained(out)
    assert pipeline.unet.config.sample_size == 16
    fused, again = Components.load("fused"), Components.load(out)
    assert {**fused.info, "converted": again.info["converted"]} == again.info
    assert all(torch.equal(a, b) for a, b in zip(fused.unet.parameters(), again.unet.parameters(), strict=True))


def test_what_is_there_is_not_replaced(miniature: Path, tmp_path: Path) -> None:
    before = (miniature / "model_index.json").read_bytes()
    with pytest.raises(InputError, match="is there already; name a new folder"):
        convert("tiny", miniature)
    assert (miniature / "model_index.json").read_bytes() == before


def test_one_flat_network_is_not_a_text_to_image_model(tmp_path: Path) -> None:
    (tmp_path / "flat").mkdir()
    (tmp_path / "flat" / "config.json").write_text('{"_class_name": "UNet2DModel"}')
    with pytest.raises(InputError, match="not a text-to-image model"):
        convert(tmp_path / "flat", tmp_path / "safe")
