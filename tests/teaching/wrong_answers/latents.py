"""Chapter 05: wrong answers that students really give, and a fragment of the hint each must earn."""

import math

import torch


def ratio_of_sides(pixels, pixel_bits, latents, latent_bits):
    side = pixels[-1] / latents[-1]
    return side, side * pixel_bits / latent_bits


def ratio_of_areas(pixels, pixel_bits, latents, latent_bits):
    area = math.prod(pixels[1:]) / math.prod(latents[1:])
    return area, area * pixel_bits / latent_bits


def ratio_with_bits_upside_down(pixels, pixel_bits, latents, latent_bits):
    numbers = math.prod(pixels) / math.prod(latents)
    return numbers, numbers * latent_bits / pixel_bits


def kl_averaged(mean, std):
    return 0.5 * (mean**2 + std**2 - 1 - 2 * std.log()).mean((1, 2, 3))


def kl_with_log_of_std(mean, std):
    return 0.5 * (mean**2 + std**2 - 1 - std.log()).sum((1, 2, 3))


def kl_of_everything(mean, std):
    return 0.5 * (mean**2 + std**2 - 1 - 2 * std.log()).sum()


def kl_without_one(mean, std):
    return 0.5 * (mean**2 + std**2 - 2 * std.log()).sum((1, 2, 3))


def scale_is_std(mean, std):
    return float((mean.var() + (std**2).mean()) ** 0.5)


def scale_of_means(mean, std):
    return float(1 / mean.std())


def scale_without_root(mean, std):
    return float(1 / (mean.var() + (std**2).mean()))


def scale_from_zero(mean, std):
    return float(((mean**2).mean() + (std**2).mean()) ** -0.5)


def scale_adds_deviations(mean, std):
    return float(1 / (mean.std() + std.mean()))


def lerp(a, b, w):
    return (1 - w) * a + w * b


def slerp_backwards(a, b, w):
    angle = torch.acos((a * b).sum() / (a.norm() * b.norm()))
    return (torch.sin(w * angle) * a + torch.sin((1 - w) * angle) * b) / torch.sin(angle)


def lerp_pushed_to_the_shell(a, b, w):
    z = (1 - w) * a + w * b
    return z * ((1 - w) * a.norm() + w * b.norm()) / z.norm()


def kept_as_mean_of_quotients(before, after, visible):
    share = float((after / before).mean())
    return share, visible / share


def kept_times_share(before, after, visible):
    share = float((before * after).sum() / (before**2).sum())
    return share, visible * share


def kept_inverted(before, after, visible):
    share = float((before * after).sum() / (after**2).sum())
    return share, visible / share


WRONG = {
    "05-ratio": [
        (ratio_of_sides, "compares one side"), (ratio_of_areas, "compares the areas"),
        (ratio_with_bits_upside_down, "smaller, not larger"),
    ],
    "05-kl": [
        (kl_averaged, "add up"), (kl_with_log_of_std, "logarithm is that of the variance"),
        (kl_of_everything, "one number an image"), (kl_without_one, "must be exactly zero"),
    ],
    "05-scale": [
        (scale_is_std, "standard deviation itself"), (scale_of_means, "if the clouds were points"),
        (scale_without_root, "a root is missing"), (scale_from_zero, "measured from zero"),
        (scale_adds_deviations, "do not add"),
    ],
    "05-slerp": [
        (lerp, "straight average"), (slerp_backwards, "walk backwards"),
        (lerp_pushed_to_the_shell, "not at w of the angle"),
    ],
    "05-kept": [
        (kept_as_mean_of_quotients, "mean of quotients"), (kept_times_share, "what is left of 5"),
        (kept_inverted, "other way round"),
    ],
}  # fmt: skip
