"""A made image as files: PNG with its recipe inside, masks, on request the twin and a DICOM file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from mame_lib.data.case import Case
from mame_lib.synthesize.dicom_file import save_synthetic
from mame_lib.synthesize.folder import Row, sha256
from mame_lib.synthesize.spec import Spec
from mame_lib.synthesize.studio import Made, recipe

SOURCE = "mame synthesize"


def store(made: Sequence[Made], place: Path, spec: Spec, weights: dict[str, str]) -> list[Row]:
    """Write the files of each image below `place`; returns their rows."""
    return [_store(one, place, spec, weights) for one in made]


def _store(made: Made, place: Path, spec: Spec, weights: dict[str, str]) -> Row:
    name = made.plan.name
    files = {"images": _picture(place / "images" / f"{name}.png", made.image, weights)}
    files["masks"] = _mask(place / "masks" / f"{name}.png", made.measured.mask)
    if made.lesion is not None:
        files["lesions"] = _mask(place / "lesions" / f"{name}.png", made.lesion.mask)
        if spec.keep_twins:
            files["twins"] = _picture(place / "twins" / f"{name}.png", made.breast, weights)
    if spec.dicom:
        files["dicom"] = save_synthetic(place / "dicom" / f"{name}.dcm", made, weights)
    case = Case(
        id=name,
        patient=f"synthetic-{spec.seed}-{name}",
        image=f"images/{name}.png",
        prompt=made.prompt,
        attributes=made.attributes,
        split=made.plan.split,
        source=SOURCE,
        mask=f"masks/{name}.png",
        lesion=f"lesions/{name}.png" if made.lesion else None,
        boxes=(made.lesion.box,) if made.lesion else (),
        kept=(1.0,) if made.lesion else (),
    )
    return {
        "index": made.plan.index,
        **recipe(made, spec, weights),
        "pixels": hashlib.sha256(np.ascontiguousarray(made.image.pixels).tobytes()).hexdigest()[:16],
        "case": json.loads(case.to_line()),
        "files": {path.relative_to(place).as_posix(): sha256(path) for path in files.values()},
    }


def _picture(path: Path, image: Any, weights: dict[str, str]) -> Path:
    """A PNG that says how it was made, and that it is synthetic."""
    info = PngInfo()
    for key, value in {**image.metadata(), "Weights": json.dumps(weights)}.items():
        info.add_itxt(key, value)
    Image.fromarray(image.pixels).save(path, format="PNG", pnginfo=info)
    return path


def _mask(path: Path, mask: NDArray[np.bool_]) -> Path:
    Image.fromarray(mask.astype(np.uint8) * np.uint8(255)).save(path, format="PNG")
    return path
