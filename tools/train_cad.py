"""Train the detector of `mame_lib.evaluation.cad` on phantoms and write its weights.

    python tools/train_cad.py [--out mame_lib/weights/cad/cad.safetensors]

Draws breasts with and without a mass, sends a half of them through the tiny autoencoder, trains, and prints what each
part took. No real image is used.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from mame_lib.evaluation.cad import WEIGHTS, Detector, train_detector
from mame_lib.evaluation.cad_cases import Cases, decoded, draw_cases
from mame_lib.models.components import Components

TRAIN = 15_000_000  # seed of the phantoms; no other script draws them
BREASTS, STEPS = 600, 300


def cases(workers: int) -> Cases:
    """Every breast with and without its mass; every second breast through the autoencoder, both pictures of it."""
    drawn = draw_cases(range(BREASTS), TRAIN, workers=workers)
    far = drawn.breasts % 2 == 1
    return drawn.take(~far) + decoded(drawn.take(far), Components.load("tiny").vae)


def main() -> None:
    """Draw, train, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    ticks = [time.perf_counter()]
    shown = cases(options.workers)
    ticks.append(time.perf_counter())
    detector: Detector = train_detector(shown.images, shown.boxes, steps=STEPS, seed=1)
    ticks.append(time.perf_counter())
    drawing, training = np.diff(ticks)
    print(f"{len(shown)} images: {drawing:.0f} s to draw and decode, {training:.0f} s for {STEPS} steps")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    weights = {name: value.contiguous() for name, value in detector.state_dict().items()}
    save_file(weights, options.out, metadata={"seed": str(TRAIN), "steps": str(STEPS)})


if __name__ == "__main__":
    main()
