"""Generation: same seed, same pixels, in any batch; every bad argument has its sentence."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mame_lib.data.case import Attributes
from mame_lib.errors import InputError
from mame_lib.generation import Mame
from mame_lib.redraw import redraw_seed

PROMPT = "a siemens mammogram in MLO view with high density and small area"


@pytest.fixture(scope="module")
def mame() -> Mame:
    return Mame.load("fused")


@pytest.mark.slow
def test_same_seed_same_pixels_in_another_process(mame: Mame, tmp_path) -> None:
    here = mame.generate(PROMPT, seed=7, steps=4)[0].save(tmp_path / "here.png")
    code = (
        "import sys; from mame_lib import Mame; "
        "Mame.load('fused').generate(sys.argv[1], seed=7, steps=4)[0].save(sys.argv[2])"
    )
    subprocess.run([sys.executable, "-c", code, PROMPT, str(tmp_path / "there.png")], check=True)
    assert here.read_bytes() == (tmp_path / "there.png").read_bytes()


def test_image_does_not_depend_on_batch_or_start(mame: Mame) -> None:
    together = mame.generate(PROMPT, seed=3, count=4, steps=4, batch_size=4)
    alone = mame.generate(PROMPT, seed=3, count=4, steps=4, batch_size=1)
    tail = mame.generate(PROMPT, seed=3, count=2, steps=4, start_index=2)
    for a, b in [*zip(together, alone, strict=True), *zip(together[2:], tail, strict=True)]:
        # the order of float sums inside a batched matrix product may differ: one gray level is allowed
        assert int(np.abs(a.pixels.astype(int) - b.pixels.astype(int)).max()) <= 1
        assert (a.prompt, a.seed, a.index) == (b.prompt, b.seed, b.index)
    assert not np.array_equal(together[0].pixels, together[1].pixels)


def test_attributes_compose_and_right_breasts_are_mirrored(mame: Mame) -> None:
    left = Attributes("hologic", "CC", area="big", laterality="L")
    right = Attributes("hologic", "CC", area="big", laterality="R")
    one, two = (mame.generate(side, seed=1, steps=3)[0] for side in (left, right))
    assert one.prompt == two.prompt == "a hologic mammogram in CC view with big area"
    assert np.array_equal(one.pixels, two.pixels[:, ::-1])


def test_prompts_guidance_and_negative_prompts_act(mame: Mame) -> None:
    base = mame.generate(PROMPT, seed=1, steps=4)[0].pixels
    for change in ({"guidance_scale": 1.0}, {"guidance_scale": 0.0}, {"negative_prompt": "a white background"}):
        assert not np.array_equal(base, mame.generate(PROMPT, seed=1, steps=4, **change)[0].pixels)
    several = mame.generate([PROMPT, "a hologic mammogram in CC view with big area"], seed=1, steps=4, count=3)
    assert [g.prompt for g in several] == [PROMPT, "a hologic mammogram in CC view with big area", PROMPT]


def test_png_tells_how_it_was_made(mame: Mame, tmp_path) -> None:
    path = mame.generate(PROMPT, seed=7, steps=2)[0].save(tmp_path / "new" / "a.png")
    with Image.open(path) as image:
        text = image.text
        assert image.mode == "L" and image.size == (128, 128)
    assert text["Disclaimer"] == "synthetic, not for diagnosis"
    assert (text["prompt"], text["seed"], text["model"]) == (PROMPT, "7", "fused")
    recipe = json.loads(text["mame"])
    assert recipe["version"] and recipe["guidance_scale"] == 4.0 and recipe["steps"] == 2


def _rows(mame: Mame, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> tuple[list[int], np.ndarray]:
    """Rows of the batch that each call of the UNet ends with, and the pixels of two images."""
    rows: list[int] = []
    last = mame.components.unet.conv_out
    own = last.forward
    with monkeypatch.context() as patch:
        patch.setattr(last, "forward", lambda h: rows.append(len(h)) or own(h))
        made = mame.generate(PROMPT, seed=3, count=2, steps=4, **settings)
    return rows, np.stack([one.pixels for one in made])


def test_guidance_in_an_interval_asks_twice_inside_and_once_outside(mame: Mame, monkeypatch) -> None:
    full, pixels = _rows(mame, monkeypatch)
    assert full == [4, 4, 4, 4]
    some, middle = _rows(mame, monkeypatch, guidance_interval=(499, 749))  # of 999, 749, 499, 249; ends included
    assert some == [2, 4, 4, 2] and not np.array_equal(middle, pixels)
    every, same = _rows(mame, monkeypatch, guidance_interval=(0, 999))
    assert every == full and np.array_equal(same, pixels)
    none, unguided = _rows(mame, monkeypatch, guidance_interval=(0, 10))
    assert none == [2, 2, 2, 2]
    assert np.array_equal(unguided, _rows(mame, monkeypatch, guidance_scale=1.0)[1])


def test_an_interval_belongs_to_the_recipe(mame: Mame, tmp_path) -> None:
    made = mame.generate(PROMPT, steps=1, guidance_interval=(200, 800))[0]
    with Image.open(made.save(tmp_path / "a.png")) as image:
        assert json.loads(image.text["mame"])["guidance_interval"] == [200, 800]


def test_sentences_of_a_call_are_encoded_once_but_not_kept(mame: Mame, monkeypatch) -> None:
    rows: list[int] = []
    encoder = mame.components.text_encoder
    own = encoder.forward
    monkeypatch.setattr(encoder, "forward", lambda ids: rows.append(len(ids)) or own(ids))
    mame.generate([PROMPT, "a mammogram"], count=5, batch_size=2, steps=1)
    assert rows == [3]  # with the empty prompt
    mame.generate(PROMPT, steps=1)
    assert rows == [3, 2]  # the encoder may have learned in between


def test_refused_images_are_drawn_again_from_noise_of_their_own(mame: Mame, tmp_path) -> None:
    plain = mame.generate(PROMPT, seed=3, count=3, steps=1)
    means = [float(one.pixels.mean()) for one in plain]
    limit = float(np.mean(sorted(means)[1:]))  # between two images: rounding decides nothing

    def judge(images: list[np.ndarray], prompts: list[Any]) -> list[float]:
        return [float(image.mean()) / limit for image in images]

    made = mame.generate(PROMPT, seed=3, count=3, steps=1, quality=judge, most_tries=4)
    alone = mame.generate(PROMPT, seed=3, count=3, steps=1, quality=judge, most_tries=4, batch_size=1)
    assert [one.redrawn > 0 for one in made] == [mean > limit for mean in means]
    for one, same, before in zip(made, alone, plain, strict=True):
        assert (one.index, one.draw, one.redrawn) == (same.index, same.draw, same.redrawn)
        assert int(np.abs(one.pixels.astype(int) - same.pixels.astype(int)).max()) <= 1
        [again] = mame.generate(PROMPT, seed=redraw_seed(3, one.draw), start_index=one.index, steps=1)
        assert int(np.abs(one.pixels.astype(int) - again.pixels.astype(int)).max()) <= 1
        assert one.badness == pytest.approx(one.pixels.mean() / limit)
        assert one.redrawn or np.array_equal(one.pixels, before.pixels)
    with Image.open(made[0].save(tmp_path / "a.png")) as image:
        recipe = json.loads(image.text["mame"])
    assert (recipe["redrawn"], recipe["draw"]) == (made[0].redrawn, made[0].draw)


def test_of_draws_that_all_fail_the_least_bad_is_kept_and_says_so(mame: Mame) -> None:
    said = iter([5.0, 3.0, 4.0])
    [one] = mame.generate(PROMPT, seed=3, steps=1, quality=lambda images, prompts: [next(said)], most_tries=3)
    assert (one.draw, one.redrawn, one.badness) == (1, 2, 3.0)
    [refused] = mame.generate(PROMPT, seed=3, steps=1, quality=lambda images, prompts: [False], most_tries=2)
    assert (refused.draw, refused.redrawn, refused.badness) == (0, 1, 2.0)
    [good] = mame.generate(PROMPT, seed=3, steps=1, quality=lambda images, prompts: [True])
    assert (good.draw, good.redrawn, good.badness) == (0, 0, 0.0)


def test_the_screen_sees_what_the_user_gets_and_asked(mame: Mame, monkeypatch) -> None:
    seen: list[tuple[np.ndarray, Any]] = []

    def badness(images: list[np.ndarray], prompts: list[Any]) -> list[float]:
        seen.extend(zip(images, prompts, strict=True))
        return [0.0] * len(images)

    monkeypatch.setattr("mame_lib.evaluation.failures.badness", badness)
    right = Attributes("hologic", "CC", area="big", laterality="R")
    [one] = mame.generate(right, seed=1, steps=2, quality="screen")
    assert seen[0][1] == right and np.array_equal(seen[0][0], one.pixels)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"steps": 1001}, "steps is 1001"),
        ({"guidance_scale": float("nan")}, "guidance_scale is nan"),
        ({"count": 0}, "count is 0"),
        ({"guidance_interval": (800, 200)}, "begin at its lower timestep, got 800..200"),
        ({"guidance_interval": (0, 1000)}, r"0\.\.1000 must lie within the timesteps 0\.\.999"),
        ({"guidance_interval": (-1, 5)}, r"-1\.\.5 must lie within"),
        ({"sampler": "magic"}, "sampler 'magic' is unknown"),
        ({"quality": "good"}, "quality 'good' is unknown"),
        ({"quality": "screen", "most_tries": 0}, "most_tries is 0"),
    ],
)
def test_bad_arguments_are_named(mame: Mame, arguments, message) -> None:
    with pytest.raises(InputError, match=message):
        mame.generate(PROMPT, **arguments)
    with pytest.raises(InputError, match="no prompt"):
        mame.generate([])
