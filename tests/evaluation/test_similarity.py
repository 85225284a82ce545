"""PSNR and SSIM equal the definitions of torchmetrics, and behave as a ruler must."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from mame_lib.data.phantom import draw
from mame_lib.errors import InputError
from mame_lib.evaluation import similarity
from mame_lib.evaluation.degradations import blurred, noisy
from mame_lib.evaluation.similarity import psnr, ssim, ssim_map

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
