"""The latent cache: right, never stale, never half-written, and not in the way."""

from __future__ import annotations

import errno
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import mame_lib.models.cache as cache
from mame_lib.data import manifest
from mame_lib.data.sources import phantom_source
from mame_lib.errors import InputError
from mame_lib.models.cache import cache_folder, cached, digest_of, encode, key_of
from mame_lib.models.components import Components
from mame_lib.models.latents import encode_moments
from mame_lib.training.config import TrainConfig
from mame_lib.training.images import class_images
from mame_lib.training.setup import prepare


@pytest.fixture(scope="module")
def tiny() -> Components:
    return Components.load("tiny")


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cache") / "data"
    manifest.write(folder, phantom_source(6, 128, 3), source="phantom", settings={})
    return folder


@pytest.fixture
def data(original, tmp_path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "data"))


def ready(data: Path, **changes):
    """Encode a data set, and say which cache files there are now."""
    out = data.parent / "run"
    config = TrainConfig(data=data, out=out, **changes)
    _, prepared = prepare(config)
    return prepared.training_set, sorted(p.name for p in (data / ".cache").glob("*"))


def test_cached_moments_are_those_of_the_autoencoder(tiny, data) -> None:
    training_set, names = ready(data)
    assert training_set.moments.dtype == np.float16 and training_set.moments.shape[1:] == (2, 4, 16, 16)
    assert isinstance(training_set.moments, np.memmap) and all(n.endswith(".npy") for n in names)
    case = {c.id: c for c in manifest.load(data).cases}[training_set.ids[2]]
    with Image.open(data / case.image) as image:
        moments = encode_moments(tiny.vae, np.asarray(image.convert("L"))[None])
    torch.testing.assert_close(torch.from_numpy(np.array(training_set.moments[2, 0])).float(), moments.mean[0],
                               rtol=1e-3, atol=5e-3)  # fmt: skip
    torch.testing.assert_close(torch.from_numpy(np.array(training_set.moments[2, 1])).float(), moments.std[0],
                               rtol=1e-2, atol=1e-3)  # fmt: skip


def test_a_second_run_encodes_nothing(data, monkeypatch) -> None:
    first, names = ready(data)
    import mame_lib.training.setup as setup

    monkeypatch.setattr(setup, "encode", lambda *_: pytest.fail("encoded again"))
    second, same_names = ready(data, constant_prompt="captions are not part of it")
    assert names == same_names and np.array_equal(first.moments, second.moments)


def test_a_changed_pixel_is_seen(data) -> None:
    first, names = ready(data)
    case = {c.id: c for c in manifest.load(data).cases}[first.ids[0]]
    with Image.open(data / case.image) as image:
        pixels = np.array(image)
    pixels[64, 64] ^= 255
    Image.fromarray(pixels).save(data / case.image)
    second, more = ready(data)
    assert set(more) > set(names), "a new file beside the old"
    assert not np.array_equal(first.moments[0], second.moments[0])
    assert np.array_equal(first.moments[1:], second.moments[1:])


def test_another_autoencoder_or_size_is_another_cache(tiny, data, tmp_path) -> None:
    _, names = ready(data)
    other = Components.load("tiny")
    with torch.no_grad():
        other.vae.encoder.conv_in.bias.add_(0.01)
    other.save(tmp_path / "other", dtype=torch.float32)
    _, more = ready(data, base=str(tmp_path / "other"))
    assert len(more) > len(names) and set(names) < set(more)
    assert digest_of(tiny.vae) != digest_of(other.vae)
    assert digest_of(tiny.vae) == digest_of(Components.load("tiny").vae)
    assert len({key_of(["v", "128"]), key_of(["v", "256"]), key_of(["v1", "28"]), key_of(["v", "12", "8"])}) == 4


def test_a_digest_sees_every_bit_of_every_weight() -> None:
    layer = torch.nn.Linear(3, 3)
    before = digest_of(layer)
    with torch.no_grad():
        layer.bias[2] = torch.nextafter(layer.bias[2], torch.tensor(9.0))
    assert digest_of(layer) != before
    assert digest_of(torch.nn.Sequential(layer)) != digest_of(layer), "names count"


def test_a_cache_is_written_whole_or_not_at_all(tmp_path) -> None:
    path, calls = tmp_path / ".cache" / "x.npy", []

    def rows(first: int, last: int) -> np.ndarray:
        calls.append((first, last))
        if len(calls) == 2:
            raise RuntimeError("the machine stumbles")
        return np.full((last - first, 3), first, np.float16)

    with pytest.raises(RuntimeError):
        cached(path, (130, 3), rows)
    assert list(path.parent.iterdir()) == []
    made = cached(path, (130, 3), rows)
    assert calls[2:] == [(0, 64), (64, 128), (128, 130)]
    assert made.shape == (130, 3) and made[129, 0] == 128 and made[63, 2] == 0 and made[64, 0] == 64
    assert [p.name for p in path.parent.iterdir()] == ["x.npy"]
    again = cached(path, (130, 3), lambda *_: pytest.fail("made again"))
    assert np.array_equal(again, made) and not again.flags.writeable


