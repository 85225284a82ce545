"""Stable Diffusion 1.5 at its full size, with random weights: DreamBooth and inpainting on a computer without a GPU.

Everything runs in processes of its own (this file is also their program), so that the peak memory of each is known and
given back. Wants 22 GiB of memory and 40 GiB of disk.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

LIMIT = 22.0  # GiB
DISK = 40.0  # GiB

pytestmark = [
    pytest.mark.full_size,
    pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="peak memory is read from /proc"),
]


# ---------------------------------------------------------------------------------------------------------
# What runs in the other processes


def build(folder: Path) -> None:
    """A pipeline folder of SD 1.5's architecture with random weights in half precision, and two images with lesions."""
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    from mame_lib.data import manifest
    from mame_lib.data.sources import phantom_source
    from mame_lib.models.components import Components
    from mame_lib.models.tiny import tiny_tokenizer
    from mame_lib.planner.networks import SD15

    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    tokenizer.model_max_length = 77
    parts = Components(
        unet=UNet2DConditionModel.from_config(SD15["unet"]),
        vae=AutoencoderKL.from_config(SD15["vae"]),
        text_encoder=CLIPTextModel(CLIPTextConfig(**SD15["text_encoder"])),
        tokenizer=tokenizer,
    )
    parts.save(folder / "base")
    data = phantom_source(2, 512, seed=0, lesions=1.0)
    manifest.write(folder / "data", data, source="phantom", settings={})


def settings(folder: Path, preset: str, **changes: Any) -> Any:
    """A run of one image a step with gradient checkpointing and without average, as it fits."""
    from mame_lib.training.config import TrainConfig

    return TrainConfig(**{
        "data": folder / "data", "out": folder / preset, "preset": preset, "base": str(folder / "base"),
        "batch_size": 1, "gradient_checkpointing": True, "ema_decay": 0.0, "learning_rate": 1e-4, "warmup": 0,
        "rate_schedule": "constant", "validation_every": 0, "log_every": 1, "steps": 2, **changes,
    })  # fmt: skip


def train(folder: Path, preset: str, steps: int, resume: bool, leave: bool) -> dict[str, Any]:
    """Some steps with the real trainer; `leave` stops in the middle, as a closed notebook would."""
    from mame_lib.training.loop import fit

    told = []
    for result in fit(settings(folder, preset, steps=steps, resume=resume), device="cpu"):
        told.append({"step": result.step, "loss": result.loss, "norm": result.grad_norm, "seconds": result.seconds})
        if leave:
            break
    return {"steps": told}


def generate(model: Path, inpainting: bool) -> dict[str, Any]:
    """One image in two steps by plain diffusers."""
    import numpy as np
    import torch
    from diffusers import StableDiffusionInpaintPipeline, StableDiffusionPipeline
    from PIL import Image

    options: dict[str, Any] = {"num_inference_steps": 2, "generator": torch.Generator().manual_seed(0)}
    kind = StableDiffusionInpaintPipeline if inpainting else StableDiffusionPipeline
    pipeline = kind.from_pretrained(model, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    if inpainting:
        gray, mask = Image.new("RGB", (512, 512), (90, 90, 90)), Image.new("L", (512, 512))
        mask.paste(255, (128, 128, 256, 256))
        options |= {"image": gray, "mask_image": mask}
    image = np.asarray(pipeline("a mammogram", **options).images[0])
    channels = pipeline.unet.config.in_channels
    return {"shape": image.shape, "deviation": float(image.std()), "channels": channels}


def main(name: str, arguments: dict[str, Any]) -> None:
    """Call one of the functions above and print what it found, with the peak of this process."""
    began = time.perf_counter()
    arguments = {key: Path(value) if key in ("folder", "model") else value for key, value in arguments.items()}
    found = {"build": build, "train": train, "generate": generate}[name](**arguments) or {}
    status = Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]
    print(json.dumps({**found, "gib": int(status) / 2**20, "seconds": time.perf_counter() - began}))


