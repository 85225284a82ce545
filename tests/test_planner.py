"""The planner's numbers are those of real runs, found without allocating anything."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from mame_lib import cli
from mame_lib.data import manifest
from mame_lib.data.sources import phantom_source
from mame_lib.errors import InputError
from mame_lib.planner import check_room, plan
from mame_lib.planner.networks import bare_components
from mame_lib.planner.plan import GIB, PARTS, Plan
from mame_lib.training.config import TrainConfig
from mame_lib.training.data import Batch
from mame_lib.training.loop import TrainState, start, train_step
from mame_lib.training.setup import load_base

TOLERANCE = 0.01  # of the bytes that a step takes besides weights, optimizer and average


def config_of(**changes: Any) -> TrainConfig:
    return TrainConfig(**{"data": "data", "out": "run", "preset": "tiny", "batch_size": 4, **changes})


def batch_of(state: TrainState, count: int) -> Batch:
    parts, generator = state.components, torch.Generator().manual_seed(0)
    shape = (count, *parts.latent_shape)
    wide = parts.unet.config.in_channels == 9
    return Batch(
        latents=torch.randn(shape, generator=generator),
        noise=torch.randn(shape, generator=generator),
        timesteps=torch.randint(0, 1000, (count,), generator=generator),
        input_ids=torch.randint(1, 400, (count, parts.tokenizer.model_max_length), generator=generator),
        extra=torch.randn(count, 5, *shape[2:], generator=generator) if wide else None,
    )


def peak_of_a_step(config: TrainConfig) -> int:
    """Bytes that the second optimizer step allocates at its peak, by torch's own account of every allocation."""
    state = start(config, load_base(config))
    batch = batch_of(state, config.rows)
    train_step(state, batch, config)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as seen:
        train_step(state, batch, config)
    events = seen.profiler.kineto_results.events()
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    live = peak = 0
    for _, size in changes:
        live += size
        peak = max(peak, live)
    return peak


def moving(found: Plan) -> int:
    """Predicted bytes of a step that come and go."""
    parts = found.phase("step").parts
    return sum(parts[name] for name in ("gradients", "autocast copies", "activations"))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"batch_size": 8, "micro_batch_size": 2, "gradient_checkpointing": True},
        {"precision": "bfloat16"},
        pytest.param({"batch_size": 1}, marks=pytest.mark.slow),
        pytest.param({"batch_size": 32}, marks=pytest.mark.slow),
        pytest.param({"gradient_checkpointing": True}, marks=pytest.mark.slow),
        pytest.param({"method": "unet"}, marks=pytest.mark.slow),
        pytest.param({"method": "lora"}, marks=pytest.mark.slow),
        pytest.param({"preset": "tiny-inpaint"}, marks=pytest.mark.slow),
        pytest.param({"precision": "bfloat16", "gradient_checkpointing": True}, marks=pytest.mark.slow),
        pytest.param({"precision": "bfloat16", "method": "lora"}, marks=pytest.mark.slow),
    ],
    ids=lambda changes: "-".join(f"{k}={v}" for k, v in changes.items()) or "plain",
)
def test_a_step_takes_what_was_predicted(changes: dict[str, Any]) -> None:
    config = config_of(**changes)
    if config.method == "lora":
        pytest.importorskip("peft")
    measured = peak_of_a_step(config)
    # The CPU's convolutions make working copies of a weight that no tensor of ours holds.
    largest = 4 * max(p.numel() for p in load_base(config).unet.parameters())
    if config.precision == "bfloat16" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        largest += int(0.1 * measured)  # such a processor keeps up to a tenth more, in proportion to the batch
    assert -TOLERANCE * measured <= measured - moving(plan(config)) <= TOLERANCE * measured + largest