def test_a_full_disk_is_one_sentence(tmp_path, monkeypatch) -> None:
    def full(number: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(cache.os, "fsync", full)
    with pytest.raises(InputError, match=r"cannot write the latent cache .* \(No space left on device\); make room"):
        cached(tmp_path / "x.npy", (2, 3), lambda a, b: np.zeros((b - a, 3), np.float16))
    assert list(tmp_path.iterdir()) == []


def test_data_that_may_not_be_written_to_are_cached_in_the_run(tmp_path, monkeypatch) -> None:
    data, run = tmp_path / "data", tmp_path / "run"
    data.mkdir()
    assert cache_folder(data, run) == data / ".cache"
    monkeypatch.setattr(cache.os, "access", lambda path, mode: Path(path) != data)  # root may write anywhere
    assert cache_folder(data, run) == run / ".cache"


def test_read_only_data_are_trained_on_and_left_as_they_were(data, tmp_path, monkeypatch) -> None:
    from mame_lib.training.loop import fit

    monkeypatch.setattr(cache.os, "access", lambda path, mode: Path(path) != data)
    before = sorted(p.relative_to(data) for p in data.rglob("*"))
    config = TrainConfig(data=data, out=tmp_path / "run", steps=1, batch_size=2, validation_every=0)
    assert list(fit(config))[-1].model is not None
    assert sorted(p.relative_to(data) for p in data.rglob("*")) == before
    assert list((tmp_path / "run" / ".cache").glob("moments-*.npy"))


def test_junk_in_the_data_folder_does_no_harm(data) -> None:
    """Hidden files, editors' leftovers, notebooks' folders and half a cache of another day."""
    first, names = ready(data)
    for name in (".DS_Store", "images/.DS_Store", "images/._0.png", "images/Thumbs.db", "images/notes.txt"):
        (data / name).write_bytes(b"junk")
    (data / "images" / ".ipynb_checkpoints").mkdir()
    (data / ".cache" / f"{names[0]}.12345.partial").write_bytes(b"half")
    (data / ".cache" / "notes.txt").write_text("?")
    second, _ = ready(data)
    assert second.ids == first.ids and np.array_equal(first.moments, second.moments)
    assert manifest.load(data).cases


def test_what_a_killed_run_left_is_swept_away_after_a_day(data) -> None:
    """Not before: it may be another run's, at work this moment."""
    folder = data / ".cache"
    folder.mkdir(exist_ok=True)
    for name, age in (("moments-old.npy.1.partial", 90_000), ("moments-new.npy.2.partial", 60)):
        (folder / name).write_bytes(b"half")
        os.utime(folder / name, (time.time() - age,) * 2)
    ready(data)
    assert [p.name for p in folder.glob("*.partial")] == ["moments-new.npy.2.partial"]


def test_gray_values_between_two_grays_are_encoded_as_they_are(tiny) -> None:
    """The masked pixels of inpainting are 127.5: rounding them to 127 or 128 would be another image."""
    half, below, above = (encode(tiny.vae, np.full((1, 128, 128), v, np.float32)) for v in (127.5, 127.0, 128.0))
    middle = (below[:, 0].astype(float) + above[:, 0].astype(float)) / 2
    assert half.dtype == np.float16 and half.shape == (1, 2, 4, 16, 16)
    assert np.abs(half[:, 0] - middle).max() < np.abs(below[:, 0].astype(float) - above[:, 0]).max()


def test_class_images_are_keyed_by_prompt_model_sampler_count_and_seed(tiny, tmp_path, monkeypatch) -> None:
    import mame_lib.training.images as images

    drawn = []

    def draw(components, prompts, noise, **options):
        drawn.append((len(prompts), options))
        return np.full((len(prompts), 128, 128), len(drawn), np.uint8)

    monkeypatch.setattr(images, "draw", draw)
    folder, key = class_images(tiny, "a circle", 3, 5, tmp_path, batch_size=2)
    assert [n for n, _ in drawn] == [2, 1] and sorted(p.name for p in folder.iterdir()) == [
        "000000.png", "000001.png", "000002.png"
    ]  # fmt: skip
    assert class_images(tiny, "a circle", 3, 5, tmp_path) == (folder, key) and len(drawn) == 2, "drawn once"
    other = Components.load("tiny")
    with torch.no_grad():
        other.unet.conv_out.bias.add_(1e-3)
    keys = {key, *(class_images(tiny, *rest, tmp_path)[1] for rest in (("a star", 3, 5), ("a circle", 4, 5),
                                                                       ("a circle", 3, 6)))}  # fmt: skip
    keys.add(class_images(other, "a circle", 3, 5, tmp_path)[1])
    monkeypatch.setattr(images, "CLASS_STEPS", 30)
    keys.add(class_images(tiny, "a circle", 3, 5, tmp_path)[1])
    assert len(keys) == 6
    assert not list(tmp_path.glob("*.partial")) and not list(tmp_path.glob(".*partial"))


def test_class_images_are_what_the_base_model_draws(tiny, tmp_path) -> None:
    from mame_lib.diffusion.start import initial_noise
    from mame_lib.training.images import draw

    folder, _ = class_images(tiny, "a big white circle", 2, 5, tmp_path)
    noise = initial_noise(5, range(2), tiny.latent_shape)
    wanted = draw(tiny, ["a big white circle"] * 2, noise, guidance_scale=4.0, steps=24)
    found = [np.asarray(Image.open(folder / f"00000{index}.png")) for index in range(2)]
    assert np.array_equal(np.stack(found), wanted)


def test_half_drawn_class_images_vanish(tiny, tmp_path, monkeypatch) -> None:
    import mame_lib.training.images as images

    def tired(components, prompts, noise, **options):
        if int((tmp_path / "calls").read_text() or 0):
            raise KeyboardInterrupt
        (tmp_path / "calls").write_text("1")
        return np.zeros((len(prompts), 128, 128), np.uint8)

    (tmp_path / "calls").write_text("0")
    monkeypatch.setattr(images, "draw", tired)
    with pytest.raises(KeyboardInterrupt):
        class_images(tiny, "a circle", 4, 0, tmp_path / "cache", batch_size=2)
    assert not (tmp_path / "cache").exists() or not any((tmp_path / "cache").iterdir())
