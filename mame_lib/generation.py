"""`Mame`: from a sentence and a seed to a mammogram."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from mame_lib import __version__
from mame_lib.data.case import Attributes
from mame_lib.data.prompts import compose
from mame_lib.diffusion.samplers import SamplerState
from mame_lib.diffusion.start import generators_for, initial_noise
from mame_lib.errors import InputError
from mame_lib.models.components import NOTICE, Components
from mame_lib.models.latents import decode
from mame_lib.models.sampling import sample_states
from mame_lib.models.text import PromptStates
from mame_lib.redraw import MOST_TRIES, Asked, Judge, Prompt, judge_for, redraw_seed, screened


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
        return {
            "Title": f"Synthetic mammogram: {self.prompt}",
            "Software": f"mame-lib {__version__}",
            "Disclaimer": NOTICE,
            **{key: str(value) for key, value in recipe.items()},
            "mame": json.dumps({**recipe, "version": __version__, "notice": NOTICE}),
        }

    def save(self, path: str | Path) -> Path:
        """Write a PNG with `metadata()` as text, whole or not at all; returns the path."""
        target = Path(path)
        info = PngInfo()
        for key, value in self.metadata().items():
            info.add_itxt(key, value)
        temporary = target.with_name(f".{target.name}.partial")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            self.image.save(temporary, format="PNG", pnginfo=info)
            os.replace(temporary, target)
        except OSError as error:
            raise InputError(
                f"cannot write {target} ({error.strerror or error}); choose a place you may write to."
            ) from error
        return target


class Mame:
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
        parts = self.components
        return sample_states(
            parts,
            initial_noise(seed, indices, parts.latent_shape),  # [B, 4, h, w]
            states[:-1],
            states[-1:],
            generators=generators_for(seed, "sampler", indices),
            **options,
        )

    def _rescale(self, asked: float | None) -> float:
        """What is asked for, or what the model was trained to be sampled with."""
        return float(self.components.info.get("sampler", {}).get("guidance_rescale", 0.0) if asked is None else asked)

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
        _check(prompts, number, guidance_scale, steps, batch_size, len(self.components.schedule))
        if not 0 <= self._rescale(guidance_rescale) <= 1:
            raise InputError(f"guidance_rescale is {guidance_rescale}, but must lie between 0 (off) and 1.")
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


def _facing(pixels: np.ndarray, asked: Prompt) -> np.ndarray:
    """Mirrored where a right breast was asked for: [n, n]."""
    mirrored = isinstance(asked, Attributes) and asked.laterality == "R"
    return np.ascontiguousarray(pixels[:, ::-1]) if mirrored else pixels


def _check(
    prompts: list[Any], count: int, guidance_scale: float, steps: int, batch_size: int, total_timesteps: int
) -> None:
    if not prompts:
        raise InputError("there is no prompt; give at least one sentence.")
    if count < 1 or batch_size < 1:
        raise InputError(f"count is {count} and batch_size {batch_size}, but both must be at least 1.")
    if not 1 <= steps <= total_timesteps:
        raise InputError(f"steps is {steps}, but must be between 1 and {total_timesteps}.")
    if not math.isfinite(guidance_scale):
        raise InputError(f"guidance_scale is {guidance_scale}, but must be a finite number; the paper uses 4.")
