"""Chapter 07: wrong answers that students really give, and a fragment of the hint each must earn."""

from itertools import pairwise

import torch


def _first_rise(steps, losses, patience):
    return steps[[after > before for before, after in pairwise(losses)].index(True) + 1]


WRONG = {
    "07-loss": [
        (lambda output, noise: ((output - noise) ** 2).mean(), "leave the batch out"),
        (lambda output, noise: ((output - noise) ** 2).sum(dim=(1, 2, 3)), "training uses the mean"),
    ],
    "07-dropout": [
        (
            lambda captions, coins, rate: [c if u < rate else "" for c, u in zip(captions, coins, strict=True)],
            "nine out of ten",
        ),
        (lambda captions, coins, rate: [c for c, u in zip(captions, coins, strict=True) if u >= rate], "list of four"),
    ],
    "07-epochs": [
        (lambda images, batch_size, accumulation: images / batch_size, "accumulation is missing"),
        (lambda images, batch_size, accumulation: images // (batch_size * accumulation), "do not round"),
    ],
    "07-prior": [
        (lambda losses, is_class, weight: (losses * torch.where(is_class, weight, 1.0)).mean(), "two means"),
        (lambda losses, is_class, weight: losses[is_class].mean() + weight * losses[~is_class].mean(), "not to ours"),
    ],
    "07-weights": [
        (lambda snr, gamma: torch.clamp(snr, max=gamma), "divide by SNR"),
        (lambda snr, gamma: torch.clamp(snr, min=gamma) / gamma, "no weight is above one"),
        (lambda snr, gamma: torch.clamp(snr, max=1.0) / snr, "use the argument"),
    ],
    "07-stop": [
        (lambda steps, losses, patience: min(zip(losses, steps, strict=True))[1], "never saw step 250"),
        (_first_rise, "where you notice"),
        (lambda steps, losses, patience: 2, "not its place"),
    ],
    "07-lora": [
        (lambda outputs, inputs, rank: outputs * inputs, "two thin factors"),
        (lambda outputs, inputs, rank: rank * outputs, "two factors"),
        (lambda outputs, inputs, rank: rank * (outputs + inputs) / (outputs * inputs), "not the share"),
    ],
}  # fmt: skip