def test_what_lasts_is_predicted_to_the_byte() -> None:
    config = config_of()
    state = start(config, load_base(config))
    train_step(state, batch_of(state, 4), config)
    parts = plan(config).phase("step").parts
    networks = (state.components.unet, state.components.text_encoder, state.components.vae)
    held = [t for network in networks for t in (*network.parameters(), *network.buffers())]
    moments = [v for slot in state.optimizer.state.values() for k, v in slot.items() if k != "step"]
    assert parts["weights"] == sum(t.numel() * t.element_size() for t in held)
    assert parts["optimizer"] == sum(t.numel() * t.element_size() for t in moments)
    assert parts["average (EMA)"] == sum(t.numel() * 4 for t in state.ema.shadow)
    assert plan(config_of(ema_decay=0.0)).phase("step").parts["average (EMA)"] == 0


def test_stable_diffusion_is_known_by_heart() -> None:
    for preset, more in (("sd15", 0), ("sd15-inpaint", 5 * 320 * 9)):
        parts = bare_components(config_of(preset=preset))
        counts = [sum(p.numel() for p in n.parameters()) for n in (parts.unet, parts.text_encoder, parts.vae)]
        assert counts == [859_520_964 + more, 123_060_480, 83_653_863]
        assert parts.image_size == 512
        assert all(p.is_meta for p in parts.unet.parameters())


def test_a_folder_with_its_configurations_is_enough(tmp_path: Path) -> None:
    """A model folder without its weights can be planned with; one without a configuration can't."""
    from mame_lib.models.presets import PRESETS

    model = tmp_path / "model"
    shutil.copytree(PRESETS["tiny"].source, model, ignore=shutil.ignore_patterns("*.safetensors"))
    assert plan(config_of(base=str(model))).phases == plan(config_of()).phases
    (model / "unet" / "config.json").unlink()
    with pytest.raises(InputError, match=r"its unet has no config\.json"):
        plan(config_of(base=str(model), lora_rank=3))


def test_a_shipped_model_that_shares_parts_is_planned_like_its_base() -> None:
    assert plan(config_of(base="fused")).phases == plan(config_of()).phases


def test_on_a_gpu_only_what_works_is_there() -> None:
    cpu, cuda = (plan(config_of(method="unet"), device_kind=kind) for kind in ("cpu", "cuda"))
    sizes = {name: sum(p.numel() for p in network.parameters()) for name, network in (
        ("unet", load_base(config_of()).unet), ("vae", load_base(config_of()).vae))}  # fmt: skip
    assert cuda.phase("encoding").parts["weights"] == pytest.approx(4 * sizes["vae"], rel=0.01)
    assert cuda.phase("step").parts["weights"] == pytest.approx(4 * sizes["unet"], rel=0.01)
    assert cuda.phase("step").parts["weights"] < cpu.phase("step").parts["weights"]
    assert cuda.precision == "float16" and cpu.precision == "float32"
    assert set(cuda.peak.parts) == set(PARTS)


def test_eight_bits_for_two_moments_and_their_scales() -> None:
    wide = plan(config_of(optimizer="adamw8bit"), device_kind="cuda").phase("step").parts["optimizer"]
    elements = [p.numel() for n in (load_base(config_of()).unet, load_base(config_of()).text_encoder)
                for p in n.parameters()]  # fmt: skip
    small = sum(n for n in elements if n < 4096)
    large = sum(elements) - small
    assert 8 * small + 2 * large < wide < 8 * small + 2.2 * large


@pytest.mark.slow
def test_accumulation_checkpointing_and_eight_bits_save_and_say_how_much() -> None:
    found = plan(config_of(batch_size=16), device_kind="cuda")
    assert [one.change.split(" = ")[0] for one in found.advice[:3]] == [
        "micro_batch_size", "optimizer", "gradient_checkpointing",
    ]  # fmt: skip
    peaks = [found.peak.total, *(one.peak for one in found.advice)]
    assert all(after < before for before, after in pairwise(peaks))
    assert [one.saves for one in found.advice] == [a - b for a, b in pairwise(peaks)]


