"""What the commands share: checks before the work, a bar during it, names for what it makes. Standard library only."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from mame_lib.errors import InputError


def check_out(out: Path) -> None:
    """Raise InputError if `out` cannot be made: its nearest ancestor is no folder or not writable."""
    ancestor = out.absolute().parent
    while not os.path.lexists(ancestor):
        ancestor = ancestor.parent
    if not ancestor.is_dir():
        raise InputError(f"{out} cannot be written, because {ancestor} is not a folder.")
    if not os.access(ancestor, os.W_OK | os.X_OK):
        raise InputError(f"{out} cannot be written, because the folder {ancestor} is not writable.")


def with_bar(items: Any, total: int | None, unit: str) -> Any:
    """The items, with a bar on stderr where that is a terminal."""
    from tqdm import tqdm

    return tqdm(items, total=total, unit=unit, file=sys.stderr, disable=None, leave=False)


def image_names(out: Path, count: int, seed: int) -> list[Path]:
    """Names of the images: a.png, a-1.png, a-2.png …, or seed-7-0.png, seed-7-1.png … in a folder."""
    if out.is_dir() or not out.suffix:
        if out.exists() and not out.is_dir():
            raise InputError(f"{out} is a file; give a folder, or a file name that ends in .png.")
        return [out / f"seed-{seed}-{index}.png" for index in range(count)]
    if out.suffix.lower() != ".png":
        raise InputError(f"{out} must end in .png (or be a folder); images are written as PNG only.")
    return [out] + [out.with_name(f"{out.stem}-{index}{out.suffix}") for index in range(1, count)]


def note_grammar(prompt: str) -> None:
    """Any sentence may be tried, but one that the model never saw a caption like deserves a word."""
    from mame_lib.data.prompts import parse

    try:
        parse(prompt)
    except InputError as error:
        print(f"mame: note: {error} The model draws what it makes of it.", file=sys.stderr)


def quiet_libraries() -> None:
    """Keep advice and loading bars of the libraries off stderr, unless the user has asked for them."""
    for name in ("DIFFUSERS_VERBOSITY", "TRANSFORMERS_VERBOSITY"):
        os.environ.setdefault(name, "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
