"""The path of a sampler: at which noise levels the network is called, and what one call says.

A path is a list of levels, from noisy to clean. All samplers walk the same paths; they differ only in the step from
one level to the next.
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

Model = Callable[[Tensor, Tensor], Tensor]  # (x [B, ...], t [B]) -> what prediction_type says [B, ...]
Timesteps = Sequence[int] | Tensor
Generators = Sequence[torch.Generator] | None


@dataclass(frozen=True, eq=False)
class SamplerState:
    """What a sampler knows after one call of the network.

    Attributes:
        step: counts the calls: 0, 1, ...
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

    The grids are those of diffusers' `DPMSolverMultistepScheduler`, integer for integer. (Its other samplers divide
    by N instead of N+1 in "leading" and by N-1 instead of N in "linspace"; "trailing" is the same in all. For a few
    N, such as 61, rounding gives its "trailing" a surplus timestep -1; ours has none.)
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
    def ratio(self) -> float:
        """sigma / signal, the time in which Euler and Heun count; 0 at the clean end, infinite without signal."""
        return self.sigma / self.signal if self.signal > 0.0 else math.inf

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


@torch.no_grad()
def ask(model: Model, x: Tensor, schedule: Schedule, t: int, prediction_type: str) -> tuple[Tensor, Tensor]:
    """Call the network once, at timestep t; return what it says about x_0 and about the noise, [B, ...]."""
    output = model(x, torch.full((len(x),), t, dtype=torch.long, device=x.device))  # [B, ...]
    if output.shape != x.shape:
        raise ValueError(f"the model turned images {tuple(x.shape)} into {tuple(output.shape)}.")
    return (
        predict_x0(schedule, x, output, t, prediction_type),
        predict_epsilon(schedule, x, output, t, prediction_type),
    )


Step = Callable[[Tensor, Tensor, Tensor, Level, Level], Tensor]  # x, x_0, noise [B, ...], here, there -> x [B, ...]


def descend(
    model: Model, x_T: Tensor, schedule: Schedule, timesteps: Timesteps, prediction_type: str, step: Step
) -> Iterator[SamplerState]:
    """Walk a path with one call of the network at each level: ask, step, yield.

    A sampler without memory is a `step`: from x at the level `here` and what the network says there about x_0 and the
    noise to x at the level `there`.
    """
    x = x_T.float()  # [B, ...]
    for number, (here, there) in enumerate(pairwise(levels(schedule, timesteps))):
        x0, epsilon = ask(model, x, schedule, here.t, prediction_type)  # 2 x [B, ...]
        x = step(x, x0, epsilon, here, there)
        yield SamplerState(number, here.t, x, x0, there.t)
