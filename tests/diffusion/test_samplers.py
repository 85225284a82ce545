"""Samplers against diffusers, against a target whose exact answer is known, and against their own rules."""

import math
from itertools import pairwise

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler
from hypothesis import given
from hypothesis import strategies as st

from mame_lib.diffusion.process import predict_x0, target
from mame_lib.diffusion.samplers import CLEAN, SAMPLERS, ddim, ddpm, dpm_solver_pp, levels, timesteps
from mame_lib.diffusion.schedule import linear_schedule, scaled_linear_schedule, zero_terminal_snr
from mame_lib.diffusion.start import generators_for, initial_noise

# diffusers hands NumPy 2 an array method without `copy`; harmless, and not ours to mend.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SD = scaled_linear_schedule()
SHAPE = (4, 6, 6)
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SPACINGS = ["trailing", "leading", "linspace"]


def fake_model(kind):
    """A nonlinear denoiser of bounded predictions: it depends on place, value and timestep."""
    place = torch.linspace(-1, 1, 6)

    def model(x, t):
        time = t.float()[:, None, None, None] / 1000
        sigma = SD.sigma[t][:, None, None, None]
        epsilon = sigma * x + 0.3 * torch.sin(2 * x + place + 3 * time)
        x0 = predict_x0(SD, x, epsilon, t)
        return target(SD, x0, epsilon, t, kind)

    return model


def last_sample(states):
    *_, last = states
    return last.sample


# ---- timestep grids -------------------------------------------------------------------------------


@pytest.mark.parametrize("spacing", SPACINGS)
def test_grids_equal_diffusers_for_every_number_of_steps(spacing):
    scheduler = DPMSolverMultistepScheduler(**BETAS, timestep_spacing=spacing, steps_offset=1)
    surplus = 0
    for steps in range(1, 999):
        scheduler.set_timesteps(steps)
        theirs = scheduler.timesteps.tolist()
        if theirs[-1] == -1:  # diffusers' own rounding error, seen for a few dozen N with trailing spacing
            theirs, surplus = theirs[:-1], surplus + 1
        assert timesteps(SD, steps, spacing) == theirs
    assert surplus < 70 and (surplus == 0 or spacing == "trailing")


def test_known_grids():
    """First two and last two timesteps of the paper's 24 steps."""
    ends = {s: (g[:2], g[-2:]) for s in SPACINGS if (g := timesteps(SD, 24, s))}
    assert ends["trailing"] == ([999, 957], [82, 41])
    assert ends["leading"] == ([961, 921], [81, 41])
    assert ends["linspace"] == ([999, 957], [83, 42])


@given(steps=st.integers(1, 998), spacing=st.sampled_from(SPACINGS))
def test_grids_decrease_within_range(steps, spacing):
    grid = timesteps(SD, steps, spacing)
    assert len(grid) == steps and all(a > b for a, b in pairwise(grid))
    assert grid[-1] >= 0 and grid[0] <= 999 and (spacing == "leading" or grid[0] == 999)


@pytest.mark.parametrize(
    ("call", "fragment"),
    [
        (lambda: timesteps(SD, 0), "from 1 to 1000, got 0"),
        (lambda: timesteps(SD, 1001), "from 1 to 1000"),
        (lambda: timesteps(SD, 2.5), "whole number"),
        (lambda: timesteps(SD, 24, "karras"), "unknown timestep spacing 'karras'"),
        (lambda: timesteps(SD, 1000, "leading"), "do not fit"),
        (lambda: levels(SD, []), "non-empty"),
        (lambda: levels(SD, [1000, 3]), "0..999"),
        (lambda: levels(SD, [3, 7]), "0..999|decrease"),
        (lambda: levels(SD, [7, 3, 3]), "decrease"),
        (lambda: next(ddim(fake_model("epsilon"), torch.zeros(1, *SHAPE), SD, [9], eta=2)), "eta"),
        (lambda: next(ddpm(fake_model("epsilon"), torch.zeros(1, *SHAPE), SD, [9])), "pass 1 generators"),
        (
            lambda: next(
                ddpm(
                    fake_model("epsilon"),
                    torch.zeros(1, *SHAPE),
                    SD,
                    [9],
                    generators=generators_for(0, "n", [0]),
                    variance="tiny",
                )
            ),
            "unknown variance",
        ),
        (
            lambda: next(dpm_solver_pp(lambda x, t: x[:, :1], torch.zeros(1, *SHAPE), SD, [9])),
            "turned images",
        ),
    ],
)
def test_errors_are_one_clear_sentence(call, fragment):
    with pytest.raises(ValueError, match=fragment):
        call()


# ---- one sampler in terms of another -------------------------------------------------------------


def test_ddim_with_eta_one_is_ddpm():
    x_T, model, grid = initial_noise(3, range(2), SHAPE), fake_model("epsilon"), timesteps(SD, 20)
    a = last_sample(ddpm(model, x_T, SD, grid, generators=generators_for(3, "step", range(2))))
    b = last_sample(ddim(model, x_T, SD, grid, eta=1.0, generators=generators_for(3, "step", range(2))))
    torch.testing.assert_close(a, b, rtol=0, atol=2e-5)


def test_ddim_euler_and_1s_are_one_sampler():
    x_T, model, grid = initial_noise(5, range(2), SHAPE), fake_model("epsilon"), timesteps(SD, 24)
    for other in ("euler", "dpm_solver_pp_1s"):
        for a, b in zip(ddim(model, x_T, SD, grid), SAMPLERS[other](model, x_T, SD, grid), strict=True):
            torch.testing.assert_close(a.sample, b.sample, rtol=0, atol=2e-5)


