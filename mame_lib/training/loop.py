"""The trainer: `train_step`, one optimizer step, and `fit`, a generator that a notebook can loop over."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from mame_lib.diffusion.process import add_noise, loss_weights, target
from mame_lib.diffusion.schedule import Schedule
from mame_lib.errors import InputError
from mame_lib.models.components import Components
from mame_lib.models.text import encode_tokens
from mame_lib.training.config import TrainConfig
from mame_lib.training.data import Batch, TrainingSet, batch_of_step
from mame_lib.training.ema import EMA
from mame_lib.training.meter import Meter
from mame_lib.training.networks import CachedText, groups, trainable
from mame_lib.training.precision import assert_masters, build_optimizer, pick_dtype, pick_optimizer
from mame_lib.training.run import RunFolder
from mame_lib.training.setup import Prepared, prepare
from mame_lib.training.signals import held_back, whole_steps
from mame_lib.training.validation import Validator
from mame_lib.training.world import ALONE, World


@dataclass
class TrainState:
    """Everything a step changes: networks, optimizer, average, gradient scaler, and how many steps were done."""

    components: Components  # its text encoder may be a table of cached states
    trained: list[nn.Parameter]
    optimizer: torch.optim.Optimizer
    ema: EMA
    scaler: torch.amp.GradScaler
    schedule: Schedule
    weights: Tensor  # [T] what the loss counts at each timestep
    dtype: torch.dtype
    world: World = ALONE
    step: int = 0
    bad_steps: int = 0  # in a row


@dataclass(frozen=True)
class StepResult:
    """What one step tells. `step` counts from 1; step 0 comes before training, with a loss of NaN.

    `losses` `[B]` and `norm` lie on the device: reading `loss` or `grad_norm` waits for it, so a fast loop reads them
    now and then. `images` are validation images uint8 `[P, n, n]` and `held_out_loss` is a number when this step
    validated; `model` is the folder of the finished model, with the last step.
    """

    step: int
    losses: Tensor
    norm: Tensor
    learning_rate: float
    seconds: float
    images: NDArray[np.uint8] | None = None
    prompts: tuple[str, ...] = ()
    held_out_loss: float | None = None
    model: Path | None = None

    @property
    def loss(self) -> float:
        """Mean loss of this process's rows."""
        return float(self.losses.mean())

    @property
    def grad_norm(self) -> float:
        """Norm of the gradient over all trained networks, before clipping."""
        return float(self.norm)


def diffusion_loss(
    components: Components, batch: Batch, schedule: Schedule, dtype: torch.dtype, mask_weight: float = 1.0
) -> Tensor:
    """Squared error of the prediction for each image, `[B]` (paper Eq. 8, the mean over an image's elements).

    Noising, target and error are float32; only the networks run in `dtype`. For inpainting the mean may give the
    elements inside the mask `mask_weight` times the weight of those outside.
    """
    device = components.device
    latents, noise, t, ids, _, extra, _ = batch.to(device)
    assert latents is not None and noise is not None and t is not None and ids is not None
    noisy = add_noise(schedule, latents, noise, t)  # [B, 4, h, w], Eq. 4
    seen = noisy if extra is None else torch.cat([noisy, extra], dim=1)  # [B, 4 or 9, h, w]
    # Each weight is used once a pass: a cache of its half-precision copy would only hold memory.
    with torch.autocast(device.type, dtype, enabled=dtype != torch.float32, cache_enabled=False):
        context = encode_tokens(components.text_encoder, ids)  # [B, L, D]
        output = components.unet(seen, t, encoder_hidden_states=context).sample  # [B, 4, h, w]
    wanted = target(schedule, latents, noise, t, components.prediction_type)  # [B, 4, h, w]
    errors = F.mse_loss(output.float(), wanted, reduction="none")  # [B, 4, h, w]
    if extra is None or mask_weight == 1.0:
        return errors.mean(dim=(1, 2, 3))  # [B]
    counts = 1.0 + (mask_weight - 1.0) * extra[:, :1]  # [B, 1, h, w]
    return (errors.mean(1, keepdim=True) * counts).sum(dim=(1, 2, 3)) / counts.sum(dim=(1, 2, 3))  # [B]


