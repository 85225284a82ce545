"""The trainer: `train_step`, one optimizer step, and `fit`, a generator that a notebook can loop over."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mame_lib.diffusion.process import add_noise, target
from mame_lib.diffusion.schedule import Schedule
from mame_lib.models.components import Components
from mame_lib.models.text import encode_tokens
from mame_lib.training.config import TrainConfig
from mame_lib.training.data import Batch, TrainingSet, batch_of_step
from mame_lib.training.ema import EMA
from mame_lib.training.precision import pick_dtype
from mame_lib.training.run import RunFolder, Validator, prepare


@dataclass
class TrainState:
    """Everything a step changes: networks, optimizer, average, gradient scaler, and how many steps were done."""

    components: Components
    optimizer: torch.optim.Optimizer
    ema: EMA
    scaler: torch.amp.GradScaler
    schedule: Schedule
    dtype: torch.dtype
    step: int = 0

    @property
    def trained(self) -> list[nn.Parameter]:
        """Every parameter that is learning, UNet's and text encoder's."""
        return self.ema.parameters


@dataclass(frozen=True)
class StepResult:
    """What one step tells: all floats; `images` are validation images uint8 `[P, n, n]` when this step made some.

    `step` counts from 1; step 0 is reported before training, for its images, with a loss of NaN.
    """

    step: int
    loss: float
    grad_norm: float
    learning_rate: float
    seconds: float
    images: np.ndarray | None = None
    prompts: tuple[str, ...] = ()
    model: Path | None = None
    facts: dict[str, Any] = field(default_factory=dict)


def diffusion_loss(components: Components, batch: Batch, schedule: Schedule, dtype: torch.dtype) -> Tensor:
    """Squared error of the predicted noise of each image, `[B]` (paper Eq. 8, the mean over an image's elements).

    Noising, target and error are float32; only the networks run in `dtype`.
    """
    device = components.device
    latents, noise, t = batch.latents.to(device), batch.noise.to(device), batch.timesteps.to(device)
    noisy = add_noise(schedule, latents, noise, t)  # [B, 4, h, w], Eq. 4
    with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
        context = encode_tokens(components.text_encoder, batch.input_ids.to(device))  # [B, L, D]
        output = components.unet(noisy, t, encoder_hidden_states=context).sample  # [B, 4, h, w]
    wanted = target(schedule, latents, noise, t, components.prediction_type)  # [B, 4, h, w]
    return F.mse_loss(output.float(), wanted, reduction="none").mean(dim=(1, 2, 3))  # [B]


def train_step(state: TrainState, batch: Batch, config: TrainConfig) -> tuple[Tensor, Tensor]:
    """One optimizer step on `batch`; everything random is already in the batch.

    Returns the loss of each image `[B]` and the gradient norm before clipping, both detached and on the device.
    A step whose gradient is not finite leaves the weights alone.
    """
    rate = config.learning_rate_at(state.step)
    for group in state.optimizer.param_groups:
        group["lr"] = rate * group["factor"]
    losses = diffusion_loss(state.components, batch, state.schedule, state.dtype)  # [B]
    state.scaler.scale(losses.mean()).backward()
    state.scaler.unscale_(state.optimizer)
    norm = nn.utils.clip_grad_norm_(state.trained, config.clip)  # one norm over both networks
    if torch.isfinite(norm):
        state.scaler.step(state.optimizer)
        state.ema.update()
    state.scaler.update()
    state.optimizer.zero_grad()
    state.step += 1
    return losses.detach(), norm.detach()


def start(config: TrainConfig, components: Components) -> TrainState:
    """Open UNet and text encoder for training (the VAE stays frozen) and build optimizer and average."""
    device = components.device
    dtype, _ = pick_dtype(device)
    components.unet.requires_grad_(True).train()
    components.text_encoder.requires_grad_(config.text_learning_rate_factor > 0).train()
    groups = []
    for network, factor in ((components.unet, 1.0), (components.text_encoder, config.text_learning_rate_factor)):
        if factor > 0:
            for decayed in (True, False):  # norms, biases and embeddings are not pulled towards zero
                some = [p for n, p in network.named_parameters() if (p.ndim > 1 and "embed" not in n) is decayed]
                decay = config.weight_decay if decayed else 0.0
                groups.append({"params": some, "factor": factor, "weight_decay": decay})
    return TrainState(
        components=components,
        optimizer=torch.optim.AdamW(groups, lr=config.peak_rate, fused=True),
        ema=EMA((components.unet, components.text_encoder), config.ema_decay),
        scaler=torch.amp.GradScaler(device.type, enabled=dtype == torch.float16),
        schedule=components.schedule.to(device),
        dtype=dtype,
    )


def fit(config: TrainConfig, *, device: str | None = None) -> Iterator[StepResult]:
    """Fine-tune a model; yields after every step, and once before the first with images of the untrained model.

    The run folder gets `config.json`, `log.jsonl`, `samples/`, `checkpoints/` and, at the end, `model/` with the
    averaged weights. Stop looping whenever you like; what was written stays whole.

    Raises
    ------
    InputError
        If data, model or run folder cannot be used; nothing is left behind then.
    """
    run = RunFolder.open(config)
    try:
        components, data = prepare(config, device)
        state = start(config, components)
        validator = Validator(config, components, data.prompts)
        run.begin(config, data.facts, pick_dtype(components.device)[1], resumed=config.resume)
        if config.resume:
            state.step = run.restore(components, state.optimizer, state.ema)
    except BaseException:
        run.discard_if_empty()
        raise
    yield from _steps(config, run, state, data.training_set, validator)


def _steps(
    config: TrainConfig, run: RunFolder, state: TrainState, data: TrainingSet, validator: Validator
) -> Iterator[StepResult]:
    started = time.perf_counter()
    if config.validation_every and state.step == 0:
        first = validator.images()
        run.save_samples(0, first)
        yield StepResult(0, float("nan"), float("nan"), 0.0, time.perf_counter() - started, first, validator.prompts)
    while state.step < config.steps:
        batch = batch_of_step(
            data, batch_size=config.rows, seed=config.seed, step=state.step,
            caption_dropout=config.caption_dropout, total_timesteps=len(state.schedule),
        )  # fmt: skip
        rate = config.learning_rate_at(state.step)
        losses, norm = train_step(state, batch, config)
        step, last = state.step, state.step == config.steps
        images: np.ndarray | None = None
        if config.validation_every and (step % config.validation_every == 0 or last):
            with state.ema.applied():
                images = validator.images()
            run.save_samples(step, images)
        if last or (config.checkpoint_every and step % config.checkpoint_every == 0):
            run.checkpoint(step, state.components, state.optimizer, state.ema)
        result = StepResult(
            step, float(losses.mean()), float(norm), rate, time.perf_counter() - started, images, validator.prompts
        )
        run.log(result.step, result.loss, result.grad_norm, result.learning_rate, result.seconds)
        if last:
            with state.ema.applied():
                result = StepResult(**{**vars(result), "model": run.save_model(config, state.components, step)})
        yield result
