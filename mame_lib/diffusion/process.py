"""The forward process, its exact reversal, and the three things a network may be asked to predict.

Every function takes timesteps `t` as an int or as a [B] tensor of 0-based timesteps, one per image, and
images of any shape [B, ...]. Everything is computed and returned in float32, whatever comes in: in bfloat16
the noise level of the first timesteps rounds to exactly zero, and training would ask for noise that is not
there. Call these functions outside autocast.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from mame_lib.diffusion.schedule import Schedule

PredictionType = Literal["epsilon", "v_prediction", "sample"]  # the names diffusers configs use
Variance = Literal["small", "large"]


def gather(table: Tensor, t: int | Tensor, x: Tensor) -> Tensor:
    """Look up `table` [T] at the timesteps of a batch and shape the result to multiply `x` [B, ...].

    Returns [B, 1, ..., 1] with as many dimensions as `x` (all ones when `t` is a single int).
    """
    index = torch.as_tensor(t, dtype=torch.long, device=None if isinstance(t, int) else t.device)
    # On a GPU reading the extremes would stall the queue; there the indexing kernel itself refuses t >= T.
    if index.device.type == "cpu" and (index.min() < 0 or index.max() >= len(table)):
        raise ValueError(f"timesteps must lie in 0..{len(table) - 1}, got {t}.")
    if index.ndim > 1 or (index.ndim == 1 and len(index) not in (1, len(x))):
        raise ValueError(f"need one timestep per image, got {tuple(index.shape)} for a batch of {len(x)}.")
    values = table.to(x.device)[index.to(x.device)]  # [] or [B]
    return values.reshape(-1, *[1] * (x.ndim - 1))  # [B, 1, ..., 1]


def q_step(schedule: Schedule, x_before: Tensor, noise: Tensor, t: int | Tensor) -> Tensor:
    """One step of the Markov chain, x_t from x_{t-1} (MAM-E Eq. 2; Ho et al. 2020 Eq. 2).

    N(x_t; sqrt(1 - beta_t) x_{t-1}, beta_t I): the second argument is a variance, so the noise is multiplied
    by sqrt(beta_t).
    """
    beta = gather(schedule.betas, t, x_before)  # [B, 1, ..., 1]
    return (1.0 - beta).sqrt() * x_before.float() + beta.sqrt() * noise.float()


def add_noise(schedule: Schedule, x0: Tensor, noise: Tensor, t: int | Tensor) -> Tensor:
    """Jump from the clean image to timestep t (MAM-E Eq. 4, a sample of Eq. 3; Ho et al. 2020 Eq. 4).

    Args:
        x0: clean images or latents [B, ...].
        noise: standard normal, same shape.
        t: int or [B], in 0..T-1.
    """
    signal = gather(schedule.signal, t, x0)  # [B, 1, ..., 1] sqrt(abar_t)
    sigma = gather(schedule.sigma, t, x0)  #   [B, 1, ..., 1] sqrt(1 - abar_t)
    return signal * x0.float() + sigma * noise.float()


def velocity(schedule: Schedule, x0: Tensor, noise: Tensor, t: int | Tensor) -> Tensor:
    """v = sqrt(abar_t) noise - sqrt(1 - abar_t) x_0 (Salimans and Ho 2022): add_noise, a quarter turn on."""
    return gather(schedule.signal, t, x0) * noise.float() - gather(schedule.sigma, t, x0) * x0.float()


def target(
    schedule: Schedule, x0: Tensor, noise: Tensor, t: int | Tensor, prediction_type: str = "epsilon"
) -> Tensor:
    """What the network's output is compared with in the loss (MAM-E Eq. 8).

    For "epsilon" that is the unit-variance noise itself, not the scaled noise in the image.
    """
    _check_prediction_type(prediction_type)
    if prediction_type == "epsilon":
        return noise.float()
    return x0.float() if prediction_type == "sample" else velocity(schedule, x0, noise, t)


def loss_weights(
    schedule: Schedule, prediction_type: str = "epsilon", min_snr_gamma: float | None = None
) -> Tensor:
    """What the squared error at each timestep counts, [T] float32 (Hang et al. 2023, "Min-SNR").

    All ones without a gamma. With one, the error of the *clean image* is weighted by min(snr_t, gamma), so that the
    easy, almost clean timesteps do not dominate; expressed in the quantity the network predicts, that is
    min(snr, gamma) / snr for epsilon, / (snr + 1) for v_prediction, and / 1 for sample.

    Raises ValueError for epsilon where the schedule ends without any signal: the weight would be 0 / 0 there.
    """
    _check_prediction_type(prediction_type)
    snr = schedule.alphas_cumprod.double() / schedule.sigma.double() ** 2  # [T]
    if min_snr_gamma is None:
        return torch.ones_like(schedule.snr)
    if prediction_type == "epsilon" and bool((snr == 0).any()):
        raise ValueError("Min-SNR weights of epsilon are 0 / 0 at zero terminal SNR: use v_prediction.")
    below = {"epsilon": snr, "v_prediction": snr + 1.0, "sample": torch.ones_like(snr)}[prediction_type]
    return (snr.clamp(max=min_snr_gamma) / below).float()  # [T]


def predict_x0(
    schedule: Schedule, x_t: Tensor, output: Tensor, t: int | Tensor, prediction_type: str = "epsilon"
) -> Tensor:
    """The clean image that a network's `output` at `x_t` stands for (MAM-E Eq. 4 solved for x_0)."""
    _check_prediction_type(prediction_type)
    signal, sigma = gather(schedule.signal, t, x_t), gather(schedule.sigma, t, x_t)
    if prediction_type == "epsilon":
        return (x_t.float() - sigma * output.float()) / signal
    return output.float() if prediction_type == "sample" else signal * x_t.float() - sigma * output.float()


