"""Are copies found, are strangers left alone, which models copy, and are the shipped ones clear?

    python benchmarks/memorization_models.py --work build/memorization
    python benchmarks/memorization.py --work build/memorization --out benchmarks/results/memorization.json

Planted: 100 training images of `fused` in each of twelve disguises, and 700 phantoms of another seed, against all of
its training images; beside the whole rule its single scores, each with a threshold of its own, the pixels without the
search, and the first look of `mame synthesize`. Models: what 16 overfitted models draw (see memorization_models.py),
and extraction attempts by prompt. Shipped: 300 images of each shipped model against the phantoms that it learned from,
and training images against each other. A row an image goes to memorization.csv.gz, the worst pairs of the smallest and
the largest set to memorization.png. What is done is kept in --work: the same command goes on. Half an hour of CPU time.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import json
import shutil
import time
from collections.abc import Callable, Iterable
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from provenance import report
from scipy.stats import binom

from mame_lib.data import manifest
from mame_lib.data.prompts import TRAINING_PROMPTS
from mame_lib.data.sources import phantom_source
from mame_lib.evaluation import memorization as m
from mame_lib.evaluation.adherence import wilson
from mame_lib.evaluation.copies import FLIPS, Transform
from mame_lib.evaluation.degradations import blurred, jpeg, noisy, round_trip
from mame_lib.evaluation.features import phantom_features
from mame_lib.evaluation.sweep_sheet import notice
from mame_lib.generation import Mame
from mame_lib.synthesize.checks import QUANTILE, thumbnails

Gray = NDArray[np.uint8]
Row = dict[str, Any]

COUNTS, STEPS = (20, 80, 320, 1280), (100, 300, 600, 1200)
SETS: dict[str, dict[str, Any]] = {
    "calibration": {"count": 1000, "seed": 31_100_000},
    "held-out": {"count": 1000, "seed": 31_200_000},
    # what the shipped models learned from, see tools/train_tiny_models.py
    "fused": {"count": 4000, "seed": 23},
    "hologic": {"count": 2500, "seed": 21, "vendor": "hologic"},
    "siemens": {"count": 2500, "seed": 22, "vendor": "siemens"},
    "more hologic": {"count": 80, "seed": 31_300_000, "vendor": "hologic"},
    "more siemens": {"count": 80, "seed": 31_400_000, "vendor": "siemens"},
}
CALIBRATING = {"fused": 700, "models": 400}  # held-out phantoms that set a threshold
JUDGED = {"fused": 700, "models": 200}  # others, that count its false alarms
PLANTED, SAMPLES, SHIPPED, ONE_CAPTION = 100, 100, 300, 60
LEFT_OUT = 300  # training images that are compared with the others
PICTURE = "pairs.png"
LEAST = 3  # equal samples of one caption that make an extraction attempt


class Work:
    """The folder of data, models, and rows that are done."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @cache  # noqa: B019  one object for the whole run
    def data(self, name: str) -> manifest.Manifest:
        """A set of phantoms, drawn where it is not there yet."""
        folder = self.root / "sets" / name
        if not folder.exists():
            manifest.write(folder, phantom_source(**SETS[name]), source="phantom", settings=SETS[name])
        return manifest.load(folder)

    def images(self, name: str, split: str | None = None, count: int | None = None) -> Gray:
        data = self.data(name)
        return stacked(data, data.split(split) if split else data.cases, count)

    def rows(self, cell: str, make: Callable[[], list[Row]]) -> list[Row]:
        """The rows of a cell, made once."""
        path = self.root / "rows" / f"{cell}.json"
        if not path.exists():
            print(f"{time.strftime('%H:%M:%S')} {cell}", flush=True)
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished = path.with_suffix(".partial")
            unfinished.write_text(json.dumps([{"cell": cell, **row} for row in make()]), encoding="utf-8")
            unfinished.rename(path)
        return list(json.loads(path.read_text(encoding="utf-8")))

    def part(self, name: str) -> dict[str, Any]:
        """The result of one of `PARTS`, computed once."""
        path = self.root / "parts" / f"{name}.json"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.with_suffix(".partial").write_text(json.dumps(PARTS[name](self)), encoding="utf-8")
            path.with_suffix(".partial").rename(path)
        return dict(json.loads(path.read_text(encoding="utf-8")))


