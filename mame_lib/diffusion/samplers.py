"""Three samplers, one signature: DDPM (the paper's algorithm), DDIM and DPM-Solver++ (the paper's choice).

Each sampler is a generator. It yields one `SamplerState` per call of the network, so N steps give N states,
and the last state's `sample` is the finished image. Plotting a trajectory, showing progress or stopping early
needs no callback: write a for loop.

    grid = timesteps(schedule, steps=24)
    for state in dpm_solver_pp(model, x_T, schedule, grid):
        ...                       # state.sample, state.predicted_x0
    image = state.sample

`model(x, t)` takes images [B, ...] and timesteps [B] and returns what `prediction_type` says.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from mame_lib.diffusion.process import predict_epsilon, predict_x0
from mame_lib.diffusion.schedule import Schedule
from mame_lib.diffusion.start import noise_like_each

Model = Callable[[Tensor, Tensor], Tensor]
Timesteps = Sequence[int] | Tensor
Generators = Sequence[torch.Generator] | None


@dataclass(frozen=True, eq=False)
class SamplerState:
    """What a sampler knows after one call of the network.

    Attributes:
        step: 0 .. N-1.
        timestep: where the network was called.
        sample: [B, ...] float32, the image *after* the step, at the noise level of `next_timestep`.
        predicted_x0: [B, ...] float32, the clean image the network guessed from where it was called.
        next_timestep: the noise level of `sample`; -1 means clean, and is reached by the last state.
    """

    step: int
    timestep: int
    sample: Tensor
    predicted_x0: Tensor
    next_timestep: int


def timesteps(schedule: Schedule, steps: int, spacing: str = "trailing", steps_offset: int = 1) -> list[int]:
    """The N of T timesteps at which the network is called, from noisy to clean.

    Args:
        spacing: "trailing" counts back from T-1 and is our rule, for it starts where training ended;
            "leading" counts up from 0, so sampling starts early, at 961 for 24 steps; "linspace" spreads the
            steps over 0..T-1 and leaves out 0. The words are those of Lin et al. 2024, Table 2.
        steps_offset: added to the "leading" grid; 1 for Stable Diffusion.

    The grids are those of diffusers' `DPMSolverMultistepScheduler`, integer for integer. (Its DDPM and DDIM
    divide by N instead of N+1 in "leading" and by N-1 instead of N in "linspace"; "trailing" is the same in
    all three. For a few N, such as 61, rounding gives its "trailing" a surplus timestep -1; ours has none.)
    """
    last = len(schedule) - 1
    if steps != int(steps) or not 1 <= steps <= last + 1:
        raise ValueError(f"the number of steps must be a whole number from 1 to {last + 1}, got {steps}.")
    if spacing == "trailing":
        total = float(last + 1)
        stride = total - (total - total / steps)  # rounded as numpy.arange does, so that ties fall alike
        grid = [round(total - i * stride) - 1 for i in range(steps)]
    elif spacing == "leading":
        grid = [i * ((last + 1) // (steps + 1)) + steps_offset for i in range(steps, 0, -1)]
    elif spacing == "linspace":
        grid = [round(i * (last / steps)) for i in range(steps, 0, -1)]
    else:
        raise ValueError(f"unknown timestep spacing {spacing!r}: choose trailing, leading or linspace.")
    if len(set(grid)) < steps or grid[0] > last:
        raise ValueError(f"{steps} steps do not fit into {last + 1} timesteps with {spacing} spacing.")
    return grid


class Level(NamedTuple):
    """A point of the sampler's path: x = signal * x_0 + sigma * noise."""

    t: int
    signal: float
    sigma: float

    @property
    def half_log_snr(self) -> float:
        """lambda = log(signal / sigma), the time in which DPM-Solver counts; +inf at the clean end."""
        if self.sigma == 0.0 or self.signal == 0.0:
            return math.inf if self.sigma == 0.0 else -math.inf
        return math.log(self.signal / self.sigma)


CLEAN = Level(t=-1, signal=1.0, sigma=0.0)


