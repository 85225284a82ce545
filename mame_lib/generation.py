"""`Mame`: from a sentence and a seed to a mammogram."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mame_lib.data.case import Attributes
from mame_lib.data.places import PAPER_AREA, PAPER_ASPECT
from mame_lib.data.prompts import compose, sentence_of
from mame_lib.diffusion.samplers import SamplerState
from mame_lib.errors import InputError
from mame_lib.inpaint import FEATHER, Inpainter, check_settings, places
from mame_lib.models.components import Components
from mame_lib.models.latents import decode
from mame_lib.models.sampling import seeded_states
from mame_lib.models.text import PromptStates
from mame_lib.redraw import MOST_TRIES, Asked, Judge, Prompt, judge_for, redraw_seed, screened
from mame_lib.synthetic import Generated as Generated  # both are part of this module's face
from mame_lib.synthetic import Inpainted as Inpainted


class Mame(Inpainter):
    """A loaded model. Everything it makes depends on the arguments and the seed alone."""

    def __init__(self, components: Components, name: str) -> None:
        self.components, self.name = components, name

    @classmethod
    def load(cls, model: str | Path = "fused", device: str | None = None) -> Mame:
        """Load a shipped model (`fused`), a preset (`tiny`, `sd15`), a model folder or a Hub id.

        `device` is chosen when not given: CUDA where there is one. Raises `InputError` when it cannot be loaded.
        """
        components = Components.load(model)
        return cls(components.to(device or ("cuda" if torch.cuda.is_available() else "cpu")), str(model))

    def save(self, folder: str | Path) -> None:
        """Write the model as an ordinary diffusers pipeline folder with float16 safetensors."""
        self.components.save(Path(folder))

    def trajectory(
        self,
        prompts: Sequence[str],
        *,
        indices: Sequence[int],
        seed: int = 0,
        negative_prompt: str = "",
        guidance_scale: float = 4.0,
        guidance_rescale: float | None = None,
        guidance_interval: tuple[int, int] | None = None,
        steps: int = 24,
        sampler: str = "dpm_solver_pp",
        spacing: str = "trailing",
    ) -> Iterator[SamplerState]:
        """Every state of the walk from noise to latents for one batch, image `indices[k]` following `prompts[k]`.

        The other arguments are those of `stream` and of `models.sampling.sample_states`.
        """
        states = self._text()([*prompts, negative_prompt])  # [B + 1, L, D]
        return self._walk(
            states, indices, seed, guidance_scale=guidance_scale, guidance_rescale=self._rescale(guidance_rescale),
            guidance_interval=guidance_interval, steps=steps, sampler=sampler, spacing=spacing,
        )  # fmt: skip

    def _text(self) -> PromptStates:
        return PromptStates(self.components.tokenizer, self.components.text_encoder)

    def _walk(self, states: torch.Tensor, indices: Sequence[int], seed: int, **options: Any) -> Iterator[SamplerState]:
        """The walk for text states `[B + 1, L, D]`, the last row being the negative prompt's."""
        return seeded_states(self.components, states, indices, seed, **options)

    def decode(self, latents: torch.Tensor) -> np.ndarray:
        """Latents `[B, 4, h, w]` of a state to gray uint8 images `[B, n, n]`."""
        return decode(self.components.vae, latents)

    def generate(
        self,
        prompt: Prompt | Sequence[Prompt],
        *,
        negative_prompt: str = "",
        guidance_scale: float = 4.0,
        guidance_rescale: float | None = None,
        guidance_interval: tuple[int, int] | None = None,
        steps: int = 24,
        seed: int = 0,
        count: int | None = None,
        start_index: int = 0,
        batch_size: int = 8,
        sampler: str = "dpm_solver_pp",
        quality: str | Judge | None = None,
        most_tries: int = MOST_TRIES,
    ) -> list[Generated]:
        """Generate mammograms; see `stream` for the arguments. Returns them all as a list."""
        return list(
            self.stream(
                prompt,
                negative_prompt=negative_prompt,
                guidance_scale=guidance_scale,
                guidance_rescale=guidance_rescale,
                guidance_interval=guidance_interval,
                steps=steps,
                seed=seed,
                count=count,
                start_index=start_index,
                batch_size=batch_size,
                sampler=sampler,
                quality=quality,
                most_tries=most_tries,
            )
        )

    def stream(
        self,
        prompt: Prompt | Sequence[Prompt],
        *,
        negative_prompt: str = "",
        guidance_scale: float = 4.0,
        guidance_rescale: float | None = None,
        guidance_interval: tuple[int, int] | None = None,
        steps: int = 24,
        seed: int = 0,
        count: int | None = None,
        start_index: int = 0,
        batch_size: int = 8,
        sampler: str = "dpm_solver_pp",
        quality: str | Judge | None = None,
        most_tries: int = MOST_TRIES,
    ) -> Iterator[Generated]:
        """Generate mammograms one after another (paper section 2.3.5, with its 24 steps and guidance 4).

        Parameters
        ----------
        prompt : a sentence, `Attributes`, or a sequence of them that is gone through again and again. Any sentence is
            accepted. With laterality R the image is mirrored, for the model has only seen breasts facing left.
        guidance_rescale : 0 to 1, how far the spread that guidance adds is taken back (`diffusion.guidance.combine`);
            by default what the model's settings say, which is 0 but for models with zero terminal SNR.
        guidance_interval : (low, high), the timesteps with guidance. At the others the UNet follows the prompt alone,
            in half the time; the images differ a little. By default guidance acts at all.
        count : images in all; by default one a prompt.
        seed, start_index : image k depends on model, prompt, settings, seed and start_index + k alone,
            whatever the batch.
        quality : "screen" draws an image again, from noise of its own, in which `evaluation.failures` finds one of the
            paper's four failures. Or any function of uint8 images and their prompts that says how bad each is, above
            1 too bad, or True of those that may be kept. Images then no longer are a fair sample of the model's.
        most_tries : draws of one image, the first included. If all are too bad the least bad is kept, and says so.

        Raises
        ------
        InputError
            For steps below 1 or above the training timesteps, a guidance scale that is not finite, a rescale outside
            0 to 1, an interval that does not lie within the timesteps, an empty list, an unknown quality.
        """
        prompts = [prompt] if isinstance(prompt, str | Attributes) else list(prompt)
        number = len(prompts) if count is None else count
        if not prompts:
            raise InputError("there is no prompt; give at least one sentence.")
        check_settings(number, batch_size, steps, guidance_scale, self._rescale(guidance_rescale), self.components)
        options: dict[str, Any] = dict(
            guidance_scale=float(guidance_scale), guidance_rescale=self._rescale(guidance_rescale),
            guidance_interval=guidance_interval, steps=steps, sampler=sampler,
        )  # fmt: skip
        judge = judge_for(quality, most_tries)
        made = dict(options, negative_prompt=negative_prompt, seed=seed, model=self.name)
        text = self._text()

        def draw(asked: Asked, number: int) -> list[Generated]:
            indices = [index for index, _ in asked]
            sentences = [compose(one) if isinstance(one, Attributes) else one for _, one in asked]
            walk = self._walk(text([*sentences, negative_prompt]), indices, redraw_seed(seed, number), **options)
            for state in walk:
                latents = state.sample
            return [
                Generated(pixels=_facing(pixels, one), prompt=sentence, index=index, **made)
                for (index, one), sentence, pixels in zip(asked, sentences, self.decode(latents), strict=True)
            ]

        for first in range(0, number, batch_size):
            numbers = range(first, min(first + batch_size, number))
            asked = [(start_index + k, prompts[k % len(prompts)]) for k in numbers]
            yield from draw(asked, 0) if judge is None else screened(draw, asked, judge, most_tries)

    def generate_with_lesion(
        self,
        prompt: Prompt | Sequence[Prompt],
        box: Sequence[float] | str = "auto",
        *,
        inpainter: Mame | str | Path | None = None,
        finding: str = "lesion",
        lesion_prompt: str | None = None,
        lesion_guidance_scale: float = 4.0,
        feather: float = FEATHER,
        area: tuple[float, float] = PAPER_AREA,
        aspect: tuple[float, float] = PAPER_ASPECT,
        **options: Any,
    ) -> list[Inpainted]:
        """The paper's pipeline in one call (Fig. 8): a healthy breast from a sentence, then a lesion in it.

        Parameters
        ----------
        box : half-open (x0, y0, x1, y1) in pixels, the same in all images, or "auto": a plausible place of its own in
            each (`inpaint.places`, with boxes of `area` and `aspect` as in `data.places.sample_box`).
        inpainter : the model that makes the lesion, loaded or by name; by default the one that ships, for 128 pixels.
        finding : a word of `data.case.FINDINGS`; lesion_prompt : any sentence, in place of that of the finding.
        options : those of `stream`, which make the breast; steps, seed and start_index hold for the lesion too.

        Returns
        -------
        list of `Inpainted`; `healthy` is the breast without its lesion, the same image but for the box.

        Raises `InputError` as `stream` and `inpaint` do, and for a breast that has no room for a box.
        """
        healthy = self.generate(prompt, **options)
        model = inpainter if isinstance(inpainter, Mame) else Mame.load(inpainter or self._inpainter())
        seed, start = options.get("seed", 0), options.get("start_index", 0)
        indices = range(start, start + len(healthy))
        if isinstance(box, str) and box != "auto":
            raise InputError(f'the box {box!r} is neither "auto" nor four numbers of pixels: x0, y0, x1, y1.')
        auto = isinstance(box, str)
        boxes: Any = list(places([one.pixels for one in healthy], seed, indices, area, aspect)) if auto else box
        shared = {key: options[key] for key in ("steps", "sampler", "batch_size") if key in options}
        filled = model.inpaint(
            list(healthy), box=boxes, prompt=lesion_prompt or sentence_of(finding), seed=seed, start_index=start,
            guidance_scale=lesion_guidance_scale, feather=feather, **shared,
        )  # fmt: skip
        return [replace(one, healthy=twin) for one, twin in zip(filled, healthy, strict=True)]

    def _inpainter(self) -> str:
        size = self.components.image_size
        if size != 128:
            raise InputError(f"the inpainting model that ships makes 128 pixels, not {size}; name one as inpainter.")
        return "inpaint"


def _facing(pixels: np.ndarray, asked: Prompt) -> np.ndarray:
    """Mirrored where a right breast was asked for: [n, n]."""
    mirrored = isinstance(asked, Attributes) and asked.laterality == "R"
    return np.ascontiguousarray(pixels[:, ::-1]) if mirrored else pixels
