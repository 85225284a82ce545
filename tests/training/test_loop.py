"""One training step: equal to a plain reference and to itself however it is cut; what is not finite changes nothing."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import DDPMScheduler
from torch.nn import functional as F

from mame_lib.data import manifest
from mame_lib.errors import InputError
from mame_lib.models.components import Components
from mame_lib.training.data import Batch, batch_of_step
from mame_lib.training.loop import diffusion_loss, fit, start, train_step
from mame_lib.training.setup import load_base
from tests.training.support import config_of, copies, gradients, log_of, random_batch, random_set, relative, same

CUT = 1e-5  # share of the gradient's length: float32 sums in another order; measured 3e-6 at 16 x 16, else below 1e-6
EARLY = torch.tensor([60, 100, 400, 900])  # the SNR of the first two is above 5, so that Min-SNR weighs them less
EVERYTHING = {"min_snr_gamma": 5.0, "offset_noise": 0.1, "caption_dropout": 0.5}


def scheduler_of(components: Components) -> DDPMScheduler:
    """The library's own forward process for a model."""
    schedule = {k: components.scheduler_config[k] for k in ("beta_start", "beta_end", "beta_schedule")}
    zero = bool(components.scheduler_config.get("rescale_betas_zero_snr", False))
    kind = components.prediction_type
    return DDPMScheduler(**schedule, prediction_type=kind, rescale_betas_zero_snr=zero)


def reference(components: Components, batch: Batch, gamma: float | None) -> tuple[torch.Tensor, torch.Tensor]:
    """The textbook step with diffusers alone, row by row: losses `[B]` and the whole gradient as one vector."""
    from diffusers.training_utils import compute_snr

    scheduler = scheduler_of(components)
    parameters = [*components.unet.parameters(), *components.text_encoder.parameters()]
    for parameter in parameters:
        parameter.requires_grad_(True).grad = None
    components.unet.train()
    components.text_encoder.train()
    losses, total = [], torch.zeros(())
    for i in range(len(batch.latents)):
        x, noise, t = batch.latents[i : i + 1], batch.noise[i : i + 1], batch.timesteps[i : i + 1]
        v = components.prediction_type == "v_prediction"
        wanted = scheduler.get_velocity(x, noise, t) if v else noise
        seen = scheduler.add_noise(x, noise, t)
        if batch.extra is not None:
            seen = torch.cat([seen, batch.extra[i : i + 1]], dim=1)
        context = components.text_encoder(batch.input_ids[i : i + 1])[0]
        loss = F.mse_loss(components.unet(seen, t, encoder_hidden_states=context).sample, wanted)
        weight = 1.0 if batch.weights is None else float(batch.weights[i])
        if gamma is not None:
            snr = compute_snr(scheduler, t)
            weight *= float(snr.clamp(max=gamma) / (snr + 1 if v else snr))
        total = total + weight * loss
        losses.append(loss.detach())
    total.backward()
    return torch.stack(losses), torch.cat([p.grad.flatten() for p in parameters])


@pytest.mark.parametrize(
    ("kind", "gamma", "rows"),
    [("epsilon", None, 4), ("epsilon", 5.0, 4), ("v_prediction", None, 4), ("v_prediction", 5.0, 4),
     ("epsilon", 5.0, 1)],
)
def test_loss_and_gradient_equal_a_reference_written_with_diffusers(kind, gamma, rows) -> None:
    """Losses to 1e-6; the gradient to 5e-6 of its length (diffusers forms 1 - abar in float32)."""
    config = config_of(batch_size=rows, prediction_type=kind, min_snr_gamma=gamma, weight_decay=0.0, clip=1e9)
    batch = random_batch(config)._replace(timesteps=EARLY[:rows])
    state = start(config, load_base(config))
    seen = []
    state.optimizer.register_step_pre_hook(
        lambda *_: seen.append(torch.cat([p.grad.flatten().clone() for p in state.trained]))
    )
    losses, norm = train_step(state, batch, config)
    wanted, gradient = reference(load_base(config), batch, gamma)
    torch.testing.assert_close(losses, wanted, rtol=1e-6, atol=1e-6)
    assert relative(seen[0], gradient) < 5e-6
    assert float(norm) == pytest.approx(float(gradient.double().norm()), rel=1e-5)