def stacked(data: manifest.Manifest, cases: Iterable[Any], count: int | None = None) -> Gray:
    return np.stack([data.image(case) for case in list(cases)[:count]])


def rows_of(matches: m.Matches) -> list[Row]:
    """What is kept of each image: distance and ratio in each space, which training image, and how it lies on it."""
    rows = []
    for k in range(len(matches)):
        row: Row = {"image": k}
        for name, space in matches.spaces.items():
            row[f"{name} index"] = int(space.index[k])
            row[f"{name} distance"] = round(float(space.distance[k]), 5)
            row[f"{name} second"] = round(float(space.second[k]), 5)
            row[f"{name} others"] = round(float(space.others[k]), 5)
        how = matches.transform[k]
        rows.append({**row, "flip": how.flip, "angle": how.angle, "dx": how.dx, "dy": how.dy})
    return rows


def matches_of(rows: list[Row]) -> m.Matches:
    """The inverse of `rows_of`."""
    names = [key.removesuffix(" index") for key in rows[0] if key.endswith(" index")]
    spaces = {
        name: m.Neighbors(*(np.array([row[f"{name} {part}"] for row in rows])
                            for part in ("index", "distance", "second", "others")))
        for name in names
    }  # fmt: skip
    return m.Matches(spaces, tuple(Transform(row["flip"], row["angle"], row["dx"], row["dy"]) for row in rows))


def compared(images: Gray, known: Callable[[], m.TrainingSet]) -> list[Row]:
    return rows_of(m.nearest(images, known()))


def training_of(images: Gray, vae: Any, **more: m.Space) -> m.TrainingSet:
    return m.TrainingSet(images, spaces={"latent": m.latent_space(vae), **more})


@lru_cache(maxsize=1)
def training_set(work: Work, name: str) -> m.TrainingSet:
    """What a shipped model learned from, with the spaces of its autoencoder and of the features."""
    return training_of(work.images(name, "train"), Mame.load(name).components.vae, features=phantom_features())


def disguises(images: Gray, vae: Any) -> dict[str, Gray]:
    """Copies [N, n, n] by the name of what was done to them."""
    rng = np.random.default_rng(0)

    def moved(flips: tuple[str, ...] = ("",), angle: float = 0, shift: float = 0) -> Gray:
        return np.stack([
            Transform(str(rng.choice(flips)), rng.uniform(-angle, angle), *rng.uniform(-shift, shift, 2)).apply(image)
            for image in images
        ])  # fmt: skip

    everything = moved(FLIPS, 6, 3 / 128)
    return {
        "exact": images,
        "noise, sd 4": np.stack([noisy(image, 4, rng) for image in images]),
        "noise, sd 12": np.stack([noisy(image, 12, rng) for image in images]),
        "blur, sigma 1.5 px": np.stack([blurred(image, 1.5) for image in images]),
        "JPEG, quality 20": np.stack([jpeg(image, 20) for image in images]),
        "gain 0.7, offset 20": np.rint(0.7 * images + 20).astype(np.uint8),
        "autoencoder": round_trip(images, vae),
        "autoencoder, noisy latents": round_trip(images, vae, latent_noise=0.2),
        "mirrored": moved(("h", "v", "hv")),
        "shifted, 3 px at most": moved(shift=3 / 128),
        "turned, 6 degrees at most": moved(angle=6),
        "all at once": np.stack([noisy(jpeg(blurred(image, 0.8), 60), 4, rng) for image in everything]),
    }


