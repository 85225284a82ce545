"""The command `mame audit`: does a model, or a folder of images, repeat the images that it was trained on?"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mame_lib.argument_types import positive, real, seed, whole
from mame_lib.errors import InputError
from mame_lib.terminal import check_out, quiet_libraries, with_bar

if TYPE_CHECKING:
    from mame_lib.data.case import Case
    from mame_lib.data.manifest import Manifest
    from mame_lib.evaluation.memorization import Audit, Space

REPORT, PICTURE = "report.json", "worst.png"
PAIRS = 8  # in the picture
EXTENSIONS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")


def add_parser(commands: Any) -> None:
    """Arguments of `mame audit`."""
    about = "look for copies of training images in what a model makes"
    after = "Exit status: 0 no copies found, 1 copies found, 2 a mistake."
    command = commands.add_parser("audit", help=about, epilog=after, allow_abbrev=False)
    add = command.add_argument
    run_help = "run folder, model folder, shipped model or Hub id, to draw images from"
    add("run", nargs="?", metavar="RUN", help=run_help)
    add("--images", type=Path, metavar="FOLDER", help="images that are there already, instead of RUN")
    add("--data", type=Path, required=True, metavar="DIR", help="data set whose training split the model learned from")
    held_help = "data set of other patients, to calibrate on (default: validation and test split of --data)"
    add("--held-out", type=Path, metavar="DIR", help=held_help)
    alarms_help = "share of images that may be called copies though they copy nothing (default: 0.01)"
    add("--false-alarms", type=positive, default=0.01, metavar="SHARE", help=alarms_help)
    add("--count", type=whole(1), default=100, help="images to draw, under captions of the training set (default: 100)")
    add("--steps", type=whole(1, 1000), default=24, help="sampler steps (default: 24)")
    add("--guidance-scale", type=real, default=4.0, help="1: no guidance (default: 4)")
    add("--seed", type=seed, default=0, help="(default: 0)")
    add("--out", type=Path, metavar="DIR", help="folder for the report (default: NAME-audit in this folder)")
    command.set_defaults(command="audit")


def run(arguments: argparse.Namespace) -> int:
    """Exit status 0, or 1 when copies are found."""
    if (arguments.run is None) == (arguments.images is None):
        raise InputError("say what to audit: either a model, `mame audit RUN --data DIR`, or --images FOLDER.")
    if arguments.false_alarms >= 1:
        raise InputError(f"--false-alarms {arguments.false_alarms:g} is a share below 1, such as 0.01.")
    name = Path(arguments.run or arguments.images).resolve().name
    out = arguments.out or Path(f"{name}-audit")
    check_out(out)
    if out.exists() and not (out.is_dir() and ((out / REPORT).is_file() or not any(out.iterdir()))):
        raise InputError(f"{out} is there and holds no audit; give another folder with --out.")
    quiet_libraries()
    from mame_lib.data.folders import complete_or_nothing

    report, said = _audit(arguments)
    print(_told(report))
    with complete_or_nothing(out) as partial:
        _write(report, said, partial)
    print(f"worst pairs: {out / PICTURE}; numbers: {out / REPORT}")
    if report["training_source"] != "phantom":
        print("the picture shows training images, which may identify patients: keep it where the data are kept.")
    return 1 if said.copies_found else 0


def _audit(arguments: argparse.Namespace) -> tuple[dict[str, Any], Audit]:
    """The report, and the audit behind it."""
    import numpy as np

    from mame_lib.data.manifest import load
    from mame_lib.evaluation import memorization
    from mame_lib.evaluation.features import phantom_features

    data = load(arguments.data)
    training = data.split("train")
    outside, others = _held_out(data, training, arguments)
    model = None if arguments.run is None else _model(arguments.run)  # mistakes first, then the long work
    stack = _pixels(data, training, data)
    side = stack.shape[1]
    given = None if arguments.images is None else _folder(arguments.images, side)
    spaces: dict[str, Space] = {"features": phantom_features()}
    if model is not None:
        spaces["latent"] = memorization.latent_space(model.components.vae)
    known = memorization.TrainingSet(
        stack, patients=[case.patient for case in training], spaces=spaces,
        progress=lambda chunks, total: with_bar(chunks, total, "batch"),
    )  # fmt: skip
    calibration = memorization.calibrate(
        known, _pixels(outside, others, data), patients=[case.patient for case in others],
        false_alarms=arguments.false_alarms,
    )  # fmt: skip
    if model is not None:
        captions = _mixed([case.prompt for case in training], arguments.count)
        drawn = model.stream(
            captions, guidance_scale=arguments.guidance_scale, steps=arguments.steps, seed=arguments.seed,
            count=arguments.count,
        )  # fmt: skip
        images = np.stack([one.pixels for one in with_bar(drawn, arguments.count, "image")])
        if images.shape[1] != side:
            raise InputError(f"the model makes {images.shape[1]} pixels, the data have {side}; give data of its size.")
        names = [f"seed {arguments.seed}, index {k}, {caption!r}" for k, caption in enumerate(captions)]
    else:
        assert given is not None
        names, images = given
    said = memorization.audit(images, known, calibration)
    return _report(arguments, data, training, names, said), said


def _held_out(data: Manifest, training: Sequence[Case], arguments: argparse.Namespace) -> tuple[Manifest, list[Case]]:
    """The data set and the cases to calibrate on; InputError if they are not other patients, or too few."""
    from mame_lib.data.manifest import load
    from mame_lib.evaluation.memorization import fewest

    if arguments.held_out is None:
        outside, cases = data, [*data.split("validation"), *data.split("test")]
    else:
        outside = load(arguments.held_out)
        cases = list(outside.cases)
    if both := {case.patient for case in cases} & {case.patient for case in training}:
        raise InputError(
            f"{len(both)} held-out patients are in the training split of {arguments.data} too; give data of others."
        )
    needed, patients = fewest(arguments.false_alarms), len({case.patient for case in cases})
    if patients < needed:
        raise InputError(
            f"{arguments.held_out or arguments.data} has {patients} held-out patients, but {arguments.false_alarms:g} "
            f"false alarms need {needed}; give more with --held-out DIR, or allow more with --false-alarms."
        )
    return outside, cases


def _pixels(data: Manifest, cases: Sequence[Case], like: Manifest) -> Any:
    """Images of the cases, uint8 [N, n, n], of the size of those of `like`."""
    import numpy as np

    if not cases:
        raise InputError(f"{data.root} has no training image.")
    side = like.image(like.cases[0]).shape[0]
    images = []
    for case in cases:
        image = data.image(case)
        if image.shape != (side, side):
            raise InputError(f"{data.root / case.image} is {list(image.shape)} pixels, not {side} x {side}.")
        images.append(image)
    return np.stack(images)


def _model(name: str) -> Any:
    from mame_lib.generation import Mame

    return Mame.load(Path(name) / "model" if (Path(name) / "model").is_dir() else name)


def _folder(folder: Path, side: int) -> tuple[list[str], Any]:
    """Names and pixels uint8 [N, side, side] of the pictures in a folder, or of the images of a data set."""
    import numpy as np
    from PIL import Image

    from mame_lib.data.levels import read_bytes
    from mame_lib.data.manifest import is_manifest

    if not folder.is_dir():
        raise InputError(f"{folder} is no folder; give one that holds images.")
    place = folder / "images" if is_manifest(folder) else folder
    files = sorted(path for path in place.iterdir() if path.suffix.lower() in EXTENSIONS)
    if not files:
        raise InputError(f"{place} holds no image ({', '.join(EXTENSIONS)}).")
    images = []
    for path in files:
        gray = Image.fromarray(read_bytes(path))
        if gray.width != gray.height:
            raise InputError(f"{path} is {gray.width} x {gray.height} pixels; only squares can be compared.")
        images.append(np.asarray(gray if gray.width == side else gray.resize((side, side), Image.Resampling.BILINEAR)))
    return [path.name for path in files], np.stack(images)


def _mixed(captions: Sequence[str], count: int) -> list[str]:
    """Captions of `count` training images, spread evenly over the set."""
    return [captions[k * len(captions) // count % len(captions)] for k in range(count)]


def _report(
    arguments: argparse.Namespace, data: Manifest, training: Sequence[Case], names: Sequence[str], said: Audit
) -> dict[str, Any]:
    calibration = said.calibration
    pairs = [
        {
            "image": names[k],
            "training": training[int(said.match[k])].image,
            "copy": bool(said.flagged[k]),
            "plain": bool(said.plain[k]),
            "suspicion": round(float(said.suspicion[k]), 4),
            "space": said.space[k],
            "moved": str(said.matches.transform[k]),
            **{f"{name} distance": round(float(one.distance[k]), 4) for name, one in said.matches.spaces.items()},
            **{f"{name} ratio": round(float(one.ratio[k]), 4) for name, one in said.matches.spaces.items()},
        }
        for k in said.order[: max(PAIRS, int(said.flagged.sum()))]
    ]
    settings = {key: getattr(arguments, key) for key in ("count", "steps", "guidance_scale", "seed")}
    low, high = said.interval
    return {
        "audited": Path(arguments.run or arguments.images).name,
        **({} if arguments.run is None else {"settings": settings}),
        "training_source": data.info.get("source", "unknown"),
        "training_images": len(training),
        "held_out_patients": calibration.units,
        "false_alarms_allowed": calibration.false_alarms,
        "confidence": calibration.confidence,
        "threshold": round(calibration.threshold, 4),
        "images": len(names),
        "copies": int(said.flagged.sum()),
        "plain_copies": int(said.plain.sum()),
        "rate": round(said.rate, 4),
        "interval": [round(low, 4), round(high, 4)],
        "copies_found": said.copies_found,
        "pairs": pairs,
    }


def _told(report: dict[str, Any]) -> str:
    """The report in plain words."""
    low, high = report["interval"]
    count, images, allowed = report["copies"], report["images"], report["false_alarms_allowed"]
    lines = [
        f"{report['audited']}: {images:,} images against {report['training_images']:,} training images, calibrated on "
        f"{report['held_out_patients']:,} held-out patients",
        f"called copies: {count:,} of {images:,} ({count / images:.1%}, 95 % interval {low:.1%} to {high:.1%}), "
        f"{report['plain_copies']:,} of them plainly",
        f"of images that copy nothing at most {allowed:.2g} would be called copies ({report['confidence']:.0%} sure)",
    ]
    if report["copies_found"]:
        lines.append("copies found: the model repeats training images. Look at the pairs before you share it.")
    elif count:
        lines.append("no more than false alarms explain; look at the pairs all the same.")
    else:
        lines.append(f"no copy found among these; the true rate may still be up to {high:.1%}.")
    lines.append("most suspicious:")
    for pair in report["pairs"][:3]:
        what = "COPY of" if pair["copy"] else "nearest"
        lines.append(f"  {pair['suspicion']:.2f} (threshold {report['threshold']:.2f}): {pair['image']} {what} "
                     f"{pair['training']}, by {pair['space']}")  # fmt: skip
    return "\n".join(lines)


def _write(report: dict[str, Any], said: Audit, folder: Path) -> None:
    from mame_lib import __version__
    from mame_lib.evaluation.memorization import worst_pairs
    from mame_lib.models.components import NOTICE
    from mame_lib.synthetic import save_png, text_chunks

    title = f"Audit of {report['audited']}: generated images, and the nearest training images"
    chunks = text_chunks(title, {"threshold": report["threshold"]})
    save_png(worst_pairs(said, PAIRS), chunks, folder / PICTURE)
    text = json.dumps({**report, "version": __version__, "notice": NOTICE}, indent=1, ensure_ascii=False)
    (folder / REPORT).write_text(text + "\n", encoding="utf-8")