@pytest.mark.slow
def test_advice_keeps_its_word_and_ends_when_the_run_fits() -> None:
    first = plan(config_of(batch_size=16))
    gib = (first.peak.total - first.advice[0].saves // 2) / GIB
    found = plan(config_of(batch_size=16), gib=gib)
    assert not found.fits(gib)
    assert found.advice[-1].peak <= gib * GIB
    assert all(one.peak > gib * GIB for one in found.advice[:-1])
    settings = [change for one in found.advice for change in one.change.split(", ")]
    changed = TrainConfig.read(None, [s.replace(" ", "") for s in settings], data="d", out="o", batch_size=16)
    assert plan(changed).fits(gib)
    assert f"does not fit into {gib:.1f} GiB" in str(found)
    assert plan(changed, gib=gib).advice == ()


@pytest.mark.slow
def test_a_run_that_cannot_fit_is_refused_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    lean = config_of(batch_size=64, method="unet", ema_decay=0.0, optimizer="adamw8bit", validation_every=0)
    lean = lean.with_changes(gradient_checkpointing=True, micro_batch_size=4)
    monkeypatch.setattr("mame_lib.planner.machine.room", lambda kind: None)
    check_room(lean)  # no GPU, nothing to say
    monkeypatch.setattr("mame_lib.planner.machine.room", lambda kind: 100.0)
    check_room(lean)
    monkeypatch.setattr("mame_lib.planner.machine.room", lambda kind: 0.05)
    with pytest.raises(InputError, match=r"needs about .* there are 0\.1 GiB; try --set with micro_batch_size = "):
        check_room(lean.with_changes(micro_batch_size=64))


def test_an_unknown_kind_of_device_is_refused() -> None:
    with pytest.raises(InputError, match="must be cpu or cuda"):
        plan(config_of(), device_kind="tpu")


def test_the_command_prints_the_plan_and_touches_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", "--preset", "tiny", "--batch-size", "4", "--plan"]) == 0
    told = capsys.readouterr().out
    assert "on cpu: float32, adamw, 4 images at once" in told or torch.cuda.is_available()
    assert cli.main(["train", "--preset", "tiny", "--batch-size", "64", "--plan", "0.75"]) == 0
    told = capsys.readouterr().out
    assert "on cuda: float16" in told and "does not fit into 0.8 GiB" in told
    assert re.search(r"micro_batch_size = \d+ saves \d+ MiB", told)
    assert list(tmp_path.iterdir()) == []


def resident(program: str) -> tuple[int, str]:
    """Largest resident set of a fresh process that runs `program`, in bytes, and the last line it prints."""
    program += "\nprint(next(line for line in open('/proc/self/status') if line.startswith('VmHWM')).split()[1])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=300)
    *lines, size = done.stdout.splitlines()
    return int(size) * 1024, lines[-1]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="resident sets are counted differently there")
def test_planning_at_full_size_takes_no_memory() -> None:
    size, found = resident(
        "from mame_lib.planner import plan\nfrom mame_lib.training.config import TrainConfig\n"
        "config = TrainConfig(data='d', out='o', preset='sd15', batch_size=16)\n"
        "print(plan(config, device_kind='cuda').peak.total)"
    )
    assert int(found) > 30 * GIB
    assert size < 1.2 * GIB


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="resident sets are counted differently there")
@pytest.mark.parametrize("rows", [8, 96])
def test_a_whole_run_takes_what_was_predicted(rows: int, tmp_path: Path) -> None:
    manifest.write(tmp_path / "data", phantom_source(24, 128, 3), source="phantom", settings={})
    config = TrainConfig(data=tmp_path / "data", out=tmp_path / "run", batch_size=rows, steps=2, validation_steps=2)
    size, _ = resident(
        "import torch\nfrom mame_lib.training.config import TrainConfig\nfrom mame_lib.training.loop import fit\n"
        f"torch.set_num_threads(1)\nprint(len(list(fit(TrainConfig(**{config.to_dict()!r})))))"
    )
    assert plan(config).peak.total == pytest.approx(size, rel=0.15)