def planted(work: Work) -> dict[str, Any]:
    """Copies in disguise, and strangers, against the training images of `fused`."""
    vae = Mame.load("fused").components.vae
    images = work.images("fused", "train")
    chosen = np.sort(np.random.default_rng(1).choice(len(images), PLANTED, replace=False))
    known = partial(training_set, work, "fused")
    copies = disguises(images[chosen], vae)
    plain = thumbnails(images)
    unsearched = {"calibration": work.images("calibration", count=CALIBRATING["fused"]),
                  "held-out": work.images("held-out", count=JUDGED["fused"])}  # fmt: skip
    cells = {
        f"fused, {name}": work.rows(f"fused, {name}", partial(compared, some, known))
        for name, some in {**unsearched, **copies}.items()
    }
    own_rows = work.rows(
        "fused, training", lambda: rows_of(m.nearest(images[:LEFT_OUT], known(), patients=known().patients[:LEFT_OUT]))
    )
    calibration = m.calibrate(None, matches_of(cells["fused, calibration"]))
    parts = {name: calibration.parts(matches_of(rows)) for name, rows in cells.items()}
    first_look = {f"fused, {name}": looks(some, plain) for name, some in {**unsearched, **copies}.items()}
    full = {f"fused, {name}": full_size_nndr(some, images) for name, some in {**unsearched, **copies}.items()}
    own = (lambda t: np.sort((t @ t.T - 2 * np.eye(len(t), dtype=np.float32)).max(1)))(plain)
    limit = float(np.quantile(own, QUANTILE))
    table = {}
    for name in ("held-out", *copies):
        cell = f"fused, {name}"
        matches = matches_of(cells[cell])
        suspicion = calibration.of(matches)
        told = {"found": share(suspicion > calibration.threshold), "least_suspicion": round(float(suspicion.min()), 3)}
        if name in copies:
            right = audit_match(matches, calibration) == chosen
            told["right_image"] = share(right)
        told["alone"] = {
            score: round(float((values > own_limit(parts["fused, calibration"][score], calibration.allowed)).mean()), 3)
            for score, values in parts[cell].items()
        }
        for title, ratios in (
            ("nndr_of_32_pixels_without_search", {key: ratio for key, (_, ratio) in first_look.items()}),
            ("nndr_of_gray_levels_without_search", full),
        ):
            limit_of_it = -own_limit(-ratios["fused, calibration"], calibration.allowed)
            told[title] = round(float((ratios[cell] < limit_of_it).mean()), 3)
        told["first_look_of_synthesize"] = round(float((first_look[cell][0] > limit).mean()), 3)
        table[name] = told
    return {
        "training_images": len(images), "calibration": summary(calibration), "planted": table,
        "first_look_threshold": round(limit, 5),
        "training_against_each_other": cell_summary(own_rows, calibration),
    }  # fmt: skip


def looks(images: Gray, plain: NDArray[np.float32]) -> tuple[Any, Any]:
    """Largest correlation of 32 x 32 pixels with a training image, and the distance ratio d1 / d2, without search."""
    near = -np.partition(-(thumbnails(images) @ plain.T), 1, axis=1)[:, :2]
    first, second = np.sqrt(np.maximum(2 - 2 * near, 0)).T
    return near[:, 0], first / np.maximum(second, 1e-6)


def full_size_nndr(images: Gray, training: Gray) -> Any:
    """d1 / d2 of plain gray levels at full size, as they lie: what is often called the nearest neighbor test."""
    known = training.reshape(len(training), -1).astype(np.float32)
    rows = images.reshape(len(images), -1).astype(np.float32)
    squares = (known**2).sum(1) - 2 * rows @ known.T + (rows**2).sum(1)[:, None]
    first, second = np.sqrt(np.maximum(np.partition(squares, 1, axis=1)[:, :2], 0)).T
    return first / np.maximum(second, 1e-6)


def own_limit(values: Any, allowed: int) -> float:
    return float(np.sort(values)[-allowed])


def audit_match(matches: m.Matches, calibration: m.Calibration) -> NDArray[np.int64]:
    parts = calibration.parts(matches)
    spaces = [list(parts)[k].rsplit(" ", 1)[0] for k in np.stack(list(parts.values())).argmax(0)]
    return np.array([matches.spaces[space].index[k] for k, space in enumerate(spaces)])


def share(yes: Any) -> list[float]:
    """Share, and Wilson's 95 % interval."""
    n, k = len(yes), int(np.sum(yes))
    return [round(float(value), 4) for value in (k / n, *wilson(k, n))]


def summary(calibration: m.Calibration) -> dict[str, Any]:
    return {
        "held_out": calibration.units, "allowed": calibration.allowed, "threshold": round(calibration.threshold, 4),
        "nearest_held_out": round(calibration.nearest_held_out, 4),
        "center": {name: round(value, 4) for name, value in calibration.center.items()},
        "scale": {name: round(value, 4) for name, value in calibration.scale.items()},
    }  # fmt: skip


