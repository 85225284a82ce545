"""Fit the readers of `mame_lib.evaluation.findings` on phantoms and write their coefficients.

    python tools/fit_findings.py [--count 900] [--out mame_lib/weights/findings/findings.json]

Draws `--count` breasts, each with one lesion, in turn a mass, a spiculated mass and a calcification cluster, and every
third one without as well: three minutes on one core. The specks of the clusters are drawn brighter than they are:
at 128 pixels true ones are fainter than the tissue they lie in, and a reader would learn to guess. Each image counts
twice, with the lesion's own box and with one up to a quarter wider on each side. No real image is used.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mame_lib import __version__
from mame_lib.data.lesions import LesionSpec
from mame_lib.data.phantom import Phantom, draw
from mame_lib.errors import InputError
from mame_lib.evaluation.degradations import round_trip
from mame_lib.evaluation.findings import COEFFICIENTS, READ, SIGNS, confusion, fit, signs
from mame_lib.models.components import Components

TRAIN, TEST = 3_200_000, 3_300_000  # seeds of the phantoms
AREA = (0.003, 0.04)  # box area / image area, uniform in the logarithm: that of the inpainting model's training
SPECKS = (0.4, 1.4)  # largest added attenuation of clusters; about 0.05 would be true
WIDER = 0.25  # of the box, on each side, at most


class Sample(NamedTuple):
    """One picture, uint8 [n, n], with the word that is true of its box."""

    image: NDArray[np.uint8]
    box: tuple[int, int, int, int]
    breast: NDArray[np.bool_]
    word: str


def with_lesion(seed: int, index: int, finding: str) -> Phantom:
    """Phantom `index` with a lesion of `AREA`, smaller where the breast has no room for it."""
    rng = np.random.default_rng([seed, index])
    chance, place, bright = rng.random(3)
    area = AREA[0] * (AREA[1] / AREA[0]) ** place
    contrast = SPECKS[0] + bright * (SPECKS[1] - SPECKS[0])
    while True:
        spec = LesionSpec.of_finding(finding, chance, area)
        spec = replace(spec, contrast=contrast) if spec.kind == "calcifications" else spec
        try:
            return draw(seed=seed, index=index, lesion=spec)
        except InputError:
            area *= 0.7


def samples(seed: int, count: int) -> Iterator[Sample]:
    """`count` breasts with a lesion each, in turn of each kind; every third also without, under "nothing"."""
    for index in range(count):
        word = READ[1 + index % 3]
        ill = with_lesion(seed, index, word)
        yield Sample(ill.image, ill.lesions[0].box, ill.mask, word)
        if (index // 3) % 3 == index % 3:  # as many beside lesions of each kind
            yield Sample(draw(seed=seed, index=index).image, ill.lesions[0].box, ill.mask, READ[0])


def widened(box: tuple[int, int, int, int], size: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Up to `WIDER` of the box more on each side, within the image."""
    x0, y0, x1, y1 = box
    left, up, right, down = rng.uniform(0, WIDER, 4) * [x1 - x0, y1 - y0, x1 - x0, y1 - y0]
    return max(0, round(x0 - left)), max(0, round(y0 - up)), min(size, round(x1 + right)), min(size, round(y1 + down))


def table(images: NDArray[np.uint8], some: list[Sample], *, wide: bool) -> NDArray[np.float64]:
    """Signs `[N, 8]` of the boxes, their own or widened ones."""
    rng = np.random.default_rng(0)
    boxes = [widened(one.box, len(one.image), rng) if wide else one.box for one in some]
    return np.stack([signs(image, box, one.breast) for image, box, one in zip(images, boxes, some, strict=True)])


def main() -> None:
    """Draw, fit, say what a held-out third is read as, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=900)
    parser.add_argument("--out", type=Path, default=COEFFICIENTS)
    options = parser.parse_args()
    vae = Components.load("tiny").vae
    train, test = list(samples(TRAIN, options.count)), list(samples(TEST, options.count // 3))
    pictures = [np.stack([one.image for one in some]) for some in (train, test)]
    readers: dict[str, Any] = {}
    for world in ("drawn", "decoded"):
        seen, held = pictures if world == "drawn" else [round_trip(images, vae) for images in pictures]
        rows = np.concatenate([table(seen, train, wide=wide) for wide in (False, True)])
        reader = fit(rows, [one.word for one in train] * 2)
        found = reader.chances(table(held, test, wide=False)).argmax(1)
        counts = confusion([one.word for one in test], [READ[k] for k in found])
        print(world, counts, sep="\n")
        readers[world] = {
            **{name: np.round(getattr(reader, name), 5).tolist() for name in ("mean", "sd", "weights")},
            "held_out": counts.tolist(),
        }
    result = {
        "what": "multinomial logistic regression of mame_lib.evaluation.findings; held_out: [true word, read word]",
        "words": READ, "signs": SIGNS, "readers": readers,
        "provenance": {
            "command": f"python tools/fit_findings.py --count {options.count}", "date": time.strftime("%Y-%m-%d"),
            "library": __version__, "seeds": [TRAIN, TEST], "images": [len(train), len(test)],
            "area": AREA, "contrast_of_specks": SPECKS,
        },
    }  # fmt: skip
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
