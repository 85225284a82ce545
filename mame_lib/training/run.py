"""Around the training loop: reading the data, validation images, and the run folder."""

from __future__ import annotations

import json
import os
import platform
import shutil
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from mame_lib import __version__
from mame_lib.data import manifest
from mame_lib.data.prompts import GRAMMAR_VERSION
from mame_lib.diffusion.start import initial_noise
from mame_lib.errors import InputError
from mame_lib.models.components import Components, name_of
from mame_lib.models.latents import decode, encode_moments
from mame_lib.models.sampling import sample_states
from mame_lib.models.text import encode_prompts, tokenize
from mame_lib.training.checkpoint import read_checkpoint, restore_optimizer, write_checkpoint
from mame_lib.training.config import TrainConfig
from mame_lib.training.data import TrainingSet
from mame_lib.training.ema import EMA

SAMPLER = {"name": "dpm_solver_pp", "spacing": "trailing", "final_sigma": "zero"}


@dataclass(frozen=True)
class Prepared:
    """The encoded training set, the prompts in it (most frequent first), and facts for the run folder."""

    training_set: TrainingSet
    prompts: tuple[str, ...]
    facts: dict[str, Any]


def prepare(config: TrainConfig, device: str | None = None) -> tuple[Components, Prepared]:
    """Load the base model and encode the training split of the manifest once (moments, not samples)."""
    data = manifest.load(config.data)
    cases = [case for case in data.cases if case.split == "train"]
    if not cases:
        raise InputError(f"{config.data} has no case in its training split; prepare a data set with more patients.")
    components = Components.load(config.base_model)
    components.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    images = np.stack([_square(data.root / case.image, components.image_size) for case in cases])  # [N, n, n]
    captions = [config.constant_prompt if config.constant_prompt is not None else case.prompt for case in cases]
    counts: dict[str, int] = {}
    for caption in captions:
        counts[caption] = counts.get(caption, 0) + 1
    ids = {caption: row for caption, row in zip(counts, tokenize(components.tokenizer, list(counts)), strict=True)}
    training_set = TrainingSet(
        moments=encode_moments(components.vae, images),
        input_ids=torch.stack([ids[caption] for caption in captions]),  # [N, L]
        empty_ids=tokenize(components.tokenizer, [""])[0],  # [L]
        scaling_factor=float(components.vae.config.scaling_factor),
    )
    components.start_mean = training_set.moments.mean.mean(0) * training_set.scaling_factor  # [4, h, w]
    prompts = tuple(sorted(counts, key=lambda caption: (-counts[caption], caption)))
    facts = {
        "images": len(cases),
        "captions": counts,
        "source": data.info.get("source"),
        "epoch_steps": len(cases) / config.rows,
    }
    return components, Prepared(training_set, prompts, facts)


def _square(path: Path, size: int) -> np.ndarray:
    """An 8-bit gray image of the manifest at the model's size, `[n, n]`."""
    with Image.open(path) as image:
        gray = image.convert("L")
        if gray.width != gray.height:
            raise InputError(f"{path} is {gray.width} x {gray.height}, not square; run `mame prepare` on its source.")
        return np.asarray(gray if gray.width == size else gray.resize((size, size), Image.Resampling.LANCZOS))


class Validator:
    """Makes the same pictures again and again: fixed prompts, fixed noise, the sampler used for inference."""

    def __init__(self, config: TrainConfig, components: Components, prompts: tuple[str, ...]) -> None:
        self.config, self.components = config, components
        self.prompts = config.validation_prompts or prompts[:3]
        self.noise = initial_noise(config.seed, range(len(self.prompts)), components.latent_shape)  # [P, 4, h, w]

    @torch.no_grad()
    def images(self) -> np.ndarray:
        """One image a prompt, uint8 `[P, n, n]`; training randomness and modes are left as they were."""
        parts = self.components
        modes = [(network, network.training) for network in (parts.unet, parts.text_encoder)]
        for network, _ in modes:
            network.eval()
        states = encode_prompts(parts.tokenizer, parts.text_encoder, [*self.prompts, ""])  # [P + 1, L, D]
        walk = sample_states(
            parts, self.noise, states[:-1], states[-1:],
            guidance_scale=self.config.validation_guidance_scale, steps=self.config.validation_steps,
        )  # fmt: skip
        for state in walk:
            final = state.sample
        for network, mode in modes:
            network.train(mode)
        return decode(parts.vae, final)


