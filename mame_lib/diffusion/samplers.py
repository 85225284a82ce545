"""Samplers with one signature: DDPM (the paper's algorithm), DDIM, Euler, Heun, and DPM-Solver++ (the paper's choice).

Each sampler is a generator. It yields one `SamplerState` per call of the network, and the last state's `sample` is
the finished image. Plotting a trajectory, showing progress or stopping early needs no callback: write a for loop.

    grid = timesteps(schedule, steps=24)
    for state in dpm_solver_pp(model, x_T, schedule, grid):
        ...                       # state.sample, state.predicted_x0
    image = state.sample

`model(x, t)` takes images [B, ...] and timesteps [B] and returns what `prediction_type` says. N timesteps cost N calls,
only Heun calls 2N - 1 times.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

from torch import Tensor

from mame_lib.diffusion.path import (
    CLEAN,
    Generators,
    Level,
    Model,
    SamplerState,
    Timesteps,
    ask,
    descend,
    levels,
    timesteps,
)
from mame_lib.diffusion.schedule import Schedule
from mame_lib.diffusion.solvers import dpm_solver_pp, dpm_solver_pp_1s, dpm_solver_pp_2s
from mame_lib.diffusion.start import noise_like_each

__all__ = [
    "CLEAN", "SAMPLERS", "Level", "SamplerState", "ddim", "ddpm", "dpm_solver_pp", "dpm_solver_pp_1s",
    "dpm_solver_pp_2s", "euler", "heun", "levels", "timesteps",
]  # fmt: skip


def ddpm(
    model: Model,
    x_T: Tensor,
    schedule: Schedule,
    timesteps: Timesteps,
    *,
    prediction_type: str = "epsilon",
    generators: Generators = None,
    variance: str = "small",
) -> Iterator[SamplerState]:
    """Ancestral sampling (MAM-E section 2.3.5, corrected; Ho et al. 2020 Alg. 2).

    Each step draws from the Gaussian q(x_before | x_t, x_0) with x_0 replaced by its prediction. On a grid
    that skips timesteps, alpha_t becomes the ratio of abar at the two ends of the step.

    Args:
        generators: one per image, for the fresh noise of each step; see `start.generators_for`.
        variance: sigma_t ** 2 of the algorithm, "small" (posterior) or "large" (beta); the paper leaves it
            open.
    """
    _check_generators(generators, x_T)
    if variance not in ("small", "large"):
        raise ValueError(f"unknown variance {variance!r}: use small (posterior) or large (beta).")

    def step(x: Tensor, x0: Tensor, epsilon: Tensor, here: Level, there: Level) -> Tensor:
        alpha, beta = _one_step(here, there)
        x = (there.signal * beta * x0 + math.sqrt(alpha) * there.sigma**2 * x) / here.sigma**2  # [B, ...]
        if there.sigma == 0:  # "z = 0 if t = 1": the last step adds no noise
            return x
        spread = beta * there.sigma**2 / here.sigma**2 if variance == "small" else beta
        return x + math.sqrt(spread) * _fresh_noise(generators, x)

    return descend(model, x_T, schedule, timesteps, prediction_type, step)


def ddim(
    model: Model,
    x_T: Tensor,
    schedule: Schedule,
    timesteps: Timesteps,
    *,
    prediction_type: str = "epsilon",
    generators: Generators = None,
    eta: float = 0.0,
) -> Iterator[SamplerState]:
    """Denoising diffusion implicit models (Song et al. 2021, Eq. 12 and 16).

    Guess the clean image and the noise, then mix the same two again at the next, lower noise level.

    Args:
        eta: share of the ancestral noise that is drawn afresh: 0 is deterministic, 1 is DDPM.
        generators: one per image, needed only when eta > 0.
    """
    if not 0.0 <= eta <= 1.0:
        raise ValueError(f"eta must lie between 0 (deterministic) and 1 (DDPM), got {eta}.")
    if eta > 0:
        _check_generators(generators, x_T)

    def step(x: Tensor, x0: Tensor, epsilon: Tensor, here: Level, there: Level) -> Tensor:
        _, beta = _one_step(here, there)
        fresh = eta * math.sqrt(beta) * there.sigma / here.sigma  # standard deviation, Eq. 16
        x = there.signal * x0 + math.sqrt(there.sigma**2 - fresh**2) * epsilon  # [B, ...]
        return x + fresh * _fresh_noise(generators, x) if fresh > 0 else x

    return descend(model, x_T, schedule, timesteps, prediction_type, step)


def euler(
    model: Model,
    x_T: Tensor,
    schedule: Schedule,
    timesteps: Timesteps,
    *,
    prediction_type: str = "epsilon",
    generators: Generators = None,
) -> Iterator[SamplerState]:
    """Euler's method (Karras et al. 2022, Alg. 1 without its correction).

    Written in y = x / signal and the time s = sigma / signal, the deterministic path has the slope dy/ds = noise
    (their Eq. 1). A straight step along it is DDIM with eta = 0 once more.

    `generators` is accepted and ignored. Raises ValueError for a path from zero signal, where s is infinite.
    """
    _check_signal(levels(schedule, timesteps))
    return descend(
        model, x_T, schedule, timesteps, prediction_type,
        lambda x, x0, epsilon, here, there: _along(x, epsilon, here, there),
    )  # fmt: skip


def heun(
    model: Model,
    x_T: Tensor,
    schedule: Schedule,
    timesteps: Timesteps,
    *,
    prediction_type: str = "epsilon",
    generators: Generators = None,
) -> Iterator[SamplerState]:
    """Heun's method, second order (Karras et al. 2022, Alg. 1).

    An Euler step to the next level, a second call of the network there, and the step again with the mean of both
    slopes; the last step, to the clean end, is Euler's. N timesteps cost 2N - 1 calls. A trial step and the corrected
    one are two states with the same `next_timestep`.

    `generators` is accepted and ignored. Raises ValueError for a path from zero signal.
    """
    path = levels(schedule, timesteps)
    _check_signal(path)
    return _heun(model, x_T.float(), schedule, path, prediction_type)


def _heun(
    model: Model, x: Tensor, schedule: Schedule, path: list[Level], prediction_type: str
) -> Iterator[SamplerState]:
    calls = 0
    for here, there in pairwise(path):
        x0, slope = ask(model, x, schedule, here.t, prediction_type)  # 2 x [B, ...]
        trial = _along(x, slope, here, there)
        yield SamplerState(calls, here.t, trial, x0, there.t)
        calls += 1
        if there.sigma > 0:
            x0, slope_there = ask(model, trial, schedule, there.t, prediction_type)
            x = _along(x, (slope + slope_there) / 2, here, there)
            yield SamplerState(calls, there.t, x, x0, there.t)
            calls += 1


SAMPLERS = {
    "ddpm": ddpm, "ddim": ddim, "euler": euler, "heun": heun,
    "dpm_solver_pp": dpm_solver_pp, "dpm_solver_pp_1s": dpm_solver_pp_1s, "dpm_solver_pp_2s": dpm_solver_pp_2s,
}  # fmt: skip


def _one_step(here: Level, there: Level) -> tuple[float, float]:
    """alpha and beta of the single noising step that leads from `there` to `here`.

    beta = 1 - alpha, written so that two numbers close to one are never subtracted.
    """
    alpha = (here.signal / there.signal) ** 2
    return alpha, here.sigma**2 - alpha * there.sigma**2


def _along(x: Tensor, slope: Tensor, here: Level, there: Level) -> Tensor:
    """A straight step with slope dy/ds in y = x / signal, s = sigma / signal, back in x: [B, ...]."""
    return there.signal * (x / here.signal + (there.ratio - here.ratio) * slope)


def _check_signal(path: list[Level]) -> None:
    if path[0].signal == 0.0:
        raise ValueError("at zero terminal SNR sigma / signal is infinite: sample with ddim, ddpm or dpm_solver_pp.")


def _fresh_noise(generators: Generators, x: Tensor) -> Tensor:
    assert generators is not None  # _check_generators ran
    return noise_like_each(x.shape[1:], generators).to(x.device)  # [B, ...]


def _check_generators(generators: Generators, x_T: Tensor) -> None:
    if generators is None or len(generators) != len(x_T):
        raise ValueError(f"this sampler draws noise: pass {len(x_T)} generators, one for each image.")
