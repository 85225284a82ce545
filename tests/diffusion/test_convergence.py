"""On a target whose exact score is known, every sampler's error falls at its theoretical order."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(str(BENCHMARKS))
    convergence: Any = importlib.import_module("convergence")


@pytest.mark.parametrize(("name", "theory"), convergence.ORDERS.items())
def test_the_error_of_a_deterministic_sampler_falls_at_its_order(name: str, theory: int) -> None:
    errors = convergence.deterministic_errors(name)
    assert abs(convergence.order(convergence.STEPS, errors) - theory) < 0.1, errors
    assert errors[-1] < {1: 1e-2, 2: 5e-4}[theory]


@pytest.mark.slow
@pytest.mark.parametrize("variance", ["small", "large"])
def test_the_distribution_of_ddpm_converges_at_first_order(variance: str) -> None:
    """2 ** 19 points: luck alone gives a distance of about 0.002, a tenth of the smallest error here."""
    steps = (8, 16, 32)
    errors = convergence.ddpm_errors(variance, steps, points=2**19)
    assert abs(convergence.order(steps, errors) - 1) < 0.15, errors


def test_the_exact_noise_is_the_slope_of_the_density() -> None:
    """epsilon = -sigma d/dx log p(x) (Tweedie): the density differentiated numerically."""
    signal, sigma = 0.6, 0.8
    x = torch.linspace(-3, 3, 61, dtype=torch.float64, requires_grad=True)
    scale = ((signal * convergence.SPREADS) ** 2 + sigma**2).sqrt()
    gap = (x[:, None] - signal * convergence.MEANS) / scale
    density = (convergence.WEIGHTS / scale * (-(gap**2) / 2).exp()).sum(1)
    (score,) = torch.autograd.grad(density.log().sum(), x)
    torch.testing.assert_close(convergence.exact_epsilon(x.detach(), signal, sigma), -sigma * score)


def test_the_exact_path_carries_the_distribution_along() -> None:
    """The quantiles at the start arrive at the quantiles of the end: the flow keeps the order on a line."""
    ends = convergence.grid(16)
    begin, end = (torch.from_numpy(convergence.marginal_quantiles(t, 200)) for t in (ends[0], ends[-1]))
    torch.testing.assert_close(convergence.exact_path(begin, ends[0], ends[-1]), end, rtol=0, atol=2e-3)


def test_a_first_order_sampler_would_not_pass_for_second_order() -> None:
    assert convergence.order((10, 20, 40), [0.4, 0.2, 0.1]) == pytest.approx(1.0)
    assert convergence.order((10, 20, 40), [0.4, 0.1, 0.025]) == pytest.approx(2.0)
