"""DPM-Solver++: samplers that integrate the linear part of the path exactly (Lu et al. 2022b).

Between two noise levels, in the time lambda = log(signal / sigma), the deterministic path obeys

    x_there / sigma_there = x_here / sigma_here + integral of e^lambda x0(lambda) d lambda,

where x0(lambda) is the clean image predicted along the way. The exponential is integrated exactly; only the prediction
is approximated: by a constant (1S, first order), by one more call inside the step (2S), or by a straight line through
the prediction of the previous step (2M, second order without another call).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

from torch import Tensor

from mame_lib.diffusion.path import Generators, Level, Model, SamplerState, Timesteps, ask, descend, levels
from mame_lib.diffusion.schedule import Schedule


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

    The prediction is drawn as a straight line through its last two values. The first step has no history and the
    last one, to lambda = infinity, cannot use a slope, so both take the prediction as constant.

    Deterministic: `generators` is accepted so that all samplers can be called alike, and ignored.
    """
    x = x_T.float()  # [B, ...]
    before: tuple[Tensor, Level] | None = None  # the previous prediction and where it was made
    for step, (here, there) in enumerate(pairwise(levels(schedule, timesteps))):
        x0, _ = ask(model, x, schedule, here.t, prediction_type)  # [B, ...]
        midway = x0
        if before is not None and math.isfinite(_width(here, there)):
            x0_before, earlier = before
            r = _width(earlier, here) / _width(here, there)
            midway = x0 + (x0 - x0_before) / (2.0 * r)  # the line through both, read half a step ahead
        x = _advance(x, midway, here, there)
        before = (x0, here)
        yield SamplerState(step, here.t, x, x0, there.t)


def dpm_solver_pp_1s(
    model: Model,
    x_T: Tensor,
    schedule: Schedule,
    timesteps: Timesteps,
    *,
    prediction_type: str = "epsilon",
    generators: Generators = None,
) -> Iterator[SamplerState]:
    """DPM-Solver++ 1S, first order: the prediction is constant over a step (Lu et al. 2022b, Eq. 9 with k = 1).

    DDIM with eta = 0 in other words, which a test holds it to. `generators` is accepted and ignored.
    """
    return descend(
        model, x_T, schedule, timesteps, prediction_type,
        lambda x, x0, epsilon, here, there: _advance(x, x0, here, there),
    )  # fmt: skip


def dpm_solver_pp_2s(
    model: Model,
    x_T: Tensor,
    schedule: Schedule,
    timesteps: Timesteps,
    *,
    prediction_type: str = "epsilon",
    generators: Generators = None,
) -> Iterator[SamplerState]:
    """DPM-Solver++ 2S, second order without memory (Lu et al. 2022b, Alg. 1).

    Timesteps are taken in pairs: from the first a trial step leads to the second, the network is called there, and
    the whole step is made again with both predictions. So N timesteps cost N calls, in N/2 double steps. What does
    not make a pair before the clean end is done in single steps, as in diffusers' `DPMSolverSinglestepScheduler`.

    Deterministic: `generators` is accepted so that all samplers can be called alike, and ignored.
    """
    path = levels(schedule, timesteps)
    paired = (len(path) - 2) // 2 * 2  # levels that are left by double steps
    x = x_T.float()  # [B, ...]
    start = x0_start = x
    for step, (here, there) in enumerate(pairwise(path)):
        x0, _ = ask(model, x, schedule, here.t, prediction_type)  # [B, ...]
        first = path[max(step - 1, 0)]
        if step < paired and step % 2 == 1 and math.isfinite(_width(first, there)):
            r = _width(first, here) / _width(first, there)
            x = _advance(start, x0_start + (x0 - x0_start) / (2.0 * r), first, there)
        else:
            start, x0_start = x, x0
            x = _advance(x, x0, here, there)
        yield SamplerState(step, here.t, x, x0, there.t)


def _width(here: Level, there: Level) -> float:
    """h: how far apart two levels lie in lambda; infinite when one of them is pure noise or clean."""
    return there.half_log_snr - here.half_log_snr


def _advance(x: Tensor, x0: Tensor, here: Level, there: Level) -> Tensor:
    """The exact step for a prediction `x0` that does not change on the way (Lu et al. 2022b, Eq. 9)."""
    return (there.sigma / here.sigma) * x - there.signal * math.expm1(-_width(here, there)) * x0  # [B, ...]
