"""Noise schedules: how much noise the forward process adds at each of the T training timesteps.

A schedule is a list of T variances beta_t. Everything else follows from it by multiplication:

    alpha_t = 1 - beta_t            abar_t = alpha_0 * alpha_1 * ... * alpha_t
    signal_t = sqrt(abar_t)         sigma_t = sqrt(1 - abar_t)         snr_t = abar_t / (1 - abar_t)

so that a noisy image is `signal_t * x_0 + sigma_t * noise` (MAM-E Eq. 4, Ho et al. 2020 Eq. 4).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Schedule:
    """The tables of one noise schedule: float32 tensors of shape [T], indexed by the 0-based timestep.

    Build one with `linear_schedule`, `scaled_linear_schedule`, `cosine_schedule` or `from_config`.
    Each table is computed in float64 and rounded once: forming 1 - abar_t from an already rounded abar_t
    would cost up to four digits at small t, and all of them in bfloat16.
    """

    name: str
    betas: Tensor  #           [T] variance added by one step, MAM-E Eq. 2
    alphas: Tensor  #          [T] 1 - beta_t
    alphas_cumprod: Tensor  #  [T] abar_t, from almost 1 down to almost 0, MAM-E Eq. 3
    signal: Tensor  #          [T] sqrt(abar_t), what multiplies the clean image
    sigma: Tensor  #           [T] sqrt(1 - abar_t), standard deviation of the noise
    snr: Tensor  #             [T] signal-to-noise ratio (signal_t / sigma_t) ** 2

    @classmethod
    def from_betas(cls, name: str, betas: Tensor) -> Schedule:
        """Derive all tables from the variances `betas` [T] (any float dtype, each in (0, 1])."""
        beta = betas.detach().double().cpu()
        if beta.ndim != 1 or len(beta) == 0:
            raise ValueError(f"betas must be a list of T numbers, got a tensor of shape {tuple(beta.shape)}.")
        if not bool(((beta > 0) & (beta <= 1)).all()):
            raise ValueError("every beta must lie in (0, 1]: it is the share of variance one step replaces.")
        abar = torch.cumprod(1.0 - beta, dim=0)  # [T] float64
        tables = (beta, 1.0 - beta, abar, abar.sqrt(), (1.0 - abar).sqrt(), abar / (1.0 - abar))
        return cls(name, *(table.float() for table in tables))

    def __len__(self) -> int:
        """Number of training timesteps T."""
        return len(self.betas)

    def to(self, device: torch.device | str) -> Schedule:
        """The same schedule with its tables on `device`; a training loop moves it once."""
        moved = {f.name: getattr(self, f.name).to(device) for f in fields(self) if f.name != "name"}
        return replace(self, **moved)


def linear_schedule(beta_start: float = 1e-4, beta_end: float = 0.02, timesteps: int = 1000) -> Schedule:
    """Betas equally spaced from `beta_start` to `beta_end` (Ho et al. 2020, section 4; MAM-E Fig. 5)."""
    _check_range(beta_start, beta_end, timesteps)
    return Schedule.from_betas("linear", torch.linspace(beta_start, beta_end, timesteps, dtype=torch.float64))


def scaled_linear_schedule(
    beta_start: float = 0.00085, beta_end: float = 0.012, timesteps: int = 1000
) -> Schedule:
    """Betas whose square roots are equally spaced; the defaults are Stable Diffusion 1.5's.

    Rombach et al. 2022 use it for latent diffusion: it adds less noise in the early timesteps than a straight
    line between the same ends. MAM-E fine-tunes Stable Diffusion, so this is the paper's schedule (Fig. 5).
    """
    _check_range(beta_start, beta_end, timesteps)
    roots = torch.linspace(math.sqrt(beta_start), math.sqrt(beta_end), timesteps, dtype=torch.float64)
    return Schedule.from_betas("scaled_linear", roots**2)


def cosine_schedule(timesteps: int = 1000, offset: float = 0.008, beta_max: float = 0.999) -> Schedule:
    """abar follows a squared cosine from 1 to 0 (Nichol and Dhariwal 2021, Eq. 17).

    The betas come from ratios of neighboring abar values and are cut at `beta_max`, so that the very last
    step does not erase the image completely.
    """
    _check_range(offset, beta_max, timesteps)
    u = torch.arange(timesteps + 1, dtype=torch.float64) / timesteps  # [T+1] from 0 to 1
    abar = torch.cos((u + offset) / (1 + offset) * math.pi / 2) ** 2  # [T+1]
    return Schedule.from_betas("cosine", (1.0 - abar[1:] / abar[:-1]).clamp(max=beta_max))


def zero_terminal_snr(schedule: Schedule) -> Schedule:
    """Shift and stretch signal_t so that the last timestep holds no signal at all (Lin et al. 2024, Alg. 1).

    Only for v or sample prediction: from pure noise, a predicted noise says nothing about the image.
    """
    betas = schedule.betas.double().cpu()
    signal = torch.cumprod(1.0 - betas, dim=0).sqrt()  # [T] float64
    first, last = signal[0].clone(), signal[-1].clone()
    signal = (signal - last) * first / (first - last)  # keeps the first value, sends the last to 0
    abar = signal**2
    abar_before = torch.cat([torch.ones(1, dtype=torch.float64), abar[:-1]])
    return Schedule.from_betas(f"{schedule.name} with zero terminal SNR", 1.0 - abar / abar_before)


def for_name(
    name: str, *, beta_start: float = 0.00085, beta_end: float = 0.012, timesteps: int = 1000
) -> Schedule:
    """The schedule that a diffusers scheduler config calls `name`.

    Args:
        name: "linear", "scaled_linear", or "squaredcos_cap_v2" (also "cosine"), which ignores the two ends.
    """
    if name == "linear":
        return linear_schedule(beta_start, beta_end, timesteps)
    if name == "scaled_linear":
        return scaled_linear_schedule(beta_start, beta_end, timesteps)
    if name in ("squaredcos_cap_v2", "cosine"):
        return cosine_schedule(timesteps)
    raise ValueError(f"unknown beta schedule {name!r}: choose linear, scaled_linear or squaredcos_cap_v2.")


def from_config(config: Mapping[str, Any]) -> Schedule:
    """Read a diffusers `scheduler_config.json`, so that we noise exactly as the weights were trained.

    Keys read: beta_start, beta_end, beta_schedule, num_train_timesteps, trained_betas and
    rescale_betas_zero_snr. A missing key takes the default of diffusers' `DDPMScheduler`.
    """
    if config.get("trained_betas") is not None:
        schedule = Schedule.from_betas("trained", torch.tensor(config["trained_betas"], dtype=torch.float64))
    else:
        schedule = for_name(
            config.get("beta_schedule", "linear"),
            beta_start=config.get("beta_start", 1e-4),
            beta_end=config.get("beta_end", 0.02),
            timesteps=config.get("num_train_timesteps", 1000),
        )
    return zero_terminal_snr(schedule) if config.get("rescale_betas_zero_snr") else schedule


def _check_range(beta_start: float, beta_end: float, timesteps: int) -> None:
    if timesteps < 1:
        raise ValueError(f"a schedule needs at least one timestep, got {timesteps}.")
    if not 0 < beta_start <= beta_end < 1:
        raise ValueError(f"betas must satisfy 0 < start <= end < 1, got {beta_start} and {beta_end}.")
