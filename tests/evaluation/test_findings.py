"""The readers of findings on shapes drawn by hand and on phantoms; the stored measurement of inpainted ones."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from mame_lib.data.case import FINDINGS
from mame_lib.data.lesions import LesionSpec
from mame_lib.data.phantom import draw
from mame_lib.errors import InputError
from mame_lib.evaluation.degradations import round_trip
from mame_lib.evaluation.findings import (
    COEFFICIENTS,
    READ,
    SIGNS,
    WORLDS,
    Reader,
    confusion,
    fit,
    load_findings,
    read_findings,
    signs,
)
from mame_lib.evaluation.realism import Box, ellipse
from mame_lib.models.components import Components

SEED = 974_000  # neither that of the coefficients nor that of the benchmark
FULL = np.ones((128, 128), bool)
BOX: Box = (48, 52, 78, 76)


def sign(image: np.ndarray, name: str, box: Box = BOX) -> float:
    return float(signs(image, box, FULL)[SIGNS.index(name)])


def tissue(seed: int = 0) -> np.ndarray:
    field = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(128, 128)), 1.5)
    return 90 + 8 * field / field.std()


def star(rays: int = 12) -> np.ndarray:
    """A small core and straight lines from it to the border of the box."""
    y, x = np.mgrid[:128, :128] + 0.5
    y, x = (y - 64) / 12, (x - 63) / 15
    rho, turn = np.hypot(x, y), np.arctan2(y, x)
    lines = np.exp(-(np.sin(rays / 2 * turn) ** 2) * 6) * np.clip(1.5 - rho, 0, 1)
    return np.asarray(np.maximum(rho < 0.3, 0.8 * lines))


def specks(count: int) -> np.ndarray:
    rng = np.random.default_rng(7)
    image = np.zeros((128, 128))
    places = rng.permutation(np.argwhere(ellipse(BOX, 128, 0.8))[::7])[:count]
    image[tuple(places.T)] = 1
    return image


@lru_cache(maxsize=1)
def phantoms() -> tuple[np.ndarray, list[Box], np.ndarray, list[str]]:
    """24 breasts with a lesion of 20 px or so, the specks bright, and eight without: images, boxes, breasts, words."""
    images, boxes, breasts, words = [], [], [], []
    for k in range(24):
        finding = FINDINGS[1 + k % 3]
        spec = LesionSpec.of_finding(finding, 0.0, 0.02)
        spec = replace(spec, contrast=1.0) if k % 3 == 2 else spec
        try:
            ill = draw(seed=SEED, index=k, lesion=spec)
        except InputError:
            ill = draw(seed=SEED, index=k, lesion=replace(spec, area=0.005))
        images.append(ill.image)
        boxes.append(ill.lesions[0].box)
        breasts.append(ill.mask)
        words.append(finding)
        if k % 3 == 0:
            images.append(draw(seed=SEED, index=k).image)
            boxes.append(ill.lesions[0].box)
            breasts.append(ill.mask)
            words.append(READ[0])
    return np.stack(images), boxes, np.stack(breasts), words


# --- signs


def test_a_blob_has_the_planted_core_and_edge() -> None:
    blob = 90 + 30 * ellipse(BOX, 128).astype(float)
    assert sign(blob, "core") == pytest.approx(30) and sign(blob, "rim") == pytest.approx(30, rel=0.15)
    assert sign(np.full((128, 128), 90), "core") == 0 and sign(180 - blob, "core") == pytest.approx(-30)
    soft = ndimage.gaussian_filter(blob, 3)
    assert sign(soft, "edge") < sign(blob, "edge") and sign(soft, "rim") < sign(blob, "rim")


def test_lines_from_a_core_are_radial() -> None:
    blob, rays = (tissue() + 40 * shape for shape in (ellipse(BOX, 128).astype(float), star()))
    assert sign(rays, "radial") > 0.6 > sign(blob, "radial")
    assert sign(rays, "rim") < sign(blob, "rim")
    lines = [sign(tissue() + strength * star(), "radial") for strength in (0, 20, 40, 80)]
    assert lines == sorted(lines) and 0.3 < lines[0] < 0.7


def test_mottle_is_of_the_rim_alone() -> None:
    noise = np.random.default_rng(3).normal(0, 9, (128, 128))
    rim = ~ellipse(BOX, 128, 0.6)
    assert sign(90 + noise * rim, "mottle") > 1 > abs(sign(90 + noise, "mottle"))
    assert sign(90 + noise * ~rim, "mottle") < -1


def test_specks_are_counted_when_they_outshine_the_tissue() -> None:
    counts = [np.expm1(sign(tissue() + 60 * specks(n), "specks")) for n in (0, 3, 6, 12)]
    assert counts[0] <= 3 and counts == sorted(counts) and counts[3] >= 8
    grains = [sign(tissue() + level * specks(12), "grain") for level in (0, 20, 40, 80)]
    assert grains == sorted(grains)
    assert np.expm1(sign(tissue() + 3 * specks(12), "specks")) <= 4  # what tissue drowns is not found


def test_signs_do_not_see_what_is_far_away() -> None:
    image = tissue()
    other = image.copy()
    other[:30] += 50
    assert np.array_equal(signs(image, BOX, FULL), signs(other, BOX, FULL))


def test_mirrored_tissue_has_the_same_signs() -> None:
    image = tissue() + 30 * star()
    mirrored = signs(image[:, ::-1], (128 - BOX[2], BOX[1], 128 - BOX[0], BOX[3]), FULL)
    assert mirrored == pytest.approx(signs(image, BOX, FULL), abs=1e-6)


@pytest.mark.parametrize("box", [(40, 40, 40, 60), (60, 40, 40, 60)])
def test_an_empty_box_is_refused(box: Box) -> None:
    with pytest.raises(InputError, match="is empty"):
        signs(tissue(), box, FULL)


def test_a_box_in_the_air_is_refused() -> None:
    with pytest.raises(InputError, match="needs breast around it"):
        signs(tissue(), BOX, ~FULL)


# --- the regression


def test_a_fit_finds_what_tells_words_apart() -> None:
    rng = np.random.default_rng(0)
    words = [READ[k % 4] for k in range(400)]
    rows = rng.normal(size=(400, len(SIGNS)))
    rows[:, 2] += [6 * READ.index(word) for word in words]
    reader = fit(rows, words, ridge=0.1)
    chances = reader.chances(rows)
    assert chances.shape == (400, 4) and np.allclose(chances.sum(1), 1)
    assert np.mean(chances.argmax(1) == [READ.index(word) for word in words]) > 0.97
    strong = np.abs(reader.weights[:-1]).max(1)
    assert strong.argmax() == 2
    shrunk = fit(rows, words, ridge=1e6)
    assert np.allclose(shrunk.chances(rows), 0.25, atol=0.01)  # only the intercepts are left


def test_the_fit_is_at_the_maximum() -> None:
    """The gradient of the penalized likelihood, by finite differences, vanishes there."""
    rng = np.random.default_rng(1)
    words = [READ[k % 4] for k in range(60)]
    rows = rng.normal(size=(60, len(SIGNS)))
    reader = fit(rows, words, ridge=2.0)
    truth = [READ.index(word) for word in words]

    def loss(weights: np.ndarray) -> float:
        chances = Reader(reader.mean, reader.sd, weights).chances(rows)
        return -float(np.log(chances[range(60), truth]).sum()) + float((weights[:-1] ** 2).sum())

    best = loss(reader.weights)
    for _ in range(20):
        assert loss(reader.weights + 0.02 * rng.normal(size=reader.weights.shape)) > best


@pytest.mark.parametrize("words", [["nothing"] * 4, ["nothing", "mass", "spiculated mass", "lesion"]])
def test_words_that_cannot_be_told_are_refused(words: list[str]) -> None:
    with pytest.raises(InputError, match="each row needs one of the words"):
        fit(np.zeros((4, len(SIGNS))), words)


def test_confusion_counts_by_hand() -> None:
    counts = confusion(["mass", "mass", "nothing"], ["mass", "nothing", "nothing"])
    assert counts.tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert confusion(["lesion"], ["mass"], rows=["lesion"]).tolist() == [[0, 1, 0, 0]]


# --- the shipped readers


def test_coefficients_say_where_they_come_from() -> None:
    stored = json.loads(Path(COEFFICIENTS).read_text(encoding="utf-8"))
    assert stored["words"] == list(READ) and stored["signs"] == list(SIGNS)
    assert stored["provenance"]["command"].startswith("python tools/fit_findings.py")
    for world in WORLDS:
        reader = load_findings(world)
        assert reader.weights.shape == (len(SIGNS) + 1, len(READ)) and reader.mean.shape == (len(SIGNS),)
    with pytest.raises(InputError, match="use drawn or decoded"):
        load_findings("painted")


def test_many_boxes_are_read_as_each() -> None:
    images = np.stack([tissue(k) + 40 * shape for k, shape in enumerate((star(), specks(9), 0 * star()))])
    for world in WORLDS:
        chances = read_findings(images, [BOX] * 3, [FULL] * 3, world=world)
        rows = np.stack([signs(image, BOX, FULL) for image in images])
        assert np.array_equal(chances, load_findings(world).chances(rows)) and np.allclose(chances.sum(1), 1)


@pytest.mark.slow
def test_true_findings_are_read_as_drawn() -> None:
    images, boxes, breasts, words = phantoms()
    chances = read_findings(images, boxes, breasts, world="drawn")
    assert np.allclose(chances.sum(1), 1)
    counts = confusion(words, [READ[k] for k in chances.argmax(1)])
    shares = np.diag(counts) / counts.sum(1)
    assert shares[READ.index("calcification cluster")] >= 0.75 and shares.mean() > 0.6
    masses = counts[1:3, 1:3].sum() / counts[1:3].sum()
    assert masses > 0.85  # a mass of either kind


@pytest.mark.slow
def test_the_autoencoder_takes_the_specks() -> None:
    images, boxes, breasts, words = phantoms()
    decoded = round_trip(images, Components.load("tiny").vae)
    chances = [read_findings(some, boxes, breasts, world=w) for some, w in zip((images, decoded), WORLDS, strict=True)]
    cluster = np.array([word == "calcification cluster" for word in words])
    kept = [c[cluster, 3].mean() - c[np.array(words) == "nothing", 3].mean() for c in chances]
    assert kept[0] > 0.4 and kept[1] < 0.5 * kept[0]
    seen = [c[np.array(words) == "mass", 0].mean() for c in chances]
    assert max(seen) < 0.3  # while masses stay