def cell_summary(rows: list[Row], calibration: m.Calibration) -> dict[str, Any]:
    """What an audit says of the images of a cell."""
    matches = matches_of(rows)
    suspicion = calibration.of(matches)
    flagged = suspicion > calibration.threshold
    chance = float(binom.sf(int(flagged.sum()) - 1, len(flagged), calibration.false_alarms))
    plain = suspicion > 2 * calibration.threshold
    found = audit_match(matches, calibration)
    return {
        "images": len(flagged), "copies": int(flagged.sum()), "rate": share(flagged), "plain": int(plain.sum()),
        "chance_of_so_many_false_alarms": round(chance, 4), "copies_found": bool(plain.any() or chance < 0.05),
        "training_images_copied": len(set(found[flagged].tolist())),
        "median_detail_distance": round(float(np.median(matches.spaces["detail"].distance)), 4),
        "largest_suspicion": round(float(suspicion.max()), 3),
    }  # fmt: skip


def sampled(model: Mame, prompts: list[str], count: int, guidance: float, seed: int, steps: int = 12) -> Gray:
    drawn = model.stream(prompts, guidance_scale=guidance, steps=steps, seed=seed, count=count)
    return np.stack([one.pixels for one in drawn])


def overfitted(work: Work) -> dict[str, Any]:
    """The models that were made to memorize."""
    first = Mame.load(work.root / f"{COUNTS[0]}-{STEPS[0]}")
    data = manifest.load(work.root / f"phantoms-{COUNTS[-1]}")
    images, captions = stacked(data, data.cases), [case.prompt for case in data.cases]
    whole = training_of(images, first.components.vae)  # the autoencoder is the base model's in all of them
    outside = {name: work.images(name, count=number["models"])
               for name, number in (("calibration", CALIBRATING), ("held-out", JUDGED))}  # fmt: skip
    result: dict[str, Any] = {"sets": {}, "models": {}, "arms": {}, "extraction": {}}
    calibrations = {}
    for count in COUNTS:
        told, calibrations[count] = of_count(work, count, whole.first(count), captions[:count], outside)
        for part, found in told.items():
            result[part].update(found)
    rows = []
    for count in (COUNTS[0], COUNTS[-1]):  # copies, and images that are none
        known = whole.first(count)
        drawn = sampled(Mame.load(work.root / f"{count}-{STEPS[-1]}"), captions[:count], 12, 1.0, 7)
        rows.append(m.pair_images(m.audit(drawn, known, calibrations[count]), 3))
    sheet = np.concatenate(rows)  # [6, 4, n, n]
    tiles = sheet.transpose(0, 2, 1, 3).reshape(len(sheet) * sheet.shape[2], -1)
    Image.fromarray(tiles).save(work.root / PICTURE, optimize=True, pnginfo=notice())
    return result


def of_count(
    work: Work, count: int, known: m.TrainingSet, said: list[str], outside: dict[str, Gray]
) -> tuple[dict[str, Any], m.Calibration]:
    """All models of one size of the training set, whose captions are `said`; and what they were calibrated with."""
    held = {
        name: work.rows(f"{count}, {name}", partial(compared, some, lambda: known))
        for name, some in outside.items()
    }
    calibration = m.calibrate(None, matches_of(held["calibration"]))
    judged = cell_summary(held["held-out"], calibration)
    told: dict[str, Any] = {
        "sets": {str(count): {"calibration": summary(calibration), "false_alarms": judged["rate"]}},
        "models": {}, "arms": {},
    }  # fmt: skip

    def audited(label: str, steps: int, prompts: list[str], guidance: float) -> dict[str, Any]:
        def make() -> list[Row]:
            drawn = sampled(Mame.load(work.root / f"{count}-{steps}"), prompts, SAMPLES, guidance, 7)
            return rows_of(m.nearest(drawn, known))

        return cell_summary(work.rows(label, make), calibration)

    for steps in STEPS:
        told["models"][f"{count}-{steps}"] = audited(f"{count}-{steps}", steps, said, 1.0)
    last = f"{count}-{STEPS[-1]}"
    told["arms"][f"{last}, guidance 4"] = audited(f"{last}, guidance 4", STEPS[-1], said, 4.0)
    others = [prompt for prompt in TRAINING_PROMPTS if prompt not in said]
    if len(others) >= 3:
        told["arms"][f"{last}, other captions"] = audited(f"{last}, other captions", STEPS[-1], others, 1.0)
    attempt = work.rows(f"{count}, extraction", lambda: extraction(work, count, said, known, calibration))
    told["extraction"] = {str(count): {key: value for key, value in attempt[0].items() if key != "cell"}}
    return told, calibration