def train_step(state: TrainState, batch: Batch, config: TrainConfig) -> tuple[Tensor, Tensor]:
    """One optimizer step on `batch`; everything random is already in the batch.

    The rows are gone through in micro-batches, whose weighted losses add up to that of the whole: 16 x 16 gives the
    gradient of 256 x 1. Returns the loss of each of this process's rows `[B]`, and the gradient norm before clipping,
    both detached and on the device. A step whose gradient is not finite leaves the weights alone.
    """
    rate = config.learning_rate_at(state.step)
    for group in state.optimizer.param_groups:
        group["lr"] = rate * group["factor"]
    count = len(batch.latents)
    mine = batch.part(state.world.share(count))
    losses = []
    for first in range(0, len(mine.latents), config.micro_rows):
        part = mine.part(slice(first, first + config.micro_rows))
        each = diffusion_loss(state.components, part, state.schedule, state.dtype, config.mask_loss_weight)  # [b]
        weights = torch.full((len(each),), 1 / count) if part.weights is None else part.weights  # [b]
        weights = weights.to(each.device) * state.weights[part.timesteps.to(each.device)]
        state.scaler.scale((weights * each).sum()).backward()
        losses.append(each.detach())
    state.world.sum_([p.grad for p in state.trained if p.grad is not None])
    state.scaler.unscale_(state.optimizer)
    norm = nn.utils.clip_grad_norm_(state.trained, config.clip)  # one norm over all networks
    if torch.isfinite(norm):
        state.scaler.step(state.optimizer)
        state.ema.update()
    state.scaler.update()
    state.optimizer.zero_grad()
    state.step += 1
    return torch.cat(losses), norm.detach()


def start(
    config: TrainConfig, components: Components, world: World = ALONE, prepared: Prepared | None = None
) -> TrainState:
    """Open the networks for training (the autoencoder stays frozen) and build optimizer and average.

    With `prepared`, a frozen text encoder is replaced by a table of its states for the captions of the data.
    """
    device = components.device
    dtype, _ = pick_dtype(device, config.precision)
    trained = trainable(config, components)
    assert_masters(trained)
    if config.trains_text:
        components.text_encoder.to(device)
    elif prepared is not None:
        table = CachedText(components, [prepared.training_set, prepared.held_out, prepared.prior], device)
        components = replace(components, text_encoder=table)  # type: ignore[arg-type]
    if config.compile:
        components.unet.compile()
    optimizer, _ = pick_optimizer(device, config.optimizer)
    schedule = components.schedule.to(device)
    return TrainState(
        components=components,
        trained=trained,
        optimizer=build_optimizer(optimizer, groups(config, components), config.peak_rate),
        ema=EMA(trained, config.ema_decay),
        scaler=torch.amp.GradScaler(device.type, enabled=dtype == torch.float16),
        schedule=schedule,
        weights=loss_weights(schedule, components.prediction_type, config.min_snr_gamma),
        dtype=dtype,
        world=world,
    )


def fit(config: TrainConfig, *, device: str | None = None) -> Iterator[StepResult]:
    """Fine-tune a model; yields after every step, and once before the first with images of the untrained model.

    The run folder gets `config.json`, `log.jsonl`, `samples/`, `checkpoints/` and, at the end, `model/` with the
    averaged weights. Stop looping whenever you like: the generator saves a checkpoint as it closes, and `resume` goes
    on from there bit for bit. A signal (SIGTERM, Ctrl-C) during a step waits for its end, and for the checkpoint.

    Raises
    ------
    InputError
        If data, model or run folder cannot be used (nothing is left behind then), if the disk is full, or if the loss
        is not finite `max_bad_steps` times in a row.
    """
    world = World.join()
    if config.rows < world.size:
        raise InputError(f"batch_size is {config.rows}, but {world.size} processes need at least one image each.")
    run = RunFolder.open(config, world)
    try:
        components, prepared = prepare(config, device, world)
        state = start(config, components, world, prepared)
        validator = Validator(config, components, prepared)
        reasons = [pick_dtype(components.device, config.precision)[1],
                   pick_optimizer(components.device, config.optimizer)[1]]  # fmt: skip
        run.begin(config, prepared.facts, reasons)
        if config.resume:
            run.restore(state)
    except BaseException:
        run.discard_if_empty()
        raise
    guard: AbstractContextManager[list[int]] = held_back() if world.size > 1 else nullcontext([])
    try:
        with guard as noted:
            yield from _steps(config, run, state, components, prepared, validator, noted)
    finally:
        world.leave()


