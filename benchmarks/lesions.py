"""How real do inpainted lesions look, and do they obey the words for findings? All arms on the same breasts and boxes.

    python benchmarks/lesions.py [--count 48] [--out benchmarks/results/lesions.json]

Breast k is a held-out phantom; its box is that of its true lesion, a mass for even k and a spiculated one for odd k,
so that what is filled in can be compared with what belongs there. Six parts, one row an image in lesions.csv.gz
beside the JSON, which holds their summaries (`lesion_statistics`):

arms     true lesion, none, filled with three feathers, pasted in the old ways; in breasts as drawn and after the
         autoencoder, beyond which nothing that writes latents can go
sweep    "a mammogram with a mass" by guidance and steps, measured in the raw decode, the seam after pasting back
paper    the paper's own sentence by guidance, 24 steps
words    the sentence of each finding and "a mammogram", read by `evaluation.findings` in the raw decode
truth    what the same readers say of true findings, as drawn and after the autoencoder: the ceiling of `words`
removal  a true lesion's box filled with "a mammogram", without guidance and with, beside the lesion itself and the
         breast that never had one

Cells lie in build/lesions/WEIGHTS; the same command goes on where it was stopped. About eight minutes on one core.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lesion_statistics import MEASURES, summary, write_rows
from numpy.typing import NDArray
from provenance import report

from mame_lib.data.canvas import Canvas
from mame_lib.data.case import FINDINGS
from mame_lib.data.lesions import LesionSpec
from mame_lib.data.phantom import Phantom, draw
from mame_lib.data.prompts import CONSTANT_PROMPT, FINDING_PROMPTS, LESION_PROMPT
from mame_lib.errors import InputError
from mame_lib.evaluation.degradations import round_trip
from mame_lib.evaluation.findings import READ, read_findings
from mame_lib.evaluation.pastes import feathered_paste, hard_paste, poisson_paste
from mame_lib.evaluation.realism import Box, ellipse, realism
from mame_lib.evaluation.sweep_models import weights_hash
from mame_lib.generation import Mame
from mame_lib.synthetic import Inpainted

BUILD = Path("build/lesions")
HELD_OUT, DONORS = 900_011, 900_012  # seeds of phantoms that no model was trained on
AREA = (0.003, 0.04)  # box / image, uniform in the logarithm, as in the model's training
SEED, STEPS, GUIDANCE = 0, 24, 4.0
FEATHERS = (0.0, 1.5, 3.0)
SCALES, STEP_COUNTS = (1.0, 2.0, 4.0, 7.0, 10.0), (6, 12, 24, 50)
PAPER_SCALES = (1.0, 4.0, 10.0)
PROMPTS = {**FINDING_PROMPTS, "healthy": CONSTANT_PROMPT}
BRIGHT = 1.0  # added attenuation of specks that are drawn to be seen: the difference between gland and fat

Images = NDArray[np.uint8]
Row = dict[str, Any]


@dataclass(frozen=True)
class Host:
    """One breast with its lesion and without, what another breast's lesion looks like, and the words' true lesions."""

    ill: Phantom
    well: Phantom
    patch: Images

    @property
    def box(self) -> Box:
        """The box of the true lesion."""
        return self.ill.lesions[0].box


def with_lesion(seed: int, index: int, spec: LesionSpec) -> Phantom:
    """A phantom with a lesion, smaller where the breast has no room for the area asked for."""
    while True:
        try:
            return draw(seed=seed, index=index, lesion=spec)
        except InputError:
            assert spec.area
            spec = replace(spec, area=0.7 * spec.area)


def spec_of(index: int, finding: str) -> LesionSpec:
    """A lesion whose size and margin depend on the index alone."""
    chance, place = np.random.default_rng([HELD_OUT, index]).random(2)
    return LesionSpec.of_finding(finding, chance, float(AREA[0] * (AREA[1] / AREA[0]) ** place))


def host(index: int) -> Host:
    """Breast `index` and the patch to paste: the lesion of a donor, as large as its own and of its kind."""
    finding = FINDINGS[1 + index % 2]
    ill = with_lesion(HELD_OUT, index, spec_of(index, finding))
    x0, y0, x1, y1 = ill.lesions[0].box
    width, height = x1 - x0, y1 - y0
    spec = replace(spec_of(index, finding), area=width * height / ill.image.size, aspect=height / width)
    donor = next(d for k in range(99) if (d := _drawn(DONORS + k, index, spec)))
    left, top = _around(donor.lesions[0].box, width, height, len(donor.image))
    return Host(ill, draw(seed=HELD_OUT, index=index), donor.image[top : top + height, left : left + width])


def _drawn(seed: int, index: int, spec: LesionSpec) -> Phantom | None:
    """A phantom with this lesion; None where its breast has no room for it."""
    try:
        return draw(seed=seed, index=index, lesion=spec)
    except InputError:
        return None


def _around(box: Box, width: int, height: int, size: int) -> tuple[int, int]:
    """Left and top of a window of that size around the middle of a box, within the image."""
    left, top = (box[0] + box[2] - width) // 2, (box[1] + box[3] - height) // 2
    return min(max(left, 0), size - width), min(max(top, 0), size - height)


class Bench:
    """The model, the hosts, and what is measured on them."""

    def __init__(self, mame: Mame, indices: Sequence[int]) -> None:
        self.mame, self.indices, self.hosts = mame, indices, [host(k) for k in indices]
        self.filled: dict[tuple[Any, ...], list[Inpainted]] = {}
        self.boxes = [one.box for one in self.hosts]
        self.breasts = [one.well.mask for one in self.hosts]
        self.ill = np.stack([one.ill.image for one in self.hosts])  # [N, n, n]
        self.well = np.stack([one.well.image for one in self.hosts])
        self.ill_decoded, self.well_decoded = (self.decoded(images) for images in (self.ill, self.well))

    def decoded(self, images: Images) -> Images:
        """Images [N, n, n] after the autoencoder."""
        return round_trip(images, self.mame.components.vae)

    def fill(
        self, images: Images, prompt: str, guidance: float = GUIDANCE, steps: int = STEPS
    ) -> list[Inpainted]:
        """Every host's box filled, image k from noise k whatever the cell; nothing is filled twice."""
        key = (id(images), prompt, guidance, steps)
        if key not in self.filled:
            self.filled[key] = self.mame.inpaint(
                list(images), box=[list(box) for box in self.boxes], prompt=prompt, guidance_scale=guidance,
                steps=steps, seed=SEED, start_index=self.indices[0],
            )  # fmt: skip
        return self.filled[key]

    def rows(self, images: Images, world: str, **said: Any) -> Iterator[Row]:
        """Measures and readings of one image a host, in breasts as drawn or as decoded."""
        found = realism(images, self.boxes, self.breasts)
        before = self.well if world == "drawn" else self.well_decoded
        lesions = [ellipse(box, images.shape[-1]) for box in self.boxes]
        change = images.astype(np.float64) - before
        found["added"] = np.array([one[lesion].mean() for one, lesion in zip(change, lesions, strict=True)])
        chances = read_findings(images, self.boxes, self.breasts, world=world)
        for k, index in enumerate(self.indices):
            yield {
                **said, "world": world, "index": index, **{name: float(found[name][k]) for name in MEASURES},
                **{f"chance_{word}": float(chances[k, j]) for j, word in enumerate(READ)},
            }  # fmt: skip

    def arms(self) -> list[Row]:
        """Everything that a box may hold, in breasts as drawn and as decoded."""
        made = self.fill(self.well, FINDING_PROMPTS["mass"])
        raw = np.stack([one.raw for one in made])
        again = self.fill(self.well_decoded, FINDING_PROMPTS["mass"])
        drawn: dict[str, Images] = {"true lesion": self.ill, "no lesion": self.well}
        for feather in FEATHERS:
            drawn[f"filled, feather {feather:g}"] = self.pasted(raw, self.well, feather)
        drawn["filled, detail kept"] = self.pasted(raw, self.well_decoded, FEATHERS[1])
        for name, paste in (("cut", hard_paste), ("feathered cut", feathered_paste), ("gradients", poisson_paste)):
            rows = zip(self.well, self.hosts, strict=True)
            drawn[f"pasted, {name}"] = np.stack([paste(image, one.patch, one.box) for image, one in rows])
        decoded: dict[str, Images] = {
            "true lesion": self.ill_decoded, "no lesion": self.well_decoded, "filled, raw decode": raw,
            "filled, feather 1.5": np.stack([one.pixels for one in again]),
        }  # fmt: skip
        worlds = {"drawn": drawn, "decoded": decoded}
        return [row for w, some in worlds.items() for name, i in some.items() for row in self.rows(i, w, arm=name)]

    def pasted(self, raw: Images, before: Images, feather: float) -> Images:
        """What the model made, or how it differs from `before`, put back into the breasts as drawn."""
        canvases = [Canvas(i, _mask(box, len(i)), len(i)) for i, box in zip(self.well, self.boxes, strict=True)]
        change = raw.astype(np.float32) - before
        return np.stack([canvas.paste(one, feather) for canvas, one in zip(canvases, change, strict=True)])

    def cell(self, prompt: str, guidance: float = GUIDANCE, steps: int = STEPS, ill: bool = False) -> list[Row]:
        """One setting, measured in the raw decode; the seam after pasting back with the default feather."""
        made = self.fill(self.ill if ill else self.well, prompt, guidance, steps)
        said = {"prompt": prompt, "guidance": guidance, "steps": steps}
        rows = list(self.rows(np.stack([one.raw for one in made]), "decoded", **said))
        seams = self.rows(np.stack([one.pixels for one in made]), "drawn", **said)
        return [{**row, "seam": pasted["seam"]} for row, pasted in zip(rows, seams, strict=True)]

    def truth(self) -> list[Row]:
        """What the readers say of true findings of the same size; "specks" is a cluster that is drawn to be seen."""
        found: list[Row] = []
        names = {**{f: f for f in FINDINGS[1:]}, "bright specks": "calcification cluster"}
        for name, finding in names.items():
            specs = [spec_of(k, finding) for k in self.indices]
            if name == "bright specks":
                specs = [replace(spec, contrast=BRIGHT) for spec in specs]
            ill = [with_lesion(HELD_OUT, k, spec) for k, spec in zip(self.indices, specs, strict=True)]
            found += self.read(np.stack([one.image for one in ill]), [one.lesions[0].box for one in ill], name)
        return found + self.read(self.well, self.boxes, READ[0])

    def read(self, images: Images, boxes: Sequence[Box], name: str) -> list[Row]:
        """Chances of the words for boxes of their own, in both worlds."""
        rows = []
        for world, some in (("drawn", images), ("decoded", self.decoded(images))):
            chances = read_findings(some, boxes, self.breasts, world=world)
            for k, row in zip(self.indices, chances, strict=True):
                words = {f"chance_{word}": float(row[j]) for j, word in enumerate(READ)}
                rows.append({"arm": name, "world": world, "index": k, **words})
        return rows

    def removal(self) -> list[Row]:
        """A true lesion before and after its box was filled with "a mammogram", and the breast that never had one."""
        rows = [
            {"arm": f"removed, guidance {guidance:g}", **row}
            for guidance in (1.0, GUIDANCE) for row in self.cell(CONSTANT_PROMPT, guidance, ill=True)
        ]  # fmt: skip
        for name, images in (("true lesion", self.ill_decoded), ("no lesion", self.well_decoded)):
            rows += self.rows(images, "decoded", arm=name)
        return rows


