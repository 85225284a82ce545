"""Features from networks: the shipped one, any module, and models of transformers from a folder."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from mame_lib.data.phantom import Phantom, draw
from mame_lib.errors import InputError
from mame_lib.evaluation import degradations, features

Gray = NDArray[np.uint8]
SEED = 42_900_000  # no network was trained on these


@lru_cache(maxsize=1)
def phantoms() -> tuple[Phantom, ...]:
    return tuple(draw(seed=SEED, index=k) for k in range(16))


def images() -> Gray:
    return np.stack([one.image for one in phantoms()])


class Corner(nn.Module):
    """Whatever a network may give back, of the upper left corner of what it is given."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: torch.Tensor) -> object:
        corner = x[:, :, :2, :2]
        if self.kind == "map":
            return corner
        if self.kind == "tokens":
            return corner.flatten(2)
        if self.kind == "nothing":
            return [corner]
        return corner.mean((2, 3))


def test_the_shipped_network_is_small_and_says_where_it_comes_from() -> None:
    assert features.WEIGHTS.stat().st_size < 600_000
    with safe_open(features.WEIGHTS, "pt") as file:
        said = file.metadata()
    assert said["seed"] == "41000000" and {f"worth_{name}" for name in features.TARGETS} <= said.keys()
    assert sum(p.numel() for p in features.PhantomNetwork().parameters()) < 100_000


def test_features_of_phantoms_have_the_scale_that_they_should_have() -> None:
    found = features.phantom_features()(images())
    assert found.shape == (16, features.DIMENSIONS) and found.dtype == np.float32
    assert np.abs(found.mean(0)).mean() < 0.5 and 0.6 < found.std(0).mean() < 1.3


def test_an_image_has_the_same_features_in_any_company() -> None:
    """Alone, among others, and on two threads: equal bits."""
    extract, several = features.phantom_features(), images()
    together = extract(several)
    assert np.array_equal(together[5], extract(several[5:6])[0])
    assert np.array_equal(together, extract(np.tile(several, (3, 1, 1)))[16:32])
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert np.array_equal(together, extract(several))
    finally:
        torch.set_num_threads(threads)


def test_every_damage_moves_the_features_the_more_the_stronger_it_is() -> None:
    extract, rng = features.phantom_features(), np.random.default_rng(0)
    clean = extract(images())
    for name, strengths in {"noise": (1, 3, 9), "blur": (0.5, 1, 2), "gray": (4, 12, 40), "jpeg": (85, 50, 15)}.items():
        away = []
        for strength in strengths:
            spoil = {
                "noise": lambda one, s=strength: degradations.noisy(one.image, s, rng),
                "blur": lambda one, s=strength: degradations.blurred(one.image, s),
                "gray": lambda one, s=strength: degradations.gray_background(one.image, one.mask, s),
                "jpeg": lambda one, s=strength: degradations.jpeg(one.image, s),
            }[name]
            spoiled = np.stack([spoil(one) for one in phantoms()])
            away.append(float(np.linalg.norm(extract(spoiled) - clean, axis=1).mean()))
        assert 0.5 < away[0] < away[1] < away[2], (name, away)


@torch.no_grad()
def test_its_head_reads_what_it_was_trained_on() -> None:
    network = features.phantom_features().module
    assert isinstance(network, features.PhantomNetwork)
    pixels = torch.from_numpy(images()).float()[:, None] / 255
    said = dict(zip(features.TARGETS, network.head(network.raw(pixels)).T.numpy(), strict=True))
    truth = {
        "view": np.array([one.attributes.view == "MLO" for one in phantoms()]),
        "vendor": np.array([one.attributes.vendor == "siemens" for one in phantoms()]),
    }
    for name, is_so in truth.items():
        assert ((said[name] > 0) == is_so).mean() > 0.85, name
    assert np.corrcoef(said["area"], [one.area_ratio for one in phantoms()])[0, 1] > 0.97
    assert np.corrcoef(said["gland"], [one.glandular_fraction**0.5 for one in phantoms()])[0, 1] > 0.9
    assert (said["side"] < 0).all()