def test_one_step_of_every_sampler_is_the_predicted_image():
    x_T, model = initial_noise(4, range(2), SHAPE), fake_model("epsilon")
    for sampler in SAMPLERS.values():
        state = next(sampler(model, x_T, SD, [999], generators=generators_for(4, "step", range(2))))
        torch.testing.assert_close(state.sample, state.predicted_x0, rtol=1e-5, atol=1e-5)


# ---- what the states promise ----------------------------------------------------------------------


@pytest.mark.parametrize("name", SAMPLERS)
def test_one_state_per_call_and_the_last_is_clean(name):
    calls = []

    def model(x, t):
        assert t.dtype == torch.long and t.shape == (len(x),) and not torch.is_grad_enabled()
        calls.append(int(t[0]))
        return fake_model("epsilon")(x, t)

    grid = timesteps(SD, 7)
    x_T = initial_noise(0, range(2), SHAPE)
    kept = x_T.clone()
    states = list(SAMPLERS[name](model, x_T, SD, grid, generators=generators_for(0, "step", range(2))))
    after = [*grid[1:], -1]
    if name == "heun":  # every level but the first and the clean end is asked twice, and reached twice
        grid = [grid[0], *(t for t in grid[1:] for _ in range(2))]
        after = [*(t for t in after[:-1] for _ in range(2)), -1]
    assert calls == grid == [s.timestep for s in states]
    assert [s.step for s in states] == list(range(len(grid)))
    assert [s.next_timestep for s in states] == after
    torch.testing.assert_close(states[-1].sample, states[-1].predicted_x0, rtol=1e-5, atol=1e-5)
    assert torch.equal(x_T, kept), "the start noise was changed in place"
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("name", SAMPLERS)
def test_an_image_does_not_depend_on_its_batch(name):
    grid = timesteps(SD, 6)

    def images(indices):
        x_T = initial_noise(9, indices, SHAPE)
        noise = generators_for(9, "step", indices)
        return last_sample(SAMPLERS[name](fake_model("epsilon"), x_T, SD, grid, generators=noise))

    together = images([0, 1, 2, 3])
    torch.testing.assert_close(images([2])[0], together[2], rtol=0, atol=1e-6)
    torch.testing.assert_close(images([3, 1])[1], together[1], rtol=0, atol=1e-6)


def test_half_inputs_are_raised_to_float32():
    states = list(dpm_solver_pp(lambda x, t: x.half(), initial_noise(0, [0], SHAPE).half(), SD, [999, 500]))
    assert all(s.sample.dtype == s.predicted_x0.dtype == torch.float32 for s in states)


# ---- a target whose answer is known ---------------------------------------------------------------

MEAN, SD_TARGET = 0.7, 0.4


def exact_gaussian(schedule):
    """The ideal noise prediction for one-pixel images x_0 ~ N(MEAN, SD_TARGET ** 2)."""

    def model(x, t):
        signal, sigma = schedule.signal[t][:, None], schedule.sigma[t][:, None]
        variance = (signal * SD_TARGET) ** 2 + sigma**2
        return sigma * (x - signal * MEAN) / variance

    return model


@pytest.mark.parametrize("name", SAMPLERS)
def test_mean_and_spread_of_the_target_are_reproduced(name):
    """6,000 images, linear schedule (no leak at the last step).

    Five standard errors of mean and standard deviation (false alarm 1.1e-6 per sampler, seed fixed), plus
    the discretization error, below 0.01 at 200 steps.
    """
    schedule, count = linear_schedule(), 6_000
    x_T = torch.randn(count, 1, generator=torch.Generator().manual_seed(11))
    shared = torch.Generator().manual_seed(12)
    end = last_sample(
        SAMPLERS[name](
            exact_gaussian(schedule), x_T, schedule, timesteps(schedule, 200), generators=[shared] * count
        )
    ).double()
    assert abs(float(end.mean()) - MEAN) < 5 * SD_TARGET / count**0.5 + 0.01
    assert abs(float(end.std()) - SD_TARGET) < 5 * SD_TARGET / (2 * count) ** 0.5 + 0.01


def test_zero_terminal_snr_can_be_sampled():
    """From pure noise only v or sample prediction works; no step may divide by the missing signal."""
    schedule = zero_terminal_snr(SD)
    x_T = torch.linspace(-2, 2, 9)[:, None]

    def model(x, t):
        signal, sigma = schedule.signal[t][:, None], schedule.sigma[t][:, None]
        gain = SD_TARGET**2 * signal / ((signal * SD_TARGET) ** 2 + sigma**2)
        x0 = MEAN + gain * (x - signal * MEAN)
        epsilon = sigma * (x - signal * MEAN) / ((signal * SD_TARGET) ** 2 + sigma**2)
        return signal * epsilon - sigma * x0

    for name, sampler in SAMPLERS.items():
        noise = generators_for(0, "step", range(9))
        grid = timesteps(schedule, 100)
        if name in ("euler", "heun"):  # they count in sigma / signal
            with pytest.raises(ValueError, match="zero terminal SNR"):
                next(sampler(model, x_T, schedule, grid, prediction_type="v_prediction"))
            continue
        end = last_sample(
            sampler(model, x_T, schedule, grid, prediction_type="v_prediction", generators=noise)
        )
        assert bool(torch.isfinite(end).all()), name
        if name != "ddpm":
            torch.testing.assert_close(end, MEAN + SD_TARGET * x_T, rtol=0, atol=0.06)


def test_levels_end_clean():
    path = levels(SD, [999, 500, 0])
    assert len(path) == 4 and path[-1] is CLEAN and CLEAN.half_log_snr == math.inf
    assert all(a.half_log_snr < b.half_log_snr for a, b in pairwise(path))
