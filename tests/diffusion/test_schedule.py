"""Schedules against published values, against diffusers, and against their own definition."""

import pytest
import torch
from diffusers import DDPMScheduler
from hypothesis import given, settings
from hypothesis import strategies as st

from mame_lib.diffusion.schedule import (
    Schedule,
    cosine_schedule,
    for_name,
    from_config,
    linear_schedule,
    scaled_linear_schedule,
    zero_terminal_snr,
)

REFERENCE = {
    0: 0.999150,
    1: 0.998296,
    2: 0.997438,
    5: 0.994840,
    100: 0.894223,
    250: 0.673793,
    500: 0.276333,
    750: 0.056170,
    900: 0.014151,
    961: 0.007282,
    999: 0.004660,
}  # derived in float64 from SD 1.5's betas


def test_sd15_values_of_abar():
    abar = scaled_linear_schedule().alphas_cumprod
    for t, value in REFERENCE.items():
        assert float(abar[t]) == pytest.approx(value, abs=5e-7)
    assert float(scaled_linear_schedule().signal[999]) == pytest.approx(0.068265, abs=5e-7)


def test_last_values_of_the_other_schedules_of_the_project():
    assert float(linear_schedule().alphas_cumprod[-1]) == pytest.approx(4.036e-5, rel=1e-3)
    ldm = scaled_linear_schedule(0.0015, 0.0195)
    assert float(ldm.alphas_cumprod[-1]) == pytest.approx(1.423e-4, rel=1e-3)


@pytest.mark.parametrize("name", ["linear", "scaled_linear", "squaredcos_cap_v2"])
def test_equals_diffusers(name):
    ours = for_name(name)
    theirs = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule=name)
    torch.testing.assert_close(ours.betas, theirs.betas, rtol=2e-5, atol=1e-7)
    torch.testing.assert_close(ours.alphas_cumprod, theirs.alphas_cumprod, rtol=1e-4, atol=1e-6)


def test_zero_terminal_snr_equals_diffusers_and_ends_at_zero():
    ours = zero_terminal_snr(scaled_linear_schedule())
    theirs = DDPMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", rescale_betas_zero_snr=True
    )
    torch.testing.assert_close(ours.alphas_cumprod, theirs.alphas_cumprod, rtol=1e-4, atol=1e-6)
    assert float(ours.signal[-1]) == 0.0 and float(ours.snr[-1]) == 0.0
    assert float(ours.signal[0]) == pytest.approx(float(scaled_linear_schedule().signal[0]), rel=1e-7)


def test_from_config_reads_what_diffusers_writes():
    config = dict(DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear").config)
    assert torch.equal(from_config(config).betas, scaled_linear_schedule().betas)
    assert torch.equal(from_config({}).betas, linear_schedule().betas)
    rescaled = from_config({**config, "rescale_betas_zero_snr": True})
    assert float(rescaled.alphas_cumprod[-1]) == 0.0
    trained = from_config({"trained_betas": [0.1, 0.2]})
    assert trained.alphas_cumprod.tolist() == pytest.approx([0.9, 0.72])


@given(
    start=st.floats(1e-5, 5e-3),
    ratio=st.floats(1.0, 30.0),
    steps=st.integers(2, 1200),
    build=st.sampled_from([linear_schedule, scaled_linear_schedule]),
)
@settings(max_examples=60, deadline=None)
def test_abar_decreases_within_zero_and_one(start, ratio, steps, build):
    schedule = build(start, min(start * ratio, 0.5), steps)
    abar = schedule.alphas_cumprod
    assert len(schedule) == steps and abar.dtype == torch.float32
    assert bool((abar > 0).all()) and bool((abar < 1).all())
    assert bool((abar[1:] < abar[:-1]).all())
    assert bool((schedule.snr[1:] < schedule.snr[:-1]).all())
    torch.testing.assert_close(schedule.signal**2 + schedule.sigma**2, torch.ones(steps))


def test_sigma_is_exact_at_small_t():
    """The reason for float64: 1 - abar formed after rounding to bfloat16 is exactly 0 at t = 0 and 1."""
    schedule = scaled_linear_schedule()
    exact = [0.0292, 0.0413, 0.0506, 0.0585, 0.0655, 0.0718, 0.0777, 0.0831, 0.0883]
    assert schedule.sigma[:9].tolist() == pytest.approx(exact, abs=6e-5)
    spoiled = (1 - schedule.alphas_cumprod.bfloat16()) ** 0.5
    assert spoiled[:2].tolist() == [0.0, 0.0]


def test_move_keeps_the_tables():
    schedule = cosine_schedule(10)
    moved = schedule.to("cpu")
    assert moved.name == "cosine" and torch.equal(moved.snr, schedule.snr)


@pytest.mark.parametrize(
    ("call", "fragment"),
    [
        (lambda: linear_schedule(timesteps=0), "at least one timestep"),
        (lambda: linear_schedule(0.02, 1e-4), "start <= end"),
        (lambda: for_name("sigmoid"), "unknown beta schedule 'sigmoid'"),
        (lambda: Schedule.from_betas("x", torch.tensor([0.1, 1.5])), "every beta"),
        (lambda: Schedule.from_betas("x", torch.zeros(2, 2)), "list of T numbers"),
    ],
)
def test_errors_are_one_clear_sentence(call, fragment):
    with pytest.raises(ValueError, match=fragment) as error:
        call()
    assert str(error.value).endswith(".") and "\n" not in str(error.value)