# ---------------------------------------------------------------------------------------------------------
# The tests


def run(name: str, **arguments: Any) -> dict[str, Any]:
    """Run one of the functions above in its own process; prints what it took."""
    threads = str(os.cpu_count() or 1)
    words = json.dumps({key: str(v) if isinstance(v, Path) else v for key, v in arguments.items()})
    done = subprocess.run(
        [sys.executable, __file__, name, words], capture_output=True, text=True,
        env={**os.environ, "OMP_NUM_THREADS": threads, "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"{name} {words}: {found['seconds']:.0f} s, {found['gib']:.1f} GiB")
    return found


def _memory() -> float:
    """GiB of memory that a process may take now without swapping."""
    return int(Path("/proc/meminfo").read_text().split("MemAvailable:")[1].split()[0]) / 2**20


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A place with the base model and the data; it is removed at the end, for it holds many GB."""
    place = tmp_path_factory.mktemp("full-size")
    free = shutil.disk_usage(place).free / 2**30
    if _memory() < LIMIT - 3 or free < DISK:
        pytest.skip(f"wants {LIMIT - 3:.0f} GiB of memory and {DISK:.0f} GiB of disk; {free:.0f} GiB of disk are free")
    try:
        run("build", folder=place)
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def test_dreambooth_steps_resumes_saves_and_draws_within_22_gib(folder: Path) -> None:
    from mame_lib.planner import plan

    first = run("train", folder=folder, preset="sd15", steps=2, resume=False, leave=True)
    assert [one["step"] for one in first["steps"]] == [1]
    assert (folder / "sd15" / "checkpoints" / "step-000001" / "state.json").is_file()
    second = run("train", folder=folder, preset="sd15", steps=2, resume=True, leave=False)
    assert [one["step"] for one in second["steps"]] == [2]
    for result in (first, second):
        assert result["gib"] < LIMIT
        assert 0 < result["steps"][0]["loss"] < 100 and 0 < result["steps"][0]["norm"] < float("inf")
    predicted = plan(settings(folder, "sd15"), device_kind="cpu").phase("step").total / 2**30
    assert predicted == pytest.approx(max(first["gib"], second["gib"]), rel=0.15)
    lines = [json.loads(line) for line in (folder / "sd15" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2]
    shutil.rmtree(folder / "sd15" / "checkpoints")
    assert _moved(folder / "base", folder / "sd15" / "model")
    image = run("generate", model=folder / "sd15" / "model", inpainting=False)
    assert image["shape"] == [512, 512, 3] and image["deviation"] > 0 and image["channels"] == 4
    shutil.rmtree(folder / "sd15")


def test_inpainting_steps_saves_and_fills_within_22_gib(folder: Path) -> None:
    found = run("train", folder=folder, preset="sd15-inpaint", steps=1, resume=False, leave=False)
    assert [one["step"] for one in found["steps"]] == [1]
    assert found["gib"] < LIMIT
    shutil.rmtree(folder / "sd15-inpaint" / "checkpoints")
    image = run("generate", model=folder / "sd15-inpaint" / "model", inpainting=True)
    assert image["shape"] == [512, 512, 3] and image["deviation"] > 0 and image["channels"] == 9
    shutil.rmtree(folder / "sd15-inpaint")


def _moved(before: Path, after: Path) -> bool:
    """Whether small weights of UNet and text encoder, which float16 can tell apart, differ between two folders."""
    from safetensors import safe_open

    for name, key in (("unet", "conv_out.weight"), ("text_encoder", "layers.0.mlp.fc1.weight")):
        values = []
        for root in (before, after):
            [path] = (root / name).glob("*.safetensors")
            with safe_open(path, "pt") as file:
                values.append(next(file.get_tensor(k) for k in file.keys() if k.endswith(key)))  # noqa: SIM118
        if bool((values[0] == values[1]).all()):
            return False
    return True


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
