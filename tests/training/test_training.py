"""The trainer: pure batches, a step that learns, resuming to the bit, run folders that are whole."""

from __future__ import annotations

import json

import pytest
import torch

from mame_lib.data import manifest
from mame_lib.data.sources import phantom_source
from mame_lib.errors import InputError
from mame_lib.models.components import Components
from mame_lib.models.latents import Moments
from mame_lib.training.config import TrainConfig
from mame_lib.training.data import TrainingSet, batch_of_step, rows_of_step, stratified_timesteps
from mame_lib.training.ema import EMA
from mame_lib.training.loop import diffusion_loss, fit, start, train_step
from mame_lib.training.run import prepare


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "phantoms"
    manifest.write(folder, phantom_source(24, 128, 3), source="phantom", settings={})
    return folder


def random_set(count: int = 10) -> TrainingSet:
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn(count, 4, 16, 16, generator=generator)
    ids = torch.randint(1, 500, (count, 32), generator=generator)
    return TrainingSet(Moments(mean, torch.full_like(mean, 0.1)), ids, torch.zeros(32, dtype=torch.long), 0.5)


def draw(step: int, dropout: float = 0.1, batch_size: int = 4):
    return batch_of_step(
        random_set(), batch_size=batch_size, seed=1, step=step, caption_dropout=dropout, total_timesteps=1000
    )


def test_batch_is_a_function_of_seed_and_step() -> None:
    one, two, other = draw(5), draw(5), draw(6)
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert not torch.equal(one.noise, other.noise)


def test_every_image_is_seen_once_an_epoch_and_no_batch_is_short() -> None:
    rows = torch.cat([rows_of_step(10, 4, seed=0, step=s) for s in range(5)])
    assert sorted(rows[:10].tolist()) == list(range(10)) == sorted(rows[10:].tolist())
    assert rows[:10].tolist() != rows[10:].tolist()


