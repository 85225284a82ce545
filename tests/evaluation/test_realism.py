"""The measures of realism on shapes worked out by hand, on phantoms, and on lesions pasted in the old ways."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
from scipy import ndimage

from mame_lib.data.lesions import LesionSpec
from mame_lib.data.phantom import Phantom, draw
from mame_lib.errors import InputError
from mame_lib.evaluation.autoencoder import visibility
from mame_lib.evaluation.degradations import blurred
from mame_lib.evaluation.pastes import feathered_paste, hard_paste, poisson_paste
from mame_lib.evaluation.realism import (
    BANDS,
    Box,
    band_power,
    contrast,
    ellipse,
    local_power,
    margin_profile,
    margin_width,
    outline,
    realism,
    seam,
    spectral_slope,
)

SEED = 973_000
FULL = np.ones((64, 64), bool)
BOX: Box = (20, 24, 44, 40)


@lru_cache(maxsize=1)
def twins() -> tuple[tuple[Phantom, Phantom], ...]:
    """Eight breasts with a round mass of 12 px, and without."""
    spec = LesionSpec(kind="mass", shape="round", margin="circumscribed", area=0.01, aspect=1.0)
    return tuple((draw(seed=SEED, index=k, lesion=spec), draw(seed=SEED, index=k)) for k in range(8))


def box_of(phantom: Phantom) -> Box:
    return phantom.lesions[0].box


def cut(image: np.ndarray, box: Box) -> np.ndarray:
    return image[box[1] : box[3], box[0] : box[2]]


def rectangle(box: Box, size: int) -> np.ndarray:
    mask = np.zeros((size, size), bool)
    mask[box[1] : box[3], box[0] : box[2]] = True
    return mask


def disc(level: float, blur: float = 0.0, box: Box = BOX) -> np.ndarray:
    """`level` levels on 100, in the ellipse of the box."""
    image = 100 + level * ellipse(box, 64).astype(float)
    return ndimage.gaussian_filter(image, blur) if blur else image


def mean_seam(images: list[np.ndarray]) -> float:
    """Geometric mean over the twins."""
    pairs = zip(images, (ill for ill, _ in twins()), strict=True)
    return float(np.exp(np.mean([np.log(seam(i, rectangle(box_of(p), len(i)), p.mask)) for i, p in pairs])))


# --- contrast


def test_an_ellipse_fills_its_box() -> None:
    mask = ellipse(BOX, 64)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    assert (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1) == BOX
    assert mask.sum() == pytest.approx(np.pi / 4 * 24 * 16, rel=0.03)
    assert ellipse((5, 5, 6, 6), 64).sum() == 1 and (ellipse(BOX, 64, 0.5) <= mask).all()


@pytest.mark.parametrize("box", [(5, 5, 5, 9), (9, 5, 5, 9), (70, 5, 80, 9), (-9, 5, -1, 9)])
def test_no_ellipse_without_a_box(box: Box) -> None:
    with pytest.raises(InputError, match="empty or outside"):
        ellipse(box, 64)


def test_contrast_is_the_planted_one() -> None:
    images = np.stack([disc(level) for level in (-10, 0, 10, 30)])
    found = contrast(images, [BOX] * 4, [FULL] * 4)
    assert np.allclose(found.contrast, (-10, 0, 10, 30))
    same = visibility(images, np.stack([ellipse(BOX, 64)] * 4), np.stack([FULL] * 4))
    assert np.array_equal(found.contrast, same.contrast)


# --- margin


@pytest.mark.parametrize("sigma", [1.0, 1.5, 2.0])
def test_a_blurred_step_is_as_wide_as_its_blur(sigma: float) -> None:
    box = (10, 10, 54, 54)
    width = margin_width(disc(60, sigma, box), box, FULL)
    assert width == pytest.approx(2.1 * sigma, rel=0.06)
    assert margin_width(disc(20, sigma, box), box, FULL) == pytest.approx(width, rel=1e-6)  # whatever the contrast


def test_a_sharp_step_is_a_pixel_wide_and_softer_ones_wider() -> None:
    widths = [margin_width(disc(40, sigma), BOX, FULL) for sigma in (0, 0.7, 1, 1.5, 2)]
    assert widths[0] == pytest.approx(1.0, abs=0.02)
    assert widths == sorted(widths)


def test_the_outline_is_where_the_step_is() -> None:
    found = outline(disc(40), BOX, FULL)
    assert found is not None and (found != ellipse(BOX, 64)).mean() < 0.01
    profile = margin_profile(disc(40), ellipse(BOX, 64), FULL, reach=4)
    assert profile.tolist() == [140.0] * 4 + [100.0] * 4
    ring = margin_profile(disc(40), ellipse((30, 30, 33, 33), 64), FULL, reach=4)
    assert np.isnan(ring[:2]).all() and np.isfinite(ring[2:]).all()  # a small lesion is not that deep


def test_what_does_not_stand_out_has_no_margin() -> None:
    assert np.isnan(margin_width(disc(0), BOX, FULL)) and np.isnan(margin_width(disc(-30), BOX, FULL))
    assert outline(disc(3), BOX, FULL) is None
    assert np.isnan(margin_width(disc(40), BOX, FULL, np.zeros_like(FULL)))


def test_a_blurred_mass_has_a_softer_margin_than_the_same_mass() -> None:
    ill = [pair[0] for pair in twins()]
    widths = [[margin_width(blurred(p.image, s), box_of(p), p.mask) for s in (0.0, 1.0, 2.0)] for p in ill]
    medians = np.nanmedian(np.array(widths), axis=0)
    assert medians[0] < medians[1] < medians[2]


# --- spectrum


@pytest.mark.parametrize("box", [(30, 30, 34, 34), (20, 20, 44, 44), (0, 0, 31, 31), (60, 60, 64, 64)])
def test_white_noise_is_flat_whatever_the_box(box: Box) -> None:
    rng = np.random.default_rng(1)
    power = np.mean([local_power(rng.normal(100, 7, (64, 64)), box)[1] for _ in range(150)], axis=0)
    assert power[1:] == pytest.approx(np.full(len(power) - 1, 49.0), rel=0.15)
    assert 0.65 * 49 < power[0] < 0.85 * 49


@pytest.mark.parametrize("beta", [0.0, 2.0, 3.0])
def test_a_power_law_is_found(beta: float) -> None:
    rng = np.random.default_rng(2)
    f = np.hypot(np.fft.fftfreq(64)[:, None], np.fft.fftfreq(64)[None])
    f[0, 0] = 1
    fields = [np.fft.ifft2(np.fft.fft2(rng.normal(size=(64, 64))) * f ** (-beta / 2)).real for _ in range(30)]
    assert np.mean([spectral_slope(field, (16, 16, 48, 48)) for field in fields]) == pytest.approx(beta, abs=0.35)


def test_blur_takes_the_fine_band_first() -> None:
    image = np.random.default_rng(3).normal(100, 10, (64, 64))
    bands = [band_power(ndimage.gaussian_filter(image, s), BOX) for s in (0, 0.5, 1.0)]
    for name in BANDS:
        assert [band[name] for band in bands] == sorted((band[name] for band in bands), reverse=True)
    lost = {name: bands[0][name] - bands[2][name] for name in BANDS}
    assert lost["fine"] > lost["middle"] > lost["coarse"]


def test_one_gray_has_the_power_of_rounding() -> None:
    assert band_power(np.full((64, 64), 90), BOX) == pytest.approx(dict.fromkeys(BANDS, -10.79), abs=0.01)
    assert np.isnan(spectral_slope(np.full((64, 64), 90), BOX))


# --- seam


def test_a_seam_by_hand() -> None:
    """Columns rise by 1; in the box everything is `d` higher: d + 1 or d - 1 across its sides, d above and below."""
    ramp = np.tile(np.arange(64.0), (64, 1))
    mask = rectangle(BOX, 64)
    sides, ends = 2 * 16, 2 * 24
    for d in (3, 5, 9):
        across = (sides * d + ends * d) / (sides + ends)
        beside = max(sides / (sides + ends), 0.5)  # 1 from column to column, 0 from row to row
        assert seam(ramp + d * mask, mask, FULL) == pytest.approx(across / beside, rel=1e-6)
    assert seam(ramp, mask, FULL) == pytest.approx(sides / (sides + ends) / 0.5)


def test_a_gray_square_shows_the_more_the_brighter_it_is() -> None:
    plain = [well.image.astype(float) for _, well in twins()]
    lifted = [
        mean_seam([i + d * rectangle(box_of(ill), len(i)) for i, (ill, _) in zip(plain, twins(), strict=True)])
        for d in (0, 10, 20, 40, 80)
    ]
    assert lifted == sorted(lifted)
    assert 0.8 < lifted[0] < 1.25 and lifted[3] > 2


def test_true_masses_have_no_seam_and_pasted_ones_do() -> None:
    ill, well = ([pair[k] for pair in twins()] for k in (0, 1))
    donors = ill[3:] + ill[:3]
    patches = [cut(d.image, box_of(d)) for d in donors]
    boxes = [(b[0], b[1], b[0] + p.shape[1], b[1] + p.shape[0]) for b, p in zip(map(box_of, ill), patches, strict=True)]

    def pasted(how: object) -> float:
        made = [how(w.image, p, b) for w, p, b in zip(well, patches, boxes, strict=True)]  # type: ignore[operator]
        rows = zip(made, boxes, well, strict=True)
        return float(np.exp(np.mean([np.log(seam(i, rectangle(b, len(i)), w.mask)) for i, b, w in rows])))

    hard, feathered, poisson = (pasted(how) for how in (hard_paste, feathered_paste, poisson_paste))
    assert 0.8 < mean_seam([p.image for p in ill]) < 1.4
    assert hard > 1.8 and hard > 1.4 * feathered and hard > 1.4 * poisson


def test_no_seam_off_the_breast() -> None:
    with pytest.raises(InputError, match="no border of the mask"):
        seam(disc(10), rectangle(BOX, 64), ~rectangle((10, 10, 60, 60), 64))
    with pytest.raises(InputError, match="no border of the mask"):
        seam(disc(10), np.ones_like(FULL), FULL)


# --- all of them


def test_all_measures_of_many_images_are_those_of_each() -> None:
    some = [ill for ill, _ in twins()[:4]]
    images, boxes, masks = np.stack([p.image for p in some]), [box_of(p) for p in some], [p.mask for p in some]
    found = realism(images, boxes, masks)
    assert list(found) == ["contrast", "to_noise", "margin", "slope", *BANDS, "seam"]
    assert all(values.shape == (4,) for values in found.values())
    one = realism(images[2:3].astype(np.float32), boxes[2:3], masks[2:3])
    for name, values in found.items():
        assert values[2] == pytest.approx(one[name][0], nan_ok=True)
    wide = realism(images, boxes, masks, [ndimage.binary_dilation(rectangle(b, 128), iterations=3) for b in boxes])
    assert not np.allclose(wide["seam"], found["seam"])
    assert np.array_equal(images, np.stack([p.image for p in some]))


# --- pastes


def test_pastes_change_nothing_but_the_box() -> None:
    image = np.random.default_rng(4).integers(50, 200, (64, 64)).astype(np.uint8)
    patch = np.random.default_rng(5).integers(50, 200, (16, 24))
    for how in (hard_paste, feathered_paste, poisson_paste):
        made = how(image, patch, BOX)
        changed = made != image
        assert made.dtype == np.uint8 and changed.any() and not changed[~rectangle(BOX, 64)].any()
    assert np.array_equal(cut(hard_paste(image, patch, BOX), BOX), patch)


def test_an_image_pasted_into_itself_stays() -> None:
    image = np.random.default_rng(6).integers(50, 200, (64, 64)).astype(np.uint8)
    for how in (hard_paste, feathered_paste, poisson_paste):
        assert np.array_equal(how(image, cut(image, BOX), BOX), image)


def test_gradients_do_not_know_the_gray_of_the_patch() -> None:
    image = np.full((64, 64), 60, np.uint8)
    patch = cut(disc(50, 1.0), BOX)
    pasted = poisson_paste(image, patch, BOX)
    assert np.array_equal(pasted, poisson_paste(image, patch + 40, BOX))
    wider = (BOX[0] - 4, BOX[1] - 4, BOX[2] + 4, BOX[3] + 4)
    smooth = poisson_paste(image, cut(disc(50, 1.0), wider), wider)  # around it the patch is flat, like the image
    assert np.abs(cut(smooth, wider) - (cut(disc(50, 1.0), wider) - 40)).max() <= 1


def test_a_patch_of_another_size_is_refused() -> None:
    image = np.zeros((64, 64), np.uint8)
    for how in (hard_paste, feathered_paste, poisson_paste):
        with pytest.raises(InputError, match="does not fit the box"):
            how(image, np.zeros((16, 16)), BOX)
        with pytest.raises(InputError, match="does not fit the box"):
            how(image, np.zeros((16, 24)), (50, 24, 74, 40))
    assert np.array_equal(poisson_paste(image, np.full((2, 9), 9), (5, 5, 14, 7)), image)  # nothing but border
