"""Inpainting from end to end: the outside stays, the inside depends on the seed alone, and the whole pipeline."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mame_lib.cli import main
from mame_lib.data.phantom import draw
from mame_lib.errors import InputError
from mame_lib.generation import Inpainted, Mame
from tests.data.test_canvas import a_box, picture

BOX = (20, 50, 40, 72)


@pytest.fixture(scope="module")
def model() -> Mame:
    return Mame.load("inpaint")


@pytest.fixture(scope="module")
def breast() -> np.ndarray:
    return draw(size=128, seed=5, index=3).image


def outside(one: Inpainted) -> int:
    return int((one.pixels != one.original)[~one.mask].sum())


def test_one_filling(model: Mame, breast: np.ndarray, tmp_path: Path) -> None:
    one = model.inpaint(breast, box=BOX, steps=3, seed=4)[0]
    assert outside(one) == 0 and (one.pixels != breast)[one.mask].mean() > 0.5
    assert one.box == BOX and one.raw.shape == (128, 128) and one.prompt == "a mammogram with a lesion"
    assert (one.raw != breast)[~one.mask].any()  # the autoencoder touches everything, the paste-back nothing
    path = one.save(tmp_path / "a.png")
    with Image.open(path) as saved, Image.open(tmp_path / "a.mask.png") as mask:
        recipe = json.loads(saved.text["mame"])  # type: ignore[attr-defined]
        assert np.array_equal(np.asarray(saved), one.pixels) and np.array_equal(np.asarray(mask) > 0, one.mask)
        assert "not for diagnosis" in saved.text["Disclaimer"] == mask.text["Disclaimer"]  # type: ignore[attr-defined]
    assert recipe["box"] == list(BOX) and recipe["seed"] == 4 and recipe["model"] == "inpaint"
    again = model.inpaint(path, tmp_path / "a.mask.png", steps=3, seed=4)[0]  # what was saved can be gone on with
    assert again.box == BOX and outside(again) == 0


def test_a_filling_depends_on_its_seed_and_index_alone(model: Mame, breast: np.ndarray) -> None:
    together = model.inpaint(breast, box=BOX, steps=3, seed=4, count=3)
    alone = model.inpaint(breast, box=BOX, steps=3, seed=4, count=3, batch_size=1)
    tail = model.inpaint(breast, box=BOX, steps=3, seed=4, start_index=2)
    for a, b in [*zip(together, alone, strict=True), (together[2], tail[0])]:
        assert int(np.abs(a.pixels.astype(int) - b.pixels).max()) <= 1 and a.index == b.index
    assert not np.array_equal(together[0].pixels, together[1].pixels)


def test_pictures_masks_and_prompts_go_in_step(model: Mame, breast: np.ndarray) -> None:
    other = draw(size=128, seed=5, index=4).image
    mask = np.zeros((128, 128), bool)
    mask[50:72, 20:40] = True
    pair = model.inpaint([breast, other], [mask, mask], prompt=["a mammogram", "a mammogram with a mass"], steps=2)
    assert [one.prompt for one in pair] == ["a mammogram", "a mammogram with a mass"]
    assert np.array_equal(pair[0].original, breast) and np.array_equal(pair[1].original, other)
    boxes = model.inpaint([breast, other], box=[BOX, (20, 50, 30, 60)], steps=1)
    assert [one.box for one in boxes] == [BOX, (20, 50, 30, 60)]


def test_a_right_breast_is_the_mirror_of_a_left_one(model: Mame, breast: np.ndarray) -> None:
    left = model.inpaint(breast, box=BOX, steps=3)[0]
    right = model.inpaint(breast[:, ::-1].copy(), box=(128 - BOX[2], BOX[1], 128 - BOX[0], BOX[3]), steps=3)[0]
    assert np.array_equal(right.pixels[:, ::-1], left.pixels)


def test_detail_of_the_picture_may_stay(model: Mame, breast: np.ndarray) -> None:
    rough, kept = (model.inpaint(breast, box=BOX, steps=3, keep_detail=k, feather=0)[0] for k in (False, True))
    assert np.array_equal(rough.pixels[rough.mask], rough.raw[rough.mask])

    def grain(image: np.ndarray) -> float:
        return float(np.abs(np.diff(image.astype(float), 2, axis=1))[50:72, 20:38].mean())

    assert grain(kept.pixels) > 1.5 * grain(rough.pixels)


@pytest.mark.slow
def test_any_size_and_depth_through_the_model(model: Mame) -> None:
    rng = np.random.default_rng(8)
    for number in range(24):
        height, width = (int(side) for side in rng.integers(90, 700, 2))
        levels = picture(height, width, (8, 12, 16)[number % 3], bool(number % 2), number % 5)
        one = model.inpaint(levels, a_box(levels, rng), steps=1, seed=number)[0]
        assert outside(one) == 0 and one.pixels.dtype == levels.dtype and (one.pixels != levels).any()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({}, "either a mask or a box"),
        ({"box": BOX, "mask": np.ones((128, 128), bool)}, "either a mask or a box"),
        ({"box": (110, 5, 125, 20)}, "lies on the breast"),
        ({"box": BOX, "steps": 0}, "steps is 0"),
        ({"box": BOX, "guidance_scale": float("nan")}, "finite"),
        ({"box": BOX, "feather": -1.0}, "feather is -1"),
        ({"box": BOX, "count": 0}, "count is 0"),
        ({"box": BOX, "prompt": ["a", "b"]}, "2 prompts for 1 pictures"),
    ],
)
def test_mistakes_have_one_sentence(model: Mame, breast: np.ndarray, arguments: dict, reason: str) -> None:
    with pytest.raises(InputError, match=reason) as caught:
        model.inpaint(breast, **arguments)
    assert "\n" not in str(caught.value)


def test_a_text_model_cannot_inpaint(breast: np.ndarray) -> None:
    with pytest.raises(InputError, match="can't inpaint"):
        Mame.load("fused").inpaint(breast, box=BOX, steps=1)


def test_the_whole_pipeline_in_one_call(model: Mame) -> None:
    fused = Mame.load("fused")
    asked = {"steps": 3, "seed": 9, "count": 3}
    made = fused.generate_with_lesion("a siemens mammogram in MLO view", inpainter=model, finding="mass", **asked)
    healthy = fused.generate("a siemens mammogram in MLO view", **asked)
    for one, twin in zip(made, healthy, strict=True):
        assert np.array_equal(one.original, twin.pixels) and np.array_equal(one.healthy.pixels, twin.pixels)
        assert outside(one) == 0 and (one.pixels != twin.pixels).any() and one.prompt == "a mammogram with a mass"
        assert one.recipe()["healthy"]["prompt"] == "a siemens mammogram in MLO view"
    assert len({one.box for one in made}) > 1  # each breast has a place of its own
    tail = fused.generate_with_lesion(
        "a siemens mammogram in MLO view", inpainter="inpaint", finding="mass", steps=3, seed=9, start_index=2
    )
    assert tail[0].box == made[2].box and np.abs(tail[0].pixels.astype(int) - made[2].pixels).max() <= 1
    fixed = fused.generate_with_lesion("a mammogram", BOX, inpainter=model, steps=1)
    assert fixed[0].box == BOX
    for mistake, reason in (({"box": "here"}, "neither"), ({"finding": "cyst"}, "cyst")):
        with pytest.raises(InputError, match=reason):
            fused.generate_with_lesion("a mammogram", inpainter=model, steps=1, **mistake)


def test_command_line(model: Mame, breast: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    deep = breast.astype(np.uint16) * 16
    Image.fromarray(deep).save(tmp_path / "in.png")
    command = ["inpaint", str(tmp_path / "in.png"), "--box", "20,50,40,72", "--steps", "2", "--count", "2"]
    assert main([*command, "--out", str(tmp_path / "out.png")]) == 0
    assert capsys.readouterr().out.split() == [str(tmp_path / "out.png"), str(tmp_path / "out-1.png")]
    with Image.open(tmp_path / "out.png") as made:
        values = np.asarray(made)
    mask = np.zeros((128, 128), bool)
    mask[50:72, 20:40] = True
    assert values.dtype == np.uint16 and np.array_equal(values[~mask], deep[~mask]) and (values != deep).any()
    assert main([*command, "--out", str(tmp_path / "in.png")]) == 2
    assert main(["inpaint", str(tmp_path / "no.png"), "--box", "1,2,3,4", "--out", str(tmp_path / "b.png")]) == 2
    assert main(["inpaint", str(tmp_path / "in.png"), "--box", "1,2,3", "--out", str(tmp_path / "b.png")]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 3 and all(line.startswith("mame: error: ") for line in errors)
    lesion = ["generate", "a mammogram in CC view", "--lesion", "--finding", "mass", "--steps", "2", "--out"]
    assert main([*lesion, str(tmp_path / "c.png")]) == 0
    assert (tmp_path / "c.png").exists() and (tmp_path / "c.mask.png").exists()
