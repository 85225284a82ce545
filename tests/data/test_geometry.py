"""The paper's square: crop offsets, the four worked boxes, and image, mask and box moving together."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mame_lib.data.geometry import SquareTransform, face_left, faces_right, left_gap, tissue_kept, to_square
from mame_lib.errors import InputError

MATRICES = [((4096, 3328), 630, 59), ((3328, 2560), 665, 76), ((3518, 2800), 643, 66)]


@pytest.mark.parametrize("shape, resized, top", MATRICES)
def test_resized_height_and_crop_of_real_detectors(shape, resized, top):
    transform = SquareTransform(*shape, 512)
    assert transform.resized == (resized, 512)
    assert transform.corner == (top, 0)


@pytest.mark.parametrize(
    "right, shape, box, edges, expected",
    [
        (True, (4096, 3328), (3069, 2008, 3263, 2231), (10.00, 249.85, 39.85, 284.15), (10, 250, 40, 284)),
        (True, (4096, 3328), (2527, 991, 2622, 1146), (108.62, 93.42, 123.23, 117.26), (109, 93, 123, 117)),
        (True, (3518, 2800), (2320, 803, 2817, 1156), (-3.11, 80.77, 87.77, 145.29), (0, 81, 88, 145)),
        (False, (3518, 2800), (300, 1361, 375, 1460), (54.86, 182.76, 68.57, 200.85), (55, 183, 69, 201)),
    ],
)
def test_worked_boxes_of_the_paper(right, shape, box, edges, expected):
    transform = SquareTransform(*shape, 512, flip=right)
    assert transform.edges(box) == pytest.approx(edges, abs=0.006)
    assert transform.box(box) == expected


def test_boxes_that_do_not_survive_the_crop():
    transform = SquareTransform(4096, 3328, 512)
    assert transform.box((100, 0, 300, 200)) is None  # wholly in the rows that are cut off
    assert transform.box((100, 300, 300, 500)) is not None  # 58 % of it remains
    assert transform.box((100, 300, 300, 500), keep=0.9) is None
    with pytest.raises(InputError, match="turned around"):
        transform.box((300, 300, 100, 500))


def test_a_tiny_box_keeps_a_pixel():
    x0, y0, x1, y1 = SquareTransform(4096, 3328, 128).box((1000, 2000, 1002, 2002)) or (0, 0, 0, 0)
    assert x1 - x0 == 1 and y1 - y0 == 1


@pytest.mark.parametrize("shape", [(97, 61), (61, 97), (64, 64), (200, 131)])
@pytest.mark.parametrize("flip", [False, True])
def test_image_mask_and_box_agree(shape, flip):
    height, width = shape
    box = (width // 4, height // 3, width // 4 + 20, height // 3 + 16)
    picture = np.zeros(shape, np.float32)
    picture[box[1] : box[3], box[0] : box[2]] = 1
    transform = SquareTransform(height, width, 256, flip=flip)
    x0, y0, x1, y1 = transform.box(box) or (0, 0, 0, 0)
    expected = np.zeros((256, 256), bool)
    expected[y0:y1, x0:x1] = True
    edge = 2 * (x1 - x0 + y1 - y0)  # half a pixel of rounding along the outline
    assert (transform.mask(picture) ^ expected).sum() <= edge
    assert ((transform.image(picture) > 0.5) ^ expected).sum() <= edge


def test_square_keeps_range_size_and_antialiases():
    stripes = np.tile(np.array([0, 1], np.float32), (512, 256))
    small = to_square(stripes, 64)
    assert small.shape == (64, 64) and small.dtype == np.float32
    assert np.allclose(small[:, 2:-2], 0.5, atol=0.05)  # without antialiasing: only 0 or only 1
    assert to_square(np.full((300, 200), 3000, np.uint16), 128) == pytest.approx(3000)


def half_breast(height=80, width=60, right=False):
    """A half disk on the left edge, as a CC view."""
    y, x = np.mgrid[0:height, 0:width]
    picture = (((y - height / 2) / (height / 2.2)) ** 2 + (x / (width / 1.5)) ** 2 < 1).astype(np.float32)
    return picture[:, ::-1] if right else picture


@pytest.mark.parametrize("background", [0.0, 0.15])
@pytest.mark.parametrize("gap", [0, 13])
@pytest.mark.parametrize("right", [False, True])
def test_face_left_by_pixels(right, gap, background):
    wide = np.pad(half_breast(right=right), ((0, 0), (gap, gap)))
    wide = np.maximum(wide, background)
    turned, flipped = face_left(wide)
    assert flipped is right is faces_right(wide)
    assert not faces_right(turned) and left_gap(turned) == gap
    assert face_left(turned)[1] is False


def test_marker_does_not_decide_the_side():
    picture = half_breast()
    picture[2:6, -8:-2] = 1.5
    assert not faces_right(picture)


def test_gap_moves_the_chest_wall_to_the_edge():
    picture = np.pad(half_breast(60, 60), ((0, 0), (20, 0)))[:, :60]
    moved = SquareTransform(60, 60, 60, gap=20).image(picture)
    assert moved[30, 0] == 1 and moved[:, 40:].max() == 0
    assert SquareTransform(60, 60, 60, gap=20).box((25, 10, 35, 20)) == (5, 10, 15, 20)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 16), st.booleans())
def test_any_shape_becomes_a_square(height, width, size, flip):
    picture = np.random.default_rng(0).random((height, width), np.float32)
    square = SquareTransform(height, width, size, flip=flip).image(picture)
    assert square.shape == (size, size)
    assert square.min() >= picture.min() - 1e-6 and square.max() <= picture.max() + 1e-6


def test_refusals():
    with pytest.raises(InputError, match="gray"):
        to_square(np.zeros((4, 4, 3)), 2)
    with pytest.raises(InputError, match="does not match"):
        SquareTransform(4, 4, 2).image(np.zeros((5, 4)))
    with pytest.raises(InputError, match="gap"):
        SquareTransform(4, 4, 2, gap=4)
    assert left_gap(np.zeros((8, 8))) == 0 and not faces_right(np.zeros((8, 8)))


SHAPES = [*(shape for shape, _, _ in MATRICES), (2560, 3328), (300, 300), (97, 61)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("fit", ["crop", "pad"])
def test_the_transform_has_an_inverse(shape, flip, fit):
    transform = SquareTransform(*shape, 512, flip=flip, gap=7, fit=fit)
    box = (11.5, 20.25, 44.0, 51.0)
    assert transform.source(transform.edges(box)) == pytest.approx(box)
    assert transform.edges(transform.source(box)) == pytest.approx(box)


@pytest.mark.parametrize("shape", SHAPES)
def test_padding_keeps_everything_and_the_chest_wall(shape):
    height, width = shape
    transform = SquareTransform(height, width, 128, fit="pad")
    padded = transform.image(np.ones(shape, np.float32))
    assert padded.shape == (128, 128) and padded.sum() == pytest.approx(np.prod(transform.resized), rel=1e-3)
    assert padded[64, 0] == 1 and transform.share((0, 0, width, height)) == pytest.approx(1)
    assert max(transform.resized) == 128
    if height > width:  # all black columns are on the side away from the chest wall
        assert (padded[:, transform.resized[1] :] == 0).all()
    if width > height:  # and above and below alike, to one row
        empty = (padded == 0).all(axis=1)
        assert abs(int(np.argmin(empty)) - int(np.argmin(empty[::-1]))) <= 1


@pytest.mark.parametrize("flip", [False, True])
def test_padded_image_mask_and_box_agree(flip):
    picture = np.zeros((300, 200), np.float32)
    picture[270:295, 20:60] = 1
    crop, pad = (SquareTransform(300, 200, 256, flip=flip, fit=fit) for fit in ("crop", "pad"))
    assert crop.box((20, 270, 60, 295)) is None and crop.share((20, 270, 60, 295)) == 0
    x0, y0, x1, y1 = pad.box((20, 270, 60, 295)) or (0, 0, 0, 0)
    rows, columns = np.nonzero(pad.mask(picture))
    assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == pytest.approx((x0, y0, x1, y1), abs=1)


def test_share_counts_what_the_crop_cut_and_not_what_lay_outside_the_image():
    transform = SquareTransform(4096, 3328, 512)
    top = transform.source((0, 0, 512, 512))[1]  # first source row that is kept, 383.6
    assert transform.share((100, top - 50, 200, top + 50)) == pytest.approx(0.5, abs=1e-6)
    assert transform.share((3300, 2000, 3400, 2100)) == pytest.approx(1)  # 72 of its columns are no pixels
    assert transform.share((3400, 2000, 3500, 2100)) == 0
    with pytest.raises(InputError, match="turned around"):
        transform.share((10, 10, 10, 20))


@given(st.integers(0, 299), st.integers(0, 199), st.integers(1, 120), st.integers(1, 120), st.booleans())
def test_share_is_the_share_of_the_pixels(y0, x0, tall, wide, flip):
    y1, x1 = min(300, y0 + tall), min(200, x0 + wide)
    picture = np.zeros((300, 200), np.float32)
    picture[y0:y1, x0:x1] = 1
    kept = SquareTransform(300, 200, 200, flip=flip).image(picture).sum()  # scale 1: rows 50 to 250 remain
    share = SquareTransform(300, 200, 200, flip=flip).share((x0, y0, x1, y1))
    assert share == pytest.approx(kept / picture.sum(), abs=1e-4)


def test_labels_keep_their_numbers():
    labels = np.zeros((300, 200), np.uint8)
    labels[100:150, 10:60], labels[160:200, 100:180] = 3, 70
    stored = SquareTransform(300, 200, 64).labels(labels)
    assert set(np.unique(stored)) == {0, 3, 70} and stored.dtype == np.int32


def test_tissue_that_the_crop_loses():
    picture = np.zeros((300, 200), np.float32)
    picture[:, :80] = 1  # reaches both ends of the film
    assert tissue_kept(picture, SquareTransform(300, 200, 64)) == pytest.approx(200 / 300, abs=0.01)
    assert tissue_kept(picture, SquareTransform(300, 200, 64, fit="pad")) == 1
    assert tissue_kept(np.zeros((300, 200)), SquareTransform(300, 200, 64)) == 1


def test_large_images_are_judged_on_a_thumbnail():
    large = half_breast(2400, 1800, right=True)
    assert faces_right(large) and abs(left_gap(np.pad(large[:, ::-1], ((0, 0), (140, 0)))) - 140) <= 8


def test_unknown_fit_is_refused():
    with pytest.raises(InputError, match="fit 'stretch'"):
        to_square(np.zeros((8, 8)), 4, fit="stretch")