def predict_epsilon(
    schedule: Schedule, x_t: Tensor, output: Tensor, t: int | Tensor, prediction_type: str = "epsilon"
) -> Tensor:
    """The noise that a network's `output` at `x_t` stands for (MAM-E Eq. 4 solved for the noise)."""
    _check_prediction_type(prediction_type)
    signal, sigma = gather(schedule.signal, t, x_t), gather(schedule.sigma, t, x_t)
    if prediction_type == "sample":
        return (x_t.float() - signal * output.float()) / sigma
    return output.float() if prediction_type == "epsilon" else sigma * x_t.float() + signal * output.float()


def posterior(schedule: Schedule, x0: Tensor, x_t: Tensor, t: int | Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of q(x_{t-1} | x_t, x_0), Gaussian by Bayes' rule (Ho et al. 2020 Eq. 6 and 7).

    The mean [B, ...] is a weighted sum of the clean and the noisy image. The variance [B, 1, ..., 1] is
    beta_t (1 - abar_{t-1}) / (1 - abar_t), zero at t = 0 where x_{t-1} is x_0 itself.
    """
    beta = gather(schedule.betas, t, x_t)
    one_minus_abar = gather(schedule.sigma, t, x_t) ** 2  # precise where abar is close to 1
    one_minus_before = gather(_shifted(schedule.sigma, 0.0), t, x_t) ** 2
    weight_x0 = gather(_shifted(schedule.signal, 1.0), t, x_t) * beta / one_minus_abar
    weight_xt = gather(schedule.alphas, t, x_t).sqrt() * one_minus_before / one_minus_abar
    return weight_x0 * x0.float() + weight_xt * x_t.float(), beta * one_minus_before / one_minus_abar


def reverse_mean(schedule: Schedule, x_t: Tensor, epsilon: Tensor, t: int | Tensor) -> Tensor:
    """Mean of p(x_{t-1} | x_t) from the predicted noise (MAM-E Eq. 7, with alpha_t and beta_t at step t).

    Equal to the `posterior` mean once x_0 is replaced by `predict_x0`.
    """
    beta, sigma = gather(schedule.betas, t, x_t), gather(schedule.sigma, t, x_t)
    return (x_t.float() - beta / sigma * epsilon.float()) / gather(schedule.alphas, t, x_t).sqrt()


def reverse_variance(schedule: Schedule, x_t: Tensor, t: int | Tensor, variance: str = "small") -> Tensor:
    """Variance [B, 1, ..., 1] of the reverse step (MAM-E Eq. 6): "large" beta_t, "small" the posterior's."""
    _check_variance(variance)
    if variance == "large":
        return gather(schedule.betas, t, x_t)
    return posterior(schedule, x_t, x_t, t)[1]


def _shifted(table: Tensor, first: float) -> Tensor:
    """The table one timestep earlier: entry t holds the value at t-1, and entry 0 holds `first`."""
    return torch.cat([table.new_tensor([first]), table[:-1]])


def _check_prediction_type(prediction_type: str) -> None:
    if prediction_type not in get_args(PredictionType):
        raise ValueError(f"unknown prediction type {prediction_type!r}: use epsilon, v_prediction or sample.")


def _check_variance(variance: str) -> None:
    if variance not in get_args(Variance):
        raise ValueError(f"unknown variance {variance!r}: use small (posterior) or large (beta).")
