"""What the empty prompt means to a model, with caption dropout in its training and without.

    python tools/train_tiny_models.py fused-short
    python tools/train_tiny_models.py fused-no-dropout
    python benchmarks/empty_prompt.py                   # a minute or two

Error: phantoms that no model has seen are noised to three timesteps, and the noise is predicted with their caption and
with the empty prompt. Images: six of each model without a prompt (guidance 0), as a sheet, a row a model.
Written to benchmarks/results/empty_prompt.json and empty_prompt.png.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from provenance import report
from sweeps import RESULTS, load
from torch import Tensor

from mame_lib.data.phantom import draw
from mame_lib.data.prompts import training_prompt
from mame_lib.diffusion.process import add_noise
from mame_lib.diffusion.start import initial_noise
from mame_lib.evaluation.sweep_models import weights_hash
from mame_lib.evaluation.sweep_sheet import notice
from mame_lib.generation import Mame
from mame_lib.models.latents import encode_moments
from mame_lib.models.text import encode_prompts

MODELS = ("fused-short", "fused-no-dropout")
PHANTOMS, COUNT = 995_000, 128
TIMESTEPS = (200, 500, 800)
SHOWN = 6


@torch.no_grad()
def errors(mame: Mame) -> dict[str, Any]:
    """Mean squared error of the noise estimate by timestep, with the caption, and without; and one of each phantom."""
    parts = mame.components
    drawn = [draw(seed=PHANTOMS, index=k) for k in range(COUNT)]
    moments = encode_moments(parts.vae, np.stack([one.image for one in drawn]))
    latents = moments.mean * parts.vae.config.scaling_factor  # [N, 4, h, w]
    noise = initial_noise(0, range(COUNT), parts.latent_shape)
    captions = encode_prompts(parts.tokenizer, parts.text_encoder, [training_prompt(one.attributes) for one in drawn])
    empty = encode_prompts(parts.tokenizer, parts.text_encoder, [""]).expand_as(captions)

    def error(context: Tensor, t: int) -> Tensor:
        times = torch.full((COUNT,), t)
        guess = parts.unet(add_noise(parts.schedule, latents, noise, times), times, encoder_hidden_states=context)
        return (guess.sample - noise).square().flatten(1).mean(1)  # [N]

    found = {}
    for t in TIMESTEPS:
        text, free = error(captions, t), error(empty, t)
        gap = free - text  # of the same phantom and noise
        found[str(t)] = {
            "caption": round(float(text.mean()), 6),
            "empty": round(float(free.mean()), 6),
            "gap": round(float(gap.mean()), 6),
            "gap_error": round(float(gap.std() / COUNT**0.5), 6),  # standard error
        }
    return found


def images(mame: Mame) -> NDArray[np.uint8]:
    """Images [6, n, n] without a prompt."""
    return np.stack([one.pixels for one in mame.generate("", guidance_scale=0.0, count=SHOWN)])


def main() -> None:
    """Measure the models, store numbers and sheet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    torch.set_num_threads(1)
    began = time.process_time()
    models = {name: load(name) for name in MODELS}
    result: dict[str, Any] = {
        "phantoms": COUNT,
        "weights": {name: weights_hash(mame.components) for name, mame in models.items()},
        "errors": {name: errors(mame) for name, mame in models.items()},
    }
    sheet = np.concatenate([np.concatenate(list(images(mame)), axis=1) for mame in models.values()])
    Image.fromarray(sheet).save(RESULTS / "empty_prompt.png", optimize=True, pnginfo=notice())
    seconds = round(time.process_time() - began, 1)
    report(result, RESULTS / "empty_prompt.json", "torch", seconds=seconds)


if __name__ == "__main__":
    main()
