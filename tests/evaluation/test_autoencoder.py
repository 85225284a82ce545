"""What the autoencoder keeps: measures right where the answer is known, and the shipped model on real files."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from mame_lib.data.case import Attributes
from mame_lib.data.geometry import face_left, left_gap, to_square
from mame_lib.data.lesions import LesionSpec
from mame_lib.data.masks import breast_mask
from mame_lib.data.phantom import draw
from mame_lib.errors import InputError
from mame_lib.evaluation.autoencoder import (
    contrast_kept,
    interval,
    power_kept,
    reconstruct,
    scores,
    visibility,
)
from mame_lib.evaluation.similarity import ssim
from mame_lib.models.components import Components
from mame_lib.models.latents import decode, encode_moments

REAL = Path(__file__).resolve().parents[3] / "shared" / "mammograms"
BIG = Attributes(view="CC", area="big")
PHANTOMS = [draw(BIG, seed=7, index=k) for k in range(4)]
IMAGES = np.stack([one.image for one in PHANTOMS])  # [4, 128, 128]
MASKS = np.stack([one.mask for one in PHANTOMS])


class Halving:
    """An autoencoder that can be worked out by hand: latents are means over 2 x 2 pixels, one channel missing."""

    device = torch.device("cpu")
    batches: list[int]

    def __init__(self) -> None:
        self.batches = []

    def encode(self, pixels: torch.Tensor) -> Any:
        mean = torch.nn.functional.avg_pool2d(pixels, 2)  # [B, 3, h, w]
        return SimpleNamespace(latent_dist=SimpleNamespace(mean=mean, std=torch.full_like(mean, 0.5)))

    def decode(self, latents: torch.Tensor) -> Any:
        self.batches.append(len(latents))
        return SimpleNamespace(sample=latents.repeat_interleave(2, 2).repeat_interleave(2, 3))


@pytest.fixture(scope="module")
def vae() -> Any:
    return Components.load("tiny").vae


def test_round_trip_by_hand_in_any_batch() -> None:
    images = np.random.default_rng(0).uniform(0, 255, (5, 8, 8))
    expected = images.reshape(5, 4, 2, 4, 2).mean((2, 4)).repeat(2, 1).repeat(2, 2)
    for batch in (None, 1, 2, 5):
        made = reconstruct(Halving(), images, batch_size=batch)  # type: ignore[arg-type]
        assert np.allclose(made.gray, expected, atol=1e-3)  # not rounded
        assert made.chroma.max() < 1e-4
    one = Halving()
    reconstruct(one, images, batch_size=2)  # type: ignore[arg-type]
    assert one.batches == [2, 2, 1]


def test_noise_makes_a_sample_of_the_posterior() -> None:
    images, noise = np.full((2, 8, 8), 127.5), torch.randn(2, 3, 4, 4)
    made = reconstruct(Halving(), images, noise=noise)  # type: ignore[arg-type]
    wanted = ((0.5 * noise).clamp(-1, 1) + 1) * 127.5
    assert torch.allclose(made.color[:, :, ::2, ::2], wanted, atol=1e-3)


def test_the_layout_of_stable_diffusion() -> None:
    """With attention in the middle and another scaling factor, as SD 1.5 has; batches of any size agree."""
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    full = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 8, 16), norm_num_groups=4, sample_size=64, scaling_factor=0.18215,
    ).eval()  # fmt: skip
    made = reconstruct(full, IMAGES[:, 32:96, :64], batch_size=3)
    assert made.moments.mean.shape == made.moments.std.shape == (4, 4, 8, 8)
    assert made.color.shape == (4, 3, 64, 64) and made.gray.shape == (4, 64, 64)
    alone = reconstruct(full, IMAGES[3:, 32:96, :64])
    assert torch.allclose(made.color[3:], alone.color, atol=1e-2)


def test_chroma_is_the_distance_from_gray() -> None:
    red = np.zeros((1, 8, 8, 3))
    red[..., 0] = 90
    made = reconstruct(Halving(), red)  # type: ignore[arg-type]
    assert made.chroma[0] == pytest.approx(np.sqrt((60**2 + 30**2 + 30**2) / 3), abs=1e-3)
    assert made.gray[0, 0, 0] == pytest.approx(30, abs=1e-3)


def test_same_as_the_books_decode_but_for_rounding(vae: Any) -> None:
    latents = encode_moments(vae, IMAGES).mean * vae.config.scaling_factor
    assert np.abs(reconstruct(vae, IMAGES).gray - decode(vae, latents)).max() <= 0.5 + 1e-3


@pytest.mark.parametrize("images", [IMAGES / 255.0, IMAGES - 10.0, IMAGES * 16.0])
def test_a_wrong_scale_is_refused(images: np.ndarray) -> None:
    with pytest.raises(InputError, match="gray levels 0 to 255"):
        reconstruct(Halving(), images)  # type: ignore[arg-type]


def test_power_kept_by_a_known_filter() -> None:
    """A Gaussian blur of sigma pixels leaves exp(-(2 pi f sigma)^2) of the power at frequency f."""
    sigma, images = 1.2, np.stack([draw(BIG, size=256, seed=7, index=k).image for k in range(3)]).astype(float)
    masks = np.stack([breast_mask(image.astype(np.uint8)) for image in images])
    blurred = np.stack([ndimage.gaussian_filter(image, sigma) for image in images])
    frequency, kept = power_kept(images, blurred, masks)
    assert kept.shape == (3, len(frequency))
    low = frequency < 0.15  # above, what leaks through the window outweighs what is left
    expected = np.exp(-((2 * np.pi * frequency * sigma) ** 2))
    assert np.allclose(kept.mean(0)[low], expected[low], rtol=0.15, atol=0.02)
    assert np.allclose(power_kept(images, images, masks)[1], 1)


def test_breasts_without_room_have_no_spectrum() -> None:
    narrow = np.zeros_like(MASKS)
    narrow[:, :, :8] = True
    with pytest.raises(InputError, match="no breast is large enough"):
        power_kept(IMAGES, IMAGES, narrow)
    assert len(power_kept(IMAGES, IMAGES, np.concatenate([narrow[:1], MASKS[1:]]))[1]) == 3


def _planted() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Noise of sd 5 around 100 with a disc 20 brighter: image, lesion, breast."""
    rng, (y, x) = np.random.default_rng(1), np.mgrid[:64, :64]
    lesion = (np.hypot(y - 30, x - 30) < 9)[None]
    return (100 + rng.normal(0, 5, (1, 64, 64)) + 20 * lesion), lesion, np.ones((1, 64, 64), bool)


