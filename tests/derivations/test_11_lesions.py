"""Every labelled equation of chapter 11 on another road: pixel by pixel, place by place, by Bayes' rule on a toy."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy import stats
from torch.nn import functional as F

from mame_lib.data.canvas import Canvas
from mame_lib.data.geometry import SquareTransform
from mame_lib.evaluation.realism import ellipse
from mame_lib.models.components import Components
from mame_lib.models.inpainting import blank, box_mask, latent_mask, snap, widen
from mame_lib.models.latents import encode_moments
from mame_lib.training.data import Batch
from mame_lib.training.loop import diffusion_loss


@pytest.mark.parametrize("matrix", [(4096, 3328), (3518, 2800), (2800, 3518)])
def test_eq_11_box(matrix: tuple[int, int]) -> None:
    """The formula, and the transform of the library, against corners that are carried over one by one."""
    height, width = matrix
    box = (0.31 * width, 0.42 * height, 0.40 * width, 0.47 * height)
    way = SquareTransform(height, width, 512, flip=True)
    (down, across), (top, left) = way.scale, way.corner
    printed = (
        across * (width - box[2]) - left, down * box[1] - top, across * (width - box[0]) - left, down * box[3] - top,
    )  # fmt: skip
    corners = [(across * (width - x) - left, down * y - top) for x in box[::2] for y in box[1::2]]
    around = (*np.min(corners, 0), *np.max(corners, 0))
    assert printed == pytest.approx(around)
    assert printed == pytest.approx(way.edges(box))
    assert printed[0] < printed[2] and printed[1] < printed[3]


@pytest.mark.parametrize(("w", "h", "f"), [(6, 7, 8), (3, 11, 8), (9, 9, 8), (1, 2, 4)])
def test_eq_11_lost(w: int, h: int, f: int) -> None:
    """Counted over all places of the grid with the library's own nearest rule."""
    places = itertools.product(range(f), repeat=2)
    masks = np.stack([box_mask([(x, y, x + w, y + h)], 4 * f) for x, y in places])
    lost = 1 - latent_mask(masks, 4).amax((1, 2, 3)).mean()
    assert float(lost) == pytest.approx(1 - min(w / f, 1) * min(h / f, 1))


@pytest.mark.parametrize(("w", "h", "f"), [(6, 7, 8), (3, 11, 8), (16, 8, 8), (1, 2, 4)])
def test_eq_11_cells(w: int, h: int, f: int) -> None:
    """The mean over all places of the grid of how many pixels a snapped box has."""
    grown = [snap(box_mask([(x, y, x + w, y + h)], 6 * f), f).sum() for x, y in itertools.product(range(f), repeat=2)]
    assert np.mean(grown) == pytest.approx((w + f - 1) * (h + f - 1))


def test_eq_11_input() -> None:
    """The hole is zero in [-1, 1], the rest is the picture; the network takes 4 + 1 + 4 channels of one size."""
    parts = Components.load("inpaint")
    image = np.random.default_rng(0).integers(0, 256, (1, 128, 128), dtype=np.uint8)
    mask = snap(box_mask([(40, 40, 60, 70)], 128), 8)[None]
    pixels = (image / 127.5 - 1) * ~mask  # (1 - M) x
    seen = encode_moments(parts.vae, blank(image, mask)).mean
    with torch.no_grad():
        whole = torch.from_numpy(pixels).float()[:, None].expand(-1, 3, -1, -1)
        torch.testing.assert_close(parts.vae.encode(whole).latent_dist.mean, seen, rtol=1e-4, atol=1e-4)
    small = latent_mask(mask, 16)
    assert parts.unet.config.in_channels == seen.shape[1] + small.shape[1] + 4 == 9
    assert seen.shape[2:] == small.shape[2:] == (16, 16)
    assert np.array_equal(small[0, 0].numpy().repeat(8, 0).repeat(8, 1) > 0, mask[0]), "both masks are one region"


def test_eq_11_widen() -> None:
    """In double precision: the widened convolution is the old one, and its new weights have a gradient."""
    unet = Components.load("tiny").unet.double().requires_grad_()
    old = unet.conv_in.weight.detach().clone()
    g = torch.Generator().manual_seed(0)
    x = torch.randn(2, 9, 6, 6, generator=g, dtype=torch.float64)
    before = unet.conv_in(x[:, :4])
    widen(unet)
    after = unet.conv_in(x)
    torch.testing.assert_close(after, before, rtol=0, atol=1e-12)
    by_hand = sum(F.conv2d(x[:, k : k + 1], unet.conv_in.weight[:, k : k + 1], padding=1) for k in range(9))
    torch.testing.assert_close(by_hand + unet.conv_in.bias[:, None, None], after)
    assert torch.equal(unet.conv_in.weight[:, :4], old)
    after.square().sum().backward()
    assert bool((unet.conv_in.weight.grad[:, 4:] != 0).any())


