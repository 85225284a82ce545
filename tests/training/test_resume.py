"""2N steps equal N, a stop and N more, bit for bit: weights, average, optimizer, log, pictures and model."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from mame_lib.data import manifest
from mame_lib.errors import InputError
from mame_lib.models.components import Components
from mame_lib.training.checkpoint import complete_checkpoints, read_checkpoint
from mame_lib.training.config import FREE
from mame_lib.training.loop import fit
from mame_lib.training.run import read_log
from tests.training.support import assert_same_runs, config_of, files_of, images_of, log_of, run_to

RUNS = {
    "everything": dict(batch_size=5, micro_batch_size=2, min_snr_gamma=5.0, offset_noise=0.1, caption_dropout=0.5,
                       gradient_checkpointing=True, validation_every=2, validation_steps=2),
    "prior": dict(prior_prompt="a circle", prior_images=3, prior_weight=0.5, batch_size=2, micro_batch_size=3),
    "inpainting": dict(preset="tiny-inpaint", mask_dropout=0.4, batch_size=3, validation_every=2, validation_steps=2),
    "lora": dict(method="lora", lora_rank=4, learning_rate=1e-2),
    "unet-without-average": dict(method="unet", ema_decay=0.0, zero_terminal_snr=True, batch_size=2),
}  # fmt: skip


@pytest.fixture
def settings(request, phantoms, lesions, tmp_path):
    """A configuration by its name in `RUNS`, for run folders below `tmp_path`."""

    def make(name: str, run: str, **changes):
        data = lesions if name == "inpainting" else phantoms
        return config_of(**{"data": data, "out": tmp_path / run, "log_every": 1, **RUNS[name], **changes})

    return make


@pytest.mark.parametrize("name", RUNS)
def test_a_run_left_in_the_middle_goes_on_to_the_bit(settings, name) -> None:
    straight = run_to(settings(name, "straight"))
    run_to(settings(name, "stopped"), last=2)
    assert [p.name for p in complete_checkpoints(settings(name, "stopped").out / "checkpoints")] == ["step-000002"]
    resumed = run_to(settings(name, "stopped", resume=True))
    assert [r.step for r in resumed] == [3, 4]
    assert_same_runs(settings(name, "straight").out, settings(name, "stopped").out)
    assert [r.loss for r in straight if r.step in (3, 4)] == [r.loss for r in resumed]
    for step, images in images_of(resumed).items():
        assert (images == images_of(straight)[step]).all()


@pytest.mark.slow
def test_twice_as_many_steps_under_a_constant_rate(settings) -> None:
    """A finished run of N steps, prolonged to 2N, equals one of 2N."""
    run_to(settings("everything", "straight", steps=4, rate_schedule="constant"))
    run_to(settings("everything", "other", steps=2, rate_schedule="constant"))
    assert (settings("everything", "other").out / "model").is_dir()
    run_to(settings("everything", "other", steps=4, rate_schedule="constant", resume=True))
    straight, other = settings("everything", "straight").out, settings("everything", "other").out
    assert files_of(straight / "model") == files_of(other / "model")
    assert files_of(straight / "checkpoints") == files_of(other / "checkpoints")


def test_a_checkpoint_holds_all_that_the_run_remembers(settings) -> None:
    config = settings("everything", "run", checkpoint_every=1, keep_checkpoints=2)
    run_to(config)
    kept = complete_checkpoints(config.out / "checkpoints")
    assert [p.name for p in kept] == ["step-000003", "step-000004"], "older ones are pruned"
    files, info = read_checkpoint(kept[-1])
    assert set(files) == {"weights", "ema", "optimizer"} and info["step"] == info["ema_updates"] == 4
    assert any(key.endswith("exp_avg_sq") for key in files["optimizer"])
    model, base = Components.load(config.out / "model"), Components.load("tiny")
    names = [(net, key) for net in ("unet", "text_encoder") for key, _ in getattr(base, net).named_parameters()]
    assert len(names) == len(files["weights"]) == len(files["ema"]), "the trained text encoder too"
    for index, (network, key) in enumerate(names):
        raw, average = files["weights"][f"{network}.{key}"], files["ema"][str(index)]
        first = getattr(base, network).state_dict()[key]
        assert not torch.equal(average, raw) and not torch.equal(average, first), f"{key}: three different things"
        saved = getattr(model, network).state_dict()[key]
        assert torch.equal(saved, average.half().float()), "the model has the averaged weights"


@pytest.mark.slow
def test_another_micro_batch_size_gives_the_same_within_rounding(settings) -> None:
    """Rounding enters Adam through the sign of tiny gradients: a weight may be off by a fraction of the rate."""
    quick = dict(learning_rate=1e-4, rate_schedule="constant", warmup=0)
    run_to(settings("everything", "straight", **quick))
    run_to(settings("everything", "other", **quick), last=2)
    run_to(settings("everything", "other", resume=True, micro_batch_size=5, **quick))
    losses = [[line["loss"] for line in log_of(settings("everything", run).out)] for run in ("straight", "other")]
    assert losses[0][:2] == losses[1][:2]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    files = [read_checkpoint(complete_checkpoints(settings("everything", run).out / "checkpoints")[-1])[0]["weights"]
             for run in ("straight", "other")]  # fmt: skip
    far = torch.cat([(files[0][name] - files[1][name]).flatten().abs() for name in files[0]])
    assert float(far.max()) < 4e-4 and float((far > 1e-5).float().mean()) < 1e-2


def test_stopping_after_the_last_checkpoint_but_before_the_model(settings) -> None:
    config = settings("lora", "run")
    run_to(config)
    before, log = files_of(config.out / "model"), log_of(config.out)
    shutil.rmtree(config.out / "model")
    (config.out / "model.partial").mkdir()
    (config.out / "model.partial" / "mame.json").write_text("{")
    results = run_to(config.with_changes(resume=True))
    assert [r.model for r in results] == [config.out / "model"]
    assert files_of(config.out / "model") == before and log_of(config.out) == log
    assert not (config.out / "model.partial").exists()
    assert run_to(config.with_changes(resume=True)) == [], "then nothing is left to do"


@pytest.mark.slow
def test_a_stop_before_the_first_checkpoint_begins_again(settings) -> None:
    """Everything is drawn from the seed, so beginning again is going on."""
    run_to(settings("everything", "straight"))
    config = settings("everything", "run")
    run_to(config, last=1)
    shutil.rmtree(config.out / "checkpoints")
    run_to(config.with_changes(resume=True))
    assert_same_runs(settings("everything", "straight").out, config.out)


def test_a_folder_in_which_a_run_died_at_birth_may_be_used(settings) -> None:
    """Killed while `config.json` was written: neither a run to resume nor anything that could be lost."""
    config = settings("lora", "run", steps=1)
    (config.out / ".cache").mkdir(parents=True)
    (config.out / ".cache" / "moments-0.npy.1.partial").write_bytes(b"half")
    (config.out / "config.json.partial").write_text('{"config"')
    assert run_to(config)[-1].model is not None


def test_a_torn_last_log_line_is_cut_off(settings) -> None:
    config = settings("unet-without-average", "run", checkpoint_every=1)
    run_to(settings("unet-without-average", "straight"))
    run_to(config, last=2)
    with (config.out / "log.jsonl").open("a") as file:
        file.write(json.dumps({"step": 3, "loss": 1.0}) + '\n{"step": 4, "los')
    assert [line["step"] for line in read_log(config.out)] == [1, 2, 3]
    run_to(config.with_changes(resume=True))
    assert log_of(config.out) == log_of(settings("unet-without-average", "straight").out)


def test_an_incomplete_newest_checkpoint_is_passed_over(settings) -> None:
    config = settings("lora", "run", checkpoint_every=1, keep_checkpoints=2)
    run_to(settings("lora", "straight"))
    run_to(config, last=2)
    newest = config.out / "checkpoints" / "step-000002" / "optimizer.safetensors"
    newest.write_bytes(newest.read_bytes()[:-100])
    assert [r.step for r in run_to(config.with_changes(resume=True))] == [2, 3, 4]
    assert files_of(config.out / "model") == files_of(settings("lora", "straight").out / "model")


CHANGED = dict(
    preset="sd15", base="fused", method="unet", lora_rank=8, batch_size=7, learning_rate=0.5, warmup=9, clip=2.0,
    text_learning_rate_factor=0.5, rate_schedule="cosine", weight_decay=0.5, ema_decay=0.5, constant_prompt="x",
    caption_dropout=0.9, mask_dropout=0.9, prior_prompt="x", prior_weight=0.5, prior_images=7, offset_noise=0.5,
    prediction_type="sample", mask_loss_weight=2.0, healthy_boxes=True, zero_terminal_snr=True, min_snr_gamma=1.0,
    precision="bfloat16", optimizer="adamw",
    seed=5,
)  # fmt: skip
ALLOWED = dict(
    steps=5, micro_batch_size=1, gradient_checkpointing=True, compile=True, checkpoint_every=3, keep_checkpoints=3,
    log_every=3, tensorboard=True, validation_every=3, validation_prompts=("x",), validation_guidance_scale=1.0,
    validation_steps=3, held_out_images=3, max_bad_steps=3, resume=True,
)  # fmt: skip


def test_every_setting_is_either_free_or_refused() -> None:
    config = config_of(rate_schedule="constant")
    assert set(ALLOWED) | {"data", "out"} == FREE
    assert set(CHANGED) | FREE == set(config.to_dict())


@pytest.mark.parametrize("name", CHANGED)
def test_a_resume_that_changes_the_mathematics_is_refused_by_name(name) -> None:
    config = config_of(rate_schedule="constant", prediction_type="v_prediction")
    saved = json.loads(json.dumps(config.to_dict()))
    assert config.to_dict()[name] != CHANGED[name]
    with pytest.raises(InputError, match=f"{name} was .* and is now"):
        config.with_changes(**{name: CHANGED[name]}).check_resumes(saved)


@pytest.mark.parametrize("name", ALLOWED)
def test_a_resume_may_change_what_is_not_mathematics(name) -> None:
    config = config_of(rate_schedule="constant")
    saved = json.loads(json.dumps(config.to_dict()))
    config.with_changes(**{name: ALLOWED[name]}).check_resumes(saved)


def test_the_end_of_a_cosine_may_not_move(settings) -> None:
    config = settings("lora", "run", rate_schedule="cosine")
    run_to(config, last=1)
    before = files_of(config.out)
    with pytest.raises(InputError, match="steps was 4 and is now 9"):
        next(fit(config.with_changes(steps=9, resume=True)))
    assert files_of(config.out) == before, "a refused resume touches nothing"
    with pytest.raises(InputError, match="seed was 1337 and is now 2"):
        next(fit(config.with_changes(seed=2, resume=True)))
    with pytest.raises(InputError, match="already exists"):
        next(fit(config))
    assert files_of(config.out) == before


@pytest.mark.parametrize("what", ["pixel", "caption"])
def test_a_resume_on_other_data_is_refused(phantoms, tmp_path, what) -> None:
    """The folder may move, for its path says nothing; what is in it may not change."""
    shutil.copytree(phantoms, tmp_path / "data")
    config = config_of(tmp_path, method="lora", lora_rank=2, batch_size=2)
    run_to(config, last=1)
    (tmp_path / "data").rename(tmp_path / "moved")
    run_to(config.with_changes(data=tmp_path / "moved", resume=True), last=2)
    case = manifest.load(tmp_path / "moved").split("train")[0]
    if what == "pixel":
        with Image.open(tmp_path / "moved" / case.image) as image:
            pixels = np.array(image)
        pixels[64, 64] ^= 255
        Image.fromarray(pixels).save(tmp_path / "moved" / case.image)
    else:
        table = tmp_path / "moved" / "metadata.jsonl"
        table.write_text(table.read_text().replace(json.dumps(case.prompt), '"another caption"', 1))
    with pytest.raises(InputError, match=r"images, captions or class images in .* have changed"):
        next(fit(config.with_changes(data=tmp_path / "moved", resume=True)))


@pytest.mark.parametrize("method", ["lora", "unet"])
def test_a_resume_on_another_base_is_refused_where_some_of_it_stays(phantoms, tmp_path, method) -> None:
    """What is frozen is not in the checkpoint, so it must be what it was."""
    parts = Components.load("tiny")
    parts.save(tmp_path / "base")
    config = config_of(tmp_path, data=phantoms, base=str(tmp_path / "base"), method=method, lora_rank=2, batch_size=2)
    run_to(config, last=1)
    with torch.no_grad():
        parts.text_encoder.final_layer_norm.bias += 1
    parts.save(tmp_path / "base")
    with pytest.raises(InputError, match="the base model, or the images"):
        next(fit(config.with_changes(resume=True)))


def test_a_folder_that_is_no_run_is_refused(settings, tmp_path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    for resume, words in ((True, "not a run folder"), (False, "already exists")):
        with pytest.raises(InputError, match=words):
            next(fit(settings("lora", "run", resume=resume)))
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["notes.txt"]


def test_a_config_of_before_cannot_lack_a_setting() -> None:
    """A run of an older version, whose config has not all the settings: the missing one is named."""
    config = config_of(offset_noise=0.3)
    saved = {key: value for key, value in config.to_dict().items() if key != "offset_noise"}
    with pytest.raises(InputError, match=r"offset_noise was None and is now 0\.3"):
        config.check_resumes(saved)
