"""Every numbered equation of chapter 05, computed again by another way."""

from __future__ import annotations

import math

import numpy as np
import pytest
import sympy as sp
import torch
from scipy import integrate, optimize, stats
from torchmetrics.functional.image import structural_similarity_index_measure

from mame_lib.data.phantom import draw
from mame_lib.models.components import Components
from mame_lib.models.latents import encode_moments, sample_latents
from mame_lib.models.presets import PRESETS
from mame_lib.models.tiny import tiny_vae


def _normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_eq_05_ratio() -> None:
    """Counted on the shapes of real tensors: an autoencoder with f = 8 and four channels at 512 pixels."""
    pixels = torch.zeros(1, 3, PRESETS["sd15"].image_size, PRESETS["sd15"].image_size)
    with torch.no_grad():
        latent = tiny_vae().encode(pixels[..., :128, :128]).latent_dist.mean  # f does not depend on the size
    f, channels = 128 // latent.shape[-1], latent.shape[1]
    side = pixels.shape[-1] // f
    assert (side, channels) == (64, 4)
    assert pixels.numel() / (channels * side**2) == 48
    assert pixels[:, :1].numel() / (channels * side**2) == 16
    assert pixels.shape[-1] / side == 8


def test_eq_05_sample() -> None:
    """mu + sigma eps is what diffusers draws from the posterior, and has its mean and standard deviation."""
    vae = Components.load("tiny").vae
    image = draw(seed=3).image[None]
    moments = encode_moments(vae, image)
    with torch.no_grad():
        pixels = torch.from_numpy(image).float()[:, None].expand(-1, 3, -1, -1) / 127.5 - 1
        theirs = vae.encode(pixels).latent_dist.sample(torch.Generator().manual_seed(5))
    noise = torch.randn(theirs.shape, generator=torch.Generator().manual_seed(5))
    assert torch.allclose(moments.mean + moments.std * noise, theirs, atol=1e-4)
    many = torch.randn(2000, *theirs.shape[1:], generator=torch.Generator().manual_seed(1))
    draws = moments.mean + moments.std * many
    assert torch.allclose(draws.var(0), moments.std[0] ** 2, rtol=0.25)  # 2000 draws: 3.2 % a number, 1024 numbers
    assert float(((draws.mean(0) - moments.mean[0]) / moments.std[0]).abs().max()) < 5 / math.sqrt(2000)


def test_eq_05_loss() -> None:
    """With a linear decoder, the loss is least at the exact posterior of noise of variance lambda / 2."""
    slope, x, weight = 1.7, 0.9, 0.3

    def loss(parameters: np.ndarray) -> float:
        mean, std = parameters[0], math.exp(parameters[1])
        miss = (x - slope * mean) ** 2 + slope**2 * std**2  # E (x - slope z)^2
        divergence = integrate.quad(
            lambda z: stats.norm.pdf(z, mean, std) * (stats.norm.logpdf(z, mean, std) - stats.norm.logpdf(z)),
            mean - 9 * std, mean + 9 * std,
        )[0]  # fmt: skip
        return miss + weight * divergence

    found = optimize.minimize(loss, [0.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-7, "fatol": 1e-12})
    variance = 1 / (1 + slope**2 / (weight / 2))  # Bayes' rule for x = slope z + noise
    assert found.x[0] == pytest.approx(variance * slope * x / (weight / 2), abs=1e-4)
    assert math.exp(found.x[1]) ** 2 == pytest.approx(variance, rel=1e-3)


def test_eq_05_kl() -> None:
    z, m = sp.symbols("z mu", real=True)
    s = sp.symbols("sigma", positive=True)
    density = sp.exp(-((z - m) ** 2) / (2 * s**2)) / (s * sp.sqrt(2 * sp.pi))
    logarithm = sp.log(1 / s) - (z - m) ** 2 / (2 * s**2) + z**2 / 2  # of the quotient of the two densities
    divergence = sp.integrate(sp.expand(density * logarithm), (z, -sp.oo, sp.oo), conds="none")
    printed = (m**2 + s**2 - 1 - sp.log(s**2)) / 2
    assert sp.simplify(sp.expand_log(divergence - printed, force=True)) == 0
    for mean, std in ((0.0, 1.0), (1.3, 0.2), (-4.0, 3.0)):
        numeric = integrate.quad(
            lambda v, a=mean, b=std: stats.norm.pdf(v, a, b) * (stats.norm.logpdf(v, a, b) - stats.norm.logpdf(v)),
            mean - 12 * std, mean + 12 * std,
        )[0]  # fmt: skip
        assert float(printed.subs({m: mean, s: std})) == pytest.approx(numeric, abs=1e-8)


def test_eq_05_scale() -> None:
    z = 7 * _normal(20, 4, 16, 16) + 3
    factor = 1 / math.sqrt(float(((z - z.mean()) ** 2).mean()))
    assert float((factor * z).var()) == pytest.approx(1, abs=1e-3)
    assert torch.allclose(factor * z / factor, z)
    vae = Components.load("tiny").vae  # and the library multiplies on the way in
    moments = encode_moments(vae, draw(seed=3).image[None])
    scaled = sample_latents(moments, torch.zeros_like(moments.mean), vae.config.scaling_factor)
    assert torch.allclose(scaled / vae.config.scaling_factor, moments.mean, atol=1e-5)