def extraction(
    work: Work, count: int, said: list[str], known: m.TrainingSet, calibration: m.Calibration
) -> list[Row]:
    """Many samples of the rarest and of the most frequent caption of a training set."""
    model = Mame.load(work.root / f"{count}-{STEPS[-1]}")
    by_number = sorted(set(said), key=lambda caption: (said.count(caption), caption))
    row: Row = {}
    for name, caption in (("rarest", by_number[0]), ("most frequent", by_number[-1])):
        groups = m.extract(sampled(model, [caption], ONE_CAPTION, 1.0, 8), known, calibration, least=LEAST)
        row[name] = {
            "caption": caption, "training_images": said.count(caption), "samples": ONE_CAPTION,
            "groups": [len(group.members) for group in groups],
            "copies": [group.training for group in groups],
            "of_that_caption": sum(g.training is not None and said[g.training] == caption for g in groups),
        }  # fmt: skip
    return [row]


def shipped(work: Work) -> dict[str, Any]:
    """The models of the library against what they learned from."""
    return {name: of_model(work, name) for name in ("fused", "hologic", "siemens")}


def _missing() -> list[Row]:
    raise SystemExit("the part `planted` comes first")


def of_model(work: Work, name: str) -> dict[str, Any]:
    """One of them; `planted` has made the rows that calibrate `fused`."""
    model, data = Mame.load(name), work.data(name)
    known = partial(training_set, work, name)
    if name == "fused":
        held = work.rows("fused, calibration", _missing)
    else:
        outside = np.concatenate([work.images(name, "validation"), work.images(f"more {name}")])
        held = work.rows(f"{name}, calibration", lambda: rows_of(m.nearest(outside, known())))
    calibration = m.calibrate(None, matches_of(held))
    captions = [case.prompt for case in data.split("train")]
    told: dict[str, Any] = {"training_images": len(captions), "calibration": summary(calibration)}
    for guidance, number in ((4.0, SHIPPED), *([(1.0, SHIPPED // 3)] if name == "fused" else [])):

        def make(guidance: float = guidance, number: int = number) -> list[Row]:
            return rows_of(m.nearest(sampled(model, captions, number, guidance, 9), known()))

        rows = work.rows(f"{name}, samples, guidance {guidance:g}", make)
        told[f"guidance {guidance:g}"] = cell_summary(rows, calibration)
    return told


def cost(work: Work) -> dict[str, Any]:
    """CPU milliseconds of one thread, by the number of training images."""
    images, queries = work.images("fused", "train"), work.images("held-out", count=20)
    began = time.process_time()
    known = m.TrainingSet(images)
    each = (time.process_time() - began) / len(images)
    found: dict[str, Any] = {"prepare_ms": round(1e3 * each, 2), "query_ms": {}}
    for count in (20, 320, len(images)):
        began = time.process_time()
        m.nearest(queries, known.first(count))
        found["query_ms"][str(count)] = round(1e3 * (time.process_time() - began) / len(queries), 1)
    return found


def store(work: Work, out: Path) -> None:
    """All rows in one table."""
    rows = [row for path in sorted((work.root / "rows").glob("*.json")) if "extraction" not in path.name
            for row in json.loads(path.read_text(encoding="utf-8"))]  # fmt: skip
    text = io.StringIO()
    table = csv.DictWriter(text, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    out.write_bytes(gzip.compress(text.getvalue().encode(), mtime=0))


PARTS: dict[str, Callable[[Work], dict[str, Any]]] = {
    "planted": planted, "overfitted": overfitted, "shipped": shipped, "cost": cost,
}  # fmt: skip


def main() -> None:
    """Measure what is not there yet, and write it all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/memorization"))
    parser.add_argument("--part", choices=PARTS, nargs="+", help="only this, and write nothing yet")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    work = Work(asked.work)
    if asked.part:
        for name in asked.part:
            work.part(name)
        return
    result = {"settings": {"sets": SETS, "calibrating": CALIBRATING, "judged": JUDGED, "planted": PLANTED,
                           "samples": SAMPLES, "one_caption": ONE_CAPTION, "least": LEAST, "steps": 12,
                           "neighbors": m.NEIGHBORS},
              **{name: work.part(name) for name in PARTS}}  # fmt: skip
    if asked.out:
        store(work, asked.out.with_suffix(".csv.gz"))
        shutil.copyfile(work.root / PICTURE, asked.out.with_suffix(".png"))
    report(result, asked.out, "torch", "scipy", "pillow")


if __name__ == "__main__":
    main()
