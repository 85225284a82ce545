"""Synthetic images, each with the recipe it was made by: `Generated` from text, `Inpainted` in a mask."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from mame_lib import __version__
from mame_lib.data.levels import Levels, Mask
from mame_lib.data.places import Box
from mame_lib.errors import InputError
from mame_lib.models.components import NOTICE


def text_chunks(title: str, recipe: Mapping[str, Any]) -> dict[str, str]:
    """Text of a PNG: its title, how it was made (also as JSON, under "mame"), and that it is synthetic."""
    return {
        "Title": title,
        "Software": f"mame-lib {__version__}",
        "Disclaimer": NOTICE,
        **{key: str(value) for key, value in recipe.items()},
        "mame": json.dumps({**recipe, "version": __version__, "notice": NOTICE}),
    }


def save_png(image: Image.Image, chunks: Mapping[str, str], path: str | Path) -> Path:
    """Write a PNG with text chunks, whole or not at all; returns the path. Raises `InputError` when it cannot."""
    target = Path(path)
    info = PngInfo()
    for key, value in chunks.items():
        info.add_itxt(key, value)
    temporary = target.with_name(f".{target.name}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        image.save(temporary, format="PNG", pnginfo=info)
        os.replace(temporary, target)
    except OSError as error:
        raise InputError(
            f"cannot write {target} ({error.strerror or error}); choose a place you may write to."
        ) from error
    return target


@dataclass(frozen=True)
class Generated:
    """One synthetic image with all that is needed to make it again.

    `pixels` is uint8 `[n, n]`, gray, the breast facing left as in training (right when laterality R was asked for).
    With `quality`: `redrawn` says how often it was drawn again, `draw` which draw this is (0 the first; its noise is
    that of `redraw_seed(seed, draw)`), and `badness` what the judge said of it. Above 1 no draw was good enough, and
    this is the least bad; None is an image that nobody judged.
    """

    pixels: np.ndarray
    prompt: str
    negative_prompt: str
    guidance_scale: float
    guidance_rescale: float
    guidance_interval: tuple[int, int] | None
    steps: int
    sampler: str
    seed: int
    index: int
    model: str
    redrawn: int = 0
    draw: int = 0
    badness: float | None = None

    @property
    def image(self) -> Image.Image:
        """The image for Pillow, mode L."""
        return Image.fromarray(self.pixels)

    def metadata(self) -> dict[str, str]:
        """Text chunks of the PNG: how the image was made, and that it is synthetic."""
        recipe = {key: value for key, value in vars(self).items() if key != "pixels"}
        return text_chunks(f"Synthetic mammogram: {self.prompt}", recipe)

    def save(self, path: str | Path) -> Path:
        """Write a PNG with `metadata()` as text, whole or not at all; returns the path."""
        return save_png(self.image, self.metadata(), path)


@dataclass(frozen=True)
class Inpainted:
    """One picture with a filled mask, and all that is needed to make it again.

    `pixels` is of the type and size of `original`, and equal to it bit for bit wherever `mask`, bool [h, w], is False.
    `box` is the half-open extent (x0, y0, x1, y1) of the mask. `raw` is all that the model made, uint8 [n, n], facing
    left: what lies outside the mask there went through the autoencoder and differs a little from the original.
    `healthy` is the generated image without the lesion, where the picture was generated.
    """

    pixels: Levels
    original: Levels
    mask: Mask
    raw: NDArray[np.uint8]
    prompt: str
    negative_prompt: str
    guidance_scale: float
    guidance_rescale: float
    steps: int
    sampler: str
    seed: int
    index: int
    model: str
    feather: float
    keep_detail: bool
    healthy: Generated | None = field(default=None, repr=False)

    @property
    def box(self) -> Box:
        """The extent of the mask, half-open (x0, y0, x1, y1) in pixels of the picture."""
        rows, columns = np.flatnonzero(self.mask.any(1)), np.flatnonzero(self.mask.any(0))
        return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1

    @property
    def image(self) -> Image.Image:
        """The picture for Pillow, 8 or 16 bits of gray."""
        return Image.fromarray(self.pixels)

    def recipe(self) -> dict[str, Any]:
        """How it was made: the settings, the box, and those of the generated image if it was one."""
        pictures = ("pixels", "original", "mask", "raw", "healthy")
        made = {key: value for key, value in vars(self).items() if key not in pictures}
        if self.healthy is not None:
            made["healthy"] = {key: value for key, value in vars(self.healthy).items() if key != "pixels"}
        return {**made, "box": self.box}

    def metadata(self) -> dict[str, str]:
        """Text chunks of the PNG: how the picture was made, and that the lesion, at least, is synthetic."""
        return text_chunks(f"Mammogram with a synthetic lesion: {self.prompt}", self.recipe())

    def save(self, path: str | Path) -> Path:
        """Write the picture as a PNG with `metadata()` as text, and NAME.mask.png beside it; returns the path."""
        target = Path(path)
        chunks = self.metadata()
        white = np.where(self.mask, np.uint8(255), np.uint8(0))
        save_png(Image.fromarray(white), {**chunks, "Title": f"Mask of {target.name}"}, mask_path(target))
        return save_png(self.image, chunks, target)


def mask_path(picture: Path) -> Path:
    """Where the mask of a saved picture lies: a.png -> a.mask.png."""
    return picture.with_name(f"{picture.stem}.mask.png")
