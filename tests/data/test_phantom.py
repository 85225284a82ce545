"""The phantom: same bytes for the same (seed, index), and truth that agrees with what was asked."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from mame_lib.data.anatomy import build_shape
from mame_lib.data.case import AREAS, DENSITIES, LATERALITIES, VENDORS, VIEWS, Attributes, area_class
from mame_lib.data.phantom import GLANDULAR_RANGES, PAPER_DENSITY, PRIORS, draw, population
from mame_lib.data.texture import Stream, cell_distances, power_law_field
from mame_lib.errors import InputError
from mame_lib.evaluation.texture import haar_noise

said = st.builds(
    Attributes,
    vendor=st.none() | st.sampled_from(VENDORS),
    view=st.none() | st.sampled_from(VIEWS),
    area=st.none() | st.sampled_from(AREAS),
    density=st.none() | st.sampled_from(DENSITIES),
    laterality=st.none() | st.sampled_from(LATERALITIES),
)


@settings(max_examples=60, deadline=None)
@given(
    attributes=said,
    size=st.sampled_from([64, 65, 96, 128]),
    seed=st.integers(0, 2**40),
    index=st.integers(0, 10**6),
)
def test_truth_agrees_with_what_was_asked(attributes: Attributes, size: int, seed: int, index: int) -> None:
    phantom = draw(attributes, size=size, seed=seed, index=index)
    drawn = phantom.attributes
    for name, word in attributes.to_dict().items():
        assert getattr(drawn, name) == word
    assert drawn.vendor and drawn.view and drawn.area and drawn.density
    assert drawn.laterality == (attributes.laterality or "L")
    assert phantom.image.shape == phantom.mask.shape == phantom.pectoral.shape == (size, size)
    assert phantom.image.dtype == np.uint8 and phantom.mask.dtype == phantom.pectoral.dtype == bool
    assert np.array_equal(phantom.image > 0, phantom.mask)  # background exactly 0, breast never
    assert phantom.area_ratio == pytest.approx(phantom.mask.mean())
    assert area_class(phantom.area_ratio) == drawn.area
    assert phantom.pectoral.any() == (drawn.view == "MLO")
    assert not (phantom.pectoral & ~phantom.mask).any()
    low, high = GLANDULAR_RANGES[drawn.density]
    assert low - 1e-3 <= phantom.glandular_fraction <= high + 1e-3


@settings(max_examples=15, deadline=None)
@given(size=st.sampled_from([64, 128]), seed=st.integers(0, 1000), index=st.integers(0, 1000))
def test_breast_is_one_piece_on_its_chest_wall(size: int, seed: int, index: int) -> None:
    mask = draw(size=size, seed=seed, index=index).mask
    assert ndimage.label(mask)[1] == 1
    assert mask[:, 0].mean() > 0.4 and not mask[:, -1].any()
    assert np.array_equal(ndimage.binary_fill_holes(mask), mask)


def test_same_arguments_same_bytes_in_any_order() -> None:
    forward = [p.image for p in population(4, size=64, seed=9)]
    backward = [draw(size=64, seed=9, index=i).image for i in (3, 2, 1, 0)][::-1]
    assert all(np.array_equal(a, b) for a, b in zip(forward, backward, strict=True))
    assert not np.array_equal(forward[0], forward[1])
    assert not np.array_equal(forward[0], draw(size=64, seed=10, index=0).image)


def test_global_random_state_is_neither_read_nor_moved() -> None:
    np.random.seed(0)
    expected = np.random.random(3)
    np.random.seed(0)
    first = draw(size=64, seed=1).image
    assert np.array_equal(np.random.random(3), expected)
    assert np.array_equal(first, draw(size=64, seed=1).image)


@pytest.mark.parametrize("view", VIEWS)
def test_right_is_the_mirror_of_left(view: str) -> None:
    left = draw(Attributes(view=view, laterality="L"), size=96, seed=4, index=2)
    right = draw(Attributes(view=view, laterality="R"), size=96, seed=4, index=2)
    for name in ("image", "mask", "pectoral"):
        assert np.array_equal(getattr(left, name)[:, ::-1], getattr(right, name))
    assert left.glandular_fraction == right.glandular_fraction
    assert right.mask[:, -1].any() and not right.mask[:, 0].any()


def test_one_woman_two_vendors() -> None:
    """Saying the vendor changes the look, not the breast nor the other attributes."""
    for index in range(6):
        hologic = draw(Attributes(vendor="hologic"), size=128, seed=8, index=index)
        siemens = draw(Attributes(vendor="siemens"), size=128, seed=8, index=index)
        assert replace(hologic.attributes, vendor="siemens") == siemens.attributes
        assert np.array_equal(hologic.mask, siemens.mask)
        inside = hologic.mask
        assert np.corrcoef(hologic.image[inside], siemens.image[inside])[0, 1] > 0.9
        assert hologic.image[inside].std() > 1.15 * siemens.image[inside].std()


def test_density_words_order_gland_and_brightness() -> None:
    for index in range(4):
        row = [draw(Attributes(density=word), size=96, seed=2, index=index) for word in DENSITIES]
        gland = [p.glandular_fraction for p in row]
        bright = [p.image[p.mask & ~p.pectoral].mean() for p in row]
        assert gland == sorted(gland) and bright == sorted(bright)


def test_muscle_is_brighter_than_the_fat_beside_it() -> None:
    said = Attributes(view="MLO", density="very low", area="big")
    for index in range(8):
        phantom = draw(said, size=128, seed=3, index=index)
        ring = ndimage.binary_dilation(phantom.pectoral, iterations=12) & phantom.mask
        ring &= ~ndimage.binary_dilation(phantom.pectoral, iterations=4)
        assert phantom.image[phantom.pectoral].mean() > phantom.image[ring].mean() + 15


@pytest.mark.parametrize("index", [0, 1])
def test_larger_image_is_the_same_breast(index: int) -> None:
    small = draw(size=128, seed=6, index=index)
    large = draw(size=256, seed=6, index=index)
    shrunk = large.image.reshape(128, 2, 128, 2).mean((1, 3))
    assert small.attributes == large.attributes
    assert large.glandular_fraction == pytest.approx(small.glandular_fraction, abs=2e-3)
    assert np.corrcoef(small.image[small.mask], shrunk[small.mask])[0, 1] > 0.9


@pytest.mark.parametrize("view", VIEWS)
def test_area_is_exact_from_the_smallest_to_the_biggest_breast(view: str) -> None:
    for index, area in enumerate(np.linspace(0.08, 0.91, 40)):
        shape = build_shape(Stream(3, index).generator(1), view, float(area), 128, 179.0)
        assert shape.mask.mean() == pytest.approx(area, abs=0.005)
        assert ndimage.label(shape.mask)[1] == 1 and not shape.mask[:, -1].any()


def test_paper_priors_have_the_paper_s_distributions() -> None:
    drawn = [draw(size=64, seed=12, index=index, priors="paper") for index in range(300)]
    area = np.array([one.area_ratio for one in drawn])
    assert area.mean() == pytest.approx(0.435, abs=0.025) and area.std() == pytest.approx(0.135, abs=0.017)
    assert area.min() >= 0.08 and area.max() <= 0.92
    assert all(area_class(one.area_ratio) == one.attributes.area for one in drawn)
    share = {word: np.mean([one.attributes.density == word for one in drawn]) for word in DENSITIES}
    for word, expected in PAPER_DENSITY.items():  # three standard errors
        assert share[word] == pytest.approx(expected, abs=3 * (expected * (1 - expected) / 300) ** 0.5 + 1e-9)
    assert np.mean([one.attributes.view == "CC" for one in drawn]) == pytest.approx(0.5, abs=0.09)
    assert np.mean([one.attributes.vendor == "siemens" for one in drawn]) == pytest.approx(0.5, abs=0.09)


@pytest.mark.parametrize("priors", PRIORS)
def test_saying_one_attribute_never_changes_another(priors: str) -> None:
    for index in range(6):
        free = draw(size=64, seed=5, index=index, priors=priors).attributes
        for name, words in (("vendor", VENDORS), ("view", VIEWS), ("area", AREAS), ("density", DENSITIES)):
            for word in words:
                told = draw(Attributes(**{name: word}), size=64, seed=5, index=index, priors=priors).attributes
                assert told == replace(free, **{name: word})


def test_noise_adds_grain_and_nothing_else() -> None:
    said = Attributes(vendor="hologic", density="high")
    grains = []
    for noise in (0.0, 3.0, 8.0):
        phantom = draw(said, size=256, seed=1, index=2, noise=noise)
        grains.append(haar_noise(phantom.image, phantom.mask))
        assert phantom.noise == noise and np.array_equal(phantom.image > 0, phantom.mask)
    assert grains[0] < grains[1] < grains[2]
    clean = draw(said, size=256, seed=1, index=2).image.astype(float)
    noisy = draw(said, size=256, seed=1, index=2, noise=1.0).image
    inside = draw(said, size=256, seed=1, index=2).mask
    assert abs((noisy - clean)[inside].mean()) < 0.3


def test_noise_shrinks_with_the_pixel_and_grows_with_thickness() -> None:
    said = Attributes(vendor="siemens", density="low", view="CC", area="medium")
    spread = {}
    for size in (128, 256):
        pair = [draw(said, size=size, seed=1, index=2, noise=level) for level in (0.0, 8.0)]
        difference = pair[1].image.astype(float) - pair[0].image
        depth = ndimage.distance_transform_edt(np.pad(pair[0].mask, ((1, 1), (1, 1)), mode="edge"))[1:-1, 1:-1]
        spread[size] = difference[depth > 0.1 * size].std(), difference[(depth < 0.04 * size) & pair[0].mask].std()
    assert spread[256][0] == pytest.approx(2 * spread[128][0], rel=0.2)
    assert spread[256][0] > spread[256][1]


@pytest.mark.parametrize(("laterality", "size"), [("L", 64), ("R", 128), ("R", 512)])
def test_marker_is_burned_into_the_air_and_readable(laterality: str, size: int) -> None:
    said = Attributes(view="MLO", area="small", laterality=laterality)
    plain = draw(said, size=size, seed=2)
    marked = draw(said, size=size, seed=2, marker=True)
    assert plain.marker is None and marked.marker is not None and marked.marker.any()
    assert not (marked.marker & marked.mask).any() and np.array_equal(plain.mask, marked.mask)
    assert np.array_equal(plain.image[~marked.marker], marked.image[~marked.marker])
    assert (marked.image[marked.marker] > 0).all() and marked.image[marked.marker].max() > 150
    columns = np.flatnonzero(marked.marker.any(0))
    assert (columns.min() > size / 2) == (laterality == "L")  # in the corner away from the chest wall
    if size == 512:  # the four letters of "R MLO", none of them mirrored
        assert ndimage.label(ndimage.binary_dilation(marked.marker, iterations=1))[1] == 4
        letter = marked.marker[:, columns.min() : columns.min() + 15]
        assert letter[:, :4].any(1).sum() > 1.2 * letter[:, -4:].any(1).sum()  # the stem of R is at its left


def test_marker_without_room_is_left_out() -> None:
    said = Attributes(area="big", view="CC")
    pairs = [[draw(said, size=64, seed=1, index=k, marker=marker) for marker in (True, False)] for k in range(6)]
    crowded = [pair for pair in pairs if pair[0].marker is None]
    assert crowded
    assert all(np.array_equal(marked.image, plain.image) for marked, plain in crowded)


def test_texture_field_has_unit_variance_and_its_power_law() -> None:
    slopes, spreads = [], []
    for index in range(8):
        field = power_law_field(Stream(0, index), 1, 128, 3.0)
        power = np.abs(np.fft.fft2(field)) ** 2
        frequency = np.hypot(*np.meshgrid(*[np.fft.fftfreq(128, 1 / 128)] * 2))
        band = (frequency > 6) & (frequency < 50)
        slopes.append(-np.polyfit(np.log(frequency[band]), np.log(power[band]), 1)[0])
        spreads.append(field.var())
    assert np.mean(slopes) == pytest.approx(3.0, abs=0.1)
    assert np.mean(spreads) == pytest.approx(1.0, abs=0.35)  # the lowest frequencies hold most of it


def test_cell_distances_against_brute_force() -> None:
    stream = Stream(1, 2)
    v, u = (a.astype(np.float32) for a in np.mgrid[20:23:7j, 30:33:7j])
    first, second = cell_distances(stream, 5, u, v)
    table = stream.generator(5).random((64, 64, 2), dtype=np.float32)
    rows, columns = np.mgrid[0:64, 0:64]
    points = np.stack([table[..., 0] + columns, table[..., 1] + rows], -1).reshape(-1, 2)
    distance = np.sort(np.hypot(u[..., None] - points[:, 0], v[..., None] - points[:, 1]), -1)
    assert np.allclose(first, distance[..., 0], atol=1e-5)
    # the search looks at 3 x 3 cells: the nearest is exact, the second may be missed when it is far
    near = distance[..., 1] < 1.0
    assert np.allclose(second[near], distance[..., 1][near], atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        ({"size": 16}, "size 16"),
        ({"size": 4096}, "size 4096"),
        ({"size": 128.0}, "not an integer"),
        ({"seed": -1}, "seed -1"),
        ({"index": -1}, "index -1"),
        ({"priors": "real"}, "priors 'real'"),
        ({"noise": -1.0}, "noise -1"),
        ({"noise": float("nan")}, "noise nan"),
    ],
)
def test_bad_input_is_explained(arguments: dict[str, object], fragment: str) -> None:
    with pytest.raises(InputError, match=fragment):
        draw(**arguments)  # type: ignore[arg-type]


def test_unknown_word_and_negative_count_are_refused() -> None:
    with pytest.raises(InputError, match="density 'huge'"):
        draw(Attributes(density="huge"))
    with pytest.raises(InputError, match="count -1"):
        population(-1)