def test_eq_05_variance() -> None:
    """Samples of the cloud, drawn and counted."""
    mean, std = 2 * _normal(200_000, seed=1) + 5, 0.5 + _normal(200_000, seed=2).abs()
    z = mean + std * _normal(200_000, seed=3)
    assert float(z.var()) == pytest.approx(float(mean.var() + (std**2).mean()), rel=0.02)
    assert float(z.var()) != pytest.approx(float((mean.std() + std.mean()) ** 2), rel=0.1)


def test_eq_05_norm() -> None:
    w, va, vb, ab = sp.symbols("w V_a V_b C", real=True)
    square = sp.expand((1 - w) ** 2 * va + 2 * w * (1 - w) * ab + w**2 * vb)  # E of the square of one coordinate
    assert sp.simplify(square.subs({va: 1, vb: 1, ab: 0}) - ((1 - w) ** 2 + w**2)) == 0
    a, b = _normal(3000, 1024), _normal(3000, 1024, seed=1)
    for weight in (0.0, 0.3, 0.5, 1.0):
        lengths = (((1 - weight) * a + weight * b) ** 2).sum(1) / 1024
        assert float(lengths.mean()) == pytest.approx((1 - weight) ** 2 + weight**2, rel=0.005)
        assert float(lengths.std() / lengths.mean()) == pytest.approx(math.sqrt(2 / 1024), rel=0.1)  # a thin shell


def test_eq_05_slerp() -> None:
    """The printed weights turn a into b in their plane, at constant speed and length."""
    w, theta = sp.symbols("w theta", positive=True)
    first, second = sp.sin((1 - w) * theta) / sp.sin(theta), sp.sin(w * theta) / sp.sin(theta)
    length = first**2 + second**2 + 2 * first * second * sp.cos(theta)  # of unit vectors at the angle theta
    toward_a = first + second * sp.cos(theta)  # cosine of the angle that was walked
    for angle, at in ((0.3, 0.2), (1.57, 0.5), (2.9, 0.85)):
        values = {theta: angle, w: at}
        assert float(length.subs(values)) == pytest.approx(1, abs=1e-12)
        assert float(toward_a.subs(values)) == pytest.approx(math.cos(at * angle), abs=1e-12)


def _spoiled() -> tuple[np.ndarray, np.ndarray]:
    image = draw(seed=8).image.astype(float)
    return image, np.clip(image + np.random.default_rng(0).normal(0, 8, image.shape), 0, 255)


def test_eq_05_psnr() -> None:
    """Ten decibels for each factor of ten in the squared error, none for an error of the whole range."""
    x, y = _spoiled()
    total = sum((float(a) - float(b)) ** 2 for a, b in zip(x.ravel(), y.ravel(), strict=True)) / x.size
    decibels = 20 * math.log10(255) - 10 * math.log10(total)
    printed = 10 * math.log10(255**2 / np.square(x - y).mean())
    assert printed == pytest.approx(decibels)
    assert 10 * math.log10(255**2 / np.square(math.sqrt(0.1) * (x - y)).mean()) == pytest.approx(printed + 10)
    assert 10 * math.log10(255**2 / 25.5**2) == pytest.approx(20)


def test_eq_05_ssim() -> None:
    """Window by window at a few places, with the weights written out."""
    x, y = _spoiled()
    _, theirs = structural_similarity_index_measure(
        torch.as_tensor(x)[None, None], torch.as_tensor(y)[None, None], data_range=255.0, return_full_image=True
    )
    offsets = np.arange(-5, 6)
    weights = np.exp(-(offsets[:, None] ** 2 + offsets[None] ** 2) / (2 * 1.5**2))
    weights /= weights.sum()
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    for row, column in ((64, 20), (30, 40), (90, 100)):
        a, b = (v[row - 5 : row + 6, column - 5 : column + 6] for v in (x, y))
        ma, mb = (weights * a).sum(), (weights * b).sum()
        va, vb = (weights * (a - ma) ** 2).sum(), (weights * (b - mb) ** 2).sum()
        cab = (weights * (a - ma) * (b - mb)).sum()
        printed = (2 * ma * mb + c1) * (2 * cab + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2))
        assert printed == pytest.approx(float(theirs[0, 0, row, column]), abs=1e-6)


def test_eq_05_kept() -> None:
    before = np.array([3.0, 10.0, 25.0])
    after = np.array([1.0, 8.0, 17.0])
    k = sp.symbols("k")
    misses = sum((sp.Float(a) - k * sp.Float(b)) ** 2 for a, b in zip(after, before, strict=True))
    [best] = sp.solve(sp.diff(misses, k), k)
    assert float(best) == pytest.approx((before * after).sum() / (before**2).sum())
    assert sp.diff(misses, k, 2) > 0