def test_visibility_of_a_planted_disc() -> None:
    image, lesion, breast = _planted()
    seen = visibility(image, lesion, breast)
    assert seen.contrast[0] == pytest.approx(20, abs=1.5) and seen.to_noise[0] == pytest.approx(4, abs=0.6)
    half = visibility(image / 2, lesion, breast)
    assert half.contrast[0] == pytest.approx(seen.contrast[0] / 2)
    assert half.to_noise[0] == pytest.approx(seen.to_noise[0])


def test_only_the_breast_around_a_lesion_counts() -> None:
    image, lesion, breast = _planted()
    image[0, :, :30], breast[0, :, :30] = 0, False
    lesion &= breast
    assert visibility(image, lesion, breast).contrast[0] == pytest.approx(20, abs=2)
    for wrong in (np.zeros_like(lesion), breast):
        with pytest.raises(InputError, match="a lesion needs pixels"):
            visibility(image, wrong, breast)


def test_contrast_kept_of_a_known_loss() -> None:
    image, lesion, _ = _planted()
    without = image - 20 * lesion
    before, after = contrast_kept((image, image * 0.4), (without, without * 0.4), lesion)
    assert before[0] == pytest.approx(20) and after[0] == pytest.approx(8)


def test_scores_know_ground_from_breast() -> None:
    back = np.where(MASKS, IMAGES, 3).astype(float)
    found = scores(IMAGES, back, MASKS)
    assert np.isposinf(found["psnr_breast"]).all() and np.isfinite(found["psnr"]).all()
    assert np.allclose(found["ground"], 3)
    assert np.allclose(found["ssim"], ssim(IMAGES, back)) and (found["ssim_breast"] > found["ssim"]).all()
    everything = scores(IMAGES, back, np.ones_like(MASKS))
    assert np.isnan(everything["ground"]).all() and np.allclose(everything["psnr"], everything["psnr_breast"])