def test_other_sizes_are_brought_to_its_own() -> None:
    extract = features.phantom_features()
    large = np.repeat(np.repeat(images(), 2, 1), 2, 2)
    assert np.abs(extract(large) - extract(images())).mean() < 0.5


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((2, 8, 8), np.float32), np.zeros((8, 8), np.uint8), np.zeros((2, 8, 9), np.uint8),
        np.zeros((0, 8, 8), np.uint8), [np.zeros((8, 8), np.uint8), np.zeros((9, 9), np.uint8)],
    ],
)  # fmt: skip
def test_images_that_have_no_features(wrong: object) -> None:
    with pytest.raises(InputError):
        features.phantom_features()(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(("kind", "d"), [("vector", 3), ("map", 3), ("tokens", 3)])
def test_any_module_gives_features(kind: str, d: int) -> None:
    extract = features.module_features(Corner(kind), size=16, channels=3, mean=0.25, std=0.5, batch_size=4)
    found = extract(np.full((7, 16, 16), 51, np.uint8))
    expected = np.full((7, 4 if kind == "tokens" else d), (0.2 - 0.25) / 0.5)
    assert found == pytest.approx(expected, abs=1e-6) and extract.name == "Corner"


def test_weights_from_a_file_fill_the_whole_module(tmp_path: Path) -> None:
    def network(outputs: int) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(3, outputs, 4, stride=4), nn.BatchNorm2d(outputs))

    torch.manual_seed(3)
    trained, file = network(5), tmp_path / "net.safetensors"
    save_file({**trained.state_dict(), "fc.weight": torch.zeros(2, 5)}, file)  # with a classifier that is not wanted
    found = features.module_features(network(5), size=16, weights=file)(images())
    assert np.array_equal(found, features.module_features(trained, size=16)(images())) and found.shape == (16, 5)
    with pytest.raises(InputError, match="cannot be loaded"):
        features.module_features(network(6), size=16, weights=file)
    with pytest.raises(InputError, match=r"no '0\.weight' \(6 are missing\)"):
        save_file({"other": torch.zeros(1)}, file)
        features.module_features(network(5), size=16, weights=file)
    with pytest.raises(InputError, match="cannot be loaded"):
        features.module_features(network(5), size=16, weights=tmp_path / "missing.safetensors")


def test_a_module_without_features_is_refused() -> None:
    with pytest.raises(InputError, match=r"Corner gives list; features are a tensor"):
        features.module_features(Corner("nothing"), size=16)(images())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["vit", "dinov2", "resnet"])
def test_models_of_transformers_from_a_folder(kind: str, tmp_path: Path) -> None:
    import transformers as t

    torch.manual_seed(0)
    made = {
        "vit": lambda: t.ViTModel(t.ViTConfig(
            hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=32,
            patch_size=8,
        )),
        "dinov2": lambda: t.Dinov2Model(t.Dinov2Config(
            hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14
        )),
        "resnet": lambda: t.ResNetModel(t.ResNetConfig(
            embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic"
        )),
    }[kind]()  # fmt: skip
    made.save_pretrained(tmp_path)
    if kind != "resnet":
        said = {"crop_size": {"height": 28, "width": 28}, "image_mean": [0.5] * 3, "image_std": [0.25] * 3}
        (tmp_path / "preprocessor_config.json").write_text(str(said).replace("'", '"'))
    extract = features.load_features(tmp_path, size=32 if kind == "vit" else None)
    assert extract.size == {"vit": 32, "dinov2": 28, "resnet": 224}[kind]
    found = extract(images())
    assert found.shape == (16, 16) and np.isfinite(found).all() and found.std(0).max() > 0
    assert np.array_equal(found[:3], extract(images()[:3])), "an image has the same features in any company"
    assert float(extract.mean[0, 0]) == pytest.approx(0.485 if kind == "resnet" else 0.5)


@pytest.mark.slow  # it imports transformers
def test_models_that_cannot_be_loaded(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    for source in (tmp_path, tmp_path / "missing"):
        with pytest.raises(InputError, match="cannot be loaded"):
            features.load_features(source)
    damaged = tmp_path / "features.safetensors"
    damaged.write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"tools/train_features\.py"):
        features.phantom_features(damaged)
    assert features.load_features("phantom") is features.phantom_features()


@pytest.mark.slow
def test_a_language_model_is_no_vision_model(tmp_path: Path) -> None:
    from transformers import BertConfig, BertModel

    small = BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=10)
    BertModel(small).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="no vision model"):
        features.load_features(tmp_path)
