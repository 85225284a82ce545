"""The run folder: settings, log, samples, checkpoints, and in the end the model."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from mame_lib import __version__
from mame_lib.data.prompts import GRAMMAR_VERSION
from mame_lib.errors import InputError
from mame_lib.models.cache import FOLDER
from mame_lib.models.components import Components, name_of
from mame_lib.training.checkpoint import (
    complete_checkpoints,
    optimizer_tensors,
    read_checkpoint,
    restore_optimizer,
    write_checkpoint,
)
from mame_lib.training.config import TrainConfig
from mame_lib.training.meter import Meter
from mame_lib.training.validation import guidance_rescale
from mame_lib.training.world import World

if TYPE_CHECKING:
    from mame_lib.training.loop import TrainState

SAMPLER = {"name": "dpm_solver_pp", "spacing": "trailing", "final_sigma": "zero"}
LEFTOVERS = {FOLDER, "config.json.partial"}  # of a run that was killed before it began
PACKAGES = ("torch", "diffusers", "transformers", "numpy", "peft", "bitsandbytes")


class RunFolder:
    """Writes `config.json`, `log.jsonl`, `samples/`, `checkpoints/step-N/` and `model/` of one run.

    Only the first process writes; every process calls every method, so that none runs ahead.
    """

    def __init__(self, path: Path, world: World, config: TrainConfig) -> None:
        self.path, self.world = path, world
        self.keep, self.rows = config.keep_checkpoints, config.rows
        self.board: Any = None  # TensorBoard

    @classmethod
    def open(cls, config: TrainConfig, world: World) -> RunFolder:
        """Create the folder, or find the one to resume; a folder with something in it is never overwritten."""
        path = config.out
        if config.resume:
            config.check_resumes(_read_run(path)["config"])
        elif world.main and path.exists() and (not path.is_dir() or {p.name for p in path.iterdir()} - LEFTOVERS):
            raise InputError(f"{path} already exists; choose another run folder, or resume it with --resume.")
        world.wait()
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"cannot create the run folder {path} ({error.strerror}); choose a folder you may write to."
            ) from error
        return cls(path, world, config)

    def discard_if_empty(self) -> None:
        """Remove a folder in which a failed start left nothing but a cache."""
        if self.world.main and not self._has("config.json"):
            shutil.rmtree(self.path / FOLDER, ignore_errors=True)
            if self.path.is_dir() and not any(self.path.iterdir()):
                self.path.rmdir()

    def begin(self, config: TrainConfig, data: dict[str, Any], reasons: Sequence[str]) -> None:
        """Write `config.json`: settings, data, versions, machine, precision and optimizer with their reasons.

        Raises `InputError` when data or base model of a run to resume are no longer those of before.
        """
        if not self.world.main:
            return
        if config.resume and _read_run(self.path).get("data", {}).get("digest", data["digest"]) != data["digest"]:
            raise InputError(
                f"cannot resume {self.path}: the base model, or the images, captions or class images in {config.data}, "
                "have changed since; use the old ones, or another run folder."
            )
        facts = {
            "config": config.to_dict(),
            "data": data,
            "precision": reasons[0],
            "optimizer": reasons[1],
            "processes": self.world.size,
            "git": _git_revision(),
            "versions": {"mame-lib": __version__, "python": platform.python_version(), **versions()},
            "machine": {
                "system": platform.platform(), "cpus": os.cpu_count(), "threads": torch.get_num_threads(),
                "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
            },
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }  # fmt: skip
        self._write("config.json", json.dumps(facts, indent=2) + "\n")
        if not config.resume:
            self._write("log.jsonl", "")
        if config.tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                raise InputError("tensorboard needs the package of that name; install it, or leave it off.") from error
            self.board = SummaryWriter(str(self.path / "tensorboard"))

    def _has(self, name: str) -> bool:
        return (self.path / name).exists()

    def has_model(self) -> bool:
        """Whether the finished model is there."""
        return self._has("model/model_index.json")

    def _write(self, name: str, text: str) -> None:
        temporary = self.path / f"{name}.partial"
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, self.path / name)

    def log(self, state: TrainState, meter: Meter, learning_rate: float, held_out_loss: float | None) -> None:
        """Append one line to `log.jsonl`: means since the last line; `images` counts all that were seen."""
        seen = {"step": state.step, "images": state.step * self.rows}
        line = {**seen, **meter.line(self.world), "learning_rate": learning_rate}
        if held_out_loss is not None:
            line["held_out_loss"] = held_out_loss
        if state.scaler.is_enabled():
            line["scale"] = state.scaler.get_scale()
        self._append(line)
        if self.board is not None:
            for name, value in line.items():
                if isinstance(value, int | float) and name != "step":
                    self.board.add_scalar(name, value, state.step)

    def note_bad(self, step: int, images: Sequence[str], overflow: bool) -> None:
        """Append a line about a step that changed nothing, for its gradient was not finite."""
        self._append({"step": step, "skipped": "overflow" if overflow else "not finite", "images": list(images)})

    def _append(self, line: dict[str, Any]) -> None:
        if self.world.main:
            with (self.path / "log.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")

    def save_samples(self, step: int, images: NDArray[np.uint8]) -> None:
        """Write the validation images of a step side by side, `samples/step-000100.png`."""
        if self.world.main:
            path = self.path / "samples" / f"step-{step:06d}.png"
            path.parent.mkdir(exist_ok=True)
            partial = path.with_suffix(".partial")
            Image.fromarray(np.concatenate(list(images), axis=1)).save(partial, format="PNG")
            os.replace(partial, path)

    def checkpoint(self, state: TrainState) -> None:
        """Write `checkpoints/step-N` whole, then remove the oldest; nothing to do when it is there already."""
        root = self.path / "checkpoints"
        folder = root / f"step-{state.step:06d}"
        if self.world.main and folder not in complete_checkpoints(root):
            parts = {
                "weights": {name: p.detach() for name, p in _named(state)},
                "ema": state.ema.tensors(),
                "optimizer": optimizer_tensors(state.optimizer),
            }
            info = {"step": state.step, "ema_updates": state.ema.updates, "scaler": state.scaler.state_dict()}
            write_checkpoint(folder, parts, info)
            for old in complete_checkpoints(root)[: -self.keep]:
                shutil.rmtree(old)
        self.world.wait()

    def restore(self, state: TrainState) -> None:
        """Load the newest complete checkpoint into `state` and cut the log back to it.

        Without one the run begins again, which is the same: everything random comes from the seed.
        """
        if self.world.main:
            complete_checkpoints(self.path / "checkpoints")  # mends what a crash left
        self.world.wait()
        complete = complete_checkpoints(self.path / "checkpoints")
        if not complete:
            if self.world.main:
                self._write("log.jsonl", "")
            return self.world.wait()
        files, info = read_checkpoint(complete[-1])
        with torch.no_grad():
            for name, parameter in _named(state):
                parameter.copy_(files["weights"][name])
        restore_optimizer(state.optimizer, files["optimizer"])
        state.ema.restore(files["ema"], info["ema_updates"])
        state.scaler.load_state_dict(info["scaler"])
        state.step = int(info["step"])
        if self.world.main:
            lines = [json.dumps(line) for line in read_log(self.path) if line["step"] <= state.step]
            self._write("log.jsonl", "".join(f"{line}\n" for line in lines))
        self.world.wait()

    def save_model(self, config: TrainConfig, state: TrainState, components: Components) -> Path:
        """Write `model/`, a diffusers folder of the averaged weights, and `lora/` when only low ranks were trained.

        The last act of a run: low-rank updates are merged into the weights for good.
        """
        if self.world.main:
            facts = json.loads((self.path / "config.json").read_text())
            sampler = {**SAMPLER, "guidance_rescale": guidance_rescale(config)}
            components.info = {
                "format": 1, "library": __version__, "preset": config.preset, "base": name_of(config.base_model),
                "prompt_grammar": GRAMMAR_VERSION, "sampler": sampler,
                "training": {
                    "method": config.method, "steps": state.step, "batch_size": config.rows,
                    "images": facts["data"]["images"], "learning_rate": config.peak_rate,
                    "caption_dropout": config.caption_dropout, "min_snr_gamma": config.min_snr_gamma,
                    "seed": config.seed, "captions": facts["data"]["captions"], "versions": facts["versions"],
                },
            }  # fmt: skip
            with state.ema.applied():
                if config.method == "lora":
                    _save_lora(components, self.path / "lora")
                    components.unet.fuse_lora()
                    components.unet.unload_lora()
                components.save(self.path / "model")
        self.world.wait()
        return self.path / "model"


def _named(state: TrainState) -> list[tuple[str, Tensor]]:
    """The trained parameters by the names they have in their networks."""
    mine = {id(p) for p in state.trained}
    networks = {"unet": state.components.unet, "text_encoder": state.components.text_encoder}
    return [(f"{n}.{k}", p) for n, net in networks.items() for k, p in net.named_parameters() if id(p) in mine]


def _save_lora(components: Components, folder: Path) -> None:
    """Low-rank updates alone, as `load_lora_weights` of diffusers reads them."""
    from diffusers import StableDiffusionPipeline
    from diffusers.utils import convert_state_dict_to_diffusers
    from peft import get_peft_model_state_dict

    layers = convert_state_dict_to_diffusers(get_peft_model_state_dict(components.unet))
    StableDiffusionPipeline.save_lora_weights(folder, unet_lora_layers=layers)


def _read_run(path: Path) -> dict[str, Any]:
    """What `config.json` of a run holds; `config` is among it."""
    try:
        facts = dict(json.loads((path / "config.json").read_text()))
        return {**facts, "config": dict(facts["config"])}
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path} is not a run folder, so there is nothing to resume; leave out --resume.") from error


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a run's `log.jsonl`; a last line that a crash cut short is left out."""
    lines = []
    for text in (path / "log.jsonl").read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except ValueError:
            break
    return lines


def versions() -> dict[str, str]:
    """Versions of the packages that decide what is computed, as far as they are installed."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _git_revision() -> str | None:
    """The commit of the source tree the library runs from; None when it is installed as a package."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    asked = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return asked.stdout.strip() or None