def levels(schedule: Schedule, timesteps: Timesteps) -> list[Level]:
    """The N noise levels of a grid and, after them, the clean end: N steps lead through N+1 points.

    Ending at sigma = 0 exactly matters: a path that stops at a small sigma leaves that much noise in the
    finished image.
    """
    grid = [int(t) for t in timesteps]
    if not grid or not 0 <= grid[-1] <= grid[0] < len(schedule):
        raise ValueError(f"the timesteps must be a non-empty list within 0..{len(schedule) - 1}.")
    if any(here <= there for here, there in pairwise(grid)):
        raise ValueError("the timesteps must decrease: sampling walks from noise to image.")
    signal, sigma = schedule.signal.tolist(), schedule.sigma.tolist()
    return [Level(t, signal[t], sigma[t]) for t in grid] + [CLEAN]


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
    x = x_T.float()  # [B, ...]
    for step, (here, there) in enumerate(pairwise(levels(schedule, timesteps))):
        x0, _ = _call(model, x, schedule, here.t, prediction_type)  # [B, ...]
        alpha, beta = _one_step(here, there)
        x = (there.signal * beta * x0 + math.sqrt(alpha) * there.sigma**2 * x) / here.sigma**2
        if there.sigma > 0:  # "z = 0 if t = 1": the last step adds no noise
            spread = beta * there.sigma**2 / here.sigma**2 if variance == "small" else beta
            x = x + math.sqrt(spread) * _fresh_noise(generators, x)
        yield SamplerState(step, here.t, x, x0, there.t)


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
    x = x_T.float()  # [B, ...]
    for step, (here, there) in enumerate(pairwise(levels(schedule, timesteps))):
        x0, epsilon = _call(model, x, schedule, here.t, prediction_type)  # 2 x [B, ...]
        _, beta = _one_step(here, there)
        fresh = eta * math.sqrt(beta) * there.sigma / here.sigma  # standard deviation, Eq. 16
        x = there.signal * x0 + math.sqrt(there.sigma**2 - fresh**2) * epsilon
        if fresh > 0:
            x = x + fresh * _fresh_noise(generators, x)
        yield SamplerState(step, here.t, x, x0, there.t)


def dpm_solver_pp(
    model: Model,
    x_T: Tensor,
    schedule: Schedule,
    timesteps: Timesteps,
    *,
    prediction_type: str = "epsilon",
    generators: Generators = None,
) -> Iterator[SamplerState]:
    """DPM-Solver++ 2M, the paper's sampler (Lu et al. 2022b, Alg. 2; MAM-E section 2.3.5).

    In the time lambda = log(signal / sigma) the deterministic path solves a linear equation driven by the
    predicted clean image. Its linear part is integrated exactly; the prediction is drawn as a straight line
    through its last two values. The first step has no history and the last one, to lambda = infinity, cannot
    use a slope, so both take the prediction as constant, which is a DDIM step.

    Deterministic: `generators` is accepted so that all samplers can be called alike, and ignored.
    """
    x = x_T.float()  # [B, ...]
    before: tuple[Tensor, float] | None = None  # the previous prediction and its lambda
    for step, (here, there) in enumerate(pairwise(levels(schedule, timesteps))):
        x0, _ = _call(model, x, schedule, here.t, prediction_type)  # [B, ...]
        h = there.half_log_snr - here.half_log_snr
        midway = x0
        if before is not None and math.isfinite(h):
            x0_before, lambda_before = before
            r = (here.half_log_snr - lambda_before) / h
            midway = x0 + (x0 - x0_before) / (2.0 * r)  # the line through both, read half a step ahead
        x = (there.sigma / here.sigma) * x - there.signal * math.expm1(-h) * midway
        before = (x0, here.half_log_snr)
        yield SamplerState(step, here.t, x, x0, there.t)


SAMPLERS = {"ddpm": ddpm, "ddim": ddim, "dpm_solver_pp": dpm_solver_pp}


@torch.no_grad()
def _call(model: Model, x: Tensor, schedule: Schedule, t: int, prediction_type: str) -> tuple[Tensor, Tensor]:
    """Call the network once, at timestep t; return what it says about x_0 and about the noise, [B, ...]."""
    output = model(x, torch.full((len(x),), t, dtype=torch.long, device=x.device))  # [B, ...]
    if output.shape != x.shape:
        raise ValueError(f"the model turned images {tuple(x.shape)} into {tuple(output.shape)}.")
    return (
        predict_x0(schedule, x, output, t, prediction_type),
        predict_epsilon(schedule, x, output, t, prediction_type),
    )


def _one_step(here: Level, there: Level) -> tuple[float, float]:
    """alpha and beta of the single noising step that leads from `there` to `here`.

    beta = 1 - alpha, written so that two numbers close to one are never subtracted.
    """
    alpha = (here.signal / there.signal) ** 2
    return alpha, here.sigma**2 - alpha * there.sigma**2


def _fresh_noise(generators: Generators, x: Tensor) -> Tensor:
    assert generators is not None  # _check_generators ran
    return noise_like_each(x.shape[1:], generators).to(x.device)  # [B, ...]


def _check_generators(generators: Generators, x_T: Tensor) -> None:
    if generators is None or len(generators) != len(x_T):
        raise ValueError(f"this sampler draws noise: pass {len(x_T)} generators, one for each image.")