def test_timesteps_fall_one_into_each_slice() -> None:
    t = stratified_timesteps(8, 1000, torch.Generator().manual_seed(0))
    assert sorted((t // 125).tolist()) == list(range(8))


def test_posterior_is_sampled_afresh_and_dropout_empties_captions() -> None:
    steps = [draw(s, dropout=0.0, batch_size=10) for s in range(2)]
    order = [torch.argsort(rows_of_step(10, 10, 1, s)) for s in range(2)]
    difference = steps[0].latents[order[0]] - steps[1].latents[order[1]]
    assert float(difference.std()) == pytest.approx(0.5 * 0.1 * 2**0.5, rel=0.05)
    assert bool((draw(0, dropout=1.0).input_ids == 0).all())
    dropped = torch.cat([draw(s, dropout=0.3, batch_size=10).input_ids for s in range(40)]).eq(0).all(1).float().mean()
    assert float(dropped) == pytest.approx(0.3, abs=0.1)


def test_loss_is_the_mean_squared_error_per_image() -> None:
    components = Components.load("tiny")
    batch = draw(0)
    losses = diffusion_loss(components, batch, components.schedule, torch.float32)
    assert losses.shape == (4,)
    x, t = batch.latents[:1], int(batch.timesteps[0])
    abar = components.schedule.alphas_cumprod[t]
    noisy = abar.sqrt() * x + (1 - abar).sqrt() * batch.noise[:1]
    context = components.text_encoder(batch.input_ids[:1]).last_hidden_state
    with torch.no_grad():
        output = components.unet(noisy, t, encoder_hidden_states=context).sample
    assert float(losses[0]) == pytest.approx(float(((output - batch.noise[:1]) ** 2).mean()), rel=1e-4)


def test_step_trains_both_networks_and_spares_the_vae(tmp_path) -> None:
    components = Components.load("tiny")
    config = TrainConfig(data=tmp_path, out=tmp_path / "run", steps=3, batch_size=4)
    state = start(config, components)
    before = {
        n: {k: v.clone() for k, v in getattr(components, n).state_dict().items()}
        for n in ("unet", "vae", "text_encoder")
    }
    losses, norm = train_step(state, draw(0), config)
    assert losses.shape == (4,) and float(norm) > 0 and state.step == 1

    def moved(name: str) -> bool:
        return any(not torch.equal(v, before[name][k]) for k, v in getattr(components, name).state_dict().items())

    assert moved("unet") and moved("text_encoder") and not moved("vae")
    with pytest.raises(AssertionError):
        torch.testing.assert_close(state.ema.shadow, [p.detach() for p in state.trained], rtol=0, atol=0)


def test_not_a_number_leaves_the_weights_alone(tmp_path) -> None:
    components = Components.load("tiny")
    config = TrainConfig(data=tmp_path, out=tmp_path / "run", steps=3, batch_size=4)
    state = start(config, components)
    before = [p.detach().clone() for p in state.trained]
    bad = draw(0)._replace(latents=torch.full((4, 4, 16, 16), float("nan")))
    train_step(state, bad, config)
    assert all(torch.equal(a, b) for a, b in zip(before, state.trained, strict=True))


def test_ema_is_swapped_in_and_out_bit_for_bit() -> None:
    layer = torch.nn.Linear(3, 3)
    ema = EMA([layer], 0.9)
    with torch.no_grad():
        layer.weight.add_(1)
    ema.update()
    raw = layer.weight.detach().clone()
    with ema.applied():
        assert not torch.equal(layer.weight, raw)
    assert torch.equal(layer.weight, raw)


def test_run_folder_resume_is_exact_and_data_is_learned(data, tmp_path) -> None:
    settings = dict(data=data, batch_size=4, validation_every=3, validation_steps=3, seed=5, checkpoint_every=3)
    straight = list(fit(TrainConfig(out=tmp_path / "a", steps=6, **settings)))
    assert [r.step for r in straight] == list(range(7))
    assert [r.images is not None for r in straight] == [True, False, False, True, False, False, True]
    assert straight[-1].model == tmp_path / "a" / "model"

    interrupted = fit(TrainConfig(out=tmp_path / "b", steps=6, **settings))
    for result in interrupted:
        if result.step == 4:  # one step beyond the checkpoint, then the machine goes down
            break
    interrupted.close()
    list(fit(TrainConfig(out=tmp_path / "b", steps=6, resume=True, **settings)))
    for name in ("unet/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"):
        assert (tmp_path / "a/model" / name).read_bytes() == (tmp_path / "b/model" / name).read_bytes()
    logs = [[json.loads(line) for line in (tmp_path / run / "log.jsonl").read_text().splitlines()] for run in "ab"]
    assert [(x["step"], x["loss"]) for x in logs[0]] == [(x["step"], x["loss"]) for x in logs[1]]

    facts = json.loads((tmp_path / "a" / "config.json").read_text())
    assert facts["config"]["seed"] == 5 and facts["versions"]["torch"] and "float32" in facts["precision"]
    assert len(list((tmp_path / "a" / "samples").glob("*.png"))) == 3
    assert [p.name for p in (tmp_path / "a" / "checkpoints").iterdir()] == ["step-000006"]
    with pytest.raises(InputError, match="learning_rate was"):
        next(fit(TrainConfig(out=tmp_path / "b", steps=9, resume=True, learning_rate=0.5, **settings)))
    with pytest.raises(InputError, match="already exists"):
        next(fit(TrainConfig(out=tmp_path / "b", steps=9, **settings)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"caption_dropout": 2.0}, "caption_dropout is 2.0"),
        ({"preset": "huge"}, "preset 'huge' is unknown"),
    ],
)
def test_bad_settings_are_named(tmp_path, changes, message) -> None:
    with pytest.raises(InputError, match=message):
        TrainConfig(data=tmp_path, out=tmp_path / "run", **changes)


def test_missing_data_leaves_nothing_behind(tmp_path) -> None:
    with pytest.raises(InputError):
        next(fit(TrainConfig(data=tmp_path / "none", out=tmp_path / "run")))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_training_lowers_the_loss_on_phantoms(data, tmp_path) -> None:
    config = TrainConfig(data=data, out=tmp_path / "run", steps=60, batch_size=8, validation_every=0)
    model = list(fit(config))[-1].model
    _, prepared = prepare(config)
    fixed = [
        batch_of_step(
            prepared.training_set, batch_size=16, seed=9, step=s, caption_dropout=0.0, total_timesteps=1000
        )
        for s in range(6)
    ]

    def loss(components: Components) -> float:
        with torch.no_grad():
            losses = [diffusion_loss(components, b, components.schedule, torch.float32) for b in fixed]
        return float(torch.cat(losses).mean())

    before, after = loss(Components.load("tiny")), loss(Components.load(model))
    assert after < 0.9 * before, f"same images, noise and timesteps: {before:.4f} before, {after:.4f} after"
