"""Where the images of a population are made: `Studio.make` draws one block, the same to the bit whoever asks for it.

On a processor the last bits of a convolution depend on how many images are computed at once and on the number of
threads. So a block of eight consecutive images is always made as a whole, on one thread. (Another processor or
another version of torch may still round in another way; the data card names the versions.)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from mame_lib.data.case import Attributes
from mame_lib.data.places import Box, free_area, sample_box
from mame_lib.diffusion.start import generator_for
from mame_lib.errors import InputError
from mame_lib.evaluation.attributes import Measured, measure_all
from mame_lib.evaluation.sweep_models import weights_hash
from mame_lib.generation import Generated, Inpainted, Mame
from mame_lib.inpaint import canvas_of, fill
from mame_lib.models.components import name_of
from mame_lib.synthesize.plan import Plan, block
from mame_lib.synthesize.spec import Spec

SAMPLER = "dpm_solver_pp"


@dataclass(frozen=True)
class Made:
    """One image and how it came about. measured: of the breast, before any lesion was put into it."""

    plan: Plan
    breast: Generated
    measured: Measured
    lesion: Inpainted | None = None

    @property
    def image(self) -> Generated | Inpainted:
        """What goes into the data set."""
        return self.lesion or self.breast

    @property
    def attributes(self) -> Attributes:
        """What the image was asked to show; without the finding where the breast had no room for its box."""
        return replace(self.plan.attributes, finding=self.plan.attributes.finding if self.lesion else None)

    @property
    def prompt(self) -> str:
        """The caption: of the lesion where there is one, as in every data set of ours."""
        return self.plan.lesion_prompt if self.lesion and self.plan.lesion_prompt else self.plan.prompt


class Studio:
    """The models of a population, loaded. `weights` holds the hash of each."""

    def __init__(self, spec: Spec, device: str | None = None) -> None:
        """Raises `InputError` if a model can't be loaded or is of the wrong kind."""
        self.spec = spec
        self.model = _load(spec.model, device, inpainting=False)
        self.inpainter = _load(spec.inpainter, device, inpainting=True) if spec.has_lesions else None
        total = len(self.model.components.schedule)
        if spec.steps > total:
            raise InputError(f"steps is {spec.steps}, but the model {spec.model} has {total} timesteps.")
        self.weights = {"model": weights_hash(self.model.components)}
        if self.inpainter is not None:
            sides = [one.components.image_size for one in (self.model, self.inpainter)]
            if sides[0] != sides[1]:
                raise InputError(f"{spec.model} makes {sides[0]} pixels, {spec.inpainter} {sides[1]}; choose a pair.")
            self.weights["inpainter"] = weights_hash(self.inpainter.components)

    def make(self, number: int) -> list[Made]:
        """The images of block `number`, all of them."""
        plans, spec = block(self.spec, number), self.spec
        with one_thread():
            breasts = self.model.generate(
                [one.prompt for one in plans], guidance_scale=spec.guidance_scale, steps=spec.steps, seed=spec.seed,
                start_index=plans[0].index, batch_size=len(plans), quality="screen" if spec.screen else None,
                most_tries=spec.most_tries, sampler=SAMPLER,
            )  # fmt: skip
            measured = measure_all([breast.pixels for breast in breasts])
            boxes = [
                _place(seen, spec, one.index) if one.lesion_prompt else None
                for one, seen in zip(plans, measured, strict=True)
            ]
            lesions = self._lesions(plans, breasts, boxes)
        return [
            Made(one, breast, seen, lesions.get(one.index))
            for one, breast, seen in zip(plans, breasts, measured, strict=True)
        ]

    def _lesions(
        self, plans: Sequence[Plan], breasts: Sequence[Generated], boxes: Sequence[Box | None]
    ) -> dict[int, Inpainted]:
        """Lesions in the breasts that have a box, by their numbers, all made at once."""
        ill = [k for k, box in enumerate(boxes) if box is not None]
        if not ill or self.inpainter is None:
            return {}
        parts, spec = self.inpainter.components, self.spec
        filled = fill(
            parts, self.inpainter.name,
            [canvas_of(breasts[k], None, boxes[k], parts.image_size) for k in ill],
            [plans[k].lesion_prompt or "" for k in ill], [plans[k].index for k in ill], spec.seed,
            guidance_scale=spec.lesion_guidance_scale, steps=spec.steps, sampler=SAMPLER,
            guidance_rescale=float(parts.info.get("sampler", {}).get("guidance_rescale", 0.0)),
        )  # fmt: skip
        return {plans[k].index: one for k, one in zip(ill, filled, strict=True)}


def _place(measured: Measured, spec: Spec, index: int) -> Box | None:
    """The box that `Mame.generate_with_lesion` would take, or None where none fits."""
    rng = np.random.default_rng(generator_for(spec.seed, "place", index).initial_seed())
    try:
        return sample_box(free_area(measured.mask, measured.pectoral), rng)
    except InputError:
        return None


def _load(name: str, device: str | None, *, inpainting: bool) -> Mame:
    model = Mame.load(name, device)
    if model.components.inpainting != inpainting:
        wanted = "an inpainting model, such as inpaint" if inpainting else "a text-to-image model, such as fused"
        raise InputError(f"{name} is the wrong kind of model here; name {wanted}.")
    return Mame(model.components, name_of(name))  # a data set does not tell where things lie on a disk


@contextmanager
def one_thread() -> Iterator[None]:
    """torch computes on one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def recipe(made: Made, spec: Spec, weights: dict[str, str]) -> dict[str, Any]:
    """All that is needed to make the image again, and what was measured on it."""
    breast, measured, lesion = made.breast, made.measured, made.lesion
    values: dict[str, Any] = {
        "prompt": breast.prompt, "order": made.plan.order, "seed": breast.seed, "draw": breast.draw,
        "redrawn": breast.redrawn, "badness": None if breast.badness is None else round(breast.badness, 4),
        "asked": made.plan.attributes.to_dict(), "weights": weights,
    }  # fmt: skip
    if lesion is not None:
        values["lesion"] = {
            "prompt": lesion.prompt, "seed": lesion.seed, "box": list(lesion.box),
            "guidance_scale": lesion.guidance_scale, "feather": lesion.feather,
        }  # fmt: skip
    elif made.plan.lesion_prompt:
        values["lesion"] = None  # no room
    values["measured"] = {
        "vendor": measured.vendor, "view": measured.view, "area": measured.area, "density": measured.density,
        "area_ratio": round(measured.area_ratio, 5), "density_index": round(measured.density_index, 4),
    }  # fmt: skip
    return values
