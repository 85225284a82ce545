"""Chapter 02: wrong answers that students really give, and a fragment of the hint each must earn."""

import torch
from torch.special import ndtr


def step_with_beta_as_sd(x, noise, beta):
    return (1 - beta) ** 0.5 * x + beta * noise


def step_without_shrinking(x, noise, beta):
    return x + beta**0.5 * noise


def jump_off_by_one(x0, noise, t, betas):
    abar = torch.cumprod(1 - torch.cat([betas.new_zeros(1), betas]), 0)[t][:, None, None]
    return abar.sqrt() * x0 + (1 - abar).sqrt() * noise


def jump_with_variance(x0, noise, t, betas):
    abar = torch.cumprod(1 - betas, 0)[t][:, None, None]
    return abar.sqrt() * x0 + (1 - abar) * noise


def snr_of_amplitudes(betas):
    abar = torch.cumprod(1 - betas, 0)
    ratio = (abar / (1 - abar)).sqrt()
    return ratio, int((ratio >= 1).sum())


def snr_one_too_early(betas):
    abar = torch.cumprod(1 - betas, 0)
    ratio = abar / (1 - abar)
    return ratio, int((ratio >= 1).sum()) - 1


def leak_without_averaging(abar, brightness, pixels):
    return (abar / (1 - abar)) ** 0.5 * abs(brightness)


def leak_with_too_many_pixels(abar, brightness, pixels):
    return pixels * (abar / (1 - abar)) ** 0.5 * abs(brightness)


def detect_returns_the_index(ill, healthy, abar):
    return (abar / (1 - abar)) ** 0.5 * (ill - healthy).norm()


def detect_as_if_only_one_image_were_noisy(ill, healthy, abar):
    return ndtr((abar / (1 - abar)) ** 0.5 * (ill - healthy).norm())


def detect_with_a_ratio_of_powers(ill, healthy, abar):
    return ndtr(abar / (1 - abar) * (ill - healthy).norm() / 2**0.5)


def detect_by_the_sum(ill, healthy, abar):
    return ndtr((abar / (1 - abar)) ** 0.5 * (ill - healthy).sum() / 2**0.5)


def detect_by_the_sum_of_sizes(ill, healthy, abar):
    return ndtr((abar / (1 - abar)) ** 0.5 * (ill - healthy).abs().sum() / 2**0.5)


def detect_by_the_mean_square(ill, healthy, abar):
    return ndtr((abar / (1 - abar)) ** 0.5 * ((ill - healthy) ** 2).mean() ** 0.5 / 2**0.5)


WRONG = {
    "02-step": [(step_with_beta_as_sd, "beta is a variance"), (step_without_shrinking, "not shrunk")],
    "02-jump": [(jump_off_by_one, "off by one"), (jump_with_variance, "multiplied by its variance")],
    "02-snr": [(snr_of_amplitudes, "ratio of amplitudes"), (snr_one_too_early, "last one where the signal")],
    "02-detect": [
        (detect_returns_the_index, "you return d', not a share"),
        (detect_as_if_only_one_image_were_noisy, "each with noise of its own"),
        (detect_with_a_ratio_of_powers, "ratio of powers"),
        (detect_by_the_sum, "sign of the lesion"),
        (detect_by_the_sum_of_sizes, "use a length"),
        (detect_by_the_mean_square, "do not average"),
    ],
    "02-leak": [
        (leak_without_averaging, "does not grow"),
        (leak_with_too_many_pixels, "should double the distance"),
    ],
}
