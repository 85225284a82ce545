"""A mask in a mammogram, filled by an inpainting model: what `Mame.inpaint` and `Mame.generate_with_lesion` do."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mame_lib.data.canvas import Canvas
from mame_lib.data.levels import Source, mask_of_box, read_levels, read_mask
from mame_lib.data.places import PAPER_AREA, PAPER_ASPECT, Box, free_area, sample_box
from mame_lib.data.prompts import LESION_PROMPT
from mame_lib.diffusion.start import generator_for
from mame_lib.errors import InputError
from mame_lib.models.components import Components
from mame_lib.models.inpainting import blank, latent_mask, snap
from mame_lib.models.latents import decode, encode_moments
from mame_lib.models.sampling import seeded_states
from mame_lib.models.text import PromptStates
from mame_lib.synthetic import Generated, Inpainted

Picture = Source | Generated | Inpainted

FEATHER = 3.0  # pixels of the model; see benchmarks/lesions.py for what it does to the seam


def canvas_of(image: Any, mask: Any, box: Sequence[float] | None, size: int) -> Canvas:
    """The picture and the mask that were given, checked; see `Mame.inpaint`."""
    levels = read_levels(image.pixels if isinstance(image, Generated | Inpainted) else image)
    if (mask is None) == (box is None):
        raise InputError("give either a mask or a box of what is to be filled, and not both.")
    shape = (levels.shape[0], levels.shape[1])
    inside = read_mask(mask, shape) if box is None else mask_of_box(box, shape)
    return Canvas(levels, inside, size)


def fill(
    components: Components,
    name: str,
    canvases: Sequence[Canvas],
    prompts: Sequence[str],
    indices: Sequence[int],
    seed: int,
    *,
    negative_prompt: str = "",
    feather: float = FEATHER,
    keep_detail: bool = False,
    **options: Any,
) -> list[Inpainted]:
    """Fill one batch of canvases, canvas k under `prompts[k]` from the noise of `indices[k]`.

    The mask grows to whole cells of the latents for the model, as in training; what is pasted back is the mask alone.
    The other arguments are those of `Mame.inpaint` and `models.sampling.sample_states`.
    """
    vae, (_, side, _) = components.vae, components.latent_shape
    gray = np.stack([canvas.gray for canvas in canvases])  # [B, n, n] 0 … 255
    masks = np.stack([snap(canvas.small_mask, components.image_size // side) for canvas in canvases])  # [B, n, n]
    factor = float(vae.config.scaling_factor)
    around = encode_moments(vae, blank(gray, masks)).mean * factor  # [B, 4, h, w]
    text = PromptStates(components.tokenizer, components.text_encoder)([*prompts, negative_prompt])  # [B + 1, L, D]
    extra = torch.cat([latent_mask(masks, side), around], dim=1)  # [B, 5, h, w]
    for state in seeded_states(components, text, indices, seed, extra=extra, **options):
        latents = state.sample
    raws = decode(vae, latents)  # [B, n, n]
    before = decode(vae, encode_moments(vae, gray).mean * factor) if keep_detail else gray  # [B, n, n]
    made = dict(options, negative_prompt=negative_prompt, seed=seed, model=name, feather=feather)
    return [
        Inpainted(
            pixels=canvas.paste(raw.astype(np.float32) - old, feather), original=canvas.levels, mask=canvas.mask,
            raw=raw, prompt=prompt, index=index, keep_detail=keep_detail, **made,
        )
        for canvas, raw, old, prompt, index in zip(canvases, raws, before, prompts, indices, strict=True)
    ]  # fmt: skip


class Inpainter:
    """The part of `Mame` that fills masks."""

    components: Components
    name: str

    def _rescale(self, asked: float | None) -> float:
        """What is asked for, or what the model was trained to be sampled with."""
        return float(self.components.info.get("sampler", {}).get("guidance_rescale", 0.0) if asked is None else asked)

    def inpaint(
        self,
        image: Picture | list[Any],
        mask: Any = None,
        *,
        box: Sequence[Any] | None = None,
        prompt: str | list[str] = LESION_PROMPT,
        negative_prompt: str = "",
        guidance_scale: float = 4.0,
        guidance_rescale: float | None = None,
        steps: int = 24,
        seed: int = 0,
        count: int | None = None,
        start_index: int = 0,
        batch_size: int = 8,
        sampler: str = "dpm_solver_pp",
        feather: float = FEATHER,
        keep_detail: bool = False,
    ) -> list[Inpainted]:
        """Fill a mask in a mammogram (paper section 2.4.3); `self` must be an inpainting model.

        Parameters
        ----------
        image : file, Pillow image, uint8 or uint16 array [h, w] of any size, `Generated`; or a list of such. Either
            facing: it is turned for the model, and back.
        mask, box : what is to be filled, one for all or a list with one for each. A mask is a file, a Pillow image or
            an array of the image's size, white inside; a box is half-open (x0, y0, x1, y1) in pixels.
        prompt : what to put there, one for all or a list; by default the paper's sentence. "a mammogram" asks for
            healthy tissue and so removes a lesion, best without guidance: with 4 the place comes out too dark.
        count : pictures in all, going through the images again and again; by default one an image.
        seed, start_index : picture k depends on model, image, mask, settings, seed and start_index + k alone.
        feather : how softly the filling comes in at the border, inside the mask: the sigma of a blur, in pixels of the
            model (`data.canvas.feathered`). Corners become round. 0: all at once.
        keep_detail : what the autoencoder cannot carry of the picture, its finest texture, is kept inside the mask.

        Returns
        -------
        list of `Inpainted`, whose pixels outside the mask are those of the image, bit for bit.

        Raises
        ------
        InputError
            For an image or mask that cannot be used (`data.levels`), a mask off the breast, settings out of range, a
            model that does not inpaint.
        """
        images = image if isinstance(image, list) else [image]
        number = len(images) if count is None else count
        options = dict(
            guidance_scale=float(guidance_scale), guidance_rescale=self._rescale(guidance_rescale), steps=steps,
            sampler=sampler,
        )  # fmt: skip
        check_settings(number, batch_size, steps, guidance_scale, self._rescale(guidance_rescale), self.components)
        if not images:
            raise InputError("there is no image; give at least one.")
        if not (math.isfinite(feather) and feather >= 0):
            raise InputError(f"feather is {feather}, but must be 0 (a hard edge) or more pixels.")
        masks, prompts = (one_each(v, len(images), w) for v, w in ((mask, "masks"), (prompt, "prompts")))
        boxes = [box] * len(images) if box is None or _is_box(box) else one_each(box, len(images), "boxes")
        size = self.components.image_size
        canvases = [canvas_of(*one, size) for one in zip(images, masks, boxes, strict=True)]
        made: list[Inpainted] = []
        for first in range(0, number, batch_size):
            rows = [k % len(images) for k in range(first, min(first + batch_size, number))]
            made += fill(
                self.components, self.name, [canvases[row] for row in rows], [prompts[row] for row in rows],
                range(start_index + first, start_index + first + len(rows)), seed,
                negative_prompt=negative_prompt, feather=feather, keep_detail=keep_detail, **options,
            )  # fmt: skip
        return made


def check_settings(
    count: int, batch_size: int, steps: int, guidance_scale: float, guidance_rescale: float, components: Components
) -> None:
    """Raise `InputError` for numbers out of range, whatever is sampled."""
    if count < 1 or batch_size < 1:
        raise InputError(f"count is {count} and batch_size {batch_size}, but both must be at least 1.")
    total = len(components.schedule)
    if not 1 <= steps <= total:
        raise InputError(f"steps is {steps}, but must be between 1 and {total}.")
    if not math.isfinite(guidance_scale):
        raise InputError(f"guidance_scale is {guidance_scale}, but must be a finite number; the paper uses 4.")
    if not 0 <= guidance_rescale <= 1:
        raise InputError(f"guidance_rescale is {guidance_rescale}, but must lie between 0 (off) and 1.")


def _is_box(box: Sequence[Any]) -> bool:
    """Whether something is one box, not a list of boxes."""
    return all(isinstance(edge, int | float | np.number) for edge in box)


def one_each(value: Any, count: int, what: str) -> list[Any]:
    """`value` for each of `count` pictures: itself, if it is a list of that length; else the same for all."""
    if not isinstance(value, list):
        return [value] * count
    if len(value) != count:
        raise InputError(f"there are {len(value)} {what} for {count} pictures; give one, or one for each.")
    return value


def places(
    images: Sequence[NDArray[np.uint8]],
    seed: int,
    indices: Sequence[int],
    area: tuple[float, float] = PAPER_AREA,
    aspect: tuple[float, float] = PAPER_ASPECT,
) -> Iterator[Box]:
    """A plausible box in each image: in the breast, off its skin and its muscle as `evaluation.attributes` finds them.

    The box of an image depends on the image, the seed and its index alone.
    """
    from mame_lib.evaluation.attributes import measure_all  # it stands above this module, and is needed here alone

    for measured, index in zip(measure_all(images), indices, strict=True):
        rng = np.random.default_rng(generator_for(seed, "place", index).initial_seed())
        yield sample_box(free_area(measured.mask, measured.pectoral), rng, area=area, aspect=aspect)
