"""How fast the error of each sampler falls: a table of errors and the order that is fitted to it.

    python benchmarks/convergence.py --out benchmarks/results/convergence.json

The data are a mixture of two Gaussians on a line, so the noise in x is known exactly (Bayes' rule) and what is left is
the sampler's own error. The schedule is Stable Diffusion's, cut forty times finer, so that steps may be evenly spaced
in lambda = log(signal / sigma), the time in which the theory counts. The path ends at lambda = 1: the last step to the
clean end crosses an infinite stretch of lambda and is first order in every sampler.

A deterministic sampler is held to the exact path from the same start (Runge and Kutta in float64): its error is the
mean distance at the end. DDPM draws noise, so its error is one of distribution: the Wasserstein-1 distance between a
million points and the exact marginal. Errors fall like N ** -order; the order is the slope of a straight line through
the logarithms. N counts steps, which cost Heun two calls each. About half a minute.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from provenance import report
from torch import Tensor

from mame_lib.diffusion.samplers import SAMPLERS
from mame_lib.diffusion.schedule import scaled_linear_schedule

FINER = 40
SCHEDULE = scaled_linear_schedule(0.00085 / FINER, 0.012 / FINER, 1000 * FINER)
WEIGHTS = torch.tensor([0.3, 0.7], dtype=torch.float64)
MEANS = torch.tensor([-1.2, 0.8], dtype=torch.float64)
SPREADS = torch.tensor([0.35, 0.45], dtype=torch.float64)
LAMBDA_END = 1.0
STEPS, DDPM_STEPS = (16, 32, 64, 128), (8, 16, 32, 64)  # with more, a million points are too few for DDPM
ORDERS = {"ddim": 1, "euler": 1, "dpm_solver_pp_1s": 1, "heun": 2, "dpm_solver_pp_2s": 2, "dpm_solver_pp": 2}


def exact_epsilon(x: Tensor, signal: Tensor | float, sigma: Tensor | float) -> Tensor:
    """The mean of the noise in x [P], given x = signal * x_0 + sigma * noise; float64."""
    variance = (signal * SPREADS) ** 2 + sigma**2  # [2] (or [P, 2])
    gap = x[:, None] - signal * MEANS  # [P, 2]
    odds = torch.softmax(WEIGHTS.log() - variance.log() / 2 - gap**2 / (2 * variance), dim=1)  # [P, 2]
    return (odds * sigma * gap / variance).sum(1)  # [P]


def model(x: Tensor, t: Tensor) -> Tensor:
    """What a perfect network would predict; the points are the pixels of one image, [1, P]."""
    at = int(t[0])
    return exact_epsilon(x[0].double(), float(SCHEDULE.signal[at]), float(SCHEDULE.sigma[at])).float()[None]


def grid(steps: int) -> list[int]:
    """`steps` + 1 timesteps, evenly spaced in lambda, from the noisiest to lambda = 1."""
    lam = (SCHEDULE.signal.double() / SCHEDULE.sigma.double()).log()  # [T], falls with t
    wanted = torch.linspace(float(lam[-1]), LAMBDA_END, steps + 1, dtype=torch.float64)
    return [min(int(torch.searchsorted(-lam, -w)), len(SCHEDULE) - 1) for w in wanted]


def exact_path(x: Tensor, here: int, there: int, steps: int = 2000) -> Tensor:
    """Follow the deterministic path from timestep `here` to `there`, [P] float64.

    In y = x / signal and s = sigma / signal the path is dy/ds = epsilon (Karras et al. 2022, Eq. 1); Runge-Kutta of
    fourth order in log s.
    """

    def level(t: int) -> tuple[float, float]:
        return float(SCHEDULE.signal[t]), float(SCHEDULE.sigma[t])

    def slope(u: float, y: Tensor) -> Tensor:
        s = math.exp(u)
        signal = 1 / math.sqrt(1 + s * s)
        return s * exact_epsilon(signal * y, signal, s * signal)

    (signal, sigma), (signal_end, sigma_end) = level(here), level(there)
    start, end = math.log(sigma / signal), math.log(sigma_end / signal_end)
    y, h = x / signal, (end - start) / steps
    for i in range(steps):
        u = start + i * h
        k1 = slope(u, y)
        k2 = slope(u + h / 2, y + h / 2 * k1)
        k3 = slope(u + h / 2, y + h / 2 * k2)
        k4 = slope(u + h, y + h * k3)
        y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return y * signal_end


def end_of(name: str, x: Tensor, steps: int, **options: Any) -> Tensor:
    """Where a sampler stands after `steps` steps from x [P], at lambda = 1; [P] float64."""
    timesteps = grid(steps)
    for state in SAMPLERS[name](model, x.float()[None], SCHEDULE, timesteps, **options):
        if state.next_timestep == timesteps[-1]:  # of Heun's two the second, corrected one stays
            arrived = state.sample
    return arrived[0].double()


def deterministic_errors(name: str, steps: tuple[int, ...] = STEPS, points: int = 256) -> list[float]:
    """Mean distance to the exact path for each number of steps; starts are quantiles of the standard normal."""
    x = torch.special.ndtri((torch.arange(points, dtype=torch.float64) + 0.5) / points)  # [P]
    truth = exact_path(x, grid(steps[0])[0], grid(steps[0])[-1])  # [P]
    return [float((end_of(name, x, n) - truth).abs().mean()) for n in steps]


def marginal_quantiles(t: int, points: int) -> NDArray[np.float64]:
    """Quantiles of the exact distribution of x_t at (i + 1/2) / points, [P]."""
    signal, sigma = float(SCHEDULE.signal[t]), float(SCHEDULE.sigma[t])
    x = torch.linspace(-8, 8, 40_001, dtype=torch.float64)
    scale = ((signal * SPREADS) ** 2 + sigma**2).sqrt()
    below = (WEIGHTS * torch.special.ndtr((x[:, None] - signal * MEANS) / scale)).sum(1)  # the distribution function
    return np.interp((np.arange(points) + 0.5) / points, below.numpy(), x.numpy())


def ddpm_errors(variance: str, steps: tuple[int, ...] = DDPM_STEPS, points: int = 2**20) -> list[float]:
    """Wasserstein-1 distance of the sampler's points from the exact marginal at its end; the start is exact."""
    errors = []
    for n in steps:
        generator, ends = torch.Generator().manual_seed(0), grid(n)
        start = torch.from_numpy(marginal_quantiles(ends[0], points))[torch.randperm(points, generator=generator)]
        end = end_of("ddpm", start, n, generators=[generator], variance=variance)
        errors.append(float(np.abs(np.sort(end.numpy()) - marginal_quantiles(ends[-1], points)).mean()))
    return errors