def _mask(box: Box, size: int) -> NDArray[np.bool_]:
    mask = np.zeros((size, size), bool)
    mask[box[1] : box[3], box[0] : box[2]] = True
    return mask


def cells(bench: Bench) -> Iterator[tuple[str, Callable[[], list[Row]]]]:
    """Name and maker of every cell; the part is the name's first word."""
    yield "arms", bench.arms
    yield "truth", bench.truth
    for prompt in PROMPTS.values():
        yield f"words {prompt}", partial(bench.cell, prompt)
    yield "removal", bench.removal
    for guidance in PAPER_SCALES:
        yield f"paper {guidance:g}", partial(bench.cell, LESION_PROMPT, guidance)
    for steps in STEP_COUNTS:
        for guidance in SCALES:
            yield f"sweep {guidance:g} {steps}", partial(bench.cell, FINDING_PROMPTS["mass"], guidance, steps)


def main() -> None:
    """Make the cells that are not there yet, then summarize."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=48)
    parser.add_argument("--most", type=int, help="make so many cells, then stop")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "lesions.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    mame = Mame.load("inpaint")
    weights = weights_hash(mame.components)
    folder = BUILD / f"{weights[:12]}-{options.count}"
    folder.mkdir(parents=True, exist_ok=True)
    rows, seconds = [], 0.0
    for name, make in list(cells(Bench(mame, range(options.count))))[: options.most]:
        path, began = folder / f"{name}.json", time.process_time()
        if not path.exists():
            made = [{"part": name.split()[0], **row} for row in make()]
            path.write_text(json.dumps({"seconds": time.process_time() - began, "rows": made}), encoding="utf-8")
            print(f"{name}: {time.process_time() - began:.0f} s", flush=True)
        stored = json.loads(path.read_text(encoding="utf-8"))
        seconds += stored["seconds"]
        rows += stored["rows"]
    if options.most:
        return
    write_rows(rows, options.out.with_suffix(".csv.gz"))
    settings = {"images": options.count, "area": AREA, "seed": SEED, "steps": STEPS, "guidance": GUIDANCE}
    report(
        {**summary(rows), "settings": settings}, options.out, "torch", "diffusers",
        seeds=[HELD_OUT, DONORS], weights=weights, seconds=round(seconds),
    )  # fmt: skip


if __name__ == "__main__":
    main()
