"""PSNR, SSIM and MS-SSIM equal the definitions of torchmetrics, and behave as a ruler must."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure as their_ms_ssim
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from mame_lib.data.case import Attributes
from mame_lib.data.geometry import face_left, left_gap
from mame_lib.data.masks import breast_mask
from mame_lib.data.phantom import draw
from mame_lib.errors import InputError
from mame_lib.evaluation import similarity
from mame_lib.evaluation.degradations import blurred, noisy
from mame_lib.evaluation.similarity import WEIGHTS, levels_for, ms_ssim, pairwise_ms_ssim, psnr, ssim, ssim_map

REAL = Path(__file__).resolve().parents[3] / "shared" / "mammograms" / "cdd_cesm" / "images"

PHANTOMS = [draw(seed=5, index=k) for k in range(3)]
IMAGES = np.stack([one.image for one in PHANTOMS])  # [3, 128, 128]
MASKS = np.stack([one.mask for one in PHANTOMS])


def _spoiled(kind: str) -> np.ndarray:
    rng = np.random.default_rng(3)
    if kind == "another":
        return np.roll(IMAGES, 1, axis=0)
    return np.stack([noisy(x, 9, rng) if kind == "noise" else blurred(x, 1.5) for x in IMAGES])


@pytest.mark.parametrize("kind", ["noise", "blur", "another"])
def test_equal_to_torchmetrics(kind: str) -> None:
    others = _spoiled(kind)
    a, b = (torch.as_tensor(x)[:, None].double() for x in (IMAGES, others))
    theirs = structural_similarity_index_measure(a, b, data_range=255.0, reduction="none")
    assert torch.allclose(ssim(IMAGES, others), theirs, atol=1e-9)
    for x, y in zip(a, b, strict=True):
        ours = psnr(x[0], y[0])
        assert torch.allclose(ours, peak_signal_noise_ratio(x, y, data_range=255.0).double(), atol=1e-6)


def test_torchmetrics_map_of_an_image_that_is_not_square() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.uniform(0, 1, (2, 23, 40))
    given = (torch.as_tensor(x)[None, None] for x in (a, b))
    value, theirs = structural_similarity_index_measure(*given, data_range=1.0, return_full_image=True)
    ours = ssim_map(a, b, data_range=1.0)
    assert ours.shape == (23, 40)
    assert torch.allclose(ours, theirs[0, 0], atol=1e-9)
    assert float(ssim(a, b, data_range=1.0)) == pytest.approx(float(value), abs=1e-9)


def test_equal_images_are_perfect_and_order_does_not_matter() -> None:
    assert torch.equal(ssim(IMAGES, IMAGES), torch.ones(3, dtype=torch.float64))
    assert psnr(IMAGES, IMAGES).isposinf().all()
    others = _spoiled("noise")
    assert torch.equal(psnr(IMAGES, others), psnr(others, IMAGES))
    assert torch.allclose(ssim(IMAGES, others), ssim(others, IMAGES))


def test_a_known_error_has_its_decibels() -> None:
    flat = np.full((16, 16), 100.0)
    assert float(psnr(flat, flat + 25.5)) == pytest.approx(20.0)
    assert float(psnr(flat / 255, flat / 255 + 0.1, data_range=1.0)) == pytest.approx(20.0)


@pytest.mark.parametrize("measure", [psnr, ssim])
def test_black_ground_flatters_and_the_mask_tells(measure: object) -> None:
    """An error inside the breast only: the whole image scores higher, the more so the smaller the breast."""
    others = np.where(MASKS, _spoiled("noise"), IMAGES)
    whole, breast = measure(IMAGES, others), measure(IMAGES, others, mask=MASKS)  # type: ignore[operator]
    assert (breast < whole).all()
    smallest = int(MASKS.mean((1, 2)).argmin())
    assert int((whole - breast).argmax()) == smallest


def test_a_mask_of_everything_changes_nothing() -> None:
    others, everything = _spoiled("blur"), np.ones_like(MASKS)
    assert torch.allclose(psnr(IMAGES, others), psnr(IMAGES, others, mask=everything))
    assert torch.allclose(ssim(IMAGES, others), ssim(IMAGES, others, mask=everything))


def test_blocks_of_images_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    others = _spoiled("noise")
    together = ssim_map(IMAGES, others)
    monkeypatch.setattr(similarity, "BLOCK", 2 * IMAGES[0].size)
    assert torch.equal(ssim_map(IMAGES, others), together)
    monkeypatch.setattr(similarity, "BLOCK", 1)
    assert torch.equal(ssim_map(IMAGES, others), together)


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(InputError, match="of one shape"):
        psnr(IMAGES, IMAGES[:2])
    with pytest.raises(InputError, match="of one shape"):
        ssim(np.zeros((2, 3, 8, 8)), np.zeros((2, 3, 8, 8)))
    with pytest.raises(InputError, match="6 pixels a side"):
        ssim(np.zeros((5, 9)), np.zeros((5, 9)))
    for wrong in (MASKS[:1], MASKS.astype(np.uint8), np.zeros_like(MASKS)):
        with pytest.raises(InputError, match="mask"):
            psnr(IMAGES, IMAGES, mask=wrong)


def _betas(levels: int) -> tuple[float, ...]:
    """Weights of the levels as torchmetrics takes them; of less than five, divided by their sum."""
    return WEIGHTS if levels == 5 else tuple(w / sum(WEIGHTS[:levels]) for w in WEIGHTS[:levels])


def _resized(images: np.ndarray, side: int) -> np.ndarray:
    return np.stack([np.asarray(Image.fromarray(x).resize((side, side), Image.Resampling.BICUBIC)) for x in images])


@pytest.mark.parametrize(("side", "levels"), [(64, 3), (128, 4), (256, 5), (512, 5)])
def test_ms_ssim_equal_to_torchmetrics(side: int, levels: int) -> None:
    image, another = _resized(IMAGES[:2], side)
    images, others = np.stack([image] * 2), np.stack([another, noisy(image, 9, np.random.default_rng(4))])
    exact = side <= 128  # torchmetrics takes seconds in float64, and errs by some 1e-6 in float32
    a, b = (torch.as_tensor(x)[:, None].to(torch.float64 if exact else torch.float32) for x in (images, others))
    theirs = their_ms_ssim(a, b, data_range=255.0, betas=_betas(levels), reduction="none").double()
    assert torch.allclose(ms_ssim(images, others), theirs, atol=1e-7 if exact else 1e-5, rtol=0)
    fractions = ms_ssim(images / 255, others / 255, data_range=1.0)
    assert torch.allclose(fractions, ms_ssim(images, others), atol=1e-9)


@pytest.mark.parametrize("levels", [1, 2, 3, 4])
def test_torchmetrics_at_each_number_of_levels_of_images_not_square_and_not_even(levels: int) -> None:
    rng = np.random.default_rng(0)
    smooth = np.stack([blurred(x, 3.0) for x in rng.uniform(0, 255, (2, 107, 131)).astype(np.uint8)])
    a, b = smooth.astype(float) * 4 - 380
    b = b + a / 2  # alike enough that no level is 0
    theirs = their_ms_ssim(*(torch.as_tensor(x)[None, None] for x in (a, b)), data_range=255.0, betas=_betas(levels))
    assert float(theirs) > 0.05
    assert float(ms_ssim(a, b, levels=levels)) == pytest.approx(float(theirs), abs=1e-7)


def test_opposite_structure_counts_as_zero() -> None:
    image = IMAGES[:1].astype(float)
    a, b = (torch.as_tensor(x)[:, None] for x in (image, 255 - image))
    assert float(ms_ssim(image, 255 - image)) == float(their_ms_ssim(a, b, data_range=255.0, betas=_betas(4))) == 0


def test_levels_follow_the_smaller_side() -> None:
    for side, levels in ((10, 0), (11, 1), (22, 2), (43, 2), (44, 3), (87, 3), (88, 4), (175, 4), (176, 5), (2000, 5)):
        assert levels_for(side) == levels
    wide = np.zeros((44, 300))
    assert torch.equal(ms_ssim(wide, wide), ms_ssim(wide, wide, levels=3))
    one = IMAGES[0]
    assert float(ms_ssim(one, blurred(one, 2), levels=1)) == pytest.approx(float(ssim(one, blurred(one, 2))))


def test_ms_ssim_of_equal_images_order_and_a_mask_of_everything() -> None:
    assert torch.allclose(ms_ssim(IMAGES, IMAGES), torch.ones(3, dtype=torch.float64), atol=1e-12)
    others = _spoiled("another")
    plain = ms_ssim(IMAGES, others)
    assert torch.allclose(plain, ms_ssim(others, IMAGES))
    assert torch.allclose(plain, ms_ssim(IMAGES, others, mask=np.ones_like(MASKS)))


def test_ms_ssim_within_a_mask_by_hand() -> None:
    """Two levels written out with the maps of torchmetrics: what is left of a mask after the cut, level by level."""
    a, b = IMAGES[0].astype(float)[30:70, :40], IMAGES[1].astype(float)[30:70, :40]
    mask = np.zeros((40, 40), bool)
    mask[8:33, 2:21] = True
    halves = [x.reshape(20, 2, 20, 2).mean((1, 3)) for x in (a, b)]
    half_mask = mask.reshape(20, 2, 20, 2).any((1, 3))
    maps = []
    for pair in ((a, b), halves):
        given = [torch.as_tensor(x)[None, None] for x in pair]
        maps.append(structural_similarity_index_measure(*given, data_range=255.0, return_full_image=True)[1][0, 0])
    # contrast and structure alone: SSIM over luminance, whose means are those of SciPy's Gaussian filter
    m1, m2 = (torch.as_tensor(gaussian_filter(x, 1.5, mode="mirror", truncate=3.5)) for x in (a, b))
    c1 = (0.01 * 255) ** 2
    structure = maps[0] * (m1**2 + m2**2 + c1) / (2 * m1 * m2 + c1)
    means = float(structure[5:-5, 5:-5][mask[5:-5, 5:-5]].mean()), float(maps[1][half_mask].mean())
    first, second = _betas(2)
    assert min(means) > 0.01
    assert float(ms_ssim(a, b, mask=mask)) == pytest.approx(means[0] ** first * means[1] ** second, abs=1e-7)


def test_all_pairs_equal_single_pairs() -> None:
    everything, within = pairwise_ms_ssim(IMAGES), pairwise_ms_ssim(IMAGES, masks=MASKS)
    assert torch.equal(everything, everything.T) and torch.equal(within, within.T)
    assert torch.equal(everything.diagonal(), torch.ones(3, dtype=torch.float64))
    pairs = [(2, 0), (0, 1), (2, 1), (1, 1)]
    some, some_within = pairwise_ms_ssim(IMAGES, pairs=pairs), pairwise_ms_ssim(IMAGES, masks=MASKS, pairs=pairs)
    for k, (i, j) in enumerate(pairs):
        alone, union = ms_ssim(IMAGES[i], IMAGES[j]), MASKS[i] | MASKS[j]
        alone_within = ms_ssim(IMAGES[i], IMAGES[j], mask=union)
        for ours, there in ((everything[i, j], alone), (some[k], alone), (within[i, j], alone_within),
                            (some_within[k], alone_within)):  # fmt: skip
            assert float(ours) == pytest.approx(float(there), abs=2e-6)  # float32 against float64
    small = pairwise_ms_ssim(IMAGES / 4095, data_range=255 / 4095)
    assert torch.allclose(small, everything, atol=2e-6)


def test_statistics_are_computed_once_and_blocks_bound_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.stack([draw(size=64, seed=8, index=k).image for k in range(7)])
    plain = pairwise_ms_ssim(images)
    seen: dict[str, list[Any]] = {"windows": [], "smooth": []}

    def spied(name: str) -> Callable[..., Any]:
        original = getattr(similarity, name)

        def call(pixels: torch.Tensor, *rest: Any) -> Any:
            seen[name].append(pixels.shape)
            return original(pixels, *rest)

        return call

    for name in seen:
        monkeypatch.setattr(similarity, name, spied(name))
    monkeypatch.setattr(similarity, "BLOCK", 3 * 64 * 64)
    assert torch.allclose(pairwise_ms_ssim(images), plain, atol=1e-7)
    assert [shape[0] for shape in seen["windows"]] == [7, 7, 7]  # once at each of three levels
    assert sum(shape[0] for shape in seen["smooth"]) == 3 * 21  # one product for a pair and level
    assert max(shape[0] for shape in seen["smooth"]) == 3


def _on_canvas(values: np.ndarray, side: int) -> np.ndarray:
    """Stacks [N, n, n] at the left border and the middle height of black ones."""
    more = side - values.shape[1]
    return np.pad(values, ((0, 0), (more // 2, more // 2), (0, more)))


@pytest.mark.parametrize("view", ["CC", "MLO"])
def test_more_black_flatters_the_plain_score_and_not_that_of_the_breast(view: str) -> None:
    """The same breasts on larger and larger black canvases, all of four levels, on which nothing else differs.

    Plain: every pair rises with every step, by 0.4 in the mean. Breast alone: by 0.06 at most in the mean, because
    windows at the skin see the black; and not at all once the black is wider than the largest window reaches.
    """
    drawn = [draw(Attributes(view=view, laterality="L"), size=88, seed=7, index=k) for k in range(6)]
    images, masks = np.stack([p.image for p in drawn]), np.stack([p.mask for p in drawn])
    upper = np.triu_indices(6, 1)
    sides = (88, 104, 120, 136, 152, 168)
    plain = [pairwise_ms_ssim(_on_canvas(images, n))[upper] for n in sides]
    breast = [pairwise_ms_ssim(_on_canvas(images, n), masks=_on_canvas(masks, n))[upper] for n in sides]
    assert all((after > before).all() for before, after in pairwise(plain))
    assert plain[-1].mean() - plain[0].mean() > 0.4
    assert abs(breast[-1].mean() - breast[0].mean()) < 0.06
    assert torch.allclose(breast[-1], breast[-2], atol=2e-6) and torch.allclose(breast[-2], breast[-3], atol=2e-6)


@pytest.mark.skipif(not REAL.is_dir(), reason="the real mammograms are not here")
def test_real_mammograms_score_as_published_and_the_breast_alone_lower() -> None:
    """Eight CDD-CESM files at 512 px; spans around what many more of them gave (mean of pairs 0.53 to 0.56)."""
    images = []
    for path in sorted(REAL.glob("*.jpg")):
        image, _ = face_left(np.asarray(Image.open(path).convert("L")))
        gap = left_gap(image)
        images.append(np.pad(image[:, gap:], ((0, 0), (0, gap))))
    stack, masks = np.stack(images), np.stack([breast_mask(x) for x in images])
    upper = np.triu_indices(len(stack), 1)
    plain, breast = pairwise_ms_ssim(stack)[upper], pairwise_ms_ssim(stack, masks=masks)[upper]
    assert 0.38 < plain.mean() < 0.65
    assert (breast < plain).all() and breast.mean() < 0.5 * plain.mean()
    rng = np.random.default_rng(0)
    for sd, there in ((2, 0.991), (4, 0.967), (8, 0.910), (16, 0.805)):
        spoiled = np.clip(stack[:4] + rng.normal(0, sd, stack[:4].shape), 0, 255)
        assert float(ms_ssim(stack[:4], spoiled).mean()) == pytest.approx(there, abs=0.03)


def test_what_has_no_ms_ssim_is_refused() -> None:
    small = np.zeros((2, 10, 40))
    for refused in (lambda: ms_ssim(small, small), lambda: pairwise_ms_ssim(small)):
        with pytest.raises(InputError, match="1 level needs images of at least 11 pixels a side"):
            refused()
    with pytest.raises(InputError, match="5 levels needs images of at least 176 pixels a side"):
        ms_ssim(IMAGES, IMAGES, levels=5)
    with pytest.raises(InputError, match="1 to 5 levels, not 6"):
        ms_ssim(IMAGES, IMAGES, levels=6)
    rim = np.zeros_like(MASKS)
    rim[:, :, :3] = True
    with pytest.raises(InputError, match="no pixel left at level 1"):
        ms_ssim(IMAGES, IMAGES, mask=rim)
    with pytest.raises(InputError, match="shape of the images"):
        pairwise_ms_ssim(IMAGES, masks=MASKS[:2])
    with pytest.raises(InputError, match="at least two gray images"):
        pairwise_ms_ssim(IMAGES[0])
    for wrong in ([(0, 3)], [(-1, 0)], [0, 1], []):
        with pytest.raises(InputError, match="indexes"):
            pairwise_ms_ssim(IMAGES, pairs=wrong)  # type: ignore[arg-type]
