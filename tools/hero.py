"""Draw the picture of the README: one image in the making, and what four sentences give.

    python tools/hero.py

Writes `book/_static/hero.png`, synthetic throughout.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from mame_lib.generation import Mame

PROMPTS = (
    "a hologic mammogram in CC view with big area",
    "a siemens mammogram in MLO view with high density",
    "a hologic mammogram in MLO view with medium area",
    "a siemens mammogram in CC view with low density",
)


def main() -> None:
    """Two rows of five pictures, 128 pixels each, on a dark ground."""
    mame = Mame.load("fused")
    walk = list(mame.trajectory(PROMPTS[1:2], indices=[0], seed=3))
    making = [mame.decode(walk[k].sample)[0] for k in (0, 9, 15, 19, 23)]
    made = [one.pixels for one in mame.generate(PROMPTS, seed=8, guidance_scale=2.0, count=5)]
    cells = [np.pad(image, 3, constant_values=38) for image in making + made]
    rows = [np.concatenate(cells[i : i + 5], axis=1) for i in (0, 5)]
    path = Path(__file__).resolve().parent.parent / "book" / "_static" / "hero.png"
    Image.fromarray(np.concatenate(rows)).save(path, optimize=True)


if __name__ == "__main__":
    main()
