"""How a model is written: an ordinary diffusers pipeline folder, there whole or not at all."""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from mame_lib.data.folders import replace_folder
from mame_lib.errors import InputError
from mame_lib.models.hub import NETWORKS, OURS

if TYPE_CHECKING:
    from mame_lib.models.components import Components

NOTICE = "synthetic, not for diagnosis"
START = "start.safetensors"
CARD = "README.md"
BASE = "tiny"  # the shipped model whose frozen parts the others use


def write_folder(
    components: Components, folder: Path, dtype: torch.dtype = torch.float16, shared: tuple[str, ...] = ()
) -> None:
    """Write the model's folder; an old one of that name is replaced once the new one is on the disk.

    shared : parts to leave out, which `mame.json` says are those of `tiny`; such a folder is for this library only.

    Raises
    ------
    InputError
        If there is no room or no permission, or a weight is too large for `dtype`; what was there is untouched.
    """
    folder = folder.absolute()
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        for part in NETWORKS:
            if part not in shared:
                _write_network(getattr(components, part), partial / part, NETWORKS[part][1], dtype)
        _write_pipeline(components, partial, shared)
        if components.start_mean is not None:
            known = {"mean": components.start_mean, "factor": components.start_factor}
            save_file({k: v.half().contiguous() for k, v in known.items() if v is not None}, partial / START)
        said = {**components.info, **({"shared": dict.fromkeys(shared, BASE)} if shared else {}), "notice": NOTICE}
        (partial / OURS).write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")
        if shared and (folder / CARD).is_file():
            shutil.copyfile(folder / CARD, partial / CARD)
        sync(partial)
        replace_folder(partial, folder)
        sync(folder.parent, deep=False)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"cannot write the model {folder} ({reason}); make room, or choose another place.") from error
    except InputError:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def write_shipped(components: Components, folder: Path) -> None:
    """Write a model fine-tuned from `tiny` without its frozen autoencoder and tokenizer, which `tiny` has already.

    A card (README.md) in the folder stays. Raises `InputError` if either differs from that of `tiny`.
    """
    base = type(components).load(BASE)
    mine, theirs = components.vae.state_dict(), base.vae.state_dict()
    same = mine.keys() == theirs.keys() and all(torch.equal(mine[key].cpu(), theirs[key]) for key in mine)
    if not same or components.tokenizer.get_vocab() != base.tokenizer.get_vocab():
        raise InputError(f"{folder} cannot share autoencoder and tokenizer with {BASE}: its own differ; save it whole.")
    write_folder(components, folder, shared=("vae", "tokenizer"))


def _write_network(network: Any, folder: Path, stem: str, dtype: torch.dtype) -> None:
    """Configuration and weights of one network, as `save_pretrained` writes them, without a copy of the network."""
    folder.mkdir()
    tensors = {}
    for name, tensor in network.state_dict().items():
        value = tensor.detach().to("cpu", dtype if tensor.is_floating_point() else tensor.dtype).contiguous()
        if value.is_floating_point() and not bool(value.isfinite().all()):
            what = "is not a number" if not bool(tensor.isfinite().all()) else f"is too large for {dtype}"
            raise InputError(f"cannot write {stem}: a weight of {name} {what}; save in float32, or train more gently.")
        tensors[name] = value
    if stem == "model":  # transformers 5 reads both; everyone else wants the long names
        tensors = {name if name.startswith("text_model.") else f"text_model.{name}": t for name, t in tensors.items()}
        config = copy.deepcopy(network.config)
        config.architectures, config.dtype = [type(network).__name__], dtype
        config.save_pretrained(folder)
    else:
        network.save_config(folder)
    save_file(tensors, folder / f"{stem}.safetensors", metadata={"format": "pt"})
    _forget_origin(folder / "config.json")


def _write_pipeline(components: Components, folder: Path, shared: tuple[str, ...]) -> None:
    """Tokenizer, scheduler and `model_index.json`; the scheduler is the one that the model is validated with."""
    import diffusers

    with quiet():
        scheduler = diffusers.DPMSolverMultistepScheduler.from_config(components.scheduler_config)
        scheduler.save_pretrained(folder / "scheduler")
        if "tokenizer" not in shared:
            components.tokenizer.save_pretrained(folder / "tokenizer")
            components.tokenizer.backend_tokenizer.model.save(str(folder / "tokenizer"))  # as older programs read it
    kind = "StableDiffusionInpaintPipeline" if components.inpainting else "StableDiffusionPipeline"
    index = {
        "_class_name": kind, "_diffusers_version": diffusers.__version__,
        "feature_extractor": [None, None], "image_encoder": [None, None],
        "requires_safety_checker": False, "safety_checker": [None, None],
        "scheduler": ["diffusers", type(scheduler).__name__], "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"], "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }  # fmt: skip
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _forget_origin(config: Path) -> None:
    """Drop the folder that a network was loaded from, which both libraries write into its configuration."""
    values = json.loads(config.read_text(encoding="utf-8"))
    values.pop("_name_or_path", None)
    config.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def sync(path: Path, *, deep: bool = True) -> None:
    """Have the system put a file, or a folder (`deep`: with all that is in it), on the disk now."""
    for inner in path.iterdir() if deep and path.is_dir() else ():
        sync(inner)
    if path.is_dir() and os.name == "nt":  # Windows can't open folders
        return
    number = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def name_of(model: str) -> str:
    """What may be said of a base model in a file: a shipped name or Hub id as it is, of a folder its last two names.

    A folder's whole path would tell about the machine, and perhaps whose it is.
    """
    path = Path(model)
    return "/".join(path.parts[-2:]) if path.is_absolute() or path.is_dir() else model


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the chatter and progress bars of diffusers and transformers inside the block, and restore them."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    both = (diffusers_logging, transformers_logging)
    before = [(log.get_verbosity(), log.is_progress_bar_enabled()) for log in both]
    for log in both:
        log.set_verbosity_error()
        log.disable_progress_bar()
    try:
        yield
    finally:
        for log, (verbosity, bars) in zip(both, before, strict=True):
            log.set_verbosity(verbosity)
            if bars:
                log.enable_progress_bar()
