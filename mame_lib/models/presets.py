"""`Preset`, the only dial: the same code runs the tiny model on a laptop and Stable Diffusion 1.5 on a GPU."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mame_lib.errors import InputError

WEIGHTS = Path(__file__).resolve().parent.parent / "weights"


@dataclass(frozen=True)
class Preset:
    """A base model and the settings that suit its size.

    `source` is a folder or a Hub id; `image_size` in pixels; `learning_rate` and `batch_size` are the defaults of
    fine-tuning it (the paper's for `sd15`, section 2.4.2).
    """

    name: str
    source: str
    image_size: int
    learning_rate: float
    batch_size: int
    about: str
    task: str = "text-to-image"  # or "inpainting"


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

# Fine-tuned models that ship with the library.
MODELS = {"fused": WEIGHTS / "fused"}


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
    if folder.is_dir():
        if (folder / "model_index.json").is_file():
            return text
        hint = f"; did you mean {folder / 'model'}?" if (folder / "model" / "model_index.json").is_file() else "."
        raise InputError(f"{folder} is not a model folder: it has no model_index.json{hint}")
    parts = text.split("/")
    if isinstance(model, str) and len(parts) == 2 and all(parts) and parts[0] not in (".", "..", "~"):
        return text
    names = ", ".join([*MODELS, *PRESETS])
    raise InputError(
        f"there is no model {text!r}: give one of {names}, a model folder, or a Hub id such as owner/name."
    )