def order(steps: tuple[int, ...], errors: list[float]) -> float:
    """Slope of the straight line through (log N, log error), with its sign turned."""
    return -float(np.polyfit(np.log(steps), np.log(errors), 1)[0])


def table(points: int = 2**20) -> list[dict[str, Any]]:
    """One row a sampler: steps, errors, the fitted order, and the order that theory promises."""
    rows = [
        {"sampler": name, "steps": STEPS, "errors": deterministic_errors(name), "theory": theory}
        for name, theory in ORDERS.items()
    ]
    rows += [
        {"sampler": f"ddpm, {v} variance", "steps": DDPM_STEPS, "errors": ddpm_errors(v, points=points), "theory": 1}
        for v in ("small", "large")
    ]
    return [{**row, "order": round(order(row["steps"], row["errors"]), 3)} for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="where to store the result as JSON")
    options = parser.parse_args()
    rows = table()
    print(f"{'sampler':22s}{'steps and errors':60s} order  theory", file=sys.stderr)
    for row in rows:
        errors = "  ".join(f"{n:3d}: {e:.2e}" for n, e in zip(row["steps"], row["errors"], strict=True))
        print(f"{row['sampler']:22s}{errors:60s} {row['order']:5.2f}  {row['theory']:6d}", file=sys.stderr)
    report({"table": rows}, options.out, "torch")


if __name__ == "__main__":
    main()
