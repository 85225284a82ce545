"""Chapter 07: wrong answers that students really give, and a fragment of the hint each must earn."""

import torch

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
}
