"""`TrainConfig`: documented, frozen, read from TOML and from lines, and strict about names, kinds and ranges."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import math
import re
from pathlib import Path

import pytest

from mame_lib.arguments import build_parser
from mame_lib.cli import main
from mame_lib.errors import InputError
from mame_lib.training.config import FREE, TrainConfig
from tests.training.support import config_of, options_of, run_to

FIELDS = [field.name for field in dataclasses.fields(TrainConfig)]


def test_every_setting_is_documented_and_nothing_else_is() -> None:
    """As an entry `name : what it is`, alone or among others, or at least by its name in backquotes."""
    text = (TrainConfig.__doc__ or "").split("----------")[1]
    entries = re.findall(r"(?:^    |\. )`?((?:\w+, )*\w+)`? : ", text, flags=re.M)
    named = {name for entry in entries for name in entry.split(", ")}
    assert len(entries) > 25 and named <= set(FIELDS)
    assert [name for name in FIELDS if name not in named and f"`{name}`" not in text] == []


def test_a_configuration_is_frozen_and_goes_there_and_back_through_json() -> None:
    config = config_of(validation_prompts=["a", "b"], min_snr_gamma=5.0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.steps = 5  # type: ignore[misc]
    assert TrainConfig(**json.loads(json.dumps(config.to_dict()))) == config
    assert hash(config) == hash(dataclasses.replace(config)), "equal ones are one key"


def test_defaults_come_from_the_preset() -> None:
    tiny, large = (TrainConfig(data=Path("d"), out=Path("o"), preset=name) for name in ("tiny", "sd15"))
    assert (tiny.rows, tiny.peak_rate) == (16, 1e-3) and (large.rows, large.peak_rate) == (8, 1e-6)
    assert tiny.micro_rows == 16 and config_of(batch_size=256, micro_batch_size=16).micro_rows == 16
    assert config_of(zero_terminal_snr=True).prediction_type == "v_prediction" and config_of().prediction_type is None
    assert config_of(preset="tiny-inpaint").inpainting and not config_of().inpainting
    assert config_of().base_model == "tiny" and config_of(base="fused").base_model == "fused"


TOML = """
# a recipe
data = "phantoms"
out = "runs/one"
steps = 12
batch_size = 4
learning_rate = 2e-3
caption_dropout = 0
zero_terminal_snr = true
constant_prompt = "a mammogram"
validation_prompts = ["one", "two"]
"""


def test_a_file_then_lines_then_arguments(tmp_path) -> None:
    (tmp_path / "run.toml").write_text(TOML)
    config = TrainConfig.read(tmp_path / "run.toml")
    assert config.data == Path("phantoms") and config.out == Path("runs/one") and config.steps == 12
    assert config.learning_rate == 2e-3 and config.zero_terminal_snr and config.validation_prompts == ("one", "two")
    changed = TrainConfig.read(tmp_path / "run.toml", ["steps=13", "seed=7"], steps=14)
    assert changed.steps == 14 and changed.seed == 7 and changed.batch_size == 4


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("steps=40", "steps", 40),
        ("learning_rate=1e-4", "learning_rate", 1e-4),
        ("min_snr_gamma = 5", "min_snr_gamma", 5),
        ("zero_terminal_snr=true", "zero_terminal_snr", True),
        ("precision=bfloat16", "precision", "bfloat16"),
        ('constant_prompt=a mammogram, "good"', "constant_prompt", 'a mammogram, "good"'),
        ('constant_prompt="a mammogram"', "constant_prompt", "a mammogram"),
        ("base=owner/model", "base", "owner/model"),
        ("base=./runs/one/model", "base", "./runs/one/model"),
        ('validation_prompts=["a", "b"]', "validation_prompts", ("a", "b")),
        ("constant_prompt=", "constant_prompt", ""),
    ],
)
def test_lines_of_the_shell(line, name, value) -> None:
    assert getattr(TrainConfig.read(None, [line], data="d", out="o"), name) == value


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("stops=3", "'stops' is not a setting; the known ones are data, out"),
        ("steps", "steps is not TOML"),
        ("steps=1.5", "steps is 1.5, which is not of its kind"),
        ("steps=true", "steps is True, which is not of its kind"),
        ("learning_rate=fast", "learning_rate is 'fast', which is not of its kind"),
        ("compile=1", "compile is 1, which is not of its kind"),
        ("constant_prompt=3", "constant_prompt is 3, which is not of its kind"),
        ('validation_prompts="a"', "validation_prompts is 'a', which is not of its kind"),
        ("validation_prompts=[1]", r"validation_prompts is \[1\], which is not of its kind"),
        ("steps=nan", "steps is nan, which is not of its kind"),
        ("[table]", "not TOML|not a setting"),
        ("a.b=3", "'a' is not a setting"),
    ],
)
def test_bad_lines_are_named(line, message) -> None:
    with pytest.raises(InputError, match=message):
        TrainConfig.read(None, [line], data="d", out="o")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps = ", "is not TOML"),
        ('stops = 3\ndata = "d"', "'stops' is not a setting"),
        ('[train]\nsteps = 3', "'train' is not a setting"),
        ("steps = 1979-05-27", "steps is .*, which is not of its kind"),
        ('data = "d"', "the setting out is missing"),
        (b"\xff\xfe", "cannot read the settings"),
        ("base = ['x']", "base is .*, which is not of its kind"),
    ],
)
def test_bad_files_are_named(tmp_path, text, message) -> None:
    path = tmp_path / "run.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=message):
        TrainConfig.read(path)
    with pytest.raises(InputError, match=r"cannot read the settings .*none\.toml"):
        TrainConfig.read(tmp_path / "none.toml")


BAD = {
    "steps": (0, -1), "batch_size": (0,), "micro_batch_size": (0,), "lora_rank": (0,), "prior_images": (0,),
    "validation_steps": (0,), "keep_checkpoints": (0,), "max_bad_steps": (0,), "warmup": (-1,), "log_every": (-1,),
    "validation_every": (-1,), "checkpoint_every": (-1,), "held_out_images": (-1,), "seed": (-1,),
    "learning_rate": (0, -1e-3, math.nan, math.inf), "clip": (0, math.nan), "min_snr_gamma": (0, -5, math.inf),
    "weight_decay": (-0.1, math.nan), "text_learning_rate_factor": (-1, math.inf), "prior_weight": (-1,),
    "offset_noise": (-0.1, math.nan), "caption_dropout": (-0.1, 1.1, math.nan), "mask_dropout": (2,),
    "mask_loss_weight": (0, -1, math.nan), "ema_decay": (1.0, -0.1, math.nan),
    "validation_guidance_scale": (math.nan,), "method": ("dreambooth", None),
    "preset": ("huge",), "prediction_type": ("x0",), "rate_schedule": ("linear",), "optimizer": ("sgd",),
    "precision": ("float64",),
}  # fmt: skip


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in BAD.items() for value in values])
def test_values_out_of_range_are_named(name, value) -> None:
    with pytest.raises(InputError, match=name):
        config_of(**{name: value})


def test_settings_that_do_not_go_together() -> None:
    with pytest.raises(InputError, match="zero_terminal_snr cannot go with prediction_type epsilon"):
        config_of(zero_terminal_snr=True, prediction_type="epsilon")
    with pytest.raises(InputError, match="prior_prompt is for text-to-image"):
        config_of(preset="tiny-inpaint", prior_prompt="x")


def test_free_settings_exist() -> None:
    assert set(FIELDS) >= FREE


def test_the_command_line_reaches_every_setting(tmp_path, monkeypatch) -> None:
    """Flags and `--set` end in the same configuration; what neither says is the default."""
    import mame_lib.training.loop as loop

    seen = []
    monkeypatch.setattr(loop, "fit", lambda config: seen.append(config) or iter(()))
    (tmp_path / "data").mkdir()
    wanted = config_of(tmp_path, steps=7, seed=3, micro_batch_size=2, method="lora", constant_prompt="a, b", base="x/y")
    assert main(["train", *options_of(wanted)]) == 0
    flags = ["--data", str(wanted.data), "--out", str(wanted.out), "--steps", "7", "--batch-size", "4", "--seed", "3",
             "--micro-batch-size", "2", "--method", "lora", "--prompt", "a, b", "--base", "x/y",
             "--validation-every", "0", "--set", "warmup=2"]  # fmt: skip
    assert main(["train", *flags]) == 0
    assert seen == [wanted, wanted]
    known = vars(build_parser().parse_args(["train", *flags[:4]]))
    assert set(known) - {"command", "config", "set", "plan"} <= set(FIELDS)


def test_the_run_folder_tells_the_settings_and_why(phantoms, tmp_path) -> None:
    config = config_of(data=phantoms, out=tmp_path / "run", steps=1, batch_size=2, method="lora", lora_rank=2)
    run_to(config)
    facts = json.loads((config.out / "config.json").read_text())
    assert TrainConfig(**facts["config"]) == config
    assert facts["precision"] == "float32: no CUDA GPU" and facts["optimizer"] == "adamw, fused: no CUDA GPU"
    assert facts["versions"]["torch"] and facts["machine"]["threads"] >= 1 and facts["processes"] == 1
    assert facts["data"]["images"] + facts["data"]["held_out"] <= 24 and facts["data"]["source"] == "phantom"
    assert sum(facts["data"]["captions"].values()) == facts["data"]["images"]
    lines = [json.loads(line) for line in (config.out / "log.jsonl").read_text().splitlines()]
    wanted = {"step", "images", "loss", "loss_by_decile", "grad_norm", "learning_rate", "images_per_second"}
    assert wanted <= set(lines[-1]) and len(lines[-1]["loss_by_decile"]) == 10 and lines[-1]["images"] == 2


def test_a_start_that_fails_leaves_nothing_behind(tmp_path, phantoms, monkeypatch) -> None:
    from mame_lib.training.loop import fit

    monkeypatch.setattr(importlib.util, "find_spec", lambda *_: None)  # as if bitsandbytes were not there
    for config in (
        config_of(tmp_path),
        config_of(data=phantoms, out=tmp_path / "run", base=str(tmp_path / "none")),
        config_of(data=phantoms, out=tmp_path / "run", preset="tiny-inpaint"),
        config_of(data=phantoms, out=tmp_path / "run", method="lora", optimizer="adamw8bit"),
    ):
        with pytest.raises(InputError):
            next(fit(config))
        assert not config.out.exists()
