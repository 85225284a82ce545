"""Any model that we can read, written anew as a complete diffusers folder of safetensors files.

This is the only place where pickled weights (`.bin`, `.pt`) are opened, and only with `weights_only=True`: the reader
then knows tensors and plain containers, and refuses a file that asks for anything else before any of it has run.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from mame_lib import __version__
from mame_lib.errors import InputError
from mame_lib.models.components import Components
from mame_lib.models.hub import NETWORKS, OURS, PARTS, fetch, listing, places, weight_files
from mame_lib.models.presets import resolve
from mame_lib.models.saving import START, name_of

DTYPES = {"float16": torch.float16, "float32": torch.float32}


def convert(model: str | Path, out: Path, dtype: torch.dtype = torch.float16) -> Path:
    """Write the model to the new folder `out` with weights in `dtype`; returns `out`.

    model : a shipped name, a preset, a folder, or a Hub id; its weights may be safetensors or pickled.

    `mame.json` of the new folder records the SHA-256 of every file of weights that was read.

    Raises
    ------
    InputError
        If the model cannot be found or read, a pickled file holds more than tensors, or `out` is there already.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} is there already; name a new folder.")
    source = resolve(model)
    folder = Path(source) if Path(source).is_dir() else fetch(source, pickled=True)
    found = places(folder)
    files = {part: weight_files((f"{part}/{n}" for n in listing(found[part])), part) for part in NETWORKS}
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as work:
            digests = {name: _digest(found[part] / Path(name).name) for part in NETWORKS for name in files[part]}
            components = Components.load(_without_pickles(folder, found, files, Path(work)))
            said = {"sources": digests, "dtype": str(dtype).removeprefix("torch."), "library": __version__}
            components.info = {"base": name_of(str(model)), **components.info, "converted": said}
            components.save(out, dtype=dtype)
    except OSError as error:
        raise InputError(f"cannot convert the model ({error.strerror}: {error.filename}); make room there.") from error
    return out


def _without_pickles(folder: Path, found: dict[str, Path], files: dict[str, list[str]], work: Path) -> Path:
    """The folder itself, or, if some of its weights are pickled, one in `work` that holds them as safetensors."""
    if not any(".bin" in name for names in files.values() for name in names):
        return folder
    for name in ("model_index.json", OURS, START):
        if (folder / name).is_file():
            shutil.copyfile(folder / name, work / name)
    for part in PARTS:
        (work / part).mkdir()
        pickled = [name for name in files.get(part, []) if name.endswith(".bin")]
        kept = [path for path in found[part].iterdir() if path.suffix in (".json", ".txt")]
        if not pickled:
            kept += [found[part] / Path(name).name for name in files.get(part, [])]
        for path in kept:
            if not (pickled and ".index." in path.name):
                shutil.copyfile(path, work / part / path.name)
        if pickled:
            tensors: dict[str, Tensor] = {}
            for name in pickled:
                tensors.update(read_pickled(found[part] / Path(name).name))
            save_file(tensors, work / part / f"{NETWORKS[part][1]}.safetensors", metadata={"format": "pt"})
    return work


def read_pickled(path: Path) -> dict[str, Tensor]:
    """The tensors of a file that `torch.save` wrote, on the CPU, by name; nothing in the file is run.

    Raises `InputError` if it holds anything but named tensors, or is damaged.
    """
    try:
        # A zip archive, the format since 2019, is mapped into memory rather than read.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a strange file torch says how strange it is
            content: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=_is_zip(path))
    except Exception as error:  # what a damaged file raises depends on where it is damaged
        if type(error).__name__ == "UnpicklingError":
            raise InputError(
                f"{path.name} was not opened: it holds more than tensors, or is no file of weights; do not use it."
            ) from error
        raise InputError(f"{path.name} is damaged, or no file of weights; fetch it again.") from error
    if not isinstance(content, dict) or not all(isinstance(v, Tensor) for v in content.values()):
        raise InputError(f"{path.name} holds no named tensors as those of a diffusers folder; it can't be converted.")
    # Tensors that share memory, or are parts of larger ones, become whole ones of their own.
    return {str(name): tensor.detach().clone().contiguous() for name, tensor in content.items()}


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def _digest(path: Path) -> str:
    """SHA-256 of a file, as `sha256sum` prints it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
