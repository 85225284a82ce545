"""Lesions: the same breast with and without one, boxes tight around masks, and what was asked for is what is there."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from mame_lib.data.case import FINDINGS, LATERALITIES, VENDORS, VIEWS, Attributes
from mame_lib.data.lesions import KINDS, MARGINS, SHAPES, Lesion, LesionSpec
from mame_lib.data.outlines import mass_profile
from mame_lib.data.phantom import Phantom, draw
from mame_lib.errors import InputError

ILL = Attributes(finding="lesion")


def box_of(mask: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def only(phantom: Phantom) -> Lesion:
    (lesion,) = phantom.lesions
    return lesion


@settings(max_examples=40, deadline=None)
@given(
    view=st.sampled_from(VIEWS),
    vendor=st.sampled_from(VENDORS),
    laterality=st.sampled_from(LATERALITIES),
    kind=st.sampled_from(KINDS),
    size=st.sampled_from([64, 128, 200]),
    index=st.integers(0, 10**6),
)
def test_a_lesion_changes_nothing_but_its_own_pixels(
    view: str, vendor: str, laterality: str, kind: str, size: int, index: int
) -> None:
    said = Attributes(view=view, vendor=vendor, laterality=laterality)
    healthy = draw(said, size=size, seed=3, index=index)
    ill = draw(said, size=size, seed=3, index=index, lesion=LesionSpec(kind=kind))
    lesion = only(ill)
    assert healthy.lesions == () and not healthy.lesion_mask.any() and healthy.attributes.finding is None
    assert ill.attributes == replace(healthy.attributes, finding="lesion")
    assert ill.glandular_fraction == healthy.glandular_fraction and np.array_equal(ill.mask, healthy.mask)
    x0, y0, x1, y1 = lesion.box
    margin = 2 + int(0.25 * max(x1 - x0, y1 - y0))  # where the profile is below 12 %
    near = ndimage.binary_dilation(lesion.mask, iterations=margin)
    assert np.array_equal(ill.image[~near], healthy.image[~near])
    assert lesion.box == box_of(lesion.mask)
    assert np.array_equal(ill.lesion_mask, lesion.mask)
    assert lesion.mask.shape == (size, size) and lesion.mask.dtype == bool
    assert not (lesion.mask & ~ill.mask).any() and not (lesion.mask & ill.pectoral).any()


def test_every_mass_is_seen_where_it_is_said_to_be() -> None:
    """Brighter than the healthy twin in the core, in every shape and margin, and without a step at its border."""
    for index, (shape, margin) in enumerate(product(SHAPES, MARGINS)):
        said = Attributes(density="low", area="medium", view="CC")
        spec = LesionSpec(shape=shape, margin=margin, area=0.015)
        ill = draw(said, size=192, seed=5, index=index, lesion=spec)
        lesion = only(ill)
        assert (lesion.kind, lesion.shape, lesion.margin) == ("mass", shape, margin)
        change = ill.image.astype(float) - draw(said, size=192, seed=5, index=index).image
        assert change[lesion.mask].mean() > 5
        rim = ndimage.binary_dilation(lesion.mask, iterations=8) & ~lesion.mask
        assert abs(change[rim].mean()) < 0.25 * change[lesion.mask].mean()


def test_finding_and_spec_ask_for_the_same_lesion() -> None:
    by_word, by_spec = draw(ILL, seed=2, index=4), draw(seed=2, index=4, lesion=LesionSpec())
    assert np.array_equal(by_word.image, by_spec.image) and only(by_word).box == only(by_spec).box
    again = draw(ILL, seed=2, index=4)
    assert np.array_equal(by_word.image, again.image) and by_word.attributes == again.attributes


@pytest.mark.parametrize("finding", FINDINGS)
def test_a_finding_is_what_its_word_says(finding: str) -> None:
    drawn = [draw(Attributes(finding=finding), seed=2, index=index) for index in range(6)]
    lesions = [only(one) for one in drawn]
    assert {one.attributes.finding for one in drawn} == {finding}
    if finding == "calcification cluster":
        assert {one.kind for one in lesions} == {"calcifications"}
    elif finding != "lesion":
        assert {one.kind for one in lesions} == {"mass"}
        assert all((one.margin == "spiculated") == (finding == "spiculated mass") for one in lesions)
        assert finding == "spiculated mass" or len({one.margin for one in lesions}) > 1


def test_right_is_the_mirror_of_left_with_its_lesion() -> None:
    left = draw(replace(ILL, laterality="L"), size=100, seed=4, index=2)
    right = draw(replace(ILL, laterality="R"), size=100, seed=4, index=2)
    assert np.array_equal(left.image[:, ::-1], right.image)
    assert np.array_equal(only(left).mask[:, ::-1], only(right).mask)
    x0, y0, x1, y1 = only(left).box
    assert only(right).box == (100 - x1, y0, 100 - x0, y1) == box_of(only(right).mask)


def test_a_lesion_is_the_same_one_at_another_size() -> None:
    for index in range(6):
        small, large = (draw(ILL, size=size, seed=6, index=index) for size in (128, 256))
        a, b = only(small), only(large)
        assert (a.kind, a.shape, a.margin) == (b.kind, b.shape, b.margin)
        centers = [np.array([box[0] + box[2], box[1] + box[3]]) / 2 / n for box, n in ((a.box, 128), (b.box, 256))]
        assert np.abs(centers[0] - centers[1]).max() < 0.04


@pytest.mark.parametrize("laterality", LATERALITIES)
def test_center_area_aspect_and_contrast_are_honored(laterality: str) -> None:
    said = Attributes(view="CC", area="big", density="very low", laterality=laterality)
    x = 0.35 if laterality == "L" else 0.65
    for margin in MARGINS:
        spec = LesionSpec(margin=margin, area=0.02, aspect=1.5, center=(x, 0.5), contrast=0.3)
        lesion = only(draw(said, size=256, seed=1, index=7, lesion=spec))
        x0, y0, x1, y1 = lesion.box
        assert (x1 - x0) * (y1 - y0) / 256**2 == pytest.approx(0.02, rel=0.15)
        assert (y1 - y0) / (x1 - x0) == pytest.approx(1.5, rel=0.12)
        assert np.allclose([(x0 + x1) / 512, (y0 + y1) / 512], [x, 0.5], atol=0.012)
        assert lesion.contrast == pytest.approx(0.3)


def test_more_contrast_is_brighter() -> None:
    said = Attributes(view="CC", area="medium", density="very low", vendor="hologic")
    spec = LesionSpec(margin="circumscribed", area=0.02)
    change = []
    healthy = draw(said, size=128, seed=1, index=3).image.astype(float)
    for contrast in (0.1, 0.3, 0.6):
        ill = draw(said, size=128, seed=1, index=3, lesion=replace(spec, contrast=contrast))
        change.append((ill.image - healthy)[ill.lesion_mask].mean())
    assert change[0] > 3 and change[1] > 2 * change[0] and change[2] > 1.4 * change[1]


def test_saying_one_thing_of_a_lesion_never_changes_another() -> None:
    for index in range(8):
        free = only(draw(size=96, seed=9, index=index, lesion=LesionSpec(kind="mass", margin="obscured")))
        bright = only(draw(size=96, seed=9, index=index, lesion=LesionSpec("mass", margin="obscured", contrast=0.5)))
        assert (free.shape, free.box) == (bright.shape, bright.box) and np.array_equal(free.mask, bright.mask)
        told = only(draw(size=96, seed=9, index=index, lesion=LesionSpec("mass", free.shape, "obscured")))
        assert told.box == free.box


def test_variants_are_other_lesions_of_the_same_breast() -> None:
    spec = LesionSpec(kind="mass", area=0.01)
    lesions = [only(draw(size=128, seed=2, index=1, lesion=replace(spec, variant=k))) for k in range(4)]
    assert len({lesion.box for lesion in lesions}) == 4


def test_masses_have_the_paper_s_sizes() -> None:
    """Box areas 720 to 3721 px at 512 px between the quartiles; height over width 1.15, spread 0.5."""
    boxes = []
    for index in range(140):
        x0, y0, x1, y1 = only(draw(size=128, seed=8, index=index, lesion=LesionSpec(kind="mass"), priors="paper")).box
        boxes.append((x1 - x0, y1 - y0))
    width, height = np.array(boxes, float).T
    area = width * height * 16
    assert 500 < np.percentile(area, 25) < 1100 and 2600 < np.percentile(area, 75) < 4800
    assert 2300 < area.mean() < 4300
    assert (height / width).mean() == pytest.approx(1.15, abs=0.12)
    assert (height / width).std() == pytest.approx(0.45, abs=0.12)


def test_specks_below_the_pixel_lose_contrast_with_the_square_of_their_size() -> None:
    """Calcium x area is kept: what a pixel holds falls as it grows, so most specks vanish at 128 px."""
    said = Attributes(view="CC", area="medium", density="very low", vendor="hologic")
    peak, total = {}, {}
    spec = LesionSpec(kind="calcifications", center=(0.3, 0.5), area=0.004)
    for size in (128, 256, 512):
        ill = draw(said, size=size, seed=4, index=1, lesion=spec)
        healthy = draw(said, size=size, seed=4, index=1)
        peak[size] = only(ill).contrast
        total[size] = (ill.image.astype(float) - healthy.image).sum() / size**2
    assert peak[128] < 0.6 * peak[256] < 0.4 * peak[512]
    assert total[256] == pytest.approx(total[512], rel=0.25)


def test_margins_differ_in_sharpness() -> None:
    """Width of the slope from 80 to 20 % of the profile, over the radius, for the same outline."""
    slope = {}
    for margin in MARGINS:
        profile = mass_profile(np.random.default_rng(3), (200, 200), (100.0, 100.0), (120.0, 120.0), "round", margin)
        assert profile.max() == pytest.approx(1.0)
        x0, y0, x1, y1 = box_of(profile > 0.12)
        assert max(abs(x0 - 40), abs(y0 - 40), abs(x1 - 160), abs(y1 - 160)) <= 3
        slope[margin] = ((profile > 0.2).sum() - (profile > 0.8).sum()) / (profile > 0.2).sum()
    assert slope["circumscribed"] < slope["obscured"] < slope["indistinct"] < slope["spiculated"]


def test_shapes_differ_in_outline() -> None:
    """Share of the box that is filled: pi/4 by an ellipse, less by one that leans and by a jagged outline."""
    filled = {}
    for shape in SHAPES:
        share = []
        for seed in range(12):
            rng = np.random.default_rng(seed)
            profile = mass_profile(rng, (160, 160), (80.0, 80.0), (100.0, 80.0), shape, "circumscribed")
            x0, y0, x1, y1 = box_of(profile > 0.12)
            share.append((profile > 0.12).sum() / ((x1 - x0) * (y1 - y0)))
        filled[shape] = np.mean(share)
    assert filled["round"] == pytest.approx(np.pi / 4, abs=0.02)
    assert filled["oval"] < filled["round"] and filled["irregular"] < filled["round"] - 0.02


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        ({"kind": "cyst"}, "kind 'cyst'"),
        ({"shape": "square"}, "shape 'square'"),
        ({"margin": "soft"}, "margin 'soft'"),
        ({"kind": "calcifications", "shape": "round"}, "no shape or margin"),
        ({"area": 0.0}, "area 0.0"),
        ({"area": 0.5}, "area 0.5"),
        ({"aspect": 9.0}, "aspect 9.0"),
        ({"contrast": -0.1}, "contrast -0.1"),
        ({"contrast": float("nan")}, "contrast nan"),
        ({"center": (1.2, 0.5)}, "outside the image"),
        ({"variant": -1}, "variant -1"),
        ({"variant": 0.5}, "variant 0.5"),
    ],
)
def test_impossible_requests_are_explained(arguments: dict[str, Any], fragment: str) -> None:
    with pytest.raises(InputError, match=fragment):
        LesionSpec(**arguments)


@pytest.mark.parametrize(
    "spec",
    [LesionSpec(center=(0.95, 0.05), area=0.01), LesionSpec(area=0.24, aspect=1.0)],
    ids=["in the air", "bigger than the breast"],
)
def test_a_lesion_that_does_not_fit_is_refused(spec: LesionSpec) -> None:
    with pytest.raises(InputError, match="does not fit"):
        draw(Attributes(area="small"), size=96, seed=1, lesion=spec)
