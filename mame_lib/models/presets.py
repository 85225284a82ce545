"""`Preset`, the only dial: the same code runs the tiny model on a laptop and Stable Diffusion 1.5 on a GPU."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from mame_lib.data.folders import aside_of
from mame_lib.errors import InputError

WEIGHTS = Path(__file__).resolve().parent.parent / "weights"


@dataclass(frozen=True)
class Preset:
    """A base model and the settings that suit its size.

    `source` is a folder or a Hub id; `image_size` in pixels; `learning_rate` and `batch_size` are the defaults of
    fine-tuning it (the paper's for `sd15`, section 2.4.2); `task` is `text-to-image` or `inpainting`.
    """

    name: str
    source: str
    image_size: int
    learning_rate: float
    batch_size: int
    about: str
    task: str = "text-to-image"


PRESETS = {
    "tiny": Preset(
        "tiny", str(WEIGHTS / "tiny"), 128, 1e-3, 16,
        "our own 128-pixel latent diffusion model, pretrained on procedural pictures; runs anywhere",
    ),
    "sd15": Preset(
        "sd15", "stable-diffusion-v1-5/stable-diffusion-v1-5", 512, 1e-6, 8,
        "Stable Diffusion 1.5 from the Hugging Face Hub, the paper's base; wants a CUDA GPU",
    ),
    "tiny-inpaint": Preset(
        "tiny-inpaint", str(WEIGHTS / "tiny"), 128, 1e-3, 16,
        "the tiny model, its UNet widened to see a mask and what lies around it", "inpainting",
    ),
    "sd15-inpaint": Preset(
        "sd15-inpaint", "stable-diffusion-v1-5/stable-diffusion-inpainting", 512, 1e-6, 8,
        "Stable Diffusion 1.5 for inpainting, the paper's base for lesions; wants a CUDA GPU", "inpainting",
    ),
}  # fmt: skip

# Models that ship with the library: the tiny base, and what was fine-tuned from it.
SHIPPED = {
    "tiny": PRESETS["tiny"].about,
    "hologic": "fine-tuned on phantoms with the look of Hologic; captions name view and area",
    "siemens": "fine-tuned on phantoms with the look of Siemens; captions name view and density",
    "fused": "fine-tuned on both looks, which its captions name; none names area and density at once",
    "inpaint": "draws masses into phantoms: it sees a mask and what lies around it",
}
MODELS = {
    name: WEIGHTS / name for name in SHIPPED if name != "tiny" and (WEIGHTS / name / "model_index.json").is_file()
}


def get_preset(name: str) -> Preset:
    """The preset called `name`; `InputError` lists the names when there is none."""
    if name not in PRESETS:
        raise InputError(f"preset {name!r} is unknown; choose {' or '.join(PRESETS)}.")
    return PRESETS[name]


def default_preset() -> Preset:
    """`sd15` where a CUDA GPU is present, otherwise `tiny`."""
    import torch

    return PRESETS["sd15" if torch.cuda.is_available() else "tiny"]


def resolve(model: str | Path) -> str:
    """Where a model lies: a shipped name, a preset, a folder, or a Hub id `owner/name`.

    Raises `InputError` when it is none of these, or a folder without a `model_index.json`.
    """
    text = str(model)
    if text in MODELS:
        return str(MODELS[text])
    if text in PRESETS:
        return PRESETS[text].source
    folder = Path(text)
    if not folder.exists() and aside_of(folder.absolute()).is_dir():  # a save was cut off between its two renames
        os.replace(aside_of(folder.absolute()), folder)
    if folder.is_dir():
        if (folder / "model_index.json").is_file():
            return text
        if (folder / "config.json").is_file():
            raise InputError(f"{folder} holds a single network, not a text-to-image model: it has no model_index.json.")
        hint = f"; did you mean {folder / 'model'}?" if (folder / "model" / "model_index.json").is_file() else "."
        raise InputError(f"{folder} is not a model folder: it has no model_index.json{hint}")
    parts = text.split("/")
    if isinstance(model, str) and len(parts) == 2 and all(parts) and parts[0] not in (".", "..", "~"):
        return text
    names = ", ".join([*MODELS, *PRESETS])
    raise InputError(
        f"there is no model {text!r}: give one of {names}, a model folder, or a Hub id such as owner/name."
    )
