"""The average of the weights: moves, is swapped in and out bit for bit, and a decay of 0 means none."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mame_lib.models.components import Components
from mame_lib.training.ema import EMA
from mame_lib.training.loop import start, train_step
from tests.training.support import config_of, copies, random_batch, same


def test_the_average_differs_from_the_first_and_from_the_raw_weights() -> None:
    """Of both trained networks: an average that is never updated, or is the raw weights, is none."""
    config = config_of(learning_rate=1e-2)
    state = start(config, Components.load("tiny"))
    first = copies(state.trained)
    for step in range(3):
        train_step(state, random_batch(config, step), config)
    assert len(state.ema.shadow) == len(state.trained) and state.ema.updates == 3
    assert len(list(state.components.text_encoder.parameters())) + len(
        list(state.components.unet.parameters())
    ) == len(state.ema.shadow)
    for before, raw, average in zip(first, state.trained, state.ema.shadow, strict=True):
        if not torch.equal(before, raw):
            assert not torch.equal(average, before) and not torch.equal(average, raw)
    assert sum(not torch.equal(a, b) for a, b in zip(first, state.trained, strict=True)) > 0.9 * len(first)


def test_the_average_is_the_formula() -> None:
    """After n updates the decay is (1 + n) / (10 + n), at most the asked one."""
    weight = nn.Parameter(torch.tensor([1.0]))
    ema, by_hand = EMA([weight], 0.35), 1.0
    for n in range(1, 8):
        with torch.no_grad():
            weight.add_(1.0)
        ema.update()
        decay = min(0.35, (1 + n) / (10 + n))
        by_hand = decay * by_hand + (1 - decay) * float(weight.detach())
        assert float(ema.shadow[0]) == pytest.approx(by_hand, rel=1e-6)


def test_the_average_is_swapped_in_and_out_bit_for_bit() -> None:
    layer = nn.Linear(3, 3)
    parameters = list(layer.parameters())
    ema = EMA(parameters, 0.9)
    with torch.no_grad():
        layer.weight.add_(torch.randn(3, 3) / 3)
    ema.update()
    raw, average = copies(parameters), copies(ema.shadow)
    with ema.applied():
        assert same(copies(parameters), average) and not torch.equal(layer.weight, raw[0])
    assert same(copies(parameters), raw) and same(ema.shadow, average)
    with pytest.raises(RuntimeError), ema.applied():
        raise RuntimeError
    assert same(copies(parameters), raw), "even after an error inside"
    optimizer = torch.optim.SGD(parameters, lr=1.0)
    layer(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    assert not torch.equal(layer.weight, raw[0]) and same(ema.shadow, average), "training goes on with the raw weights"


def test_the_average_comes_back_from_a_checkpoint() -> None:
    weight = nn.Parameter(torch.ones(4))
    ema = EMA([weight], 0.9)
    with torch.no_grad():
        weight.mul_(3)
    ema.update()
    other = EMA([weight], 0.9)
    other.restore(ema.tensors(), ema.updates)
    assert same(other.shadow, ema.shadow) and other.updates == 1
    with torch.no_grad():
        other.shadow[0].zero_()
    assert float(ema.shadow[0].sum()) > 0, "a copy, not the same memory"


def test_a_decay_of_zero_is_no_average() -> None:
    config = config_of(ema_decay=0.0)
    state = start(config, Components.load("tiny"))
    train_step(state, random_batch(config), config)
    assert state.ema.shadow == [] and state.ema.tensors() == {} and state.ema.updates == 1
    raw = copies(state.trained)
    with state.ema.applied():
        assert same(raw, copies(state.trained))
