"""Generation: same seed, same pixels, in any batch; every bad argument has its sentence."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from mame_lib.data.case import Attributes
from mame_lib.errors import InputError
from mame_lib.generation import Mame

PROMPT = "a siemens mammogram in MLO view with high density and small area"


@pytest.fixture(scope="module")
def mame() -> Mame:
    return Mame.load("fused")


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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"steps": 1001}, "steps is 1001"),
        ({"guidance_scale": float("nan")}, "guidance_scale is nan"),
        ({"count": 0}, "count is 0"),
        ({"sampler": "magic"}, "sampler 'magic' is unknown"),
    ],
)
def test_bad_arguments_are_named(mame: Mame, arguments, message) -> None:
    with pytest.raises(InputError, match=message):
        mame.generate(PROMPT, **arguments)
    with pytest.raises(InputError, match="no prompt"):
        mame.generate([])
