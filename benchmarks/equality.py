"""Our samplers against diffusers' schedulers: the largest difference of the finished image, over a grid of settings.

    python benchmarks/equality.py --out benchmarks/results/equality.json

Every sampler is run with the same nonlinear model, the same start noise and the same fresh noise, over timestep
spacings, numbers of steps and prediction types. A difference is relative to the largest value of the image, at least 1.

Timesteps are those that the scheduler itself makes for a spacing, except where it makes fractions (Euler and Heun with
linspace) or knows one spacing only (DPM-Solver++ 2S): there ours are handed to it. Two gaps are its own. DDIM steps by
T // N whatever its timesteps say, so it can be held to them only where that is true: "leading", and "trailing" when N
divides T. DDPM with the large variance adds noise in its last step too, unless that is at t = 0. Half a minute.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    DPMSolverSinglestepScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
)
from provenance import report
from torch import Tensor

from mame_lib.diffusion.path import Model
from mame_lib.diffusion.process import predict_x0, target
from mame_lib.diffusion.samplers import SAMPLERS, timesteps
from mame_lib.diffusion.schedule import scaled_linear_schedule
from mame_lib.diffusion.start import generators_for, initial_noise

SD = scaled_linear_schedule()
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SHAPE, IMAGES = (4, 6, 6), 2
SPACINGS = ("trailing", "leading", "linspace")
STEPS = (1, 2, 5, 10, 24, 25, 50, 100, 250)
PREDICTIONS = ("epsilon", "v_prediction", "sample")
LIMIT = 1e-5


@dataclass(frozen=True)
class Case:
    """One sampler of ours with its options, the scheduler that must agree, and what they can both do."""

    name: str
    sampler: str
    scheduler: Callable[..., Any]
    config: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)  # of our sampler
    step: dict[str, Any] = field(default_factory=dict)  # of scheduler.step
    predictions: Sequence[str] = PREDICTIONS
    fair: Callable[[str, int], bool] = lambda spacing, steps: True
    handed: Sequence[str] = ()  # spacings for which our timesteps are handed to the scheduler
    scaled: bool = False  # the scheduler counts in x / signal


def _ddim_steps_fit(spacing: str, steps: int) -> bool:
    return spacing == "leading" or (spacing == "trailing" and len(SD) % steps == 0)


_DPM = {"algorithm_type": "dpmsolver++", "lower_order_final": True, "final_sigmas_type": "zero"}
_KARRAS = {"predictions": ("epsilon", "v_prediction"), "handed": ("linspace",), "scaled": True}
CASES = [
    Case("DDPM, small variance", "ddpm", DDPMScheduler, {"variance_type": "fixed_small", "clip_sample": False}),
    Case("DDPM, large variance", "ddpm", DDPMScheduler, {"variance_type": "fixed_large", "clip_sample": False},
         {"variance": "large"}, fair=lambda spacing, steps: spacing == "linspace" and steps > 1),
    *(Case(f"DDIM, eta {eta:g}", "ddim", DDIMScheduler, {"clip_sample": False, "set_alpha_to_one": True}, {"eta": eta},
           {"eta": eta}, fair=_ddim_steps_fit) for eta in (0.0, 0.5, 1.0)),
    Case("Euler", "euler", EulerDiscreteScheduler, **_KARRAS),
    Case("Heun", "heun", HeunDiscreteScheduler, **_KARRAS),
    Case("DPM-Solver++ 1S", "dpm_solver_pp_1s", DPMSolverMultistepScheduler, {**_DPM, "solver_order": 1}),
    Case("DPM-Solver++ 2S", "dpm_solver_pp_2s", DPMSolverSinglestepScheduler, {**_DPM, "solver_order": 2},
         handed=SPACINGS),
    Case("DPM-Solver++ 2M", "dpm_solver_pp", DPMSolverMultistepScheduler, {**_DPM, "solver_order": 2}),
]  # fmt: skip


def smooth_model(kind: str) -> Model:
    """A nonlinear denoiser of bounded predictions: it depends on place, value and timestep."""
    place = torch.linspace(-1, 1, SHAPE[-1])

    def model(x: Tensor, t: Tensor) -> Tensor:
        time = t.float()[:, None, None, None] / 1000
        epsilon = SD.sigma[t][:, None, None, None] * x + 0.3 * torch.sin(2 * x + place + 3 * time)
        return target(SD, predict_x0(SD, x, epsilon, t), epsilon, t, kind)

    return model


def difference(case: Case, spacing: str, steps: int, kind: str) -> float:
    """Largest difference of the finished images, relative to their largest value (at least 1)."""
    more = {} if case.sampler == "dpm_solver_pp_2s" else {"timestep_spacing": spacing, "steps_offset": 1}
    scheduler = case.scheduler(**BETAS, **case.config, **more, prediction_type=kind)
    if spacing in case.handed:
        scheduler.set_timesteps(timesteps=timesteps(SD, steps, spacing))
    else:
        scheduler.set_timesteps(steps)
    grid = list(dict.fromkeys(int(t) for t in scheduler.timesteps if t >= 0))  # Heun names most of them twice
    x_T, model = initial_noise(0, range(IMAGES), SHAPE), smooth_model(kind)
    theirs = _denoise(case, scheduler, model, x_T, grid)
    noise = generators_for(0, "step", range(IMAGES))
    *_, last = SAMPLERS[case.sampler](model, x_T, SD, grid, prediction_type=kind, generators=noise, **case.options)
    return float((last.sample - theirs).abs().max()) / max(1.0, float(theirs.abs().max()))


def _denoise(case: Case, scheduler: Any, model: Model, x: Tensor, grid: list[int]) -> Tensor:
    """The loop of a diffusers pipeline; every image draws its fresh noise from a generator of its own."""
    noise = generators_for(0, "step", range(IMAGES))
    draws = case.sampler == "ddpm" or case.options.get("eta", 0.0) > 0
    if case.scaled:
        x = x / SD.signal[grid[0]]
    for t in scheduler.timesteps:
        if t < 0:  # a rounding error of "trailing" for a few numbers of steps
            continue
        seen = scheduler.scale_model_input(x, t)
        output = model(seen, torch.full((len(x),), int(t)))
        if draws:
            rows = [scheduler.step(output[i : i + 1], t, x[i : i + 1], generator=g, **case.step).prev_sample
                    for i, g in enumerate(noise)]  # fmt: skip
            x = torch.cat(rows)
        else:
            x = scheduler.step(output, t, x, **case.step).prev_sample
    return x


def settings(case: Case, steps: Sequence[int] = STEPS) -> Iterator[tuple[str, int, str]]:
    """Spacing, steps and prediction type of every comparison that is fair."""
    for spacing in SPACINGS:
        for n in steps:
            if case.fair(spacing, n):
                yield from ((spacing, n, kind) for kind in case.predictions)


def table(steps: Sequence[int] = STEPS) -> list[dict[str, Any]]:
    """One row a sampler: how many settings were compared, and the largest difference by spacing and in all."""
    rows = []
    for case in CASES:
        found = {(s, n, k): difference(case, s, n, k) for s, n, k in settings(case, steps)}
        by_spacing = {s: max((d for key, d in found.items() if key[0] == s), default=None) for s in SPACINGS}
        worst = max(found, key=lambda key: found[key])
        rows.append({
            "sampler": case.name, "scheduler": case.scheduler.__name__, "settings": len(found),
            "largest_difference": found[worst], "at": list(worst), "by_spacing": by_spacing,
        })  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="where to store the result as JSON")
    options = parser.parse_args()
    rows = table()
    heads = "".join(f"{s:>10s}" for s in SPACINGS)
    print(f"{'sampler':22s}{'settings':>9s}  {'largest':>8s}  {heads}", file=sys.stderr)
    for row in rows:
        parts = "".join(f"{d:10.1e}" if d is not None else f"{'-':>10s}" for d in row["by_spacing"].values())
        print(f"{row['sampler']:22s}{row['settings']:9d}  {row['largest_difference']:8.1e}  {parts}", file=sys.stderr)
    report({"limit": LIMIT, "table": rows}, options.out, "torch", "diffusers")
    if not all(row["largest_difference"] <= LIMIT for row in rows):
        sys.exit(f"a sampler is further than {LIMIT:g} from diffusers.")


if __name__ == "__main__":
    main()