def test_interval_holds_the_truth_nineteen_times_in_twenty() -> None:
    rng, held = np.random.default_rng(0), 0
    for _ in range(2000):
        mean, half = interval(rng.normal(3, 2, 40))
        held += abs(mean - 3) < half
    assert held / 2000 == pytest.approx(0.945, abs=0.02)  # a little short: 1.96 is for many values
    with pytest.raises(InputError, match="at least two"):
        interval([1.0])


def test_small_masses_lose_more_than_large_ones(vae: Any) -> None:
    """As the chapter says: the share that is kept grows with a mass's size and hardly depends on its contrast."""
    kept = {}
    healthy = reconstruct(vae, IMAGES).gray
    for side, contrast in ((4, 0.3), (4, 0.8), (20, 0.3), (20, 0.8)):
        spec = LesionSpec("mass", "round", "circumscribed", (side / 128) ** 2, 1.0, contrast=contrast)
        ill = [draw(BIG, seed=7, index=k, lesion=spec) for k in range(4)]
        images, lesions = np.stack([one.image for one in ill]), np.stack([one.lesion_mask for one in ill])
        before, after = contrast_kept((images, reconstruct(vae, images).gray), (IMAGES, healthy), lesions)
        kept[side, contrast] = float((after / before).mean())
    assert kept[4, 0.3] < 0.5 < 0.85 < kept[20, 0.3] < 1.05
    for side in (4, 20):
        assert kept[side, 0.8] == pytest.approx(kept[side, 0.3], abs=0.08)


# ---------------------------------------------------------------------------------------------------------
# Real mammograms: NYU (sample images of the breast cancer classifier, AGPL-3.0), CDD-CESM (TCIA 10.7937/29kw-ae92)


def _needs(folder: Path) -> Path:
    if not folder.is_dir():
        pytest.skip("real mammograms are not at hand")
    return folder


def test_sixteen_real_bits_make_no_difference(vae: Any) -> None:
    """Rounding 16-bit files to 8 bits moves the reconstruction by far less than the autoencoder errs."""
    for path in sorted(_needs(REAL / "nyu").glob("*.png")):
        raw = np.asarray(Image.open(path), np.float32)
        assert raw.max() > 255 and len(np.unique(raw)) > 256
        left = face_left(raw)[0]
        fine = to_square(left, 128)
        fine = np.clip(fine / np.percentile(left, 99.99) * 255, 0, 255)[None]  # [1, 128, 128], not whole numbers
        eight = np.rint(fine)
        back_fine, back_eight = reconstruct(vae, fine).gray, reconstruct(vae, eight).gray
        error, moved = (np.sqrt(((back_fine - x) ** 2).mean()) for x in (fine, back_eight))
        assert 0.1 < np.sqrt(((fine - eight) ** 2).mean()) < 0.3
        assert moved < 0.01 * error


def test_real_mammograms_come_back_recognizable_and_smooth(vae: Any) -> None:
    images, masks, lesions = [], [], []
    folder = _needs(REAL / "cdd_cesm")
    for path in sorted((folder / "images").glob("*.jpg")):
        gray, hand = (
            np.asarray(Image.open(folder / part / path.name).convert("L"), np.float32) for part in ("images", "masks")
        )
        left, flipped = face_left(gray)
        gap = left_gap(left)
        hand = (hand[:, ::-1] if flipped else hand)[:, gap:] > 127
        square = np.rint(to_square(left[:, gap:], 128, fit="pad")).clip(0, 255).astype(np.uint8)
        images.append(square)
        masks.append(breast_mask(square))
        lesions.append(to_square(hand.astype(np.float32), 128, fit="pad") > 0.5)
    gray, breasts, marked = np.stack(images), np.stack(masks), np.stack(lesions)
    back = reconstruct(vae, gray)
    found = scores(gray, back.gray, breasts)
    assert found["psnr"].min() > 20 and found["psnr_breast"].min() > 18
    assert back.chroma.max() < 0.5
    frequency, kept = power_kept(gray, back.gray, breasts)
    assert kept[:, 0].mean() > 0.6 and kept[:, frequency > 0.18].mean() < 0.4
    big = marked.sum((1, 2)) >= 150  # wider than a latent pixel
    assert big.any()
    before = visibility(gray[big], marked[big], breasts[big]).contrast
    after = visibility(back.gray[big], marked[big], breasts[big]).contrast
    assert (after / before).min() > 0.5
