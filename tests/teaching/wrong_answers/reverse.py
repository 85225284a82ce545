"""Chapter 03: wrong answers that students really give, and a fragment of the hint each must earn."""

import torch


def _abar(betas, t):
    """abar now and one step before, which is 1 before the first step."""
    abar = torch.cumprod(1 - betas, 0)
    return abar[t], abar[t - 1] if t > 0 else torch.ones((), dtype=abar.dtype)


def posterior_large(x0, x_t, t, betas):
    now, before = _abar(betas, t)
    mean = (before.sqrt() * betas[t] * x0 + (1 - betas[t]).sqrt() * (1 - before) * x_t) / (1 - now)
    return mean, betas[t]


def posterior_exchanged(x0, x_t, t, betas):
    now, before = _abar(betas, t)
    mean = (before.sqrt() * betas[t] * x_t + (1 - betas[t]).sqrt() * (1 - before) * x0) / (1 - now)
    return mean, betas[t] * (1 - before) / (1 - now)


def posterior_wraps_around(x0, x_t, t, betas):
    abar = torch.cumprod(1 - betas, 0)
    now, before = abar[t], abar[t - 1]
    mean = (before.sqrt() * betas[t] * x0 + (1 - betas[t]).sqrt() * (1 - before) * x_t) / (1 - now)
    return mean, betas[t] * (1 - before) / (1 - now)


def mean_as_printed(x_t, epsilon, t, betas):
    abar = torch.cumprod(1 - betas, 0)
    return (x_t - betas[t] / (1 - abar[t]).sqrt() * epsilon) / (1 - betas[-1]).sqrt()


def mean_without_bar(x_t, epsilon, t, betas):
    return (x_t - betas[t].sqrt() * epsilon) / (1 - betas[t]).sqrt()


def mean_jumps_to_the_end(x_t, epsilon, t, betas):
    abar = torch.cumprod(1 - betas, 0)[t]
    return (x_t - (1 - abar).sqrt() * epsilon) / abar.sqrt()


def convert_wrong_sign(x_t, v, abar):
    return abar.sqrt() * x_t + (1 - abar).sqrt() * v, (1 - abar).sqrt() * x_t - abar.sqrt() * v


def convert_without_roots(x_t, v, abar):
    return abar * x_t - (1 - abar) * v, (1 - abar) * x_t + abar * v


def convert_half(x_t, v, abar):
    x0 = abar.sqrt() * x_t - (1 - abar).sqrt() * v
    return x0, x_t - x0


def weights_not_squared(abar):
    snr = abar / (1 - abar)
    return snr.sqrt(), (snr + 1).sqrt()


def weights_v_like_noise(abar):
    snr = abar / (1 - abar)
    return snr, snr


def weights_upside_down(abar):
    return (1 - abar) / abar, 1 - abar


def loss_summed(network, x0, noise, t, abar):
    abar = abar[t][:, None]
    return (noise - network(abar.sqrt() * x0 + (1 - abar).sqrt() * noise, t)).square().sum(1).mean()


def loss_scaled_noise(network, x0, noise, t, abar):
    abar = abar[t][:, None]
    scaled = (1 - abar).sqrt() * noise
    return (scaled - network(abar.sqrt() * x0 + scaled, t)).square().mean()


def loss_norm(network, x0, noise, t, abar):
    abar = abar[t][:, None]
    return (noise - network(abar.sqrt() * x0 + (1 - abar).sqrt() * noise, t)).norm()


def loss_without_noise(network, x0, noise, t, abar):
    return (noise - network(x0, t)).square().mean()


WRONG = {
    "03-posterior": [
        (posterior_large, "does not yet know x0"),
        (posterior_exchanged, "weights are exchanged"),
        (posterior_wraps_around, "before the first step"),
    ],
    "03-mean": [
        (mean_as_printed, "misprint of the paper"),
        (mean_without_bar, "use abar"),
        (mean_jumps_to_the_end, "all of the noise"),
    ],
    "03-convert": [
        (convert_wrong_sign, "sign of v"),
        (convert_without_roots, "factors are roots"),
        (convert_half, "the noise is not"),
    ],
    "03-weights": [
        (weights_not_squared, "loss squares it"),
        (weights_v_like_noise, "v is not"),
        (weights_upside_down, "upside down"),
    ],
    "03-loss": [
        (loss_summed, "sum over the pixels"),
        (loss_scaled_noise, "unit variance"),
        (loss_norm, "a root was taken"),
        (loss_without_noise, "shown the clean"),
    ],
}