class RunFolder:
    """Writes `config.json`, `log.jsonl`, `samples/`, `checkpoints/step-N/` and `model/` of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def open(cls, config: TrainConfig) -> RunFolder:
        """Create the folder, or find the one to resume; a folder with something in it is never overwritten."""
        path = config.out
        if config.resume:
            if not (path / "config.json").is_file():
                raise InputError(f"{path} is not a run folder, so there is nothing to resume; leave out --resume.")
            config.check_resumes(json.loads((path / "config.json").read_text())["config"])
        elif path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise InputError(f"{path} already exists; choose another run folder, or resume it with --resume.")
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"cannot create the run folder {path} ({error.strerror}); choose a folder you may write to."
            ) from error
        return cls(path)

    def discard_if_empty(self) -> None:
        """Remove a folder that a failed start left empty."""
        if self.path.is_dir() and not any(self.path.iterdir()):
            self.path.rmdir()

    def begin(self, config: TrainConfig, data: dict[str, Any], precision: str, *, resumed: bool) -> None:
        """Write `config.json`: settings, data, versions, machine, precision and its reason."""
        packages = ("torch", "diffusers", "transformers", "numpy")
        facts = {
            "config": config.to_dict(),
            "data": data,
            "precision": precision,
            "versions": {"mame-lib": __version__, "python": platform.python_version()}
            | {p: version(p) for p in packages},
            "machine": {"system": platform.platform(), "cpus": os.cpu_count(), "threads": torch.get_num_threads()},
        }
        self._write("config.json", json.dumps(facts, indent=2) + "\n")
        if not resumed:
            self._write("log.jsonl", "")

    def _write(self, name: str, text: str) -> None:
        temporary = self.path / f"{name}.partial"
        temporary.write_text(text)
        os.replace(temporary, self.path / name)

    def log(self, step: int, loss: float, grad_norm: float, learning_rate: float, seconds: float) -> None:
        """Append one line to `log.jsonl`."""
        line = {
            "step": step,
            "loss": loss,
            "grad_norm": grad_norm,
            "learning_rate": learning_rate,
            "seconds": round(seconds, 3),
        }
        with (self.path / "log.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")

    def save_samples(self, step: int, images: np.ndarray) -> None:
        """Write the validation images of a step side by side, `samples/step-000100.png`."""
        folder = self.path / "samples"
        folder.mkdir(exist_ok=True)
        Image.fromarray(np.concatenate(list(images), axis=1)).save(folder / f"step-{step:06d}.png")

    def checkpoint(self, step: int, components: Components, optimizer: torch.optim.Optimizer, ema: EMA) -> None:
        """Write `checkpoints/step-N` whole, then remove older ones."""
        networks = {"unet": components.unet, "text_encoder": components.text_encoder, "ema": ema.tensors()}
        folder = self.path / "checkpoints" / f"step-{step:06d}"
        write_checkpoint(folder, networks, optimizer, {"step": step, "ema_updates": ema.updates})
        for old in (self.path / "checkpoints").glob("step-*"):
            if old != folder:
                shutil.rmtree(old)

    def restore(self, components: Components, optimizer: torch.optim.Optimizer, ema: EMA) -> int:
        """Load the newest complete checkpoint and cut the log back to it; returns the step it was taken at."""
        complete = sorted(
            path.parent for path in (self.path / "checkpoints").glob("step-*/state.json") if path.parent.suffix == ""
        )
        if not complete:
            raise InputError(f"{self.path} has no checkpoint to resume from; start again in another run folder.")
        files, info = read_checkpoint(complete[-1])
        components.unet.load_state_dict(files["unet"])
        components.text_encoder.load_state_dict(files["text_encoder"])
        restore_optimizer(optimizer, files["optimizer"])
        ema.restore(files["ema"], info["ema_updates"])
        lines = (self.path / "log.jsonl").read_text().splitlines(keepends=True)
        self._write("log.jsonl", "".join(line for line in lines if json.loads(line)["step"] <= info["step"]))
        return int(info["step"])

    def save_model(self, config: TrainConfig, components: Components, step: int) -> Path:
        """Write `model/`: an ordinary diffusers folder with `mame.json`, of whatever weights the networks hold now."""
        facts = json.loads((self.path / "config.json").read_text())
        components.info = {
            "format": 1,
            "library": __version__,
            "preset": config.preset,
            "base": name_of(config.base_model),
            "prompt_grammar": GRAMMAR_VERSION,
            "sampler": SAMPLER,
            "training": {
                "steps": step, "batch_size": config.rows, "images": facts["data"]["images"],
                "learning_rate": config.peak_rate,
                "caption_dropout": config.caption_dropout, "seed": config.seed, "captions": facts["data"]["captions"],
                "versions": facts["versions"],
            },
        }  # fmt: skip
        components.save(self.path / "model")
        return self.path / "model"