def _steps(
    config: TrainConfig, run: RunFolder, state: TrainState, components: Components, prepared: Prepared,
    validator: Validator, noted: list[int],
) -> Iterator[StepResult]:  # fmt: skip
    """The loop itself. At each `yield` the state is whole, so whoever leaves there loses nothing."""
    meter = Meter(len(state.schedule), state.components.device)
    began, nothing = time.perf_counter(), torch.tensor([float("nan")])
    images: NDArray[np.uint8] | None
    if config.validation_every and state.step == 0:
        images, held_out = validator.run(state)
        run.save_samples(0, images)
        yield StepResult(0, nothing, nothing, 0.0, time.perf_counter() - began, images, validator.prompts, held_out)
    unfinished = state.world.any(not run.has_model(), state.components.device)  # the machine went down near the end
    if state.step >= config.steps and unfinished:
        yield StepResult(state.step, nothing, nothing, 0.0, 0.0, model=run.save_model(config, state, components))
    whole = False  # whether the state is that of a finished step of this loop
    try:
        for batch in _batches(config, prepared, state):
            with whole_steps(state.world, state.components.device, noted) as asked_to_stop:
                whole = False
                rate = config.learning_rate_at(state.step)
                losses, norm = train_step(state, batch, config)
                _count_bad(config, run, state, batch, prepared.training_set, norm)
                meter.add(batch.part(state.world.share(len(batch.latents))), losses, norm)
                step, last = state.step, state.step == config.steps
                images, held_out = None, None
                if config.validation_every and (step % config.validation_every == 0 or last):
                    images, held_out = validator.run(state)
                    run.save_samples(step, images)
                if last or held_out is not None or (config.log_every and step % config.log_every == 0):
                    run.log(state, meter, rate, held_out)
                if asked_to_stop() or last or (config.checkpoint_every and step % config.checkpoint_every == 0):
                    run.checkpoint(state)
                model = run.save_model(config, state, components) if last else None
                whole = True
            yield StepResult(
                step, losses, norm, rate, time.perf_counter() - began, images, validator.prompts, held_out, model
            )
    except (GeneratorExit, KeyboardInterrupt, SystemExit):  # at a yield, or while the next batch is waited for
        if whole and state.world.size == 1:  # several processes would have to leave at the same step
            run.checkpoint(state)
        raise


def _batches(config: TrainConfig, prepared: Prepared, state: TrainState) -> Iterator[Batch]:
    """The batches of the steps that are left, each drawn in a thread while the step before it runs."""
    pin = state.components.device.type == "cuda"

    def draw(step: int) -> Batch:
        batch = batch_of_step(prepared.training_set, config, step, prepared.prior)
        return Batch._make(None if value is None else value.pin_memory() for value in batch) if pin else batch

    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(draw, state.step)
        for step in range(state.step, config.steps):
            batch = coming.result()
            coming = thread.submit(draw, step + 1)
            yield batch


def _count_bad(
    config: TrainConfig, run: RunFolder, state: TrainState, batch: Batch, data: TrainingSet, norm: Tensor
) -> None:
    """Note a step without a finite gradient; after `max_bad_steps` in a row end the run and name the images.

    Under float16 the scaler expects an overflow now and then, and answers it with a smaller scale.
    """
    if torch.isfinite(norm):
        state.bad_steps = 0
        return
    overflow = state.scaler.is_enabled() and state.scaler.get_scale() >= 1
    names = [data.ids[row] if row >= 0 else f"class image {-1 - row}" for row in batch.rows] if data.ids else []  # type: ignore[union-attr]
    run.note_bad(state.step, names, overflow)
    state.bad_steps += not overflow
    if state.bad_steps >= config.max_bad_steps:
        raise InputError(
            f"the loss was not finite in {state.bad_steps} steps in a row, the last with the images "
            f"{', '.join(names)}; look at them, or lower the learning rate, and resume {config.out}."
        )