def test_eq_11_loss() -> None:
    """Cell by cell in double precision, against the loss that trains; a weight of one is the plain mean."""
    parts = Components.load("inpaint")
    g = torch.Generator().manual_seed(1)
    latents, noise, around = torch.randn(3, 2, 4, 16, 16, generator=g)
    mask = torch.zeros(2, 1, 16, 16)
    mask[0, 0, 3:6, 7:9] = mask[1, 0, 10, 10] = 1
    ids, times = torch.ones(2, 32, dtype=torch.long), torch.tensor([300, 700])
    some = Batch(latents, noise, times, ids, extra=torch.cat([mask, around], 1))
    with torch.no_grad():
        schedule = parts.schedule
        signal, sigma = (table[times][:, None, None, None] for table in (schedule.signal, schedule.sigma))
        seen = signal * latents + sigma * noise
        context = parts.text_encoder(ids).last_hidden_state
        output = parts.unet(torch.cat([seen, mask, around], 1), times, encoder_hidden_states=context).sample
        for weight in (1.0, 20.0):
            found = diffusion_loss(parts, some, schedule, torch.float32, weight)
            for k in range(2):
                total = count = 0.0
                for i, j in itertools.product(range(16), repeat=2):
                    c = 1 + (weight - 1) * float(mask[k, 0, i, j])
                    total += c * float(((output - noise)[k, :, i, j].double() ** 2).mean())
                    count += c
                assert float(found[k]) == pytest.approx(total / count, rel=1e-4)


# A box of one pixel: a lesion is bright, healthy tissue dark, and a share of the boxes holds a lesion.
LESION, HEALTHY, SHARE = (0.8, 0.3), (-0.5, 0.4), 0.75


def estimates(x: float, abar: float) -> tuple[float, float, float, float]:
    """Exact noise estimates for lesion, healthy and no words (by integration), and the belief by Bayes' rule."""
    signal, sigma = np.sqrt(abar), np.sqrt(1 - abar)
    said = []
    for mean, sd in (LESION, HEALTHY):
        x0 = mean + signal * sd**2 / (abar * sd**2 + 1 - abar) * (x - signal * mean)
        said.append((x - signal * x0) / sigma)
    clean = np.linspace(-6, 6, 40_001)
    prior = SHARE * stats.norm.pdf(clean, *LESION) + (1 - SHARE) * stats.norm.pdf(clean, *HEALTHY)
    weight = prior * stats.norm.pdf(x, signal * clean, sigma)
    free = float((weight * (x - signal * clean) / sigma).sum() / weight.sum())
    likely = [stats.norm.pdf(x, signal * m, np.sqrt(abar * s**2 + 1 - abar)) for m, s in (LESION, HEALTHY)]
    belief = SHARE * likely[0] / (SHARE * likely[0] + (1 - SHARE) * likely[1])
    return said[0], said[1], free, float(belief)


CASES = [(x, abar) for x in (-1.0, 0.1, 0.9) for abar in (0.02, 0.3, 0.9)]


@pytest.mark.parametrize(("x", "abar"), CASES)
def test_eq_11_free(x: float, abar: float) -> None:
    lesion, healthy, free, belief = estimates(x, abar)
    assert free == pytest.approx(belief * lesion + (1 - belief) * healthy, abs=1e-6)


@pytest.mark.parametrize(("x", "abar"), CASES)
def test_eq_11_arrow(x: float, abar: float) -> None:
    lesion, healthy, free, belief = estimates(x, abar)
    assert lesion - free == pytest.approx((1 - belief) * (lesion - healthy), abs=1e-6)


@pytest.mark.parametrize(("x", "abar"), CASES)
def test_eq_11_belief(x: float, abar: float) -> None:
    lesion, healthy, free, belief = estimates(x, abar)
    d = lesion - healthy
    assert 1 - (lesion - free) * d / (d * d) == pytest.approx(belief, abs=1e-4)
    assert estimates(x, 1e-6)[3] == pytest.approx(SHARE, abs=1e-2), "in pure noise nothing is known but the share"


@pytest.mark.parametrize("feather", [0.0, 1.5, 4.0])
def test_eq_11_paste(feather: float) -> None:
    """The library's paste against the formula, pixel by pixel; the blur is a sum over all pixels of the mask."""
    breast = np.zeros((64, 64), np.uint8)
    breast[:, :44] = np.random.default_rng(2).integers(90, 140, (64, 44))
    mask = ellipse((8, 20, 26, 44), 64)
    change = np.random.default_rng(3).normal(0, 60, (64, 64)).astype(np.float32)
    reach = np.arange(-64, 65)
    bell = np.exp(-(reach**2) / (2 * feather**2)) if feather else (reach == 0).astype(float)
    bell /= bell.sum()
    inside = np.argwhere(mask)
    wanted = breast.copy()
    for y, x in inside:
        blurred = (bell[inside[:, 0] - y + 64] * bell[inside[:, 1] - x + 64]).sum()
        value = float(breast[y, x]) + max(0.0, 2 * blurred - 1) * float(change[y, x])
        wanted[y, x] = min(max(round(value), 0), 255)
    made = Canvas(breast, mask, 64).paste(change, feather)
    assert np.abs(made.astype(int) - wanted).max() <= 1
    assert np.array_equal(made[~mask], breast[~mask])
