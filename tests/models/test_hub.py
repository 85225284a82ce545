"""Which files of a repository are read, and what is said when the Hub does not answer."""

from __future__ import annotations

import os
import shutil
import socket
import time
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest

from mame_lib.errors import InputError
from mame_lib.models import hub
from mame_lib.models.components import Components
from mame_lib.models.hub import fetch, is_cached, listing, weight_files

REPO = "someone/mammograms"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the Hub's client."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def fill(cache: Path, folder: Path) -> Path:
    place = cache / f"models--{REPO.replace('/', '--')}"
    shutil.copytree(folder, place / "snapshots" / "abc")
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text("abc")
    return place / "snapshots" / "abc"


class Api:
    """Answers as the Hub would for a repository of these files."""

    def __init__(self, *files: str) -> None:
        self.files = files

    def __call__(self) -> Api:
        return self

    def model_info(self, repo: str, timeout: float) -> SimpleNamespace:
        return SimpleNamespace(sha="abc", siblings=[SimpleNamespace(rfilename=name) for name in self.files])


@pytest.mark.parametrize(
    "names, chosen",
    [
        (["M.bin", "M.safetensors"], ["M.safetensors"]),
        (["M.non_ema.safetensors", "M.fp16.safetensors", "flax_model.msgpack"], ["M.fp16.safetensors"]),
        (["M.fp16.bin", "M.bin"], ["M.bin"]),
        (
            ["M-00002-of-00002.safetensors", "M-00001-of-00002.safetensors", "M.safetensors.index.json"],
            ["M-00001-of-00002.safetensors", "M-00002-of-00002.safetensors", "M.safetensors.index.json"],
        ),
        (["M-00001-of-00002.safetensors"], []),
        (["M.non_ema.bin", "config.json"], []),
    ],
)
def test_the_best_weights_are_chosen(names: list[str], chosen: list[str]) -> None:
    def files(short: list[str]) -> list[str]:
        return [f"unet/{name.replace('M', 'diffusion_pytorch_model')}" for name in short]

    assert weight_files([*files(names), "vae/diffusion_pytorch_model.safetensors"], "unet") == files(chosen)


def test_offline_it_is_one_sentence_at_once(cache: Path) -> None:
    started = time.monotonic()
    with pytest.raises(InputError, match=rf"cannot load the model '{REPO}' .*HF_HUB_OFFLINE.*connect once") as caught:
        Components.load(REPO)
    assert "\n" not in str(caught.value) and time.monotonic() - started < 5


def test_a_hub_that_never_answers_is_not_waited_for(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(hub, "SECONDS", 0.2)
        api = huggingface_hub.HfApi(endpoint=f"http://127.0.0.1:{deaf.getsockname()[1]}")
        monkeypatch.setattr(huggingface_hub, "HfApi", lambda: api)
        started = time.monotonic()
        with pytest.raises(InputError, match="cannot be reached"):
            fetch(REPO)
        assert time.monotonic() - started < 10


def test_what_is_in_the_cache_needs_no_network(cache: Path, miniatures: dict[str, Path]) -> None:
    assert not is_cached(REPO)
    fill(cache, miniatures["sd15"])
    assert is_cached(REPO)
    assert Components.load(REPO).image_size == 64


def test_only_the_files_that_are_read_are_downloaded(
    cache: Path, miniatures: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = listing(miniatures["sd15"])
    others = (
        "v1-5-pruned.ckpt", "v1-5-pruned.safetensors", "unet/diffusion_pytorch_model.non_ema.safetensors",
        "unet/diffusion_pytorch_model.bin", "unet/diffusion_pytorch_model.fp16.safetensors", "README.md",
        "safety_checker/model.safetensors", "safety_checker/config.json", "feature_extractor/preprocessor_config.json",
    )  # fmt: skip
    asked: dict[str, object] = {}

    def download(repo: str, **options: object) -> str:
        asked.update(options, repo=repo)
        return str(miniatures["sd15"])

    monkeypatch.setattr(huggingface_hub, "HfApi", Api(*wanted, *others))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert Components.load(REPO).image_size == 64
    assert asked["revision"] == "abc" and sorted(asked["allow_patterns"]) == wanted  # type: ignore[call-overload]


def test_pickled_weights_are_not_downloaded_to_load_but_to_convert(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [
        "model_index.json", "unet/diffusion_pytorch_model.bin", "vae/diffusion_pytorch_model.bin",
        "text_encoder/pytorch_model.bin",
    ]  # fmt: skip
    asked: list[str] = []

    def download(repo: str, **options: list[str]) -> str:
        asked.extend(options["allow_patterns"])
        return "somewhere"

    monkeypatch.setattr(huggingface_hub, "HfApi", Api(*files))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(InputError, match=rf"pickled .bin files.*`mame convert {REPO} --out DIR`"):
        Components.load(REPO)
    assert asked == []
    assert fetch(REPO, pickled=True) == Path("somewhere") and sorted(asked) == sorted(files)


@pytest.mark.parametrize(
    "kind, words", [("RepositoryNotFoundError", "shows no such model"), ("GatedRepoError", "accept terms")]
)
def test_a_hub_that_refuses(cache: Path, monkeypatch: pytest.MonkeyPatch, kind: str, words: str) -> None:
    error = getattr(huggingface_hub.errors, kind)

    def model_info(self: object, repo: str, timeout: float) -> None:
        raise error.__new__(error)

    monkeypatch.setattr(Api, "model_info", model_info)
    monkeypatch.setattr(huggingface_hub, "HfApi", Api())
    with pytest.raises(InputError, match=words):
        fetch(REPO)


def test_a_full_cache_is_told(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(repo: str, **options: object) -> str:
        raise OSError(28, os.strerror(28), "cache/blob")

    monkeypatch.setattr(huggingface_hub, "HfApi", Api("model_index.json"))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(InputError, match="No space left"):
        fetch(REPO)