def test_inpainting_equals_the_reference_too() -> None:
    config = config_of(preset="tiny-inpaint", clip=1e9)
    batch = batch_of_step(random_set(masks=True), config, 0)
    losses, _ = train_step(start(config, load_base(config)), batch, config)
    torch.testing.assert_close(losses, reference(load_base(config), batch, None)[0], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("side", [4, pytest.param(16, marks=pytest.mark.slow)])
def test_sixteen_times_sixteen_is_256(side) -> None:
    """The paper's accumulation: the gradient of 16 micro-batches of 16 is that of one batch of 256."""
    config = config_of(batch_size=side * side, **EVERYTHING)
    batch = random_batch(config, count=300)
    losses, whole, norm, _ = gradients(config, batch)
    parts, cut, cut_norm, _ = gradients(config.with_changes(micro_batch_size=side), batch)
    assert parts.shape == losses.shape == (side * side,)
    torch.testing.assert_close(parts, losses, rtol=1e-5, atol=1e-6)
    assert relative(cut, whole) < CUT
    assert cut_norm == pytest.approx(norm, rel=1e-5)


@pytest.mark.parametrize(("rows", "micro"), [(10, 4), (5, 3), (3, 1), (2, 16)])
def test_a_short_last_micro_batch_counts_by_its_rows(rows, micro) -> None:
    config = config_of(batch_size=rows, **EVERYTHING)
    batch = random_batch(config)
    losses, whole, _, _ = gradients(config, batch)
    parts, cut, _, _ = gradients(config.with_changes(micro_batch_size=micro), batch)
    assert len(parts) == len(losses) == rows and relative(cut, whole) < CUT


def test_batches_without_weights_are_means() -> None:
    """A notebook may make a batch by hand: its rows then count alike, in any micro-batches."""
    config = config_of(batch_size=6, micro_batch_size=4)
    batch = random_batch(config)
    bare = batch._replace(weights=None, rows=None)
    assert relative(gradients(config, bare)[1], gradients(config, batch)[1]) < CUT


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("micro", [1, 16])
def test_prior_preservation_with_min_snr_has_a_weight_for_each_row(rows, micro) -> None:
    """Ours and the class images each with their own timestep's weight: where the common script mixes up shapes."""
    config = config_of(
        batch_size=rows, micro_batch_size=micro, prior_prompt="x", prior_weight=0.5, min_snr_gamma=5.0, clip=1e9
    )
    batch = batch_of_step(random_set(), config, 1, random_set(6, seed=4))
    assert len(batch.latents) == 2 * rows
    batch = batch._replace(timesteps=EARLY[: 2 * rows].roll(1))
    losses, gradient, _, _ = gradients(config, batch)
    wanted, by_hand = reference(Components.load("tiny"), batch, 5.0)
    torch.testing.assert_close(losses, wanted, rtol=1e-6, atol=1e-6)
    assert relative(gradient, by_hand) < 5e-6


@pytest.mark.parametrize("gamma", [None, 5.0])
def test_zero_terminal_snr_is_finite_at_the_last_timestep(gamma) -> None:
    config = config_of(zero_terminal_snr=True, min_snr_gamma=gamma)
    components = load_base(config)
    assert components.prediction_type == "v_prediction"
    state = start(config, components)
    batch = random_batch(config)._replace(timesteps=torch.tensor([0, 500, 998, 999]))
    losses, norm = train_step(state, batch, config)
    assert bool(torch.isfinite(losses).all()) and math.isfinite(float(norm)) and float(norm) > 0
    wanted, _ = reference(load_base(config), batch, None)
    torch.testing.assert_close(losses, wanted, rtol=1e-5, atol=1e-5)
    assert bool(torch.isfinite(state.weights).all())
    assert float(state.schedule.signal[-1]) == 0 and (gamma is None or float(state.weights[-1]) == 0)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_text_encoder_gets_gradients(checkpointing) -> None:
    config = config_of(gradient_checkpointing=checkpointing)
    state = start(config, Components.load("tiny"))
    seen = {}
    state.optimizer.register_step_pre_hook(
        lambda *_: seen.update({n: p.grad for n, p in state.components.text_encoder.named_parameters()})
    )
    train_step(state, random_batch(config), config)
    assert seen and all(grad is not None for grad in seen.values())
    assert all(float(grad.abs().sum()) > 0 for name, grad in seen.items() if "k_proj.bias" not in name)


def test_gradient_checkpointing_changes_memory_not_gradients() -> None:
    config = config_of(min_snr_gamma=5.0)
    batch = random_batch(config)
    _, plain, _, _ = gradients(config, batch)
    _, recomputed, _, state = gradients(config.with_changes(gradient_checkpointing=True), batch)
    assert state.components.unet.is_gradient_checkpointing
    assert relative(recomputed, plain) < 1e-6


def test_one_clip_over_both_networks() -> None:
    """The norm told is that of both before clipping; what the optimizer gets is just `clip` long in all."""
    config = config_of(clip=1e-3)
    state, seen = start(config, Components.load("tiny")), []
    state.optimizer.register_step_pre_hook(lambda *_: seen.append([p.grad.clone() for p in state.trained]))
    _, norm = train_step(state, random_batch(config), config)
    assert float(norm) > 0.01
    assert float(torch.cat([g.flatten() for g in seen[0]]).norm()) == pytest.approx(1e-3, rel=1e-3)
    _, whole, unclipped, _ = gradients(config.with_changes(clip=1e9), random_batch(config))
    assert float(norm) == pytest.approx(unclipped, rel=1e-5)
    assert relative(torch.cat([g.flatten() for g in seen[0]]) * float(norm) / 1e-3, whole) < 1e-3


def test_learning_rates_rise_fall_and_are_smaller_for_text() -> None:
    config = config_of(steps=100, warmup=10, learning_rate=1e-3, text_learning_rate_factor=0.25)
    rates = [config.learning_rate_at(step) for step in range(100)]
    assert rates[0] == pytest.approx(1e-4) and max(rates) < 1e-3 and rates[9] > 9.5e-4
    assert rates[9:] == sorted(rates[9:], reverse=True) and rates[-1] == pytest.approx(1e-4, rel=0.01)
    assert config.learning_rate_at(100) == pytest.approx(1e-4) == config.learning_rate_at(150)
    constant = config.with_changes(rate_schedule="constant")
    assert {constant.learning_rate_at(step) for step in range(10, 100)} == {1e-3}
    state = start(config, Components.load("tiny"))
    train_step(state, random_batch(config), config)
    by_factor = {group["factor"]: group["lr"] for group in state.optimizer.param_groups}
    assert by_factor == {1.0: pytest.approx(1e-4), 0.25: pytest.approx(2.5e-5)}


def test_a_step_is_adamw_by_the_book() -> None:
    """First step of Adam: a weight moves by the rate against its gradient's sign, and decays by rate * decay."""
    config = config_of(warmup=1, learning_rate=1e-3, weight_decay=0.1, rate_schedule="constant")
    state = start(config, Components.load("tiny"))
    weight = state.components.unet.conv_in.weight
    before, seen = weight.detach().clone(), []
    state.optimizer.register_step_pre_hook(lambda *_: seen.append(weight.grad.clone()))
    train_step(state, random_batch(config), config)
    wanted = before * (1 - 1e-4) - 1e-3 * seen[0] / (seen[0].abs() + 1e-8)
    torch.testing.assert_close(weight.detach(), wanted, rtol=1e-5, atol=1e-7)


def test_not_a_number_leaves_weights_average_and_optimizer_alone() -> None:
    config = config_of()
    state = start(config, Components.load("tiny"))
    train_step(state, random_batch(config), config)
    before, shadow, updates = copies(state.trained), copies(state.ema.shadow), state.ema.updates
    slots = [value.clone() for slot in state.optimizer.state.values() for value in slot.values()]
    batch = random_batch(config, 1)
    bad = batch._replace(latents=torch.cat([torch.full((1, 4, 16, 16), math.nan), batch.latents[1:]]))
    _, norm = train_step(state, bad, config)
    assert not math.isfinite(float(norm)) and state.step == 2
    assert same(before, copies(state.trained)) and same(shadow, state.ema.shadow) and state.ema.updates == updates
    assert same(slots, [value for slot in state.optimizer.state.values() for value in slot.values()])
    assert all(p.grad is None for p in state.trained), "nor does the next step inherit anything"
    losses, norm = train_step(state, random_batch(config, 2), config)
    assert bool(torch.isfinite(losses).all()) and math.isfinite(float(norm))


def test_bad_steps_are_counted_and_end_the_run_with_the_names_of_the_images(phantoms, tmp_path, monkeypatch) -> None:
    import mame_lib.training.loop as loop

    bad = {2, 4, 5, 6}

    def spoiled(data, config, step, prior=None):
        batch = batch_of_step(data, config, step, prior)
        return batch._replace(noise=batch.noise * math.inf) if step + 1 in bad else batch

    monkeypatch.setattr(loop, "batch_of_step", spoiled)
    config = config_of(data=phantoms, out=tmp_path / "run", steps=9, max_bad_steps=3, log_every=1, batch_size=2)
    results = []
    with pytest.raises(InputError) as caught:
        for result in fit(config):
            results.append(result)
    message = str(caught.value)
    assert [r.step for r in results] == [1, 2, 3, 4, 5], "one bad step is passed over, the third in a row ends the run"
    skipped = [line for line in log_of(config.out) if "skipped" in line]
    assert [line["step"] for line in skipped] == [2, 4, 5, 6] and {len(line["images"]) for line in skipped} == {2}
    assert "3 steps in a row" in message and all(name in message for name in skipped[-1]["images"])
    assert set(skipped[-1]["images"]) <= {case.id for case in manifest.load(phantoms).cases}


def test_step_zero_says_nothing_yet_and_the_last_names_the_model(phantoms, tmp_path) -> None:
    config = config_of(data=phantoms, out=tmp_path / "run", steps=2, validation_every=5, validation_steps=2)
    results = list(fit(config))
    assert [r.step for r in results] == [0, 1, 2]
    assert math.isnan(results[0].loss) and math.isnan(results[0].grad_norm)
    assert [r.images is not None for r in results] == [True, False, True]
    assert [r.model for r in results] == [None, None, config.out / "model"]
    assert all(r.losses.shape == (4,) and not r.losses.requires_grad for r in results[1:])


def test_noise_target_and_loss_stay_float32_under_half_precision() -> None:
    """bfloat16 noising would give timesteps 0 and 1 no noise at all; here only the networks see bfloat16."""
    config = config_of()
    components = Components.load("tiny")
    batch = random_batch(config)._replace(timesteps=torch.tensor([0, 1, 2, 3]))
    seen = []
    components.unet.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        losses = diffusion_loss(components, batch, components.schedule, torch.bfloat16)
    wanted = scheduler_of(components).add_noise(batch.latents, batch.noise, batch.timesteps)
    assert losses.dtype == torch.float32 and seen[0].dtype == torch.float32
    torch.testing.assert_close(seen[0], wanted, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_training_lowers_the_loss_on_phantoms(phantoms, tmp_path) -> None:
    from mame_lib.training.setup import prepare

    config = config_of(data=phantoms, out=tmp_path / "run", steps=60, batch_size=8)
    model = list(fit(config))[-1].model
    _, prepared = prepare(config)
    fixed = config.with_changes(batch_size=16, seed=9, caption_dropout=0.0)
    batches = [batch_of_step(prepared.training_set, fixed, step) for step in range(6)]

    def loss(components: Components) -> float:
        with torch.no_grad():
            losses = [diffusion_loss(components, b, components.schedule, torch.float32) for b in batches]
        return float(torch.cat(losses).mean())

    before, after = loss(Components.load("tiny")), loss(Components.load(model))
    assert after < 0.9 * before, f"same images, noise and timesteps: {before:.4f} before, {after:.4f} after"
