"""Pictures of any size and depth there and back: nothing outside the mask ever changes."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from scipy.special import ndtr

from mame_lib.data.canvas import Canvas, feathered
from mame_lib.data.levels import white_of
from mame_lib.data.phantom import draw
from mame_lib.data.places import free_area, place_box
from mame_lib.errors import InputError

BREAST = draw(size=128, seed=5, index=3)


def picture(height: int, width: int, bits: int, right: bool, index: int = 3) -> np.ndarray:
    """A phantom of any size and depth, enlarged by interpolation, stretched as it must."""
    image = draw(size=128, seed=5, index=index).image / 255.0
    values = np.clip(ndimage.zoom(image, (height / 128, width / 128), order=1), 0, 1) * (2**bits - 1)
    values = values[:, ::-1] if right else values
    return np.rint(values).astype(np.uint8 if bits == 8 else np.uint16)


def a_box(levels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A mask: a random rectangle in the brighter part of the picture."""
    mask = np.zeros(levels.shape, bool)
    free = ndimage.binary_erosion(levels > 0.1 * levels.max(), iterations=2)
    sides = rng.integers(1, max(3, min(levels.shape) // 6), 2)
    x0, y0, x1, y1 = place_box(free, int(sides[0]), int(sides[1]), rng)
    mask[y0:y1, x0:x1] = True
    return mask


def test_200_random_boxes_leave_every_pixel_outside_as_it_was() -> None:
    rng = np.random.default_rng(0)
    changed = inside = 0
    for number in range(200):
        height, width = (int(side) for side in rng.integers(90, 420, 2))
        bits = (8, 10, 12, 14, 16)[number % 5]
        levels = picture(height, width, bits, bool(rng.integers(2)), number % 7)
        canvas = Canvas(levels, a_box(levels, rng), 128)
        change = rng.normal(0, 90, (128, 128)).astype(np.float32)
        result = canvas.paste(change, feather=float(rng.uniform(0, 3)))
        assert result.dtype == levels.dtype and result.shape == levels.shape and result.max() <= white_of(levels)
        changed += int((result != levels)[~canvas.mask].sum())
        inside += int((result != levels)[canvas.mask].any())
    assert changed == 0
    assert inside > 190  # the filling does come in


@pytest.mark.parametrize("right", [False, True])
@pytest.mark.parametrize("shape", [(128, 128), (300, 240), (240, 300), (97, 128)])
def test_the_way_there_and_back_is_straight(shape: tuple[int, int], right: bool) -> None:
    """A bump painted at the model's size comes back over the masked pixels it was painted for."""
    levels = picture(*shape, 16, right)
    mask = a_box(levels, np.random.default_rng(1))
    canvas = Canvas(levels, mask, 128)
    assert canvas.right is right
    bump = np.where(canvas.small_mask, np.float32(255), np.float32(0))
    back = canvas.paste(bump).astype(int) - levels
    assert (back[mask] >= 0).all() and back[mask].max() > 0
    center = ndimage.center_of_mass(mask)
    assert np.allclose(ndimage.center_of_mass(back), center, atol=0.02 * max(shape))


def test_at_the_models_own_size_the_filling_is_what_the_model_made() -> None:
    mask = a_box(BREAST.image, np.random.default_rng(2))
    canvas = Canvas(BREAST.image, mask, 128)
    assert np.array_equal(canvas.gray, BREAST.image)
    made = np.random.default_rng(3).integers(0, 256, (128, 128)).astype(np.float32)
    result = canvas.paste(made - canvas.gray)
    assert np.array_equal(result[mask], made[mask])


def test_a_feather_rounds_the_corners_and_fills_the_middle() -> None:
    mask = np.zeros((128, 128), bool)
    mask[50:70, 10:30] = True
    canvas = Canvas(BREAST.image // 2, mask, 128)
    change = np.full((128, 128), 100, np.float32)
    hard, soft = (canvas.paste(change, f).astype(int) - BREAST.image // 2 for f in (0, 3))
    assert (hard[mask] == 100).all() and (soft[~mask] == 0).all()
    assert soft[50, 10] == 0 and 0 < soft[50, 20] < 20 and soft[60, 20] >= 99
    # at a straight border: 2 Phi(depth / sigma) - 1
    middle = [soft[50 + k, 20] / 100 for k in range(6)]
    assert np.allclose(middle, [2 * ndtr((k + 0.5) / 3) - 1 for k in range(6)], atol=0.02)


@pytest.mark.parametrize("side", [1, 2, 3, 5, 9])
def test_a_feather_leaves_something_of_small_masks(side: int) -> None:
    mask = np.zeros((40, 40), bool)
    mask[5 : 5 + side, 0:side] = True  # at the border of the image, which is none of the mask
    weight = feathered(mask, 6.0)
    assert weight[mask].max() > 0.4 and (weight[~mask] == 0).all() and weight.shape == mask.shape
    assert weight[5 + side // 2, 0] == weight[mask].max()
    assert np.array_equal(feathered(mask, 0), mask.astype(np.float32))


def test_mask_must_lie_on_a_breast() -> None:
    mask = np.zeros((128, 128), bool)
    mask[:10, -10:] = True
    with pytest.raises(InputError, match="0 % of the mask lies on the breast"):
        Canvas(BREAST.image, mask, 128)
    with pytest.raises(InputError, match="no breast is found"):
        Canvas(np.zeros((128, 128), np.uint8), mask, 128)


def test_every_touched_pixel_of_the_model_is_masked() -> None:
    levels = picture(512, 512, 12, False)
    mask = np.zeros(levels.shape, bool)
    mask[255:258, 100] = True  # rows 63 and 64 of the model
    small = Canvas(levels, mask, 128).small_mask
    assert small.sum() == 2 and small[63:65, 25].all()


def test_free_area_and_boxes_stay_off_skin_and_muscle() -> None:
    breast = draw(size=128, seed=5, index=3).mask
    muscle = np.zeros_like(breast)
    muscle[:, :20] = True
    free = free_area(breast, muscle)
    depth = ndimage.distance_transform_edt(np.pad(breast, 1, mode="edge"))[1:-1, 1:-1]
    assert free.any() and not free[:, :20].any() and depth[free].min() > 2
    assert free_area(np.ones((20, 20), bool)).all()  # the border of the image is no skin
